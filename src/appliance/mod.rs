//! The event loop that joins the rooms.
//!
//! An [`Appliance`] owns its devices, its memory and all state. Whoever runs it (a kernel's loop, a process) calls
//! [`Appliance::turn`] again and again, which polls until nothing is left to do and then sleeps. The simulator takes it apart:
//! [`Appliance::poll`] until it returns false, then [`Appliance::arm`], and when that returns false too nothing happens before
//! a device wakes it or [`Appliance::next_deadline`] comes.
//!
//! | file | duty |
//! |---|---|
//! | `config` | sizes and limits, validated |
//! | `machine` | what µShell sees of all this |
//! | `mounting` | which volume is served, and from which disks |
//! | `pressure` | what to do when unacknowledged slices pin the cache |
//! | `shared_disks` | disks that are mounted from while the cache reads from them |

mod config;
mod machine;
mod mounting;
mod pressure;
mod shared_disks;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::Hasher;
use siphasher::sip::SipHasher13;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpControl;

use crate::cache::ChunkCache;
use crate::cache::shfs::{Mount, MountError};
use crate::http::{AccessLog, HttpServer};
use crate::net::{Network, SESSIONS};
use crate::platform::{MemoryUse, Platform, Power};
use crate::rings::{BlockDevice, NetEvent, NetQueue, PAGE_BYTES, PagePool};
use crate::shell::Shell;
use crate::stats::Stats;
use crate::tcp_gso::{ConnectionId, ConnectionInfo, Stack};

pub use config::{ApplianceConfig, ConfigError, MIN_CACHE_BYTES, MIN_PACKET_BYTES};

use pressure::Pressure;
use shared_disks::SharedDisks;

/// Rounds of the event loop after which the platform is asked for news though there is still work.
const ROUNDS_A_TURN: usize = 16;

/// How long the resets of a shutdown may wait for a ring that is full or a device that is down.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long requests under way may take to finish when the shell says `halt` or `reboot`.
const HALT_LIMIT: Duration = Duration::from_secs(5);

/// One appliance: a network queue, disks, and everything between them.
pub struct Appliance<N: NetQueue, B: BlockDevice> {
    config: ApplianceConfig,
    net: N,
    disks: Vec<B>,
    shared_disks: SharedDisks,
    network: Network,
    tcp: Stack<HttpServer>,
    http: HttpServer,
    pressure: Pressure,
    mount: Option<Mount>,
    mount_secret: [u8; 16],
    /// [`Appliance::mount`] was called while a mount was under way.
    mount_again: bool,
    /// The mount under way is for nothing: meanwhile somebody has unmounted.
    mount_dropped: bool,
    /// What the disks show has changed; it is mounted anew from then on.
    stale: bool,
    renew_at: Instant,
    /// Gives the disk for each mount of "all" disks, where the world makes it anew.
    disk_source: Option<DiskSource<B>>,
    /// The disks to mount from; none stands for all.
    mount_disks: Vec<usize>,
    /// How the latest mount ended.
    mount_outcome: Option<Result<(), MountError>>,
    mount_told: bool,
    /// How often our addresses or the network's limits have changed.
    network_changes: u64,
    phase: Phase,
    /// What the shell has asked of the platform.
    power: Option<Power>,
    can_reboot: bool,
    memory_source: Option<MemorySource>,
    shell: Shell,
    now: Instant,
    unix_s: u64,
    started_at: Option<Instant>,
    packet_pages: PagePool,
    cache_pages: PagePool,
    stats: Rc<Stats>,
}

/// The memory that an appliance serves from.
pub struct Pools {
    /// For response heads.
    pub packet: PagePool,
    /// For the chunk cache.
    pub cache: PagePool,
}

/// Makes a disk, or says why it can't.
pub type DiskSource<B> = Box<dyn FnMut() -> Result<B, String>>;

/// Tells how the machine's memory is used.
pub type MemorySource = Box<dyn Fn() -> MemoryUse>;

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// No new connections; those that are there may finish until then.
    Draining {
        until: Instant,
    },
    /// All are closed; what is left to send may be sent until then.
    Closing {
        until: Instant,
    },
    Stopped,
}

