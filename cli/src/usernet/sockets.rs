//! Listening sockets of the host, and how many sockets this process may have.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the host queues for us while accepting pauses.
const BACKLOG: i32 = 4096;

/// Unsent bytes that the host keeps for a client (tcp(7), `TCP_NOTSENT_LOWAT`; accepted sockets inherit it). The host's own limit
/// is megabytes: a thousand clients that don't read would fill gigabytes, and what comes from there has left the caches.
const UNSENT_MAX_BYTES: u32 = 64 << 10;

/// Files and sockets that are not clients: the served folder's, epoll's, the listening ones', and a reserve.
const RESERVED_FILES: u64 = 512;

/// A listening socket.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    /// An `accept` may find something.
    ready: bool,
    /// The appliance's port that its clients reach.
    port: u16,
    /// What serves them is a host that answers by way of its router, not to where a segment came from.
    behind_router: bool,
}

/// What a listening socket is for, and what is said of it when it can't be had.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// The option that says where to listen.
    pub option: &'static str,
    /// A port to propose.
    pub proposed_port: u16,
    /// The appliance's port that its clients reach.
    pub port: u16,
    /// What serves them is a host that answers by way of its router, not to where a segment came from.
    pub behind_router: bool,
}

impl Listener {
    /// Listens at `address`; its port 0 is replaced by a free one.
    pub fn bind(address: SocketAddr, purpose: &Purpose) -> anyhow::Result<Self> {
        let option = purpose.option;
        let open = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            // Accepted sockets inherit it: a response must not wait for the acknowledgement of the one before.
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_notsent_lowat(UNSENT_MAX_BYTES)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(TcpListener::from_std(socket.into()))
        };
        let socket = match open() {
            Ok(socket) => socket,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                bail!(
                    "{address} is taken by another program: choose another with {option}, such as {option} {}",
                    SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(purpose.proposed_port))
                )
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!(
                    "listening at {address} is not permitted (ports below 1024 belong to root): choose another with \
                    {option}, such as {option} {}",
                    SocketAddr::new(address.ip(), purpose.proposed_port)
                )
            }
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                bail!(
                    "{} is no address of this machine: choose another with {option}, such as {option} 127.0.0.1:{}",
                    address.ip(),
                    address.port()
                )
            }
            Err(error) => return Err(error).with_context(|| format!("can't listen at {address}")),
        };
        let address = socket.local_addr().context("a listening socket has no address")?;
        Ok(Self { socket, address, ready: false, port: purpose.port, behind_router: purpose.behind_router })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The appliance's port that its clients reach, and whether what serves them answers by way of its router.
    pub fn target(&self) -> (u16, bool) {
        (self.port, self.behind_router)
    }

    /// Has epoll report clients under `token`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Clients may have come.
    pub fn set_ready(&mut self) {
        self.ready = true;
    }

    /// The next client, with its address as [`canonical`] has it. `Ok(None)` when there is none now; an error means that the
    /// system has no room for another socket at the moment.
    pub fn accept(&mut self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        while self.ready {
            match self.socket.accept() {
                Ok((stream, address)) => return Ok(Some((stream, canonical(address)))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready = false,
                Err(error) if is_shortage(&error) => return Err(error),
                // accept(2): errors of the new socket, such as a client that is gone again. Take the next.
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// True if the process or the system has no room for another socket.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// A client's address as the appliance sees it: IPv4 where it is IPv4-mapped, and without the scope of a link-local one.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(ip) => SocketAddr::new(ip.into(), address.port()),
    }
}

/// Raises this process's limit of open files as far as it may, and returns how many clients it lets in.
pub fn client_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.unwrap_or(u64::from(u32::MAX));
    files.saturating_sub(RESERVED_FILES).max(files / 2).try_into().unwrap_or(usize::MAX)
}
