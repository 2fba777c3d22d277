//! The chunk cache allocates nothing once a source is attached, whatever is looked up, read, evicted, starved and failing.

#[path = "support/allocators.rs"]
mod allocators;

use std::alloc::System;
use std::cell::Cell;
use std::rc::Rc;

use allocators::Observed;
use arrayvec::ArrayVec;
use minicache::cache::shfs::geometry::{StripeMode, Striping};
use minicache::cache::shfs::{Layout, MemberDisk};
use minicache::cache::{ChunkCache, Lookup};
use minicache::rings::memory::{MemoryDisk, Pace};
use minicache::rings::{BlockDevice, PagePool, PageSlice};
use minicache::stats::Stats;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Observed<System> = Observed::new(System, || ALLOCATIONS.with(|count| count.set(count.get() + 1)));

#[test]
fn a_cache_with_its_source_does_not_allocate() {
    for (mode, members) in [(StripeMode::Independent, 1), (StripeMode::Independent, 3), (StripeMode::Combined, 3)] {
        let striping = Striping::new(mode, 8192, members).unwrap();
        let mut disks: Vec<MemoryDisk> = (0..members).map(|_| MemoryDisk::read_only(vec![7; 4 << 20])).collect();
        let controls: Vec<_> = disks.iter().map(MemoryDisk::control).collect();
        controls.iter().for_each(|control| control.set_pace(Pace::Delayed { most_polls: 3 }));
        let member_disks =
            disks.iter().enumerate().map(|(disk, device)| MemberDisk { disk, geometry: device.geometry() });
        let layout = Layout::new(striping, member_disks.collect(), u64::MAX);
        let mut cache = ChunkCache::new(PagePool::new(200), 64, Rc::new(Stats::default()));
        let source = cache.attach(&layout).unwrap();
        let (mut random, mut starved, mut failed) = (1_u32, 0, 0);
        let mut pinned: ArrayVec<PageSlice, 4096> = ArrayVec::new();
        let attached = ALLOCATIONS.get();
        for round in 0..60_000_u32 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Some rounds ask for few chunks and pin what they find, until the pages run out.
            let pins = round % 4096 < 2048;
            let chunk = 1 + u64::from(random >> 8) % if pins { 110 } else { layout.last_chunk() };
            match cache.lookup(source, chunk, random >> 30, (random >> 20 & 63).into()) {
                Lookup::Ready(pages) if pins => {
                    for page in pages {
                        let _ = pinned.try_push(page.slice(0, 4096));
                    }
                }
                Lookup::Starved => starved += 1,
                _ => {}
            }
            if round % 4096 == 4000 {
                pinned.clear();
                controls[0].fail_next(3);
            }
            cache.poll(&mut disks);
            while let Some((_, result)) = cache.next_woken() {
                failed += u32::from(result.is_err());
            }
        }
        assert_eq!(ALLOCATIONS.get(), attached, "{mode:?} with {members} members");
        assert!(starved > 100 && failed > 3, "{starved} starved, {failed} failed: the test tests nothing");
    }
}