impl<N: NetQueue, B: BlockDevice> Appliance<N, B> {
    /// Builds everything; all memory that serving needs is taken here, but for a volume's directory. `secret` must be
    /// unpredictable: it keys the connection table, sequence numbers and the directory. Nothing is mounted yet.
    ///
    /// # Errors
    /// If the configuration is not valid or does not suit the device.
    pub fn new(
        config: ApplianceConfig,
        net: N,
        disks: Vec<B>,
        secret: [u8; 32],
        stats: Rc<Stats>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let pools = Pools {
            packet: PagePool::new(config.packet_bytes / PAGE_BYTES),
            cache: PagePool::new(config.cache_bytes / PAGE_BYTES),
        };
        Self::with_pools(config, pools, net, disks, secret, stats)
    }

    /// As [`Appliance::new`], in memory that is there already: the configuration's sizes are the pools'.
    ///
    /// # Errors
    /// As [`Appliance::new`].
    pub fn with_pools(
        mut config: ApplianceConfig,
        pools: Pools,
        net: N,
        disks: Vec<B>,
        secret: [u8; 32],
        stats: Rc<Stats>,
    ) -> Result<Self, ConfigError> {
        let Pools { packet: packet_pages, cache: cache_pages } = pools;
        config.packet_bytes = packet_pages.capacity() * PAGE_BYTES;
        config.cache_bytes = cache_pages.capacity() * PAGE_BYTES;
        config.validate()?;
        let capabilities = net.capabilities();
        let network = Network::new(config.network.clone(), &capabilities, derive(&secret, 0), stats.clone())?;
        let tcp_secret = subkey(&secret, 1);
        let mut tcp = Stack::new(config.tcp.clone(), tcp_secret, packet_pages.clone(), stats.clone());
        tcp.device_up(capabilities);
        let cache = ChunkCache::new(cache_pages.clone(), config.tcp.max_connections + SESSIONS, stats.clone());
        let http = HttpServer::new(config.http.clone(), cache, stats.clone());
        Ok(Self {
            config,
            net,
            disks,
            shared_disks: SharedDisks::default(),
            network,
            tcp,
            http,
            pressure: Pressure::default(),
            mount: None,
            mount_secret: subkey(&secret, 3),
            mount_again: false,
            mount_dropped: false,
            stale: false,
            renew_at: Instant::ZERO,
            disk_source: None,
            mount_disks: Vec::new(),
            mount_outcome: None,
            mount_told: false,
            network_changes: 0,
            phase: Phase::Running,
            power: None,
            can_reboot: false,
            memory_source: None,
            shell: Shell::default(),
            now: Instant::ZERO,
            unix_s: 0,
            started_at: None,
            packet_pages,
            cache_pages,
            stats,
        })
    }

    /// Tells `log` of every request from now on.
    pub fn set_access_log(&mut self, log: Box<dyn AccessLog>) {
        self.http.set_access_log(log);
    }

    /// From now on the shell's `free` and `mallinfo` ask `source`.
    pub fn set_memory_source(&mut self, source: MemorySource) {
        self.memory_source = Some(source);
    }

    /// The platform can start the machine anew: the shell's `reboot` works.
    pub fn allow_reboot(&mut self) {
        self.can_reboot = true;
    }

    /// What the shell has asked for, if it has (`halt`, `reboot`). The appliance shuts itself down then: when
    /// [`Appliance::is_stopped`] says so, it is the platform's turn.
    pub fn power_request(&self) -> Option<Power> {
        self.power
    }

    /// Works until there is nothing to do (or for a number of rounds), then lets the platform sleep until there is; but not when
    /// a mount or a shutdown has just ended, or our addresses have changed, for which its owner may be waiting.
    ///
    /// # Errors
    /// What the platform says.
    pub fn turn<P: Platform>(&mut self, platform: &mut P) -> Result<(), P::Error> {
        let unix_s = platform.unix_s();
        let awaited = self.awaited();
        let mut busy = true;
        for _ in 0..ROUNDS_A_TURN {
            busy = platform.work()?;
            busy |= self.poll(platform.now(), unix_s);
            if !busy {
                break;
            }
        }
        let awake = busy || awaited != self.awaited() || self.arm();
        platform.wait_until(if awake { Some(platform.now()) } else { self.next_deadline() })
    }

