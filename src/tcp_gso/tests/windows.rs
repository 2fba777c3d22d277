//! The peer's window and ours, packet by packet.

use alloc::vec::Vec;
use smoltcp::time::Duration;

use super::world::{HEAD_BYTES, MSS, SEGMENT, Segment, World, ms, response, total};
use crate::tcp_gso::Config;

#[test]
fn unread_bytes_close_the_window_which_never_shrinks_and_reading_opens_it() {
    let (mut world, mut client) = World::connected();
    let capacity = Config::default().receive_buffer_bytes;
    world.session().stubborn = true;
    let mut edge = None;
    let chunk = [b'1'; 1000];
    for _ in 0..20 {
        let acks = {
            world.deliver(client.data(&chunk));
            world.run(ms(50))
        };
        let ack = &acks.last().unwrap().1;
        let new_edge = ack.ack.unwrap().wrapping_add(ack.window.into());
        assert!(edge.is_none_or(|edge: u32| new_edge.wrapping_sub(edge) as i32 >= 0), "the window shrank");
        edge = Some(new_edge);
    }
    // What was beyond the window was not taken, and the peer sends it again.
    let info = world.info();
    assert_eq!(info.unread_bytes, capacity);
    client.seq = edge.unwrap();
    let probe = world.exchange(Segment { payload: b"1", ..client.segment() });
    assert_eq!((probe[0].ack, probe[0].window), (edge, 0));
    // The acknowledgement that a peer sends meanwhile counts, as does a shut window's data.
    world.session().stubborn = false;
    let refused = world.exchange(Segment { payload: b"\n", ..client.segment() });
    assert_eq!(refused[0].window, 0);
    // An application that reads at last.
    world.session().stubborn = true;
    world.session().seen.clear();
    let id = world.info().id;
    world.stack.wake(id);
    assert!(world.poll().is_empty());
}

#[test]
fn a_window_that_reading_opens_is_announced() {
    let (mut world, mut client) = World::connected();
    world.exchange(client.data(b"W\n"));
    let capacity = Config::default().receive_buffer_bytes;
    let mut requests = Vec::new();
    while requests.len() + 2 <= capacity {
        requests.extend_from_slice(b"x\n");
    }
    for chunk in requests.chunks(1000) {
        world.deliver(client.data(chunk));
    }
    let acks = world.run(ms(50));
    assert!(acks.last().unwrap().1.window < 1460, "the window is (nearly) shut");
    let id = world.info().id;
    world.session().woken = true;
    world.stack.wake(id);
    let sent = world.poll();
    assert!(sent.iter().any(|sent| sent.window as usize >= capacity / 2 && sent.len() == 0), "{sent:?}");
    assert_eq!(world.info().unread_bytes, 0);
}

#[test]
fn a_shut_window_is_probed_with_one_byte_at_growing_distances() {
    let (mut world, mut client) = World::connected();
    client.template.window = 0;
    assert!(world.exchange(client.data(b"3000\n")).iter().all(|sent| sent.len() == 0));
    let una = client.ack;
    let mut at_ms = Vec::new();
    let mut time_ms = 0;
    for _ in 0..5 {
        let sent = loop {
            let sent = world.run(ms(10));
            time_ms += 10;
            if let Some((_, sent)) = sent.into_iter().find(|(_, sent)| sent.len() > 0) {
                break sent;
            }
        };
        at_ms.push(time_ms);
        assert_eq!((sent.seq, sent.len(), sent.payload[0]), (una, 1, response(0, 3000)[0]));
        // The peer says again that its window is shut.
        assert!(world.exchange(client.segment()).is_empty());
    }
    let gaps: Vec<u64> = at_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1].abs_diff(2 * pair[0]) <= 20), "{at_ms:?}");
    assert_eq!((world.stats.tcp_window_probes.get(), world.stats.tcp_timeouts.get()), (5, 0));
    assert_eq!(world.info().in_flight_bytes, 0, "a probe is not in flight");
    // The peer takes the probe's byte and opens.
    client.ack = client.ack.wrapping_add(1);
    client.template.window = 0xffff;
    let mut bytes = alloc::vec![response(0, 3000)[0]];
    world.deliver(client.segment());
    bytes.extend(client.drain(&mut world));
    assert!(bytes == response(0, 3000));
    assert_eq!(world.stats.tcp_retransmitted_bytes.get(), 0);
}

#[test]
fn a_window_that_opens_without_the_probe_is_used_at_once() {
    let (mut world, mut client) = World::connected();
    client.template.window = 0;
    world.exchange(client.data(b"3000\n"));
    world.run(Duration::from_secs(3));
    assert!(world.stats.tcp_window_probes.get() > 0);
    client.template.window = 0xffff;
    let sent = world.exchange(client.segment());
    assert_eq!(client.take(&sent), response(0, 3000), "from the probed byte on");
}

#[test]
fn waiting_for_a_window_does_not_make_the_retransmission_timer_slow() {
    let (mut world, mut client) = World::connected();
    client.template.window = 0;
    world.exchange(client.data(b"3000\n"));
    world.run(Duration::from_secs(60));
    client.template.window = 0xffff;
    let lost = world.exchange(client.segment());
    assert_eq!(total(&lost), HEAD_BYTES + 3000);
    let again = world.run(ms(500));
    assert!(!again.is_empty() && again[0].1.seq == lost[0].seq, "{again:?}");
}

#[test]
fn a_sliver_of_window_is_not_used_until_the_probe_timer() {
    let (mut world, mut client) = World::connected();
    client.template.window = 20_000;
    let sent = world.exchange(client.data(b"100000\n"));
    client.take(&sent);
    client.template.window = 100;
    assert!(world.exchange(client.segment()).is_empty());
    let sent = world.run(Duration::from_secs(1));
    assert_eq!(sent[0].1.len(), 100, "overridden at last");
    // A peer whose window never was larger is served what it offers.
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 5, window: 300, mss: Some(1460), ..SEGMENT });
    client.template.window = 300;
    let sent = world.exchange(client.data(b"1000\n"));
    assert_eq!(sent[0].len(), 300);
    let mut bytes = client.take(&sent);
    world.deliver(client.segment());
    bytes.extend(client.drain(&mut world));
    assert!(bytes == response(0, 1000));
}

#[test]
fn window_scale_counts_except_in_the_syn() {
    let mut world = World::plain();
    let syn = Segment { seq: 5, window: 100, window_scale: Some(4), mss: Some(1460), ..SEGMENT };
    let mut client = world.connect(syn);
    client.template.window = 500;
    let sent = world.exchange(client.data(b"100000\n"));
    assert_eq!(world.info().window_bytes, 8000);
    assert_eq!(total(&sent), 5 * MSS, "whole segments");
}
