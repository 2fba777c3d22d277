//! Network namespaces that last as long as this program: each is held by a process of its own, and has no name to leave behind.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace with its loopback interface up and NewReno for congestion control. What other systems are told to use by
/// default (BBR) paces, and so measures something else.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A new namespace.
    pub fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let holder = command.spawn().context("can't start unshare (Debian package util-linux)")?;
        let mut namespace = Self { holder };
        namespace.wait_until_made()?;
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        namespace.run("sysctl", &["--quiet", "--write", "net.ipv4.tcp_congestion_control=reno"])?;
        Ok(namespace)
    }

    /// The holder has its own namespace only a moment after it was started.
    fn wait_until_made(&mut self) -> Result<()> {
        let name = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.holder.try_wait()? {
                bail!("no network namespace can be made ({status}): run this as root");
            }
            let theirs = name(&self.holder.id().to_string());
            if theirs.is_some() && theirs != name("self") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "no network namespace came to be");
            sleep(Duration::from_millis(5));
        }
    }

    /// The process whose namespace it is.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg(program);
        command
    }

    /// Runs a command in it, which must succeed, and returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).output()?;
        let shown = || format!("{program} {}", arguments.join(" "));
        ensure!(output.status.success(), "`{}` failed: {}", shown(), String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A connection that this program has from within it.
    pub fn connect(&self, address: SocketAddr, patience: Duration) -> Result<TcpStream> {
        let file = fs::File::open(format!("/proc/{}/ns/net", self.pid()))?;
        // Only the thread enters the namespace, and a socket stays where it was made.
        let within = thread::spawn(move || -> Result<TcpStream> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(TcpStream::connect_timeout(&address, patience)?)
        });
        let connected = within.join().expect("the thread does not panic");
        connected.with_context(|| format!("can't connect to {address}"))
    }

    /// Adds a TAP interface of this name, with these addresses (`10.0.0.1/24`), for a virtual machine to open.
    pub fn add_tap(&self, name: &str, addresses: &[&str]) -> Result<()> {
        self.run("ip", &["tuntap", "add", "dev", name, "mode", "tap"])?;
        for address in addresses {
            self.run("ip", &["address", "add", address, "dev", name])?;
        }
        self.run("ip", &["link", "set", name, "up"])?;
        Ok(())
    }

    /// Waits until it has this interface.
    pub fn wait_for_interface(&self, name: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = self.run("ip", &["link", "show", name]) {
            ensure!(Instant::now() < deadline, "there is no interface {name}: {error}");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until something answers at `url`.
    pub fn wait_for(&self, url: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let ask = ["--silent", "--fail", "--output", "/dev/null", "--max-time", "1", url];
        while let Err(error) = self.run("curl", &ask) {
            ensure!(Instant::now() < deadline, "nobody answers at {url}: {error}");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Why no namespace with interfaces of its own can be made here, if so.
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root may make network namespaces and interfaces".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".to_owned());
    }
    Namespace::new().err().map(|error| format!("{error:#}"))
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Joins two namespaces by a pair of virtual Ethernet interfaces, both called `veth`, with these addresses (`10.0.0.1/24`).
pub fn join(ends: [&Namespace; 2], addresses: [&str; 2]) -> Result<()> {
    let [near, far] = ends;
    let peer = far.pid().to_string();
    near.run("ip", &["link", "add", "veth", "type", "veth", "peer", "name", "veth", "netns", &peer])?;
    for (namespace, address) in ends.into_iter().zip(addresses) {
        namespace.run("ip", &["address", "add", address, "dev", "veth"])?;
        namespace.run("ip", &["link", "set", "veth", "up"])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_joined_namespaces_hear_each_other_and_nobody_else_does() {
        if let Some(reason) = obstacle() {
            println!("not run: {reason}");
            return;
        }
        let (near, far) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        join([&near, &far], ["10.0.0.1/24", "10.0.0.2/24"]).unwrap();
        near.run("ping", &["-c", "1", "-W", "5", "10.0.0.2"]).unwrap();
        let patience = Duration::from_secs(10);
        let refused = near.connect("10.0.0.2:9".parse().unwrap(), patience).unwrap_err();
        assert!(format!("{refused:#}").contains("refused"), "{refused:#}");
        far.add_tap("tap", &["10.0.1.1/24"]).unwrap();
        assert!(far.run("ip", &["address"]).unwrap().contains("10.0.1.1/24"));
        let error = near.run("ip", &["link", "show", "nothing"]).unwrap_err();
        assert!(error.to_string().contains("ip link show nothing"), "{error}");
        assert!(!far.run("ip", &["address"]).unwrap().contains("10.0.0.1/"));
    }
}
