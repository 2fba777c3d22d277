//! The grant table: which pages another domain may use, entry by entry (version 1, `grant_table.h`).
//!
//! An entry is ours while its flags are 0. Ending a grant is an agreement: Xen marks entries that are mapped or copied from, and
//! an entry that is marked can't be ended. Such an entry is quarantined with its page until Xen's mark has gone.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::abi::grant::{Entry, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING, RESERVED};
use super::{DomainId, Hypervisor, XenError};
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
    /// If Xen does not allow the domain such a large table, or there is too little memory.
    pub fn reserve(&mut self, hypervisor: &dyn Hypervisor, entries: usize) -> Result<(), XenError> {
        while self.frames.len() * ENTRIES_PER_FRAME < self.reserved + entries + RESERVED as usize {
            let frame = SharedMemory::try_new(PAGE_BYTES).ok_or(XenError::NoMemory)?;
            let index = self.frames.len();
            let mapped = hypervisor.map_grant_frame(index as u32, frame.address(0) as usize);
            mapped.map_err(|error| XenError::Hypercall { what: "the grant table can't be made larger", error })?;
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
        let entries = self.frames.len() * ENTRIES_PER_FRAME;
        self.quarantine.reserve(entries.saturating_sub(self.quarantine.len()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::PagePool;
    use crate::rings::xen::{EventPort, HypercallError};
    use core::cell::Cell;

    /// A Xen that has a limit to the frames of a grant table.
    struct Frames {
        limit: u32,
        mapped: Cell<u32>,
    }

    impl Hypervisor for Frames {
        fn alloc_unbound(&self, _: DomainId) -> Result<EventPort, HypercallError> {
            Err(HypercallError(28))
        }

        fn close(&self, _: EventPort) {}

        fn notify(&self, _: EventPort) {}

        fn acknowledge(&self, _: EventPort) {}

        fn map_grant_frame(&self, index: u32, address: usize) -> Result<(), HypercallError> {
            assert!(index == self.mapped.get() && address.is_multiple_of(PAGE_BYTES));
            self.mapped.set(index + 1);
            if index < self.limit { Ok(()) } else { Err(HypercallError(12)) }
        }
    }

    fn table(limit: u32, entries: usize) -> Result<(GrantTable, Rc<Stats>), XenError> {
        let stats = Rc::new(Stats::default());
        let mut table = GrantTable::new(stats.clone());
        table.reserve(&Frames { limit, mapped: Cell::new(0) }, entries)?;
        Ok((table, stats))
    }

    fn entry(table: &GrantTable, grant: &GrantRef) -> Entry {
        let (frame, place) = table.place(grant.0);
        frame.read(place)
    }

    fn set_flags(table: &GrantTable, grant: u32, flags: u16) {
        let (frame, place) = table.place(grant);
        frame.store16(place, flags, Ordering::Relaxed);
    }

    #[test]
    fn an_entry_says_who_may_do_what_with_which_page_until_it_is_ended() {
        let (mut table, stats) = table(1, 10).unwrap();
        let read = table.grant(7, 0x1234_5000, Access::Read).unwrap();
        let write = table.grant(0, 0x5000, Access::Write).unwrap();
        assert!(read.number() >= RESERVED && read != write);
        assert_eq!(entry(&table, &read), Entry { flags: 1 | 4, domid: 7, frame: 0x1_2345 });
        assert_eq!(entry(&table, &write), Entry { flags: 1, domid: 0, frame: 5 });
        assert_eq!((stats.grant_writes.get(), stats.grants_in_use.get()), (2, 2));
        let number = read.number();
        assert!(table.end_own(read) && table.end_own(write));
        assert_eq!(entry(&table, &GrantRef(number)).flags, 0);
        assert_eq!((stats.grants_in_use.get(), stats.grants_quarantined.get()), (0, 0));
    }

    #[test]
    fn what_the_other_domain_still_uses_stays_in_quarantine() {
        let pool = PagePool::new(2);
        let (mut table, stats) = table(1, 10).unwrap();
        for (mark, access) in [(GTF_READING, Access::Read), (GTF_WRITING, Access::Write)] {
            let page = pool.allocate().unwrap();
            let grant = table.grant(0, page.address(), access).unwrap();
            let number = grant.number();
            set_flags(&table, number, GTF_PERMIT_ACCESS | mark);
            assert!(table.end(grant, page).is_none());
            table.retry_quarantine();
            assert_eq!((pool.in_use(), table.in_use(), stats.grants_quarantined.get()), (1, 1, 1));
            assert_eq!(entry(&table, &GrantRef(number)).flags, GTF_PERMIT_ACCESS | mark);
            set_flags(&table, number, GTF_PERMIT_ACCESS);
            table.retry_quarantine();
            assert_eq!((pool.in_use(), table.in_use(), stats.grants_quarantined.get()), (0, 0, 0));
        }
        let mut page = pool.allocate().unwrap();
        let grant = table.grant(0, page.address(), Access::Write).unwrap();
        set_flags(&table, grant.number(), GTF_PERMIT_ACCESS | GTF_WRITING);
        assert!(!table.end_of(grant, &page));
        assert!(page.bytes_mut().is_none(), "it must not be written while the other domain may");
        drop(page);
        assert_eq!(pool.in_use(), 1);
    }

    #[test]
    fn as_many_entries_as_were_asked_for_are_there() {
        const FRAME: usize = ENTRIES_PER_FRAME;
        for (limit, entries) in [(0, 1), (1, FRAME)] {
            let error = table(limit, entries).unwrap_err();
            assert!(
                matches!(error, XenError::Hypercall { error: HypercallError(12), .. }),
                "the tools have some of them"
            );
        }
        let (mut table, _) = table(3, 2 * FRAME).unwrap();
        let mut taken: Vec<u32> = core::iter::from_fn(|| Some(table.grant(0, 0, Access::Read)?.0)).collect();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(RESERVED..3 * FRAME as u32));
        (RESERVED..3 * FRAME as u32).for_each(|entry| assert!(table.end_own(GrantRef(entry))));
        table.release(2 * FRAME);
        let frames = Frames { limit: 9, mapped: Cell::new(3) };
        table.reserve(&frames, 2 * FRAME).unwrap();
        assert_eq!(frames.mapped.get(), 3, "what was given back is enough");
    }
}
