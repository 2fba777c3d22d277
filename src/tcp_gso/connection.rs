//! One connection: its state and variables (RFC 9293 §3.3), and when its timers are due.

use alloc::boxed::Box;
use smoltcp::time::{Duration, Instant};

use super::Config;
use super::congestion::Congestion;
use super::context::Context;
use super::deadline::Deadline;
use super::listener::HalfOpen;
use super::receive_buffer::ReceiveBuffer;
use super::recovery::{Flight, Recovery};
use super::rtt::Rtt;
use super::segment::{Path, timestamp_bytes};
use super::send_queue::SendQueue;
use super::sequence::Seq;
use super::time_wait::TimeWait;

/// Smallest MSS that we believe a peer, in bytes: less would only make work (an attack once seen on Linux).
const MIN_PEER_MSS_BYTES: u16 = 64;

/// How long a connection that could get no page for a head waits before it tries again by itself.
pub(super) const HEAD_RETRY: Duration = Duration::from_millis(10);

/// The states of RFC 9293 §3.3.2 that a connection in the table can be in. SYN-RECEIVED lives in the listener, TIME-WAIT in
/// a table of its own, and in CLOSED there is nothing left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Both directions are open.
    Established,
    /// Our FIN is out.
    FinWait1,
    /// Our FIN is acknowledged, the peer's direction still open.
    FinWait2,
    /// The peer has ended its direction.
    CloseWait,
    /// Both FINs are out and crossed each other; ours is not acknowledged.
    Closing,
    /// The peer's FIN came first, ours is out and not acknowledged.
    LastAck,
    /// Both FINs are acknowledged, ours was first: to be remembered for a while.
    TimeWait,
    /// It is over.
    Closed,
}

impl State {
    /// The state's name in RFC 9293.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        }
    }
}

/// Timestamps of a connection that uses them (RFC 7323).
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamps {
    /// Added to the millisecond clock for TSval.
    pub offset: u32,
    /// TS.Recent.
    pub recent: u32,
    /// When TS.Recent was taken.
    pub recent_at: Instant,
}

impl Timestamps {
    /// TSval at `now`.
    pub fn value(&self, now: Instant) -> u32 {
        timestamp_value(self.offset, now)
    }
}

/// TSval at `now` for a connection with this offset: a clock of milliseconds.
pub(super) fn timestamp_value(offset: u32, now: Instant) -> u32 {
    (now.total_millis() as u32).wrapping_add(offset)
}

/// A connection of the table.
#[derive(Debug)]
pub(super) struct Connection {
    /// The two ends and the way between.
    pub path: Path,
    /// Hash of its name.
    pub hash: u32,
    /// Its state.
    pub state: State,
    /// Timestamps, if negotiated.
    pub timestamps: Option<Timestamps>,
    /// The peer's MSS option.
    peer_mss_bytes: u16,
    /// Payload bytes of a full segment without SACK blocks, as of the last transmission.
    pub mss_bytes: u32,

    /// A retransmission timer has gone off: the way may lose frames of more than 64 KiB, each time anew.
    pub timed_out: bool,

    /// SND.UNA.
    pub una: Seq,
    /// SND.NXT; never moves back.
    pub nxt: Seq,
    /// SND.WND in bytes.
    pub window_bytes: u32,
    /// Largest SND.WND seen.
    pub max_window_bytes: u32,
    /// SND.WL1 and SND.WL2.
    pub window_from: (Seq, Seq),
    /// Shift of the windows that the peer sends.
    pub window_shift: u8,
    /// What is to be sent or acknowledged.
    pub queue: SendQueue,
    /// Payload bytes acknowledged since the beginning.
    pub acknowledged_bytes: u64,
    /// When something new was last acknowledged, or first had to be.
    pub progress_at: Instant,
    /// When payload was last sent.
    pub last_sent_at: Instant,
    /// The congestion window, and what moves it.
    pub congestion: Congestion,
    /// Unsent data waits for the congestion window.
    pub congestion_limited: bool,
    /// Round-trip times.
    pub rtt: Rtt,
    /// The end of a segment that is being timed, and when it was sent.
    pub timed: Option<(Seq, Instant)>,
    /// Losses.
    pub recovery: Recovery,
    /// A window probe is to be sent.
    pub probe_due: bool,
    /// A window probe is out: the peer may acknowledge one byte beyond SND.NXT.
    pub probing: bool,
    /// The application has ended our direction.
    pub closing: bool,
    /// The application wants a reset.
    pub reset_requested: bool,