    /// What an owner may be waiting for.
    fn awaited(&self) -> (bool, Phase, u64) {
        (self.mount.is_some(), self.phase, self.network_changes)
    }

    /// One round of the event loop: what came in, what the disks answered, what is due, what can go out. `unix_s` is the wall
    /// clock in seconds since 1970. True if anything was done: then call it again.
    pub fn poll(&mut self, now: Instant, unix_s: u64) -> bool {
        if self.phase == Phase::Stopped {
            return false;
        }
        self.now = now;
        self.unix_s = unix_s;
        self.started_at.get_or_insert(now);
        let mut busy = self.take_net_events();
        busy |= self.net.reclaim() > 0;
        self.http.tick(unix_s);
        busy |= self.receive(now) > 0;
        busy |= self.poll_mount();
        busy |= self.poll_cache();
        let tcp = &mut self.tcp;
        self.http.wakes(|id| tcp.wake(id));
        busy |= self.renew(now);
        busy |= self.tcp.poll(now, &mut self.http, &mut self.net);
        self.shell.tick(now);
        busy |= self.network.poll(now, &mut self.net, &mut self.shell);
        self.follow_network();
        busy |= self.run_shell();
        if self.power.is_some() && self.phase == Phase::Running {
            self.shutdown(now, HALT_LIMIT);
            busy = true;
        }
        busy |= self.relieve(now);
        busy |= self.end(now, busy);
        self.net.flush();
        busy
    }

