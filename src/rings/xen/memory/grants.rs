//! The guest's grant table, version 1, as Xen reads and marks it.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::super::abi::grant::{Entry, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING, RESERVED};
use super::super::hypervisor::{DomainId, HypercallError};
use super::guest::GuestPage;
use crate::rings::PAGE_BYTES;

/// `EINVAL`.
const EINVAL: u32 = 22;
/// Frames of the table unless the test says otherwise (`max_grant_frames`).
const MAX_FRAMES: usize = 64;
/// Entries in a frame of the table.
const ENTRIES: usize = PAGE_BYTES / size_of::<Entry>();
/// Bits of an address that an entry can say.
const FRAME_BITS: u32 = 32 + PAGE_BYTES.ilog2();
/// More than an allocator takes from where the small pieces lie, as a rule.
const LARGE_BYTES: usize = 1 << 20;

/// Why a page can't be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrantError {
    /// The table has no such entry.
    NoEntry,
    /// The entry allows nothing.
    NotGranted,
    /// It allows it to another domain.
    OtherDomain(DomainId),
    /// It allows to read only.
    ReadOnly,
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEntry => f.write_str("the table has no such entry"),
            Self::NotGranted => f.write_str("the entry allows nothing"),
            Self::OtherDomain(domain) => write!(f, "the entry is for domain {domain}"),
            Self::ReadOnly => f.write_str("the entry allows to read only"),
        }
    }
}

/// A page of the guest's that a back end has mapped.
#[derive(Debug)]
pub(super) struct Mapping {
    gref: u32,
    writable: bool,
    pub page: GuestPage,
}

/// How an entry is in use.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    mappings: u32,
    writable: u32,
    frame: u32,
}

/// The table, and what is mapped.
pub(super) struct Grants {
    /// Where the guest has put the table's frames.
    frames: Vec<GuestPage>,
    max_frames: usize,
    in_use: BTreeMap<u32, Use>,
    /// Addresses near which the guest's memory lies: an entry says the low bits of an address alone.
    near: Vec<usize>,
}

impl Grants {
    /// A table without frames, of a guest whose store page lies at `store`.
    pub fn new(store: usize) -> Self {
        // A process has a heap behind its program, and other pieces of memory far away from it.
        static PROGRAM: u8 = 0;
        let large = vec![0_u8; LARGE_BYTES];
        let near = vec![store, &raw const PROGRAM as usize, large.as_ptr() as usize];
        Self { frames: Vec::new(), max_frames: MAX_FRAMES, in_use: BTreeMap::new(), near }
    }

    /// How many frames the table may have from now on.
    pub fn set_limit(&mut self, frames: usize) {
        self.max_frames = frames;
    }

    /// Puts a frame of the table where `page` was.
    pub fn map_frame(&mut self, index: u32, page: GuestPage) -> Result<(), HypercallError> {
        let index = index as usize;
        if index >= self.max_frames || index > self.frames.len() {
            return Err(HypercallError(EINVAL));
        }
        let mut content = [0; PAGE_BYTES];
        match self.frames.get_mut(index) {
            Some(before) => {
                before.copy_to(0, &mut content);
                *before = page;
            }
            None => self.frames.push(page),
        }
        page.copy_from(0, &content);
        Ok(())
    }

    fn entry(&self, gref: u32) -> Option<(GuestPage, usize)> {
        let frame = self.frames.get(gref as usize / ENTRIES)?;
        Some((*frame, gref as usize % ENTRIES * size_of::<Entry>()))
    }

    fn read(&self, gref: u32) -> Result<Entry, GrantError> {
        let (frame, offset) = self.entry(gref).ok_or(GrantError::NoEntry)?;
        Ok(frame.read(offset))
    }

    fn set_flags(&self, gref: u32, flags: u16) {
        let (frame, offset) = self.entry(gref).expect("it was read before");
        frame.put(offset, flags);
    }

    /// The whole address of which an entry says the low bits: the one that lies nearest to memory that is known.
    fn address_of(&self, frame: u32) -> usize {
        let low = (frame as usize) << PAGE_BYTES.ilog2();
        let distance = |near: usize| {
            let shift = usize::BITS - FRAME_BITS;
            (low.wrapping_sub(near) << shift) as isize >> shift
        };
        let near = self.near.iter().min_by_key(|near| distance(**near).unsigned_abs()).expect("some are known");
        near.wrapping_add_signed(distance(*near))
    }

