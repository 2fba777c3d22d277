//! The client half of TCP, segment by segment.

use super::*;
use minicache::rings::{Page, PagePool};

const ISS: u32 = u32::MAX - 5;
const IRS: u32 = u32::MAX - 70_000;

/// A client half, and the appliance played by the test.
struct Script {
    connection: Connection,
    spare: SpareBuffers,
    pool: PagePool,
}

fn page(pool: &PagePool, fill: u8) -> Page {
    let mut page = pool.allocate().unwrap();
    page.bytes_mut().unwrap().fill(fill);
    page
}

fn reply(control: TcpControl, sequence: u32, ack: u32, payload: &[u8]) -> TcpRepr<'_> {
    TcpRepr {
        src_port: 80,
        dst_port: 5000,
        control,
        seq_number: TcpSeqNumber(sequence as i32),
        ack_number: Some(TcpSeqNumber(ack as i32)),
        window_len: 1000,
        window_scale: (control == TcpControl::Syn).then_some(0),
        max_seg_size: (control == TcpControl::Syn).then_some(400),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    }
}

impl Script {
    fn new() -> Self {
        let connection = Connection::new(5000, 80, 65_481, ISS);
        Self { connection, spare: SpareBuffers::default(), pool: PagePool::new(300) }
    }

    fn established() -> Self {
        let mut script = Self::new();
        let syn = script.send();
        assert_eq!((syn.tcp.control, syn.tcp.seq_number.0 as u32, syn.tcp.ack_number), (TcpControl::Syn, ISS, None));
        assert_eq!((syn.tcp.max_seg_size, syn.tcp.window_scale), (Some(65_481), Some(WINDOW_SCALE)));
        script.receive(TcpControl::Syn, IRS, ISS.wrapping_add(1), b"");
        let ack = script.send();
        assert_eq!((ack.tcp.control, ack.bytes), (TcpControl::None, 0));
        assert_eq!(ack.tcp.ack_number, Some(TcpSeqNumber(IRS.wrapping_add(1) as i32)));
        assert_eq!(usize::from(ack.tcp.window_len) << WINDOW_SCALE, WINDOW_BYTES);
        script.silent();
        script
    }

    /// The next segment, which must be there.
    fn send(&mut self) -> Segment {
        let segment = self.connection.next_segment(false).expect("a segment is due");
        self.connection.sent(&segment);
        segment
    }

    fn silent(&self) {
        assert!(self.connection.next_segment(false).is_none(), "{:?}", self.connection.next_segment(false));
    }

    fn receive(&mut self, control: TcpControl, sequence: u32, ack: u32, payload: &[u8]) {
        self.connection.receive(&reply(control, sequence, ack, payload), &[], &mut self.spare);
    }

    /// Data of the appliance `at` bytes into its stream.
    fn data(&mut self, at: u32, payload: &[u8], slices: &[PageSlice]) {
        let tcp = reply(TcpControl::Psh, IRS.wrapping_add(1 + at), ISS.wrapping_add(1), payload);
        self.connection.receive(&tcp, slices, &mut self.spare);
    }

    /// Writes up to `limit` pending bytes to the host.
    fn write(&mut self, limit: usize) -> Vec<u8> {
        let Some(pending) = self.connection.pending() else { return Vec::new() };
        let mut bytes = Vec::new();
        pending.write_to(&mut bytes).unwrap();
        bytes.truncate(limit);
        self.connection.written(bytes.len());
        bytes
    }

    fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.connection.room_bytes());
        self.connection.push(bytes, &mut self.spare);
    }

    /// How far into the appliance's stream a segment acknowledges.
    fn acknowledges(segment: &Segment) -> u32 {
        (segment.tcp.ack_number.unwrap().0 as u32).wrapping_sub(IRS.wrapping_add(1))
    }
}

fn at(ms: i64) -> Instant {
    Instant::from_millis(ms)
}