    /// RCV.NXT.
    pub rcv_nxt: Seq,
    /// The right edge of the window that was last advertised; never moves back.
    pub rcv_edge: Seq,
    /// RCV.NXT when an acknowledgement was last sent (Last.ACK.sent of RFC 7323).
    pub last_ack_sent: Seq,
    /// Bytes that can't be handed on yet.
    pub buffer: Option<Box<ReceiveBuffer>>,
    /// Where the peer's FIN is, when it has come.
    pub fin_at: Option<Seq>,
    /// Something has to be acknowledged, soon or with the next data.
    pub ack_pending: bool,
    /// An acknowledgement has to go out now.
    pub ack_now: bool,
    /// When the peer was last told that a segment of its makes no sense.
    pub challenged_at: Option<Instant>,

    /// Retransmission or persist timer.
    pub rto_at: Deadline,
    /// Delayed acknowledgement.
    pub delayed_ack_at: Deadline,
    /// The application's deadline.
    pub application_at: Deadline,
    /// End of FIN-WAIT-2.
    pub fin_wait_at: Deadline,
    /// When a head that found no page is tried again.
    pub retry_at: Deadline,

    /// `writable` is to be called.
    pub wants_writable: bool,
    /// The application filled the send queue: `writable` when there is room.
    pub blocked: bool,
}

impl Connection {
    /// The connection that `half_open` becomes when its handshake is complete.
    pub fn new(half_open: &HalfOpen, context: &Context, now: Instant) -> Self {
        let config = &context.config;
        let start = half_open.iss + 1;
        let timestamps = half_open.timestamp.map(|recent| Timestamps {
            offset: context.secrets.timestamp_offset(&half_open.key),
            recent,
            recent_at: now,
        });
        let mut rtt = if half_open.retries > 0 { Rtt::after_lost_handshake() } else { Rtt::new() };
        if let Some(round_trip) = half_open.round_trip(now) {
            rtt.sample(round_trip);
        }
        let peer_mss_bytes = half_open.peer_mss_bytes.max(MIN_PEER_MSS_BYTES);
        let mss_bytes = u32::from(peer_mss_bytes) - timestamp_bytes(timestamps.is_some()) as u32;
        // A lost handshake allows one segment only (RFC 5681 §3.1).
        let segments = if half_open.retries > 0 { 1 } else { config.initial_window_segments.max(1) };
        Self {
            path: Path::new(half_open.key, half_open.hash, half_open.remote_hardware_address),
            hash: half_open.hash,
            state: State::Established,
            timestamps,
            peer_mss_bytes,
            mss_bytes,
            una: start,
            nxt: start,
            window_bytes: 0,
            max_window_bytes: 0,
            window_from: (half_open.rcv_nxt - 1, start),
            window_shift: half_open.window_scale.unwrap_or(0).min(14),
            queue: SendQueue::new(start),
            timed_out: false,
            acknowledged_bytes: 0,
            progress_at: now,
            last_sent_at: now,
            congestion: Congestion::new(segments * mss_bytes),
            congestion_limited: false,
            rtt,
            timed: None,
            recovery: Recovery::new(half_open.sack_permitted, start),
            probe_due: false,
            probing: false,
            closing: false,
            reset_requested: false,
            rcv_nxt: half_open.rcv_nxt,
            rcv_edge: half_open.rcv_nxt + context.buffers.capacity_bytes() as u32,
            last_ack_sent: half_open.rcv_nxt,
            buffer: None,
            fin_at: None,
            ack_pending: false,
            ack_now: false,
            challenged_at: None,
            rto_at: Deadline::NEVER,
            delayed_ack_at: Deadline::NEVER,
            application_at: Deadline::NEVER,
            fin_wait_at: Deadline::NEVER,
            retry_at: Deadline::NEVER,
            wants_writable: true,
            blocked: false,
        }
    }

    /// The part of the send sequence space that loss recovery is about.
    pub fn flight(&self) -> Flight {
        Flight { una: self.una, nxt: self.nxt, mss_bytes: self.mss_bytes }
    }

    /// Bytes in flight, FIN included.
    pub fn in_flight_bytes(&self) -> u32 {
        self.nxt - self.una
    }

