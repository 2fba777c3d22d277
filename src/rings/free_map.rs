//! Which of a bounded set of numbered things are free: pages of a pool, entries of a grant table.

use arrayvec::ArrayVec;
use bitvec::vec::BitVec;

/// How many freed numbers are remembered for the next allocations before the map is searched again: more than a busy ring has out.
const RECENT: usize = 512;

/// The free ones.
#[derive(Debug)]
pub(super) struct FreeMap {
    /// One bit each, set while it is free.
    map: BitVec<usize>,
    /// Freed lately (a subset of `map`), so that allocation seldom searches and finds warm memory.
    recent: ArrayVec<u32, RECENT>,
    /// Where the next search begins.
    cursor: usize,
    /// From here on none was ever taken.
    unused: usize,
}

impl FreeMap {
    /// The numbers from 0 to `count`, all free.
    pub fn new(count: usize) -> Self {
        let mut map = BitVec::repeat(true, count);
        map.set_uninitialized(false);
        Self { map, recent: ArrayVec::new(), cursor: 0, unused: 0 }
    }

    /// As many more, behind the last one.
    pub fn grow(&mut self, count: usize) {
        self.map.resize(self.map.len() + count, true);
    }

    /// Takes one: one that was freed lately, or else the lowest that was never taken, or else any.
    pub fn take(&mut self) -> Option<u32> {
        while let Some(index) = self.recent.pop() {
            if self.map[index as usize] {
                self.map.set(index as usize, false);
                return Some(index);
            }
        }
        if self.unused < self.map.len() {
            self.map.set(self.unused, false);
            self.unused += 1;
            return Some(self.unused as u32 - 1);
        }
        let found = match self.map[self.cursor..].first_one() {
            Some(distance) => self.cursor + distance,
            None => self.map[..self.cursor].first_one()?,
        };
        self.map.set(found, false);
        self.cursor = found;
        Some(found as u32)
    }

    /// Gives one back.
    pub fn put(&mut self, index: u32) {
        debug_assert!(!self.map[index as usize], "number {index} freed twice");
        self.map.set(index as usize, true);
        // A full list forgets it; the map still knows it.
        let _ = self.recent.try_push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn each_is_taken_once_also_of_what_was_added() {
        let mut free = FreeMap::new(3);
        assert!((0..3).all(|number| free.take() == Some(number)) && free.take().is_none());
        free.put(1);
        free.grow(1000);
        let mut taken: Vec<u32> = core::iter::from_fn(|| free.take()).collect();
        taken.sort_unstable();
        assert!(taken.into_iter().eq([1].into_iter().chain(3..1003)));
        // More than are remembered.
        (0..1003).for_each(|number| free.put(number));
        assert_eq!(core::iter::from_fn(|| free.take()).count(), 1003);
    }
}
