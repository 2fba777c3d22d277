//! The split queue (virtio 1.2 §2.7), with indirect tables that are allocated once and notifications by event index.
//!
//! What the driver has to remember of a buffer (its length, which descriptors it takes, that the device holds it) is kept in
//! memory of our own: nothing that the device can write is ever read back but the used ring and the device's event index, and
//! those are checked. The legacy layout serves every device.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use super::VirtioError;
use super::features::{EVENT_IDX, INDIRECT_DESC};
use super::transport::{QueueAddresses, Transport};
use crate::rings::PAGE_BYTES;
use crate::rings::shared_memory::SharedMemory;

/// Most entries that are used of what a device offers.
pub(super) const MAX_ENTRIES: u16 = 256;
/// Fewer can't even hold a frame of a few pieces.
const MIN_ENTRIES: u16 = 4;

const DESCRIPTOR_BYTES: usize = 16;
/// Descriptor flags (§2.7.5).
const NEXT: u64 = 1;
const WRITE: u64 = 2;
const INDIRECT: u64 = 4;

/// Flags of the available and of the used ring: the writer wants no notifications.
const NO_NOTIFICATION: u16 = 1;

/// A piece of memory for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub address: u64,
    pub bytes: u32,
    /// The device writes it; otherwise it reads it. Buffers to be written come last.
    pub writable: bool,
}

/// A buffer list that the device has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// What [`SplitQueue::add`] returned; below [`MAX_ENTRIES`], and free again.
    pub id: u16,
    /// Bytes that the device says it wrote: no more than were writable. Means nothing where none were.
    pub bytes: u32,
}

/// What a publication came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    /// There was nothing new.
    Empty,
    /// The device sees it without a notification.
    Quiet,
    /// The device wants to be notified.
    Notify,
}

/// What is remembered of a buffer list by its id.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Descriptors of the queue's table that it takes; 0 if the device doesn't hold it.
    descriptors: u16,
    writable_bytes: u32,
    /// The publication that shows it to the device.
    publication: u64,
}

/// Offsets in the queue's memory.
#[derive(Clone, Copy, Debug)]
struct Places {
    available: usize,
    used: usize,
    tables: usize,
}

impl Places {
    /// The legacy layout: the used ring begins on a page of its own (§2.7.2). The tables come behind.
    fn new(entries: u16) -> Self {
        let entries = usize::from(entries);
        let available = entries * DESCRIPTOR_BYTES;
        let used = (available + 6 + 2 * entries).next_multiple_of(PAGE_BYTES);
        let tables = (used + 6 + 8 * entries).next_multiple_of(DESCRIPTOR_BYTES);
        Self { available, used, tables }
    }
}

/// A queue.
#[derive(Debug)]
pub(super) struct SplitQueue {
    number: u16,
    entries: u16,
    memory: SharedMemory,
    places: Places,
    /// Descriptors of each indirect table; 0 without tables.
    table_entries: usize,
    indirect: bool,
    event_index: bool,
    /// Free descriptors, the next one last.
    free: Vec<u16>,
    /// The descriptor behind each one in a chain.
    next: Box<[u16]>,
    held: Box<[Held]>,
    /// Index behind the last buffer list that was added.
    added: u16,
    /// Index behind the last one that the device may see.
    published: u16,
    /// Number of the next publication.
    publication: u64,
    /// Index of the next used element.
    used: u16,
    /// The device's used index, as last read and checked.
    seen: u16,
    /// Without event index: interrupts are wanted.
    armed: bool,
}

impl SplitQueue {
    /// Memory for queue `number`; buffer lists of up to `table_entries` pieces go into tables where the device allows (0: never).
    pub fn new(number: u16, table_entries: usize) -> Self {
        let places = Places::new(MAX_ENTRIES);
        let tables = table_entries * DESCRIPTOR_BYTES * usize::from(MAX_ENTRIES);
        Self {
            number,
            entries: 0,
            memory: SharedMemory::new(places.tables + tables),
            places,
            table_entries,
            indirect: false,
            event_index: false,
            free: Vec::with_capacity(MAX_ENTRIES.into()),
            next: vec![0; MAX_ENTRIES.into()].into_boxed_slice(),
            held: vec![Held::default(); MAX_ENTRIES.into()].into_boxed_slice(),
            added: 0,
            published: 0,
            publication: 0,
            used: 0,
            seen: 0,
            armed: true,
        }
    }

