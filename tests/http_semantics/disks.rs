//! Disks that are slow, fail and go away under responses; volumes that are replaced; caches that are too small.

use std::rc::Rc;

use minicache::http::Config;
use minicache::rings::BlockError;
use minicache::rings::memory::Pace;
use proptest::prelude::*;

use crate::case::{get, hello, with};
use crate::site::{self, BIG_BYTES, big};
use crate::world;
use crate::world::{World, mount};

const HELLO: &[u8] = b"hello shfs\n";

#[test]
fn nothing_is_said_before_the_disk_has_answered() {
    let mut world = world();
    world.disk.set_pace(Pace::Held);
    let connection = world.connect();
    world.deliver(connection, (hello("") + &get("/docs/")).as_bytes());
    assert!(world.take_sent(connection).is_empty());
    // What needs no disk is answered at once, on other connections.
    let other = world.connect();
    assert_eq!(world.ask(other, get("/missing"))[0].status, 404);
    world.disk.release(usize::MAX);
    world.settle();
    assert_eq!(world.responses(connection)[0].body, HELLO);
    world.disk.release(usize::MAX);
    world.settle();
    assert_eq!(world.responses(connection)[0].body, b"<p>docs</p>");
}

#[test]
fn a_disk_that_fails_at_once_is_an_error_and_no_fact() {
    let mut world = world();
    let connection = world.connect();
    world.disk.fail_next(u32::MAX);
    let responses = world.ask(connection, hello(""));
    assert_eq!((responses[0].status, responses[0].closes()), (500, false));
    world.disk.fail_next(0);
    assert_eq!(world.ask(connection, hello(""))[0].body, HELLO);
    assert_eq!((world.stats.http_5xx.get(), world.stats.http_2xx.get(), world.stats.http_aborted.get()), (1, 1, 0));
}

#[test]
fn an_object_that_changed_before_it_was_sent_is_sent_as_it_is_now() {
    let mut world = world();
    world.server.set_renewable();
    let (connection, other) = (world.connect(), world.connect());
    world.disk.set_failure(BlockError::Changed);
    world.disk.fail_next(u32::MAX);
    assert!(world.ask(connection, hello("")).is_empty(), "it waits for the new volume");
    assert!(world.server.take_stale() && !world.server.take_stale());
    // What the head would say of a part may not be true of the new object.
    assert_eq!(world.ask(other, hello("Range: bytes=0-3\r\n"))[0].status, 500);
    world.disk.fail_next(0);
    let volume = mount(&mut world.disks);
    world.server.set_volume(Some(volume)).unwrap();
    world.settle();
    assert_eq!(world.responses(connection)[0].body, HELLO);
}

#[test]
fn an_object_that_keeps_changing_is_an_error() {
    let mut world = world();
    let connection = world.connect();
    world.disk.set_failure(BlockError::Changed);
    world.disk.fail_next(u32::MAX);
    assert_eq!(world.ask(connection, hello(""))[0].status, 500, "nobody will bring a new volume");
    world.server.set_renewable();
    assert!(world.ask(connection, hello("")).is_empty());
    let mut renew = || {
        world.disk.fail_next(0);
        let volume = mount(&mut world.disks);
        world.disk.fail_next(u32::MAX);
        world.server.set_volume(Some(volume)).unwrap();
        world.settle();
        world.responses(connection)
    };
    assert!(renew().is_empty(), "it may change once more while it is read");
    let status = (0..100).find_map(|_| Some(renew().first()?.status));
    assert_eq!(status, Some(500), "but not for ever");
}

#[test]
fn a_disk_that_fails_later_is_a_reset() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.connections[connection].wire.capacity_bytes = 20_000;
    world.disk.set_pace(Pace::Held);
    world.deliver(connection, get("/big.bin").as_bytes());
    world.disk.release(1);
    world.settle();
    world.disk.fail_next(u32::MAX);
    world.disk.set_pace(Pace::AtOnce);
    world.connections[connection].acknowledges = true;
    world.settle();
    assert!(world.connections[connection].wire.reset && !world.connections[connection].wire.closed);
    let sent = world.take_sent(connection);
    assert!(sent.starts_with(b"HTTP/1.1 200 OK\r\n") && sent.len() < BIG_BYTES);
    assert_eq!((world.stats.http_aborted.get(), world.pool.shared()), (1, 0));
}