    /// Whether the entry allows to read only.
    pub fn is_read_only(&self, gref: u32) -> bool {
        self.read(gref).is_ok_and(|entry| entry.flags & GTF_READONLY != 0)
    }

    /// Maps the page that entry `gref` names, for `domain`.
    pub fn map(&mut self, domain: DomainId, gref: u32, writable: bool) -> Result<Mapping, GrantError> {
        let entry = self.read(gref)?;
        if gref < RESERVED || entry.flags & GTF_PERMIT_ACCESS == 0 {
            return Err(GrantError::NotGranted);
        }
        if entry.domid != domain {
            return Err(GrantError::OtherDomain(entry.domid));
        }
        if writable && entry.flags & GTF_READONLY != 0 {
            return Err(GrantError::ReadOnly);
        }
        let known = GTF_PERMIT_ACCESS | GTF_READONLY | GTF_READING | GTF_WRITING;
        assert_eq!(entry.flags & !known, 0, "grant {gref} has flags {:#x}", entry.flags);
        let used = self.in_use.entry(gref).or_default();
        let marked = entry.flags & (GTF_READING | GTF_WRITING) != 0;
        assert_eq!(marked, used.mappings > 0, "only Xen marks grant {gref} as in use");
        used.mappings += 1;
        used.writable += u32::from(writable);
        used.frame = entry.frame;
        let marks = if writable { GTF_READING | GTF_WRITING } else { GTF_READING };
        self.set_flags(gref, entry.flags | marks);
        // SAFETY: the guest has granted this page, and leaves it as it is until the grant is ended (`MemoryXen::hypervisor`).
        let page = unsafe { GuestPage::new(self.address_of(entry.frame)) };
        Ok(Mapping { gref, writable, page })
    }

    /// Ends a mapping.
    ///
    /// # Panics
    /// If the guest has changed the entry meanwhile.
    pub fn unmap(&mut self, mapping: Mapping) {
        let gref = mapping.gref;
        let entry = self.read(gref).expect("it was mapped");
        let used = self.in_use.get_mut(&gref).expect("it was mapped");
        let marked = entry.flags & GTF_READING != 0 && (used.writable == 0 || entry.flags & GTF_WRITING != 0);
        assert!(marked && entry.frame == used.frame, "the guest changed grant {gref} while it was mapped: {entry:?}");
        used.mappings -= 1;
        used.writable -= u32::from(mapping.writable);
        let mut flags = entry.flags;
        if used.writable == 0 {
            flags &= !GTF_WRITING;
        }
        if used.mappings == 0 {
            flags &= !GTF_READING;
            self.in_use.remove(&gref);
        }
        self.set_flags(gref, flags);
    }

    /// Entries that the guest has not ended.
    pub fn granted(&self) -> usize {
        let entries = (RESERVED as usize..self.frames.len() * ENTRIES).map(|gref| self.read(gref as u32));
        entries.filter(|entry| entry.is_ok_and(|entry| entry.flags != 0)).count()
    }