    /// Empties the queue and shows it to the device, which must have been reset. Interrupts are wanted until the first
    /// [`SplitQueue::pop`].
    pub fn start<T: Transport>(&mut self, transport: &mut T, features: u64) -> Result<(), VirtioError> {
        let offered = transport.max_entries(self.number);
        if offered < MIN_ENTRIES {
            return Err(VirtioError::NoQueue { queue: self.number, entries: offered });
        }
        // A split queue has a power of two of entries (§2.7).
        self.entries = (1 << offered.ilog2()).min(MAX_ENTRIES);
        self.places = Places::new(self.entries);
        self.indirect = features & INDIRECT_DESC != 0 && self.table_entries > 0;
        self.event_index = features & EVENT_IDX != 0;
        self.memory.clear();
        self.free.clear();
        self.free.extend((0..self.entries).rev());
        self.held.fill(Held::default());
        (self.added, self.published, self.used, self.seen) = (0, 0, 0, 0);
        self.armed = true;
        let addresses = QueueAddresses {
            entries: self.entries,
            descriptors: self.memory.address(0),
            available: self.memory.address(self.places.available),
            used: self.memory.address(self.places.used),
        };
        transport.set_queue(self.number, &addresses)
    }

    /// The queue's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Entries in use; 0 before the start.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Most pieces of a buffer list.
    pub fn max_buffers(&self) -> usize {
        // A table must not be longer than the queue either (§2.7.5.3.1).
        let most = usize::from(self.entries);
        if self.indirect { most.min(self.table_entries) } else { most }
    }

    /// Buffer lists that the device holds or will.
    pub fn in_flight(&self) -> u16 {
        self.added.wrapping_sub(self.used)
    }

    /// The id that the next list will have, if there is room for one of `buffers` pieces.
    pub fn room_for(&self, buffers: usize) -> Option<u16> {
        let descriptors = if self.indirect { 1 } else { buffers };
        (buffers <= self.max_buffers() && descriptors <= self.free.len()).then(|| self.free.last().copied())?
    }

    /// Adds a list of buffers, which the device sees after [`SplitQueue::publish`].
    ///
    /// # Panics
    /// If it is empty, or [`SplitQueue::room_for`] it has not been found.
    pub fn add(&mut self, buffers: impl ExactSizeIterator<Item = Buffer>) -> u16 {
        let count = buffers.len();
        assert!(count > 0 && count <= self.max_buffers(), "a list of {count} buffers");
        let head = self.free.pop().expect("there is room");
        let through_table = self.indirect && count > 1;
        let table = self.places.tables + usize::from(head) * self.table_entries * DESCRIPTOR_BYTES;
        let mut writable_bytes = 0;
        let mut place = head;
        for (index, buffer) in buffers.enumerate() {
            writable_bytes += if buffer.writable { buffer.bytes } else { 0 };
            let write = if buffer.writable { WRITE } else { 0 };
            let last = index + 1 == count;
            if through_table {
                let next = if last { 0 } else { NEXT | (index as u64 + 1) << 16 };
                self.write_descriptor(table + index * DESCRIPTOR_BYTES, buffer.address, buffer.bytes, write | next);
                continue;
            }
            let following = if last { head } else { self.free.pop().expect("there is room") };
            let next = if last { 0 } else { NEXT | u64::from(following) << 16 };
            let at = usize::from(place) * DESCRIPTOR_BYTES;
            self.write_descriptor(at, buffer.address, buffer.bytes, write | next);
            self.next[usize::from(place)] = following;
            place = following;
        }
        if through_table {
            let address = self.memory.address(table);
            let bytes = (count * DESCRIPTOR_BYTES) as u32;
            self.write_descriptor(usize::from(head) * DESCRIPTOR_BYTES, address, bytes, INDIRECT);
        }
        let descriptors = if through_table { 1 } else { count as u16 };
        self.held[usize::from(head)] = Held { descriptors, writable_bytes, publication: self.publication };
        let slot = usize::from(self.added & (self.entries - 1));
        self.memory.write16(self.places.available + 4 + 2 * slot, head);
        self.added = self.added.wrapping_add(1);
        head
    }

