//! The front end's half of a ring (`io/ring.h`): requests out, responses in, through the same entries.
//!
//! What the back end writes is its response index and the responses: the index is checked each time it is read, a response is
//! copied once.

use core::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::abi::ring::{ENTRIES, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, entries};
use super::granted::GrantedMemory;
use super::grants::Access;
use super::{DomainId, Xen, XenError};
use crate::rings::PAGE_BYTES;
use crate::rings::shared_memory::SharedMemory;

/// What a publication came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    /// There was nothing new.
    Empty,
    /// The back end sees it without being notified.
    Quiet,
    /// It wants to be notified.
    Notify,
}

/// A ring in memory that is granted to the back end.
#[derive(Debug)]
pub(super) struct FrontRing {
    granted: GrantedMemory,
    entries: u32,
    entry_bytes: usize,
    /// Index behind the last request that was put.
    produced: u32,
    /// Index behind the last request that the back end may see.
    published: u32,
    /// Index of the next response.
    consumed: u32,
    /// Index behind the last response, as last read and checked.
    seen: u32,
}

impl FrontRing {
    /// An empty ring over a page, granted to `domain`.
    ///
    /// # Errors
    /// As [`GrantedMemory::new`].
    pub fn new(xen: &Xen, domain: DomainId, entry_bytes: usize) -> Result<Self, XenError> {
        let granted = GrantedMemory::new(xen, domain, 1, Access::Write)?;
        granted.memory.store32(REQ_EVENT, 1, Ordering::Relaxed);
        granted.memory.store32(RSP_EVENT, 1, Ordering::Relaxed);
        let entries = entries(PAGE_BYTES, entry_bytes);
        Ok(Self { granted, entries, entry_bytes, produced: 0, published: 0, consumed: 0, seen: 0 })
    }

    fn memory(&self) -> &SharedMemory {
        &self.granted.memory
    }

    /// The number of its grant.
    pub fn reference(&self) -> u32 {
        self.granted.reference_at(0)
    }

    /// Entries of the ring.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// How many requests find room.
    pub fn room(&self) -> u32 {
        self.entries - self.in_flight()
    }

    /// Requests whose response has not been taken.
    pub fn in_flight(&self) -> u32 {
        self.produced.wrapping_sub(self.consumed)
    }

    /// The index of the next request.
    pub fn next_index(&self) -> u32 {
        self.produced
    }

    fn place(&self, index: u32) -> usize {
        ENTRIES + (index & (self.entries - 1)) as usize * self.entry_bytes
    }

    /// Puts a request.
    ///
    /// # Panics
    /// Without room.
    pub fn put<T: IntoBytes + Immutable>(&mut self, request: T) {
        assert!(self.room() > 0 && size_of::<T>() <= self.entry_bytes, "a ring runs over");
        self.memory().put(self.place(self.produced), request);
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the back end what was put (`RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
    pub fn publish(&mut self) -> Publication {
        let before = core::mem::replace(&mut self.published, self.produced);
        let new = self.produced.wrapping_sub(before);
        if new == 0 {
            return Publication::Empty;
        }
        self.memory().store32(REQ_PROD, self.produced, Ordering::Release);
        // The index must be there before the event index is read: the back end does it the other way round.
        fence(Ordering::SeqCst);
        let event = self.memory().load32(REQ_EVENT, Ordering::Relaxed);
        if self.produced.wrapping_sub(event) < new { Publication::Notify } else { Publication::Quiet }
    }

    /// How many responses are there.
    ///
    /// # Errors
    /// If the back end claims more responses than there are requests.
    pub fn available(&mut self) -> Result<u32, XenError> {
        if self.seen == self.consumed {
            let produced = self.memory().load32(RSP_PROD, Ordering::Acquire);
            if produced.wrapping_sub(self.consumed) > self.published.wrapping_sub(self.consumed) {
                return Err(XenError::IndexJumped);
            }
            self.seen = produced;
        }
        Ok(self.seen.wrapping_sub(self.consumed))
    }

    /// The next response, with its index.
    ///
    /// # Errors
    /// As [`FrontRing::available`].
    pub fn take<T: FromBytes>(&mut self) -> Result<Option<(u32, T)>, XenError> {
        debug_assert!(size_of::<T>() <= self.entry_bytes);
        if self.available()? == 0 {
            return Ok(None);
        }
        let index = self.consumed;
        let response = self.memory().read(self.place(index));
        self.consumed = index.wrapping_add(1);
        Ok(Some((index, response)))
    }

    /// Asks to be notified when so many responses are there. True if they are already (`RING_FINAL_CHECK_FOR_RESPONSES`).
    pub fn arm(&mut self, responses: u32) -> bool {
        debug_assert!(responses > 0);
        self.memory().store32(RSP_EVENT, self.consumed.wrapping_add(responses), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let there = self.memory().load32(RSP_PROD, Ordering::Acquire).wrapping_sub(self.consumed);
        // An index that jumped is looked at, too.
        there >= responses
    }
}
