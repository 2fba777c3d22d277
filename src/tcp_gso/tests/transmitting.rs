//! What the device can do and takes, packet by packet.

use alloc::vec::Vec;
use smoltcp::time::Duration;

use super::devices::capabilities;
use super::world::{HEAD_BYTES, MSS, SEGMENT, Segment, World, ms, response, total};
use crate::rings::Capabilities;
use crate::tcp_gso::Config;

#[test]
fn nothing_moves_before_the_device_takes_the_frame() {
    let (mut world, mut client) = World::connected();
    world.queue.room = 0;
    world.deliver(client.data(b"700\n"));
    assert!(world.poll().is_empty());
    assert_eq!(world.info().in_flight_bytes, 0);
    assert!(world.stack.next_deadline().is_none_or(|at| at > world.now), "a full ring is no reason to spin");
    world.now += Duration::from_secs(30);
    assert!(world.poll().is_empty());
    assert_eq!(world.stats.tcp_timeouts.get(), 0, "no timer ran");
    world.queue.room = usize::MAX;
    let sent = world.poll();
    assert_eq!(client.take(&sent), response(0, 700));
}

#[test]
fn a_ring_with_room_for_one_serves_connections_in_turn() {
    let mut world = World::plain();
    let mut clients: Vec<_> = (1..=3).map(|port| world.connect(Segment { port, mss: Some(1460), ..SEGMENT })).collect();
    world.queue.room = 0;
    for client in &mut clients {
        world.deliver(client.data(b"20000\n"));
    }
    let mut order = Vec::new();
    for _ in 0..3 {
        world.queue.room = 1;
        let sent = world.poll();
        assert_eq!(sent.len(), 1);
        order.push(clients.iter().position(|client| client.ack == sent[0].seq).unwrap());
    }
    assert_eq!(order, [0, 1, 2]);
}

#[test]
fn a_device_that_goes_down_loses_nothing() {
    let (mut world, mut client) = World::connected();
    let lost = world.exchange(client.data(b"50000\n"));
    assert_eq!(total(&lost), 10 * MSS);
    world.stack.device_down();
    assert!(world.run(Duration::from_secs(500)).is_empty());
    assert_eq!((world.stats.tcp_timeouts.get(), world.app.closed.len()), (0, 0), "no timer counts");
    world.queue.capabilities = Capabilities { tso4: false, ..capabilities() };
    world.stack.device_up(world.queue.capabilities);
    let mut bytes = Vec::new();
    let first = world.run(Duration::from_secs(1));
    assert_eq!(first[0].1.seq, lost[0].seq, "sent again");
    assert!(first.iter().all(|(_, sent)| sent.segment_bytes.is_none()), "as the device now is");
    for (_, sent) in first {
        if sent.seq == client.ack {
            bytes.extend(client.take(&[sent]));
        }
    }
    for _ in 0..1000 {
        let sent = world.exchange(client.segment());
        for sent in sent.into_iter().chain(world.run(ms(300)).into_iter().map(|(_, sent)| sent)) {
            if sent.seq == client.ack {
                bytes.extend(client.take(&[sent]));
            }
        }
    }
    assert!(bytes == response(0, 50_000));
}

#[test]
fn each_offload_that_is_missing_costs_what_it_says() {
    let all = capabilities();
    let bytes = 100_000;
    let variants = [
        (Capabilities { tso4: false, tso6: false, ..all }, 0, Some(MSS)),
        (Capabilities { tso4: false, tso6: false, checksum: false, ..all }, bytes, Some(MSS)),
        (Capabilities { tso4: false, tso6: false, max_slots: 1, ..all }, bytes, Some(MSS)),
        (Capabilities { tso4: false, tso6: false, checksum: false, max_slots: 1, ..all }, bytes, Some(MSS)),
        (Capabilities { max_slots: 1, ..all }, bytes, None),
        (Capabilities { max_slots: 2, ..all }, 0, None),
        (Capabilities { max_slots: 3, head_bytes: 128, ..all }, 0, None),
        (Capabilities { max_frame_bytes: 16_384, ..all }, 0, None),
    ];
    for (capabilities, copied, largest) in variants {
        for is_ipv6 in [false, true] {
            let mut world = World::new(Config::default(), capabilities);
            let mut client = world.connect(Segment { seq: 5, mss: Some(1460), is_ipv6, ..SEGMENT });
            let mut got = Vec::new();
            let mut sent = world.exchange(client.data(alloc::format!("{bytes}\n").as_bytes()));
            while !sent.is_empty() {
                for frame in &sent {
                    assert!(largest.is_none_or(|largest| frame.payload.len() <= largest), "{}", frame.payload.len());
                }
                got.extend(client.take(&sent));
                sent = world.exchange(client.segment());
            }
            assert!(got == response(0, bytes), "{capabilities:?}");
            assert_eq!(world.stats.copied_bytes.get(), copied as u64, "{capabilities:?}");
        }
    }
}

