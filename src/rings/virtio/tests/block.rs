//! The disk against an honest device, with every feature and without each, large requests and small queues.

use super::fake::{Chain, Fake, FakeTransport, block_config};
use super::net::pattern;
use crate::rings::virtio::features::*;
use crate::rings::virtio::{VirtioBlk, VirtioError};
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, PAGE_BYTES, PagePool,
};
use crate::stats::Stats;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

pub const EVERYTHING: u64 = BLK_SIZE_MAX
    | BLK_SEG_MAX
    | BLK_BLK_SIZE
    | BLK_FLUSH
    | ANY_LAYOUT
    | INDIRECT_DESC
    | EVENT_IDX
    | VERSION_1
    | 1 << 11;

/// Units of 512 bytes on the test's disks: not a whole number of pages.
const UNITS: u64 = 1003;

pub struct World {
    pub fake: Fake,
    pub disk: VirtioBlk<FakeTransport>,
    pub pool: PagePool,
    pub stats: Rc<Stats>,
    /// What the device has on its disk.
    bytes: Vec<u8>,
    flushes: usize,
    requests: usize,
    /// What completed while it was served.
    kept: Vec<BlockCompletion>,
}

pub fn world_of(fake: Fake, refused: u64) -> Result<World, VirtioError> {
    let stats = Rc::new(Stats::default());
    let disk = VirtioBlk::new(fake.transport(), refused, stats.clone())?;
    let bytes = pattern(UNITS as usize * 512, 9);
    Ok(World { fake, disk, pool: PagePool::new(200), stats, bytes, flushes: 0, requests: 0, kept: Vec::new() })
}

pub fn world(refused: u64) -> World {
    let config = block_config(UNITS, 1 << 16, 126, 512);
    world_of(Fake::new(2, false, EVERYTHING, &config, &[64]), refused).unwrap()
}

/// A read into pages full of something else.
pub fn read(pool: &PagePool, sector: u64, pages: usize, token: u64) -> BlockRequest {
    let dirty = |_| {
        let mut page = pool.allocate().expect("a page");
        page.bytes_mut().unwrap().fill(0xdd);
        page
    };
    BlockRequest { operation: BlockOperation::Read, sector, pages: (0..pages).map(dirty).collect(), token }
}

impl World {
    pub fn events(&mut self) -> Vec<BlockEvent> {
        core::iter::from_fn(|| self.disk.event()).collect()
    }

    /// Tokens and results of what has completed.
    pub fn completed(&mut self) -> Vec<(u64, Result<(), BlockError>)> {
        let mut all = Vec::new();
        self.disk.complete(&mut |completion| all.push((completion.token, completion.result)));
        all
    }

    /// Serves a request as a device does.
    fn serve(&mut self, chain: &Chain) {
        let readable = chain.readable();
        let (header, data) = readable.split_at(16);
        let unit = u64::from_le_bytes(header[8..].try_into().unwrap()) as usize;
        let status_at = chain.writable_bytes() - 1;
        assert_eq!(header[4..8], [0; 4]);
        assert_eq!(chain.pieces.last().map(|piece| (piece.bytes, piece.writable)), Some((1, true)));
        let most = chain.pieces.len() - 2;
        let seg_max = if self.disk.features() & BLK_SEG_MAX == 0 { 1 } else { 126 };
        assert!(most <= seg_max, "{most} segments");
        match header[0] {
            0 => chain.write(0, &self.bytes[unit * 512..unit * 512 + status_at]),
            1 => self.bytes[unit * 512..unit * 512 + data.len()].copy_from_slice(data),
            4 => {
                assert!(self.disk.features() & BLK_FLUSH != 0 && data.is_empty() && unit == 0);
                self.flushes += 1;
            }
            other => panic!("a request of type {other}"),
        }
        self.requests += 1;
        chain.write(status_at, &[0]);
        let written = if header[0] == 0 { status_at + 1 } else { 1 };
        self.fake.put_used(0, chain.head.into(), written as u32);
    }

    /// Serves everything, the latest first, until nothing is left.
    fn serve_all(&mut self) {
        loop {
            let mut chains: Vec<Chain> = core::iter::from_fn(|| self.fake.take(0)).collect();
            if chains.is_empty() {
                return;
            }
            while let Some(chain) = chains.pop() {
                self.serve(&chain);
            }
            // Room for the next parts comes with a look at the completions.
            let kept = &mut self.kept;
            self.disk.complete(&mut |completion| kept.push(completion));
        }
    }

