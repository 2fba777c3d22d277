//! Errors, and sources that go.

use super::*;

#[test]
fn errors_reach_those_who_wait_and_are_not_kept() {
    let mut world = World::simple(8);
    world.controls[0].fail_next(1);
    assert!(matches!(world.look(5, 0, 1), Found::Pending));
    assert!(matches!(world.look(5, 0, 2), Found::Pending));
    world.settle();
    let error = ReadError { chunk: 5, error: BlockError::Failed };
    assert_eq!(world.woken(), [(1, Err(error)), (2, Err(error))]);
    assert_eq!((world.pool.in_use(), world.stats.cache_read_errors.get()), (0, 1));
    world.load(5);
    world.hit(5, 1);
}

#[test]
fn a_bad_neighbour_does_no_harm() {
    let mut world = World::simple(64);
    world.controls[0].fail_sectors(8 * 6..8 * 6 + 1);
    assert!(matches!(world.look(4, 6, 1), Found::Pending));
    assert!(matches!(world.look(6, 0, 2), Found::Pending));
    assert!(matches!(world.look(8, 0, 3), Found::Pending));
    world.settle();
    let woken: BTreeMap<Waiter, Result<(), ReadError>> = world.woken().into_iter().collect();
    let error = ReadError { chunk: 6, error: BlockError::Failed };
    assert_eq!(woken, BTreeMap::from([(1, Ok(())), (2, Err(error)), (3, Ok(()))]));
    world.hit(4, 1);
    world.hit(8, 3);
    assert!(world.cache.entries.find(world.source, 5).is_none(), "read-ahead that failed is dropped");
}

#[test]
fn one_stripe_of_many_may_fail() {
    let mut world = World::new(StripeMode::Combined, 4096, 3, 64);
    world.controls[1].fail_next(1);
    world.controls[2].set_pace(Pace::Held);
    assert!(matches!(world.look(4, 0, 1), Found::Pending));
    world.settle();
    assert_eq!(world.woken(), [], "the third stripe is still on its way");
    world.controls[2].release(1);
    world.settle();
    assert_eq!(world.woken(), [(1, Err(ReadError { chunk: 4, error: BlockError::Failed }))]);
    assert_eq!(world.pool.in_use(), 0);
}

#[test]
fn a_disk_that_is_down_fails_reads_and_works_again_when_it_is_up() {
    let mut world = World::new(StripeMode::Independent, 4096, 2, 64);
    world.controls.iter().for_each(|control| control.set_pace(Pace::Held));
    assert!(matches!(world.look(1, 4, 1), Found::Pending));
    world.poll();
    // Member 0 (chunks 1, 3, 5) is disk 1.
    world.controls[1].down();
    world.settle();
    let error = |chunk| Err(ReadError { chunk, error: BlockError::Down });
    assert_eq!(world.woken(), [(1, error(1))]);
    assert!(matches!(world.look(3, 0, 2), Found::Pending));
    world.settle();
    assert_eq!(world.woken(), [(2, error(3))]);
    let geometry = world.disks[1].geometry();
    world.controls[1].up(Geometry { sectors: geometry.sectors - 1, ..geometry });
    assert!(matches!(world.look(3, 0, 2), Found::Pending));
    world.settle();
    assert_eq!(world.woken(), [(2, error(3))], "a smaller disk is another disk");
    world.controls[1].up(geometry);
    world.controls[1].set_pace(Pace::AtOnce);
    world.settle();
    world.load(3);
    world.controls[1].gone();
    world.hit(3, 1);
    assert!(matches!(world.look(5, 0, 2), Found::Pending));
    world.settle();
    assert_eq!(world.woken(), [(2, error(5))]);
}

#[test]
fn fewer_disks_than_the_volume_has_are_an_error() {
    let mut world = World::new(StripeMode::Combined, 4096, 2, 64);
    assert!(matches!(world.look(1, 0, 1), Found::Pending));
    world.disks.pop();
    world.settle();
    assert_eq!(world.woken(), [(1, Err(ReadError { chunk: 1, error: BlockError::Down }))]);
}

#[test]
fn a_source_can_go_at_any_time() {
    for polls in 0..4 {
        let mut world = World::new(StripeMode::Combined, 8192, 2, 40);
        world.controls.iter().for_each(|control| control.set_pace(Pace::Held));
        world.controls[0].set_queue_depth(1);
        world.load_held(1);
        let Found::Ready(pinned) = world.look(1, 0, 0) else { panic!() };
        for chunk in 2..14 {
            world.look(chunk, 0, chunk);
        }
        for _ in 0..polls {
            world.poll();
            world.controls[0].release(1);
        }
        world.woken();
        world.cache.detach(world.source);
        world.cache.check();
        let woken = world.woken();
        assert!(!woken.is_empty() && woken.iter().all(|(_, result)| result.is_err()));
        assert!(!world.cache.starved());
        // The same volume again, while the old reads are on their way.
        world.source = world.cache.attach(&world.layout).unwrap();
        assert!(matches!(world.look(1, 0, 1), Found::Pending | Found::Starved));
        world.controls.iter().for_each(|control| control.set_pace(Pace::AtOnce));
        world.settle();
        assert_eq!(world.woken(), [(1, Ok(()))]);
        world.hit(1, 1);
        assert_eq!(world.cache.pinned_bytes(), 4 * 4096, "the old slices");
        assert!(pinned.iter().enumerate().all(|(page, slice)| slice.bytes() == world.expected(1, page)));
        drop(pinned);
        world.cache.detach(world.source);
        assert_eq!((world.pool.in_use(), world.cache.check()), (0, 0));
    }
}