#[test]
fn a_small_mss_and_a_small_mtu_are_kept() {
    let mut world = World::new(Config::default(), Capabilities { mtu_bytes: 1280, ..capabilities() });
    let mut client = world.connect(Segment { seq: 5, mss: Some(1460), is_ipv6: true, ..SEGMENT });
    assert_eq!(world.exchange(client.data(b"9000\n"))[0].segment_bytes, Some(1220));
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 5, timestamp: Some((1, 0)), ..SEGMENT });
    assert_eq!(world.exchange(client.data(b"9000\n"))[0].segment_bytes, Some(536 - 12), "nothing was offered");
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 5, mss: Some(0), ..SEGMENT });
    assert_eq!(world.exchange(client.data(b"9000\n"))[0].segment_bytes, Some(64), "nobody means that");
}

#[test]
fn pressure_bounds_what_is_queued() {
    let (mut world, mut client) = World::connected();
    world.stack.set_pressure(Some(8192));
    world.deliver(client.data(b"500000\n"));
    world.poll();
    assert!(world.info().unacknowledged_bytes < 8192 + 4096);
    let mut most = 0;
    let bytes = {
        let mut bytes = Vec::new();
        let mut sent = world.exchange(client.segment());
        // The first flight.
        let mut first = client.ack;
        core::mem::swap(&mut first, &mut client.ack);
        while bytes.len() < HEAD_BYTES + 500_000 {
            sent.extend(world.run(ms(300)).into_iter().map(|(_, sent)| sent));
            for sent in sent.drain(..) {
                if sent.seq == client.ack {
                    bytes.extend(client.take(&[sent]));
                }
            }
            sent = world.exchange(client.segment());
            most = most.max(world.info().unacknowledged_bytes);
        }
        bytes
    };
    assert!(bytes == response(0, 500_000));
    assert!(most < 8192 + 4096, "{most}");
}

#[test]
fn no_head_page_is_tried_again() {
    let (mut world, mut client) = World::connected();
    let taken: Vec<_> = core::iter::from_fn(|| world.heads.allocate()).collect();
    assert!(world.exchange(client.data(b"10\n")).is_empty());
    assert!(world.run(ms(35)).is_empty());
    drop(taken);
    let sent = world.run(ms(15));
    assert_eq!(client.take(&[sent[0].1.clone()]), response(0, 10));
}

#[test]
fn a_device_that_takes_longer_frames_gets_them_until_a_timer_goes_off() {
    let large = Capabilities { max_frame_bytes: 256 << 10, max_slots: 66, ..capabilities() };
    for is_ipv6 in [false, true] {
        let mut world = World::new(Config { initial_window_segments: 1000, ..Config::default() }, large);
        let mut client = world.connect(Segment { seq: 5, mss: Some(1460), window_scale: Some(8), is_ipv6, ..SEGMENT });
        let sent = world.exchange(client.data(b"1000000\n"));
        let longest = sent.iter().map(|sent| sent.payload.len()).max().unwrap();
        let bound = if is_ipv6 { 65_535 } else { 256 << 10 };
        assert!(longest < bound && longest > bound - 4096, "{longest}");
        assert!(sent.iter().rev().skip(1).all(|sent| sent.payload.len() % (sent.segment_bytes.unwrap() as usize) == 0));
        let mut got = Vec::new();
        // All of it is lost.
        let again = world.run(Duration::from_secs(1));
        got.extend(client.take(&[again[0].1.clone()]));
        let mut sent = world.exchange(client.segment());
        while !sent.is_empty() {
            for sent in sent.drain(..) {
                if sent.seq == client.ack {
                    assert!(sent.payload.len() < 65_535);
                    got.extend(client.take(&[sent]));
                }
            }
            sent = world.exchange(client.segment());
        }
        assert_eq!(got.len(), HEAD_BYTES + 1_000_000);
        assert!(got == response(0, 1_000_000));
        assert_eq!(world.stats.copied_bytes.get(), 0);
    }
}
