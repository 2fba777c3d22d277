//! The transmit queue: header and head in memory of ours, the slices' pages as they are.

use alloc::boxed::Box;
use arrayvec::ArrayVec;

use super::super::VirtioError;
use super::super::life::Life;
use super::super::queue::{Buffer, MAX_ENTRIES, SplitQueue};
use super::super::transport::Transport;
use super::header::{MAX_HEADER_BYTES, transmit_header};
use crate::rings::shared_memory::SharedMemory;
use crate::rings::{Capabilities, PageSlice, TxFrame};

/// Number of the first pair's transmit queue (virtio 1.2 §5.1.2).
const QUEUE: u16 = 1;

/// Most slots of a frame: what Xen guarantees too.
pub(super) const MAX_SLOTS: usize = 18;

/// Bytes of each frame's own memory.
const PLACE_BYTES: usize = 2048;

/// Longest head of a frame.
pub(super) const HEAD_BYTES: usize = PLACE_BYTES - MAX_HEADER_BYTES;

/// The pages that a frame shows to the device.
type Shown = ArrayVec<PageSlice, { MAX_SLOTS - 1 }>;

#[derive(Debug)]
pub(super) struct Transmitter {
    queue: SplitQueue,
    /// Header and head of each frame, by its id.
    heads: SharedMemory,
    shown: Box<[Shown]>,
    header_bytes: usize,
    /// The header takes a descriptor of its own.
    separate_header: bool,
    /// A frame found no room since the last completion.
    starved: bool,
}

impl Transmitter {
    pub fn new() -> Self {
        Self {
            queue: SplitQueue::new(QUEUE, MAX_SLOTS + 1),
            heads: SharedMemory::new(PLACE_BYTES * usize::from(MAX_ENTRIES)),
            shown: (0..MAX_ENTRIES).map(|_| Shown::new()).collect(),
            header_bytes: MAX_HEADER_BYTES,
            separate_header: false,
            starved: false,
        }
    }

    pub fn start<T: Transport>(
        &mut self,
        transport: &mut T,
        features: u64,
        header_bytes: usize,
        separate_header: bool,
    ) -> Result<(), VirtioError> {
        debug_assert!(self.shown.iter().all(|shown| shown.is_empty()));
        (self.header_bytes, self.separate_header, self.starved) = (header_bytes, separate_header, false);
        self.queue.start(transport, features)
    }

    /// Most slots of a frame.
    pub fn max_slots(&self) -> usize {
        (self.queue.max_buffers() - usize::from(self.separate_header)).min(MAX_SLOTS)
    }

    /// Adds a frame. False if there is no room.
    pub fn add(&mut self, frame: &TxFrame<'_>) -> bool {
        assert!(frame.head.len() <= HEAD_BYTES && !frame.head.is_empty(), "a head of {} bytes", frame.head.len());
        let buffers = frame.slots() + usize::from(self.separate_header);
        let Some(id) = self.queue.room_for(buffers) else {
            self.starved = true;
            return false;
        };
        let place = usize::from(id) * PLACE_BYTES;
        self.heads.write(place, &transmit_header(frame)[..self.header_bytes]);
        self.heads.write(place + self.header_bytes, frame.head);
        let address = self.heads.address(place);
        let mut own = ArrayVec::<Buffer, 2>::new();
        let mut push = |address, bytes: usize| own.push(Buffer { address, bytes: bytes as u32, writable: false });
        if self.separate_header {
            push(address, self.header_bytes);
            push(address + self.header_bytes as u64, frame.head.len());
        } else {
            push(address, self.header_bytes + frame.head.len());
        }
        let own_count = own.len();
        let list = (0..buffers).map(|at| match at.checked_sub(own_count) {
            None => own[at],
            Some(at) => {
                let slice = &frame.slices[at];
                let address = (slice.page_address() + slice.offset()) as u64;
                Buffer { address, bytes: slice.len() as u32, writable: false }
            }
        });
        let added = self.queue.add(list);
        debug_assert_eq!(added, id);
        let shown = &mut self.shown[usize::from(id)];
        debug_assert!(shown.is_empty());
        shown.extend(frame.slices.iter().cloned());
        true
    }

    /// Shows the device what was added. Notifies it where it wants to be.
    pub fn publish<T: Transport>(&mut self, life: &mut Life<T, Capabilities>) {
        life.publish(&mut self.queue);
    }

    /// Takes back what the device has sent, and counts it in `frames`.
    pub fn reclaim(&mut self, frames: &mut usize) -> Result<(), VirtioError> {
        while let Some(used) = self.queue.pop()? {
            self.shown[usize::from(used.id)].clear();
            self.starved = false;
            *frames += 1;
        }
        Ok(())
    }

    /// Asks for an interrupt only when there is need for it: frames wait for room, or half the ring is out. Otherwise what has
    /// been sent is taken back with whatever happens next; until then it pins pages, but no frame waits for them. True if it
    /// has happened already.
    pub fn arm(&mut self) -> bool {
        let in_flight = self.queue.in_flight();
        if self.starved || in_flight > self.queue.entries() / 2 { self.queue.arm(in_flight / 2) } else { false }
    }

    /// Takes everything back from a device that has been reset.
    pub fn take_back(&mut self) {
        self.shown.iter_mut().for_each(Shown::clear);
    }

    /// The device may still read all this: it is never used again.
    pub fn abandon(&mut self) {
        self.queue.abandon();
        self.heads.abandon();
        core::mem::forget(core::mem::take(&mut self.shown));
    }
}
