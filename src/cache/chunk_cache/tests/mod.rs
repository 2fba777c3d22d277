//! The cache against disks that are late, disorderly and failing: layouts and eviction here, errors in `failures`, everything in
//! any order in `random`.

mod failures;
mod random;

use super::*;
use crate::cache::shfs::MemberDisk;
use crate::cache::shfs::geometry::{StripeMode, Striping};
use crate::rings::memory::{MemoryDisk, MemoryDiskControl, Pace};
use crate::rings::{BlockCompletion, Geometry, PageSlice};
use alloc::collections::BTreeMap;
use alloc::vec;

/// A cache, its disks, and what is known of them.
struct World {
    cache: ChunkCache,
    pool: PagePool,
    stats: Rc<Stats>,
    disks: Vec<MemoryDisk>,
    controls: Vec<MemoryDiskControl>,
    layout: Layout,
    source: SourceId,
}

/// The byte of a disk: any two pages differ.
fn byte_of(disk: usize, at: u64) -> u8 {
    mix(at / 8, disk as u64).to_le_bytes()[(at % 8) as usize]
}

impl World {
    fn new(mode: StripeMode, stripe_bytes: u32, members: usize, cache_pages: usize) -> Self {
        Self::cut(Striping::new(mode, stripe_bytes, members).unwrap(), cache_pages, 40, 0)
    }

    /// Disks of so many stripes; the last one lacks its last `missing_bytes`.
    fn cut(striping: Striping, cache_pages: usize, stripes: usize, missing_bytes: usize) -> Self {
        let members = striping.members();
        let bytes = stripes * striping.stripe_bytes() as usize;
        let disks: Vec<MemoryDisk> = (0..members)
            .map(|disk| {
                let bytes = if disk + 1 == members { bytes - missing_bytes } else { bytes };
                let geometry = Geometry { sector_bytes: 512, sectors: bytes as u64 / 512, read_only: true };
                let content = (0..bytes as u64).map(|at| byte_of(disk, at)).collect();
                MemoryDisk::new(content, geometry, disk as u64)
            })
            .collect();
        // The disks stand in another order than the members.
        let member = |member: usize| (member + 1) % members;
        let member_disks = (0..members).map(member).map(|disk| MemberDisk { disk, geometry: disks[disk].geometry() });
        let layout = Layout::new(striping, member_disks.collect(), u64::MAX);
        let (pool, stats) = (PagePool::new(cache_pages), Rc::new(Stats::default()));
        let mut cache = ChunkCache::new(pool.clone(), 8, stats.clone());
        let source = cache.attach(&layout).unwrap();
        let controls = disks.iter().map(MemoryDisk::control).collect();
        Self { cache, pool, stats, disks, controls, layout, source }
    }

    /// One disk, chunks of one page.
    fn simple(cache_pages: usize) -> Self {
        Self::new(StripeMode::Independent, 4096, 1, cache_pages)
    }

    /// What a chunk's page must hold, by the format's own rule.
    fn expected(&self, chunk: u64, page: usize) -> Vec<u8> {
        let (members, stripe) = (self.disks.len() as u64, u64::from(self.layout.striping().stripe_bytes()));
        let byte = page as u64 * 4096;
        let number = match self.layout.striping().mode() {
            StripeMode::Combined => chunk * members + byte / stripe,
            StripeMode::Independent => chunk + members - 1,
        };
        let disk = ((number % members + 1) % members) as usize;
        let start = number / members * stripe + byte % stripe;
        let end = self.disks[disk].geometry().bytes();
        (start..start + 4096).map(|at| if at < end { byte_of(disk, at) } else { 0 }).collect()
    }

    fn is_right(&self, chunk: u64, pages: &[Page]) -> bool {
        pages.len() == self.layout.chunk_pages()
            && pages.iter().enumerate().all(|(index, page)| page.bytes()[..] == self.expected(chunk, index)[..])
    }

