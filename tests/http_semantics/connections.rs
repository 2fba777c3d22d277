//! What a connection does over time: limits, back-pressure, half-close, lingering.

use minicache::rings::memory::Pace;
use smoltcp::time::Duration;

use crate::case::{get, hello, with};
use crate::site::{BIG_BYTES, big};
use crate::{World, world};

const HELLO: &[u8] = b"hello shfs\n";

fn sent_nothing(world: &mut World, connection: usize) -> bool {
    world.take_sent(connection).is_empty()
}

#[test]
fn a_head_must_be_complete_ten_seconds_after_its_first_byte() {
    let mut world = world();
    let connection = world.connect();
    world.wait_s(connection, 14);
    for byte in b"GET /hello" {
        world.deliver(connection, &[*byte]);
        assert!(sent_nothing(&mut world, connection));
        world.wait(connection, Duration::from_millis(950));
    }
    world.wait_s(connection, 1);
    let responses = world.responses(connection);
    assert_eq!(responses.len(), 1);
    assert_eq!((responses[0].status, responses[0].closes()), (408, true));
    assert!(world.connections[connection].wire.closed);
    assert_eq!(world.stats.http_timeouts.get(), 1);
}

#[test]
fn a_silent_connection_is_closed_and_then_reset() {
    let mut world = world();
    let connection = world.connect();
    world.wait_s(connection, 14);
    assert!(!world.connections[connection].wire.closed);
    world.wait_s(connection, 1);
    assert!(world.connections[connection].wire.closed && sent_nothing(&mut world, connection));
    world.wait_s(connection, 9);
    assert!(world.lives(connection));
    world.wait_s(connection, 1);
    assert!(world.connections[connection].wire.reset && !world.lives(connection));
}

#[test]
fn a_resting_connection_is_closed_after_twenty_seconds() {
    let mut world = world();
    let connection = world.connect();
    for _ in 0..5 {
        assert_eq!(world.ask(connection, hello(""))[0].body, HELLO);
        world.wait_s(connection, 19);
    }
    assert!(!world.connections[connection].wire.closed);
    world.wait_s(connection, 1);
    assert!(world.connections[connection].wire.closed && sent_nothing(&mut world, connection));
}

#[test]
fn a_peer_that_reads_nothing_is_reset() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.deliver(connection, get("/big.bin").as_bytes());
    assert!(world.pool.shared() > 0);
    world.wait_s(connection, 29);
    assert!(world.lives(connection));
    world.wait_s(connection, 1);
    assert!(world.connections[connection].wire.reset);
    assert_eq!((world.pool.shared(), world.stats.http_timeouts.get()), (0, 1));
}

#[test]
fn a_peer_that_reads_too_slowly_is_reset() {
    for (bytes_each_second, survives) in [(1, false), (250, false), (260, true)] {
        let mut world = world();
        let connection = world.connect();
        world.connections[connection].acknowledges = false;
        world.connections[connection].wire.capacity_bytes = 50_000;
        world.deliver(connection, get("/big.bin").as_bytes());
        for _ in 0..200 {
            world.acknowledge(connection, bytes_each_second);
            world.wait_s(connection, 1);
        }
        assert_eq!(world.lives(connection), survives, "{bytes_each_second} bytes a second");
    }
}

#[test]
fn a_slow_reader_gets_its_rest_before_it_counts_as_idle() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.deliver(connection, get("/big.bin").as_bytes());
    for _ in 0..100 {
        world.wait_s(connection, 1);
        world.acknowledge(connection, BIG_BYTES / 100 + 10);
    }
    world.connections[connection].acknowledges = true;
    assert_eq!(world.responses(connection)[0].body, big());
    world.wait_s(connection, 15);
    assert_eq!(world.ask(connection, hello(""))[0].body, HELLO);
}

