//! Guests whose instructions are counted: what serves in a virtual machine, whatever it is, and what it executes for that.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::qemu::{self, Counting, Disk, Machine, Network, Running, Transport};
use testbed::{Namespace, obstacle};

/// How long an answer may take; the emulation is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a machine may run.
const LIMIT: Duration = Duration::from_secs(600);

/// What the kernel says when it serves.
pub const SERVES: &str = "up and running";

/// A guest that serves HTTP.
pub trait Guest {
    /// What to call it.
    fn name(&self) -> &'static str;
    /// A connection to its HTTP port.
    fn connect(&self) -> Result<TcpStream>;
    /// How many instructions it has executed since its reset. What it sleeps through is none.
    fn instructions(&mut self) -> Result<u64>;
}

/// MiniCache's kernel, on the smallest machine.
pub struct MiniCache {
    running: Running,
    namespace: Option<Namespace>,
    address: SocketAddr,
}

impl MiniCache {
    /// The machine of all measurements: a microvm without ACPI, one disk; with a static address.
    pub fn machine<'a>(kernel: &Path, image: &Path, memory_mib: u32) -> qemu::Guest<'a> {
        let mut machine = qemu::Guest::new(kernel);
        machine.machine = Machine::MicrovmWithoutAcpi;
        machine.transport = Transport::MmioModern;
        machine.memory_mib = memory_mib;
        machine.disks = vec![Disk::read_only(image)];
        machine.limit = LIMIT;
        machine
    }

    /// Boots it, with a TAP interface where that can be had (it offers what hardware does: checksums and segmentation), or else on
    /// QEMU's own network, which offers nothing.
    pub fn boot(kernel: &Path, image: &Path) -> Result<Self> {
        let mut machine = Self::machine(kernel, image, 256);
        machine.counting = Counting::Executed;
        let namespace = match obstacle() {
            None => Some(Namespace::new()?),
            Some(reason) => {
                println!("on QEMU's own network, without any offload: {reason}");
                None
            }
        };
        let (running, address) = match &namespace {
            Some(namespace) => {
                namespace.add_tap("tap0", &["10.0.0.1/24"])?;
                machine.network = Network::Tap { namespace, interface: "tap0" };
                machine.parameters = "-i 10.0.0.2/24".to_owned();
                (machine.boot()?, SocketAddr::from(([10, 0, 0, 2], 80)))
            }
            None => {
                let address = crate::process::free_address()?;
                machine.network = Network::User { forwards: vec![(address.port(), 80)] };
                machine.parameters = "-i 10.0.2.15/24 -g 10.0.2.2".to_owned();
                (machine.boot()?, address)
            }
        };
        let mut guest = Self { running, namespace, address };
        guest.running.wait_for(SERVES)?;
        Ok(guest)
    }
}

impl Guest for MiniCache {
    fn name(&self) -> &'static str {
        "minicache"
    }

    fn connect(&self) -> Result<TcpStream> {
        match &self.namespace {
            Some(namespace) => namespace.connect(self.address, PATIENCE),
            None => Ok(TcpStream::connect_timeout(&self.address, PATIENCE)?),
        }
    }

    fn instructions(&mut self) -> Result<u64> {
        self.running.instructions()
    }
}

/// A keep-alive connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    /// Connects to a guest.
    pub fn connect(guest: &dyn Guest) -> Result<Self> {
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
        let request = format!("GET {target} HTTP/1.1\r\nHost: guest\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
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
