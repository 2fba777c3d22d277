//! What was lost, what to send again, and how much is in the network (before you work on this file, read RFC 6675; RFC 6582
//! for peers without SACK).
//!
//! One account serves all states: *pipe*, the bytes believed to be in the network, is compared with the congestion window
//! before anything is sent, new or again. Limited transmit (RFC 3042) follows from it, since every duplicate
//! acknowledgement makes the pipe smaller.

use super::scoreboard::{DUPLICATE_THRESHOLD, Scoreboard};
use super::sequence::Seq;

/// What the sender is doing about losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery: what duplicate acknowledgements and the scoreboard call lost is sent again.
    Fast,
    /// After a timeout: everything that was in flight then counts as lost, but for what is sacked.
    Timeout,
}

/// The part of the send sequence space that the account is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// SND.UNA.
    pub una: Seq,
    /// SND.NXT: behind everything that was ever sent.
    pub nxt: Seq,
    /// MSS in bytes.
    pub mss_bytes: u32,
}

/// Loss recovery of one connection.
#[derive(Debug)]
pub(super) struct Recovery {
    scoreboard: Scoreboard,
    mode: Mode,
    /// The peer sends SACK blocks.
    sack: bool,
    /// RecoveryPoint: SND.NXT when the loss was noticed. Recovery is over when everything before is acknowledged.
    recover: Seq,
    /// Duplicate acknowledgements up to `recover` may come from our own retransmissions (RFC 6582 §3.2 step 1).
    guarded: bool,
    /// HighRxt: behind the highest byte sent again in this recovery.
    high_rxt: Seq,
    /// The next retransmission goes out whatever the pipe holds (RFC 6675 §5 step 4.3).
    forced: bool,
    /// Duplicate acknowledgements in a row.
    duplicates: u8,
    /// Without SACK: bytes that duplicate acknowledgements say have left the network.
    left_bytes: u32,
}

impl Recovery {
    /// Nothing sent yet.
    pub fn new(sack: bool, start: Seq) -> Self {
        Self {
            scoreboard: Scoreboard::default(),
            mode: Mode::Open,
            sack,
            recover: start,
            guarded: false,
            high_rxt: start,
            forced: false,
            duplicates: 0,
            left_bytes: 0,
        }
    }

    /// True if SACK blocks come and there is no memory for them yet.
    pub fn needs_scoreboard(&self) -> bool {
        self.sack && !self.scoreboard.has_memory()
    }

    /// Gives memory for SACK blocks.
    pub fn set_scoreboard(&mut self, scoreboard: Scoreboard) {
        debug_assert!(self.scoreboard.is_empty() && scoreboard.is_empty());
        self.scoreboard = scoreboard;
    }

    /// Takes the memory away, if there is any, when the connection has ended.
    pub fn take_scoreboard(&mut self) -> Option<Scoreboard> {
        self.scoreboard.clear();
        self.scoreboard.has_memory().then(|| core::mem::take(&mut self.scoreboard))
    }

    /// The peer sends SACK blocks.
    pub fn uses_sack(&self) -> bool {
        self.sack
    }

    /// True while losses are being repaired.
    pub fn is_active(&self) -> bool {
        self.mode != Mode::Open
    }

    /// True in fast recovery, where the congestion window does not grow.
    pub fn is_fast(&self) -> bool {
        self.mode == Mode::Fast
    }

    /// True while what a timeout declared lost is being repaired.
    pub fn is_after_timeout(&self) -> bool {
        self.mode == Mode::Timeout
    }

    /// A SACK block; true if it says anything new. Blocks outside of what is in flight are none of ours (or duplicates'
    /// reports, RFC 2883, which say nothing about losses).
    pub fn on_sack(&mut self, flight: Flight, left: Seq, right: Seq) -> bool {
        self.sack && flight.una < left && left < right && right <= flight.nxt && self.scoreboard.add(left, right)
    }

    /// SND.UNA has moved by `bytes` to `flight.una`. True if that ended fast recovery.
    pub fn on_acknowledged(&mut self, flight: Flight, bytes: u32) -> bool {
        self.duplicates = 0;
        self.scoreboard.advance(flight.una);
        if flight.una > self.recover {
            self.guarded = false;
        }
        let was = self.mode;
        if self.mode != Mode::Open && flight.una >= self.recover {
            self.mode = Mode::Open;
            self.forced = false;
        }
        match self.mode {
            Mode::Open => self.left_bytes = 0,
            Mode::Fast => {
                // A partial acknowledgement: the hole that was repaired, and segments that had left the network before.
                self.left_bytes = self.left_bytes.saturating_sub(bytes.saturating_sub(flight.mss_bytes));
                self.high_rxt = self.high_rxt.max(flight.una);
                self.forced = !self.sack;
            }
            Mode::Timeout => self.high_rxt = self.high_rxt.max(flight.una),
        }
        was == Mode::Fast && self.mode == Mode::Open
    }