    /// Bytes queued or in flight that are not acknowledged, FIN not included.
    pub fn unacknowledged_bytes(&self) -> usize {
        self.queue.end().bytes_past(self.una) as usize
    }

    /// True if the peer still has something to acknowledge.
    pub fn is_outstanding(&self) -> bool {
        self.nxt != self.una || !self.queue.is_empty() || (self.closing && !self.fin_sent())
    }

    /// True if our FIN has been sent.
    pub fn fin_sent(&self) -> bool {
        !matches!(self.state, State::Established | State::CloseWait)
    }

    /// True if a turn may have something to do: what is left to do otherwise, a segment or a timer will begin.
    pub fn has_work(&self) -> bool {
        self.wants_writable
            || self.ack_pending
            || self.probe_due
            || self.nxt < self.queue.end()
            || (self.closing && !self.fin_sent())
            || self.recovery.is_active()
    }

    /// True while the peer may send payload.
    pub fn is_receiving(&self) -> bool {
        matches!(self.state, State::Established | State::FinWait1 | State::FinWait2)
    }

    /// Payload bytes of a full segment to this peer over a link with this MTU, without SACK blocks.
    pub fn full_segment_bytes(&self, mtu_bytes: u16) -> u32 {
        let mss_bytes = self.path.mss_bytes(mtu_bytes).max(MIN_PEER_MSS_BYTES).min(self.peer_mss_bytes);
        u32::from(mss_bytes) - timestamp_bytes(self.timestamps.is_some()) as u32
    }

    /// The initial window in bytes (RFC 6928).
    pub fn initial_window_bytes(&self, config: &Config) -> u32 {
        config.initial_window_segments.max(1) * self.mss_bytes
    }

    /// Received bytes, in order, that the application has not consumed.
    pub fn unread_bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.unread().len())
    }

    /// Bytes that the send queue takes now.
    pub fn room_bytes(&self, context: &Context) -> usize {
        self.queue_limit_bytes(context).saturating_sub(self.unacknowledged_bytes())
    }

    /// Room from which on `writable` is called again after the queue had been full: a good part of a super-frame.
    pub fn refill_bytes(&self, context: &Context) -> usize {
        (self.queue_limit_bytes(context) / 4).min(context.config.max_frame_bytes)
    }

    /// What the send queue may hold: twice what the path takes, so that the next window is there when this one is
    /// acknowledged; less when memory is short.
    fn queue_limit_bytes(&self, context: &Context) -> usize {
        let config = &context.config;
        let window_bytes = self.congestion.window_bytes().min(self.window_bytes) as usize;
        let most = config.send_queue_max_bytes.max(config.send_queue_min_bytes);
        let limit = (2 * window_bytes).clamp(config.send_queue_min_bytes, most);
        context.pressure_bytes.map_or(limit, |pressure| limit.min(pressure))
    }

    /// The retransmission timeout as it stands.
    pub fn rto(&self, config: &Config) -> Duration {
        self.rtt.timeout(config.rto_min, config.rto_max)
    }

    /// When the peer will have acknowledged nothing for too long.
    pub fn stalls_at(&self, config: &Config) -> Deadline {
        if self.is_outstanding() { Deadline::at(self.progress_at + config.stall_timeout) } else { Deadline::NEVER }
    }

    /// The earliest of the connection's deadlines.
    pub fn next_deadline(&self, config: &Config) -> Deadline {
        self.rto_at
            .min(self.delayed_ack_at)
            .min(self.application_at)
            .min(self.fin_wait_at)
            .min(self.retry_at)
            .min(self.stalls_at(config))
    }

    /// The peer has something new to acknowledge; if that was not so before, its time begins now.
    pub fn note_outstanding(&mut self, now: Instant) {
        if !self.is_outstanding() {
            self.progress_at = now;
        }
    }

    /// What TIME-WAIT has to remember.
    pub fn time_wait(&self, now: Instant, config: &Config) -> TimeWait {
        TimeWait {
            key: self.path.key,
            hash: self.hash,
            snd_nxt: self.nxt,
            rcv_nxt: self.rcv_nxt,
            timestamps: self.timestamps.map(|timestamps| (timestamps.recent, timestamps.offset)),
            expires_at: now + config.time_wait,
        }
    }
}
