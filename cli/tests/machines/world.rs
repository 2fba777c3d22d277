//! A machine that runs, and those who reach it: curl, ping, the shell.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::qemu::{self, Guest, Machine, Network, Running};
use testbed::{Namespace, Telnet};

use crate::site::Site;

/// Longest silence that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the kernel says when it serves.
pub const SERVES: &str = "up and running";

/// QEMU's status when the kernel has halted without ACPI and with it (where there may be no time for another), and when it has
/// given up.
const HALTED: i32 = 33;
const SWITCHED_OFF: i32 = 0;
pub const FAILED: i32 = 35;

/// What the kernel says last before it halts.
const HALTS: &str = "MiniCache halts";

/// The machine's link-local address, which follows from its MAC address.
const LINK_LOCAL: &str = "fe80::5054:ff:fe12:3456";

/// The kernel, if there is one and something to run it; else it says why not.
pub fn kernel() -> Option<PathBuf> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_minicache"));
    let elf = program.ancestors().nth(2).unwrap().join("minicache.elf");
    let curl = || Command::new("curl").arg("--version").output().is_err();
    let reason = qemu::obstacle()
        .or_else(|| curl().then(|| "curl is missing (Debian package curl)".to_owned()))
        .or_else(|| (!elf.is_file()).then(|| format!("there is no {elf:?}: `cargo xtask kernel` builds it")));
    match reason {
        None => Some(elf),
        Some(reason) => {
            println!("not run: {reason}");
            None
        }
    }
}

/// A namespace with a TAP interface `tap0`, 10.0.0.1, for a machine that is 10.0.0.2; `None`, and said so, if that can't be.
pub fn namespace() -> Option<Namespace> {
    let ping = || Command::new("ping").arg("-V").output().is_err();
    let reason =
        testbed::obstacle().or_else(|| ping().then(|| "ping is missing (Debian package iputils-ping)".to_owned()));
    if let Some(reason) = reason {
        println!("not run: {reason}");
        return None;
    }
    let namespace = Namespace::new().unwrap();
    // An address that is checked for duplicates can't be used for a second.
    namespace.run("sysctl", &["--quiet", "--write", "net.ipv6.conf.default.accept_dad=0"]).unwrap();
    namespace.add_tap("tap0", &["10.0.0.1/24"]).unwrap();
    Some(namespace)
}

/// A machine that was booted.
pub struct World<'a> {
    pub running: Running,
    machine: Machine,
    reach: Reach<'a>,
}

enum Reach<'a> {
    /// Ports of 127.0.0.1.
    User {
        http: u16,
        shell: u16,
    },
    Tap(&'a Namespace),
}

impl<'a> World<'a> {
    /// Boots `guest` with a static address and these parameters, on the namespace's interface or else on QEMU's own network.
    pub fn boot(mut guest: Guest<'a>, namespace: Option<&'a Namespace>, parameters: &str) -> Self {
        let reach = match namespace {
            Some(namespace) => {
                guest.network = Network::Tap { namespace, interface: "tap0" };
                guest.parameters = format!("-i 10.0.0.2/24 {parameters}");
                Reach::Tap(namespace)
            }
            None => return Self::boot_as_told(guest, &format!("-i 10.0.2.15/24 -g 10.0.2.2 {parameters}")),
        };
        Self { running: guest.boot().unwrap(), machine: guest.machine, reach }
    }

    /// Boots `guest` with these parameters alone, on QEMU's own network.
    pub fn boot_as_told(mut guest: Guest<'a>, parameters: &str) -> Self {
        // Both at once, so that they differ.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [http, shell] = free.map(|listener| listener.local_addr().unwrap().port());
        guest.network = Network::User { forwards: vec![(http, 80), (shell, 23)] };
        guest.parameters = parameters.to_owned();
        Self { running: guest.boot().unwrap(), machine: guest.machine, reach: Reach::User { http, shell } }
    }

    /// As [`World::boot`], and waits until it serves.
    pub fn serve(guest: Guest<'a>, namespace: Option<&'a Namespace>) -> Self {
        let mut world = Self::boot(guest, namespace, "");
        world.wait_for(SERVES);
        world
    }

