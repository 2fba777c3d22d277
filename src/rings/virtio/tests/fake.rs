//! A virtio device in memory, behind the registers of the memory-mapped transport, legacy or modern.
//!
//! It is the drivers' judge: it panics when a driver breaks the specification. What it does to a driver is up to the test, which
//! takes buffer lists, fills and returns them, honestly or not. It reads and writes memory by the addresses that it is given, as
//! a device does.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::rings::virtio::VirtioError;
use crate::rings::virtio::features::{EVENT_IDX, INDIRECT_DESC};
use crate::rings::virtio::mmio::MmioTransport;
use crate::rings::virtio::registers::Registers;
use crate::rings::virtio::transport::{QueueAddresses, Transport, status};

/// What lies at these addresses belongs to the device: a queue's parts, or a buffer that it holds.
fn peek<const N: usize>(address: u64) -> [u8; N] {
    let place = core::ptr::with_exposed_provenance::<[u8; N]>(address as usize);
    // SAFETY: the driver has named this memory to the device, and takes no reference to it while the device has it.
    unsafe { place.read_unaligned() }
}

fn poke(address: u64, bytes: &[u8]) {
    let place = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: as for `peek`.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) }
}

fn peek16(address: u64) -> u16 {
    u16::from_le_bytes(peek(address))
}

/// A piece of a buffer list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub address: u64,
    pub bytes: u32,
    pub writable: bool,
}

/// A buffer list that the device holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub head: u16,
    pub pieces: Vec<Piece>,
}

impl Chain {
    /// The bytes that the device may read.
    pub fn readable(&self) -> Vec<u8> {
        let pieces = self.pieces.iter().filter(|piece| !piece.writable);
        pieces.flat_map(|piece| (0..piece.bytes.into()).map(|at| peek::<1>(piece.address + at)[0])).collect()
    }

    /// Bytes that the device may write.
    pub fn writable_bytes(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.writable).map(|piece| piece.bytes as usize).sum()
    }

    /// Writes `bytes` into the writable pieces, from `offset` on.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.writable_bytes());
        let (mut skip, mut rest) = (offset, bytes);
        for piece in self.pieces.iter().filter(|piece| piece.writable) {
            let skipped = skip.min(piece.bytes as usize);
            skip -= skipped;
            let (now, later) = rest.split_at(rest.len().min(piece.bytes as usize - skipped));
            poke(piece.address + skipped as u64, now);
            rest = later;
        }
    }
}

#[derive(Debug, Default)]
pub struct FakeQueue {
    pub max_entries: u32,
    entries: u32,
    descriptors: u64,
    available: u64,
    used: u64,
    enabled: bool,
    /// Next index in the available ring.
    next: u16,
    /// The device's used index.
    pub used_index: u16,
    /// `used_index` at the last look whether to interrupt.
    announced: u16,
    /// What the device holds, by head.
    pub held: BTreeMap<u16, Chain>,
    /// Notifications since the last look.
    pub notified: u32,
    /// It has returned what it did not hold: what the driver made of that is no breach.
    lied: bool,
}

/// The device's side.
#[derive(Debug)]
pub struct State {
    pub legacy: bool,
    pub device_id: u32,
    pub offered: u64,
    pub features: u64,
    pub config: Vec<u8>,
    pub generation: u32,
    /// The configuration changes with every read of its generation.
    pub restless: bool,
    pub status: u8,
    /// A reset is not confirmed.
    pub stuck: bool,
    /// A reset is confirmed after so many looks.
    pub reset_looks: u32,
    /// Looks left until then.
    resetting: u32,
    /// The configuration that it has when work begins, of whose change nobody is told.
    pub config_at_start: Option<Vec<u8>>,
    /// FEATURES_OK does not stay set.
    pub refuses: bool,
    selected_features: u32,
    selected_queue: usize,
    page_bytes: u32,
    /// Upper bits of a legacy queue's address.
    high: u64,
    pub queues: Vec<FakeQueue>,
    pub interrupt_status: u32,
    /// Interrupts since the last look.
    pub interrupts: u32,
    pub resets: u32,
}

