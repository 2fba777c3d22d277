//! Packets by hand: each test is one rule.

use alloc::vec::Vec;
use smoltcp::time::Duration;
use smoltcp::wire::TcpControl;

use super::devices::{Sent, capabilities};
use super::world::{HEAD_BYTES, SEGMENT, Segment, World, response};
use crate::rings::Capabilities;
use crate::tcp_gso::{CloseReason, Config};

/// The payload bytes of full segments without options at MTU 1500.
const MSS: usize = 1460;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn total(sent: &[Sent]) -> usize {
    sent.iter().map(|segment| segment.payload.len()).sum()
}

// Handshake.

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

// Requests and responses.

#[test]
fn a_small_response_is_one_frame_with_its_head_in_the_first_slot() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"700\n"));
    let [frame] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(frame.payload, response(0, 700));
    assert_eq!(frame.slices.len(), 1, "the body is a slice of its page");
    assert_eq!((frame.slices[0].1, frame.slices[0].2), (0, 700));
    assert_eq!((frame.ack, frame.psh, frame.segment_bytes), (Some(client.seq), true, None));
    assert_eq!(world.app.pool.shared(), 1);
    client.take(&sent);
    assert!(world.exchange(client.segment()).is_empty());
    assert_eq!((world.app.pool.shared(), world.stats.copied_bytes.get()), (0, 0));
    assert_eq!(world.info().acknowledged_bytes, (HEAD_BYTES + 700) as u64);
}

#[test]
fn the_first_flight_is_ten_segments_and_super_frames_hold_whole_ones() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"1000000\n"));
    assert_eq!(total(&sent), 10 * MSS);
    let [frame] = &sent[..] else { panic!("{} frames", sent.len()) };
    assert_eq!(frame.segment_bytes, Some(MSS as u16));
    let mut bytes = client.take(&sent);
    let mut largest = 0;
    loop {
        let sent = world.exchange(client.segment());
        if sent.is_empty() {
            break;
        }
        let last = bytes.len() + total(&sent) == HEAD_BYTES + 1_000_000;
        for (i, frame) in sent.iter().enumerate() {
            assert!(
                frame.payload.len().is_multiple_of(MSS) || (last && i + 1 == sent.len()),
                "{}",
                frame.payload.len()
            );
            largest = largest.max(frame.payload.len());
        }
        bytes.extend(client.take(&sent));
    }
    assert_eq!(largest, 44 * MSS, "64 KiB with all headers");
    assert!(bytes == response(0, 1_000_000));
    assert_eq!(world.stats.copied_bytes.get(), 0);
}

#[test]
fn a_request_in_pieces_is_shown_whole() {
    let (mut world, mut client) = World::connected();
    assert!(world.exchange(client.data(b"1")).is_empty());
    assert_eq!(world.info().unread_bytes, 1);
    assert!(world.exchange(client.data(b"0")).is_empty());
    let sent = world.exchange(client.data(b"0\n"));
    assert_eq!(client.take(&sent), response(0, 100));
    assert_eq!(world.stack.buffers_available(), Config::default().receive_buffers);
    // In one segment, but in slices of a byte.
    let mut world = World::connected();
    let data = world.1.data(b"100\n200\n");
    world.0.deliver_in_pieces(data, 1);
    assert_eq!(world.1.drain(&mut world.0), [response(0, 100), response(1, 200)].concat());
}

#[test]
fn pipelined_requests_are_answered_in_order_with_heads_in_mid_frame() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"100\n200\n300\n"));
    let [frame] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(frame.payload, [response(0, 100), response(1, 200), response(2, 300)].concat());
    assert_eq!(frame.slices.len(), 5, "all but the first head");
}

#[test]
fn pipelined_large_responses_follow_each_other() {
    let (mut world, mut client) = World::connected();
    world.deliver(client.data(b"300000\n1\n200000\n"));
    let bytes = client.drain(&mut world);
    assert!(bytes == [response(0, 300_000), response(1, 1), response(2, 200_000)].concat());
}

#[test]
fn data_without_an_answer_is_acknowledged_after_40_ms() {
    let (mut world, mut client) = World::connected();
    assert!(world.exchange(client.data(b"W\n")).is_empty());
    let sent = world.run(ms(200));
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1.ack, sent[0].1.len()), (40, Some(client.seq), 0));
}

#[test]
fn every_second_full_segment_is_acknowledged_at_once() {
    let (mut world, mut client) = World::connected();
    let lines = b"x\n".repeat(MSS);
    assert!(world.exchange(client.data(&lines[..MSS])).is_empty());
    let sent = world.exchange(client.data(&lines[..MSS]));
    assert_eq!((sent.len(), sent[0].ack), (1, Some(client.seq)));
    assert!(world.exchange(client.data(&lines[..MSS])).is_empty());
}