    /// Waits for a line of the console.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.running.wait_for(text).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What must have gone well; else the console is shown.
    pub fn check<T>(&self, result: Result<T>) -> T {
        result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.running.report()))
    }

    /// Panics with the console unless `holds`.
    pub fn assert(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}", self.running.report());
    }

    fn command(&self, program: &str) -> Command {
        match &self.reach {
            Reach::User { .. } => Command::new(program),
            Reach::Tap(namespace) => namespace.command(program),
        }
    }

    /// Where HTTP is, without a slash at the end.
    pub fn url(&self) -> String {
        match &self.reach {
            Reach::User { http, .. } => format!("http://127.0.0.1:{http}"),
            Reach::Tap(_) => "http://10.0.0.2".to_owned(),
        }
    }

    /// The same over IPv6, where that is reachable.
    pub fn url_v6(&self) -> Option<String> {
        matches!(self.reach, Reach::Tap(_)).then(|| format!("http://[{LINK_LOCAL}%25tap0]"))
    }

    fn curl(&self) -> Command {
        let mut curl = self.command("curl");
        curl.args(["--silent", "--show-error", "--globoff", "--noproxy", "*", "--max-time", "60"]);
        curl
    }

    /// What one request is answered with: status, and body or curl's complaint.
    pub fn get(&self, target: &str) -> (u16, Vec<u8>) {
        let mut curl = self.curl();
        let output =
            curl.args(["--write-out", "%{stderr}%{http_code}"]).arg(format!("{}{target}", self.url())).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let digits = said.len().saturating_sub(3);
        let status = said.get(digits..).and_then(|code| code.parse().ok()).unwrap_or(0);
        if output.status.success() { (status, output.stdout) } else { (status, said.into_owned().into_bytes()) }
    }

    /// Fetches all of the site's objects from `url`, some at a time, and compares every byte.
    pub fn compare(&self, site: &Site, url: &str, at_once: usize) -> Result<()> {
        let mut curl = self.curl();
        curl.args(["--fail", "--parallel", "--parallel-max", &at_once.to_string()]);
        let got = tempfile::tempdir()?;
        for (number, (name, _)) in site.objects.iter().enumerate() {
            curl.arg("--output").arg(got.path().join(number.to_string())).arg(format!("{url}/{name}"));
        }
        let output = curl.output()?;
        ensure!(output.status.success(), "curl {url}: {}", String::from_utf8_lossy(&output.stderr));
        for (number, (name, content)) in site.objects.iter().enumerate() {
            // Where nothing came, curl makes no file.
            let body = fs::read(got.path().join(number.to_string())).unwrap_or_default();
            let same = body.iter().zip(content).take_while(|(a, b)| a == b).count();
            ensure!(
                &body == content,
                "{url}/{name}: {} bytes instead of {}, the same for {same}",
                body.len(),
                content.len()
            );
        }
        Ok(())
    }

    /// Pings it over IPv4 and IPv6, from the TAP interface's other side.
    pub fn ping(&self) -> Result<()> {
        let Reach::Tap(namespace) = &self.reach else { return Ok(()) };
        let count = ["-c", "3", "-i", "0.2", "-W", "10"];
        namespace.run("ping", &[&count[..], &["10.0.0.2"]].concat())?;
        namespace.run("ping", &[&count[..], &["-6", &format!("{LINK_LOCAL}%tap0")]].concat())?;
        // Larger than the interface's MTU would be a fragment; up to it, it must come back whole.
        namespace.run("ping", &[&count[..], &["-s", "1472", "10.0.0.2"]].concat())?;
        Ok(())
    }

    fn connect_to_shell(&self) -> Result<TcpStream> {
        match &self.reach {
            Reach::User { shell, .. } => Ok(TcpStream::connect_timeout(&([127, 0, 0, 1], *shell).into(), PATIENCE)?),
            Reach::Tap(namespace) => namespace.connect(SocketAddr::from(([10, 0, 0, 2], 23)), PATIENCE),
        }
    }

    /// A session with the shell.
    pub fn shell(&self) -> Result<Telnet> {
        Telnet::new(self.connect_to_shell()?, "mc# ", PATIENCE).context("the shell")
    }

    /// A counter, asked of the shell.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let said = self.shell()?.run("stats counters")?;
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.with_context(|| format!("{name} is not among the counters: {said}"))?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// Halts the machine by its shell; QEMU must end by that.
    pub fn halt(mut self) {
        let mut shell = self.check(self.shell());
        self.check(shell.run_to_end("halt"));
        let status = self.running.wait_for_end();
        let status = self.check(status);
        let by_acpi = self.machine != Machine::MicrovmWithoutAcpi && status == SWITCHED_OFF;
        self.assert(status == HALTED || by_acpi, &format!("QEMU's status is {status}"));
        self.assert(self.running.console().contains(HALTS), "it halts in order");
    }
}
