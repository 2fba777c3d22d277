//! What is counted for each object: requests, complete transfers, and how far the others got.

use core::cell::Cell;

/// Fifths of a transfer, from 0 to 5.
pub const PROGRESS_STEPS: usize = 6;

/// Counters of one object. Shared by all requests for it.
#[derive(Debug, Default)]
pub struct ObjectStats {
    last_access_unix_s: Cell<u64>,
    hits: Cell<u32>,
    completed: Cell<u32>,
    open: Cell<u32>,
    progress: [Cell<u32>; PROGRESS_STEPS],
}

impl ObjectStats {
    /// A request for the object begins.
    pub fn begin(&self, unix_s: u64) {
        self.last_access_unix_s.set(unix_s.max(1));
        self.hits.set(self.hits.get().wrapping_add(1));
        self.open.set(self.open.get() + 1);
    }

    /// It ends, with `sent_bytes` of its `total_bytes` handed to TCP (for a range, of the range).
    pub fn end(&self, sent_bytes: u64, total_bytes: u64) {
        debug_assert!(self.open.get() > 0, "an object closed that was not open");
        self.open.set(self.open.get().saturating_sub(1));
        if sent_bytes >= total_bytes {
            self.completed.set(self.completed.get().wrapping_add(1));
        }
        for (fifth, count) in (0u128..).zip(&self.progress) {
            if u128::from(sent_bytes) * 5 >= u128::from(total_bytes) * fifth {
                count.set(count.get().wrapping_add(1));
            }
        }
    }

    /// Wall clock of the latest request in seconds since 1970 (1 where the clock was not set); 0 if there was none.
    pub fn last_access_unix_s(&self) -> u64 {
        self.last_access_unix_s.get()
    }

    /// Requests.
    pub fn hits(&self) -> u32 {
        self.hits.get()
    }

    /// Requests whose body went out whole.
    pub fn completed(&self) -> u32 {
        self.completed.get()
    }

    /// Requests under way.
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// Ended requests that got at least so many fifths of their body.
    pub fn progress(&self) -> impl Iterator<Item = u32> + '_ {
        self.progress.iter().map(Cell::get)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn progress_counts_the_fifths_reached() {
        let stats = ObjectStats::default();
        for (sent, total) in [(0, 10), (3, 10), (10, 10), (0, 0), (u64::MAX, u64::MAX)] {
            stats.begin(0);
            stats.end(sent, total);
        }
        assert_eq!(stats.progress().collect::<Vec<_>>(), [5, 4, 3, 3, 3, 3]);
        assert_eq!((stats.hits(), stats.completed(), stats.open()), (5, 3, 0));
    }
}
