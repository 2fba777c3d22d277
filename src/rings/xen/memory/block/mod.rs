//! blkback: the other side of a disk.
//!
//! | file | duty |
//! |---|---|
//! | `mod` | the handle, and how both sides come together |
//! | `requests` | what the guest asks for, and what comes of it |

mod requests;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::super::abi::block::{Request, Response, UNIT_BYTES, VDISK_READONLY};
use super::super::hypervisor::DomainId;
use super::back_ring::BackRing;
use super::bus::{Bus, BusState, Manners};
use super::events::Bound;
use super::grants::Mapping;
use super::machine::MemoryXen;
use crate::rings::Geometry;
use crate::rings::impair::rng::Rng;

use requests::Waiting;
pub use requests::{DiskOperation, LoggedRequest};

/// Largest ring that is ever offered, as a power of two of pages.
const MAX_RING_PAGE_ORDER: u32 = 4;

/// A disk as the toolstack makes it.
#[derive(Clone, Copy, Debug)]
pub struct BlkbackConfig {
    /// The virtual device's number; 51712 is `xvda`.
    pub number: u32,
    /// The domain of the back end.
    pub domain: DomainId,
    /// Size and nature. Sizes count in sectors of 512 bytes in the store, whatever the disk's are.
    pub geometry: Geometry,
    /// Most segments of an indirect request; `None` if such requests are not offered.
    pub max_indirect_segments: Option<u32>,
    /// The largest ring on offer, as a power of two of pages; `None` if only one page is.
    pub max_ring_page_order: Option<u32>,
    /// Flushes are offered.
    pub flush: bool,
    /// Decides what looks random.
    pub seed: u64,
}

impl BlkbackConfig {
    /// What Linux offers for a disk that can only be read, of so many bytes in sectors of 512 (a last partial one is filled up).
    pub fn read_only(bytes: usize) -> Self {
        let sectors = bytes.div_ceil(UNIT_BYTES as usize) as u64;
        Self {
            number: 51712,
            domain: 0,
            geometry: Geometry { sector_bytes: UNIT_BYTES as u32, sectors, read_only: true },
            max_indirect_segments: Some(256),
            max_ring_page_order: Some(MAX_RING_PAGE_ORDER),
            flush: true,
            seed: 0,
        }
    }
}

/// The ring, while both sides are connected.
struct Life {
    ring: BackRing<Request>,
    events: Bound,
}

/// The other side of a disk whose bytes lie in memory, as Linux's blkback behaves. It makes requests late, disorderly and failing,
/// goes down and comes back.
///
/// It only works in [`MemoryBlkback::step`] and the calls that say so, and what blkback would refuse of a front that speaks for
/// itself is a panic.
pub struct MemoryBlkback {
    config: BlkbackConfig,
    bus: Bus,
    bytes: Vec<u8>,
    goal: Option<BusState>,
    life: Option<Life>,
    /// Requests that were taken and not answered, oldest first.
    waiting: Vec<Waiting>,
    held: bool,
    shuffled: bool,
    fail_next: u32,
    fail_one_in: u64,
    fail_units: Range<u64>,
    refuses: Option<DiskOperation>,
    random: Rng,
    log: Vec<LoggedRequest>,
    kept: Vec<Mapping>,
    keeps: bool,
    violations: u64,
}

impl MemoryBlkback {
    /// Has the toolstack make a disk of these bytes. Its back end waits for the front at once.
    pub fn new(xen: &MemoryXen, bytes: Vec<u8>, config: BlkbackConfig) -> Self {
        let bus = Bus::new(xen.0.clone(), config.domain, "vbd", config.number);
        bus.write_front("virtual-device", config.number);
        bus.write_front("device-type", "disk");
        bus.write_back("mode", if config.geometry.read_only { "r" } else { "w" });
        bus.write_back("type", "phy");
        let mut blkback = Self {
            config,
            bus,
            bytes,
            goal: None,
            life: None,
            waiting: Vec::new(),
            held: false,
            shuffled: false,
            fail_next: 0,
            fail_one_in: 0,
            fail_units: 0..0,
            refuses: None,
            random: Rng::new(config.seed),
            log: Vec::new(),
            kept: Vec::new(),
            keeps: false,
            violations: 0,
        };
        blkback.probe();
        blkback
    }

    /// The front's directory in the store.
    pub fn front(&self) -> String {
        self.bus.front().into()
    }

    /// Its own directory in the store.
    pub fn back(&self) -> String {
        self.bus.back().into()
    }

