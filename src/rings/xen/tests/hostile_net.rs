//! Network back ends that lie. Whatever they do there is no panic, no page is lost, and none that they may still use is given to
//! somebody else.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::net::{ENTRIES, World, headers, pattern};
use crate::rings::impair::rng::Rng;
use crate::rings::xen::XenNet;
use crate::rings::xen::abi::net::{
    ExtraInfo, NETRXF_CSUM_BLANK, NETRXF_EXTRA_INFO, NETRXF_MORE_DATA, RxResponse, TxResponse,
};
use crate::rings::xen::memory::{BusState, Manners, MemoryNetback, NetOffers, NetbackConfig};
use crate::rings::{Family, NetEvent, NetQueue, Offload, RxChecksum};

fn started() -> World {
    let mut world = World::connected(NetbackConfig::default());
    world.is_slow = true;
    let slices = world.slices(&[400, 400]);
    for _ in 0..2 {
        world.send(&slices, Offload::None).unwrap();
    }
    world.net.flush();
    world
}

/// The front has noticed: it closes, gets its pages back, says so, and begins anew.
fn expect_new_life(world: &mut World) {
    world.back.notify_anyway();
    world.awake = true;
    let up = NetEvent::Up(world.net.capabilities());
    assert_eq!(world.settle(), [NetEvent::Down, up]);
    assert_eq!((world.stats.device_faults.get(), world.stats.grants_quarantined.get()), (1, 0));
    assert_eq!(world.pool.in_use(), 0);
    world.check_that_it_works();
}

#[test]
fn lies_in_the_transmit_ring_end_this_life() {
    type Lie = fn(&mut MemoryNetback);
    let lies: [Lie; 7] = [
        |back| back.lie_tx(TxResponse { id: 256, status: 0 }),
        |back| back.lie_tx(TxResponse { id: u16::MAX, status: -1 }),
        // Not in flight.
        |back| back.lie_tx(TxResponse { id: 100, status: 0 }),
        // Twice.
        |back| {
            let frame = back.take().unwrap();
            back.complete(frame);
            back.lie_tx(TxResponse { id: 0, status: 0 });
        },
        |back| back.jump_tx(7),
        |back| back.jump_tx(300),
        |back| back.jump_tx(u32::MAX),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let mut world = started();
        lie(&mut world.back);
        world.back.notify();
        expect_new_life(&mut world);
        assert_eq!(world.stats.device_faults.get(), 1, "lie {number}");
        world.check_that_nothing_is_left();
    }
}

#[test]
fn lies_in_the_receive_ring_end_this_life() {
    let lie = |offset: u16, flags: u16, status: i16| {
        move |back: &mut MemoryNetback| {
            back.lie_rx(|request| RxResponse { id: request.id, offset, flags, status });
        }
    };
    type Lie = alloc::boxed::Box<dyn Fn(&mut MemoryNetback)>;
    let lies: [Lie; 9] = [
        alloc::boxed::Box::new(|back| {
            back.lie_rx(|request| RxResponse { id: request.id + 1, offset: 0, flags: 0, status: 60 });
        }),
        alloc::boxed::Box::new(|back| {
            back.lie_rx(|request| RxResponse { id: request.id + 256, offset: 0, flags: 0, status: 60 });
        }),
        alloc::boxed::Box::new(lie(0, 0, 4097)),
        alloc::boxed::Box::new(lie(4095, 0, 2)),
        alloc::boxed::Box::new(lie(u16::MAX, 0, i16::MAX)),
        alloc::boxed::Box::new(|back| {
            for _ in 0..20 {
                back.lie_rx(|request| RxResponse { id: request.id, offset: 0, flags: NETRXF_MORE_DATA, status: 60 });
            }
        }),
        alloc::boxed::Box::new(move |back| {
            lie(0, NETRXF_EXTRA_INFO, 60)(back);
            for _ in 0..30 {
                back.lie_rx_extra(ExtraInfo { kind: 1, flags: 1, gso_size: 9, gso_type: 1, ..ExtraInfo::default() });
            }
        }),
        alloc::boxed::Box::new(|back| back.jump_rx(257)),
        alloc::boxed::Box::new(|back| back.jump_rx(u32::MAX)),
    ];
    for lie in lies {
        let mut world = started();
        lie(&mut world.back);
        world.back.notify();
        expect_new_life(&mut world);
        world.check_that_nothing_is_left();
    }
}

