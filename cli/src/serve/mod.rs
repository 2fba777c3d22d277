//! Serves a folder or an SHFS volume over HTTP from this process: `minicache serve`.
//!
//! The appliance is the same as on a hypervisor; its network queue is the memory device, and the user-mode network
//! ([`crate::usernet`]) is the other side of it. `source` opens what is served, `server` runs the loop, and this file turns a
//! command line into both.

mod access_log;
mod live;
mod report;
mod server;
mod source;
mod status;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, anyhow, ensure};
use arrayvec::ArrayVec;
use minicache::appliance::{Appliance, ApplianceConfig, MIN_CACHE_BYTES};
use minicache::net::{MAX_ADDRESSES, NetworkConfig};
use minicache::rings::memory::{MemoryNetConfig, memory_net};
use minicache::rings::{Capabilities, PagePool};
use minicache::stats::Stats;
use smoltcp::wire::{IpCidr, IpVersion};

use crate::terminal::warn;
use crate::usernet::{self, Bridge, BridgeConfig, Listener, Purpose};
use access_log::LogFile;
use server::Server;

/// The appliance's hardware address: locally administered, and none that a client half has.
const HARDWARE_ADDRESS: [u8; 6] = [0x06, 0, 0, 0, 0, 1];

/// The port at which the appliance serves on its virtual wire.
const SERVING_PORT: u16 = 80;

/// The port at which µShell listens there.
const SHELL_PORT: u16 = 23;

const HTTP: Purpose = Purpose { option: "--listen", proposed_port: 8080, port: SERVING_PORT, behind_router: false };
const SHELL: Purpose = Purpose { option: "--shell", proposed_port: 2323, port: SHELL_PORT, behind_router: true };

/// Where µShell listens unless told otherwise.
const DEFAULT_SHELL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2323);

/// Entries of the memory device's rings, and its RX pages.
const RING_ENTRIES: usize = 256;

/// Most cache that is accepted: what a page pool can be, less than any machine's memory.
const MAX_CACHE_MIB: usize = 1 << 22;

/// Arguments of `minicache serve`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The folder to serve, or the images of all members of an SHFS volume, in any order
    #[arg(required = true, value_name = "DIR|IMAGE")]
    paths: Vec<PathBuf>,

    /// Where to listen: an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080. Port 0 takes a free one. May be
    /// repeated
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = parse_listen)]
    listen: Vec<SocketAddr>,

    /// Where µShell listens for telnet: an IP address and a port, or "none". It asks for no password: whoever can reach it
    /// can use it. Default: 127.0.0.1:2323, or none where that is taken
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_shell)]
    shell: Option<ShellAt>,

    /// Append a line in the common log format for each request to this file; - stands for standard output
    #[arg(long, value_name = "FILE|-")]
    access_log: Option<PathBuf>,

    /// Memory for cached content, in MiB
    #[arg(long, value_name = "N", default_value_t = 256)]
    cache_mib: usize,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.trim_start_matches(':').parse::<u16>();
        let example = port.map_or("127.0.0.1:8080 or [::1]:8080".to_owned(), |port| format!("127.0.0.1:{port}"));
        format!("give an IP address and a port, such as {example}")
    })
}

/// What `--shell` says.
#[derive(Clone, Copy, Debug)]
enum ShellAt {
    Nowhere,
    Address(SocketAddr),
}

fn parse_shell(text: &str) -> Result<ShellAt, String> {
    match text {
        "none" => Ok(ShellAt::Nowhere),
        text => text
            .parse()
            .map(ShellAt::Address)
            .map_err(|_| format!("give an IP address and a port, such as {DEFAULT_SHELL}, or none")),
    }
}

/// Listens for µShell. The default place is not worth failing for: two servers on one machine are common.
fn listen_for_shell(shell: Option<ShellAt>) -> anyhow::Result<Option<Listener>> {
    match shell {
        Some(ShellAt::Nowhere) => Ok(None),
        Some(ShellAt::Address(at)) => Listener::bind(at, &SHELL).map(Some),
        None => {
            Ok(Listener::bind(DEFAULT_SHELL, &SHELL).inspect_err(|error| warn(&format!("no shell: {error:#}"))).ok())
        }
    }
}

