//! Devices that lie: in the used ring, in headers, in the configuration, with every register, on purpose and at random. Whatever
//! they do there is no panic, no page is lost, and none that they may still use is given to somebody else.

use super::block::{self, read};
use super::fake::{Fake, block_config, net_config};
use super::net::{EVERYTHING, RX, TX, World, headers, pattern, world, world_of};
use crate::rings::virtio::VirtioError;
use crate::rings::{BlockDevice, BlockError, BlockEvent, NetEvent, NetQueue, Offload, PAGE_BYTES, TxFrame};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Sends a frame of three pages.
fn send(world: &mut World) {
    let slices = world.slices(&[400, 400, 400], 0);
    let frame = TxFrame { head: &headers(), slices: &slices, offload: Offload::None };
    world.net.transmit(&frame).unwrap();
    world.net.flush();
}

/// The driver has noticed: it resets the device, gets its pages back, says so, and begins anew.
fn expect_new_life(world: &mut World) {
    let up = NetEvent::Up(world.net.capabilities());
    let resets = world.fake.0.borrow().resets;
    assert!(world.net.arm());
    assert_eq!(world.events(), [NetEvent::Down, up]);
    assert_eq!(world.fake.0.borrow().resets - resets, 0, "reset at once");
    assert_eq!(world.pool.in_use(), 0);
    assert_eq!(world.stats.device_faults.get(), 1);
    world.check_pages();
    for round in 0..300 {
        world.deliver([0; 12], &pattern(100, round), PAGE_BYTES);
        assert_eq!(world.received().len(), 1);
        send(world);
        let chain = world.fake.take(TX).unwrap();
        world.fake.put_used(TX, chain.head.into(), 0);
        assert_eq!(world.net.reclaim(), 1);
    }
}

fn started() -> World {
    let mut world = world(false, EVERYTHING, 0);
    assert_eq!(world.events().len(), 1);
    send(&mut world);
    send(&mut world);
    world.fake.take(TX).unwrap();
    world
}

#[test]
fn lies_in_the_transmit_ring_end_this_life() {
    for id in [0, 255, 256, 0xffff, 0x1_0000, u32::MAX] {
        let mut world = started();
        let held: Vec<u16> = world.fake.0.borrow().queues[TX].held.keys().copied().collect();
        if held.iter().any(|head| u32::from(*head) == id) {
            // Twice: the second time it does not hold it.
            world.fake.put_used(TX, id, 0);
            assert_eq!(world.net.reclaim(), 1);
        }
        world.fake.put_used(TX, id, 0);
        world.net.reclaim();
        expect_new_life(&mut world);
    }
    for index in [3, 100, 256, 257, 0x8000, 0xffff] {
        let mut world = started();
        world.fake.set_used_index(TX, index);
        assert_eq!(world.net.reclaim(), 0);
        expect_new_life(&mut world);
    }
}

#[test]
fn a_frame_that_was_not_shown_cannot_have_been_sent() {
    let mut world = world(false, EVERYTHING, 0);
    world.events();
    send(&mut world);
    let shown = world.fake.take(TX).unwrap().head;
    let slices = world.slices(&[100], 0);
    world.net.transmit(&TxFrame { head: &headers(), slices: &slices, offload: Offload::None }).unwrap();
    drop(slices);
    let hidden = if shown == 0 { 1 } else { shown - 1 };
    world.fake.put_used(TX, hidden.into(), 0);
    assert_eq!(world.net.reclaim(), 0);
    expect_new_life(&mut world);
}

#[test]
fn lies_in_the_receive_ring_end_this_life() {
    type Lie = fn(&World);
    let lies: [Lie; 6] = [
        |world| world.fake.put_used(RX, 300, 100),
        |world| {
            let chain = world.fake.take(RX).unwrap();
            world.fake.put_used(RX, chain.head.into(), 4097);
        },
        |world| {
            let chain = world.fake.take(RX).unwrap();
            world.fake.put_used(RX, chain.head.into(), u32::MAX);
        },
        |world| world.fake.set_used_index(RX, 301),
        |world| {
            let chain = world.fake.take(RX).unwrap();
            chain.write(0, &[0; 12]);
            world.fake.put_used(RX, chain.head.into(), 100);
        },
        |world| {
            let chain = world.fake.take(RX).unwrap();
            chain.write(0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0]);
            world.fake.put_used(RX, chain.head.into(), 100);
        },
    ];
    for lie in lies {
        let mut world = started();
        lie(&world);
        assert_eq!(world.received(), []);
        expect_new_life(&mut world);
    }
}