#[test]
fn packets_that_make_no_sense_are_dropped_one_by_one() {
    let mut world = World::connected(NetbackConfig::default());
    let mut bad = 0;
    for round in 0..100 {
        let slot = |back: &mut MemoryNetback, flags: u16, status: i16| {
            assert!(back.lie_rx(|request| RxResponse { id: request.id, offset: 0, flags, status }));
        };
        let back = &mut world.back;
        // A runt, nothing, an error within, a blank checksum of nothing, extra infos of unknown kinds.
        slot(back, 0, 13);
        slot(back, 0, 0);
        slot(back, NETRXF_MORE_DATA, 60);
        slot(back, 0, -1);
        back.deliver(&[&pattern(60, round)], RxChecksum::Unknown, None).unwrap();
        slot(back, NETRXF_CSUM_BLANK, 60);
        slot(back, NETRXF_EXTRA_INFO, 60);
        back.lie_rx_extra(ExtraInfo { kind: 9, ..ExtraInfo::default() });
        slot(back, NETRXF_EXTRA_INFO | NETRXF_MORE_DATA, 60);
        back.lie_rx_extra(ExtraInfo { kind: 1, gso_type: 1, gso_size: 0, ..ExtraInfo::default() });
        slot(back, 0, 60);
        back.notify();
        bad += 6;
        assert_eq!(world.received().len(), 1);
        assert_eq!(world.stats.rx_malformed.get(), bad);
    }
    assert_eq!((world.stats.device_faults.get(), world.rx_pool.in_use()), (0, ENTRIES));
    world.check_that_it_works();
    world.check_that_nothing_is_left();
}

#[test]
fn a_page_that_is_answered_but_still_mapped_is_given_to_nobody() {
    let mut world = started();
    world.back.set_keeps_mappings(true);
    let frames = [world.back.take().unwrap(), world.back.take().unwrap()];
    frames.into_iter().for_each(|frame| world.back.complete(frame));
    world.back.notify();
    assert_eq!(world.net.reclaim(), 1, "it is not believed any more");
    assert_eq!((world.pool.in_use(), world.stats.grants_quarantined.get()), (2, 1));
    world.back.let_go();
    world.back.set_keeps_mappings(false);
    expect_new_life(&mut world);
    assert_eq!((world.pool.in_use(), world.stats.grants_quarantined.get()), (0, 0));

    // A back end that goes without letting go.
    world.send(&world.slices(&[10]), Offload::None).unwrap();
    world.net.flush();
    let frame = world.back.take().unwrap();
    world.back.set_keeps_mappings(true);
    world.back.up(NetOffers::ALL);
    assert_eq!(world.settle().len(), 2);
    assert_eq!((world.pool.in_use(), world.stats.grants_quarantined.get()), (1, 2), "a page and the heads");
    world.back.complete(frame);
    world.back.let_go();
    world.check_that_nothing_is_left();
}

#[test]
fn a_back_end_that_keeps_lying_is_given_up() {
    let mut world = World::connected(NetbackConfig::default());
    for life in 1..=5 {
        world.back.jump_rx(1000);
        world.back.notify();
        world.back.notify_anyway();
        world.awake = true;
        let events = world.settle();
        assert_eq!(events[0], NetEvent::Down);
        assert!(world.received().is_empty());
        assert_eq!(events[1] == NetEvent::Gone, life == 5, "life {life}");
    }
    assert!(!world.net.is_connecting() && !world.net.arm());
    assert_eq!((world.pool.in_use(), world.rx_pool.in_use()), (0, 0));
    world.check_that_nothing_is_left();
}

#[test]
fn a_back_end_that_closes_on_the_way_or_never_goes_on_holds_nobody_up() {
    for state in [BusState::InitWait, BusState::Connected] {
        let mut world = World::new(NetbackConfig::default());
        world.back.set_manners(Manners { closes_before: Some(state), ..Manners::default() });
        world.back.up(NetOffers::ALL);
        world.settle();
        assert!(world.send(&[], Offload::None).is_err());
        world.back.set_manners(Manners::default());
        let is_gone = !world.net.is_connecting();
        world.back.up(NetOffers::ALL);
        let events = world.settle();
        assert!(is_gone || events.contains(&NetEvent::Up(world.net.capabilities())), "{state:?}: {events:?}");
        world.check_that_nothing_is_left();
    }
    for state in [BusState::InitWait, BusState::Connected, BusState::Closing, BusState::Closed] {
        let mut world = World::new(NetbackConfig::default());
        let manners = Manners { stays_in: Some(state), ..Manners::default() };
        world.back.set_manners(manners);
        world.settle();
        world.back.up(NetOffers::ALL);
        world.settle();
        assert!(!world.awake && !world.net.arm(), "asleep, {state:?}");
        world.back.set_manners(Manners::default());
        world.settle();
        assert!(world.back.is_connected(), "{state:?}");
        world.check_that_it_works();
        world.check_that_nothing_is_left();
    }
}

