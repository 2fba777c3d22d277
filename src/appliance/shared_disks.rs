//! Disks that are mounted from while the chunk cache reads from them.
//!
//! Both take completions and events from the same devices. While a mount is under way each gets a view of the disks that hands
//! it what is its own, by the tokens' highest bit, and keeps what is the other's for it.

use alloc::vec::Vec;
use arrayvec::ArrayVec;

use crate::cache::shfs::MOUNT_TOKEN;
use crate::rings::{BlockCompletion, BlockDevice, BlockEvent, BlockRequest, Geometry};

/// Most changes of a disk's state that are kept for a side that does not look. One that falls behind has missed nothing but
/// that the disk was away for a while: what it had in flight completes with an error in any case.
const KEPT_EVENTS: usize = 4;

/// Who looks at the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The chunk cache.
    Cache,
    /// A mount.
    Mount,
}

/// What one side took from a disk that is the other's.
#[derive(Default)]
struct Kept {
    completions: Vec<BlockCompletion>,
    events: ArrayVec<BlockEvent, KEPT_EVENTS>,
}

/// What is kept for each side, for each disk.
#[derive(Default)]
pub(super) struct SharedDisks {
    kept: Vec<[Kept; 2]>,
    /// The disks that the mount may see; none stands for all.
    shown: Vec<usize>,
}

impl SharedDisks {
    /// A mount begins, from the disks with the numbers `shown` alone (none stands for all). What happened before is nothing to it.
    pub fn begin(&mut self, disks: usize, shown: &[usize]) {
        self.shown.clear();
        self.shown.extend_from_slice(shown);
        self.kept.resize_with(disks, Default::default);
        for kept in &mut self.kept {
            kept[Side::Mount as usize] = Kept::default();
        }
    }

    /// Another disk stands in this place: what the old one said is nothing to anybody.
    pub fn exchange(&mut self, disk: usize) {
        if let Some(kept) = self.kept.get_mut(disk) {
            *kept = Default::default();
        }
    }

    /// True while something is kept for the cache, so that it has to look through a view.
    pub fn has_kept(&self) -> bool {
        self.kept.iter().any(|kept| {
            let kept = &kept[Side::Cache as usize];
            !kept.completions.is_empty() || !kept.events.is_empty()
        })
    }

    /// True if the mount may see this disk.
    pub fn is_shown(&self, disk: usize) -> bool {
        self.shown.is_empty() || self.shown.contains(&disk)
    }

    /// The disks as `side` sees them.
    pub fn views<'a, B: BlockDevice>(&'a mut self, disks: &'a mut [B], side: Side) -> Vec<DiskView<'a, B>> {
        let Self { kept, shown } = self;
        let hidden = |number| side == Side::Mount && !shown.is_empty() && !shown.contains(&number);
        let numbered = disks.iter_mut().zip(kept).enumerate();
        numbered.map(|(number, (disk, kept))| DiskView { disk, kept, side, hidden: hidden(number) }).collect()
    }
}

/// A disk as one side sees it.
pub(super) struct DiskView<'a, B: BlockDevice> {
    disk: &'a mut B,
    kept: &'a mut [Kept; 2],
    side: Side,
    /// It looks empty.
    hidden: bool,
}

impl<B: BlockDevice> BlockDevice for DiskView<'_, B> {
    fn geometry(&self) -> Geometry {
        let geometry = self.disk.geometry();
        if self.hidden { Geometry { sectors: 0, ..geometry } } else { geometry }
    }

    fn event(&mut self) -> Option<BlockEvent> {
        while let Some(event) = self.disk.event() {
            for kept in self.kept.iter_mut() {
                if kept.events.is_full() {
                    kept.events.remove(0);
                }
                kept.events.push(event);
            }
        }
        self.kept[self.side as usize].events.pop_at(0)
    }

    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        self.disk.submit(request)
    }

    fn flush(&mut self) {
        self.disk.flush();
    }

    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        let kept = &mut *self.kept;
        self.disk.complete(&mut |completion| {
            let side = if completion.token & MOUNT_TOKEN == 0 { Side::Cache } else { Side::Mount };
            kept[side as usize].completions.push(completion);
        });
        let own = &mut kept[self.side as usize].completions;
        let count = own.len();
        own.drain(..).for_each(sink);
        count
    }

    fn arm(&mut self) -> bool {
        self.disk.arm()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::memory::MemoryDisk;
    use crate::rings::{BlockOperation, PagePool};
    use alloc::vec;

    fn read(disk: &mut impl BlockDevice, pool: &PagePool, token: u64) {
        let pages = core::iter::once(pool.allocate().unwrap()).collect();
        disk.submit(BlockRequest { operation: BlockOperation::Read, sector: 0, pages, token }).unwrap();
        disk.flush();
    }

    fn tokens(disk: &mut impl BlockDevice) -> Vec<u64> {
        let mut tokens = Vec::new();
        disk.complete(&mut |completion| tokens.push(completion.token));
        tokens
    }

    #[test]
    fn each_side_gets_its_own() {
        let pool = PagePool::new(8);
        let mut disks = vec![MemoryDisk::read_only(vec![0; 8192])];
        let mut shared = SharedDisks::default();
        // In flight when the mount begins.
        read(&mut disks[0], &pool, 1);
        shared.begin(1, &[]);
        read(&mut shared.views(&mut disks, Side::Mount)[0], &pool, MOUNT_TOKEN | 1);
        read(&mut shared.views(&mut disks, Side::Cache)[0], &pool, 2);
        assert_eq!(tokens(&mut shared.views(&mut disks, Side::Mount)[0]), [MOUNT_TOKEN | 1]);
        assert!(shared.has_kept());
        assert_eq!(tokens(&mut shared.views(&mut disks, Side::Cache)[0]), [1, 2]);
        assert!(!shared.has_kept());
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn both_sides_hear_of_changes() {
        let mut disks = vec![MemoryDisk::read_only(vec![0; 8192])];
        let control = disks[0].control();
        let mut shared = SharedDisks::default();
        shared.begin(1, &[]);
        while shared.views(&mut disks, Side::Cache)[0].event().is_some() {}
        control.down();
        for side in [Side::Cache, Side::Mount] {
            let mut views = shared.views(&mut disks, side);
            let last = core::iter::from_fn(|| views[0].event()).last();
            assert_eq!(last, Some(BlockEvent::Down), "{side:?}");
        }
        for round in 0..11 {
            if round % 2 == 0 {
                control.up(disks[0].geometry());
            } else {
                control.down();
            }
            let mut views = shared.views(&mut disks, Side::Cache);
            while views[0].event().is_some() {}
        }
        let last = core::iter::from_fn(|| shared.views(&mut disks, Side::Mount)[0].event()).last();
        assert_eq!(last, Some(BlockEvent::Up(disks[0].geometry())), "the oldest are forgotten, not the last");
    }
}
