//! Guests whose instructions are counted: what serves in a virtual machine, whatever it is, and what it executes for that.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::qemu::{self, Disk, Machine, Network, Running, Transport};
use testbed::{Namespace, obstacle};

/// How long an answer may take; the emulation is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a machine may run.
pub const LIMIT: Duration = Duration::from_secs(600);

/// What the kernel says when it serves.
pub const SERVES: &str = "up and running";

/// What can be booted, and then serves HTTP on port 80.
#[derive(Clone)]
pub struct System {
    /// What to call it.
    pub name: &'static str,
    /// Its machine; what network that has is not looked at.
    pub machine: qemu::Guest<'static>,
    /// How the kernel's command line says an address (`10.0.0.2/24`).
    pub address: fn(&str) -> String,
    /// What it says on its console when it serves.
    pub serves: &'static str,
}

impl System {
    /// MiniCache's kernel on a microvm without ACPI, which is the smallest machine, with one disk.
    pub fn minicache(kernel: &Path, image: &Path, memory_mib: u32) -> Self {
        let mut machine = qemu::Guest::new(kernel);
        machine.machine = Machine::MicrovmWithoutAcpi;
        machine.transport = Transport::MmioModern;
        machine.memory_mib = memory_mib;
        machine.disks = vec![Disk::read_only(image)];
        machine.limit = LIMIT;
        Self { name: "minicache", machine, address: |address| format!("-i {address}"), serves: SERVES }
    }

    /// Boots it, with a TAP interface where that can be had (it offers what hardware does: checksums and segmentation), or else on
    /// QEMU's own network, which offers nothing.
    pub fn boot(&self) -> Result<Guest> {
        let namespace = if obstacle().is_none() { Some(Namespace::new()?) } else { None };
        let (running, address) = match &namespace {
            Some(namespace) => {
                namespace.add_tap("tap0", &["10.0.0.1/24"])?;
                let network = Network::Tap { namespace, interface: "tap0" };
                (self.start(network, "10.0.0.2/24")?, SocketAddr::from(([10, 0, 0, 2], 80)))
            }
            None => {
                let address = crate::process::free_address()?;
                let network = Network::User { forwards: vec![(address.port(), 80)] };
                (self.start(network, "10.0.2.15/24")?, address)
            }
        };
        let mut guest = Guest { name: self.name, running, namespace, address };
        guest.running.wait_for(self.serves)?;
        Ok(guest)
    }

    fn start(&self, network: Network<'_>, address: &str) -> Result<Running> {
        let mut machine: qemu::Guest<'_> = self.machine.clone();
        machine.network = network;
        machine.parameters = format!("{} {}", machine.parameters, (self.address)(address)).trim().to_owned();
        machine.boot()
    }
}

/// Says on which network guests will be.
pub fn network() -> String {
    match obstacle() {
        None => "TAP, with checksum and segmentation offload".to_owned(),
        Some(reason) => format!("QEMU's own network, without any offload ({reason})"),
    }
}

/// A guest that serves HTTP.
pub struct Guest {
    name: &'static str,
    running: Running,
    namespace: Option<Namespace>,
    address: SocketAddr,
}

impl Guest {
    /// What to call it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many instructions it has executed since its reset, if they are counted (`Counting::Executed`). What it sleeps through is
    /// none.
    pub fn instructions(&mut self) -> Result<u64> {
        self.running.instructions()
    }

    /// A connection to its HTTP port.
    fn connect(&self) -> Result<TcpStream> {
        match &self.namespace {
            Some(namespace) => namespace.connect(self.address, PATIENCE),
            None => Ok(TcpStream::connect_timeout(&self.address, PATIENCE)?),
        }
    }
}

/// A keep-alive connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    /// Connects to a guest.
    pub fn connect(guest: &Guest) -> Result<Self> {
        let stream = guest.connect().with_context(|| format!("{} can't be reached", guest.name()))?;
        Self::to(stream)
    }

    /// Uses a connection.
    pub fn to(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 20, stream), body: Vec::new() })
    }

    /// Gets an object whole, and returns its length.
    pub fn get(&mut self, target: &str) -> Result<usize> {
        self.ask(target)?;
        self.answer(target)
    }

    /// Asks for an object.
    pub fn ask(&mut self, target: &str) -> Result<()> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: guest\r\n\r\n");
        Ok(self.stream.get_mut().write_all(request.as_bytes())?)
    }

    /// Takes the object that was asked for, and returns its length.
    pub fn answer(&mut self, target: &str) -> Result<usize> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(self.stream.read_line(&mut head)? > 0, "{target}: the connection was closed after {head:?}");
        }
        ensure!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).context("there is no length")?;
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok(length)
    }
}