impl State {
    fn queue(&mut self) -> Option<&mut FakeQueue> {
        self.queues.get_mut(self.selected_queue)
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.features = 0;
        self.interrupt_status = 0;
        self.page_bytes = 0;
        for queue in &mut self.queues {
            *queue = FakeQueue { max_entries: queue.max_entries, ..FakeQueue::default() };
        }
        self.status = 0;
    }

    fn set_status(&mut self, value: u8) {
        if value == 0 {
            // Memory stays in use until the device says otherwise.
            self.resetting = self.reset_looks;
            if !self.stuck && self.reset_looks == 0 {
                self.reset();
            }
            return;
        }
        let added = value & !self.status;
        if added & status::FEATURES_OK != 0 {
            assert!(!self.legacy, "legacy devices know no FEATURES_OK");
            if self.refuses {
                self.status = value & !status::FEATURES_OK;
                return;
            }
        }
        if added & status::DRIVER_OK != 0 {
            assert!(self.legacy || value & status::FEATURES_OK != 0, "features first");
            assert!(self.queues.iter().all(|queue| queue.enabled), "queues first");
            if let Some(config) = self.config_at_start.take() {
                self.config = config;
            }
        }
        self.status = value | self.status & status::NEEDS_RESET;
    }

    fn set_legacy_queue(&mut self, page: u32) {
        assert_eq!(self.page_bytes, 4096, "the page size first");
        let high = self.high;
        let queue = self.queue().unwrap();
        let entries = u64::from(queue.entries);
        queue.descriptors = high + u64::from(page) * 4096;
        queue.available = queue.descriptors + 16 * entries;
        queue.used = (queue.available + 6 + 2 * entries).next_multiple_of(4096);
        queue.enable();
    }

    /// A 64-bit address, one half at a time.
    fn set_half(&mut self, offset: usize, value: u32) {
        let Some(queue) = self.queue() else { return };
        let place = match offset & !0xf {
            0x080 => &mut queue.descriptors,
            0x090 => &mut queue.available,
            _ => &mut queue.used,
        };
        let shift = if offset & 4 == 0 { 0 } else { 32 };
        *place = *place & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }
}

impl FakeQueue {
    fn enable(&mut self) {
        assert!(self.entries.is_power_of_two() && self.entries <= self.max_entries, "{} entries", self.entries);
        assert!(self.descriptors.is_multiple_of(16) && self.available.is_multiple_of(2) && self.used.is_multiple_of(4));
        assert_eq!((peek16(self.available + 2), peek16(self.used + 2)), (0, 0), "rings are fresh");
        self.enabled = true;
    }
}

/// The way to a fake device: the memory-mapped transport, but for a host's addresses, which are too large for a legacy device. It
/// gets what lies above [`LEGACY_BITS`] behind the transport's back.
#[derive(Debug)]
pub struct FakeTransport {
    fake: Fake,
    mmio: MmioTransport<Fake>,
}

/// Bits of an address that a legacy device can be told of.
const LEGACY_BITS: u32 = 44;

impl Transport for FakeTransport {
    fn device_id(&mut self) -> u32 {
        self.mmio.device_id()
    }

    fn is_legacy(&self) -> bool {
        self.mmio.is_legacy()
    }

    fn status(&mut self) -> u8 {
        self.mmio.status()
    }

    fn set_status(&mut self, status: u8) {
        self.mmio.set_status(status);
    }

    fn device_features(&mut self) -> u64 {
        self.mmio.device_features()
    }

    fn set_driver_features(&mut self, features: u64) {
        self.mmio.set_driver_features(features);
    }

    fn max_entries(&mut self, queue: u16) -> u16 {
        self.mmio.max_entries(queue)
    }

    fn set_queue(&mut self, queue: u16, addresses: &QueueAddresses) -> Result<(), VirtioError> {
        if !self.is_legacy() {
            return self.mmio.set_queue(queue, addresses);
        }
        let whole = self.mmio.set_queue(queue, addresses);
        assert_eq!(whole.is_err(), addresses.descriptors >> LEGACY_BITS != 0);
        let low = addresses.descriptors & ((1 << LEGACY_BITS) - 1);
        self.fake.0.borrow_mut().high = addresses.descriptors - low;
        self.mmio.set_queue(queue, &QueueAddresses { descriptors: low, ..*addresses })
    }