#[test]
fn nonsense_in_the_store_is_no_device() {
    let home = "/local/domain/5/device/vif/0";
    let back = "/local/domain/0/backend/vif/5/0";
    let long = "9".repeat(4000);
    for (node, value) in [
        (format!("{home}/mac"), Some("garbage")),
        (format!("{home}/mac"), Some("ff:ff:ff:ff:ff:ff")),
        (format!("{home}/mac"), None),
        (format!("{home}/mtu"), Some("3")),
        (format!("{home}/mtu"), Some("70000")),
        (format!("{home}/backend"), None),
        (format!("{home}/backend"), Some("/vm/elsewhere")),
        (format!("{home}/backend-id"), Some("-1")),
        (format!("{home}/backend-id"), Some("65536")),
        (format!("{back}/feature-rx-copy"), Some("0")),
        (format!("{back}/feature-rx-copy"), None),
        (format!("{back}/feature-sg"), Some("yes")),
        (format!("{back}/feature-gso-tcpv4"), Some(&long[..])),
    ] {
        let mut world = World::new(NetbackConfig::default());
        match value {
            Some(value) => world.xen.write(&node, value),
            None => world.xen.remove(&node),
        }
        let events = world.settle();
        assert!(!events.iter().any(|event| matches!(event, NetEvent::Up(_))), "{node} {value:?}");
        assert!(world.send(&[], Offload::None).is_err());
        assert!(!world.awake && !world.net.arm(), "{node} {value:?}: asleep");
        world.check_that_nothing_is_left();
    }
    // What is only odd, is not in the way.
    for (node, value) in [(format!("{home}/mtu"), "9000\n"), (format!("{back}/feature-sg"), " 4294967295 ")] {
        let mut world = World::new(NetbackConfig::default());
        world.xen.write(&node, value);
        assert!(matches!(world.settle()[..], [NetEvent::Up(_)]), "{node}");
    }
}

#[test]
fn who_is_refused_by_xen_says_so_or_waits() {
    let xen = crate::rings::xen::memory::MemoryXen::new(5);
    let stats = alloc::rc::Rc::new(crate::stats::Stats::default());
    xen.limit_grant_frames(1);
    let guest = xen.connect(stats.clone());
    assert!(XenNet::new(&guest, "device/vif/0", crate::rings::PagePool::new(1), stats).is_err());
    let mut world = World::new(NetbackConfig::default());
    world.xen.limit_events(3);
    assert!(world.settle().iter().all(|event| *event == NetEvent::Gone));
    world.check_that_nothing_is_left();
}

#[test]
fn any_mixture_of_work_and_lies_ends_well() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let offers = NetOffers { split_event_channels: rng.below(2) > 0, ..NetOffers::ALL };
        let mut world = World::connected(NetbackConfig { offers, ..NetbackConfig::default() });
        world.is_slow = rng.below(2) > 0;
        let mut taken = Vec::new();
        for _ in 0..rng.below(200) {
            let number = rng.next();
            let (low, high) = (number as u16, (number >> 16) as u16);
            match rng.below(24) {
                0..6 => {
                    let slices = if world.pool.available() > 20 { world.slices(&[50, 60]) } else { vec![] };
                    let _ = world.send(&slices, Offload::None);
                    world.net.flush();
                }
                6..10 => {
                    let frame = [headers(Family::Ipv4), pattern(low as usize % 3000, 1)].concat();
                    let _ = world.back.deliver(&[&frame], RxChecksum::Verified, None);
                }
                10..13 => taken.extend(world.back.take()),
                13..16 if !taken.is_empty() => {
                    let frame = taken.swap_remove(rng.below(taken.len() as u64) as usize);
                    world.back.complete(frame);
                }
                16 => world.back.lie_tx(TxResponse { id: low % 300, status: high as i16 % 4 }),
                17 => drop(world.back.lie_rx(|request| {
                    let status = (low % 5000) as i16 - 100;
                    RxResponse {
                        id: request.id + u16::from(low % 5 == 0),
                        offset: high % 4096,
                        flags: high & 15,
                        status,
                    }
                })),
                18 => drop(world.back.lie_rx_extra(ExtraInfo {
                    kind: low as u8 % 4,
                    flags: high as u8 & 1,
                    ..ExtraInfo::default()
                })),
                19 if low % 8 == 0 => world.back.jump_tx(u32::from(high % 3)),
                19 if low % 8 == 1 => world.back.jump_rx(u32::from(high % 3)),
                20 => world.back.set_keeps_mappings(low % 3 == 0),
                21 => world.back.let_go(),
                22 if low % 4 == 0 => world.back.up(offers),
                _ => {}
            }
            if rng.below(3) == 0 {
                world.back.notify();
                world.settle();
                world.received();
            }
            let held = world.rx_pool.in_use();
            assert!(held <= 2 * ENTRIES);
        }
        world.awake = true;
        world.settle();
        world.check_that_nothing_is_left();
    }
}
