//! Boots MiniCache's kernel in a virtual machine: `minicache boot`.
//!
//! What may enter this room: what turns folders, images and addresses into a QEMU that runs, and what brings it to an end in
//! order. `disks` finds or packs what the machine's disks show, `kernel` finds the ELF, `parameters` makes its command line,
//! `monitor` finds a place for QEMU's monitor, `qemu` makes QEMU's command line, and `supervise` waits for the end.

mod disks;
pub mod kernel;
mod monitor;
mod parameters;
mod qemu;
mod supervise;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};

use crate::terminal::{say, warn};
use crate::usernet::{Listener, Purpose};
use monitor::MonitorAt;
use parameters::Parameters;
use qemu::{Forward, Machine, Vm};

const HTTP: Purpose = Purpose { option: "--listen", proposed_port: 8080, port: 80, behind_router: false };
const SHELL: Purpose = Purpose { option: "--shell", proposed_port: 2323, port: 23, behind_router: true };

/// Where µShell is reached unless told otherwise.
const DEFAULT_SHELL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2323);

/// Most memory that is accepted, in MiB.
const MAX_MEMORY_MIB: u32 = 1 << 20;

/// Arguments of `minicache boot`.
#[derive(clap::Args)]
#[command(after_long_help = "\
The machine's console appears on the terminal. Ctrl-C has the machine halt, a second one ends it at once.

What follows -- is the kernel's command line, with the options of the original MiniCache: \
`minicache boot site.img -- -P -c 1000`. Without an IPv4 address there it gets the one that QEMU's network expects, \
-i 10.0.2.15/24 -g 10.0.2.2. Images are opened for reading only, but for the one that -x names.")]
pub struct Arguments {
    /// The folder to serve (it is packed into a temporary image), or the images of an SHFS volume: the machine's disks, in this
    /// order
    #[arg(required = true, value_name = "DIR|IMAGE")]
    paths: Vec<PathBuf>,

    /// Where this machine's port 80 is reached: an IPv4 address and a port, such as 127.0.0.1:8080. Port 0 takes a free one. May
    /// be repeated
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    listen: Vec<SocketAddrV4>,

    /// Where its µShell is reached by telnet: an IPv4 address and a port, or "none". It asks for no password: whoever can reach
    /// it can use it. Default: 127.0.0.1:2323, or a free port where that is taken
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_shell)]
    shell: Option<ShellAt>,

    /// The kind of machine
    #[arg(long, value_enum, default_value = "microvm")]
    machine: Machine,

    /// The machine's memory, in MiB
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_MEMORY_MIB)))]
    memory_mib: u32,

    /// The kernel [default: minicache.elf in this program's folder, or in the one above]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,

    /// What runs the machine's processor: an accelerator that QEMU knows, such as tcg (emulation) or kvm
    #[arg(long, default_value = "tcg")]
    accel: String,

    /// The socket of QEMU's monitor, for `minicache trace`, or "none". Whoever can reach it controls the machine. Default: one in
    /// a temporary folder that only this user can enter
    #[arg(long, value_name = "SOCKET", value_parser = monitor::parse)]
    monitor: Option<MonitorAt>,

    /// Have the machine ask for its IPv4 address by DHCP, instead of giving it one
    #[arg(long)]
    dhcp: bool,

    /// The kernel's command line
    #[arg(last = true, value_name = "PARAMETER")]
    parameters: Vec<String>,
}

fn parse_address(text: &str) -> Result<SocketAddrV4, String> {
    match text.parse() {
        Ok(SocketAddr::V4(address)) => Ok(address),
        Ok(SocketAddr::V6(_)) => Err("QEMU's network forwards ports of IPv4 addresses only".to_owned()),
        Err(_) => Err("give an IPv4 address and a port, such as 127.0.0.1:8080".to_owned()),
    }
}

/// What `--shell` says.
#[derive(Clone, Copy, Debug)]
enum ShellAt {
    Nowhere,
    Address(SocketAddrV4),
}

fn parse_shell(text: &str) -> Result<ShellAt, String> {
    if text == "none" { Ok(ShellAt::Nowhere) } else { parse_address(text).map(ShellAt::Address) }
}

/// Runs `minicache boot`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let parameters = Parameters::new(&arguments.parameters, arguments.dhcp)?;
    let kernel = kernel::find(arguments.kernel)?;
    let mut forwards = Vec::new();
    for at in &arguments.listen {
        forwards.push(Forward { host: available(*at, &HTTP)?, guest_port: HTTP.port });
    }
    let shell = shell_address(arguments.shell)?;
    forwards.extend(shell.map(|host| Forward { host, guest_port: SHELL.port }));

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("can't handle signals")?;
    }
    // Until the machine has ended.
    let temporary = tempfile::Builder::new().prefix("minicache-boot-").tempdir().context("no temporary folder")?;
    let monitor = monitor::place(arguments.monitor, temporary.path())?;
    let disks = disks::prepare(&arguments.paths, temporary.path(), &interrupted)?;
    let vm = Vm {
        machine: arguments.machine,
        accel: &arguments.accel,
        memory_mib: arguments.memory_mib,
        kernel: &kernel,
        command_line: &parameters.line,
        disks: &disks.images,
        writable_disk: parameters.writable_disk,
        guest: parameters.address,
        forwards: &forwards,
        monitor: monitor.as_deref(),
    };
    let command = vm.command()?;
    say(&format!("Booting {} in QEMU:", disks.title));
    for forward in forwards.iter().filter(|forward| forward.guest_port == HTTP.port) {
        say(&format!("  http://{}/", reachable(forward.host)));
    }
    if let Some(at) = shell {
        say(&format!("  shell: telnet {} {}", reachable(at).ip(), at.port()));
    }
    if let Some(socket) = &monitor {
        say(&format!("  log: minicache trace --monitor {}", socket.display()));
    }
    say("Press Ctrl-C to halt the machine, and again to end it at once.");
    supervise::run(command, shell.map(reachable), &interrupted)
}

/// Where the shell is to be reached.
fn shell_address(shell: Option<ShellAt>) -> anyhow::Result<Option<SocketAddrV4>> {
    match shell {
        Some(ShellAt::Nowhere) => Ok(None),
        Some(ShellAt::Address(at)) => available(at, &SHELL).map(Some),
        // The default place is not worth failing for: two machines at once are common.
        None => available(DEFAULT_SHELL, &SHELL)
            .or_else(|error| {
                warn(&format!("{error:#}"));
                available(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), &SHELL)
            })
            .map(Some),
    }
}

/// Makes sure, before anything is begun, that QEMU can listen there; port 0 becomes a free one.
fn available(at: SocketAddrV4, purpose: &Purpose) -> anyhow::Result<SocketAddrV4> {
    match Listener::bind(at.into(), purpose)?.address() {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => bail!("{address} came where {at} was asked for"),
    }
}

/// An address that a client on this host can connect to.
fn reachable(at: SocketAddrV4) -> SocketAddrV4 {
    match IpAddr::V4(*at.ip()).is_unspecified() {
        true => SocketAddrV4::new(Ipv4Addr::LOCALHOST, at.port()),
        false => at,
    }
}