#[test]
fn nothing_is_taken_while_a_response_is_on_its_way() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.connections[connection].wire.capacity_bytes = 20_000;
    let pipelined = [get("/big.bin"), hello(""), get("/big.bin"), get("/missing"), hello("")].concat();
    world.deliver(connection, pipelined.as_bytes());
    assert_eq!(world.connections[connection].unread.len(), pipelined.len() - get("/big.bin").len());
    let mut most_pinned = 0;
    while world.connections[connection].wire.queue_bytes() > 0 {
        most_pinned = most_pinned.max(world.pool.shared());
        world.acknowledge(connection, 7_001);
        world.settle();
    }
    assert!((4..=10).contains(&most_pinned), "{most_pinned} pages were pinned");
    let responses = world.responses(connection);
    let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    assert_eq!(statuses, [200, 200, 200, 404, 200]);
    assert!(responses[0].body == big() && responses[2].body == big() && responses[4].body == HELLO);
    assert!(world.connections[connection].unread.is_empty());
}

#[test]
fn a_full_send_queue_holds_small_requests_back_too() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.connections[connection].wire.capacity_bytes = 2_000;
    world.deliver(connection, hello("").repeat(100).as_bytes());
    assert!(world.connections[connection].wire.queue_bytes() < 2_600);
    world.connections[connection].acknowledges = true;
    world.settle();
    assert_eq!(world.responses(connection).len(), 100);
}

#[test]
fn without_head_pages_requests_wait() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].wire.head_pages = 0;
    let pipelined = [hello(""), get("/missing"), get("/docs"), get("/empty"), "junk\r\n\r\n".into()].concat();
    world.deliver(connection, pipelined.as_bytes());
    for _ in 0..5 {
        assert!(sent_nothing(&mut world, connection));
        world.connections[connection].wire.head_pages = 1;
        world.writable(connection);
        world.settle();
        assert_eq!(world.responses(connection).len(), 1);
    }
    assert!(world.connections[connection].wire.closed);
}

#[test]
fn without_head_pages_for_long_the_connection_ends() {
    for request in [hello(""), get("/missing")] {
        let mut world = world();
        let connection = world.connect();
        world.connections[connection].wire.head_pages = 0;
        world.deliver(connection, request.as_bytes());
        world.wait_s(connection, 60);
        assert!(!world.lives(connection) && sent_nothing(&mut world, connection));
    }
}

#[test]
fn after_a_half_close_what_was_asked_is_answered() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.connections[connection].wire.capacity_bytes = 20_000;
    world.deliver(connection, [get("/big.bin"), hello(""), get("/docs/")].concat().as_bytes());
    world.end(connection);
    assert!(!world.connections[connection].wire.closed);
    world.connections[connection].acknowledges = true;
    world.settle();
    let responses = world.responses(connection);
    assert_eq!(responses.iter().map(|response| response.body.len()).collect::<Vec<_>>(), [BIG_BYTES, 11, 11]);
    assert!(world.connections[connection].wire.closed && !world.lives(connection));
}

#[test]
fn after_a_half_close_a_part_of_a_head_is_refused() {
    for (sent, expected) in [
        ("", vec![]),
        (&hello("")[..], vec![200]),
        ("GET /hello.txt HTTP/1.1\r\nHost: a\r\n", vec![400]),
        (&format!("{}GET /", hello("")), vec![200, 400]),
        (&hello("Content-Length: 10\r\n"), vec![200]),
    ] {
        let mut world = world();
        let connection = world.connect();
        world.deliver(connection, sent.as_bytes());
        world.end(connection);
        let statuses: Vec<u16> = world.responses(connection).iter().map(|response| response.status).collect();
        assert_eq!(statuses, expected, "{sent:?}");
        assert!(world.connections[connection].wire.closed && !world.lives(connection), "{sent:?}");
    }
}