#[test]
fn a_request_is_cut_to_the_peers_mss_and_window_and_an_answer_comes_back() {
    let mut script = Script::established();
    assert_eq!(script.connection.room_bytes(), 1000);
    script.push(&[7; 900]);
    assert_eq!(script.connection.room_bytes(), 100);
    let sizes: Vec<usize> = (0..3).map(|_| script.send().bytes).collect();
    assert_eq!(sizes, [400, 400, 100]);
    script.silent();
    script.receive(TcpControl::None, IRS.wrapping_add(1), ISS.wrapping_add(1 + 400), b"");
    assert_eq!(script.connection.outgoing().len(), 500);

    let page = page(&script.pool, 9);
    let tcp = reply(TcpControl::Psh, IRS.wrapping_add(1), ISS.wrapping_add(1 + 900), b"head");
    script.connection.receive(&tcp, &[page.slice(0, 10)], &mut script.spare);
    assert_eq!(script.connection.outgoing(), b"");
    assert_eq!(script.write(100), b"head\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09");
    script.silent();
    let ack = script.connection.next_segment(true).expect("an acknowledgement that could wait");
    assert_eq!(Script::acknowledges(&ack), 14);
    script.push(b"next");
    assert_eq!(Script::acknowledges(&script.send()), 14, "the next request carries it");
    assert!(script.connection.next_segment(true).is_none());
}

#[test]
fn only_what_the_host_took_is_acknowledged() {
    let mut script = Script::established();
    let page = page(&script.pool, 1);
    script.data(0, b"", &[page.slice(0, 4096), page.slice(0, 4096)]);
    script.data(8192, b"tail", &[]);
    drop(page);
    assert_eq!(script.write(5000).len(), 5000);
    let ack = script.connection.next_segment(true).unwrap();
    assert_eq!(Script::acknowledges(&ack), 5000);
    // A stalled client makes the appliance's timer fire: what is there already is recognised.
    script.data(5000, b"", &[PageSlice::new(self::page(&script.pool, 1), 0, 3192)]);
    assert_eq!(Script::acknowledges(&script.send()), 5000);
    assert_eq!(script.write(1 << 20).len(), 3196);
    let ack = script.connection.next_segment(true).unwrap();
    assert_eq!(Script::acknowledges(&ack), 8196);
    script.connection.release_buffers(&mut script.spare, false);
    assert_eq!(script.pool.in_use(), 0, "nothing is pinned beyond");
}

#[test]
fn much_that_was_written_is_acknowledged_at_once() {
    let mut script = Script::established();
    let page = page(&script.pool, 1);
    let slices = vec![page.slice(0, 4096); ACKNOWLEDGE_AT_BYTES / 4096];
    script.data(0, b"", &slices);
    script.silent();
    script.write(ACKNOWLEDGE_AT_BYTES - 1);
    script.silent();
    script.write(1);
    assert_eq!(Script::acknowledges(&script.send()) as usize, ACKNOWLEDGE_AT_BYTES);
}

#[test]
fn what_exceeds_the_window_is_not_taken_and_what_overlaps_is_taken_once() {
    let mut script = Script::established();
    let page = page(&script.pool, 1);
    let full = vec![page.slice(0, 4096); WINDOW_BYTES / 4096];
    script.data(0, b"", &full);
    script.data(WINDOW_BYTES as u32, b"probe", &[]);
    assert_eq!(Script::acknowledges(&script.send()), 0, "a window probe is answered");
    assert_eq!(script.connection.pending().unwrap().len(), WINDOW_BYTES);
    assert_eq!(script.write(1 << 20).len(), WINDOW_BYTES);
    script.send();
    script.data(WINDOW_BYTES as u32 - 3, b"oldnew", &[]);
    assert_eq!(script.write(100), b"new");
    // Beyond a hole, which the ring can't make: refused.
    script.data(WINDOW_BYTES as u32 + 50, b"far", &[]);
    assert!(script.connection.pending().is_none());
    assert_eq!(Script::acknowledges(&script.send()) as usize, WINDOW_BYTES + 3);
}

#[test]
fn duplicates_are_trimmed_inside_head_and_slices() {
    let whole: Vec<u8> = (0..30).collect();
    for known in 0..30 {
        let mut script = Script::established();
        let mut page = script.pool.allocate().unwrap();
        page.bytes_mut().unwrap()[..30].copy_from_slice(&whole);
        script.data(0, &whole[..known], &[]);
        script.data(0, &whole[..5], &[page.slice(5, 10), page.slice(15, 15)]);
        assert_eq!(script.write(100), whole, "{known} bytes known");
    }
}

