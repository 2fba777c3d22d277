//! QEMU's command line.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

/// QEMU's program, and the Debian package that brings it.
pub const PROGRAM: &str = "qemu-system-x86_64";
pub const PACKAGE: &str = "qemu-system-x86";

/// Disks that a microvm without ACPI has places for beside the network device.
const MICROVM_DISKS: usize = 7;
/// Disks that fit on a PC's root bus beside what is there.
const Q35_DISKS: usize = 24;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Machine {
    /// The least that there is: no firmware, no PCI bus, memory-mapped virtio devices
    Microvm,
    /// A PC with PCI Express
    Q35,
}

/// A port of the host that leads to one of the machine's.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Where QEMU listens.
    pub host: SocketAddrV4,
    /// The machine's port.
    pub guest_port: u16,
}

/// A machine as it is wanted.
pub struct Vm<'a> {
    pub machine: Machine,
    /// QEMU's accelerator.
    pub accel: &'a str,
    pub memory_mib: u32,
    pub kernel: &'a Path,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Images, in order.
    pub disks: &'a [PathBuf],
    /// Number of the disk that the machine may write to.
    pub writable_disk: Option<u32>,
    /// The machine's IPv4 address.
    pub guest: Ipv4Addr,
    pub forwards: &'a [Forward],
    /// The socket of QEMU's monitor.
    pub monitor: Option<&'a Path>,
}

impl Vm<'_> {
    /// The command that runs it, with its console on standard output.
    ///
    /// # Errors
    /// If the machine has no place for so many disks.
    pub fn command(&self) -> anyhow::Result<Command> {
        let (places, bus) = match self.machine {
            Machine::Microvm => (MICROVM_DISKS, "device"),
            Machine::Q35 => (Q35_DISKS, "pci"),
        };
        let disks = self.disks.len();
        ensure!(
            disks <= places,
            "{disks} disks are more than the {places} that such a machine has places for{}",
            if self.machine == Machine::Microvm { ": --machine q35 has more" } else { "" }
        );
        let mut command = Command::new(PROGRAM);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]);
        // By its status we learn how the machine has ended.
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        command.args(["-accel", self.accel, "-cpu", "max", "-m", &self.memory_mib.to_string()]);
        match self.machine {
            Machine::Microvm => command.args(["-M", "microvm,acpi=off", "-global", "virtio-mmio.force-legacy=false"]),
            Machine::Q35 => command.args(["-M", "q35", "-bios", "qboot.rom"]),
        };
        for (number, image) in self.disks.iter().enumerate() {
            let mut drive = OsString::from(format!("if=none,id=disk{number},format=raw,"));
            if self.writable_disk != u32::try_from(number).ok() {
                drive.push("readonly=on,");
            }
            drive.push("file=");
            drive.push(escaped(image));
            command.arg("-drive").arg(drive).args(["-device", &format!("virtio-blk-{bus},drive=disk{number}")]);
        }
        let mut network = OsString::from("user,id=net0");
        for Forward { host, guest_port } in self.forwards {
            network.push(format!(",hostfwd=tcp:{}:{}-{}:{guest_port}", host.ip(), host.port(), self.guest));
        }
        command.arg("-netdev").arg(network);
        let rom = if self.machine == Machine::Q35 { ",romfile=" } else { "" };
        command.args(["-device", &format!("virtio-net-{bus},netdev=net0{rom}")]);
        if let Some(socket) = self.monitor {
            let mut monitor = OsString::from("unix:");
            monitor.push(escaped(socket));
            monitor.push(",server=on,wait=off");
            command.arg("-qmp").arg(monitor);
        }
        command.arg("-kernel").arg(self.kernel).args(["-append", self.command_line]);
        Ok(command)
    }
}

/// A path as part of an option's value: QEMU wants commas twice.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let twice = |byte: &u8| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 });
    OsString::from_vec(path.as_os_str().as_bytes().iter().flat_map(twice).collect())
}

/// What a line that QEMU writes to its standard error means, where that is not plain from it.
pub fn explanation(line: &str) -> Option<&'static str> {
    let known = [
        (
            "Could not set up host forwarding rule",
            "that port is taken, meanwhile: choose another with --listen or --shell",
        ),
        ("without PVH ELF Note", "this is no kernel of MiniCache: `cargo xtask kernel` builds one"),
        ("Failed to get shared \"write\" lock", "the image is being written by another machine or program"),
        ("Failed to get \"write\" lock", "the image is used by another machine or program"),
        ("invalid accelerator", "--accel tcg works everywhere"),
        ("failed to initialize", "--accel tcg works everywhere"),
        ("cannot set up guest memory", "choose less with --memory-mib"),
    ];
    known.iter().find(|(words, _)| line.contains(words)).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(vm: &Vm<'_>) -> Vec<String> {
        vm.command().unwrap().get_args().map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_machine_becomes_a_command_line() {
        let forwards = [
            Forward { host: "127.0.0.1:8080".parse().unwrap(), guest_port: 80 },
            Forward { host: "0.0.0.0:2323".parse().unwrap(), guest_port: 23 },
        ];
        let disks = ["/a,b.img".into(), "c.img".into()];
        let mut vm = Vm {
            machine: Machine::Microvm,
            accel: "tcg",
            memory_mib: 64,
            kernel: Path::new("/k,.elf"),
            command_line: "-i 10.0.2.15/24",
            disks: &disks,
            writable_disk: Some(1),
            guest: Ipv4Addr::new(10, 0, 2, 15),
            forwards: &forwards,
            monitor: None,
        };
        let microvm = words(&vm);
        let has = |words: &[String], wanted: &[&str]| words.windows(wanted.len()).any(|window| window == wanted);
        assert!(has(&microvm, &["-accel", "tcg", "-cpu", "max", "-m", "64"]));
        assert!(has(&microvm, &["-kernel", "/k,.elf", "-append", "-i 10.0.2.15/24"]));
        assert!(has(&microvm, &["-drive", "if=none,id=disk0,format=raw,readonly=on,file=/a,,b.img"]));
        assert!(has(&microvm, &["-drive", "if=none,id=disk1,format=raw,file=c.img", "-device"]));
        assert!(has(&microvm, &["-device", "virtio-net-device,netdev=net0"]), "{microvm:?}");
        let network = "user,id=net0,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80,hostfwd=tcp:0.0.0.0:2323-10.0.2.15:23";
        assert!(has(&microvm, &["-netdev", network]), "{microvm:?}");

        assert!(!microvm.contains(&"-qmp".to_owned()), "{microvm:?}");
        vm.monitor = Some(Path::new("/m,n"));
        vm.machine = Machine::Q35;
        let q35 = words(&vm);
        assert!(has(&q35, &["-qmp", "unix:/m,,n,server=on,wait=off"]), "{q35:?}");
        assert!(has(&q35, &["-M", "q35"]) && has(&q35, &["-device", "virtio-blk-pci,drive=disk1"]), "{q35:?}");

        let many = vec![PathBuf::from("x"); 8];
        let error = Vm { machine: Machine::Microvm, disks: &many, ..vm }.command().unwrap_err().to_string();
        assert!(error.contains("--machine q35"), "{error}");
    }
}