#[test]
fn what_arrives_behind_a_refused_request_is_dropped_within_limits() {
    let mut world = world();
    let connection = world.connect();
    let refused = world.ask(connection, with("POST", "/upload", "Content-Length: 3000000\r\n"));
    assert_eq!((refused[0].status, refused[0].closes()), (405, true));
    assert!(world.connections[connection].wire.closed);
    for _ in 0..16 {
        world.deliver(connection, &[b'x'; 1 << 16]);
        assert!(world.connections[connection].unread.is_empty() && world.lives(connection));
    }
    world.deliver(connection, b"x");
    assert!(world.connections[connection].wire.reset);

    let connection = world.connect();
    world.deliver(connection, with("POST", "/upload", "Content-Length: 3000000\r\n").as_bytes());
    for _ in 0..12 {
        world.deliver(connection, b"x");
        world.wait_s(connection, 1);
    }
    assert!(!world.lives(connection));
}

#[test]
fn a_body_is_read_while_the_response_is_on_its_way() {
    let mut world = world();
    let connection = world.connect();
    world.connections[connection].acknowledges = false;
    world.connections[connection].wire.capacity_bytes = 20_000;
    world.deliver(connection, with("GET", "/big.bin", "Content-Length: 60000\r\n").as_bytes());
    for _ in 0..6 {
        world.deliver(connection, &[b'x'; 10_000]);
        assert!(world.connections[connection].unread.is_empty());
    }
    world.deliver(connection, hello("").as_bytes());
    assert_eq!(world.connections[connection].unread.len(), hello("").len());
    world.connections[connection].acknowledges = true;
    world.settle();
    let responses = world.responses(connection);
    assert_eq!(responses.len(), 2);
    assert!(responses[0].body == big());
}

#[test]
fn a_body_that_never_comes_ends_the_connection() {
    let mut world = world();
    let connection = world.connect();
    assert_eq!(world.ask(connection, hello("Content-Length: 5\r\n") + "1234")[0].body, HELLO);
    world.wait_s(connection, 20);
    assert!(world.connections[connection].wire.closed && sent_nothing(&mut world, connection));
}

#[test]
fn a_malformed_or_endless_chunked_body_ends_the_connection() {
    let request = with("GET", "/big.bin", "Transfer-Encoding: chunked\r\n");
    for body in ["nonsense\r\n".to_owned(), "1\r\nxx".to_owned(), format!("1;{}", "x".repeat(70_000))] {
        // Behind the answer, and before it is complete.
        for capacity_bytes in [1 << 20, 20_000] {
            let mut world = world();
            let connection = world.connect();
            world.connections[connection].acknowledges = false;
            world.connections[connection].wire.capacity_bytes = capacity_bytes;
            world.deliver(connection, [&request, &body[..], &hello("")].concat().as_bytes());
            world.connections[connection].acknowledges = true;
            world.settle();
            let responses = world.responses(connection);
            assert_eq!(responses.len(), 1);
            assert!(responses[0].body == big() && world.connections[connection].wire.closed);
            assert!(world.connections[connection].unread.is_empty());
        }
    }
}

#[test]
fn a_reset_by_the_peer_lets_everything_go() {
    let mut world = world();
    for cut in 0..3 {
        let connection = world.connect();
        world.connections[connection].acknowledges = false;
        world.connections[connection].wire.capacity_bytes = 20_000 * cut;
        world.deliver(connection, get("/big.bin").as_bytes());
        world.abort(connection);
        world.settle();
    }
    assert_eq!(world.pool.shared(), 0);
    // While it waits for the disk.
    world.disk.set_pace(Pace::Held);
    let connection = world.connect();
    world.deliver(connection, hello("").as_bytes());
    world.abort(connection);
    world.disk.set_pace(Pace::AtOnce);
    world.settle();

    let served = world.server.served().unwrap();
    let id = served.volume.directory.by_name(b"big.bin").unwrap();
    let counters = served.object_stats(id);
    assert_eq!((counters.open(), counters.hits(), counters.completed()), (0, 2, 0));
}
