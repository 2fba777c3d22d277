//! The world of host sockets: the appliance's network queue is the memory device, and the user-mode network
//! ([`crate::usernet`]) is the other side of it. No privilege, no setup.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time;

use anyhow::{Context, ensure};
use arrayvec::ArrayVec;
use minicache::appliance::ApplianceConfig;
use minicache::net::{MAX_ADDRESSES, NetworkConfig};
use minicache::platform::Platform;
use minicache::rings::memory::{MemoryNet, MemoryNetConfig, memory_net};
use minicache::rings::{Capabilities, PagePool};
use minicache::stats::Stats;
use mio::Token;
use smoltcp::time::Instant;
use smoltcp::wire::{IpCidr, IpVersion};

use super::report::Place;
use super::world::{Common, World};
use super::{Arguments, Ground, SERVING_PORT, SHELL_PORT, ShellAt};
use crate::terminal::warn;
use crate::usernet::{self, Bridge, BridgeConfig, FOREIGN_TOKENS, Listener, Purpose};

/// The appliance's hardware address: locally administered, and none that a client half has.
const HARDWARE_ADDRESS: [u8; 6] = [0x06, 0, 0, 0, 0, 1];

const HTTP: Purpose = Purpose { option: "--listen", proposed_port: 8080, port: SERVING_PORT, behind_router: false };
const SHELL: Purpose = Purpose { option: "--shell", proposed_port: 2323, port: SHELL_PORT, behind_router: true };

/// Where µShell listens unless told otherwise.
pub const DEFAULT_SHELL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2323);

/// Entries of the memory device's rings, and its RX pages.
const RING_ENTRIES: usize = 256;

const SIGNALS: Token = Token(FOREIGN_TOKENS);
const WAKER: Token = Token(FOREIGN_TOKENS + 1);

/// Sockets, signals and the system's clocks.
pub struct Sockets {
    bridge: Bridge,
    common: Common,
    /// Clients are let in.
    open: bool,
}

/// Listens, and lays the virtual wire from there to the appliance. `random` makes sequence numbers unpredictable.
pub fn prepare(arguments: &Arguments, random: [u8; 4], stats: Rc<Stats>) -> anyhow::Result<Ground<MemoryNet, Sockets>> {
    let clients_max = usernet::client_limit();
    let mut listeners =
        arguments.listen.iter().map(|at| Listener::bind(*at, &HTTP)).collect::<anyhow::Result<Vec<_>>>()?;
    let urls = listeners.iter().map(|listener| super::report::url(listener.address())).collect();
    let shell = listen_for_shell(arguments.shell)?;
    let shell_at = shell.as_ref().map(Listener::address);
    listeners.extend(shell);
    let addresses = appliance_addresses(&listeners)?;

    // Losing 64 KiB at a time would be like no network that there is.
    let is_bad = arguments.impair.is_some();
    let capabilities = Capabilities {
        hardware_address: HARDWARE_ADDRESS,
        mtu_bytes: if is_bad { usernet::REAL_MTU_BYTES } else { usernet::MTU_BYTES },
        ..MemoryNetConfig::default().capabilities
    };
    let net_config = MemoryNetConfig { capabilities, ring_entries: RING_ENTRIES, ..MemoryNetConfig::default() };
    let (queue, backend) = memory_net(net_config, PagePool::new(RING_ENTRIES), stats);
    let bridge_config = BridgeConfig {
        hardware_address: HARDWARE_ADDRESS,
        clients_max,
        initial_sequence: u32::from_be_bytes(random),
        checksums: is_bad,
    };
    let bridge = Bridge::new(bridge_config, backend, listeners).context("can't watch sockets with epoll")?;
    let waker = super::disk_waker(bridge.registry(), WAKER)?;
    let common = Common::new(bridge.registry(), SIGNALS).context("can't watch signals with epoll")?;

    let has = |version| addresses.iter().any(|cidr: &IpCidr| cidr.address().version() == version);
    let network = NetworkConfig {
        gateway_v4: has(IpVersion::Ipv4).then_some(usernet::ROUTER_V4),
        gateway_v6: has(IpVersion::Ipv6).then_some(usernet::ROUTER_V6),
        addresses,
        serving_port: SERVING_PORT,
        shell_port: shell_at.map(|_| SHELL_PORT),
        loopback_sources: true,
        ..NetworkConfig::default()
    };
    let mut config = ApplianceConfig { network, ..ApplianceConfig::default() };
    config.tcp.max_connections = clients_max;
    Ok(Ground {
        queue,
        world: Sockets { bridge, common, open: false },
        waker,
        config,
        place: Place { urls, shell: shell_at, setup: None },
    })
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

impl World for Sockets {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn open(&mut self) {
        self.open = true;
    }

    fn drain(&mut self) {
        self.bridge.drain();
    }

    fn is_drained(&self, _: bool) -> bool {
        self.bridge.clients() == 0
    }

    fn close(&mut self) {
        self.bridge.reset_all();
    }
}

impl Platform for Sockets {
    type Error = io::Error;

    fn now(&self) -> Instant {
        self.common.now()
    }

    fn unix_s(&self) -> u64 {
        self.common.unix_s()
    }

    fn work(&mut self) -> io::Result<bool> {
        Ok(self.open && self.bridge.poll(self.now()))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        // What epoll knows already goes before sleep, and before acknowledgements that data may carry.
        let now = self.now();
        let events = self.look(Some(time::Duration::ZERO))?;
        let busy = deadline.is_some_and(|deadline| deadline <= now);
        if self.common.is_stopping() || busy || events > 0 {
            return Ok(());
        }
        let mut timer = None;
        if self.open {
            if self.bridge.flush_acknowledgements(now) || self.bridge.arm() {
                return Ok(());
            }
            timer = self.bridge.next_deadline();
        }
        self.look(self.common.patience(deadline.into_iter().chain(timer)))?;
        Ok(())
    }
}

impl Sockets {
    /// Waits for events, at most that long, and returns how many there were.
    fn look(&mut self, timeout: Option<time::Duration>) -> io::Result<usize> {
        let common = &mut self.common;
        self.bridge.wait(timeout, |token| common.ready(token))
    }
}
