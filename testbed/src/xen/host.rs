//! A Xen host that runs: QEMU with Xen and dom0, and what can be done there.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bed::{DOM0_FILE, LINUX_FILE, XEN_FILE};
use super::channel::{Channel, Output};
use super::domu::DomU;
use super::guest::Guest;
use crate::qemu::{PROGRAM, Running, escaped};

/// How long dom0 may take to come up.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long a command in dom0 may take unless it is said otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// dom0's address, on the bridge `xenbr0`.
pub const DOM0: &str = "10.77.0.1";

/// The address where ports that are forwarded look for a guest; any other of `10.77.0.0/24` and `fd77::/64` will do as well, but
/// those from `10.77.0.100` on.
pub const GUEST: &str = "10.77.0.2";

/// What kind of machine Xen gets.
#[derive(Clone, Debug)]
pub struct Config {
    /// QEMU's name of the processor. It must have AMD's virtualization with nested pages, since Debian's Xen knows no other way, and
    /// must not have SMAP, on which a PV dom0 faults.
    pub processor: String,
    /// How many processors; more than one run at the same time, which is slow where this system has other things to do.
    pub processors: u32,
    /// The machine's memory.
    pub memory_mib: u32,
    /// dom0's part of it.
    pub dom0_memory_mib: u32,
    /// How many virtual processors dom0 has. Its backends offer as many queues.
    pub dom0_processors: u32,
    /// Where ports of [`GUEST`] are reached on this host.
    pub forwards: Vec<(SocketAddrV4, u16)>,
    /// How long it may run before it is killed.
    pub limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            processor: "qemu64,+svm,+npt,+rdrand".to_owned(),
            processors: 1,
            memory_mib: 1024,
            dom0_memory_mib: 512,
            dom0_processors: 1,
            forwards: Vec::new(),
            limit: Duration::from_secs(300),
        }
    }
}

impl Config {
    /// QEMU's command, to be run in the bed's folder.
    fn command(&self, share: &Path, socket: &Path) -> Command {
        // Whatever becomes of this program, the machine ends with the thread that started it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", PROGRAM]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        let thread = if self.processors > 1 { "multi" } else { "single" };
        command.args(["-accel", &format!("tcg,thread={thread}"), "-cpu", &self.processor]);
        command.args(["-smp", &self.processors.to_string(), "-m", &self.memory_mib.to_string()]);
        let (memory, processors) = (self.dom0_memory_mib, self.dom0_processors);
        let xen = format!(
            "console=com1 com1=115200,8n1 loglvl=all guest_loglvl=all dom0_mem={memory}M,max:{memory}M \
             dom0_max_vcpus={processors}"
        );
        let dom0 = "console=hvc0 quiet loglevel=4 nokaslr cryptomgr.notests audit=0 apparmor=0";
        command.args(["-kernel", XEN_FILE, "-append", &xen, "-initrd", &format!("{LINUX_FILE} {dom0},{DOM0_FILE}")]);
        command.args(["-fsdev", &format!("local,id=share,path={},security_model=none", escaped(share))]);
        command.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
        command.args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", escaped(socket))]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=agent"]);
        command.args(["-device", "virtio-scsi-pci,id=scsi"]);
        if !self.forwards.is_empty() {
            // Nothing but what is forwarded: the network has no way out.
            let network = "user,id=net,net=10.77.0.0/24,host=10.77.0.254,dns=10.77.0.253,dhcpstart=10.77.0.100,ipv6=off,restrict=on";
            let forward = |(host, port): &(SocketAddrV4, u16)| format!(",hostfwd=tcp:{host}-{GUEST}:{port}");
            command.args(["-netdev", &(network.to_owned() + &self.forwards.iter().map(forward).collect::<String>())]);
            command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        command
    }
}

/// A Xen host that runs. It is killed when this is dropped, when the thread that booted it ends, and at its limit.
pub struct Host {
    running: Mutex<Running>,
    channel: Channel,
    share: PathBuf,
    /// SCSI numbers that disks have or had.
    disks: Mutex<Disks>,
    _folder: TempDir,
}

