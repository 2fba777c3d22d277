//! What a guest is made of, and xl's words for it (xl.cfg(5)).

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// The MAC address that a guest has unless it is said otherwise.
pub const MAC: &str = "00:16:3e:77:00:02";

/// How Xen runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the processor's virtualization, without emulated devices.
    Pvh,
    /// Paravirtualized.
    Pv,
}

/// A disk of a guest.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The image, raw, on this system.
    pub image: PathBuf,
    /// What the guest calls it: `xvda`.
    pub name: String,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct DomU {
    /// Its name: letters, digits and hyphens.
    pub name: String,
    /// How Xen runs it.
    pub kind: Kind,
    /// Its kernel, an ELF.
    pub kernel: PathBuf,
    /// What Linux unpacks into its memory to begin with.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub parameters: String,
    /// Its memory.
    pub memory_mib: u32,
    /// How many processors it has.
    pub processors: u32,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// The MAC address of its network interface on the bridge, if it has one.
    pub vif: Option<String>,
    /// More lines of xl's configuration: `vif_extra = 1`.
    pub extra: Vec<String>,
}

impl DomU {
    /// A PVH guest with one processor, 64 MiB of memory, a network interface and no disk.
    pub fn new(name: &str, kernel: &Path) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Pvh,
            kernel: kernel.to_owned(),
            ramdisk: None,
            parameters: String::new(),
            memory_mib: 64,
            processors: 1,
            disks: Vec::new(),
            vif: Some(MAC.to_owned()),
            extra: Vec::new(),
        }
    }

    /// xl's configuration. The files are where dom0 has them; there is one device for each disk.
    pub(super) fn configuration(&self, kernel: &str, ramdisk: Option<&str>, devices: &[&str]) -> Result<String> {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
        ensure!(!self.name.is_empty() && self.name.chars().all(is_plain), "{:?} is no name for a guest", self.name);
        let mut lines = vec![
            format!("name = '{}'", self.name),
            format!("type = '{}'", if self.kind == Kind::Pvh { "pvh" } else { "pv" }),
            format!("kernel = '{kernel}'"),
            format!("cmdline = {}", quoted(&self.parameters)?),
            format!("memory = {}", self.memory_mib),
            format!("vcpus = {}", self.processors),
        ];
        lines.extend(ramdisk.map(|path| format!("ramdisk = '{path}'")));
        lines.extend(self.vif.iter().map(|mac| format!("vif = ['mac={mac},bridge=xenbr0']")));
        let disk = |(disk, device): (&Disk, &&str)| {
            let access = if disk.writable { 'w' } else { 'r' };
            format!("'format=raw,vdev={},access={access},backendtype=phy,target={device}',", disk.name)
        };
        if !self.disks.is_empty() {
            let disks: String = self.disks.iter().zip(devices).map(disk).collect();
            lines.push(format!("disk = [{disks}]"));
        }
        // An emulated processor's time-stamp counter is not "invariant", and Xen would trap every look at it.
        if self.kind == Kind::Pvh {
            lines.push("tsc_mode = 'native'".to_owned());
        }
        // However it ends, it stays, to tell how it has ended.
        lines.extend(["poweroff", "reboot", "crash", "watchdog"].map(|end| format!("on_{end} = 'preserve'")));
        lines.extend(self.extra.iter().cloned());
        Ok(lines.join("\n") + "\n")
    }
}

/// A string in xl's configuration, which knows no escapes.
fn quoted(text: &str) -> Result<String> {
    ensure!(!text.contains('\n'), "xl takes no line break in {text:?}");
    match (text.contains('\''), text.contains('"')) {
        (false, _) => Ok(format!("'{text}'")),
        (true, false) => Ok(format!("\"{text}\"")),
        (true, true) => Err(anyhow::anyhow!("xl takes no string with both kinds of quotes: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_becomes_a_configuration() {
        let mut guest = DomU::new("web-1", Path::new("/k.elf"));
        let plain = guest.configuration("/k", None, &[]).unwrap();
        assert!(
            plain.starts_with("name = 'web-1'\ntype = 'pvh'\nkernel = '/k'\ncmdline = ''\nmemory = 64\n"),
            "{plain}"
        );
        assert!(plain.contains("vif = ['mac=00:16:3e:77:00:02,bridge=xenbr0']\n"), "{plain}");
        assert!(plain.contains("tsc_mode = 'native'\n") && plain.contains("on_reboot = 'preserve'\n"), "{plain}");
        assert!(!plain.contains("disk") && !plain.contains("ramdisk"), "{plain}");

        guest.kind = Kind::Pv;
        guest.parameters = "-i 10.77.0.2/24 it's".to_owned();
        guest.vif = None;
        guest.disks = ["xvda", "xvdb"]
            .map(|name| Disk { image: "/i".into(), name: name.into(), writable: name == "xvdb" })
            .to_vec();
        guest.extra = vec!["max_grant_frames = 4".to_owned()];
        let full = guest.configuration("/k", Some("/r"), &["/dev/sda", "/dev/sdb"]).unwrap();
        assert!(full.contains("type = 'pv'\n") && full.contains("ramdisk = '/r'\n"), "{full}");
        assert!(full.contains("cmdline = \"-i 10.77.0.2/24 it's\"\n"), "{full}");
        let disks = "disk = ['format=raw,vdev=xvda,access=r,backendtype=phy,target=/dev/sda',\
                     'format=raw,vdev=xvdb,access=w,backendtype=phy,target=/dev/sdb',]\n";
        assert!(full.contains(disks), "{full}");
        assert!(!full.contains("vif") && !full.contains("tsc_mode"), "{full}");
        assert!(full.ends_with("max_grant_frames = 4\n"), "{full}");
    }

    #[test]
    fn what_xl_would_misread_is_refused() {
        let mut guest = DomU::new("a b", Path::new("/k"));
        assert!(guest.configuration("/k", None, &[]).unwrap_err().to_string().contains("\"a b\""));
        guest.name = "a".to_owned();
        for bad in ["both ' and \"", "two\nlines"] {
            guest.parameters = bad.to_owned();
            assert!(guest.configuration("/k", None, &[]).is_err());
        }
    }
}