    /// A duplicate acknowledgement: a segment has reached the peer and it was not the one that it waits for.
    pub fn on_duplicate(&mut self, flight: Flight) {
        self.duplicates = self.duplicates.saturating_add(1);
        if !self.sack && self.mode != Mode::Timeout {
            let most = (flight.nxt - flight.una).saturating_sub(flight.mss_bytes);
            self.left_bytes = (self.left_bytes + flight.mss_bytes).min(most);
        }
    }

    /// Enters fast recovery if what is known calls for it (RFC 6675 §5, RFC 6582 §3.2); true if it did.
    pub fn enter_if_lost(&mut self, flight: Flight) -> bool {
        if self.mode != Mode::Open || flight.una == flight.nxt {
            return false;
        }
        let lost = usize::from(self.duplicates) >= DUPLICATE_THRESHOLD
            || self.scoreboard.lost_edge(flight.una, flight.mss_bytes) > flight.una;
        if !lost || (self.guarded && !self.sack) {
            return false;
        }
        self.mode = Mode::Fast;
        self.recover = flight.nxt;
        self.guarded = true;
        self.high_rxt = flight.una;
        self.forced = true;
        true
    }

    /// The retransmission timer has expired; `again` if it had since the last measured round trip.
    pub fn on_timeout(&mut self, flight: Flight, again: bool) {
        if again || self.scoreboard.reneged(flight.una) {
            self.scoreboard.clear();
        }
        self.mode = Mode::Timeout;
        self.recover = flight.nxt;
        self.guarded = true;
        self.high_rxt = flight.una;
        self.forced = true;
        self.duplicates = 0;
        self.left_bytes = 0;
    }

    /// Everything before this position that is not sacked counts as lost.
    fn lost_edge(&self, flight: Flight) -> Seq {
        let known = self.scoreboard.lost_edge(flight.una, flight.mss_bytes);
        match self.mode {
            Mode::Open => known,
            // Without SACK: the hole at SND.UNA, and nothing else is known.
            Mode::Fast if !self.sack => (flight.una + flight.mss_bytes).max(self.high_rxt).min(flight.nxt),
            Mode::Fast if self.forced => known.max((flight.una + flight.mss_bytes).min(flight.nxt)),
            Mode::Fast => known,
            Mode::Timeout => known.max(self.recover),
        }
    }

    /// Bytes believed to be in the network (SetPipe of RFC 6675 §4).
    pub fn pipe_bytes(&self, flight: Flight) -> u32 {
        let sent = flight.nxt - flight.una;
        if self.mode == Mode::Open && self.scoreboard.is_empty() {
            return sent - self.left_bytes.min(sent);
        }
        let missing = |from: Seq, to: Seq| to.bytes_past(from) - self.scoreboard.sacked_bytes(from, to);
        let ahead = missing(self.lost_edge(flight), flight.nxt);
        let again = if self.mode == Mode::Open { 0 } else { missing(flight.una, self.high_rxt) };
        (ahead + again).saturating_sub(self.left_bytes)
    }

    /// What to send again first, and whether it must not wait for the pipe (NextSeg of RFC 6675 §4, rule 1).
    pub fn next_lost(&self, flight: Flight) -> Option<(Seq, Seq, bool)> {
        if self.mode == Mode::Open {
            return None;
        }
        let hole = self.scoreboard.next_hole(self.high_rxt.max(flight.una), self.lost_edge(flight).min(flight.nxt));
        hole.map(|(from, to)| (from, to, self.forced))
    }

    /// What to send again when there is nothing new to send: holes that are not yet called lost (NextSeg, rule 3).
    pub fn next_suspect(&self, flight: Flight) -> Option<(Seq, Seq)> {
        if self.mode != Mode::Fast {
            return None;
        }
        self.scoreboard.next_hole(self.high_rxt.max(flight.una), self.scoreboard.highest()?)
    }