    /// Entries that are mapped.
    pub fn mapped(&self) -> usize {
        self.in_use.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::shared_memory::SharedMemory;

    const BACK: DomainId = 3;

    /// A table of one frame, and what it lies in.
    fn table() -> (Grants, SharedMemory) {
        let memory = SharedMemory::new(PAGE_BYTES);
        let mut grants = Grants::new(memory.address(0) as usize);
        // SAFETY: the memory is the test's, and lives as long as the table.
        let page = unsafe { GuestPage::new(memory.address(0) as usize) };
        grants.map_frame(0, page).unwrap();
        (grants, memory)
    }

    fn grant(memory: &SharedMemory, gref: usize, page: &SharedMemory, flags: u16) {
        let frame = (page.address(0) >> 12) as u32;
        memory.put(gref * size_of::<Entry>(), Entry { flags, domid: BACK, frame });
    }

    #[test]
    fn pages_are_found_by_the_low_bits_of_their_addresses() {
        let (mut grants, memory) = table();
        // After it has been freed, glibc's allocator takes so much and less from its heaps.
        drop(SharedMemory::new(16 * LARGE_BYTES));
        for bytes in [PAGE_BYTES, LARGE_BYTES, 16 * LARGE_BYTES] {
            let page = SharedMemory::new(bytes);
            grant(&memory, 8, &page, GTF_PERMIT_ACCESS);
            let mapping = grants.map(BACK, 8, true).unwrap();
            assert_eq!(mapping.page.address() as u64, page.address(0));
            mapping.page.copy_from(7, b"seen");
            assert_eq!(page.read8(7), b's');
            grants.unmap(mapping);
        }
    }

    #[test]
    fn an_address_near_the_program_or_far_from_it_is_whole_again() {
        let (grants, memory) = table();
        let here = table as *const () as usize & !(PAGE_BYTES - 1);
        for address in [here, here + (1 << 34), memory.address(0) as usize, memory.address(0) as usize - (1 << 38)] {
            assert_eq!(grants.address_of((address >> 12) as u32), address);
        }
    }

    #[test]
    fn entries_are_marked_while_they_are_mapped() {
        let (mut grants, memory) = table();
        let page = SharedMemory::new(PAGE_BYTES);
        grant(&memory, 9, &page, GTF_PERMIT_ACCESS);
        let flags = || memory.read::<Entry>(9 * size_of::<Entry>()).flags & !GTF_PERMIT_ACCESS;
        let (first, second) = (grants.map(BACK, 9, false).unwrap(), grants.map(BACK, 9, true).unwrap());
        assert_eq!((flags(), grants.mapped(), grants.granted()), (GTF_READING | GTF_WRITING, 1, 1));
        grants.unmap(second);
        assert_eq!(flags(), GTF_READING);
        grants.unmap(first);
        assert_eq!((flags(), grants.mapped()), (0, 0));
    }

    #[test]
    fn what_is_not_granted_is_not_mapped() {
        let (mut grants, memory) = table();
        let page = SharedMemory::new(PAGE_BYTES);
        grant(&memory, 9, &page, GTF_PERMIT_ACCESS | GTF_READONLY);
        grant(&memory, 1, &page, GTF_PERMIT_ACCESS);
        let mut refused = |domain, gref, writable| grants.map(domain, gref, writable).unwrap_err();
        assert_eq!(refused(BACK, 9, true), GrantError::ReadOnly);
        assert_eq!(refused(BACK + 1, 9, false), GrantError::OtherDomain(BACK));
        assert_eq!(refused(BACK, 10, false), GrantError::NotGranted);
        assert_eq!(refused(BACK, 1, false), GrantError::NotGranted);
        assert_eq!(refused(BACK, 512, false), GrantError::NoEntry);
        assert!(grants.is_read_only(9) && !grants.is_read_only(10));
    }

    #[test]
    #[should_panic(expected = "while it was mapped")]
    fn a_grant_that_is_taken_back_while_it_is_mapped_is_noticed() {
        let (mut grants, memory) = table();
        let page = SharedMemory::new(PAGE_BYTES);
        grant(&memory, 9, &page, GTF_PERMIT_ACCESS);
        let mapping = grants.map(BACK, 9, false).unwrap();
        memory.put(9 * size_of::<Entry>(), Entry::default());
        grants.unmap(mapping);
    }

    #[test]
    fn a_frame_that_moves_keeps_its_entries_and_the_table_has_a_limit() {
        let (mut grants, memory) = table();
        grant(&memory, 9, &memory, GTF_PERMIT_ACCESS);
        let other = SharedMemory::new(PAGE_BYTES);
        // SAFETY: as in `table`.
        let page = unsafe { GuestPage::new(other.address(0) as usize) };
        grants.map_frame(0, page).unwrap();
        assert_eq!(other.read::<Entry>(9 * size_of::<Entry>()).domid, BACK);
        grants.set_limit(1);
        assert_eq!(grants.map_frame(1, page), Err(HypercallError(22)));
        grants.set_limit(64);
        assert_eq!(grants.map_frame(2, page), Err(HypercallError(22)), "one after the other");
    }
}
