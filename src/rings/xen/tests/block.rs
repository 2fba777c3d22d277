//! The disk.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use crate::rings::xen::memory::{BlkbackConfig, BusState, DiskOperation, MemoryBlkback, MemoryXen};
use crate::rings::xen::{Xen, XenBlk};
use crate::rings::{
    BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, PAGE_BYTES, Page, PagePool,
};
use crate::stats::Stats;

const PAGES: usize = 2048;
const DISK_BYTES: usize = 1 << 20;
const MAX_ROUNDS: usize = 100_000;

/// A disk and its other side.
pub struct World {
    pub xen: MemoryXen,
    pub guest: Xen,
    pub disk: XenBlk,
    pub back: MemoryBlkback,
    pub pool: PagePool,
    pub stats: Rc<Stats>,
    pub awake: bool,
    /// The back end only does anything when nobody else has anything to do.
    pub is_slow: bool,
}

/// How a request ended: token, result, the pages' bytes.
pub type Done = (u64, Result<(), BlockError>, Vec<u8>);

pub fn content() -> Vec<u8> {
    (0..DISK_BYTES).map(|index| (index / 512 * 7 + index) as u8).collect()
}

pub fn config() -> BlkbackConfig {
    let config = BlkbackConfig::read_only(DISK_BYTES);
    BlkbackConfig { geometry: Geometry { read_only: false, ..config.geometry }, ..config }
}

impl World {
    pub fn new(config: BlkbackConfig) -> Self {
        let stats = Rc::new(Stats::default());
        let xen = MemoryXen::new(5);
        let back = MemoryBlkback::new(&xen, content(), config);
        let guest = xen.connect(stats.clone());
        let disk = XenBlk::new(&guest, "device/vbd/51712", stats.clone()).unwrap();
        Self { xen, guest, disk, back, pool: PagePool::new(PAGES), stats, awake: true, is_slow: false }
    }

    pub fn connected(config: BlkbackConfig) -> Self {
        let mut world = Self::new(config);
        assert_eq!(world.settle().0, [BlockEvent::Up(config.geometry)]);
        assert_eq!(world.back.state(), BusState::Connected);
        world
    }

    /// Lets everybody do what there is to do. The guest only does anything when it was woken. Returns what has happened.
    pub fn settle(&mut self) -> (Vec<BlockEvent>, Vec<Done>) {
        let (mut events, mut done) = (Vec::new(), Vec::new());
        for _ in 0..MAX_ROUNDS {
            let mut moved = self.xen.step();
            self.awake |= self.xen.woken();
            if !self.is_slow || !moved && !self.awake {
                moved |= self.back.step();
                self.awake |= self.xen.woken();
            }
            if core::mem::take(&mut self.awake) {
                events.extend(core::iter::from_fn(|| self.disk.event()));
                self.disk.complete(&mut |completion| {
                    let bytes = completion.pages.iter().flat_map(|page| *page.bytes()).collect();
                    done.push((completion.token, completion.result, bytes));
                });
                self.awake = self.disk.arm();
            } else if !moved {
                return (events, done);
            }
        }
        panic!("nobody finds rest");
    }

    pub fn request(&self, operation: BlockOperation, sector: u64, pages: usize, token: u64) -> BlockRequest {
        let mut pages: Vec<Page> = (0..pages).map(|_| self.pool.allocate().unwrap()).collect();
        for (page, fill) in pages.iter_mut().zip(1..) {
            page.bytes_mut().unwrap().fill(fill);
        }
        BlockRequest { operation, sector, pages: pages.into_iter().collect(), token }
    }

    pub fn submit(&mut self, operation: BlockOperation, sector: u64, pages: usize, token: u64) -> bool {
        let request = self.request(operation, sector, pages, token);
        let taken = self.disk.submit(request).is_ok();
        self.awake = true;
        self.disk.flush();
        taken
    }

    /// Reads what is there, all over the disk.
    pub fn check_that_it_works(&mut self) {
        let disk = self.back.bytes().to_vec();
        for round in 0..300_u64 {
            let (unit, pages) = (round * 8 % (DISK_BYTES as u64 / 512 - 256), 1 + round as usize % 16);
            let per_sector = u64::from(self.disk.geometry().sector_bytes) / 512;
            assert!(self.submit(BlockOperation::Read, unit / per_sector, pages, round));
            let start = unit as usize * 512;
            let expected = disk[start..start + pages * PAGE_BYTES].to_vec();
            assert_eq!(self.settle(), (vec![], vec![(round, Ok(()), expected)]));
        }
        assert_eq!(self.pool.in_use(), 0);
    }