#[test]
fn frames_that_make_no_sense_are_dropped_one_by_one() {
    let mut world = started();
    let mut bad = 0;
    for (header, bytes) in [
        ([0_u8; 12], 13),
        ([1, 0, 0, 0, 0, 0, 200, 0, 0, 0, 0, 0], 60),
        ([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 60),
        ([0, 9, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 60),
        ([0; 12], 0),
    ] {
        for _ in 0..100 {
            world.deliver(header, &pattern(bytes, 0), PAGE_BYTES);
            assert_eq!(world.received(), []);
            bad += 1;
        }
        world.deliver([0; 12], &pattern(60, bad), 20);
        assert_eq!(world.received().len(), 1);
    }
    for bytes in [0, 11] {
        let chain = world.fake.take(RX).unwrap();
        world.fake.put_used(RX, chain.head.into(), bytes);
        assert_eq!(world.received(), []);
        bad += 1;
    }
    assert_eq!((world.stats.rx_malformed.get(), world.stats.device_faults.get()), (bad as u64, 0));
    assert_eq!(world.rx_pool.in_use(), 256);
}

#[test]
fn a_device_that_keeps_lying_is_given_up() {
    let mut world = started();
    for life in 1..=5 {
        world.fake.put_used(RX, 999, 0);
        assert_eq!(world.received(), []);
        let events = world.events();
        assert_eq!(events[0], NetEvent::Down);
        assert_eq!(events.get(1) == Some(&NetEvent::Gone), life == 5, "life {life}");
    }
    assert_eq!((world.pool.in_use(), world.rx_pool.in_use(), world.fake.0.borrow().status), (0, 0, 0));
    assert!(!world.net.arm() && world.events().is_empty());
    let frame = TxFrame { head: &headers(), slices: &[], offload: Offload::None };
    assert!(world.net.transmit(&frame).is_err());
    assert_eq!((world.net.reclaim(), world.received()), (0, vec![]));
}

#[test]
fn a_device_that_does_not_reset_keeps_its_pages() {
    let mut world = started();
    let (sent, posted) = (world.pool.in_use(), world.rx_pool.in_use());
    assert!(sent > 0 && posted > 0);
    world.fake.0.borrow_mut().stuck = true;
    world.fake.break_down();
    assert!((0..100_000).any(|_| !world.net.arm()), "it is not waited for without end");
    for _ in 0..10 {
        assert!(!world.net.arm(), "nothing to do");
        assert_eq!((world.events(), world.net.reclaim(), world.received()), (vec![], 0, vec![]));
        assert!(world.net.transmit(&TxFrame { head: &headers(), slices: &[], offload: Offload::None }).is_err());
        world.net.flush();
        world.check_pages();
    }
    assert_eq!((world.pool.in_use(), world.rx_pool.in_use()), (sent, posted));
    // It thinks better of it.
    world.fake.0.borrow_mut().stuck = false;
    world.fake.0.borrow_mut().status = 0;
    assert!(world.net.arm());
    assert_eq!(world.events().len(), 2);
    assert_eq!(world.pool.in_use(), 0);
    // One that is stuck when the driver goes away keeps what it has for ever.
    send(&mut world);
    world.fake.0.borrow_mut().stuck = true;
    let World { net, fake, pool, rx_pool, .. } = world;
    drop(net);
    assert_eq!((pool.in_use(), rx_pool.in_use()), (3, posted));
    assert!(fake.held_pages().len() > posted, "its queues are still there");
}

#[test]
fn a_slow_reset_keeps_the_loop_awake() {
    let mut world = started();
    world.fake.0.borrow_mut().reset_looks = 1000;
    world.fake.break_down();
    let mut rounds = 0;
    let events = loop {
        rounds += 1;
        assert!(world.net.arm(), "nobody else wakes it");
        let events = world.events();
        if !events.is_empty() {
            break events;
        }
    };
    assert_eq!(events[0], NetEvent::Down);
    assert!(rounds > 100, "{rounds}");
}

#[test]
fn a_device_that_asks_for_it_is_reset() {
    let mut world = started();
    world.fake.break_down();
    assert!(world.net.arm());
    expect_new_life(&mut world);
}

#[test]
fn a_device_that_comes_back_with_less_says_so() {
    let mut world = started();
    world.fake.0.borrow_mut().offered = EVERYTHING & !(crate::rings::virtio::features::NET_CSUM);
    world.fake.break_down();
    assert!(world.net.arm());
    let events = world.events();
    let capabilities = world.net.capabilities();
    assert_eq!(events, [NetEvent::Down, NetEvent::Up(capabilities)]);
    assert!(!capabilities.checksum && !capabilities.tso4 && !capabilities.tso6);
    // Nothing at all: gone.
    world.fake.0.borrow_mut().offered = 0;
    world.fake.break_down();
    assert!(world.net.arm());
    assert_eq!(world.events(), [NetEvent::Down, NetEvent::Gone]);
    assert_eq!(world.rx_pool.in_use(), 0);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    Transmit(u8),
    Receive,
    Reclaim,
    Arm,
    Take(u8),
    /// Returns the oldest list that it holds, with a length.
    Return(u8, u32),
    Used(u8, u32, u32),
    Index(u8, u16),
    Header([u8; 12], u16),
    Config(u8, u8),
    Status(u8),
    Offer(u64),
    Entries(u8, u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..20_u8).prop_map(Act::Transmit),
        4 => Just(Act::Receive),
        4 => Just(Act::Reclaim),
        3 => Just(Act::Arm),
        6 => (0..2_u8).prop_map(Act::Take),
        6 => (0..2_u8, prop_oneof![Just(0), 0..4200_u32, any::<u32>()]).prop_map(|(queue, bytes)| Act::Return(queue, bytes)),
        1 => (0..2_u8, prop_oneof![0..300_u32, any::<u32>()], 0..5000_u32).prop_map(|(queue, id, bytes)| Act::Used(queue, id, bytes)),
        1 => (0..2_u8, prop_oneof![0..300_u16, any::<u16>()]).prop_map(|(queue, index)| Act::Index(queue, index)),
        6 => (prop::array::uniform12(prop_oneof![Just(0_u8), Just(1), any::<u8>()]), 0..4097_u16).prop_map(|(header, bytes)| Act::Header(header, bytes)),
        1 => (0..12_u8, any::<u8>()).prop_map(|(at, value)| Act::Config(at, value)),
        1 => any::<u8>().prop_map(Act::Status),
        1 => any::<u64>().prop_map(Act::Offer),
        1 => (0..2_u8, 0..1000_u32).prop_map(|(queue, entries)| Act::Entries(queue, entries)),
    ]
}

/// Lets the device do something. It has no queues while it does not work.
fn perform(world: &mut World, act: Act) {
    let works = world.fake.0.borrow().status & 4 != 0;
    match act {
        Act::Transmit(slices) => {
            let slots = usize::from(slices).min(world.net.capabilities().max_slots - 1);
            let lengths = vec![70; slots];
            let fits = 66 + 70 * slots <= 14 + usize::from(world.net.capabilities().mtu_bytes);
            if fits && world.pool.available() >= slots {
                let slices = world.slices(&lengths, slots);
                let _ = world.net.transmit(&TxFrame { head: &headers(), slices: &slices, offload: Offload::None });
            }
            world.net.flush();
        }
        Act::Receive => drop(world.received()),
        Act::Reclaim => drop(world.net.reclaim()),
        Act::Arm => drop(world.net.arm()),
        Act::Take(queue) => drop(world.fake.take(queue.into())),
        Act::Return(queue, bytes) if works => {
            let held = world.fake.0.borrow().queues[usize::from(queue)].held.keys().next().copied();
            if let Some(head) = held {
                world.fake.put_used(queue.into(), head.into(), bytes);
            }
        }
        Act::Used(queue, id, bytes) if works => world.fake.put_used(queue.into(), id, bytes),
        Act::Index(queue, index) if works => world.fake.set_used_index(queue.into(), index),
        Act::Header(header, bytes) if works => {
            if let Some(chain) = world.fake.take(RX) {
                chain.write(0, &header);
                world.fake.put_used(RX, chain.head.into(), bytes.into());
            }
        }
        Act::Config(at, value) => world.fake.change(at.into(), &[value]),
        Act::Status(value) => world.fake.0.borrow_mut().status ^= value & 0x40,
        Act::Offer(features) => world.fake.0.borrow_mut().offered = EVERYTHING & features | 1 << 32 | 1 << 5,
        Act::Entries(queue, entries) => world.fake.0.borrow_mut().queues[usize::from(queue)].max_entries = entries,
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_an_interface_does_harms(acts in prop::collection::vec(act(), 1..120), legacy: bool) {
        let offered = if legacy { EVERYTHING & !(1 << 32) } else { EVERYTHING };
        let fake = Fake::new(1, legacy, offered, &net_config(1500), &[256, 256]);
        let mut world = world_of(fake, 0).unwrap();
        let (mut up, mut gone) = (false, false);
        for act in acts {
            // Events of one life come in order, and none after the last.
            for event in world.events() {
                let comes_up = matches!(event, NetEvent::Up(_));
                prop_assert!(!gone && if event == NetEvent::Down { up } else { !up }, "{event:?}");
                (up, gone) = (comes_up, event == NetEvent::Gone);
            }
            // A lie about what has been returned gives pages up, so the device no longer has them.
            perform(&mut world, act);
        }
        world.fake.0.borrow_mut().stuck = false;
        let World { net, pool, rx_pool, .. } = world;
        drop(net);
        prop_assert_eq!((pool.in_use(), rx_pool.in_use()), (0, 0));
    }

    #[test]
    fn nothing_that_a_disk_does_harms(
        acts in prop::collection::vec((0..8_u8, any::<u32>(), any::<u32>()), 1..120),
        capacity: u64, seg_max: u32, indirect: bool,
    ) {
        let refused = if indirect { 0 } else { 1 << 28 };
        let config = block_config(capacity, 1 << 20, seg_max, 512);
        let Ok(mut world) = block::world_of(Fake::new(2, false, block::EVERYTHING, &config, &[64]), refused) else { return Ok(()) };
        let mut submitted = 0;
        for (number, (kind, first, second)) in acts.into_iter().enumerate() {
            world.events();
            let works = world.fake.0.borrow().status & 4 != 0;
            match kind {
                0 | 1 => {
                    let pages = (first % 16 + 1) as usize;
                    if world.pool.available() >= pages {
                        let sector = if second.is_multiple_of(3) { u64::from(second) } else { capacity.saturating_sub(u64::from(second % 200)) };
                        submitted += usize::from(world.disk.submit(read(&world.pool, sector, pages, number as u64)).is_ok());
                        world.disk.flush();
                    }
                }
                2 | 3 if works => {
                    if let Some(chain) = world.fake.take(0) {
                        let status = [0, 0, 0, 1, 2, 3, 0xff][second as usize % 7];
                        chain.write(chain.writable_bytes() - 1, &[status]);
                        let bytes = if first.is_multiple_of(20) { first } else { chain.writable_bytes() as u32 };
                        world.fake.put_used(0, chain.head.into(), bytes);
                    }
                }
                4 if works && first.is_multiple_of(4) => world.fake.put_used(0, second % 70, first),
                5 if works && first.is_multiple_of(4) => world.fake.set_used_index(0, second as u16),
                6 => world.fake.change(first as usize % 24, &[second as u8]),
                7 if first.is_multiple_of(4) => world.fake.break_down(),
                _ => {}
            }
            submitted -= world.completed().len();
            world.disk.arm();
        }
        let block::World { disk, pool, .. } = world;
        drop(disk);
        prop_assert_eq!(pool.in_use(), 0);
        prop_assert!(submitted <= 64);
    }
}

#[test]
fn a_disk_that_lies_fails_its_requests_and_begins_anew() {
    type Lie = fn(&block::World);
    let lies: [Lie; 3] = [
        |world| world.fake.put_used(0, 60, 0),
        |world| world.fake.set_used_index(0, 77),
        |world| {
            let chain = world.fake.take(0).unwrap();
            world.fake.put_used(0, chain.head.into(), chain.writable_bytes() as u32 + 1);
        },
    ];
    for lie in lies {
        let mut world = block::world(0);
        let up = BlockEvent::Up(world.disk.geometry());
        assert_eq!(world.events(), [up]);
        for token in 0..3 {
            world.disk.submit(read(&world.pool, 0, 16, token)).unwrap();
        }
        world.disk.flush();
        lie(&world);
        assert_eq!(world.completed(), []);
        assert!(world.disk.arm());
        assert_eq!(world.events(), [BlockEvent::Down, up]);
        assert_eq!(world.completed(), (0..3).map(|token| (token, Err(BlockError::Down))).collect::<Vec<_>>());
        assert_eq!((world.pool.in_use(), world.stats.device_faults.get()), (0, 1));
        world.read_all_is_right();
    }
}

#[test]
fn a_disk_with_a_nonsensical_shape_is_refused() {
    let refuse = |config: &[u8]| block::world_of(Fake::new(2, false, block::EVERYTHING, config, &[64]), 0).err();
    assert_eq!(refuse(&block_config(100, 100, 16, 512)), Some(VirtioError::BadConfiguration("size_max")));
    assert_eq!(refuse(&block_config(100, 1 << 16, 16, 500)), Some(VirtioError::BadConfiguration("blk_size")));
    assert_eq!(refuse(&block_config(100, 1 << 16, 16, 0)), Some(VirtioError::BadConfiguration("blk_size")));
    assert_eq!(refuse(&block_config(100, 1 << 16, 16, 8192)), Some(VirtioError::BadConfiguration("blk_size")));
    assert_eq!(refuse(&[0; 7]), Some(VirtioError::ShortConfiguration));
}
