//! Disk back ends that lie.

use alloc::format;
use alloc::vec;

use super::block::{World, config};
use crate::rings::impair::rng::Rng;
use crate::rings::xen::abi::block::Response;
use crate::rings::xen::memory::{BusState, Manners, MemoryBlkback};
use crate::rings::{BlockDevice, BlockError, BlockEvent, BlockOperation};

#[test]
fn lies_in_the_ring_end_this_life() {
    type Lie = fn(&mut MemoryBlkback);
    let lies: [Lie; 7] = [
        |back| back.lie(Response { id: 64, ..Response::default() }),
        |back| back.lie(Response { id: u64::MAX, ..Response::default() }),
        |back| back.lie(Response { id: 1 << 32, ..Response::default() }),
        |back| back.lie(Response { id: 50, ..Response::default() }),
        |back| back.jump(9),
        |back| back.jump(65),
        |back| back.jump(u32::MAX),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut world = World::connected(config());
        world.back.set_held(true);
        for token in 0..8 {
            world.submit(BlockOperation::Read, 0, 16, token);
        }
        world.settle();
        lie(&mut world.back);
        world.awake = true;
        let (events, done) = world.settle();
        assert_eq!(events, [BlockEvent::Down, BlockEvent::Up(config().geometry)], "lie {number}");
        assert!(done.len() == 8 && done.iter().all(|done| done.1 == Err(BlockError::Down)));
        assert_eq!((world.stats.device_faults.get(), world.pool.in_use()), (1, 0));
        world.back.set_held(false);
        world.check_that_it_works();
        world.check_that_nothing_is_left();
    }
}

#[test]
fn a_page_that_is_answered_but_still_mapped_is_no_result() {
    let mut world = World::connected(config());
    world.back.set_keeps_mappings(true);
    world.submit(BlockOperation::Read, 0, 2, 5);
    assert_eq!(world.settle().1[0].1, Err(BlockError::Failed));
    assert_eq!((world.pool.in_use(), world.stats.grants_quarantined.get()), (2, 2));
    world.back.let_go();
    world.back.set_keeps_mappings(false);
    world.disk.event();
    assert_eq!((world.pool.in_use(), world.stats.grants_quarantined.get()), (0, 0));
    world.check_that_it_works();
    world.check_that_nothing_is_left();
}

#[test]
fn a_back_end_that_closes_on_the_way_or_never_goes_on_holds_nobody_up() {
    for state in [BusState::InitWait, BusState::Connected] {
        let mut world = World::new(config());
        world.back.set_manners(Manners { closes_before: Some(state), ..Manners::default() });
        world.back.up(config().geometry);
        world.settle();
        assert!(!world.submit(BlockOperation::Read, 0, 1, 0));
        world.back.set_manners(Manners::default());
        let is_gone = !world.disk.is_connecting();
        world.back.up(config().geometry);
        let events = world.settle().0;
        assert!(is_gone || events.contains(&BlockEvent::Up(config().geometry)), "{state:?}: {events:?}");
        world.check_that_nothing_is_left();
    }
    for state in [BusState::InitWait, BusState::Connected, BusState::Closing, BusState::Closed] {
        let mut world = World::new(config());
        world.back.set_manners(Manners { stays_in: Some(state), ..Manners::default() });
        world.settle();
        world.back.up(config().geometry);
        world.settle();
        assert!(!world.awake && !world.disk.arm(), "asleep, {state:?}");
        world.back.set_manners(Manners::default());
        world.settle();
        world.check_that_it_works();
        world.check_that_nothing_is_left();
    }
}

#[test]
fn nonsense_in_the_store_is_no_disk() {
    let back = "/local/domain/0/backend/vbd/5/51712";
    for (node, value) in [
        ("sectors", "abc"),
        ("sectors", "-5"),
        ("sectors", ""),
        ("sectors", "99999999999999999999999"),
        ("sectors", "18446744073709551615"),
        ("sector-size", "0"),
        ("sector-size", "511"),
        ("sector-size", "8192"),
        ("sector-size", "4294967808"),
        ("info", "read-only"),
    ] {
        let mut world = World::connected(config());
        world.xen.write(&format!("{back}/{node}"), value);
        let state = world.xen.read(&format!("{back}/state")).unwrap();
        world.xen.write(&format!("{back}/state"), state);
        // The back end writes them anew with each connection.
        let (events, _) = world.settle();
        assert_eq!(events, [BlockEvent::Down, BlockEvent::Up(config().geometry)], "{node} {value:?}");
        world.check_that_it_works();
    }
    for (node, value) in
        [("max-ring-page-order", "x"), ("max-ring-page-order", "-1"), ("feature-max-indirect-segments", "many")]
    {
        let mut world = World::new(config());
        world.xen.write(&format!("{back}/{node}"), value);
        assert_eq!(world.settle().0, [BlockEvent::Gone], "{node} {value:?}");
        world.check_that_nothing_is_left();
    }
    for (node, value) in [("max-ring-page-order", "4294967295"), ("feature-max-indirect-segments", "4294967295")] {
        let mut world = World::new(config());
        world.xen.write(&format!("{back}/{node}"), value);
        assert_eq!(world.settle().0, [BlockEvent::Up(config().geometry)], "{node} {value:?}");
        world.check_that_it_works();
    }
}

#[test]
fn any_mixture_of_work_and_lies_ends_well() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut world = World::connected(config());
        world.back.set_held(true);
        world.back.set_shuffled(true);
        let (mut submitted, mut done) = (0, vec![]);
        for _ in 0..rng.below(200) {
            let number = rng.next();
            match rng.below(16) {
                0..6 if world.pool.available() > 16 => {
                    let pages = 1 + number as usize % 16;
                    if world.submit(BlockOperation::Read, number % 2000, pages, submitted) {
                        submitted += 1;
                    }
                }
                6..9 => drop(world.back.release(number as usize % 5)),
                9 => world.back.fail_next(number as u32 % 3),
                10 if number.is_multiple_of(8) => world.back.lie(Response { id: number % 70, ..Response::default() }),
                11 if number.is_multiple_of(8) => world.back.jump(number as u32 % 3),
                12 => world.back.set_keeps_mappings(number.is_multiple_of(3)),
                13 => world.back.let_go(),
                14 if number.is_multiple_of(4) => world.back.up(config().geometry),
                _ => {}
            }
            if rng.below(3) == 0 {
                done.extend(world.settle().1.into_iter().map(|done| done.0));
            }
        }
        world.back.vanish();
        world.awake = true;
        done.extend(world.settle().1.into_iter().map(|done| done.0));
        done.sort_unstable();
        assert!(done.into_iter().eq(0..submitted), "each request ends once");
        world.check_that_nothing_is_left();
    }
}