    fn notify(&mut self, queue: u16) {
        self.mmio.notify(queue);
    }

    fn config_generation(&mut self) -> u32 {
        self.mmio.config_generation()
    }

    fn config8(&mut self, offset: usize) -> Result<u8, VirtioError> {
        self.mmio.config8(offset)
    }

    fn config16(&mut self, offset: usize) -> Result<u16, VirtioError> {
        self.mmio.config16(offset)
    }

    fn config32(&mut self, offset: usize) -> Result<u32, VirtioError> {
        self.mmio.config32(offset)
    }

    fn acknowledge(&mut self) -> bool {
        self.mmio.acknowledge()
    }
}

/// The handle on a device: for the test, and as the registers that a transport reads and writes.
#[derive(Clone, Debug)]
pub struct Fake(pub Rc<RefCell<State>>);

impl Fake {
    pub fn new(device_id: u32, legacy: bool, offered: u64, config: &[u8], queues: &[u32]) -> Self {
        let queues = queues.iter().map(|&max_entries| FakeQueue { max_entries, ..FakeQueue::default() }).collect();
        Self(Rc::new(RefCell::new(State {
            legacy,
            device_id,
            offered,
            features: 0,
            config: config.to_vec(),
            generation: 0,
            restless: false,
            status: 0,
            stuck: false,
            reset_looks: 0,
            resetting: 0,
            config_at_start: None,
            refuses: false,
            selected_features: 0,
            selected_queue: 0,
            page_bytes: 0,
            high: 0,
            queues,
            interrupt_status: 0,
            interrupts: 0,
            resets: 0,
        })))
    }

    pub fn transport(&self) -> FakeTransport {
        FakeTransport { fake: self.clone(), mmio: MmioTransport::probe(self.clone()).expect("a device").1 }
    }

    fn is_live(&self) -> bool {
        self.0.borrow().status & status::DRIVER_OK != 0
    }

    /// The next buffer list that the driver has published.
    pub fn take(&self, queue: usize) -> Option<Chain> {
        if !self.is_live() {
            return None;
        }
        let mut state = self.0.borrow_mut();
        let features = state.features;
        let queue = &mut state.queues[queue];
        let published = peek16(queue.available + 2).wrapping_sub(queue.next);
        assert!(queue.lied || u32::from(published) <= queue.entries, "more published than there are entries");
        if published == 0 || u32::from(published) > queue.entries {
            return None;
        }
        let head = peek16(queue.available + 4 + 2 * u64::from(u32::from(queue.next) & (queue.entries - 1)));
        queue.next = queue.next.wrapping_add(1);
        let chain = Chain { head, pieces: pieces(queue, head, features) };
        let again = queue.held.insert(head, chain.clone());
        assert!(queue.lied || again.is_none(), "a head that the device holds already");
        Some(chain)
    }

    /// Wants a notification for the next list, or none at all.
    pub fn want_notifications(&self, queue: usize, wanted: bool) {
        let mut state = self.0.borrow_mut();
        let by_event = state.features & EVENT_IDX != 0;
        let queue = &mut state.queues[queue];
        if by_event {
            let event = if wanted { queue.next } else { queue.next.wrapping_sub(1).wrapping_add(0x8000) };
            poke(queue.used + 4 + 8 * u64::from(queue.entries), &event.to_le_bytes());
        } else {
            poke(queue.used, &u16::from(!wanted).to_le_bytes());
        }
    }

    /// Writes a used element, whatever it says, and the index behind it.
    pub fn put_used(&self, queue: usize, id: u32, bytes: u32) {
        let mut state = self.0.borrow_mut();
        let queue = &mut state.queues[queue];
        let slot = u64::from(u32::from(queue.used_index) & (queue.entries - 1));
        poke(queue.used + 4 + 8 * slot, &id.to_le_bytes());
        poke(queue.used + 8 + 8 * slot, &bytes.to_le_bytes());
        let next = queue.used_index.wrapping_add(1);
        queue.used_index = next;
        poke(queue.used + 2, &next.to_le_bytes());
        let held = u16::try_from(id).ok().and_then(|head| queue.held.remove(&head));
        queue.lied |= held.is_none();
    }

