//! Loss recovery by hand (RFC 5681, 6298, 6582, 6675).

use alloc::vec::Vec;
use smoltcp::time::Duration;

use super::devices::{Frame, Sent, capabilities, read};
use super::world::{Client, HEAD_BYTES, SEGMENT, Segment, World, ms, response};
use crate::rings::Capabilities;
use crate::tcp_gso::Config;

const MSS: u32 = 1460;

/// A world without TSO, so that each frame is a segment; the first flight of ten has gone out.
fn flight(sack_permitted: bool) -> (World, Client, Vec<Sent>) {
    let mut world = World::new(Config::default(), Capabilities { tso4: false, tso6: false, ..capabilities() });
    let mut client = world.connect(Segment { seq: 1000, mss: Some(1460), sack_permitted, ..SEGMENT });
    let sent = world.exchange(client.data(b"100000\n"));
    assert_eq!(sent.len(), 10);
    (world, client, sent)
}

#[test]
fn three_duplicates_bring_the_segment_again_as_the_same_slices() {
    let (mut world, client, sent) = flight(false);
    let window = world.info().congestion_window_bytes;
    assert_eq!(window, 10 * MSS);
    // Limited transmit: each of the first two brings a new segment (RFC 3042).
    for i in 0..2 {
        let new = world.exchange(client.segment());
        assert_eq!((new.len(), new[0].seq), (1, sent[9].end().wrapping_add(i * MSS)));
    }
    let again = world.exchange(client.segment());
    assert_eq!((again.len(), again[0].seq, again[0].payload == sent[0].payload), (1, sent[0].seq, true));
    assert_eq!(again[0].slices, sent[0].slices, "the same slices");
    assert_eq!(world.stats.tcp_fast_retransmits.get(), 1);
    assert_eq!(world.info().slow_start_threshold_bytes, 6 * MSS, "half of twelve");
    assert_eq!(world.stats.copied_bytes.get(), 0);
    // More duplicates: the pipe drains to the new window before anything new goes out.
    let mut new = 0;
    for _ in 0..9 {
        new += world.exchange(client.segment()).len();
    }
    assert!((4..=6).contains(&new), "{new}");
    assert_eq!(world.stats.tcp_fast_retransmits.get(), 1);
}

#[test]
fn a_partial_acknowledgement_brings_the_next_hole() {
    let (mut world, mut client, sent) = flight(false);
    for _ in 0..3 {
        world.exchange(client.segment());
    }
    client.ack = sent[4].seq;
    let again = world.exchange(client.segment());
    assert_eq!(again[0].seq, sent[4].seq);
    assert_eq!(world.stats.tcp_fast_retransmits.get(), 1, "one recovery");
}

#[test]
fn what_is_no_duplicate_does_not_count() {
    let (mut world, mut client, _) = flight(false);
    for window in [30_000, 30_001, 30_002, 30_003, 30_004] {
        client.template.window = window;
        assert!(world.exchange(client.segment()).is_empty(), "window updates");
    }
    client.ack = client.ack.wrapping_sub(1000);
    for _ in 0..5 {
        assert!(world.exchange(client.segment()).is_empty(), "old acknowledgements");
    }
    client.ack = client.ack.wrapping_add(1000);
    for _ in 0..3 {
        world.exchange(client.data(b"x"));
    }
    assert_eq!(world.stats.tcp_fast_retransmits.get(), 0);
}

/// Acknowledges with what `held` names, in numbers of segments of the first flight.
fn sacked(client: &Client, sent: &[Sent], held: &[(usize, usize)]) -> Segment<'static> {
    let mut segment = client.segment();
    for (place, (from, to)) in segment.sack.iter_mut().zip(held) {
        *place = Some((sent[*from].seq, sent[*to - 1].end()));
    }
    segment
}