#[test]
fn a_session_that_waits_goes_on_when_it_is_woken() {
    let (mut world, mut client) = World::connected();
    assert!(world.exchange(client.data(b"W\n5\n")).is_empty());
    let id = world.info().id;
    let calls = world.app.writable_calls;
    world.run(ms(100));
    assert_eq!(world.app.writable_calls, calls, "nobody asked meanwhile");
    world.session().woken = true;
    world.stack.wake(id);
    assert!(world.stack.next_deadline().is_some_and(|at| at <= world.now));
    let sent = world.poll();
    assert_eq!(client.take(&sent), response(0, 5));
    world.stack.wake(crate::tcp_gso::ConnectionId { generation: id.generation + 1, ..id });
    world.stack.wake(crate::tcp_gso::ConnectionId { index: 99, ..id });
    assert!(world.poll().is_empty());
}

#[test]
fn the_application_is_called_at_its_deadline_and_once() {
    let (mut world, client) = World::connected();
    let at = world.now + ms(12_345);
    world.session().deadline = Some(at);
    let id = world.info().id;
    world.stack.wake(id);
    world.run(Duration::from_secs(60));
    assert_eq!(world.session().timeouts, [at]);
    let _ = client;
}

#[test]
fn the_answer_goes_where_the_last_segment_came_from() {
    let (mut world, mut client) = World::connected();
    client.template.hardware_address = [2, 9, 9, 9, 9, 9];
    let sent = world.exchange(client.data(b"1\n"));
    assert_eq!(sent[0].remote_hardware_address, [2, 9, 9, 9, 9, 9]);
    let mut stale = client.segment();
    stale.hardware_address = [2, 6, 6, 6, 6, 6];
    stale.seq = stale.seq.wrapping_sub(100_000);
    let sent = world.exchange(stale);
    assert_eq!(sent[0].remote_hardware_address, [2, 9, 9, 9, 9, 9], "an unacceptable segment moves nothing");
}

// Windows.

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

// Acceptability.

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

// Ends.

#[test]
fn a_peer_that_ends_first_still_gets_its_answer() {
    let (mut world, mut client) = World::connected();
    world.deliver(client.data(b"100000\n"));
    world.deliver(client.fin());
    let bytes = client.drain(&mut world);
    assert!(bytes == response(0, 100_000));
    assert_eq!(world.app.closed, [CloseReason::Finished]);
    assert_eq!(world.stats.time_wait.get(), 0, "the peer was first, so it waits");
    world.assert_clean();
}

#[test]
fn our_end_first_leads_to_time_wait_which_answers_and_expires() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"10\nQ\n"));
    assert_eq!(sent.last().unwrap().control, TcpControl::Fin);
    assert_eq!(client.take(&sent), response(0, 10));
    world.exchange(client.segment());
    assert_eq!(world.info().state, "FIN-WAIT-2");
    // The peer's direction is still open, and what comes is taken.
    world.exchange(client.data(b"more"));
    let fin = client.fin();
    let sent = world.exchange(fin);
    assert_eq!((sent.len(), sent[0].ack, sent[0].seq), (1, Some(client.seq), client.ack));
    assert_eq!((world.app.closed.clone(), world.stats.time_wait.get()), (alloc::vec![CloseReason::Finished], 1));
    world.assert_clean();
    world.run(Duration::from_secs(50));
    let again = world.exchange(fin);
    assert_eq!((again.len(), again[0].ack), (1, Some(client.seq)), "our acknowledgement was lost");
    assert!(world.exchange(Segment { control: TcpControl::Rst, ..client.segment() }).is_empty());
    world.run(Duration::from_secs(50));
    assert_eq!(world.stats.time_wait.get(), 1, "the wait began anew, and a reset did not end it");
    world.run(Duration::from_secs(11));
    assert_eq!((world.stats.time_wait.get(), world.stack.next_deadline()), (0, None));
    assert!(world.exchange(client.segment())[0].is(TcpControl::Rst));
}

fn in_time_wait(timestamp: Option<(u32, u32)>) -> (World, super::world::Client) {
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 1000, mss: Some(1460), timestamp, ..SEGMENT });
    let sent = world.exchange(client.data(b"Q\n"));
    client.take(&sent);
    world.exchange(client.segment());
    world.exchange(client.fin());
    assert_eq!(world.stats.time_wait.get(), 1);
    (world, client)
}

#[test]
fn time_wait_is_reused_by_a_newer_syn_only() {
    let (mut world, client) = in_time_wait(None);
    let old = world.exchange(Segment { control: TcpControl::Syn, ack: None, seq: client.seq - 1, ..client.template });
    assert_eq!((old.len(), old[0].control, old[0].ack), (1, TcpControl::None, Some(client.seq)));
    let new = world.exchange(Segment { control: TcpControl::Syn, ack: None, seq: client.seq + 1, ..client.template });
    assert_eq!((new[0].control, new[0].ack), (TcpControl::Syn, Some(client.seq + 2)));
    assert!(new[0].seq.wrapping_sub(client.ack) as i32 > 0, "beyond everything of before");
    assert_eq!(world.stats.time_wait.get(), 0);

    let (mut world, client) = in_time_wait(Some((500, 0)));
    let syn = Segment { control: TcpControl::Syn, ack: None, seq: 3, ..client.template };
    let old = world.exchange(Segment { timestamp: Some((499, 0)), ..syn });
    assert_eq!((old.len(), old[0].control), (1, TcpControl::None));
    let new = world.exchange(Segment { timestamp: Some((501, 0)), ..syn });
    assert_eq!((new[0].control, new[0].ack), (TcpControl::Syn, Some(4)));
}