    pub fn check_that_nothing_is_left(self) {
        let Self { xen, disk, mut back, pool, stats, guest, .. } = self;
        back.vanish();
        back.let_go();
        drop(disk);
        guest.retry_quarantine();
        assert_eq!((xen.grants(), xen.mapped_grants(), xen.event_channels()), (0, 0, 0));
        assert_eq!((pool.in_use(), stats.grants_in_use.get(), stats.grants_quarantined.get()), (0, 0, 0));
    }
}

#[test]
fn disks_of_all_kinds_are_read() {
    let base = config();
    let large = Geometry { sector_bytes: 4096, sectors: DISK_BYTES as u64 / 4096, read_only: true };
    for config in [
        base,
        BlkbackConfig { max_indirect_segments: None, ..base },
        BlkbackConfig { max_indirect_segments: Some(15), ..base },
        BlkbackConfig { max_ring_page_order: None, ..base },
        BlkbackConfig { max_ring_page_order: Some(0), flush: false, ..base },
        BlkbackConfig { geometry: large, domain: 3, ..base },
    ] {
        let mut world = World::connected(config);
        world.back.take_log();
        world.check_that_it_works();
        let log = world.back.take_log();
        assert!(log.iter().all(|request| request.operation == DiskOperation::Read));
        let indirect = config.max_indirect_segments.is_some_and(|segments| segments >= 16);
        assert_eq!(log.iter().any(|request| request.indirect), indirect, "{config:?}");
        assert!(log.iter().all(|request| request.indirect == (request.segments > 11)), "only where it is needed");
        world.check_that_nothing_is_left();
    }
}

#[test]
fn a_read_may_end_beyond_the_disk_and_nothing_else_may() {
    for indirect in [Some(256), None] {
        let mut world = World::connected(BlkbackConfig { max_indirect_segments: indirect, ..config() });
        let sectors = DISK_BYTES as u64 / 512;
        let disk = content();
        for (sector, pages) in [(sectors - 1, 1), (sectors - 9, 2), (sectors - 100, 16), (sectors - 8, 1)] {
            assert!(world.submit(BlockOperation::Read, sector, pages, sector));
            let (_, done) = world.settle();
            let mut expected = disk[sector as usize * 512..].to_vec();
            expected.resize(pages * PAGE_BYTES, 0);
            assert_eq!(done, [(sector, Ok(()), expected)]);
        }
        for (operation, sector) in [
            (BlockOperation::Read, sectors),
            (BlockOperation::Read, u64::MAX / 2),
            (BlockOperation::Write, sectors - 1),
            (BlockOperation::Write, u64::MAX),
        ] {
            world.submit(operation, sector, 1, 1);
            assert_eq!(world.settle().1[0].1, Err(BlockError::OutOfRange), "{operation:?} {sector}");
        }
        world.check_that_nothing_is_left();
    }
}

#[test]
fn what_is_written_can_be_read() {
    let mut world = World::connected(config());
    assert!(world.submit(BlockOperation::Write, 100, 16, 1));
    assert!(world.submit(BlockOperation::Flush, 0, 0, 2));
    let (_, done) = world.settle();
    assert!(done.iter().all(|done| done.1 == Ok(())) && done.len() == 2);
    let written: Vec<u8> = (1..=16).flat_map(|fill| [fill; PAGE_BYTES]).collect();
    assert_eq!(world.back.bytes()[100 * 512..][..16 * PAGE_BYTES], written);
    assert_eq!(world.back.take_log().last().unwrap().operation, DiskOperation::Flush);
    world.check_that_it_works();

    // Without a cache there is nothing to be flushed.
    let mut world = World::connected(BlkbackConfig { flush: false, ..config() });
    world.submit(BlockOperation::Flush, 0, 0, 2);
    assert_eq!((world.settle().1, world.back.take_log().len()), (vec![(2, Ok(()), vec![])], 0));

    let read_only = BlkbackConfig::read_only(DISK_BYTES);
    let mut world = World::connected(read_only);
    world.submit(BlockOperation::Write, 100, 1, 1);
    assert_eq!(world.settle().1[0].1, Err(BlockError::Unsupported));
}

