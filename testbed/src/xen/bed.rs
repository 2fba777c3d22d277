//! What a Xen host is made of, fetched and put together once: Xen, Linux, and dom0's archive.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::domu::DomU;
use super::host::{Config, Host};
use crate::debian::{self, lock};
use crate::linux::{self, Debian, System, unpack, web};
use crate::qemu;

/// Debian's packages for the newest Xen and Linux that it has.
const XEN: &str = "xen-system-amd64";
const LINUX: &str = "linux-image-amd64";
/// What the name of a package begins with that ends in Xen's version.
const UTILITIES: &str = "xen-utils-";

/// Packages of programs in dom0 and in guests.
const PACKAGES: [&str; 6] = ["xenstore-utils", "curl", "ethtool", "iproute2", "wrk", web::PACKAGE];

/// Programs in dom0, by their path in the packages, beside those of Xen's own folder.
const PROGRAMS: [&str; 11] = [
    "bin/curl",
    "sbin/ethtool",
    "bin/ip",
    "bin/wrk",
    "bin/xenstore-exists",
    "bin/xenstore-list",
    "bin/xenstore-ls",
    "bin/xenstore-read",
    "bin/xenstore-rm",
    "bin/xenstore-watch",
    "bin/xenstore-write",
];

/// Programs in dom0 of Xen's own folder.
const XEN_PROGRAMS: [&str; 7] = ["xl", "xenstored", "xenconsoled", "xen-init-dom0", "xen-diag", "lsevtchn", "xentrace"];

/// dom0's drivers: Xen's devices, the backends, and what QEMU's devices need.
const DRIVERS: [&str; 16] = [
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "virtio_scsi",
    "sd_mod",
    "9pnet_virtio",
    "9p",
    "xen_evtchn",
    "xen_gntdev",
    "xen_gntalloc",
    "xen_privcmd",
    "xenfs",
    "xen_netback",
    "xen_blkback",
    "loop",
    "bridge",
];