    /// Moves the used index without an element.
    pub fn set_used_index(&self, queue: usize, index: u16) {
        let mut state = self.0.borrow_mut();
        state.queues[queue].used_index = index;
        state.queues[queue].lied = true;
        poke(state.queues[queue].used + 2, &index.to_le_bytes());
    }

    /// Interrupts for what was returned, if the driver wants it. True if it did.
    pub fn interrupt(&self, queue: usize) -> bool {
        let mut state = self.0.borrow_mut();
        let by_event = state.features & EVENT_IDX != 0;
        let queue = &mut state.queues[queue];
        let before = core::mem::replace(&mut queue.announced, queue.used_index);
        let wanted = if by_event {
            let event = peek16(queue.available + 4 + 2 * u64::from(queue.entries));
            queue.used_index.wrapping_sub(event).wrapping_sub(1) < queue.used_index.wrapping_sub(before)
        } else {
            queue.used_index != before && peek16(queue.available) & 1 == 0
        };
        if wanted {
            state.interrupt_status |= 1;
            state.interrupts += 1;
        }
        wanted
    }

    /// The configuration has changed.
    pub fn change(&self, offset: usize, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        state.config[offset..offset + bytes.len()].copy_from_slice(bytes);
        state.generation += 1;
        state.interrupt_status |= 2;
        state.interrupts += 1;
    }

    /// The device asks for a reset.
    pub fn break_down(&self) {
        let mut state = self.0.borrow_mut();
        state.status |= status::NEEDS_RESET;
        state.interrupt_status |= 2;
    }

    /// Notifications since the last call.
    pub fn notified(&self, queue: usize) -> u32 {
        core::mem::take(&mut self.0.borrow_mut().queues[queue].notified)
    }

    /// Addresses of the pages that the device may still use, seen by it or only published to it.
    pub fn held_pages(&self) -> Vec<u64> {
        let state = self.0.borrow();
        let mut pages = Vec::new();
        if state.status & status::DRIVER_OK == 0 {
            return pages;
        }
        for queue in &state.queues {
            let mut next = queue.next;
            let published = peek16(queue.available + 2);
            let mut chains: VecDeque<Chain> = queue.held.values().cloned().collect();
            while next != published {
                let head = peek16(queue.available + 4 + 2 * u64::from(u32::from(next) & (queue.entries - 1)));
                chains.push_back(Chain { head, pieces: pieces(queue, head, state.features) });
                next = next.wrapping_add(1);
            }
            pages.extend(chains.iter().flat_map(|chain| &chain.pieces).map(|piece| piece.address & !4095));
        }
        pages
    }
}

/// Reads a list's descriptors, and complains of what the specification forbids (§2.7.5).
fn pieces(queue: &FakeQueue, head: u16, features: u64) -> Vec<Piece> {
    let read = |table: u64, index: u64| {
        let place = table + 16 * index;
        let bytes = u32::from_le_bytes(peek(place + 8));
        (u64::from_le_bytes(peek(place)), bytes, peek16(place + 12), u64::from(peek16(place + 14)))
    };
    assert!(u32::from(head) < queue.entries);
    let mut found = Vec::new();
    let (mut table, mut limit, mut index) = (queue.descriptors, u64::from(queue.entries), u64::from(head));
    loop {
        assert!(index < limit, "a descriptor outside its table");
        let (address, bytes, flags, next) = read(table, index);
        if flags & 4 != 0 {
            assert!(features & INDIRECT_DESC != 0, "indirect descriptors were not agreed on");
            assert!(found.is_empty() && table == queue.descriptors && flags == 4, "a table alone, and not in a table");
            assert!(bytes > 0 && bytes.is_multiple_of(16));
            (table, limit, index) = (address, u64::from(bytes / 16), 0);
            continue;
        }
        assert!(bytes > 0, "an empty piece");
        let writable = flags & 2 != 0;
        assert!(writable || found.last().is_none_or(|last: &Piece| !last.writable), "readable behind writable");
        found.push(Piece { address, bytes, writable });
        assert!(found.len() <= queue.entries as usize, "a list longer than the queue");
        if flags & 1 == 0 {
            return found;
        }
        index = next;
    }
}