#[test]
fn many_requests_are_on_their_way_and_end_in_any_order() {
    for indirect in [Some(256), None] {
        let mut world = World::connected(BlkbackConfig { max_indirect_segments: indirect, seed: 3, ..config() });
        world.back.set_held(true);
        world.back.set_shuffled(true);
        let mut token = 0;
        while world.submit(BlockOperation::Read, token * 8, 16, token) {
            token += 1;
        }
        assert_eq!(token, 32);
        assert_eq!(world.pool.in_use(), 32 * 16);
        world.settle();
        let disk = content();
        let mut done = Vec::new();
        while done.len() < 32 {
            assert!(world.back.release(3) > 0, "{} of 32", done.len());
            done.extend(world.settle().1);
        }
        assert!(!done.iter().map(|done| done.0).is_sorted());
        for (token, result, bytes) in done {
            assert!(result == Ok(()) && bytes == disk[token as usize * 4096..][..16 * PAGE_BYTES], "{token}");
        }
        world.check_that_nothing_is_left();
    }
}

#[test]
fn what_came_after_the_last_look_keeps_it_awake() {
    let mut world = World::connected(config());
    world.submit(BlockOperation::Read, 0, 1, 1);
    assert!(world.disk.event().is_none() && !world.disk.arm());
    world.back.step();
    assert!(world.disk.arm());
    assert_eq!(world.settle().1.len(), 1);
    assert!(!world.disk.arm());
}

#[test]
fn failures_are_those_of_their_requests() {
    let mut world = World::connected(BlkbackConfig { max_indirect_segments: None, ..config() });
    // The second half of one request.
    world.back.fail_units(8 * 12..8 * 13);
    for (sector, pages, result) in [(0, 16, Err(BlockError::Failed)), (0, 12, Ok(())), (8 * 13, 16, Ok(()))] {
        world.submit(BlockOperation::Read, sector, pages, 0);
        assert_eq!(world.settle().1[0].1, result);
    }
    world.back.fail_units(0..0);
    world.back.refuse(Some(DiskOperation::Flush));
    world.submit(BlockOperation::Flush, 0, 0, 0);
    assert_eq!(world.settle().1[0].1, Err(BlockError::Unsupported));
    world.check_that_it_works();
    assert_eq!(world.stats.device_faults.get(), 0);
}

#[test]
fn what_is_in_flight_comes_back_when_the_back_end_goes() {
    let mut world = World::connected(config());
    let geometry = config().geometry;
    world.back.set_held(true);
    for life in 0..20_u64 {
        for token in 0..30 {
            assert!(world.submit(BlockOperation::Read, token * 8, 16, token));
        }
        world.settle();
        let up = Geometry { sectors: geometry.sectors - life, ..geometry };
        let (events, done) = if life % 3 == 0 {
            world.back.down();
            let (events, done) = world.settle();
            assert_eq!(events, [BlockEvent::Down]);
            assert!(!world.submit(BlockOperation::Read, 0, 1, 0));
            world.back.up(up);
            (world.settle().0, done)
        } else {
            world.back.up(up);
            let (events, done) = world.settle();
            assert_eq!(events[0], BlockEvent::Down);
            (events[1..].to_vec(), done)
        };
        assert_eq!((events, world.disk.geometry()), (vec![BlockEvent::Up(up)], up));
        assert!(done.len() == 30 && done.iter().all(|done| done.1 == Err(BlockError::Down)));
        assert_eq!(world.pool.in_use(), 0);
    }
    world.back.set_held(false);
    world.check_that_it_works();
    assert_eq!(world.stats.device_faults.get(), 0);
    world.check_that_nothing_is_left();
}

#[test]
fn a_disk_that_changes_its_size_comes_up_anew() {
    let mut world = World::connected(config());
    world.back.resize(3000);
    let geometry = Geometry { sectors: 3000, ..config().geometry };
    assert_eq!(world.settle().0, [BlockEvent::Down, BlockEvent::Up(geometry)]);
    world.check_that_it_works();
    // The same once more is no change.
    world.back.resize(3000);
    assert_eq!(world.settle().0, []);
}

#[test]
fn a_detached_disk_is_gone_for_good() {
    for polite in [true, false] {
        let mut world = World::connected(config());
        world.back.set_held(true);
        world.submit(BlockOperation::Read, 0, 16, 9);
        world.settle();
        if polite {
            world.back.gone();
        } else {
            world.back.vanish();
        }
        let (events, done) = world.settle();
        assert_eq!((events, done[0].1), (vec![BlockEvent::Down, BlockEvent::Gone], Err(BlockError::Down)));
        assert_eq!((world.pool.in_use(), world.xen.grants(), world.xen.event_channels()), (0, 0, 0));
        assert!(!world.disk.is_connecting() && !world.submit(BlockOperation::Read, 0, 1, 1));
        world.check_that_nothing_is_left();
    }
}