    /// What a look-up finds: the pages' slices if it is ready.
    fn look(&mut self, chunk: u64, ahead: u32, waiter: Waiter) -> Found {
        match self.cache.lookup(self.source, chunk, ahead, waiter) {
            Lookup::Ready(pages) => Found::Ready(pages.iter().map(|page| page.slice(0, 4096)).collect()),
            Lookup::Pending => Found::Pending,
            Lookup::Starved => Found::Starved,
            Lookup::OutOfRange => Found::OutOfRange,
        }
    }

    /// Looks a chunk up that must be there, and checks its bytes.
    fn hit(&mut self, chunk: u64, waiter: Waiter) {
        let pages = match self.cache.lookup(self.source, chunk, 0, waiter) {
            Lookup::Ready(pages) => pages.to_vec(),
            other => panic!("chunk {chunk}: {other:?}"),
        };
        assert!(self.is_right(chunk, &pages), "chunk {chunk}");
    }

    fn poll(&mut self) -> bool {
        let busy = self.cache.poll(&mut self.disks);
        self.cache.check();
        busy
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.poll() {
                return;
            }
        }
        panic!("the cache never rests");
    }

    fn woken(&mut self) -> Vec<(Waiter, Result<(), ReadError>)> {
        core::iter::from_fn(|| self.cache.next_woken()).collect()
    }

    fn reads(&self) -> u64 {
        self.controls.iter().map(MemoryDiskControl::reads).sum()
    }

    /// A chunk that is read now.
    fn load(&mut self, chunk: u64) {
        assert!(matches!(self.look(chunk, 0, 99), Found::Pending | Found::Ready(_)), "chunk {chunk}");
        self.settle();
        self.woken();
        assert!(matches!(self.look(chunk, 0, 99), Found::Ready(_)), "chunk {chunk}");
    }
}

#[derive(Debug)]
enum Found {
    Ready(Vec<PageSlice>),
    Pending,
    Starved,
    OutOfRange,
}

impl Found {
    fn is_ready(&self) -> bool {
        matches!(self, Found::Ready(_))
    }
}

impl World {
    fn poll_until_woken(&mut self) -> Vec<(Waiter, Result<(), ReadError>)> {
        loop {
            assert!(self.poll(), "nobody will be woken");
            let woken = self.woken();
            if !woken.is_empty() {
                return woken;
            }
        }
    }

    /// As [`World::load`] with disks that wait to be released.
    fn load_held(&mut self, chunk: u64) {
        assert!(matches!(self.look(chunk, 0, 99), Found::Pending));
        while !self.look(chunk, 0, 99).is_ready() {
            self.poll();
            for control in &self.controls {
                control.release(1);
            }
        }
        self.cache.forget(99);
        self.woken();
    }
}

#[test]
fn chunks_of_every_layout_are_read() {
    for mode in [StripeMode::Independent, StripeMode::Combined] {
        for members in [1, 2, 3, 16] {
            for stripe_bytes in [4096, 8192, 16384, 32768] {
                let mut world = World::new(mode, stripe_bytes, members, 512);
                for chunk in [1, 2, 3, 4, 5, 20, world.layout.last_chunk()] {
                    assert!(matches!(world.look(chunk, 2, chunk), Found::Pending | Found::Ready(_)));
                    world.settle();
                    world.woken();
                    world.hit(chunk, chunk);
                }
            }
        }
    }
}

#[test]
fn chunks_that_are_not_there_are_out_of_range() {
    let mut world = World::simple(4);
    assert_eq!(world.layout.last_chunk(), 39);
    for chunk in [0, 40, u64::MAX] {
        assert!(matches!(world.look(chunk, u32::MAX, 1), Found::OutOfRange));
    }
    assert!(matches!(world.look(39, u32::MAX, 1), Found::Pending));
    let stale = world.source;
    world.cache.detach(stale);
    assert!(matches!(world.look(39, 0, 1), Found::OutOfRange));
    world.source = world.cache.attach(&world.layout).unwrap();
    assert_ne!(world.source, stale);
    assert!(matches!(world.cache.lookup(stale, 39, 0, 1), Lookup::OutOfRange));
}

