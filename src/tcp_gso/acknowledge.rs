//! What an acknowledgement does to the sending half (RFC 9293 §3.10.7.4, RFC 5681, RFC 6298, RFC 7323 §4).

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::TcpRepr;

use super::connection::{Connection, State};
use super::context::Context;
use super::deadline::Deadline;
use super::sequence::Seq;

/// Longest round trip that a timestamp is believed to show.
const MAX_ECHO_AGE_MS: u32 = 120_000;

impl Connection {
    /// Takes in the acknowledgement, SACK blocks, timestamp echo and window of a segment that is acceptable; `length` is what
    /// it occupies of the sequence space.
    pub fn on_acknowledgement(
        &mut self,
        header: &TcpRepr<'_>,
        ack: Seq,
        length: u32,
        context: &mut Context,
        now: Instant,
    ) {
        let window_bytes = u32::from(header.window_len) << self.window_shift;
        let mut news = false;
        if self.nxt != self.una && header.sack_ranges[0].is_some() {
            if self.recovery.needs_scoreboard()
                && let Some(scoreboard) = context.scoreboards.pop()
            {
                self.recovery.set_scoreboard(scoreboard);
            }
            for (left, right) in header.sack_ranges.iter().flatten() {
                // Relative to what this segment acknowledges, not to what was before.
                let flight = super::recovery::Flight { una: self.una.max(ack), ..self.flight() };
                news |= self.recovery.on_sack(flight, Seq(*left), Seq(*right));
            }
        }
        if ack > self.una {
            self.on_progress(header, ack, context, now);
        } else if ack == self.una && self.nxt != self.una {
            // RFC 6675 counts segments that bring news, RFC 5681 those that bring nothing else.
            let duplicate =
                if self.recovery.uses_sack() { news } else { length == 0 && window_bytes == self.window_bytes };
            if duplicate && !self.probing {
                self.recovery.on_duplicate(self.flight());
            }
        }
        self.update_window(header, ack, window_bytes, context, now);
        if self.recovery.enter_if_lost(self.flight()) {
            context.stats.tcp_fast_retransmits.increment();
            self.congestion.on_loss(self.in_flight_bytes(), self.mss_bytes);
            self.timed = None;
        }
        if self.blocked && !self.closing && self.room_bytes(context) >= self.refill_bytes(context) {
            self.blocked = false;
            self.wants_writable = true;
        }
    }

    /// SND.UNA moves on to `ack`.
    fn on_progress(&mut self, header: &TcpRepr<'_>, ack: Seq, context: &mut Context, now: Instant) {
        let flight_bytes = self.in_flight_bytes();
        if ack > self.nxt {
            // The peer has taken the byte of a window probe.
            self.nxt = ack;
            self.queue.advance_cursor(ack);
        }
        self.probing = false;
        let bytes = ack - self.una;
        let payload_bytes = ack.min(self.queue.end()).bytes_past(self.una);
        self.una = ack;
        self.queue.acknowledge(ack);
        if self.queue.is_empty() {
            context.storages.extend(self.queue.take_storage());
        }
        self.acknowledged_bytes += u64::from(payload_bytes);
        self.progress_at = now;
        self.measure(header, ack, now);

        let after_timeout = self.recovery.is_after_timeout();
        let left_fast = self.recovery.on_acknowledged(self.flight(), bytes);
        if left_fast {
            self.congestion.on_recovered(self.in_flight_bytes(), self.mss_bytes);
        } else if after_timeout {
            self.congestion.on_acknowledged_after_timeout(bytes, self.mss_bytes);
        } else if !self.recovery.is_fast() {
            // A window that is not used does not grow (RFC 7661); super-frames leave some of it unused.
            let slow_start = self.congestion.in_slow_start();
            let used = self.congestion_limited || (slow_start && 2 * flight_bytes > self.congestion.window_bytes());
            if used {
                self.congestion.on_acknowledged(bytes, self.mss_bytes);
            }
        }

        self.arm_retransmission(context, now);
        if self.fin_sent() && self.una == self.queue.end() + 1 {
            self.on_fin_acknowledged(context, now);
        }
    }

    fn on_fin_acknowledged(&mut self, context: &Context, now: Instant) {
        self.state = match self.state {
            State::FinWait1 => {
                self.fin_wait_at = Deadline::at(now + context.config.fin_wait_2_timeout);
                State::FinWait2
            }
            State::Closing => State::TimeWait,
            State::LastAck => State::Closed,
            other => other,
        };
    }

    /// Measures the round trip: of one segment a flight to the microsecond, or, when that was disturbed by a
    /// retransmission, by the timestamp that the peer echoes.
    fn measure(&mut self, header: &TcpRepr<'_>, ack: Seq, now: Instant) {
        if let Some((end, sent_at)) = self.timed {
            if ack >= end {
                self.timed = None;
                self.rtt.sample(now - sent_at);
            }
        } else if let (Some(timestamps), Some(echo)) = (&self.timestamps, header.timestamp) {
            let age_ms = timestamps.value(now).wrapping_sub(echo.tsecr);
            if echo.tsecr != 0 && age_ms <= MAX_ECHO_AGE_MS {
                self.rtt.sample(Duration::from_millis(u64::from(age_ms).max(1)));
            }
        }
    }

    /// SND.WND, unless the segment is older than the one that set it (RFC 9293 §3.10.7.4).
    fn update_window(&mut self, header: &TcpRepr<'_>, ack: Seq, window_bytes: u32, context: &Context, now: Instant) {
        let seq = Seq::from(header.seq_number);
        let (wl1, wl2) = self.window_from;
        if ack < self.una || seq < wl1 || (seq == wl1 && ack < wl2) {
            return;
        }
        if window_bytes > self.window_bytes && (self.window_bytes == 0 || self.nxt == self.una) {
            // It was the window that we waited for, and not the path.
            self.rtt.forget_backoff();
            self.arm_retransmission(context, now);
            self.probe_due = false;
        }
        self.window_bytes = window_bytes;
        self.max_window_bytes = self.max_window_bytes.max(window_bytes);
        self.window_from = (seq, ack);
    }

    /// Sets the retransmission timer if anything is in flight, and else unsets it.
    fn arm_retransmission(&mut self, context: &Context, now: Instant) {
        let in_flight = self.una != self.nxt;
        self.rto_at = if in_flight { Deadline::at(now + self.rto(&context.config)) } else { Deadline::NEVER };
    }

    /// The retransmission or persist timer has expired (RFC 6298 §5, RFC 9293 §3.8.6.1).
    pub fn on_retransmission_timeout(&mut self, context: &Context, now: Instant) {
        let again = self.rtt.is_backed_off();
        self.rtt.back_off();
        self.timed = None;
        self.rto_at = Deadline::at(now + self.rto(&context.config));
        if self.nxt == self.una || self.window_bytes == 0 {
            // Nothing is lost: the peer's window is shut, and its opening may have been.
            self.probe_due = true;
            return;
        }
        self.timed_out = true;
        context.stats.tcp_timeouts.increment();
        let repeated = again && self.recovery.is_after_timeout();
        self.congestion.on_timeout(self.in_flight_bytes(), self.mss_bytes, repeated);
        self.recovery.on_timeout(self.flight(), repeated);
    }
}
