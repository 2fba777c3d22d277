//! The front half of the in-memory network device, and the state that both halves share.
//!
//! TX: a frame is a descriptor that holds a copy of the head (slot 0) and a counted reference to each slice. The descriptor
//! itself travels: front → backend → completion → spare list, so nothing is allocated once the spares exist. RX: the front
//! keeps pages of its pool posted; the backend fills them; after the callback they are posted again.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::cell::RefCell;
use core::hash::Hasher;
use siphasher::sip::SipHasher13;

use super::backend::MemoryBackend;
use super::ring::Channel;
use crate::rings::link::{Link, LinkEvent};
use crate::rings::{
    Capabilities, Full, NetEvent, NetQueue, Offload, PAGE_BYTES, Page, PagePool, PageSlice, RxChecksum, RxFrame, RxGso,
    TxFrame,
};
use crate::stats::Stats;

/// Bytes of an Ethernet header, which an MTU does not count.
const ETHERNET_HEADER_BYTES: usize = 14;

/// Indices start just below their overflow, so that every run crosses it.
const FIRST_INDEX: u32 = u32::MAX - 100;

/// Shape of an in-memory network device. The default is what Xen's netback offers.
#[derive(Clone, Copy, Debug)]
pub struct MemoryNetConfig {
    /// What the device says it can do until the backend comes up with something else.
    pub capabilities: Capabilities,
    /// Entries of each ring. In the TX ring a frame takes one for its head, one for each slice, and one more for the extra
    /// info of a GSO frame; in the RX ring each page takes one.
    pub ring_entries: usize,
    /// Bytes of an RX page that the backend fills before it goes on to the next; smaller ones make more slices.
    pub rx_buffer_bytes: usize,
    /// Hashes every frame when it is posted and again when it completes, to detect a page that was written while granted.
    pub verify: bool,
}

impl Default for MemoryNetConfig {
    fn default() -> Self {
        Self {
            capabilities: Capabilities {
                hardware_address: [0x02, 0, 0, 0, 0, 0x01],
                mtu_bytes: 1500,
                max_slots: 18,
                max_frame_bytes: 65_535,
                head_bytes: 2048,
                checksum: true,
                tso4: true,
                tso6: true,
            },
            ring_entries: 256,
            rx_buffer_bytes: PAGE_BYTES,
            verify: false,
        }
    }
}

/// Makes a network device in memory: the half that an appliance uses, and the other side. It is up, and says so with a first
/// [`NetEvent::Up`]. RX pages come from `pool`, as many as it has, up to [`MemoryNetConfig::ring_entries`].
///
/// # Panics
/// If the capabilities contradict each other or the rings are too small for them.
pub fn memory_net(config: MemoryNetConfig, pool: PagePool, stats: Rc<Stats>) -> (MemoryNet, MemoryBackend) {
    assert!((1..=PAGE_BYTES).contains(&config.rx_buffer_bytes), "RX buffers of {} bytes", config.rx_buffer_bytes);
    let entries = config.ring_entries;
    let mut shared = Shared {
        config,
        capabilities: config.capabilities,
        link: Link::new(config.capabilities),
        generation: 0,
        tx: Channel::new(entries, FIRST_INDEX),
        completed: Channel::new(entries, FIRST_INDEX),
        posted: Channel::new(entries, FIRST_INDEX),
        received: Channel::new(entries, FIRST_INDEX),
        spare: Vec::with_capacity(entries),
        slots_in_use: 0,
        frames_in_flight: 0,
        violations: 0,
        front_woken: false,
        back_notified: false,
        rx_pages_wanted: 0,
        pool,
        stats,
    };
    shared.check_capabilities();
    shared.spare.extend(core::iter::repeat_with(|| Box::new(Descriptor::new(&config.capabilities))).take(entries));
    shared.post_pages();
    let shared = Rc::new(RefCell::new(shared));
    let lent = RxFrame { slices: ArrayVec::new(), checksum: RxChecksum::Unknown, gso: None };
    (MemoryNet { shared: shared.clone(), lent }, MemoryBackend::new(shared))
}

/// A frame in the TX ring.
pub(super) struct Descriptor {
    pub head: Vec<u8>,
    pub slices: Vec<PageSlice>,
    pub offload: Offload,
    /// Ring entries that it takes.
    slots: usize,
    /// Which life of the rings it belongs to.
    pub generation: u32,
    /// Of all bytes when it was posted; only kept with [`MemoryNetConfig::verify`].
    hash: u64,
}

impl Descriptor {
    fn new(capabilities: &Capabilities) -> Self {
        Self {
            head: Vec::with_capacity(capabilities.head_bytes),
            slices: Vec::with_capacity(capabilities.max_slots - 1),
            offload: Offload::None,
            slots: 0,
            generation: 0,
            hash: 0,
        }
    }