#[test]
fn the_clients_half_close_and_the_appliances_end_in_order() {
    let mut script = Script::established();
    script.push(b"last request");
    script.connection.finish();
    assert_eq!(script.connection.room_bytes(), 0);
    assert_eq!(script.send().tcp.control, TcpControl::Psh);
    assert_eq!(script.send().tcp.control, TcpControl::Fin);
    script.silent();
    let ack = ISS.wrapping_add(1 + 12 + 1);
    script.receive(TcpControl::Psh, IRS.wrapping_add(1), ack, b"answer");
    script.receive(TcpControl::Fin, IRS.wrapping_add(7), ack, b"");
    assert!(!script.connection.wants_shutdown(), "the answer is not written yet");
    assert_eq!(script.write(100), b"answer");
    assert_eq!(Script::acknowledges(&script.connection.next_segment(true).unwrap()), 6, "the FIN is not ours yet");
    assert!(script.connection.wants_shutdown() && !script.connection.is_finished());
    script.connection.shut_down();
    assert_eq!(Script::acknowledges(&script.send()), 7);
    assert!(script.connection.is_finished());
}

#[test]
fn a_client_that_does_not_close_is_waited_for_and_then_reset() {
    let mut script = Script::established();
    script.receive(TcpControl::Fin, IRS.wrapping_add(1), ISS.wrapping_add(1), b"");
    script.connection.shut_down();
    assert_eq!(Script::acknowledges(&script.send()), 1);
    assert!(!script.connection.is_finished());
    let deadline = script.connection.schedule(at(0), false).expect("a limit");
    script.connection.expire(deadline);
    assert_eq!(script.send().tcp.control, TcpControl::Rst);
    assert!(script.connection.is_reset());
}

#[test]
fn resets_are_carried_over_and_forged_ones_are_not() {
    let mut script = Script::established();
    script.receive(TcpControl::Rst, IRS.wrapping_sub(5000), ISS.wrapping_add(1), b"");
    assert!(!script.connection.is_reset(), "far outside the window");
    script.receive(TcpControl::Rst, IRS.wrapping_add(1), ISS.wrapping_add(1), b"");
    assert!(script.connection.is_reset());
    script.silent();

    let mut script = Script::established();
    script.push(b"abc");
    script.send();
    script.connection.abort();
    let reset = script.send();
    assert_eq!((reset.tcp.control, reset.tcp.seq_number.0 as u32), (TcpControl::Rst, ISS.wrapping_add(4)));
    assert!(script.connection.is_reset());
}

#[test]
fn a_refused_connection_is_reset() {
    let mut script = Script::new();
    script.send();
    script.receive(TcpControl::Rst, 0, ISS.wrapping_add(1), b"");
    assert!(script.connection.is_reset());
}

#[test]
fn what_an_old_connection_left_is_cleared_away_and_the_syn_sent_again() {
    let mut script = Script::new();
    script.send();
    script.receive(TcpControl::None, 77, 4711, b"");
    let reset = script.send();
    assert_eq!((reset.tcp.control, reset.tcp.seq_number.0), (TcpControl::Rst, 4711));
    script.silent();
    let deadline = script.connection.schedule(at(0), false).unwrap();
    script.connection.expire(deadline);
    assert_eq!(script.send().tcp.control, TcpControl::Syn);
}

#[test]
fn what_the_appliance_dropped_is_sent_again() {
    let mut script = Script::established();
    script.push(b"request");
    script.connection.finish();
    script.send();
    script.send();
    let deadline = script.connection.schedule(at(0), false).expect("a retransmission timer");
    script.connection.expire(deadline - Duration::from_millis(1));
    script.silent();
    script.connection.expire(deadline);
    let again = script.send();
    assert_eq!((again.tcp.seq_number.0 as u32, again.start, again.bytes), (ISS.wrapping_add(1), 0, 7));
    assert_eq!(script.send().tcp.control, TcpControl::Fin);
    let second = script.connection.schedule(deadline, false).unwrap();
    assert_eq!(second - deadline, RETRY * 2);
    script.receive(TcpControl::None, IRS.wrapping_add(1), ISS.wrapping_add(1 + 7 + 1), b"");
    assert_eq!(script.connection.schedule(deadline, false), None);
}