#[test]
fn a_silent_disk_is_waited_for_within_limits() {
    let mut world = world();
    world.disk.set_pace(Pace::Held);
    let (before, after) = (world.connect(), world.connect());
    world.deliver(before, hello("").as_bytes());
    world.wait_s(before, 29);
    assert!(world.take_sent(before).is_empty());
    world.wait_s(before, 1);
    let responses = world.responses(before);
    assert_eq!((responses[0].status, responses[0].field("Retry-After")), (503, Some("2")));
    // The connection goes on, and a late answer of the disk is of no harm.
    world.disk.set_pace(Pace::AtOnce);
    world.settle();
    assert!(world.take_sent(before).is_empty());
    assert_eq!(world.ask(before, hello(""))[0].body, HELLO);

    world.disk.set_pace(Pace::Held);
    world.deliver(after, get("/big.bin").as_bytes());
    world.disk.release(1);
    world.settle();
    world.wait_s(after, 60);
    assert!(world.connections[after].wire.reset);
    assert_eq!(world.stats.http_aborted.get(), 1);
}

#[test]
fn a_reader_is_not_blamed_for_a_slow_disk() {
    let mut world = world();
    world.disk.set_pace(Pace::Held);
    let connection = world.connect();
    world.deliver(connection, get("/big.bin").as_bytes());
    for _ in 0..200 {
        world.wait_s(connection, 20);
        world.disk.release(1);
        world.settle();
    }
    assert_eq!(world.responses(connection)[0].body, big());
    assert_eq!(world.stats.http_timeouts.get(), 1, "it rested in the end");
}

#[test]
fn a_cache_in_use_is_waited_for_within_limits() {
    // Room for three chunks.
    let mut world = World::new(site::disk(), 6, Config::default());
    let greedy = world.connect();
    world.connections[greedy].acknowledges = false;
    world.deliver(greedy, get("/big.bin").as_bytes());
    let connection = world.connect();
    world.deliver(connection, hello("").as_bytes());
    assert!(world.take_sent(connection).is_empty());
    world.wait_s(connection, 5);
    let responses = world.responses(connection);
    assert_eq!((responses[0].status, responses[0].field("Retry-After")), (503, Some("2")));
    world.deliver(connection, hello("").as_bytes());
    world.connections[greedy].acknowledges = true;
    world.settle();
    assert_eq!(world.responses(connection)[0].body, HELLO);
    assert_eq!(world.responses(greedy)[0].body, big());
}

#[test]
fn who_gives_up_waiting_for_memory_wants_none() {
    for gives_up in [true, false] {
        let mut world = World::new(site::disk(), 6, Config::default());
        let greedy = world.connect();
        world.connections[greedy].acknowledges = false;
        world.deliver(greedy, with("GET", "/big.bin", "Range: bytes=3192-27767\r\n").as_bytes());
        assert_eq!(world.responses(greedy)[0].body.len(), 6 * 4096);
        assert!(!world.server.cache().starved());
        let connection = world.connect();
        world.deliver(connection, hello("").as_bytes());
        assert!(world.server.cache().starved());
        if gives_up {
            world.wait_s(connection, 5);
            assert_eq!(world.responses(connection)[0].status, 503);
        } else {
            world.abort(connection);
        }
        assert!(!world.server.cache().starved());
    }
}

#[test]
fn a_time_is_no_strong_validator_within_its_second() {
    let mut world = world();
    let connection = world.connect();
    let conditional = hello(&format!("Range: bytes=0-1\r\nIf-Range: {}\r\n", site::MODIFIED));
    for (unix_s, status) in [(1_700_000_001, 200), (1_700_000_002, 206)] {
        world.server.tick(unix_s);
        assert_eq!(world.ask(connection, &conditional)[0].status, status);
    }
}

