//! Which segments are acceptable, and what they do to a connection before their payload is looked at (before you work on
//! this file, read RFC 9293 §3.10.7.4, RFC 5961 and RFC 7323 §5).

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpControl;

use super::RxSegment;
use super::connection::{Connection, State};
use super::context::Context;
use super::deadline::Deadline;
use super::sequence::Seq;

/// How long TS.Recent is believed (RFC 7323 §5.5).
const TIMESTAMP_LIFETIME: Duration = Duration::from_secs(24 * 24 * 3600);

/// Least time between acknowledgements that answer segments without payload that make no sense (RFC 5961 §7): two ends
/// that disagree must not answer each other for ever.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// What is to be done with a segment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nothing: the segment was not acceptable. An acknowledgement may be due.
    Refused,
    /// The peer has reset the connection.
    Reset,
    /// The segment counts, and so do these bytes of it.
    Taken {
        /// Sequence number of the first byte to take.
        first: Seq,
        /// Payload bytes to skip before it: we had them already.
        skip_bytes: usize,
        /// Payload bytes to take.
        take_bytes: usize,
        /// The peer ends its direction behind them.
        fin: bool,
    },
}

impl Connection {
    /// Checks a segment and takes in everything but its payload.
    pub fn on_segment(&mut self, segment: &RxSegment<'_>, context: &mut Context, now: Instant) -> Arrival {
        let header = &segment.header;
        let seq = Seq::from(header.seq_number);
        let payload_bytes = segment.payload_bytes() as u32;
        let fin = header.control == TcpControl::Fin;
        let length = payload_bytes + u32::from(fin);

        if header.control == TcpControl::Rst {
            return self.on_reset(seq, now);
        }
        if header.control == TcpControl::Syn {
            // RFC 5961 §4: whatever its number.
            self.challenge(now);
            return Arrival::Refused;
        }
        if self.timestamps.is_some() && header.timestamp.is_none() {
            // RFC 7323 §3.2: dropped silently.
            context.stats.tcp_rejected_segments.increment();
            return Arrival::Refused;
        }
        if !self.is_recent(segment, now) || !self.is_in_window(seq, length) {
            context.stats.tcp_rejected_segments.increment();
            if length > 0 {
                // Our acknowledgement was lost, or this is a window probe.
                self.ack_pending = true;
                self.ack_now = true;
            } else {
                self.challenge(now);
            }
            return Arrival::Refused;
        }
        let Some(ack) = header.ack_number.map(Seq::from) else {
            context.stats.tcp_rejected_segments.increment();
            return Arrival::Refused;
        };
        // RFC 5961 §5.2.
        let highest = self.nxt + u32::from(self.probing);
        if ack > highest || i64::from(self.una.distance_from(ack)) > i64::from(self.max_window_bytes) {
            context.stats.tcp_rejected_segments.increment();
            self.challenge(now);
            return Arrival::Refused;
        }
        self.path.remote_hardware_address = segment.remote_hardware_address;
        if let (Some(timestamps), Some(stamp)) = (&mut self.timestamps, header.timestamp)
            && seq <= self.last_ack_sent
            && stamp.tsval.wrapping_sub(timestamps.recent) as i32 >= 0
        {
            timestamps.recent = stamp.tsval;
            timestamps.recent_at = now;
        }
        self.on_acknowledgement(header, ack, length, context, now);
        self.trim(seq, payload_bytes, fin)
    }

    /// A reset must name exactly the next byte; near it, the peer is asked to confirm (RFC 5961 §3.2).
    fn on_reset(&mut self, seq: Seq, now: Instant) -> Arrival {
        if seq == self.rcv_nxt {
            return Arrival::Reset;
        }
        if seq > self.rcv_nxt && seq < self.rcv_edge {
            self.challenge(now);
        }
        Arrival::Refused
    }

    /// Acknowledges what we have, to a peer that sends what makes no sense; not too often.
    fn challenge(&mut self, now: Instant) {
        if self.challenged_at.is_none_or(|at| now >= at + CHALLENGE_INTERVAL) {
            self.challenged_at = Some(now);
            self.ack_pending = true;
            self.ack_now = true;
        }
    }

    /// PAWS (RFC 7323 §5.3): false for a segment older than one that was taken.
    fn is_recent(&self, segment: &RxSegment<'_>, now: Instant) -> bool {
        let (Some(timestamps), Some(stamp)) = (&self.timestamps, segment.header.timestamp) else { return true };
        stamp.tsval.wrapping_sub(timestamps.recent) as i32 >= 0 || now > timestamps.recent_at + TIMESTAMP_LIFETIME
    }

    /// The acceptability test of RFC 9293 §3.10.7.4, with its allowance for acknowledgements while the window is shut, and
    /// for those of a peer that has filled it.
    fn is_in_window(&self, seq: Seq, length: u32) -> bool {
        let edge = self.rcv_edge.max(self.rcv_nxt);
        if length == 0 || edge == self.rcv_nxt {
            seq >= self.rcv_nxt && seq <= edge
        } else {
            seq + length > self.rcv_nxt && seq < edge
        }
    }

    /// Cuts off what we have, what lies beyond the window, and what comes behind the peer's FIN.
    fn trim(&mut self, seq: Seq, payload_bytes: u32, fin: bool) -> Arrival {
        let length = payload_bytes + u32::from(fin);
        let skip_bytes = self.rcv_nxt.bytes_past(seq).min(payload_bytes);
        let first = seq + skip_bytes;
        let edge = self.fin_at.unwrap_or(self.rcv_edge);
        let take_bytes = match self.is_receiving() {
            true => (payload_bytes - skip_bytes).min(edge.bytes_past(first)),
            false => 0,
        };
        let whole = take_bytes == payload_bytes - skip_bytes;
        if length > 0 {
            self.ack_pending = true;
            // What is out of order, repeated or too much is acknowledged at once (RFC 5681 §4.2).
            self.ack_now |= seq != self.rcv_nxt || !whole;
        }
        let fin = fin && whole && self.is_receiving();
        Arrival::Taken { first, skip_bytes: skip_bytes as usize, take_bytes: take_bytes as usize, fin }
    }

    /// RCV.NXT has reached the peer's FIN.
    pub fn on_peer_fin(&mut self) {
        self.rcv_nxt += 1;
        self.ack_pending = true;
        self.ack_now = true;
        self.fin_wait_at = Deadline::NEVER;
        self.state = match self.state {
            State::Established => State::CloseWait,
            State::FinWait1 => State::Closing,
            State::FinWait2 => State::TimeWait,
            other => other,
        };
    }
}
