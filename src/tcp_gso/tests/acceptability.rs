//! Which segments count, packet by packet.

use smoltcp::time::Duration;
use smoltcp::wire::TcpControl;

use super::world::{SEGMENT, Segment, World, ms, response};
use crate::tcp_gso::{CloseReason, Config};

#[test]
fn what_is_out_of_order_is_kept_and_reported() {
    let (mut world, mut client) = World::connected();
    let first = client.data(b"1");
    let second = client.data(b"0");
    let third = client.data(b"0");
    let fourth = client.data(b"\n");
    let sent = world.exchange(second);
    assert_eq!((sent[0].ack, sent[0].sack.clone()), (Some(first.seq), alloc::vec![(second.seq, third.seq)]));
    let sent = world.exchange(fourth);
    assert_eq!(sent[0].sack, [(fourth.seq, fourth.seq + 1), (second.seq, third.seq)], "the latest first");
    let sent = world.exchange(first);
    assert_eq!((sent[0].ack, sent[0].sack.clone()), (Some(third.seq), alloc::vec![(fourth.seq, fourth.seq + 1)]));
    let sent = world.exchange(third);
    assert_eq!((sent[0].ack, sent[0].payload.clone()), (Some(client.seq), response(0, 100)));
    assert_eq!(world.stats.tcp_out_of_order.get(), 2);
    // Once more: nothing new, but an acknowledgement.
    let sent = world.exchange(second);
    assert_eq!((sent.len(), sent[0].ack, sent[0].len()), (1, Some(client.seq), 0));
}

#[test]
fn a_gap_filled_by_pieces_that_overlap_what_is_held_leaves_no_trace() {
    let (mut world, mut client) = World::connected();
    let whole = client.data(b"12345\n");
    world.exchange(Segment { seq: whole.seq + 1, payload: b"2345", ..whole });
    world.deliver_in_pieces(whole, 2);
    assert_eq!(client.drain(&mut world), response(0, 12_345));
    assert_eq!(world.session().seen, b"12345\n");
}

#[test]
fn a_fin_that_comes_early_waits_for_what_is_before_it() {
    let (mut world, mut client) = World::connected();
    let data = client.data(b"10\n");
    let fin = client.fin();
    world.exchange(fin);
    assert_eq!(world.info().state, "ESTABLISHED");
    let sent = world.exchange(data);
    assert_eq!(sent[0].ack, Some(client.seq));
    assert_eq!(sent.last().unwrap().control, TcpControl::Fin, "the polite server ends too");
    assert_eq!(client.take(&sent), response(0, 10));
    world.exchange(client.segment());
    assert_eq!(world.app.closed, [CloseReason::Finished]);
    world.assert_clean();
}

#[test]
fn a_reset_counts_only_with_the_exact_number() {
    let (mut world, client) = World::connected();
    let reset = Segment { control: TcpControl::Rst, ack: None, ..client.segment() };
    let inside = world.exchange(Segment { seq: client.seq + 1, ..reset });
    assert_eq!((inside.len(), inside[0].ack), (1, Some(client.seq)), "a challenge (RFC 5961 §3.2)");
    assert!(world.exchange(Segment { seq: client.seq + 2, ..reset }).is_empty(), "not again so soon");
    assert!(world.exchange(Segment { seq: client.seq.wrapping_sub(1), ..reset }).is_empty());
    assert!(world.exchange(Segment { seq: client.seq + 100_000, ..reset }).is_empty());
    assert!(world.app.closed.is_empty());
    assert!(world.exchange(reset).is_empty());
    assert_eq!(world.app.closed, [CloseReason::ResetByPeer]);
    world.assert_clean();
}

#[test]
fn a_syn_in_a_connection_is_challenged() {
    let (mut world, client) = World::connected();
    for seq in [client.seq, client.seq + 50, client.seq.wrapping_add(1 << 30)] {
        let sent = world.exchange(Segment { control: TcpControl::Syn, seq, ack: None, ..client.segment() });
        assert_eq!((sent.len(), sent[0].ack, sent[0].len()), (1, Some(client.seq), 0));
        world.run(ms(600));
    }
    assert_eq!(world.info().state, "ESTABLISHED");
}

#[test]
fn acknowledgements_of_the_future_and_of_the_distant_past_are_challenged() {
    let (mut world, mut client) = World::connected();
    let data = client.data(b"10\n");
    let sent = world.exchange(Segment { ack: Some(client.ack.wrapping_add(1)), ..data });
    assert_eq!((sent.len(), sent[0].ack), (1, Some(data.seq)), "the data was not taken either");
    world.run(ms(600));
    let sent = world.exchange(Segment { ack: Some(client.ack.wrapping_sub(0x10_0000)), ..data });
    assert_eq!((sent.len(), sent[0].ack), (1, Some(data.seq)));
    world.run(ms(600));
    // A little old is harmless, and the data counts.
    let sent = world.exchange(Segment { ack: Some(client.ack.wrapping_sub(100)), ..data });
    assert_eq!(sent[0].payload, response(0, 10));
}

#[test]
fn paws_refuses_old_timestamps_for_24_days() {
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 5, timestamp: Some((1_000_000, 0)), mss: Some(1460), ..SEGMENT });
    let mut data = client.data(b"10\n");
    data.timestamp = Some((999_999, data.timestamp.unwrap().1));
    let sent = world.exchange(data);
    assert_eq!((sent.len(), sent[0].ack, sent[0].len()), (1, Some(data.seq), 0));
    assert_eq!(sent[0].timestamp.unwrap().1, 1_000_000, "the echo is of the last good one");
    assert!(world.exchange(Segment { timestamp: None, ..data }).is_empty(), "without one: silence");
    world.now += Duration::from_secs(25 * 24 * 3600);
    let sent = world.exchange(data);
    assert_eq!(sent[0].payload, response(0, 10));
    // The echo moves with what is acceptable and in order.
    client.ack = sent[0].end();
    let mut next = client.data(b"5\n");
    next.timestamp = Some((1_000_500, sent[0].timestamp.unwrap().0));
    assert_eq!(world.exchange(next)[0].timestamp.unwrap().1, 1_000_500);
}

#[test]
fn a_segment_for_nobody_is_reset_and_a_reset_is_not() {
    let mut world = World::plain();
    let sent = world.exchange(Segment { seq: 5, ack: Some(77), ..SEGMENT });
    assert_eq!((sent[0].control, sent[0].seq, sent[0].ack), (TcpControl::Rst, 77, None));
    let sent = world.exchange(Segment { seq: 5, payload: b"abc", control: TcpControl::Fin, ..SEGMENT });
    assert_eq!((sent[0].control, sent[0].seq, sent[0].ack), (TcpControl::Rst, 0, Some(9)));
    assert!(world.exchange(Segment { control: TcpControl::Rst, seq: 5, ..SEGMENT }).is_empty());
    let many = Config::default().stateless_replies_per_s as usize;
    let answered: usize = (0..2 * many).map(|_| world.exchange(Segment { ack: Some(77), ..SEGMENT }).len()).sum();
    assert!(answered <= many, "limited a second");
}

#[test]
fn a_keep_alive_probe_is_answered() {
    let (mut world, client) = World::connected();
    for payload in [&b""[..], &b"x"[..]] {
        world.run(ms(600));
        let sent = world.exchange(Segment { seq: client.seq.wrapping_sub(1), payload, ..client.segment() });
        assert_eq!((sent.len(), sent[0].ack, sent[0].len()), (1, Some(client.seq), 0));
    }
}
