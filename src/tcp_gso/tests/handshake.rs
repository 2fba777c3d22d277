//! The handshake and its limits, packet by packet.

use alloc::vec::Vec;
use smoltcp::time::Duration;
use smoltcp::wire::TcpControl;

use super::devices::capabilities;
use super::world::{SEGMENT, Segment, World};
use crate::tcp_gso::Config;

#[test]
fn a_syn_ack_offers_what_the_syn_offered_and_no_more() {
    for (is_ipv6, our_mss) in [(false, 1460), (true, 1440)] {
        let mut world = World::plain();
        let syn = Segment { control: TcpControl::Syn, seq: 7, is_ipv6, ..SEGMENT };
        let bare = world.exchange(Segment { port: 1, ..syn });
        assert_eq!((bare[0].control, bare[0].ack, bare[0].mss), (TcpControl::Syn, Some(8), Some(our_mss)));
        assert_eq!((bare[0].window_scale, bare[0].sack_permitted, bare[0].timestamp), (None, false, None));
        let full = world.exchange(Segment {
            port: 2,
            window_scale: Some(7),
            sack_permitted: true,
            timestamp: Some((77, 0)),
            mss: Some(1460),
            ..syn
        });
        assert_eq!((full[0].window_scale, full[0].sack_permitted), (Some(0), true));
        assert_eq!(full[0].timestamp.map(|t| t.1), Some(77));
        assert_eq!(full[0].window as usize, Config::default().receive_buffer_bytes);
        assert_ne!(bare[0].seq, full[0].seq);
    }
}

#[test]
fn a_lost_syn_ack_is_repeated_and_a_repeated_syn_answered() {
    let mut world = World::plain();
    let syn = Segment { control: TcpControl::Syn, seq: 7, mss: Some(1460), ..SEGMENT };
    let first = world.exchange(syn);
    let again = world.exchange(syn);
    assert_eq!((again.len(), again[0].seq), (1, first[0].seq));
    let later = world.run(Duration::from_secs(100));
    let delays: Vec<u64> = later.iter().map(|(delay, _)| *delay).collect();
    assert_eq!(delays, [1000, 3000, 7000, 15_000]);
    assert_eq!(world.stats.connections_half_open_expired.get(), 1);
    assert_eq!(world.stack.next_deadline(), None);
}

#[test]
fn an_unexpected_acknowledgement_in_the_handshake_is_reset() {
    let mut world = World::plain();
    let reply = world.exchange(Segment { control: TcpControl::Syn, seq: 7, ..SEGMENT });
    let wrong = reply[0].seq.wrapping_add(2);
    let replies = world.exchange(Segment { seq: 8, ack: Some(wrong), ..SEGMENT });
    assert_eq!((replies.len(), replies[0].control, replies[0].seq), (1, TcpControl::Rst, wrong));
    let right = world.exchange(Segment { seq: 8, ack: Some(reply[0].seq.wrapping_add(1)), ..SEGMENT });
    assert!(right.is_empty());
    assert_eq!(world.info().state, "ESTABLISHED");
}

#[test]
fn a_reset_or_a_new_syn_ends_a_handshake() {
    let mut world = World::plain();
    world.exchange(Segment { control: TcpControl::Syn, seq: 7, ..SEGMENT });
    world.exchange(Segment { control: TcpControl::Rst, seq: 9, ..SEGMENT });
    let again = world.exchange(Segment { control: TcpControl::Syn, seq: 100, ..SEGMENT });
    assert_eq!(again[0].ack, Some(101), "the peer began anew");
    world.exchange(Segment { control: TcpControl::Rst, seq: 101, ..SEGMENT });
    assert!(world.run(Duration::from_secs(10)).is_empty(), "nothing is repeated");
}

#[test]
fn a_full_syn_queue_drops_its_oldest() {
    let mut world = World::new(Config { syn_backlog: 4, ..Config::default() }, capabilities());
    let mut first = None;
    for port in 1..=5 {
        let reply = world.exchange(Segment { control: TcpControl::Syn, seq: 7, port, ..SEGMENT });
        first.get_or_insert(reply[0].seq.wrapping_add(1));
    }
    let replies = world.exchange(Segment { seq: 8, ack: first, port: 1, ..SEGMENT });
    assert!(replies[0].is(TcpControl::Rst), "the first was forgotten");
    assert_eq!(world.stats.connections_half_open_expired.get(), 1);
}

#[test]
fn connections_beyond_the_limit_are_ignored_and_counted() {
    let mut world = World::new(Config { max_connections: 2, ..Config::default() }, capabilities());
    for port in 1..=2 {
        world.connect(Segment { port, ..SEGMENT });
    }
    assert!(world.exchange(Segment { control: TcpControl::Syn, port: 3, ..SEGMENT }).is_empty());
    assert_eq!((world.stats.connections_refused.get(), world.stats.connections_open.get()), (1, 2));
}

#[test]
fn an_application_that_refuses_sends_a_reset() {
    let mut world = World::plain();
    world.app.refuse = true;
    let reply = world.exchange(Segment { control: TcpControl::Syn, seq: 7, ..SEGMENT });
    let ack = reply[0].seq.wrapping_add(1);
    let replies = world.exchange(Segment { seq: 8, ack: Some(ack), ..SEGMENT });
    assert_eq!((replies.len(), replies[0].control, replies[0].seq), (1, TcpControl::Rst, ack));
    world.assert_clean();
}
