//! Virtual machines, by QEMU: what a machine is made of, its command line, and how it runs.
//!
//! Emulated always (`-accel tcg`): what is tested must not depend on what processor is there.

mod hardware;
mod monitor;
mod running;

pub use hardware::{Disk, MAC, Machine, Network, Offload, Transport};
pub use running::Running;

pub(crate) use hardware::escaped;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// QEMU's program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// The Debian package that brings it.
pub const PACKAGE: &str = "qemu-system-x86";

/// How a machine's instructions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Not at all.
    No,
    /// Its time-stamp counter counts them, and jumps to the next timer where it sleeps. Runs without input are exact.
    TimeStamps,
    /// [`Running::instructions`] tells how many it has executed. What it sleeps through is none.
    Executed,
}

/// A virtual machine that can be started.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    /// The kernel's ELF, or a Linux kernel as distributions ship it.
    pub kernel: PathBuf,
    /// The kernel's command line.
    pub parameters: String,
    /// What Linux unpacks into its memory to begin with.
    pub initial_ramdisk: Option<PathBuf>,
    /// QEMU's name of the processor, and what it lacks: `max,-erms`.
    pub processor: String,
    /// What kind of machine it is.
    pub machine: Machine,
    /// How virtio devices are attached; must fit the machine ([`Machine::takes`]).
    pub transport: Transport,
    /// Its network interface, if any.
    pub network: Network<'a>,
    /// What the network device is told not to offer.
    pub switched_off: Vec<Offload>,
    /// Its disks, in order.
    pub disks: Vec<Disk>,
    /// Its memory.
    pub memory_mib: u32,
    /// How its instructions are counted.
    pub counting: Counting,
    /// How long it may run before it is killed.
    pub limit: Duration,
}

impl<'a> Guest<'a> {
    /// A microvm without ACPI that boots `kernel`: 64 MiB of memory, no disk, no network; killed after a minute.
    pub fn new(kernel: &Path) -> Self {
        Self {
            kernel: kernel.to_owned(),
            parameters: String::new(),
            initial_ramdisk: None,
            processor: "max".to_owned(),
            machine: Machine::MicrovmWithoutAcpi,
            transport: Transport::MmioModern,
            network: Network::None,
            switched_off: Vec::new(),
            disks: Vec::new(),
            memory_mib: 64,
            counting: Counting::No,
            limit: Duration::from_secs(60),
        }
    }