    /// In which state it is.
    pub fn state(&self) -> BusState {
        self.bus.state()
    }

    /// Whether requests can pass.
    pub fn is_connected(&self) -> bool {
        self.life.is_some()
    }

    /// What it does wrong from now on.
    pub fn set_manners(&mut self, manners: Manners) {
        self.bus.manners = manners;
    }

    /// Starts: says what it offers and waits for the front.
    fn probe(&mut self) {
        let config = &self.config;
        let offers = [
            ("feature-max-indirect-segments", config.max_indirect_segments),
            ("max-ring-page-order", config.max_ring_page_order),
        ];
        for (key, offer) in offers {
            match offer {
                Some(value) => self.bus.write_back(key, value),
                None => self.bus.remove_back(key),
            }
        }
        self.bus.write_back("multi-queue-max-queues", 2);
        self.bus.start();
        self.goal = None;
    }

    /// Whether [`MemoryBlkback::step`] has something to do.
    pub fn is_due(&self) -> bool {
        let notified = |life: &Life| self.bus.machine.events.borrow().is_notified(life.events);
        self.bus.is_due(self.goal) || self.life.as_ref().is_some_and(notified)
    }

    /// Goes on with what the store says of the front, one state at a time, and takes the requests that it was notified of. True if
    /// there was anything.
    pub fn step(&mut self) -> bool {
        let moved = self.follow_front();
        self.take_requests() || moved
    }

    fn follow_front(&mut self) -> bool {
        if !self.bus.is_running() {
            return self.bus.remove_if_left();
        }
        if let Some(front) = self.bus.front_change() {
            self.goal = match front {
                BusState::Initialising if self.bus.state() == BusState::Closed => Some(BusState::InitWait),
                BusState::Initialising | BusState::InitWait => self.goal,
                BusState::Initialised | BusState::Connected => Some(BusState::Connected),
                BusState::Closing => Some(BusState::Closing),
                BusState::Closed | BusState::Unknown => Some(BusState::Closed),
            };
        }
        let Some(goal) = self.goal.filter(|goal| *goal != self.bus.state()) else {
            self.goal = None;
            return self.bus.remove_if_left();
        };
        if self.bus.is_stuck() {
            return false;
        }
        self.goal = None;
        if self.bus.closes_before(goal) {
            self.disconnect();
        } else {
            match goal {
                BusState::Connected => self.connect(),
                BusState::Closed => self.disconnect(),
                _ => {}
            }
        }
        self.bus.switch(goal);
        true
    }

    /// Takes the front's ring, and says what the disk is like.
    fn connect(&mut self) {
        self.disconnect();
        let bus = &self.bus;
        let protocol: Option<String> = bus.read_front("protocol");
        let native = if cfg!(target_arch = "x86_64") { "x86_64-abi" } else { "arm-abi" };
        assert!(protocol.is_none_or(|protocol| protocol == native), "a ring in the layout of another machine");
        let grefs: Vec<u32> = match bus.read_front::<u32>("ring-page-order") {
            None => alloc::vec![bus.demand("ring-ref")],
            Some(order) => {
                let most = self.config.max_ring_page_order;
                assert!(most.is_some_and(|most| order <= most), "a ring of 2^{order} pages, where {most:?} is offered");
                (0..1 << order).map(|index| bus.demand(&alloc::format!("ring-ref{index}"))).collect()
            }
        };
        let events = bus.bind("event-channel");
        let ring = BackRing::map(&mut bus.machine.grants.borrow_mut(), bus.back_domain, &grefs);
        self.life = Some(Life { ring, events });
        self.describe();
    }

    /// Says what the disk is like.
    fn describe(&self) {
        let geometry = &self.config.geometry;
        let bus = &self.bus;
        bus.write_back("feature-flush-cache", u32::from(self.config.flush));
        bus.write_back("feature-persistent", 1);
        bus.write_back("sectors", geometry.bytes() / UNIT_BYTES);
        bus.write_back("info", if geometry.read_only { VDISK_READONLY } else { 0 });
        bus.write_back("sector-size", geometry.sector_bytes);
        bus.write_back("physical-sector-size", geometry.sector_bytes);
    }

    /// Gives everything of the front's back. Requests on the way are lost.
    fn disconnect(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.bus.set_used(life.ring.is_used());
        self.bus.machine.events.borrow_mut().unbind(life.events);
        for waiting in core::mem::take(&mut self.waiting) {
            self.release_mappings(waiting.mappings());
        }
        life.ring.unmap(&mut self.bus.machine.grants.borrow_mut());
    }