#[test]
fn sack_brings_just_the_holes_and_each_once() {
    let (mut world, client, sent) = flight(true);
    // Segments 0, 2 and 3 are lost.
    let mut again = Vec::new();
    for held in [&[(1, 2)][..], &[(4, 5), (1, 2)], &[(4, 6), (1, 2)], &[(4, 7), (1, 2)], &[(4, 10), (1, 2)]] {
        again.extend(world.exchange(sacked(&client, &sent, held)));
    }
    let (old, new): (Vec<_>, Vec<_>) = again.iter().partition(|s| s.seq.wrapping_sub(sent[0].seq) < 10 * MSS);
    let numbers: Vec<u32> = old.iter().map(|s| s.seq.wrapping_sub(sent[0].seq) / MSS).collect();
    assert_eq!(numbers, [0, 2, 3]);
    assert!(new.len() >= 2, "and new data as the pipe allows");
    assert_eq!(world.stats.tcp_retransmitted_bytes.get(), 3 * u64::from(MSS));
    // The retransmissions arrive: over.
    let mut client = client;
    client.ack = sent[9].end();
    world.exchange(client.segment());
    assert_eq!(world.stats.tcp_timeouts.get(), 0);
    let bytes = {
        let mut bytes = response(0, 100_000)[..10 * MSS as usize].to_vec();
        bytes.extend(client.take(&new.into_iter().cloned().collect::<Vec<_>>()));
        world.deliver(client.segment());
        world
            .run(ms(1))
            .into_iter()
            .filter(|(_, s)| s.seq == client.ack)
            .map(|(_, s)| s)
            .collect::<Vec<_>>()
            .iter()
            .for_each(|s| bytes.extend(client.take(core::slice::from_ref(s))));
        bytes
    };
    assert!(response(0, 100_000).starts_with(&bytes));
}

#[test]
fn sack_blocks_that_lie_are_ignored() {
    let (mut world, mut client, sent) = flight(true);
    let nonsense = [
        (sent[9].end(), sent[9].end().wrapping_add(1000)),
        (sent[0].seq, sent[3].end()),
        (sent[0].seq.wrapping_sub(5000), sent[0].seq),
        (sent[5].seq, sent[4].seq),
    ];
    for block in nonsense.iter().cycle().take(20) {
        let mut segment = client.segment();
        segment.sack[0] = Some(*block);
        assert!(world.exchange(segment).is_empty(), "{block:?}");
    }
    assert_eq!(world.stats.tcp_fast_retransmits.get(), 0);
    client.take(&sent);
    world.exchange(client.segment());
}

#[test]
fn the_timer_doubles_and_sends_one_segment_at_a_time() {
    let (mut world, mut client, sent) = flight(true);
    let mut at_ms = Vec::new();
    for (delay_ms, again) in world.run(Duration::from_secs(20)) {
        assert_eq!((again.seq, again.slices.clone()), (sent[0].seq, sent[0].slices.clone()));
        at_ms.push(delay_ms);
    }
    let gaps: Vec<u64> = at_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((200..=300).contains(&at_ms[0]), "{at_ms:?}");
    assert!(gaps.windows(2).all(|pair| pair[1].abs_diff(2 * pair[0]) <= 2), "{gaps:?}");
    assert_eq!(world.stats.tcp_timeouts.get() as usize, at_ms.len());
    let info = world.info();
    assert_eq!((info.congestion_window_bytes, info.slow_start_threshold_bytes), (MSS, 5 * MSS));
    // Then slow start through what was lost, and on.
    client.ack = sent[0].end();
    let next = world.exchange(client.segment());
    assert_eq!(next.iter().map(|s| s.seq).collect::<Vec<_>>(), [sent[1].seq, sent[2].seq]);
    client.ack = sent[9].end();
    let new = world.exchange(client.segment());
    assert_eq!(new[0].seq, sent[9].end(), "nothing more is sent again");
}

#[test]
fn a_peer_that_reneges_gets_everything_again() {
    let (mut world, mut client, sent) = flight(true);
    world.exchange(sacked(&client, &sent, &[(1, 3)]));
    let first = world.run(ms(400));
    assert_eq!(first[0].1.seq, sent[0].seq);
    // Acknowledged up to what it said it had, it turns out to have nothing.
    client.ack = sent[0].end();
    let next = world.exchange(client.segment());
    assert!(next.iter().all(|s| s.seq != sent[1].seq), "still believed");
    let later = world.run(Duration::from_secs(5));
    assert!(later.iter().any(|(_, s)| s.seq == sent[1].seq), "believed no more");
}

#[test]
fn a_lost_retransmission_is_found_by_the_timer() {
    let (mut world, client, sent) = flight(true);
    for to in 2..=10 {
        world.exchange(sacked(&client, &sent, &[(1, to)]));
    }
    assert_eq!(world.stats.tcp_retransmitted_bytes.get(), u64::from(MSS));
    let later = world.run(ms(1000));
    assert!(later.iter().any(|(_, s)| s.seq == sent[0].seq), "{}", later.len());
    assert!(world.stats.tcp_timeouts.get() >= 1);
}

