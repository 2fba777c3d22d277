//! A store that lies, is slow or says nothing.

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::net::{ENTRIES, World};
use crate::rings::impair::rng::Rng;
use crate::rings::xen::abi::store::{Header, XS_ERROR, XS_READ, XS_WATCH_EVENT};
use crate::rings::xen::memory::NetbackConfig;
use crate::rings::{NetEvent, NetQueue, Offload};

fn message(kind: u32, req_id: u32, len: u32, payload: &[u8]) -> Vec<u8> {
    [Header { kind, req_id, tx_id: 0, len }.as_bytes(), payload].concat()
}

#[test]
fn messages_that_nobody_asked_for_are_passed_over() {
    let mut world = World::new(NetbackConfig::default());
    for (kind, req_id, payload) in [
        (XS_READ, 12345, &b"what"[..]),
        (XS_ERROR, 0, b""),
        (XS_ERROR, 9999, b"ENOENT"),
        (XS_WATCH_EVENT, 0, b""),
        (XS_WATCH_EVENT, 0, b"path"),
        (XS_WATCH_EVENT, 0, b"path\0mc99999\0"),
        (XS_WATCH_EVENT, 0, b"path\0mc-1\0"),
        (XS_WATCH_EVENT, 0, b"\xff\xfe\0\xff\0"),
        (77, 0, b"x"),
    ] {
        world.xen.inject_store(&message(kind, req_id, payload.len() as u32, payload));
    }
    assert_eq!(world.settle(), [NetEvent::Up(world.net.capabilities())]);
    world.check_that_it_works();
    world.check_that_nothing_is_left();
}

#[test]
fn a_store_that_breaks_its_protocol_is_not_asked_again() {
    for lie in 0..4 {
        for connected in [false, true] {
            let mut world = if connected {
                World::connected(NetbackConfig::default())
            } else {
                World::new(NetbackConfig::default())
            };
            match lie {
                0 => world.xen.inject_store(&message(XS_READ, 1, 4097, b"")),
                1 => world.xen.inject_store(&message(XS_WATCH_EVENT, 1, u32::MAX, b"")),
                2 => world.xen.jump_store(1025),
                _ => world.xen.jump_store(u32::MAX),
            }
            let events = world.settle();
            if connected {
                // What works goes on, as long as it can without the store.
                assert_eq!(events, []);
                world.check_that_it_works();
                world.back.jump_tx(1);
                world.back.notify();
                world.awake = true;
                assert_eq!(world.settle(), [NetEvent::Down, NetEvent::Gone]);
            } else {
                assert_eq!(events, [NetEvent::Gone], "lie {lie}");
            }
            assert!(!world.net.is_connecting() && !world.net.arm());
            assert!(world.send(&[], Offload::None).is_err());
            if connected {
                // Nobody can tell whether the back end has let go of them.
                assert!(world.xen.grants() > ENTRIES && world.rx_pool.in_use() == ENTRIES);
            } else {
                world.check_that_nothing_is_left();
            }
        }
    }
}

#[test]
fn a_store_that_does_not_answer_holds_nobody_up() {
    for requests in 1..40 {
        let mut world = World::new(NetbackConfig::default());
        let mut rounds = 0;
        // So many are answered, and then one is not.
        while rounds < requests && world.settle_once() {
            rounds += 1;
        }
        world.xen.ignore_next(1);
        let events = world.settle();
        assert!(!world.awake && !world.net.arm(), "asleep");
        assert!(events.is_empty() || matches!(events[..], [NetEvent::Up(_)]), "{events:?}");
        world.check_that_nothing_is_left();
    }
}

impl World {
    /// One round of everybody's. False if nobody had anything to do.
    fn settle_once(&mut self) -> bool {
        let moved = self.xen.step() | self.back.step();
        let woken = self.xen.woken() || core::mem::take(&mut self.awake);
        if woken {
            while self.net.event().is_some() {}
            self.awake = self.net.arm();
        }
        moved || woken
    }
}

#[test]
fn any_bytes_from_the_store_are_survived() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(NetbackConfig::default());
        for _ in 0..rng.below(8) {
            world.settle_once();
        }
        let kind = [XS_READ, XS_ERROR, XS_WATCH_EVENT, rng.next() as u32][rng.below(4) as usize];
        let payload: Vec<u8> = (0..rng.below(80)).map(|_| rng.next() as u8).collect();
        let len = if rng.below(2) == 0 { payload.len() as u32 } else { rng.below(6000) as u32 };
        world.xen.inject_store(&message(kind, rng.below(12) as u32, len, &payload));
        world.settle();
        assert!(!world.awake);
        world.check_that_nothing_is_left();
    }
}
