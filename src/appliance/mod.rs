//! The event loop that joins the rooms.
//!
//! An [`Appliance`] owns its devices, its memory and all state. Whoever runs it (a kernel's loop, a process, the simulator)
//! calls [`Appliance::poll`] until it returns false, then [`Appliance::arm`], and when that returns false too sleeps until a
//! device wakes it or [`Appliance::next_deadline`] comes.

mod config;

use alloc::rc::Rc;
use alloc::vec::Vec;
use smoltcp::time::{Duration, Instant};

use crate::cache::shfs::{MountError, Volume};
use crate::net::{Network, NoSessions};
use crate::rings::{BlockDevice, NetEvent, NetQueue, PAGE_BYTES, PagePool};
use crate::stats::Stats;

pub use config::{ApplianceConfig, ConfigError, MIN_CACHE_BYTES, MIN_PACKET_BYTES};

/// One appliance: a network queue, disks, and everything between them.
pub struct Appliance<N: NetQueue, B: BlockDevice> {
    config: ApplianceConfig,
    net: N,
    disks: Vec<B>,
    network: Network,
    cache_pages: PagePool,
    packet_pages: PagePool,
    stats: Rc<Stats>,
}

impl<N: NetQueue, B: BlockDevice> Appliance<N, B> {
    /// Builds everything; all memory is taken here. `secret` must be unpredictable: it keys the connection table and sequence
    /// numbers. Nothing is mounted yet.
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
        let seed = u64::from_le_bytes(core::array::from_fn(|i| secret[i + 16]));
        let network = Network::new(config.network.clone(), &net.capabilities(), seed, stats.clone())?;
        let cache_pages = PagePool::new(config.cache_bytes / PAGE_BYTES);
        let packet_pages = PagePool::new(config.packet_bytes / PAGE_BYTES);
        Ok(Self { config, net, disks, network, cache_pages, packet_pages, stats })
    }

    /// Begins to read a volume from the disks. It is served from the round on in which all of its table is read; until then, and
    /// if it can't be read, the one before it is (or none).
    pub fn mount(&mut self) {}

    /// How the last [`Appliance::mount`] ended; told once. `None` while it is under way, and when there was none.
    pub fn mount_result(&mut self) -> Option<Result<(), MountError>> {
        None
    }

    /// The volume that new requests are served from.
    pub fn volume(&self) -> Option<&Volume> {
        None
    }

    /// One round of the event loop: what came in, what the disks answered, what is due, what can go out. `unix_s` is the wall
    /// clock in seconds since 1970. True if anything was done: then call it again.
    pub fn poll(&mut self, now: Instant, unix_s: u64) -> bool {
        let _ = unix_s;
        let mut busy = false;
        while let Some(event) = self.net.event() {
            busy = true;
            match event {
                NetEvent::Down | NetEvent::Gone => self.network.device_down(),
                NetEvent::Up(capabilities) => self.network.device_up(&capabilities),
            }
        }
        busy |= self.net.reclaim() > 0;
        let network = &mut self.network;
        busy |= self.net.receive(self.config.receive_budget, &mut |frame| network.receive(frame, &mut |_| ())) > 0;
        busy |= self.network.poll(now, &mut self.net, &mut NoSessions);
        self.net.flush();
        busy
    }

    /// When [`Appliance::poll`] has something to do though no device wakes us. `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.network.next_deadline()
    }

    /// Asks all devices to wake us. True if something has happened meanwhile: then don't sleep.
    pub fn arm(&mut self) -> bool {
        let net = self.net.arm();
        self.disks.iter_mut().fold(net, |pending, disk| disk.arm() || pending)
    }

    /// Ends gracefully: takes no more connections, lets those that are there finish for at most `limit`, then closes the rest.
    /// Keep polling until [`Appliance::is_stopped`].
    pub fn shutdown(&mut self, now: Instant, limit: Duration) {
        let _ = (now, limit);
    }

    /// True when a shutdown is complete.
    pub fn is_stopped(&self) -> bool {
        false
    }

    /// Every counter.
    pub fn stats(&self) -> &Rc<Stats> {
        &self.stats
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

    /// The pages of response heads and receive buffers, to look at: none are in use while nobody is connected and nothing is
    /// being mounted.
    pub fn packet_pages(&self) -> &PagePool {
        &self.packet_pages
    }

    /// Addresses and the control plane, to look at.
    pub fn network(&self) -> &Network {
        &self.network
    }
}