    fn content_hash(&self) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(0x6d69, 0x6361);
        hasher.write(&self.head);
        for slice in &self.slices {
            hasher.write(slice.bytes());
        }
        hasher.finish()
    }
}

/// A page that the backend filled. The last one of a frame carries what is known of the whole.
pub(super) struct ReceivedPage {
    pub slice: PageSlice,
    pub end: Option<(RxChecksum, Option<RxGso>)>,
}

/// What both halves see.
pub(super) struct Shared {
    pub config: MemoryNetConfig,
    pub capabilities: Capabilities,
    pub link: Link<Capabilities>,
    /// Counts the lives of the rings: what belongs to an earlier one is dead.
    pub generation: u32,
    pub tx: Channel<Box<Descriptor>>,
    pub completed: Channel<Box<Descriptor>>,
    pub posted: Channel<Page>,
    pub received: Channel<ReceivedPage>,
    #[expect(clippy::vec_box, reason = "the boxes travel, so that handing a frame over moves a pointer")]
    spare: Vec<Box<Descriptor>>,
    /// TX entries from `transmit` to `reclaim`: each is a grant.
    pub slots_in_use: usize,
    pub frames_in_flight: usize,
    pub violations: u64,
    pub front_woken: bool,
    pub back_notified: bool,
    /// Pages that the last frame lacked which did not fit; 0 if the backend waits for none.
    pub rx_pages_wanted: usize,
    pool: PagePool,
    pub stats: Rc<Stats>,
}

impl Shared {
    fn check_capabilities(&self) {
        let capabilities = &self.capabilities;
        let entries = self.config.ring_entries;
        let max_slots = capabilities.max_slots;
        assert!(max_slots >= 1 && max_slots < entries, "{entries} ring entries for frames of {max_slots} slots");
        let single = ETHERNET_HEADER_BYTES + usize::from(capabilities.mtu_bytes);
        assert!(
            max_slots > 1 || capabilities.head_bytes >= single,
            "a frame of one slot has no room for {single} bytes"
        );
        let tso = capabilities.tso4 || capabilities.tso6;
        assert!(capabilities.checksum || !tso, "segmentation offload implies checksum offload");
    }

    fn has_room_for_page(&self) -> bool {
        self.link.is_up() && self.posted.len() + self.received.len() < self.config.ring_entries
    }

    /// Fills the RX ring from the pool as far as it goes.
    fn post_pages(&mut self) {
        while self.has_room_for_page() {
            let Some(page) = self.pool.allocate() else { break };
            self.posted.push(page);
        }
        self.posted.publish();
    }

    /// Tells the backend, if it asked to be told of what is there now.
    fn notify_backend(&mut self) {
        let frames = self.tx.crossed_event();
        let pages = self.posted.crossed_event();
        if frames || pages {
            self.back_notified = true;
            self.stats.notifications.increment();
        }
    }

    /// Wakes the front unconditionally.
    pub fn wake_front(&mut self) {
        self.front_woken = true;
        self.stats.wakeups.increment();
    }

    /// Compares a frame's bytes with what they were when it was posted.
    pub fn verify(&mut self, descriptor: &Descriptor) {
        if self.config.verify && descriptor.hash != descriptor.content_hash() {
            self.violations += 1;
            debug_assert!(false, "a page was written while it was granted to the backend");
        }
    }

    /// Drops a descriptor's page references and keeps it for the next frame.
    pub fn recycle(&mut self, mut descriptor: Box<Descriptor>) {
        descriptor.slices.clear();
        if self.spare.len() < self.config.ring_entries {
            self.spare.push(descriptor);
        }
    }

    /// Tears the rings down: every page and descriptor that is in them comes back.
    pub fn tear_down(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.tx.publish();
        while let Some(descriptor) = self.tx.pop() {
            self.verify(&descriptor);
            self.recycle(descriptor);
        }
        while let Some(descriptor) = self.completed.pop() {
            self.recycle(descriptor);
        }
        self.tx.reset().for_each(drop);
        self.completed.reset().for_each(drop);
        self.posted.reset().for_each(drop);
        self.received.reset().for_each(drop);
        self.slots_in_use = 0;
        self.frames_in_flight = 0;
        self.rx_pages_wanted = 0;
    }

    /// Sets the rings up again.
    pub fn set_up(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
        self.check_capabilities();
        self.post_pages();
    }

