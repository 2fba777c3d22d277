//! The in-memory disk: late, disorderly, failing, gone, and the same again with the same seed.

use super::super::*;
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, PAGE_BYTES, PagePool,
    PageVec,
};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const GEOMETRY: Geometry = Geometry { sector_bytes: 512, sectors: 1000, read_only: false };

fn content() -> Vec<u8> {
    (0..512_000).map(|i| (i / 512 * 7 + i) as u8).collect()
}

fn request(pool: &PagePool, operation: BlockOperation, sector: u64, pages: usize, token: u64) -> BlockRequest {
    let pages: PageVec = core::iter::repeat_with(|| pool.allocate().unwrap()).take(pages).collect();
    BlockRequest { operation, sector, pages, token }
}

fn read(pool: &PagePool, sector: u64, pages: usize) -> BlockRequest {
    request(pool, BlockOperation::Read, sector, pages, sector)
}

fn completions(disk: &mut MemoryDisk) -> Vec<BlockCompletion> {
    let mut completions = Vec::new();
    let count = disk.complete(&mut |completion| completions.push(completion));
    assert_eq!(count, completions.len());
    completions
}

fn results(disk: &mut MemoryDisk) -> Vec<(u64, Result<(), BlockError>)> {
    completions(disk).iter().map(|completion| (completion.token, completion.result)).collect()
}

fn bytes(completion: &BlockCompletion) -> Vec<u8> {
    completion.pages.iter().flat_map(|page| *page.bytes()).collect()
}

proptest! {
    #[test]
    fn every_request_completes_once_with_the_disk_s_bytes(
        requests in prop::collection::vec((0..1010u64, 1..4usize, any::<bool>()), 1..60),
        pace in prop_oneof![Just(Pace::AtOnce), Just(Pace::Held), (0..9u32).prop_map(|most_polls| Pace::Delayed { most_polls })],
        shuffled: bool,
        seed: u64,
    ) {
        let pool = PagePool::new(256);
        let content = content();
        let run = || {
            let mut disk = MemoryDisk::new(content.clone(), GEOMETRY, seed);
            let control = disk.control();
            control.set_pace(pace);
            control.set_shuffled(shuffled);
            let mut finished = Vec::new();
            for (token, &(sector, pages, flush)) in requests.iter().enumerate() {
                disk.submit(request(&pool, BlockOperation::Read, sector, pages, token as u64)).unwrap();
                if flush {
                    disk.flush();
                    control.release(1);
                }
                finished.extend(completions(&mut disk));
            }
            disk.flush();
            while control.in_flight() > 0 {
                control.release(1);
                finished.extend(completions(&mut disk));
            }
            finished.extend(completions(&mut disk));
            finished
        };
        let finished = run();
        let order: Vec<u64> = finished.iter().map(|completion| completion.token).collect();
        let mut tokens = order.clone();
        tokens.sort_unstable();
        prop_assert!(tokens.into_iter().eq(0..requests.len() as u64));
        for completion in &finished {
            let (sector, pages, _) = requests[completion.token as usize];
            if sector >= 1000 {
                prop_assert_eq!(completion.result, Err(BlockError::OutOfRange));
                continue;
            }
            prop_assert_eq!(completion.result, Ok(()));
            let start = sector as usize * 512;
            let mut expected = content[start..content.len().min(start + pages * PAGE_BYTES)].to_vec();
            expected.resize(pages * PAGE_BYTES, 0);
            prop_assert!(bytes(completion) == expected);
        }
        drop(finished);
        let again: Vec<u64> = run().iter().map(|completion| completion.token).collect();
        prop_assert_eq!(order, again, "the same seed, the same order");
        prop_assert_eq!(pool.in_use(), 0);
    }
}

#[test]
fn held_requests_wait_and_shuffled_ones_change_places() {
    let pool = PagePool::new(64);
    let mut orders = Vec::new();
    for shuffled in [false, true] {
        let mut disk = MemoryDisk::new(content(), GEOMETRY, 1);
        let control = disk.control();
        control.set_pace(Pace::Held);
        control.set_shuffled(shuffled);
        (0..20).for_each(|sector| disk.submit(read(&pool, sector, 1)).unwrap());
        assert_eq!(control.release(9), 0, "not flushed");
        disk.flush();
        assert!(!disk.woken() && results(&mut disk).is_empty());
        assert!(disk.event().is_some() && !disk.arm());
        assert_eq!((control.release(3), control.in_flight()), (3, 17));
        assert!(disk.woken() && disk.arm());
        assert_eq!(results(&mut disk).len(), 3);
        control.set_pace(Pace::AtOnce);
        orders.push(results(&mut disk).iter().map(|(token, _)| *token).collect::<Vec<_>>());
    }
    assert!(orders[0].iter().copied().eq(3..20));
    assert_ne!(orders[0], orders[1]);
}

#[test]
fn what_is_not_flushed_is_not_carried_out() {
    let pool = PagePool::new(64);
    let mut disk = MemoryDisk::new(content(), GEOMETRY, 1);
    let control = disk.control();
    control.set_pace(Pace::Held);
    control.set_shuffled(true);
    (0..5).for_each(|sector| disk.submit(read(&pool, sector, 1)).unwrap());
    disk.flush();
    (5..30).for_each(|sector| disk.submit(read(&pool, sector, 1)).unwrap());
    assert_eq!(control.release(100), 5);
    assert!(results(&mut disk).iter().all(|(token, _)| *token < 5));
}