#[test]
fn time_wait_is_bounded() {
    let mut world = World::new(Config { time_wait_entries: 2, ..Config::default() }, capabilities());
    for port in 1..=5 {
        let mut client = world.connect(Segment { port, ..SEGMENT });
        let sent = world.exchange(client.data(b"Q\n"));
        client.take(&sent);
        world.exchange(client.segment());
        world.exchange(client.fin());
    }
    assert_eq!(world.stats.time_wait.get(), 2);
}

#[test]
fn ends_that_cross_each_other_lead_to_time_wait() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"Q\n"));
    assert!(sent[0].is(TcpControl::Fin));
    // The peer's FIN does not acknowledge ours.
    let sent_fin = world.exchange(client.fin());
    assert_eq!((world.info().state, sent_fin[0].ack), ("CLOSING", Some(client.seq)));
    client.take(&sent);
    world.exchange(client.segment());
    assert_eq!((world.app.closed.clone(), world.stats.time_wait.get()), (alloc::vec![CloseReason::Finished], 1));
    world.assert_clean();
}

#[test]
fn a_peer_that_never_ends_is_given_up() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"Q\n"));
    client.take(&sent);
    world.exchange(client.segment());
    let sent = world.run(Duration::from_secs(61));
    assert_eq!((sent[0].0, sent[0].1.control), (60_000, TcpControl::Rst));
    assert_eq!(world.app.closed, [CloseReason::TimedOut]);
    world.assert_clean();
}

#[test]
fn our_fin_is_repeated_until_it_is_acknowledged() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"Q\n"));
    let again = world.run(Duration::from_secs(2));
    assert!(again.len() >= 2 && again.iter().all(|(_, s)| s.is(TcpControl::Fin) && s.seq == sent[0].seq), "{again:?}");
    client.take(&sent);
    world.exchange(client.segment());
    assert_eq!(world.info().state, "FIN-WAIT-2");
}

#[test]
fn an_application_resets() {
    let (mut world, mut client) = World::connected();
    let sent = world.exchange(client.data(b"R\n"));
    assert_eq!((sent.len(), sent[0].control, sent[0].seq), (1, TcpControl::Rst, client.ack));
    assert_eq!(world.app.closed, [CloseReason::ResetByApplication]);
    assert_eq!(world.stats.tcp_resets_sent.get(), 1);
    world.assert_clean();
}

#[test]
fn a_reader_that_stalls_is_reset_and_a_probe_answered_does_not_save_it() {
    for window in [0, 0xffff] {
        let (mut world, mut client) = World::connected();
        client.template.window = window;
        world.deliver(client.data(b"100000\n"));
        let mut reset_at = None;
        for second in 0..200 {
            for (_, sent) in world.run(Duration::from_secs(1)) {
                if sent.is(TcpControl::Rst) {
                    reset_at = Some(second);
                }
            }
            if window == 0 && reset_at.is_none() {
                world.exchange(client.segment());
            }
        }
        assert!(reset_at.is_some_and(|at| (119..=121).contains(&at)), "{reset_at:?}");
        assert_eq!(world.app.closed, [CloseReason::TimedOut]);
        assert_eq!(world.stats.connections_reset_stalled.get(), 1);
        world.assert_clean();
    }
}

#[test]
fn the_slowest_reader_goes_first() {
    let mut world = World::plain();
    let mut clients: Vec<_> = (1..=3).map(|port| world.connect(Segment { port, mss: Some(1460), ..SEGMENT })).collect();
    for client in &mut clients {
        world.now += ms(10);
        world.deliver(client.data(b"100000\n"));
        world.poll();
    }
    // The first makes progress.
    clients[0].ack = clients[0].ack.wrapping_add(1460);
    world.now += ms(10);
    world.exchange(clients[0].segment());
    let mut gone = Vec::new();
    while world.stack.reset_slowest(world.now, &mut world.app) {
        gone.push(world.poll().iter().find(|sent| sent.is(TcpControl::Rst)).is_some());
    }
    assert_eq!((gone, world.stats.connections_reset_slowest.get()), (alloc::vec![true; 3], 3));
    assert_eq!(world.app.closed, [CloseReason::Evicted; 3]);
    world.assert_clean();
}

#[test]
fn shutdown_resets_everybody() {
    let (mut world, mut client) = World::connected();
    world.exchange(client.data(b"100000\n"));
    world.exchange(Segment { port: 9, control: TcpControl::Syn, ..SEGMENT });
    world.stack.shutdown(&mut world.app);
    let sent = world.poll();
    assert_eq!((sent.len(), sent[0].control), (1, TcpControl::Rst));
    assert_eq!((world.app.closed.clone(), world.stack.next_deadline()), (alloc::vec![CloseReason::Shutdown], None));
    world.assert_clean();
}

// The device.

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