#[test]
fn one_segment_a_flight_is_timed_and_none_that_was_sent_again() {
    let mut world = World::plain();
    let mut client = world.connect_over(Segment { seq: 1000, mss: Some(1460), ..SEGMENT }, ms(8));
    assert_eq!(world.info().smoothed_rtt, Some(ms(8)));
    let first = world.exchange(client.data(b"100\n"));
    world.now += ms(10);
    let second = world.exchange(client.data(b"100\n"));
    world.now += ms(6);
    client.take(&first);
    world.exchange(client.segment());
    assert_eq!(world.info().smoothed_rtt, Some(ms(9)), "16 ms for the first");
    client.take(&second);
    world.exchange(client.segment());
    assert_eq!(world.info().smoothed_rtt, Some(ms(9)), "the second was not timed");
    // Karn: sent again, nobody knows which one was acknowledged.
    world.exchange(client.data(b"100\n"));
    let again = world.run(ms(300));
    assert_eq!(again.len(), 1);
    client.take(&[again[0].1.clone()]);
    world.exchange(client.segment());
    assert_eq!(world.info().smoothed_rtt, Some(ms(9)));
}

#[test]
fn a_timestamp_measures_what_was_sent_again() {
    let mut world = World::plain();
    let syn = Segment { seq: 1000, mss: Some(1460), timestamp: Some((5, 0)), ..SEGMENT };
    let mut client = world.connect_over(syn, ms(8));
    world.exchange(client.data(b"100\n"));
    let again = world.run(ms(300));
    assert_eq!(again.len(), 1);
    client.take(&[again[0].1.clone()]);
    client.template.timestamp = Some((6, again[0].1.timestamp.unwrap().0));
    // Sent again after 24 + 200 ms, acknowledged after 300.
    world.exchange(client.segment());
    let rtt = world.info().smoothed_rtt.unwrap();
    assert!(rtt > ms(14) && rtt < ms(19), "{rtt}");
}

#[test]
fn idleness_brings_the_window_back_to_the_initial_one() {
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 1000, mss: Some(1460), ..SEGMENT });
    world.deliver(client.data(b"500000\n"));
    let bytes = client.drain(&mut world);
    assert!(bytes == response(0, 500_000));
    assert!(world.info().congestion_window_bytes > 100_000);
    world.run(Duration::from_secs(5));
    let sent = world.exchange(client.data(b"500000\n"));
    assert_eq!(sent.iter().map(|s| s.len()).sum::<u32>(), 10 * MSS);
}

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let (mut world, mut client) = World::connected();
    for _ in 0..100 {
        world.deliver(client.data(b"1000\n"));
        client.drain(&mut world);
    }
    assert_eq!(world.info().congestion_window_bytes, 10 * MSS);
}

#[test]
fn super_frames_follow_the_rate_on_long_paths_only() {
    for (rtt_ms, autosize_frames) in [(0, true), (100, true), (100, false)] {
        let mut world = World::new(Config { autosize_frames, ..Config::default() }, capabilities());
        let syn = Segment { seq: 1000, mss: Some(1460), window_scale: Some(8), ..SEGMENT };
        let mut client = world.connect_over(syn, ms(rtt_ms));
        let mut sent = world.exchange(client.data(b"2000000\n"));
        let mut got = 0;
        let mut largest = 0;
        while !sent.is_empty() {
            largest = sent.iter().map(|s| s.len()).fold(largest, u32::max);
            got += client.take(&sent).len();
            world.now += ms(rtt_ms);
            sent = world.exchange(client.segment());
        }
        assert_eq!(got, HEAD_BYTES + 2_000_000);
        if rtt_ms == 0 || !autosize_frames {
            assert_eq!(largest, 44 * MSS);
        } else {
            assert!(largest < 30 * MSS, "{largest}");
        }
    }
}

#[test]
fn a_retransmission_of_several_segments_is_a_super_frame_of_the_same_slices() {
    let mut world = World::plain();
    let mut client = world.connect(Segment { seq: 1000, mss: Some(1460), sack_permitted: true, ..SEGMENT });
    world.deliver(client.data(b"300000\n"));
    world.poll();
    client.ack = client.ack.wrapping_add(10 * MSS);
    world.deliver(client.segment());
    while world.stack.poll(world.now, &mut world.app, &mut world.queue) {}
    let frames: Vec<Frame> = world.queue.frames.drain(..).collect();
    let sent = read(&frames[0]);
    assert!(sent.len() >= 20 * MSS);
    // All but the last six segments of the frame are missing.
    let mut segment = client.segment();
    segment.sack[0] = Some((sent.end().wrapping_sub(6 * MSS), sent.end()));
    let again = world.exchange(segment);
    assert!(again[0].segment_bytes.is_some() && again[0].len().is_multiple_of(MSS));
    assert_eq!(again[0].seq, sent.seq);
    assert!(sent.slices.starts_with(&again[0].slices[..again[0].slices.len() - 1]));
    assert_eq!(world.stats.copied_bytes.get(), 0);
}