#[test]
fn failures_come_as_ordered_and_leave_no_data() {
    let pool = PagePool::new(64);
    let mut disk = MemoryDisk::new(content(), GEOMETRY, 1);
    let control = disk.control();
    let mut outcome = |sector, pages| {
        disk.submit(read(&pool, sector, pages)).unwrap();
        disk.flush();
        let completion = completions(&mut disk).remove(0);
        assert_eq!(completion.pages.len(), pages);
        assert!(completion.result.is_ok() == (bytes(&completion)[..100] == content()[sector as usize * 512..][..100]));
        completion.result
    };
    control.fail_next(2);
    assert_eq!([0; 4].map(|_| outcome(5, 2).is_ok()), [false, false, true, true]);
    control.fail_sectors(16..17);
    let around = [(0, 2), (0, 3), (8, 1), (9, 1), (16, 1), (17, 1)];
    assert_eq!(around.map(|(sector, pages)| outcome(sector, pages).is_ok()), [true, false, true, false, false, true]);
    control.fail_sectors(0..0);
    control.fail_one_in(3);
    let failed = (0..300).filter(|_| outcome(1, 1).is_err()).count();
    assert!((50..150).contains(&failed), "{failed} of 300");
    control.fail_one_in(0);
    assert!((0..100).all(|_| outcome(1, 1).is_ok()));
}

#[test]
fn writes_are_read_back_and_bad_ones_refused() {
    let pool = PagePool::new(64);
    let mut disk = MemoryDisk::new(content(), GEOMETRY, 1);
    let control = disk.control();
    let mut run = |operation, sector, pages, fill| {
        let mut request = request(&pool, operation, sector, pages, 0);
        request.pages.iter_mut().for_each(|page| page.bytes_mut().unwrap().fill(fill));
        disk.submit(request).unwrap();
        disk.flush();
        let completion = completions(&mut disk).remove(0);
        completion.result.map(|()| bytes(&completion))
    };
    assert!(run(BlockOperation::Write, 992, 1, 9).is_ok());
    assert!(run(BlockOperation::Flush, 0, 0, 0).is_ok());
    assert_eq!(run(BlockOperation::Read, 992, 1, 0), Ok(vec![9; 4096]));
    for sector in [993, 1000, u64::MAX] {
        assert_eq!(run(BlockOperation::Write, sector, 1, 9), Err(BlockError::OutOfRange));
    }
    assert_eq!(run(BlockOperation::Read, 0, 0, 0), Err(BlockError::Unsupported));
    control.fail_next(1);
    assert_eq!(run(BlockOperation::Write, 0, 1, 9), Err(BlockError::Failed));
    assert_eq!(run(BlockOperation::Read, 0, 1, 0).unwrap(), content()[..4096]);
    assert_eq!((control.reads(), control.writes()), (2, 2));
    control.up(Geometry { read_only: true, ..GEOMETRY });
    assert_eq!(run(BlockOperation::Write, 0, 1, 9), Err(BlockError::Unsupported));
}

#[test]
fn a_disk_may_claim_to_be_larger_than_its_bytes() {
    let pool = PagePool::new(64);
    let geometry = Geometry { sector_bytes: 4096, sectors: u64::MAX, read_only: false };
    let mut disk = MemoryDisk::new(vec![1; 5000], geometry, 1);
    for sector in [0, 1, 2, u64::MAX / 4096, u64::MAX - 1] {
        disk.submit(read(&pool, sector, 1)).unwrap();
        disk.submit(request(&pool, BlockOperation::Write, sector, 2, 0)).unwrap();
    }
    disk.flush();
    let finished = completions(&mut disk);
    let ones =
        |index: usize| finished[index].result.map(|()| bytes(&finished[index]).iter().filter(|b| **b == 1).count());
    assert_eq!([ones(0), ones(2), ones(4), ones(6)], [Ok(4096), Ok(904), Ok(0), Ok(0)]);
    assert_eq!(ones(8), Err(BlockError::OutOfRange));
    assert!((1..10).step_by(2).all(|index| finished[index].result.is_err()));
}

#[test]
fn down_completes_all_and_up_may_change_the_disk() {
    let pool = PagePool::new(64);
    let mut disk = MemoryDisk::new(content(), GEOMETRY, 1);
    let control = disk.control();
    assert_eq!((disk.event(), disk.event()), (Some(BlockEvent::Up(GEOMETRY)), None));
    control.set_pace(Pace::Held);
    control.set_queue_depth(3);
    (0..2).for_each(|sector| disk.submit(read(&pool, sector, 2)).unwrap());
    disk.flush();
    disk.submit(read(&pool, 2, 2)).unwrap();
    assert_eq!(disk.submit(read(&pool, 3, 1)).unwrap_err().token, 3, "the queue is full");
    assert!(!disk.arm());
    control.down();
    assert!(disk.woken());
    assert_eq!((disk.event(), disk.event()), (Some(BlockEvent::Down), None));
    assert_eq!(results(&mut disk), [0, 1, 2].map(|token| (token, Err(BlockError::Down))));
    assert!(disk.submit(read(&pool, 4, 1)).is_err());
    let smaller = Geometry { sectors: 10, ..GEOMETRY };
    control.set_pace(Pace::AtOnce);
    control.up(smaller);
    assert_eq!((disk.event(), disk.geometry()), (Some(BlockEvent::Up(smaller)), smaller));
    disk.submit(read(&pool, 10, 1)).unwrap();
    disk.flush();
    assert_eq!(results(&mut disk), [(10, Err(BlockError::OutOfRange))]);
    disk.submit(read(&pool, 9, 1)).unwrap();
    control.gone();
    assert_eq!(results(&mut disk), [(9, Err(BlockError::Down))]);
    control.up(GEOMETRY);
    assert_eq!([disk.event(), disk.event(), disk.event()], [Some(BlockEvent::Down), Some(BlockEvent::Gone), None]);
    assert_eq!(pool.in_use(), 0);
}
