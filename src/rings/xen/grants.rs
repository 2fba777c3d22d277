//! The grant table: which pages another domain may use, entry by entry (version 1, `grant_table.h`).
//!
//! An entry is ours while its flags are 0. Ending a grant is an agreement: Xen marks entries that are mapped or copied from, and
//! an entry that is marked can't be ended. Such an entry is quarantined with its page until Xen's mark has gone.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::abi::grant::{Entry, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING, RESERVED};
use super::{DomainId, HypercallError, Hypervisor};
use crate::rings::free_map::FreeMap;
use crate::rings::shared_memory::SharedMemory;
use crate::rings::{PAGE_BYTES, Page};
use crate::stats::Stats;

const ENTRY_BYTES: usize = size_of::<Entry>();
const ENTRIES_PER_FRAME: usize = PAGE_BYTES / ENTRY_BYTES;

/// An entry of the grant table that is ours. Who has it ends it ([`GrantTable::end`]).
#[derive(Debug, PartialEq, Eq)]
pub struct GrantRef(u32);

impl GrantRef {
    /// Its number, as the other side is told.
    pub fn number(&self) -> u32 {
        self.0
    }
}

/// What the other domain may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

#[derive(Debug)]
pub(super) struct GrantTable {
    frames: Vec<SharedMemory>,
    free: FreeMap,
    in_use: usize,
    /// Entries that are promised to somebody.
    reserved: usize,
    /// What could not be ended yet, each with the page that it is about, if that is one of a pool.
    quarantine: Vec<(GrantRef, Option<Page>)>,
    stats: Rc<Stats>,
}

impl GrantTable {
    /// A table without entries.
    pub fn new(stats: Rc<Stats>) -> Self {
        Self { frames: Vec::new(), free: FreeMap::new(0), in_use: 0, reserved: 0, quarantine: Vec::new(), stats }
    }

    /// Makes sure that there are so many more entries than were asked for so far. All memory is allocated here.
    ///
    /// # Errors
    /// If Xen does not allow the domain such a large table.
    pub fn reserve(&mut self, hypervisor: &dyn Hypervisor, entries: usize) -> Result<(), HypercallError> {
        while self.frames.len() * ENTRIES_PER_FRAME < self.reserved + entries + RESERVED as usize {
            let frame = SharedMemory::new(PAGE_BYTES);
            let index = self.frames.len();
            hypervisor.map_grant_frame(index as u32, frame.address(0) as usize)?;
            self.frames.push(frame);
            self.free.grow(ENTRIES_PER_FRAME);
            if index == 0 {
                // The tools' entries stay as they are.
                for _ in 0..RESERVED {
                    self.free.take();
                }
            }
        }
        self.reserved += entries;
        self.quarantine.reserve(self.reserved - self.quarantine.len());
        Ok(())
    }

    /// Gives back a promise of entries.
    pub fn release(&mut self, entries: usize) {
        self.reserved -= entries;
    }

    /// Entries in use, quarantined ones among them.
    #[cfg(test)]
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    fn place(&self, entry: u32) -> (&SharedMemory, usize) {
        let entry = entry as usize;
        (&self.frames[entry / ENTRIES_PER_FRAME], entry % ENTRIES_PER_FRAME * ENTRY_BYTES)
    }

    /// Lets a domain use the page at `address`. `None` if every entry is in use.
    pub fn grant(&mut self, domain: DomainId, address: usize, access: Access) -> Option<GrantRef> {
        debug_assert!(address.is_multiple_of(PAGE_BYTES), "a grant of half a page");
        let entry = self.free.take()?;
        let (frame, place) = self.place(entry);
        let flags = match access {
            Access::Read => GTF_PERMIT_ACCESS | GTF_READONLY,
            Access::Write => GTF_PERMIT_ACCESS,
        };
        // Version 1 names 32 bits of a frame number: 16 TiB, which is more than a kernel of ours maps.
        frame.put(place, Entry { flags: 0, domid: domain, frame: (address / PAGE_BYTES) as u32 });
        frame.store16(place, flags, Ordering::Release);
        self.in_use += 1;
        self.stats.grant_writes.increment();
        self.stats.grants_in_use.set(self.in_use as u64);
        Some(GrantRef(entry))
    }

    /// Ends a grant; from then on the page is ours alone, and returned. `None` if the domain still uses it: then both are in
    /// quarantine.
    pub fn end(&mut self, grant: GrantRef, page: Page) -> Option<Page> {
        if self.try_end(&grant) {
            return Some(page);
        }
        self.quarantine(grant, Some(page));
        None
    }

    /// As [`GrantTable::end`], where somebody else has the page, too. False if the domain still uses it.
    pub fn end_of(&mut self, grant: GrantRef, page: &Page) -> bool {
        let ended = self.try_end(&grant);
        if !ended {
            self.quarantine(grant, Some(page.clone()));
        }
        ended
    }

    /// Ends the grant of memory that is no page of a pool. False if the domain still uses it: then the memory must never be used
    /// again.
    pub fn end_own(&mut self, grant: GrantRef) -> bool {
        let ended = self.try_end(&grant);
        if !ended {
            self.quarantine(grant, None);
        }
        ended
    }

    fn quarantine(&mut self, grant: GrantRef, page: Option<Page>) {
        warn!("grant {} is still in use by the other domain: its page is quarantined", grant.0);
        self.quarantine.push((grant, page));
        self.stats.grants_quarantined.set(self.quarantine.len() as u64);
    }

    /// Tries to end what could not be ended before.
    pub fn retry_quarantine(&mut self) {
        if self.quarantine.is_empty() {
            return;
        }
        let mut index = 0;
        while index < self.quarantine.len() {
            let (GrantRef(entry), _) = self.quarantine[index];
            if self.try_end(&GrantRef(entry)) {
                self.quarantine.swap_remove(index);
            } else {
                index += 1;
            }
        }
        self.stats.grants_quarantined.set(self.quarantine.len() as u64);
    }

    fn try_end(&mut self, grant: &GrantRef) -> bool {
        let (frame, place) = self.place(grant.0);
        let mut flags = frame.load16(place, Ordering::Relaxed);
        loop {
            if flags & (GTF_READING | GTF_WRITING) != 0 {
                return false;
            }
            match frame.compare_exchange16(place, flags, 0) {
                Ok(_) => break,
                Err(now) => flags = now,
            }
        }
        self.free.put(grant.0);
        self.in_use -= 1;
        self.stats.grants_in_use.set(self.in_use as u64);
        true
    }
}

impl Drop for GrantTable {
    fn drop(&mut self) {
        // Xen shows the table there for as long as the domain lives.
        self.frames.iter_mut().for_each(SharedMemory::abandon);
        // And what another domain uses is not ours to reuse.
        core::mem::forget(core::mem::take(&mut self.quarantine));
    }
}