    fn take_net_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.net.event() {
            any = true;
            match &event {
                NetEvent::Down => info!("network: the interface is down"),
                NetEvent::Gone => info!("network: the interface is gone"),
                NetEvent::Up(capabilities) => info!("network: the interface is up, mtu {}", capabilities.mtu_bytes),
            }
            match event {
                NetEvent::Down | NetEvent::Gone => {
                    self.network.device_down();
                    self.tcp.device_down();
                }
                NetEvent::Up(capabilities) => {
                    self.network.device_up(&capabilities);
                    self.tcp.device_up(capabilities);
                }
            }
        }
        any
    }

    /// Tells the serving TCP what the network has announced.
    fn follow_network(&mut self) {
        if self.network.take_changed() {
            self.network_changes += 1;
            let (v4, v6) = self.network.mtu_limits();
            self.tcp.set_mtu_limits(v4, v6);
            self.tcp.keep_addresses(|address| self.network.is_ours(address), &mut self.http);
        }
    }

    fn receive(&mut self, now: Instant) -> usize {
        let Self { config, net, network, tcp, http, phase, .. } = self;
        let accepting = *phase == Phase::Running;
        net.receive(config.receive_budget, &mut |frame| {
            network.receive(frame, &mut |segment| {
                // A client that finds nobody home tries again, and perhaps reaches a successor.
                if accepting || segment.header.control != TcpControl::Syn {
                    tcp.receive(segment, now, http);
                }
            });
        })
    }

    fn run_shell(&mut self) -> bool {
        if !self.shell.is_due() {
            return false;
        }
        let mut shell = core::mem::take(&mut self.shell);
        let busy = shell.run(self);
        self.shell = shell;
        if busy {
            self.network.wake_sessions();
        }
        busy
    }

    /// Keeps readers that don't acknowledge from pinning all of the cache.
    fn relieve(&mut self, now: Instant) -> bool {
        let cache = self.http.cache();
        let relief = self.pressure.update(now, cache.pinned_bytes(), cache.capacity_bytes(), cache.starved());
        if let Some(limited) = relief.limit {
            let chunk_bytes = self.http.volume().map_or(PAGE_BYTES, |volume| volume.chunk_bytes as usize);
            self.tcp.set_pressure(limited.then_some(chunk_bytes));
        }
        let reset = (0..relief.resets).take_while(|_| self.tcp.reset_slowest(now, &mut self.http)).count();
        if reset > 0 {
            debug!("memory is short: {} slow readers are reset", reset);
        }
        let resets = self.stats.connections_reset_slowest.get();
        match relief.limit {
            Some(true) => info!("memory is short: send queues are limited; {} slow readers were reset so far", resets),
            Some(false) => info!("memory is enough again; {} slow readers were reset so far", resets),
            None => {}
        }
        relief.limit.is_some() || reset > 0
    }

    /// Goes on with a shutdown.
    fn end(&mut self, now: Instant, busy: bool) -> bool {
        let before = self.phase;
        match self.phase {
            Phase::Running | Phase::Stopped => {}
            Phase::Draining { until } => {
                if now >= until || self.tcp.connections().next().is_none() {
                    self.tcp.shutdown(&mut self.http);
                    self.phase = Phase::Closing { until: now + LAST_WORDS };
                }
            }
            Phase::Closing { until } => {
                let silent = self.tcp.connections().next().is_none() && self.network.sessions_are_over();
                if now >= until || !busy && silent {
                    info!("stopped");
                    self.phase = Phase::Stopped;
                }
            }
        }
        self.phase != before
    }

    /// When [`Appliance::poll`] has something to do though no device wakes us; in the past if it has now. `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Running => None,
            Phase::Draining { until } | Phase::Closing { until } => Some(until),
            Phase::Stopped => return None,
        };
        let pressure = self.pressure.next_deadline(self.http.cache().starved());
        let renew = (self.stale && self.disk_source.is_some()).then_some(self.renew_at);
        let net = self.net.next_deadline();
        [
            net,
            self.tcp.next_deadline(),
            self.network.next_deadline(),
            self.shell.next_deadline(),
            pressure,
            phase,
            renew,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Asks all devices to wake us. True if something has happened meanwhile: then don't sleep.
    pub fn arm(&mut self) -> bool {
        let net = self.net.arm();
        self.disks.iter_mut().fold(net, |pending, disk| disk.arm() || pending)
    }

    /// Reads all objects into the cache, beside whatever else is going on. Without a volume there is nothing to do.
    pub fn prefetch(&mut self) {
        self.shell.run_unattended(&["prefetch-all"]);
    }

    /// Ends gracefully: takes no more connections, says goodbye to the shell's clients, lets requests under way finish for at most `limit`, then resets what is left.
    /// Keep polling until [`Appliance::is_stopped`].
    pub fn shutdown(&mut self, now: Instant, limit: Duration) {
        if self.phase != Phase::Running {
            return;
        }
        info!("shutdown: requests under way may take {}", limit);
        self.phase = Phase::Draining { until: now + limit };
        self.shell.go_down(match self.power {
            Some(Power::Reboot) => "reboots",
            Some(Power::Halt) | None => "halts",
        });
        self.network.wake_sessions();
        self.http.drain();
        let connections: Vec<ConnectionId> = self.tcp.connections().map(|connection| connection.id).collect();
        connections.into_iter().for_each(|id| self.tcp.wake(id));
    }

    /// True when a shutdown is complete.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// What there is to tell of each connection.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> + '_ {
        self.tcp.connections()
    }

    /// Every counter: the numbers of a summary at exit.
    pub fn stats(&self) -> &Rc<Stats> {
        &self.stats
    }

    /// How it was built.
    pub fn config(&self) -> &ApplianceConfig {
        &self.config
    }

    /// The network device, to look at.
    pub fn net(&self) -> &N {
        &self.net
    }

    /// The disks, to look at.
    pub fn disks(&self) -> &[B] {
        &self.disks
    }

    /// The chunk cache's pages, to look at: those in use hold chunks, those with several references are pinned.
    pub fn cache_pages(&self) -> &PagePool {
        &self.cache_pages
    }

    /// The pages of response heads and receive buffers, to look at: none are in use while nobody is connected.
    pub fn packet_pages(&self) -> &PagePool {
        &self.packet_pages
    }

    /// Addresses and the control plane, to look at.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The HTTP server and its chunk cache, to look at.
    pub fn http(&self) -> &HttpServer {
        &self.http
    }
}

/// The `number`th word made from the secret; none tells anything of another.
fn derive(secret: &[u8; 32], number: u64) -> u64 {
    let (key, salt) = secret.split_at(16);
    let key: &[u8; 16] = key.try_into().expect("half of 32 bytes");
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(salt);
    hasher.write_u64(number);
    hasher.finish()
}

/// Two words made from the secret.
fn subkey(secret: &[u8; 32], number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&derive(secret, number).to_le_bytes());
    key[8..].copy_from_slice(&derive(secret, number + 1).to_le_bytes());
    key
}