#[test]
fn one_read_serves_all_who_wait() {
    let mut world = World::simple(8);
    world.controls[0].set_pace(Pace::Held);
    for waiter in 0..20 {
        assert!(matches!(world.look(7, 0, waiter), Found::Pending));
        world.poll();
    }
    world.cache.forget(3);
    assert!(matches!(world.look(8, 0, 5), Found::Pending), "now 5 waits for another chunk");
    world.poll();
    assert_eq!(world.controls[0].release(1), 1);
    world.settle();
    let woken: Vec<Waiter> =
        world.woken().into_iter().map(|(waiter, result)| result.map(|()| waiter).unwrap()).collect();
    assert_eq!(woken, (0..20).filter(|waiter| ![3, 5].contains(waiter)).collect::<Vec<_>>());
    world.hit(7, 0);
    assert_eq!(world.reads(), 1);
    assert_eq!((world.stats.cache_misses.get(), world.stats.cache_joined.get()), (2, 19));
    assert_eq!((world.stats.cache_hits.get(), world.stats.cache_reads.get()), (1, 1));
}

#[test]
fn who_found_something_else_is_not_told_of_the_past() {
    let mut world = World::simple(8);
    world.load(1);
    world.controls[0].fail_next(1);
    assert!(matches!(world.look(7, 0, 1), Found::Pending));
    assert!(matches!(world.look(7, 0, 2), Found::Pending));
    world.hit(1, 1);
    world.settle();
    world.hit(1, 2);
    assert_eq!(world.woken(), []);
}

#[test]
fn neighbours_are_read_together() {
    let mut world = World::simple(128);
    assert!(matches!(world.look(1, 20, 1), Found::Pending));
    world.settle();
    for chunk in 1..=21 {
        world.hit(chunk, 1);
    }
    // 21 pages in requests of at most 16.
    assert_eq!((world.reads(), world.stats.cache_readahead.get()), (2, 20));

    let mut world = World::new(StripeMode::Independent, 4096, 3, 128);
    assert!(matches!(world.look(1, 20, 1), Found::Pending));
    world.settle();
    assert_eq!(world.reads(), 3);
    (1..=21).for_each(|chunk| world.hit(chunk, 1));

    let mut world = World::new(StripeMode::Combined, 8192, 3, 512);
    assert!(matches!(world.look(5, 11, 1), Found::Pending));
    world.settle();
    assert_eq!(world.reads(), 2 * 3, "12 chunks of 2 pages a member");
    (5..=16).for_each(|chunk| world.hit(chunk, 1));
}