#[test]
fn a_volume_that_is_replaced_serves_until_its_responses_are_complete() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.connections[connection].wire.capacity_bytes = 20_000;
    world.deliver(connection, (get("/big.bin") + &hello("")).as_bytes());
    let old = Rc::downgrade(&world.server.served().unwrap());
    world.server.set_volume(None).unwrap();
    let other = world.connect();
    let responses = world.ask(other, hello(""));
    assert_eq!(
        (responses[0].status, responses[0].field("Retry-After"), responses[0].closes()),
        (503, Some("2"), false)
    );
    let volume = mount(&mut world.disks);
    world.server.set_volume(Some(volume)).unwrap();
    assert_eq!(world.ask(other, hello(""))[0].body, HELLO);

    assert!(old.upgrade().is_some());
    world.connections[connection].acknowledges = true;
    world.settle();
    let responses = world.responses(connection);
    assert!(responses[0].body == big() && responses[1].body == HELLO);
    world.server.tick(crate::world::NOW_UNIX_S + 1);
    assert!(old.upgrade().is_none());
    world.server.set_volume(None).unwrap();
    assert_eq!(world.pool.in_use(), 0, "its chunks have gone with it");
}

#[test]
fn without_a_clock_there_is_no_date() {
    let mut world = world();
    world.server.tick(0);
    let connection = world.connect();
    let response = &world.ask(connection, hello("If-Modified-Since: Tue, 14 Nov 2023 22:13:22 GMT\r\n"))[0];
    assert_eq!((response.status, response.field("Date"), response.field("Last-Modified")), (200, None, None));
}

#[test]
fn each_object_counts_its_requests() {
    let mut world = world();
    let connection = world.connect();
    for request in
        [hello(""), hello("Range: bytes=0-1\r\n"), with("HEAD", "/hello.txt", ""), get("/empty"), get("/empty")]
    {
        world.deliver(connection, request.as_bytes());
    }
    let served = world.server.served().unwrap();
    let counters = |name: &str| served.object_stats(served.volume.directory.by_name(name.as_bytes()).unwrap());
    assert_eq!((counters("hello.txt").hits(), counters("hello.txt").completed()), (2, 2));
    assert_eq!((counters("empty").hits(), counters("empty").completed()), (2, 2));
    assert_eq!(world.stats.http_body_bytes.get(), 13);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Many connections, a small cache, a disk that dawdles and sometimes fails, peers that read in odd pieces: each
    /// response is exact, or its connection is reset.
    #[test]
    fn bodies_are_exact_or_missing(
        seed in any::<u64>(),
        cache_pages in 12usize..60,
        fails in 0u32..40,
        plans in proptest::collection::vec((0usize..BIG_BYTES, 1usize..BIG_BYTES, 5_000usize..80_000, 700usize..40_000), 1..12),
    ) {
        let mut world = World::new(site::disk(), cache_pages, Config::default());
        world.disk.set_pace(Pace::Delayed { most_polls: 1 + (seed % 7) as u32 });
        world.disk.set_shuffled(seed % 2 == 0);
        world.disk.fail_one_in(if fails < 20 { 0 } else { fails });
        let big = big();
        let mut expected = Vec::new();
        for &(first, length, capacity_bytes, _) in &plans {
            let connection = world.connect();
            world.connections[connection].acknowledges = false;
            world.connections[connection].wire.capacity_bytes = capacity_bytes;
            let last = (first + length - 1).min(BIG_BYTES - 1);
            let range = with("GET", "/big.bin", &format!("Range: bytes={first}-{last}\r\n"));
            world.deliver(connection, (range + &hello("")).as_bytes());
            expected.push(&big[first..=last]);
        }
        for _ in 0..500 {
            for (connection, plan) in plans.iter().enumerate() {
                world.acknowledge(connection, plan.3);
            }
            world.settle();
        }
        for (connection, expected) in expected.into_iter().enumerate() {
            let wire = &world.connections[connection].wire;
            if wire.reset {
                prop_assert!(fails >= 20);
                continue;
            }
            let responses = world.responses(connection);
            prop_assert_eq!(responses.len(), 2);
            for (response, body) in responses.iter().zip([expected, HELLO]) {
                prop_assert!(response.body == body && response.status != 500 || response.status == 500 && fails >= 20);
            }
        }
        prop_assert_eq!(world.pool.shared(), 0);
    }
}