#[test]
fn an_appliance_that_never_answers_is_given_up() {
    let mut script = Script::established();
    script.push(b"request");
    let mut now = at(0);
    for _ in 0..=RETRIES_MAX {
        assert_eq!(script.send().tcp.control, TcpControl::Psh);
        now = script.connection.schedule(now, false).unwrap();
        script.connection.expire(now);
    }
    assert_eq!(script.send().tcp.control, TcpControl::Rst);
}

#[test]
fn a_shut_window_is_probed_while_the_client_waits() {
    let mut script = Script::established();
    let mut shut = reply(TcpControl::None, IRS.wrapping_add(1), ISS.wrapping_add(1), b"");
    shut.window_len = 0;
    script.connection.receive(&shut, &[], &mut script.spare);
    assert_eq!(script.connection.room_bytes(), 0);
    assert_eq!(script.connection.schedule(at(0), false), None, "nobody waits");
    let deadline = script.connection.schedule(at(0), true).expect("a probe");
    script.connection.expire(deadline);
    let probe = script.send();
    assert_eq!((probe.tcp.seq_number.0 as u32, probe.bytes), (ISS, 0));
    script.silent();
    script.receive(TcpControl::None, IRS.wrapping_add(1), ISS.wrapping_add(1), b"");
    assert_eq!(script.connection.room_bytes(), 1000);
    assert_eq!(script.connection.schedule(at(0), true), None);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_changes_nothing() {
    let mut script = Script::established();
    script.push(b"abc");
    script.send();
    script.receive(TcpControl::Psh, IRS.wrapping_add(1), ISS.wrapping_add(500), b"data");
    assert_eq!(script.connection.outgoing(), b"abc");
    assert!(script.connection.pending().is_none());
    assert_eq!(script.send().tcp.control, TcpControl::None);
}

#[test]
fn segments_that_come_before_their_turn_wait_for_it() {
    let mut script = Script::established();
    let whole: Vec<u8> = (0..50).collect();
    for start in [40, 20, 30, 20] {
        script.data(start as u32, &whole[start..start + 10], &[]);
        assert!(script.write(100).is_empty());
    }
    // One acknowledgement for each, as far as they are counted.
    for _ in 0..4 {
        assert_eq!(Script::acknowledges(&script.send()), 0);
    }
    script.silent();
    script.data(0, &whole[..5], &[]);
    assert_eq!(script.write(100), whole[..5]);
    script.data(5, &whole[5..20], &[]);
    assert_eq!(script.write(100), whole[5..]);
    assert!(script.connection.pending().is_none() && script.connection.next_segment(true).is_some());
}

#[test]
fn hostile_segments_do_not_panic() {
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    for _ in 0..200 {
        let mut script = Script::established();
        let page = page(&script.pool, 3);
        let mut now = at(0);
        for _ in 0..60 {
            let near = |r: u32, base: u32| {
                if r.is_multiple_of(3) {
                    r.wrapping_mul(65_537)
                } else {
                    base.wrapping_add(r % 2000).wrapping_sub(1000)
                }
            };
            let control = [TcpControl::None, TcpControl::Psh, TcpControl::Fin, TcpControl::Syn, TcpControl::Rst]
                [random() as usize % 5];
            let control = if control == TcpControl::Rst && random() % 8 != 0 { TcpControl::Psh } else { control };
            let payload = vec![1; random() as usize % 1000];
            let mut tcp = reply(control, near(random(), IRS), near(random(), ISS), &payload);
            tcp.window_len = (random() % 3000) as u16;
            let slices = vec![page.slice(0, 1 + random() as usize % 4096); random() as usize % 17];
            script.connection.receive(&tcp, &slices, &mut script.spare);
            match random() % 6 {
                0 => _ = script.write(random() as usize % 5000),
                1 => script.push(&vec![2; script.connection.room_bytes().min(random() as usize % 600)]),
                2 if random() % 10 == 0 => script.connection.finish(),
                3 if script.connection.wants_shutdown() => script.connection.shut_down(),
                _ => {}
            }
            while let Some(segment) = script.connection.next_segment(random() % 2 == 0) {
                assert!(segment.start + segment.bytes <= script.connection.outgoing().len());
                script.connection.sent(&segment);
            }
            if let Some(at) = script.connection.schedule(now, random() % 2 == 0) {
                now = now.max(at);
                script.connection.expire(now);
            }
            assert!(script.connection.pending().map_or(0, Pending::len) <= WINDOW_BYTES);
        }
    }
}