    /// The next received frame, into `frame`.
    fn take_received(&mut self, frame: &mut RxFrame) -> bool {
        while let Some(ReceivedPage { slice, end }) = self.received.pop() {
            frame.slices.push(slice);
            if let Some((checksum, gso)) = end {
                frame.checksum = checksum;
                frame.gso = gso;
                return true;
            }
        }
        debug_assert!(frame.slices.is_empty(), "half a frame was published");
        false
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        let gso = matches!(frame.offload, Offload::Segment { .. });
        let slots = frame.slots() + usize::from(gso);
        if !self.link.is_up() || self.slots_in_use + slots > self.config.ring_entries {
            self.stats.tx_full.increment();
            return Err(Full);
        }
        // A descriptor that a backend lost over a `Down` is replaced; otherwise there is one for each ring entry.
        let mut descriptor = self.spare.pop().unwrap_or_else(|| Box::new(Descriptor::new(&self.capabilities)));
        descriptor.head.clear();
        descriptor.head.extend_from_slice(frame.head);
        descriptor.slices.extend_from_slice(frame.slices);
        descriptor.offload = frame.offload;
        descriptor.slots = slots;
        descriptor.generation = self.generation;
        if self.config.verify {
            descriptor.hash = descriptor.content_hash();
        }
        self.tx.push(descriptor);
        self.slots_in_use += slots;
        self.frames_in_flight += 1;
        self.stats.tx_frames.increment();
        self.stats.tx_bytes.add(frame.len() as u64);
        self.stats.tx_slots.add(slots as u64);
        Ok(())
    }
}

/// The half of an in-memory network device that an appliance uses.
pub struct MemoryNet {
    shared: Rc<RefCell<Shared>>,
    /// The frame being lent to `receive`'s sink; empty otherwise.
    lent: RxFrame,
}

impl MemoryNet {
    /// Whether the backend woke this side since the last call: the loop's interrupt.
    pub fn woken(&self) -> bool {
        core::mem::take(&mut self.shared.borrow_mut().front_woken)
    }

    /// TX frames between `transmit` and `reclaim`.
    pub fn in_flight(&self) -> usize {
        self.shared.borrow().frames_in_flight
    }

    /// TX ring entries, and so grants, between `transmit` and `reclaim`.
    pub fn grants_in_use(&self) -> usize {
        self.shared.borrow().slots_in_use
    }

    /// Frames of which a page changed while it was granted; always 0 without [`MemoryNetConfig::verify`].
    pub fn violations(&self) -> u64 {
        self.shared.borrow().violations
    }

    /// Pages posted for reception.
    pub fn rx_posted(&self) -> usize {
        self.shared.borrow().posted.len()
    }
}

impl NetQueue for MemoryNet {
    fn capabilities(&self) -> Capabilities {
        self.shared.borrow().capabilities
    }

    fn event(&mut self) -> Option<NetEvent> {
        Some(match self.shared.borrow_mut().link.next()? {
            LinkEvent::Down => NetEvent::Down,
            LinkEvent::Up(capabilities) => NetEvent::Up(capabilities),
            LinkEvent::Gone => NetEvent::Gone,
        })
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize {
        let mut frames = 0;
        while frames < budget && self.shared.borrow_mut().take_received(&mut self.lent) {
            frames += 1;
            sink(&self.lent);
            let mut shared = self.shared.borrow_mut();
            shared.stats.rx_frames.increment();
            shared.stats.rx_bytes.add(self.lent.len() as u64);
            for slice in self.lent.slices.drain(..) {
                let page = slice.into_page();
                // A page that the sink kept a reference to must not be written again: it goes back to the pool in time. And
                // a sink may have taken the device down.
                if page.is_unique() && shared.has_room_for_page() {
                    shared.posted.push(page);
                }
            }
            shared.posted.publish();
        }
        frames
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        let mut shared = self.shared.borrow_mut();
        frame.debug_check(&shared.capabilities);
        shared.transmit(frame)
    }

    fn flush(&mut self) {
        let mut shared = self.shared.borrow_mut();
        shared.tx.publish();
        shared.post_pages();
        shared.notify_backend();
    }

    fn reclaim(&mut self) -> usize {
        let mut shared = self.shared.borrow_mut();
        let mut frames = 0;
        while let Some(descriptor) = shared.completed.pop() {
            shared.slots_in_use -= descriptor.slots;
            shared.frames_in_flight -= 1;
            shared.recycle(descriptor);
            frames += 1;
        }
        frames
    }

    fn arm(&mut self) -> bool {
        let mut shared = self.shared.borrow_mut();
        // Pages that came free since the last round are posted before the backend is left alone with an empty ring.
        shared.post_pages();
        shared.notify_backend();
        let completed = shared.completed.arm(1);
        let received = shared.received.arm(1);
        completed || received || shared.link.pending()
    }
}