#[derive(Default)]
struct Disks {
    attached: BTreeSet<u8>,
    next: u8,
}

impl Host {
    pub(super) fn boot(bed: &Path, config: &Config) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let (share, socket) = (folder.path().join("share"), folder.path().join("agent"));
        fs::create_dir(&share)?;
        let mut command = config.command(&share, &socket);
        // A group of its own: the terminal's Ctrl-C is for us.
        command.current_dir(bed).process_group(0);
        let running = Running::start_with_monitor(command, config.limit)?;
        let deadline = Instant::now() + BOOT_LIMIT.min(config.limit);
        let ready = Channel::connect(&socket, &share, deadline)
            .and_then(|channel| channel.wait_until_ready(deadline).map(|()| channel));
        let channel = ready.map_err(|error| anyhow!("{error:#}\n{}", running.report()))?;
        let (running, disks) = (Mutex::new(running), Mutex::default());
        Ok(Self { running, channel, share, disks, _folder: folder })
    }

    /// Runs a script in dom0's shell. Several may run at the same time. It may leave something in the background.
    ///
    /// # Errors
    /// If it takes longer than a minute, or if the host has ended.
    pub fn run(&self, script: &str) -> Result<Output> {
        self.run_within(script, PATIENCE)
    }

    /// As [`Host::run`], with a limit of its own in whole seconds.
    ///
    /// # Errors
    /// If it takes longer, or if the host has ended.
    pub fn run_within(&self, script: &str, limit: Duration) -> Result<Output> {
        self.channel.run(script, limit)
    }

    /// Runs a script, which must succeed, and returns what it said.
    ///
    /// # Errors
    /// As [`Host::run`], and if its status is not 0.
    pub fn check(&self, script: &str) -> Result<String> {
        let Output { status, text } = self.run(script)?;
        ensure!(status == 0, "dom0: {script:?} ended with status {status}: {}", text.trim());
        Ok(text)
    }

    /// A folder of this system that is `/share` in dom0.
    pub fn share(&self) -> &Path {
        &self.share
    }

    /// Makes a file in dom0, and the folders in which it lies.
    ///
    /// # Errors
    /// If dom0 can't write it.
    pub fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        let through = tempfile::NamedTempFile::new_in(&self.share).context("the shared folder")?;
        fs::write(&through, content)?;
        let name = through.path().file_name().unwrap_or_default().to_string_lossy();
        self.check(&format!("mkdir -p \"$(dirname '{path}')\" && cp '/share/{name}' '{path}'"))?;
        Ok(())
    }

    /// The content of a file in dom0.
    ///
    /// # Errors
    /// If dom0 can't read it.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let through = tempfile::NamedTempFile::new_in(&self.share).context("the shared folder")?;
        let name = through.path().file_name().unwrap_or_default().to_string_lossy();
        self.check(&format!("cat '{path}' >'/share/{name}'"))?;
        Ok(fs::read(&through)?)
    }

    /// Creates a guest.
    ///
    /// # Errors
    /// If Xen or `xl` refuse it, with what they said.
    pub fn create(&self, guest: &DomU) -> Result<Guest<'_>> {
        Guest::create(self, guest)
    }

    /// Gives dom0 a disk that shows an image of this system, raw. What is written there is in the image at once.
    ///
    /// # Errors
    /// If QEMU can't open the image, which another disk may have open.
    pub fn attach(&self, image: &Path, writable: bool) -> Result<HostDisk<'_>> {
        let number = self.free_number()?;
        let mut disk = HostDisk { host: self, number, device: String::new() };
        let image = image.canonicalize().with_context(|| format!("{} can't be found", image.display()))?;
        let (node, read_only) = (disk.node(), !writable);
        // Write-back without ever waiting for the medium: a machine that was killed needs no image that survives a power failure.
        let cache = json!({ "direct": false, "no-flush": true });
        let file = json!({ "driver": "file", "filename": image, "read-only": read_only, "cache": cache });
        let block = json!({ "driver": "raw", "node-name": node, "read-only": read_only, "cache": cache, "file": file });
        self.ask("blockdev-add", &block).with_context(|| format!("{} can't be a disk", image.display()))?;
        let device = json!({ "driver": "scsi-hd", "id": node, "drive": node, "bus": "scsi.0", "scsi-id": number });
        self.ask("device_add", &device)?;
        let place = format!("/sys/bus/scsi/devices/*:0:{number}:0/block");
        let wait =
            format!("until name=$(ls {place} 2>/dev/null) && [ -b /dev/$name ]; do usleep 20000; done; echo $name");
        let name = self.check(&wait)?;
        disk.device = format!("/dev/{}", name.trim());
        Ok(disk)
    }

    /// What Xen, dom0's kernel and QEMU have said. What guests write to port 0xE9 is among it, in lines that begin with `(d1)` and so
    /// on.
    pub fn console(&self) -> String {
        self.running().console()
    }

    /// The same with QEMU's command, for messages.
    pub fn report(&self) -> String {
        self.running().report()
    }

    /// When it will be killed.
    pub fn deadline(&self) -> Instant {
        self.running().deadline()
    }

    fn free_number(&self) -> Result<u8> {
        let mut disks = self.disks.lock().expect("nobody panics");
        // One after the other, so that dom0 has forgotten the former disk of a number.
        for _ in 0..=u8::MAX {
            let number = disks.next;
            disks.next = number.wrapping_add(1);
            if disks.attached.insert(number) {
                return Ok(number);
            }
        }
        bail!("there are {} disks already", disks.attached.len())
    }

    fn ask(&self, command: &str, arguments: &Value) -> Result<Value> {
        self.running().ask(command, arguments)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().expect("nobody panics")
    }
}