/// Runs `minicache serve`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let least = MIN_CACHE_BYTES >> 20;
    ensure!(
        (least..=MAX_CACHE_MIB).contains(&arguments.cache_mib),
        "--cache-mib {} does not work: give it at least {least}, at most {MAX_CACHE_MIB}",
        arguments.cache_mib
    );
    // The cache's pool takes its memory in one piece and can't do without: asked for here, where "no" is an answer.
    Vec::<u8>::new().try_reserve_exact(arguments.cache_mib << 20).map_err(|_| {
        anyhow!("this machine has not {} MiB of memory to give: choose less with --cache-mib", arguments.cache_mib)
    })?;
    let clients_max = usernet::client_limit();
    let mut listeners =
        arguments.listen.iter().map(|at| Listener::bind(*at, &HTTP)).collect::<anyhow::Result<Vec<_>>>()?;
    let urls: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
    let shell = listen_for_shell(arguments.shell)?;
    let shell_at = shell.as_ref().map(Listener::address);
    listeners.extend(shell);
    let addresses = appliance_addresses(&listeners)?;
    let mut source = source::open(&arguments.paths)?;
    let access_log = arguments.access_log.as_deref().map(LogFile::open).transpose()?;

    let mut secret = [0; 36];
    getrandom::fill(&mut secret).context("the system gives no random numbers")?;
    let [secret @ .., a, b, c, d] = secret;

    let stats = Rc::new(Stats::default());
    let capabilities = Capabilities {
        hardware_address: HARDWARE_ADDRESS,
        mtu_bytes: usernet::MTU_BYTES,
        ..MemoryNetConfig::default().capabilities
    };
    let net_config = MemoryNetConfig { capabilities, ring_entries: RING_ENTRIES, ..MemoryNetConfig::default() };
    let (net, backend) = memory_net(net_config, PagePool::new(RING_ENTRIES), stats.clone());

    let bridge_config = BridgeConfig {
        hardware_address: HARDWARE_ADDRESS,
        clients_max,
        initial_sequence: u32::from_be_bytes([a, b, c, d]),
    };
    let bridge = Bridge::new(bridge_config, backend, listeners).context("can't watch sockets with epoll")?;
    let waker = server::disk_waker(&bridge).context("can't have disks wake epoll")?;
    source.disks.iter_mut().for_each(|disk| disk.set_waker(waker.clone()));

    let mut config = ApplianceConfig { cache_bytes: arguments.cache_mib << 20, ..ApplianceConfig::default() };
    let has = |version| addresses.iter().any(|cidr: &IpCidr| cidr.address().version() == version);
    config.network = NetworkConfig {
        interface: 0,
        gateway_v4: has(IpVersion::Ipv4).then_some(usernet::ROUTER_V4),
        gateway_v6: has(IpVersion::Ipv6).then_some(usernet::ROUTER_V6),
        addresses,
        serving_port: SERVING_PORT,
        shell_port: shell_at.map(|_| SHELL_PORT),
        loopback_sources: true,
    };
    config.tcp.max_connections = clients_max;
    let appliance = Appliance::new(config, net, source.disks, secret, stats)?;

    let mut server = Server::new(appliance, bridge).context("can't watch sockets and signals with epoll")?;
    if server.mount(&source.paths)?.is_none() {
        return Ok(());
    }
    let live = source.folder.is_some_and(|folder| server.keep_live(&folder, waker));
    if let Some(volume) = server.volume() {
        report::started(&source.title, volume, &urls, shell_at, live);
    }
    if let Some(log) = access_log {
        server.keep_log(log);
    }
    server.serve()?;
    report::summary(server.stats(), server.uptime());
    Ok(())
}

/// The addresses that the appliance needs for these listening sockets.
fn appliance_addresses(listeners: &[Listener]) -> anyhow::Result<ArrayVec<IpCidr, MAX_ADDRESSES>> {
    let mut addresses = Vec::new();
    for (index, listener) in listeners.iter().enumerate().take(usernet::MAX_LISTENERS) {
        let (v4, v6) = usernet::appliance_addresses(index);
        let at = listener.address();
        // An IPv6 socket at the unspecified address gets IPv4 clients, too.
        if at.is_ipv4() || at.ip().is_unspecified() {
            addresses.push(IpCidr::new(v4.into(), 24));
        }
        if at.is_ipv6() {
            addresses.push(IpCidr::new(v6.into(), 64));
        }
    }
    ensure!(
        listeners.len() <= usernet::MAX_LISTENERS && addresses.len() <= MAX_ADDRESSES,
        "too many --listen: at most {MAX_ADDRESSES} addresses, the shell's among them, where [::] counts twice"
    );
    Ok(addresses.into_iter().collect())
}