    /// The command that runs it, in the namespace of its network.
    pub fn command(&self) -> Command {
        // Whatever becomes of this program, the machine ends with the thread that started it.
        let by = "setpriv";
        let mut command = match &self.network {
            Network::Tap { namespace, .. } => namespace.command(by),
            _ => Command::new(by),
        };
        command.args(["--pdeathsig", "KILL", PROGRAM]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-accel", "tcg", "-cpu", &self.processor, "-smp", "1", "-m", &self.memory_mib.to_string()]);
        command.args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        command.args(self.machine.arguments());
        // QEMU tells of executed instructions only where it records what comes from outside; the record is thrown away.
        let records = self.counting == Counting::Executed;
        match self.counting {
            Counting::No => {}
            Counting::TimeStamps => drop(command.args(["-icount", "shift=0,sleep=off"])),
            Counting::Executed => drop(command.args(["-icount", "shift=0,rr=record,rrfile=/dev/null"])),
        }
        command.args(self.transport.arguments());
        for (number, disk) in self.disks.iter().enumerate() {
            command.args(disk.arguments(number, self.transport, records));
        }
        command.args(self.network.arguments(self.transport, &self.switched_off, records));
        if let Some(archive) = &self.initial_ramdisk {
            command.arg("-initrd").arg(archive);
        }
        command.arg("-kernel").arg(&self.kernel);
        if !self.parameters.is_empty() {
            command.args(["-append", &self.parameters]);
        }
        command
    }

    /// Starts it.
    ///
    /// # Errors
    /// If QEMU is not there.
    pub fn boot(&self) -> anyhow::Result<Running> {
        match self.counting {
            Counting::Executed => Running::start_with_monitor(self.command(), self.limit),
            _ => Running::start(self.command(), self.limit),
        }
    }
}

/// Why no virtual machine can be had here, if so.
pub fn obstacle() -> Option<String> {
    missing(PROGRAM, PACKAGE).or_else(|| missing("setpriv", "util-linux"))
}

/// Says so if a program is missing.
pub(crate) fn missing(program: &str, package: &str) -> Option<String> {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    (!there).then(|| format!("{program} is missing (Debian package {package})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Namespace;

    fn words(guest: &Guest<'_>) -> Vec<String> {
        guest.command().get_args().map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    /// The guest's command without its last option, which is the kernel.
    fn without_kernel(guest: &Guest<'_>) -> Command {
        let words = words(guest);
        let mut command = Command::new(guest.command().get_program());
        command.args(&words[..words.len() - 2]);
        command
    }

    fn has(words: &[String], wanted: &[&str]) -> bool {
        words.windows(wanted.len()).any(|window| window == wanted)
    }

    #[test]
    fn a_guest_becomes_a_command_line() {
        let mut guest = Guest::new(Path::new("/k,.elf"));
        let plain = words(&guest);
        assert!(has(&plain, &["-accel", "tcg"]) && has(&plain, &["-M", "microvm,acpi=off"]));
        assert!(has(&plain, &["-kernel", "/k,.elf"]), "{plain:?}");
        assert!(!plain.iter().any(|word| word.contains("net") || word == "-icount" || word == "-append"), "{plain:?}");

        guest.parameters = "-i 1.2.3.4/8".to_owned();
        guest.counting = Counting::TimeStamps;
        guest.disks = vec![Disk::read_only("/a,b.img")];
        guest.network = Network::User { forwards: vec![(8080, 80), (2323, 23)] };
        guest.switched_off = vec![Offload::Checksum, Offload::MergeableBuffers];
        let mmio = words(&guest);
        assert!(has(&mmio, &["-append", "-i 1.2.3.4/8"]) && has(&mmio, &["-icount", "shift=0,sleep=off"]));
        assert!(has(&mmio, &["-global", "virtio-mmio.force-legacy=false"]));
        let disk = ["-drive", "if=none,id=disk0,format=raw,readonly=on,file=/a,,b.img", "-device"];
        assert!(has(&mmio, &disk) && mmio.contains(&"virtio-blk-device,drive=disk0".to_owned()), "{mmio:?}");
        let network = "user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=tcp:127.0.0.1:2323-:23";
        assert!(has(&mmio, &["-netdev", network]), "{mmio:?}");
        let device = "virtio-net-device,netdev=net0,mac=52:54:00:12:34:56,csum=off,mrg_rxbuf=off";
        assert!(has(&mmio, &["-device", device]), "{mmio:?}");

        guest.counting = Counting::Executed;
        let counted = words(&guest);
        assert!(
            has(&counted, &["-drive", "driver=blkreplay,if=none,image=image0,id=disk0,readonly=on"]),
            "{counted:?}"
        );
        assert!(has(&counted, &["-object", "filter-replay,id=replay0,netdev=net0"]), "{counted:?}");

        guest.machine = Machine::Q35Qboot;
        guest.transport = Transport::Pci;
        let pci = words(&guest);
        assert!(has(&pci, &["-M", "q35"]) && has(&pci, &["-bios", "qboot.rom"]), "{pci:?}");
        assert!(pci.iter().any(|word| word.starts_with("virtio-net-pci,") && word.contains(",romfile=")), "{pci:?}");
    }

    #[test]
    fn a_machine_runs_until_it_is_dropped() {
        if let Some(reason) = obstacle() {
            println!("not run: {reason}");
            return;
        }
        // Any kernel would do; without one, the firmware waits for ever.
        let guest = Guest::new(Path::new("/nowhere"));
        let mut running = Running::start(without_kernel(&guest), Duration::from_millis(300)).unwrap();
        let error = running.wait_for("no such thing").unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains("microvm"), "{error}");
        assert!(running.wait_for_end().is_err(), "it was killed, and did not end");

        let mut running = Guest::new(Path::new("/nowhere")).boot().unwrap();
        assert!(running.wait_for("could not open kernel file").unwrap().contains("/nowhere"));
        assert_eq!(running.wait_for_end().unwrap(), 1);
    }

    #[test]
    fn instructions_are_counted() {
        if let Some(reason) = obstacle() {
            println!("not run: {reason}");
            return;
        }
        // A firmware without anything to boot: it ends up asleep.
        let mut guest = Guest::new(Path::new(""));
        guest.counting = Counting::Executed;
        let mut running = Running::start_with_monitor(without_kernel(&guest), guest.limit).unwrap();
        let first = running.instructions().unwrap();
        let second = running.instructions().unwrap();
        assert!(first <= second && second < 100_000_000, "{first}, {second}");
    }

    /// A firmware of 64 KiB that goes round a loop of two instructions so many times, and then sleeps.
    fn loop_firmware(rounds: u32) -> Vec<u8> {
        let mut firmware = vec![0xf4; 0x10000];
        // At the reset (its last 16 bytes), in real mode: jmp to its begin.
        firmware[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
        // mov ecx, rounds; again: dec ecx; jnz again; sleep: hlt; jmp sleep
        firmware[..2].copy_from_slice(&[0x66, 0xb9]);
        firmware[2..6].copy_from_slice(&rounds.to_le_bytes());
        firmware[6..13].copy_from_slice(&[0x66, 0x49, 0x75, 0xfc, 0xf4, 0xeb, 0xfd]);
        firmware
    }

    #[test]
    fn every_executed_instruction_counts_and_sleep_does_not() {
        if let Some(reason) = obstacle() {
            println!("not run: {reason}");
            return;
        }
        const ROUNDS: u32 = 1_000_000;
        let firmware = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&firmware, loop_firmware(ROUNDS)).unwrap();
        let mut guest = Guest::new(Path::new(""));
        guest.counting = Counting::Executed;
        let mut command = without_kernel(&guest);
        command.arg("-bios").arg(firmware.path());
        let mut running = Running::start_with_monitor(command, guest.limit).unwrap();
        // The jump, the load, the loop and the halt.
        let wanted = 2 * u64::from(ROUNDS) + 3;
        while running.instructions().unwrap() < wanted {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(running.instructions().unwrap(), wanted);
    }

    #[test]
    fn a_machine_can_live_in_a_namespace() {
        if let Some(reason) = obstacle().or_else(crate::obstacle) {
            println!("not run: {reason}");
            return;
        }
        let namespace = Namespace::new().unwrap();
        let mut guest = Guest::new(Path::new("/nowhere"));
        guest.network = Network::Tap { namespace: &namespace, interface: "tap0" };
        let mut running = guest.boot().unwrap();
        // It gets as far as its network only where that is.
        let said = running.wait_for_end().map(|_| running.console()).unwrap();
        assert!(said.contains("could not open kernel file"), "{said}");
    }
}