    /// Reads all of the disk, and beyond its end, and compares.
    pub fn read_all_is_right(&mut self) {
        let geometry = self.disk.geometry();
        let sectors_a_page = PAGE_BYTES as u64 / u64::from(geometry.sector_bytes);
        let mut wanted = BTreeMap::new();
        for (token, sector) in (0..geometry.sectors).step_by(sectors_a_page as usize * 10).enumerate() {
            self.disk.submit(read(&self.pool, sector, 12, token as u64)).unwrap();
            let start = (sector * u64::from(geometry.sector_bytes)) as usize;
            let mut bytes = self.bytes[start..(start + 12 * PAGE_BYTES).min(self.bytes.len())].to_vec();
            bytes.resize(12 * PAGE_BYTES, 0);
            wanted.insert(token as u64, bytes);
        }
        self.disk.flush();
        self.serve_all();
        for completion in core::mem::take(&mut self.kept) {
            assert_eq!(completion.result, Ok(()));
            let got: Vec<u8> = completion.pages.iter().flat_map(|page| *page.bytes()).collect();
            assert!(wanted.remove(&completion.token) == Some(got), "request {}", completion.token);
        }
        assert!(wanted.is_empty());
    }
}

#[test]
fn every_byte_crosses_with_every_feature_and_without_each() {
    for legacy in [false, true] {
        for (entries, seg_max) in [(256, 126), (64, 126), (8, 126), (4, 126), (256, 1), (4, 1), (64, 3)] {
            for refused in
                [0, BLK_SEG_MAX, BLK_BLK_SIZE, BLK_FLUSH, INDIRECT_DESC, EVENT_IDX, INDIRECT_DESC | BLK_SEG_MAX]
            {
                let offered = if legacy { EVERYTHING & !VERSION_1 } else { EVERYTHING };
                let config = block_config(UNITS, 1 << 16, seg_max, 512);
                let mut world = world_of(Fake::new(2, legacy, offered, &config, &[entries]), refused).unwrap();
                let geometry = Geometry { sector_bytes: 512, sectors: UNITS, read_only: false };
                assert_eq!(world.events(), [BlockEvent::Up(geometry)]);
                world.read_all_is_right();
                let mut page = world.pool.allocate().unwrap();
                page.bytes_mut().unwrap().copy_from_slice(&pattern(PAGE_BYTES, 77));
                let pages = [page.clone(), page.clone(), page].into_iter().collect();
                let write = BlockRequest { operation: BlockOperation::Write, sector: 40, pages, token: 1 };
                world.disk.submit(write).unwrap();
                world.disk.flush();
                world.serve_all();
                assert_eq!(world.kept.drain(..).count(), 1);
                assert!(world.bytes[40 * 512..][..PAGE_BYTES] == pattern(PAGE_BYTES, 77));
                world.read_all_is_right();
                let pages = Default::default();
                let flush = BlockRequest { operation: BlockOperation::Flush, sector: 0, pages, token: 2 };
                world.disk.submit(flush).unwrap();
                world.disk.flush();
                world.serve_all();
                let done = world.kept.drain(..).count() + world.completed().len();
                assert_eq!((done, world.flushes), (1, usize::from(refused & BLK_FLUSH == 0)));
                assert_eq!((world.pool.in_use(), world.stats.device_faults.get()), (0, 0));
            }
        }
    }
}

#[test]
fn a_request_is_one_of_the_device_where_it_takes_as_many_segments() {
    let mut world = world(0);
    world.disk.submit(read(&world.pool, 0, 16, 5)).unwrap();
    world.disk.flush();
    assert_eq!(world.fake.notified(0), 1);
    world.serve_all();
    assert_eq!((world.requests, world.kept.len()), (1, 1));
}

#[test]
fn many_requests_are_in_flight_and_the_next_is_refused() {
    let mut world = world(0);
    world.events();
    for token in 0..64 {
        world.disk.submit(read(&world.pool, 0, 1, token)).unwrap();
    }
    let refused = world.disk.submit(read(&world.pool, 7, 2, 64)).unwrap_err();
    assert_eq!((refused.token, refused.sector, refused.pages.len()), (64, 7, 2));
    world.disk.flush();
    assert!(!world.disk.arm());
    let chain = world.fake.take(0).unwrap();
    world.serve(&chain);
    assert!(world.fake.interrupt(0) && world.disk.arm());
    assert_eq!(world.completed(), [(0, Ok(()))]);
    world.disk.submit(refused).unwrap();
}