#[test]
fn demand_goes_before_read_ahead() {
    let mut world = World::new(StripeMode::Independent, 32768, 1, 512);
    world.controls[0].set_queue_depth(1);
    world.controls[0].set_pace(Pace::Held);
    assert!(matches!(world.look(1, 10, 1), Found::Pending));
    assert!(matches!(world.look(30, 0, 2), Found::Pending));
    assert!(matches!(world.look(11, 0, 3), Found::Pending));
    let mut order = Vec::new();
    for _ in 0..3 {
        world.poll();
        world.controls[0].release(1);
        world.settle();
        order.extend(world.woken().into_iter().map(|(waiter, _)| waiter));
    }
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn a_hit_protects_and_the_oldest_without_one_goes() {
    let mut world = World::simple(4);
    (1..=4).for_each(|chunk| world.load(chunk));
    world.hit(1, 0);
    world.hit(3, 0);
    world.load(5);
    assert_eq!(world.stats.cache_evictions.get(), 1);
    let mut cached = |chunk| world.cache.entries.find(world.source, chunk).is_some();
    assert_eq!([1, 2, 3, 4, 5].map(&mut cached), [true, false, true, true, true]);
    world.load(6);
    let mut cached = |chunk| world.cache.entries.find(world.source, chunk).is_some();
    assert_eq!([1, 3, 4, 5, 6].map(&mut cached), [true, true, false, true, true], "the hand went on, to 4");
}

#[test]
fn pinned_chunks_stay_and_the_starved_are_served_in_order() {
    let mut world = World::new(StripeMode::Independent, 8192, 1, 4);
    world.load(1);
    world.load(2);
    let Found::Ready(first) = world.look(1, 5, 0) else { panic!() };
    let Found::Ready(second) = world.look(2, 5, 0) else { panic!() };
    assert_eq!(world.cache.pinned_bytes(), 4 * 4096);
    assert!(matches!(world.look(3, 0, 10), Found::Starved));
    assert!(matches!(world.look(4, 0, 11), Found::Starved));
    assert!(matches!(world.look(5, 0, 12), Found::Starved));
    assert!(matches!(world.look(3, 0, 10), Found::Starved), "asking again does not cost its place");
    assert!(world.cache.starved());
    world.settle();
    assert_eq!(world.woken(), []);
    assert_eq!((world.reads(), world.stats.cache_evictions.get()), (2, 0));
    // One page of two still pins.
    let [keep, _] = &second[..] else { panic!() };
    let keep = keep.clone();
    drop(second);
    world.settle();
    assert!(world.cache.starved());
    drop(first);
    for (waiter, chunk) in [(10, 3), (11, 4), (12, 5)] {
        assert_eq!(world.poll_until_woken(), [(waiter, Ok(()))]);
        // It has the rest of this round and the next to look, though others starve.
        world.poll();
        world.hit(chunk, waiter);
    }
    assert!(!world.cache.starved());
    drop(keep);
}

#[test]
fn who_does_not_come_for_a_chunk_does_not_keep_it() {
    let mut world = World::simple(1);
    assert!(matches!(world.look(1, 0, 1), Found::Pending));
    assert!(matches!(world.look(2, 0, 2), Found::Starved));
    world.settle();
    assert_eq!(world.woken(), [(1, Ok(())), (2, Ok(()))]);
    world.hit(2, 2);
}

#[test]
fn those_who_wait_for_memory_can_be_forgotten() {
    let mut world = World::simple(1);
    world.load(1);
    let pinned = world.look(1, 0, 0);
    assert!(pinned.is_ready());
    for waiter in 0..5 {
        assert!(matches!(world.look(2 + waiter, 0, waiter), Found::Starved));
    }
    for waiter in 0..5 {
        world.cache.forget(waiter);
        world.cache.check();
    }
    assert!(!world.cache.starved());
    drop(pinned);
    world.settle();
    assert_eq!((world.woken(), world.reads()), (vec![], 1));
}

#[test]
fn a_long_search_for_memory_ends() {
    // More chunks than the hand passes in one poll.
    let chunks = 2000;
    let striping = Striping::new(StripeMode::Independent, 4096, 16).unwrap();
    let mut world = World::cut(striping, chunks, 150, 0);
    (1..=chunks as u64).for_each(|chunk| world.load(chunk));
    let mut pinned: Vec<Found> = (1..=chunks as u64).map(|chunk| world.look(chunk, 0, 0)).collect();
    assert!(pinned.iter().all(Found::is_ready));
    for (next, unpinned) in (2001..).zip([200, 900, 1999, 5, 1500]) {
        assert!(matches!(world.look(next, 0, 1), Found::Starved));
        world.settle();
        assert!(world.cache.starved());
        pinned[unpinned] = Found::OutOfRange;
        world.settle();
        assert_eq!(world.woken(), [(1, Ok(()))]);
        pinned[unpinned] = world.look(next, 0, 1);
    }
}

#[test]
fn read_ahead_leaves_alone_what_is_about_to_be_used() {
    let mut world = World::simple(16);
    assert!(matches!(world.look(1, 30, 1), Found::Pending));
    assert!(matches!(world.look(20, 3, 2), Found::Pending));
    assert_eq!(world.stats.cache_readahead.get(), 4, "a quarter of the cache");
    world.settle();
    world.woken();
    // Fill the cache: what was read ahead and what 2 was woken for are as yet unused, and the oldest but two.
    [10, 30, 31, 32, 33, 34, 35, 36, 37, 38].into_iter().for_each(|chunk| world.load(chunk));
    [1, 1, 2, 2].into_iter().for_each(|chunk| world.hit(chunk, 1));
    assert!(world.look(10, 8, 3).is_ready());
    assert_eq!(world.stats.cache_readahead.get(), 5, "2 has been used");
    world.settle();
    let gone: Vec<u64> = (1..39).filter(|&chunk| world.cache.entries.find(world.source, chunk).is_none()).collect();
    assert_eq!(gone, [6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]);
}

#[test]
fn stray_completions_do_no_harm() {
    let mut world = World::simple(16);
    world.controls[0].set_pace(Pace::Held);
    world.load_held(5);
    assert!(matches!(world.look(1, 0, 1), Found::Pending));
    world.poll();
    for token in [0, 1 << 32, 3 << 32, 2 << 32 | 1, 2 << 32 | 1 << 8, 2 << 32 | 1 << 16, 2 << 32 | 1 << 63, u64::MAX] {
        let pages = PagePool::new(1).allocate().into_iter().collect();
        world.cache.batches.complete(BlockCompletion { token, pages, result: Ok(()) });
        world.settle();
        assert_eq!(world.woken(), []);
    }
    world.controls[0].release(1);
    world.settle();
    assert_eq!(world.woken(), [(1, Ok(()))]);
    world.hit(1, 1);
}

#[test]
fn a_flush_drops_what_nobody_holds() {
    let mut world = World::simple(8);
    (1..=4).for_each(|chunk| world.load(chunk));
    let pinned = world.look(2, 0, 0);
    world.controls[0].set_pace(Pace::Held);
    assert!(matches!(world.look(7, 0, 1), Found::Pending));
    assert_eq!(world.cache.flush(), 3);
    assert_eq!((world.cache.check(), world.pool.in_use()), (2, 2));
    assert!(pinned.is_ready());
    world.hit(2, 0);
    world.controls[0].set_pace(Pace::AtOnce);
    world.settle();
    world.hit(7, 1);
}

#[test]
fn a_chunk_larger_than_the_cache_is_refused_at_once() {
    let mut world = World::simple(15);
    let big = World::new(StripeMode::Combined, 32768, 2, 16);
    let error = world.cache.attach(&big.layout).unwrap_err();
    assert_eq!(error, AttachError::ChunkLargerThanCache { chunk_bytes: 65536, cache_bytes: 61440 });
    // One that just fits can be read, chunk by chunk.
    let mut world = big;
    (1..20).for_each(|chunk| world.load(chunk));
}

#[test]
fn the_end_of_a_short_disk_reads_as_zeros() {
    for missing in [512, 4096, 4608, 8192 + 512] {
        for (mode, members) in [(StripeMode::Independent, 1), (StripeMode::Independent, 2), (StripeMode::Combined, 3)] {
            let mut world = World::cut(Striping::new(mode, 16384, members).unwrap(), 12, 40, missing);
            let last = world.layout.last_chunk();
            assert_eq!(last, if mode == StripeMode::Combined { 39 } else { 39 * members as u64 });
            // So that the pages are not zero from the beginning.
            (1..5).for_each(|chunk| world.load(chunk));
            world.load(last);
            world.hit(last, 1);
            world.load(last - members as u64);
        }
    }
}

#[test]
fn sources_share_the_cache() {
    let mut world = World::simple(16);
    let (first, second) = (world.source, world.cache.attach(&world.layout).unwrap());
    world.load(1);
    world.source = second;
    world.load(1);
    assert_eq!(world.reads(), 2);
    world.cache.detach(first);
    world.hit(1, 0);
    assert_eq!(world.pool.in_use(), 1);
}
