//! Whatever happens in whatever order.

use super::*;
use proptest::prelude::*;

/// What happens to the cache in a random run.
#[derive(Clone, Debug)]
enum Step {
    Look { waiter: u8, chunk: u8, ahead: u8 },
    Unpin(u8),
    Forget(u8),
    Poll,
    Release { disk: u8, count: u8 },
    Fail { disk: u8 },
    Bounce { disk: u8 },
    Remount,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_u8..30, any::<u8>(), 0_u8..9).prop_map(|(waiter, chunk, ahead)| Step::Look { waiter, chunk, ahead }),
        6 => any::<u8>().prop_map(Step::Unpin),
        2 => (0_u8..30).prop_map(Step::Forget),
        8 => Just(Step::Poll),
        8 => (any::<u8>(), 1_u8..5).prop_map(|(disk, count)| Step::Release { disk, count }),
        1 => any::<u8>().prop_map(|disk| Step::Fail { disk }),
        1 => any::<u8>().prop_map(|disk| Step::Bounce { disk }),
        1 => Just(Step::Remount),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every byte is right, whoever waits is told exactly once, memory stays within the pool, and all of it comes back.
    #[test]
    fn nothing_is_lost_whatever_happens(
        combined: bool,
        stripe_pages in 0_u32..3,
        members in 1_usize..4,
        cache_chunks in 1_usize..12,
        depth in 1_usize..6,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mode = if combined { StripeMode::Combined } else { StripeMode::Independent };
        let chunk_pages = (1 << stripe_pages) * if combined { members } else { 1 };
        let mut world = World::new(mode, 4096 << stripe_pages, members, cache_chunks * chunk_pages + 1);
        for control in &world.controls {
            control.set_pace(Pace::Held);
            control.set_shuffled(true);
            control.set_queue_depth(depth);
        }
        let mut waiting: BTreeMap<Waiter, u64> = BTreeMap::new();
        let mut pinned: Vec<(u64, Vec<PageSlice>)> = Vec::new();
        let (mut bad_days, chunks) = (false, world.layout.last_chunk().min(24));
        for step in steps {
            match step {
                Step::Look { waiter, chunk, ahead } => {
                    let (waiter, chunk) = (waiter.into(), 1 + u64::from(chunk) % chunks);
                    match world.look(chunk, ahead.into(), waiter) {
                        Found::Ready(slices) => {
                            pinned.push((chunk, slices));
                            waiting.remove(&waiter);
                        }
                        Found::Pending | Found::Starved => {
                            waiting.insert(waiter, chunk);
                        }
                        Found::OutOfRange => panic!("chunk {chunk}"),
                    }
                }
                Step::Unpin(which) => {
                    if !pinned.is_empty() {
                        pinned.swap_remove(usize::from(which) % pinned.len());
                    }
                }
                Step::Forget(waiter) => {
                    world.cache.forget(waiter.into());
                    waiting.remove(&waiter.into());
                }
                Step::Poll => {
                    world.poll();
                }
                Step::Release { disk, count } => {
                    world.controls[usize::from(disk) % members].release(count.into());
                }
                Step::Fail { disk } => {
                    world.controls[usize::from(disk) % members].fail_next(1);
                    bad_days = true;
                }
                Step::Bounce { disk } => {
                    let disk = usize::from(disk) % members;
                    world.controls[disk].down();
                    world.poll();
                    world.controls[disk].up(world.disks[disk].geometry());
                    bad_days = true;
                }
                Step::Remount => {
                    world.cache.detach(world.source);
                    world.source = world.cache.attach(&world.layout).unwrap();
                    bad_days = true;
                }
            }
            world.cache.check();
            for (waiter, result) in world.woken() {
                let chunk = waiting.remove(&waiter);
                prop_assert!(chunk.is_some(), "{waiter} was woken and did not wait");
                match result {
                    Ok(()) => {}
                    Err(error) => prop_assert!(bad_days && Some(error.chunk) == chunk),
                }
            }
            for (chunk, slices) in &pinned {
                let right = slices.iter().enumerate().all(|(page, slice)| slice.bytes() == world.expected(*chunk, page));
                prop_assert!(right, "chunk {chunk} has wrong bytes");
            }
        }
        pinned.clear();
        for control in &world.controls {
            control.set_pace(Pace::AtOnce);
        }
        for _ in 0..100 {
            world.settle();
            for (waiter, _) in world.woken() {
                prop_assert!(waiting.remove(&waiter).is_some());
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} wait for ever");
        if !bad_days {
            let asked = world.stats.cache_misses.get() + world.stats.cache_readahead.get();
            prop_assert_eq!(world.stats.cache_reads.get(), asked, "one read for each chunk that was asked for");
            let runs = world.layout.striping().stripes_per_chunk() as u64;
            prop_assert!(world.reads() <= asked * runs);
        }
        world.cache.detach(world.source);
        prop_assert_eq!((world.pool.in_use(), world.pool.shared(), world.cache.check()), (0, 0, 0));
    }
}