/// dom0's own files.
const FILES: [(&str, &[u8]); 6] = [
    ("etc/hosts", b"127.0.0.1 localhost\n10.77.0.2 guest\n"),
    ("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
    ("etc/services", b"http 80/tcp\ntelnet 23/tcp\n"),
    ("etc/xen/xl.conf", b"autoballoon=\"off\"\n"),
    ("etc/xen/scripts/block", include_bytes!("scripts/block.sh")),
    ("etc/xen/scripts/vif-bridge", include_bytes!("scripts/vif-bridge.sh")),
];

const DOM0: &str = include_str!("scripts/dom0.sh");
const STAND_IN: &str = include_str!("scripts/stand-in.sh");

/// What is put together, by its name in the bed's folder.
pub(super) const XEN_FILE: &str = "xen";
pub(super) const LINUX_FILE: &str = "vmlinux";
pub(super) const DOM0_FILE: &str = "dom0.cpio";
const STAND_IN_FILE: &str = "stand-in.cpio";
const WEB_FILE: &str = "web.cpio";
/// Changes with how it is put together; what it consists of need not be counted here.
const FORMAT: u32 = 1;
/// Says what all of it was made of.
const STAMP_FILE: &str = "stamp";

/// What a Xen host is made of, in a folder.
#[derive(Clone, Debug)]
pub struct Bed {
    folder: PathBuf,
}

impl Bed {
    /// The bed in this folder (`target/xen`), made there if it is not there yet or if it is not what it should be by now. Any number
    /// of processes may call this at once.
    ///
    /// # Errors
    /// If apt can't fetch the packages.
    pub fn get(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        // QEMU runs there.
        let bed = Self { folder: folder.canonicalize()? };
        let _lock = lock(&bed.folder)?;
        let (stamp, recipe) = (bed.folder.join(STAMP_FILE), recipe());
        if fs::read_to_string(&stamp).is_ok_and(|made_of| made_of == recipe) {
            return Ok(bed);
        }
        let _ = fs::remove_file(&stamp);
        bed.make().context("the Xen host can't be made")?;
        fs::write(&stamp, recipe).with_context(|| format!("can't write {}", stamp.display()))?;
        Ok(bed)
    }

    /// Boots a Xen host of it.
    ///
    /// # Errors
    /// If it does not come up, with what its console has said.
    pub fn boot(&self, config: &Config) -> Result<Host> {
        Host::boot(&self.folder, config)
    }

    /// Debian's Linux as an ELF, for guests.
    pub fn linux(&self) -> PathBuf {
        self.folder.join(LINUX_FILE)
    }

    /// A guest that stands in for others: Linux with busybox, at this address (`10.77.0.2/24`), which says `stand-in: serving` when
    /// it answers HTTP. A shell runs what is posted to `/cgi-bin/run`.
    pub fn stand_in(&self, name: &str, address: &str) -> DomU {
        let mut guest = DomU::new(name, &self.linux());
        guest.ramdisk = Some(self.folder.join(STAND_IN_FILE));
        guest.parameters = format!("console=hvc0 quiet address={address}");
        guest.memory_mib = 256;
        guest
    }

    /// A Linux guest at this address that serves files by nginx with this configuration, out of its folder `/www`, and says
    /// [`web::SERVES`]. What it boots from goes into the file `ramdisk`. It has 256 MiB of memory, which may be too little.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn nginx(
        &self,
        name: &str,
        address: &str,
        configuration: &str,
        files: &[(&str, Vec<u8>)],
        ramdisk: &Path,
    ) -> Result<DomU> {
        let system = fs::read(self.folder.join(WEB_FILE)).context("the bed is not whole: remove its folder")?;
        let archive = [system, web::content(configuration, files)].concat();
        fs::write(ramdisk, archive).with_context(|| format!("can't write {}", ramdisk.display()))?;
        let mut guest = self.stand_in(name, address);
        guest.ramdisk = Some(ramdisk.to_owned());
        Ok(guest)
    }

    fn make(&self) -> Result<()> {
        let utilities = debian::dependencies(XEN, UTILITIES)?.pop();
        let utilities =
            utilities.with_context(|| format!("Debian's package {XEN} depends on no {UTILITIES}VERSION"))?;
        let version = &utilities[UTILITIES.len()..];
        let hypervisor = format!("xen-hypervisor-{version}-amd64");
        let packages = [&PACKAGES[..], &[&hypervisor, &utilities]].concat();
        let debian = Debian::get(&self.folder.join("packages"), LINUX, &packages)?;

        let xen = fs::read(debian.file(&format!("boot/xen-{version}-amd64.gz"))?)?;
        self.write(XEN_FILE, &unpack(xen)?)?;
        self.write(LINUX_FILE, &debian.vmlinux()?)?;
        let own = |program| format!("lib/xen-{version}/bin/{program}");
        let mut programs: Vec<String> = XEN_PROGRAMS.iter().map(own).collect();
        programs.extend(PROGRAMS.map(str::to_owned));
        let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
        let dom0 = System { programs: &programs, drivers: &DRIVERS, files: &FILES, init: DOM0 };
        self.write(DOM0_FILE, &debian.archive(&dom0)?)?;
        let stand_in = System { drivers: &linux::XEN, init: STAND_IN, ..System::default() };
        self.write(STAND_IN_FILE, &debian.archive(&stand_in)?)?;
        self.write(WEB_FILE, &web::archive(&debian, &linux::XEN)?)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))
    }
}

/// Everything that what is put together depends on.
fn recipe() -> String {
    let names = [&[XEN, LINUX][..], &PACKAGES, &PROGRAMS, &XEN_PROGRAMS, &DRIVERS, &linux::XEN].concat().join(" ");
    let files = FILES.map(|(path, content)| format!("{path}\n{}", String::from_utf8_lossy(content))).concat();
    format!("{FORMAT}\n{names}\n{files}\n{}\n{DOM0}\n{STAND_IN}", [linux::BEGIN, web::INIT].concat())
}

/// Why no Xen host can be had here, if so.
pub fn obstacle() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the Xen host is made of Debian's packages for x86_64".to_owned());
    }
    let programs = [("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg")];
    let missing = || programs.iter().find_map(|(program, package)| qemu::missing(program, package));
    qemu::obstacle().or_else(missing).or_else(linux::obstacle)
}
