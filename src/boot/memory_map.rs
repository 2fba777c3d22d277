//! Which physical memory is ours: what the hypervisor says is there, less what is taken.

use arrayvec::ArrayVec;

use crate::rings::PAGE_BYTES;

/// Most separate pieces of memory that are remembered. What would be more is left unused.
pub const MAX_REGIONS: usize = 64;

/// A piece of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// Its first byte.
    pub start: u64,
    /// The byte behind its last.
    pub end: u64,
}

impl Region {
    /// From `start`, `bytes` long; `None` if that is nothing or goes beyond what can be addressed.
    pub fn new(start: u64, bytes: u64) -> Option<Self> {
        let end = start.checked_add(bytes)?;
        (bytes > 0).then_some(Self { start, end })
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The whole pages in it.
    fn pages_within(&self) -> Option<Self> {
        let start = self.start.checked_next_multiple_of(PAGE)?;
        let end = self.end / PAGE * PAGE;
        (start < end).then_some(Self { start, end })
    }

    /// The whole pages that it touches.
    pub fn pages_around(&self) -> Self {
        let end = self.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX / PAGE * PAGE);
        Self { start: self.start / PAGE * PAGE, end }
    }
}

const PAGE: u64 = PAGE_BYTES as u64;

/// The pieces of memory that are free, whole pages, in order and apart from each other.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    free: ArrayVec<Region, MAX_REGIONS>,
    lost_bytes: u64,
}

impl MemoryMap {
    /// Adds memory that is there. What is known already is not added again.
    pub fn add(&mut self, region: Region) {
        let Some(mut region) = region.pages_within() else { return };
        // Grown by what it touches or overlaps.
        self.free.retain(|other| {
            let apart = other.end < region.start || region.end < other.start;
            if !apart {
                region = Region { start: region.start.min(other.start), end: region.end.max(other.end) };
            }
            apart
        });
        let place = self.free.partition_point(|other| other.start < region.start);
        if self.free.try_insert(place, region).is_err() {
            self.lost_bytes += region.bytes();
        }
    }

    /// Takes out every page that the region touches.
    pub fn reserve(&mut self, region: Region) {
        let taken = region.pages_around();
        let mut place = 0;
        while place < self.free.len() {
            let Region { start, end } = self.free[place];
            let before = Region { start, end: end.min(taken.start) };
            let after = Region { start: start.max(taken.end), end };
            match (before.start < before.end, after.start < after.end) {
                (true, true) => {
                    self.free[place] = before;
                    if self.free.try_insert(place + 1, after).is_err() {
                        self.lost_bytes += after.bytes();
                    }
                    place += 2;
                    continue;
                }
                (true, false) => self.free[place] = before,
                (false, true) => self.free[place] = after,
                (false, false) => {
                    self.free.remove(place);
                    continue;
                }
            }
            place += 1;
        }
    }

    /// Takes `bytes` (rounded up to whole pages) in one piece, all below `limit`, from the end of the highest piece that has as
    /// much.
    pub fn take_below(&mut self, bytes: u64, limit: u64) -> Option<Region> {
        let bytes = bytes.checked_next_multiple_of(PAGE)?;
        let usable = |region: &Region| Region { start: region.start, end: region.end.min(limit / PAGE * PAGE) };
        let enough = |region: &Region| region.start < region.end && region.bytes() >= bytes;
        let from = self.free.iter().rev().map(usable).find(enough)?;
        let taken = Region { start: from.end - bytes, end: from.end };
        self.reserve(taken);
        Some(taken)
    }

    /// Takes the largest piece, at most `bytes` of it (rounded down to whole pages).
    pub fn take_largest(&mut self, bytes: u64) -> Option<Region> {
        let largest = *self.free.iter().max_by_key(|region| region.bytes())?;
        let bytes = largest.bytes().min(bytes / PAGE * PAGE);
        let taken = Region::new(largest.end - bytes, bytes)?;
        self.reserve(taken);
        Some(taken)
    }

    /// What is free.
    pub fn free(&self) -> &[Region] {
        &self.free
    }

    /// How much is free, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free.iter().map(Region::bytes).sum()
    }

    /// How much was left unused since there were too many pieces, in bytes.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn region(start: u64, end: u64) -> Region {
        Region { start, end }
    }

    #[test]
    fn only_whole_pages_count() {
        let mut map = MemoryMap::default();
        map.add(region(0x9fc01, 0xa0fff));
        assert!(map.free().is_empty());
        map.add(region(0x1234, 0x5678));
        assert_eq!(map.free(), [region(0x2000, 0x5000)]);
        map.reserve(region(0x3fff, 0x4001));
        assert_eq!(map.free(), [region(0x2000, 0x3000)]);
    }

    #[test]
    fn neighbours_become_one_and_what_is_taken_divides() {
        let mut map = MemoryMap::default();
        map.add(region(8 * MIB, 16 * MIB));
        map.add(region(0, 8 * MIB));
        map.add(region(4 * MIB, 12 * MIB));
        assert_eq!(map.free(), [region(0, 16 * MIB)]);
        map.reserve(region(2 * MIB, 3 * MIB));
        assert_eq!(map.free(), [region(0, 2 * MIB), region(3 * MIB, 16 * MIB)]);
        assert_eq!(map.take_below(MIB, 4 * MIB), Some(region(3 * MIB, 4 * MIB)));
        assert_eq!(map.take_below(3 * MIB, 4 * MIB), None);
        assert_eq!(map.take_largest(u64::MAX), Some(region(4 * MIB, 16 * MIB)));
        assert_eq!(map.take_largest(u64::MAX), Some(region(0, 2 * MIB)));
        assert_eq!(map.take_largest(u64::MAX), None);
    }

    #[test]
    fn absurd_entries_do_no_harm() {
        assert_eq!(Region::new(u64::MAX, 2), None);
        assert_eq!(Region::new(5, 0), None);
        let mut map = MemoryMap::default();
        map.add(region(u64::MAX - 100, u64::MAX));
        map.add(Region::new(0, u64::MAX).unwrap());
        map.reserve(Region::new(u64::MAX - 1, 1).unwrap());
        assert_eq!(map.free().len(), 1);
        for page in 0..2 * MAX_REGIONS as u64 {
            map.reserve(region(page * 2 * PAGE, page * 2 * PAGE + 1));
        }
        assert!(map.free().len() == MAX_REGIONS && map.lost_bytes() > 0);
    }

    proptest! {
        /// Against a map of one flag a page.
        #[test]
        fn the_map_is_what_pages_one_by_one_would_be(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..40 * PAGE, 1_u64..10 * PAGE), 1..30)
        ) {
            let mut map = MemoryMap::default();
            let mut pages = [false; 64];
            for (is_added, start, bytes) in steps {
                let region = Region::new(start, bytes).unwrap();
                let touched = (start / PAGE) as usize..region.end.div_ceil(PAGE) as usize;
                let within = start.div_ceil(PAGE) as usize..(region.end / PAGE) as usize;
                if is_added {
                    map.add(region);
                    pages.iter_mut().enumerate().filter(|(page, _)| within.contains(page)).for_each(|(_, free)| *free = true);
                } else {
                    map.reserve(region);
                    pages[touched].fill(false);
                }
            }
            let listed: Vec<usize> = map.free().iter().flat_map(|r| (r.start / PAGE) as usize..(r.end / PAGE) as usize).collect();
            let expected: Vec<usize> = (0..64).filter(|page| pages[*page]).collect();
            prop_assert_eq!(listed, expected);
            prop_assert!(map.free().windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