    /// `flags` holds the descriptor's flags in its lower 16 bits and the next descriptor above.
    fn write_descriptor(&self, place: usize, address: u64, bytes: u32, flags: u64) {
        self.memory.write64(place, address);
        self.memory.write64(place + 8, flags << 32 | u64::from(bytes));
    }

    /// Shows the device what was added.
    pub fn publish(&mut self) -> Publication {
        if self.added == self.published {
            return Publication::Empty;
        }
        self.publication += 1;
        let before = core::mem::replace(&mut self.published, self.added);
        // Descriptors and ring before the index.
        self.memory.store16(self.places.available + 2, self.published, Ordering::Release);
        // The index before the look at what the device wants: it sets that and looks at the index.
        fence(Ordering::SeqCst);
        let notify = if self.event_index {
            let event = self.memory.load16(self.places.used + 4 + 8 * usize::from(self.entries), Ordering::Relaxed);
            self.published.wrapping_sub(event).wrapping_sub(1) < self.published.wrapping_sub(before)
        } else {
            self.memory.load16(self.places.used, Ordering::Relaxed) & NO_NOTIFICATION == 0
        };
        if notify { Publication::Notify } else { Publication::Quiet }
    }

    /// Looks how far the device is.
    fn look(&mut self) -> Result<(), VirtioError> {
        let seen = self.memory.load16(self.places.used + 2, Ordering::Acquire);
        // Every published list is returned once, so the device can't be further than that.
        if seen.wrapping_sub(self.used) > self.published.wrapping_sub(self.used) {
            return Err(VirtioError::IndexJumped);
        }
        self.seen = seen;
        Ok(())
    }

    /// The next list that the device has returned. After an error nothing that it says can be believed: it has to be reset.
    pub fn pop(&mut self) -> Result<Option<Used>, VirtioError> {
        if self.used == self.seen {
            self.look()?;
            if self.used == self.seen {
                return Ok(None);
            }
        }
        if self.armed && !self.event_index {
            self.memory.store16(self.places.available, NO_NOTIFICATION, Ordering::Relaxed);
        }
        self.armed = false;
        let slot = usize::from(self.used & (self.entries - 1));
        let element = self.memory.read64(self.places.used + 4 + 8 * slot);
        let (id, bytes) = (element as u32, (element >> 32) as u32);
        let head = u16::try_from(id).ok().filter(|head| *head < self.entries);
        let held = head.map(|head| self.held[usize::from(head)]).unwrap_or_default();
        let Some(head) = head.filter(|_| held.descriptors > 0 && held.publication < self.publication) else {
            return Err(VirtioError::UnknownBuffer { id });
        };
        // Legacy devices put anything here where there was nothing to write (§2.7.8.1).
        if held.writable_bytes > 0 && bytes > held.writable_bytes {
            return Err(VirtioError::TooLong { bytes });
        }
        self.used = self.used.wrapping_add(1);
        self.release(head, held.descriptors);
        Ok(Some(Used { id: head, bytes }))
    }

    /// Frees the descriptors of a list. Its head is freed last, so that it is the next list's: its memory is warm.
    fn release(&mut self, head: u16, descriptors: u16) {
        self.held[usize::from(head)] = Held::default();
        let mut place = head;
        for _ in 1..descriptors {
            place = self.next[usize::from(place)];
            self.free.push(place);
        }
        self.free.push(head);
        debug_assert!(self.free.len() <= usize::from(self.entries));
    }

    /// Asks for an interrupt when `skipped` lists more than the next have been returned. True if they are there already.
    pub fn arm(&mut self, skipped: u16) -> bool {
        self.armed = true;
        if self.event_index {
            let place = self.places.available + 4 + 2 * usize::from(self.entries);
            self.memory.store16(place, self.used.wrapping_add(skipped), Ordering::Relaxed);
        } else {
            self.memory.store16(self.places.available, 0, Ordering::Relaxed);
        }
        // What we want before the look at the device's index: it writes that and looks at what we want.
        fence(Ordering::SeqCst);
        let seen = self.memory.load16(self.places.used + 2, Ordering::Acquire);
        // An index that makes no sense is something to look at, too.
        seen.wrapping_sub(self.used) > skipped
    }

    /// The device may still use the queue, so its memory is never given back.
    pub fn abandon(&mut self) {
        self.memory.abandon();
    }
}