    fn release_mappings(&mut self, mappings: impl Iterator<Item = Mapping>) {
        if self.keeps {
            self.kept.extend(mappings);
        } else {
            let mut grants = self.bus.machine.grants.borrow_mut();
            mappings.for_each(|mapping| grants.unmap(mapping));
        }
    }

    /// Whether requests are answered when [`MemoryBlkback::release`] says so, instead of at once.
    pub fn set_held(&mut self, held: bool) {
        self.held = held;
        if !held {
            self.release(usize::MAX);
        }
    }

    /// Whether released requests are picked at random instead of oldest first.
    pub fn set_shuffled(&mut self, shuffled: bool) {
        self.shuffled = shuffled;
    }

    /// The next `count` reads and writes to be carried out fail.
    pub fn fail_next(&mut self, count: u32) {
        self.fail_next = count;
    }

    /// One in `n` reads and writes fails, as the seed decides; 0 ends it.
    pub fn fail_one_in(&mut self, n: u32) {
        self.fail_one_in = n.into();
    }

    /// Reads and writes that touch these units of 512 bytes fail; an empty range ends it.
    pub fn fail_units(&mut self, units: Range<u64>) {
        self.fail_units = units;
    }

    /// Such requests are answered with `BLKIF_RSP_EOPNOTSUPP`, whatever was offered.
    pub fn refuse(&mut self, operation: Option<DiskOperation>) {
        self.refuses = operation;
    }

    /// The back end is stopped: it lets go of everything of the front's at once and says so. Requests on the way are never answered.
    pub fn down(&mut self) {
        if self.bus.is_running() {
            self.disconnect();
            self.bus.stop();
            self.goal = None;
        }
    }

    /// A back end is started, for a disk of this geometry; one that was there is stopped first. A device that is gone stays gone.
    pub fn up(&mut self, geometry: Geometry) {
        self.down();
        if !self.bus.is_removed() {
            self.config.geometry = geometry;
            self.probe();
        }
    }

    /// The disk changes its size while it works: the new one is written, and the state once more.
    pub fn resize(&mut self, sectors: u64) {
        self.config.geometry.sectors = sectors;
        if self.is_connected() {
            self.describe();
            self.bus.switch(self.bus.state());
        }
    }

    /// The toolstack detaches the disk: both sides are to close, and then it is removed.
    pub fn gone(&mut self) {
        self.bus.leave();
    }

    /// The toolstack removes the disk without asking.
    pub fn vanish(&mut self) {
        self.disconnect();
        self.bus.remove();
    }

    /// Size and nature of the disk.
    pub fn geometry(&self) -> Geometry {
        self.config.geometry
    }

    /// Replaces the disk's content (not its geometry).
    pub fn set_bytes(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    /// The disk's content. Behind it the disk reads as zeros and can't be written.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Requests that were taken and not answered.
    pub fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    /// Writes of which a page changed while the back end had it.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// The requests since the last call, in the order in which they were taken.
    pub fn take_log(&mut self) -> Vec<LoggedRequest> {
        core::mem::take(&mut self.log)
    }

    /// Whether the front, asleep, has seen all that was published to it or will be woken by what comes next.
    pub fn front_may_sleep(&self) -> bool {
        self.life.as_ref().is_none_or(|life| self.bus.front_state() != BusState::Connected || life.ring.may_sleep())
    }

    /// Whether mappings are ended when they should be. Those that were not are ended by [`MemoryBlkback::let_go`].
    pub fn set_keeps_mappings(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Ends the mappings that were kept.
    pub fn let_go(&mut self) {
        let mut grants = self.bus.machine.grants.borrow_mut();
        self.kept.drain(..).for_each(|mapping| grants.unmap(mapping));
    }

    /// Wakes the front for nothing.
    pub fn notify_anyway(&mut self) {
        if let Some(life) = &self.life {
            self.bus.machine.events.borrow_mut().raise(life.events);
        }
    }

    /// Puts a response into the ring, whatever it says, and wakes the front. Requests that were not taken are never answered.
    pub fn lie(&mut self, response: Response) {
        if let Some(life) = &mut self.life {
            life.ring.pass_over().respond(response);
            life.ring.publish();
            self.notify_anyway();
        }
    }

    /// Moves the index behind the responses on, with nothing written, and wakes the front. Requests that were not taken are never
    /// answered.
    pub fn jump(&mut self, count: u32) {
        if let Some(life) = &mut self.life {
            life.ring.jump(count);
            life.ring.publish();
            self.notify_anyway();
        }
    }
}