#[test]
fn what_makes_no_sense_completes_with_an_error() {
    let config = block_config(UNITS, 1 << 16, 126, 512);
    let fake = Fake::new(2, false, EVERYTHING | BLK_RO, &config, &[64]);
    let mut world = world_of(fake, 0).unwrap();
    assert!(world.disk.geometry().read_only);
    let request = |operation, sector, pages| BlockRequest { operation, ..read(&world.pool, sector, pages, sector) };
    let requests = [
        (request(BlockOperation::Read, UNITS, 1), Err(BlockError::OutOfRange)),
        (request(BlockOperation::Read, u64::MAX, 1), Err(BlockError::OutOfRange)),
        (request(BlockOperation::Read, 0, 0), Err(BlockError::Unsupported)),
        (request(BlockOperation::Write, 1, 1), Err(BlockError::Unsupported)),
    ];
    for (request, result) in requests {
        let token = request.token;
        world.disk.submit(request).unwrap();
        assert!(world.disk.arm());
        assert_eq!(world.completed(), [(token, result)]);
    }
}

#[test]
fn the_status_byte_decides() {
    for (status, length, result) in [
        (0, None, Ok(())),
        (1, None, Err(BlockError::Failed)),
        (2, None, Err(BlockError::Unsupported)),
        (3, None, Err(BlockError::Failed)),
        (0xff, None, Err(BlockError::Failed)),
        // Not all was written, so the page may hold what it held before.
        (0, Some(4096), Err(BlockError::Failed)),
        (0, Some(0), Err(BlockError::Failed)),
    ] {
        let mut world = world(0);
        world.disk.submit(read(&world.pool, 8, 1, 3)).unwrap();
        world.disk.flush();
        let chain = world.fake.take(0).unwrap();
        chain.write(4096, &[status]);
        world.fake.put_used(0, chain.head.into(), length.unwrap_or(4097));
        assert_eq!(world.completed(), [(3, result)], "status {status}");
    }
}

#[test]
fn one_failed_part_fails_the_request_when_the_others_are_back() {
    let mut world = world(BLK_SEG_MAX);
    world.disk.submit(read(&world.pool, 0, 3, 3)).unwrap();
    world.disk.flush();
    let chains: Vec<Chain> = core::iter::from_fn(|| world.fake.take(0)).collect();
    assert_eq!(chains.len(), 3);
    chains[1].write(4096, &[1]);
    world.fake.put_used(0, chains[1].head.into(), 4097);
    assert_eq!(world.completed(), vec![], "the device still has pages of it");
    world.serve(&chains[0]);
    world.serve(&chains[2]);
    assert_eq!(world.completed(), [(3, Err(BlockError::Failed))]);
}

#[test]
fn a_disk_that_grows_comes_up_anew() {
    let mut world = world(0);
    world.events();
    world.disk.submit(read(&world.pool, 0, 1, 1)).unwrap();
    world.disk.flush();
    world.fake.change(0, &2000_u64.to_le_bytes());
    assert!(world.disk.arm());
    let geometry = Geometry { sector_bytes: 512, sectors: 2000, read_only: false };
    assert_eq!(world.events(), [BlockEvent::Down, BlockEvent::Up(geometry)]);
    assert_eq!(world.completed(), [(1, Err(BlockError::Down))]);
    assert_eq!(world.stats.device_faults.get(), 0);
}

#[test]
fn sectors_of_a_page_are_counted_as_such() {
    let config = block_config(1000, 1 << 16, 126, 4096);
    let mut world = world_of(Fake::new(2, false, EVERYTHING, &config, &[64]), 0).unwrap();
    assert_eq!(world.disk.geometry(), Geometry { sector_bytes: 4096, sectors: 125, read_only: false });
    world.bytes.truncate(1000 * 512);
    world.read_all_is_right();
}

#[test]
fn a_disk_that_grows_while_it_starts_has_its_new_size() {
    let fake = Fake::new(2, false, EVERYTHING, &block_config(UNITS, 1 << 16, 126, 512), &[64]);
    // Before it works a device tells nobody of changes.
    fake.0.borrow_mut().config_at_start = Some(block_config(2 * UNITS, 1 << 16, 126, 512));
    let mut world = world_of(fake, 0).unwrap();
    assert_eq!(world.events(), [BlockEvent::Up(Geometry { sector_bytes: 512, sectors: 2 * UNITS, read_only: false })]);
}
