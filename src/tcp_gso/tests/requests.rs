//! Requests, responses and the application's turns, packet by packet.

use smoltcp::time::Duration;

use super::world::{HEAD_BYTES, MSS, World, ms, response, total};
use crate::tcp_gso::Config;

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