    /// Bytes up to `end` were sent again.
    pub fn on_retransmitted(&mut self, end: Seq) {
        self.high_rxt = self.high_rxt.max(end);
        self.forced = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const BASE: Seq = Seq(u32::MAX - 5000);

    fn flight(una: u32, nxt: u32) -> Flight {
        Flight { una: BASE + una, nxt: BASE + nxt, mss_bytes: MSS }
    }

    #[test]
    fn sack_repairs_each_hole_once_and_counts_the_pipe() {
        let mut recovery = Recovery::new(true, BASE);
        let now = flight(0, 10_000);
        // Segments 0 and 3 are lost.
        assert!(recovery.on_sack(now, BASE + 1000, BASE + 2000));
        recovery.on_duplicate(now);
        assert!(!recovery.enter_if_lost(now));
        assert_eq!(recovery.pipe_bytes(now), 9000, "limited transmit: one segment has left");
        assert!(recovery.on_sack(now, BASE + 1000, BASE + 3000));
        recovery.on_duplicate(now);
        assert!(!recovery.enter_if_lost(now));
        assert!(recovery.on_sack(now, BASE + 4000, BASE + 5000));
        recovery.on_duplicate(now);
        assert!(recovery.enter_if_lost(now));
        assert_eq!(recovery.next_lost(now), Some((BASE, BASE + 1000, true)));
        recovery.on_retransmitted(BASE + 1000);
        assert_eq!(recovery.next_lost(now), None, "segment 3 is not lost yet");
        assert_eq!(recovery.next_suspect(now), Some((BASE + 3000, BASE + 4000)));
        // 1000 sent again, 3000..4000 and 5000..10000 still under way.
        assert_eq!(recovery.pipe_bytes(now), 1000 + 1000 + 5000);
        assert!(recovery.on_sack(now, BASE + 4000, BASE + 8000));
        assert_eq!(recovery.next_lost(now), Some((BASE + 3000, BASE + 4000, false)));
        assert_eq!(recovery.pipe_bytes(now), 1000 + 2000);
        recovery.on_retransmitted(BASE + 4000);
        assert_eq!(recovery.next_lost(now), None);
        assert!(!recovery.on_acknowledged(flight(3000, 10_000), 3000));
        assert!(recovery.is_fast());
        assert!(recovery.on_acknowledged(flight(10_000, 10_000), 7000));
        assert!(!recovery.is_active());
        assert_eq!(recovery.pipe_bytes(flight(10_000, 10_000)), 0);
    }

    #[test]
    fn without_sack_three_duplicates_repair_one_hole_for_each_partial_acknowledgement() {
        let mut recovery = Recovery::new(false, BASE);
        let now = flight(0, 8000);
        for duplicate in 0..3 {
            assert!(!recovery.enter_if_lost(now), "after {duplicate}");
            recovery.on_duplicate(now);
        }
        assert!(recovery.enter_if_lost(now));
        assert_eq!(recovery.next_lost(now), Some((BASE, BASE + 1000, true)));
        assert_eq!(recovery.pipe_bytes(now), 4000);
        recovery.on_retransmitted(BASE + 1000);
        assert_eq!((recovery.pipe_bytes(now), recovery.next_lost(now)), (5000, None));
        for _ in 0..3 {
            recovery.on_duplicate(now);
        }
        assert_eq!(recovery.pipe_bytes(now), 2000);
        let partial = flight(4000, 8000);
        assert!(!recovery.on_acknowledged(partial, 4000));
        assert_eq!(recovery.next_lost(partial), Some((BASE + 4000, BASE + 5000, true)));
        assert_eq!(recovery.pipe_bytes(partial), 0);
        recovery.on_retransmitted(BASE + 5000);
        assert_eq!(recovery.pipe_bytes(partial), 1000);
        assert!(recovery.on_acknowledged(flight(8000, 8000), 4000));
        // Duplicates of what was sent before the recovery start no second one.
        let after = flight(8000, 12_000);
        for _ in 0..5 {
            recovery.on_duplicate(after);
        }
        assert!(!recovery.enter_if_lost(after));
        let later = flight(9000, 12_000);
        recovery.on_acknowledged(later, 1000);
        for _ in 0..3 {
            recovery.on_duplicate(later);
        }
        assert!(recovery.enter_if_lost(later));
    }

    #[test]
    fn a_timeout_repairs_all_but_what_is_sacked() {
        let mut recovery = Recovery::new(true, BASE);
        let now = flight(0, 5000);
        recovery.on_sack(now, BASE + 2000, BASE + 3000);
        recovery.on_timeout(now, false);
        assert_eq!((recovery.pipe_bytes(now), recovery.next_lost(now)), (0, Some((BASE, BASE + 2000, true))));
        recovery.on_retransmitted(BASE + 1000);
        assert_eq!(
            (recovery.pipe_bytes(now), recovery.next_lost(now)),
            (1000, Some((BASE + 1000, BASE + 2000, false)))
        );
        recovery.on_acknowledged(flight(1000, 5000), 1000);
        recovery.on_retransmitted(BASE + 2000);
        assert_eq!(recovery.next_lost(flight(1000, 5000)), Some((BASE + 3000, BASE + 5000, false)));
        recovery.on_timeout(flight(1000, 5000), true);
        assert_eq!(
            recovery.next_lost(flight(1000, 5000)),
            Some((BASE + 1000, BASE + 5000, true)),
            "sacks are forgotten"
        );
        recovery.on_acknowledged(flight(5000, 5000), 4000);
        assert!(!recovery.is_active());
    }

    #[test]
    fn blocks_outside_the_flight_are_ignored() {
        let mut recovery = Recovery::new(true, BASE);
        let now = flight(1000, 5000);
        for (left, right) in [(0, 500), (500, 2000), (1000, 2000), (4000, 6000), (3000, 3000), (3000, 2000)] {
            assert!(!recovery.on_sack(now, BASE + left, BASE + right), "{left}..{right}");
        }
        assert!(!Recovery::new(false, BASE).on_sack(now, BASE + 2000, BASE + 3000), "not negotiated");
        assert!(recovery.on_sack(now, BASE + 2000, BASE + 5000));
    }
}