impl Registers for Fake {
    fn bytes(&self) -> usize {
        0x100 + self.0.borrow().config.len()
    }

    fn read8(&mut self, offset: usize) -> u8 {
        self.0.borrow().config[offset - 0x100]
    }

    fn read16(&mut self, offset: usize) -> u16 {
        assert!(offset.is_multiple_of(2));
        u16::from_le_bytes([self.read8(offset), self.read8(offset + 1)])
    }

    fn read32(&mut self, offset: usize) -> u32 {
        assert!(offset.is_multiple_of(4));
        if offset >= 0x100 {
            return u32::from(self.read16(offset)) | u32::from(self.read16(offset + 2)) << 16;
        }
        let mut state = self.0.borrow_mut();
        match offset {
            0x000 => 0x7472_6976,
            0x004 if state.legacy => 1,
            0x004 => 2,
            0x008 => state.device_id,
            0x010 if state.selected_features == 0 => state.offered as u32,
            0x010 => (state.offered >> 32) as u32,
            0x034 => state.queue().map_or(0, |queue| queue.max_entries),
            0x060 => state.interrupt_status,
            0x070 => {
                if state.resetting > 0 {
                    state.resetting -= 1;
                    if state.resetting == 0 {
                        state.reset();
                    }
                }
                state.status.into()
            }
            0x0fc => {
                assert!(!state.legacy, "legacy devices have no generation");
                if state.restless {
                    state.generation += 1;
                }
                state.generation
            }
            _ => panic!("a read of register {offset:#x}"),
        }
    }

    fn write8(&mut self, offset: usize, _: u8) {
        panic!("a byte written at {offset:#x}");
    }

    fn write16(&mut self, offset: usize, _: u16) {
        panic!("a word written at {offset:#x}");
    }

    fn write32(&mut self, offset: usize, value: u32) {
        let mut state = self.0.borrow_mut();
        let legacy = state.legacy;
        match offset {
            0x014 => state.selected_features = value,
            0x024 => state.selected_features = value,
            0x020 => {
                assert_eq!(state.status & status::DRIVER_OK, 0, "features come before work");
                let shift = 32 * state.selected_features;
                state.features = state.features & !(0xffff_ffff << shift) | u64::from(value) << shift;
                assert_eq!(state.features & !state.offered, 0, "a feature that was not offered");
            }
            0x028 if legacy => state.page_bytes = value,
            0x030 => state.selected_queue = value as usize,
            0x038 => state.queue().unwrap().entries = value,
            0x03c if legacy => assert_eq!(value, 4096),
            0x040 if legacy => state.set_legacy_queue(value),
            0x044 if !legacy => state.queue().unwrap().enable(),
            0x050 => {
                assert!(state.status & status::DRIVER_OK != 0, "a notification before DRIVER_OK");
                state.queues[value as usize].notified += 1;
            }
            0x064 => state.interrupt_status &= !value,
            0x070 => state.set_status(value as u8),
            0x080 | 0x084 | 0x090 | 0x094 | 0x0a0 | 0x0a4 if !legacy => state.set_half(offset, value),
            _ => panic!("a write of register {offset:#x}"),
        }
    }
}

/// Configuration of an interface whose link is up.
pub fn net_config(mtu_bytes: u16) -> Vec<u8> {
    let mut config = vec![0x02, 0, 0, 0, 0, 7, 1, 0, 1, 0];
    config.extend_from_slice(&mtu_bytes.to_le_bytes());
    config
}

/// Configuration of a disk.
pub fn block_config(capacity: u64, size_max: u32, seg_max: u32, block_bytes: u32) -> Vec<u8> {
    let mut config = capacity.to_le_bytes().to_vec();
    for value in [size_max, seg_max, 0, block_bytes] {
        config.extend_from_slice(&value.to_le_bytes());
    }
    config
}