/// A disk of dom0. It goes when this is dropped.
pub struct HostDisk<'a> {
    host: &'a Host,
    number: u8,
    device: String,
}

impl HostDisk<'_> {
    /// Its name in dom0: `/dev/sda`.
    pub fn device(&self) -> &str {
        &self.device
    }

    fn node(&self) -> String {
        format!("disk{}", self.number)
    }
}

impl Drop for HostDisk<'_> {
    fn drop(&mut self) {
        let node = self.node();
        // It may not be there at all, or be in use a moment longer; the host may have ended.
        let _ = self.host.ask("device_del", &json!({ "id": node }));
        for _ in 0..100 {
            match self.host.ask("blockdev-del", &json!({ "node-name": node })) {
                Err(error) if error.to_string().contains("in use") => std::thread::sleep(Duration::from_millis(10)),
                _ => break,
            }
        }
        self.host.disks.lock().expect("nobody panics").attached.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_becomes_a_command_line() {
        let words = |config: &Config| {
            let command = config.command(Path::new("/s,hare"), Path::new("/agent"));
            command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let plain = words(&Config::default());
        let has = |words: &[String], wanted: &str| words.iter().any(|word| word.contains(wanted));
        assert!(has(&plain, "tcg,thread=single") && has(&plain, "qemu64,+svm,+npt,+rdrand"), "{plain:?}");
        assert!(has(&plain, "dom0_mem=512M,max:512M dom0_max_vcpus=1") && has(&plain, "path=/s,,hare,"), "{plain:?}");
        assert!(!has(&plain, "-netdev"), "{plain:?}");

        let at = "127.0.0.1:8080".parse().unwrap();
        let forwards = vec![(at, 80), (at, 23)];
        let config = Config { processors: 2, dom0_processors: 3, forwards, ..Config::default() };
        let full = words(&config);
        assert!(has(&full, "tcg,thread=multi") && has(&full, "dom0_max_vcpus=3"), "{full:?}");
        let forwarded = "restrict=on,hostfwd=tcp:127.0.0.1:8080-10.77.0.2:80,hostfwd=tcp:127.0.0.1:8080-10.77.0.2:23";
        assert!(has(&full, forwarded), "{full:?}");
    }
}
