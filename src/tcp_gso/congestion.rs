//! How much may be in flight (before you work on this file, read RFC 5681; RFC 6928 for the initial window, RFC 3465 for
//! counting bytes).

/// No window grows beyond this: sequence arithmetic needs everything within 2³¹.
const MAX_WINDOW_BYTES: u32 = 1 << 30;

/// Congestion window and slow-start threshold of one connection, and the algorithm that moves them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Congestion {
    /// cwnd in bytes.
    window_bytes: u32,
    /// ssthresh in bytes.
    threshold_bytes: u32,
    algorithm: Algorithm,
}

/// What grows the window in congestion avoidance and says how far it falls on a loss.
#[derive(Clone, Copy, Debug)]
enum Algorithm {
    /// RFC 5681: one MSS a round trip, half after a loss.
    NewReno {
        /// Bytes acknowledged since the window last grew.
        acknowledged_bytes: u32,
    },
}

impl Congestion {
    /// Starts with a window of `initial_bytes`, in slow start.
    pub fn new(initial_bytes: u32) -> Self {
        Self {
            window_bytes: initial_bytes,
            threshold_bytes: MAX_WINDOW_BYTES,
            algorithm: Algorithm::NewReno { acknowledged_bytes: 0 },
        }
    }

    /// cwnd in bytes.
    pub fn window_bytes(&self) -> u32 {
        self.window_bytes
    }

    /// ssthresh in bytes.
    pub fn threshold_bytes(&self) -> u32 {
        self.threshold_bytes
    }

    /// True while the window grows exponentially.
    pub fn in_slow_start(&self) -> bool {
        self.window_bytes < self.threshold_bytes
    }

    /// `bytes` were newly acknowledged, outside fast recovery, while the window was what limited us.
    pub fn on_acknowledged(&mut self, bytes: u32, mss_bytes: u32) {
        let mut left = bytes;
        if self.in_slow_start() {
            let grow = left.min(self.threshold_bytes - self.window_bytes);
            self.window_bytes = self.window_bytes.saturating_add(grow).min(MAX_WINDOW_BYTES);
            left -= grow;
        }
        if left > 0 {
            let Algorithm::NewReno { acknowledged_bytes } = &mut self.algorithm;
            *acknowledged_bytes = acknowledged_bytes.saturating_add(left);
            if *acknowledged_bytes >= self.window_bytes {
                *acknowledged_bytes -= self.window_bytes;
                self.window_bytes = (self.window_bytes + mss_bytes).min(MAX_WINDOW_BYTES);
            }
        }
    }

    /// After a timeout only one MSS an acknowledgement (RFC 3465 §2.3: what it covers may have been sent long ago).
    pub fn on_acknowledged_after_timeout(&mut self, bytes: u32, mss_bytes: u32) {
        self.on_acknowledged(bytes.min(mss_bytes), mss_bytes);
    }

    /// A loss was detected by duplicate acknowledgements with `flight_bytes` outstanding (RFC 5681 §3.2 step 2).
    pub fn on_loss(&mut self, flight_bytes: u32, mss_bytes: u32) {
        self.reduce_threshold(flight_bytes, mss_bytes);
        self.window_bytes = self.threshold_bytes;
    }

    /// Fast recovery is over with `flight_bytes` outstanding: no burst (RFC 6582 §3.2 step 3, option 1).
    pub fn on_recovered(&mut self, flight_bytes: u32, mss_bytes: u32) {
        self.window_bytes = self.threshold_bytes.min(flight_bytes.max(mss_bytes) + mss_bytes);
    }

    /// The retransmission timer expired; `again` if it had for the same data before (RFC 5681 §3.1: then ssthresh stays).
    pub fn on_timeout(&mut self, flight_bytes: u32, mss_bytes: u32, again: bool) {
        if !again {
            self.reduce_threshold(flight_bytes, mss_bytes);
        }
        self.window_bytes = mss_bytes;
    }

    /// Nothing was sent for longer than a retransmission timeout (RFC 5681 §4.1).
    pub fn on_idle(&mut self, initial_bytes: u32) {
        self.window_bytes = self.window_bytes.min(initial_bytes);
    }

    fn reduce_threshold(&mut self, flight_bytes: u32, mss_bytes: u32) {
        let Algorithm::NewReno { acknowledged_bytes } = &mut self.algorithm;
        *acknowledged_bytes = 0;
        self.threshold_bytes = (flight_bytes / 2).max(2 * mss_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1448;

    #[test]
    fn slow_start_doubles_and_avoidance_adds_one_segment_a_window() {
        let mut congestion = Congestion::new(10 * MSS);
        congestion.on_acknowledged(10 * MSS, MSS);
        assert_eq!(congestion.window_bytes(), 20 * MSS);
        congestion.on_loss(20 * MSS, MSS);
        assert_eq!((congestion.window_bytes(), congestion.threshold_bytes()), (10 * MSS, 10 * MSS));
        assert!(!congestion.in_slow_start());
        for _ in 0..10 {
            assert_eq!(congestion.window_bytes(), 10 * MSS);
            congestion.on_acknowledged(MSS, MSS);
        }
        assert_eq!(congestion.window_bytes(), 11 * MSS);
    }

    #[test]
    fn growth_crosses_the_threshold_without_overshooting() {
        let mut congestion = Congestion::new(10 * MSS);
        congestion.on_timeout(40 * MSS, MSS, false);
        assert_eq!((congestion.window_bytes(), congestion.threshold_bytes()), (MSS, 20 * MSS));
        congestion.on_acknowledged_after_timeout(40 * MSS, MSS);
        assert_eq!(congestion.window_bytes(), 2 * MSS);
        congestion.on_acknowledged(40 * MSS, MSS);
        assert_eq!(congestion.window_bytes(), 21 * MSS);
    }

    #[test]
    fn a_second_timeout_leaves_the_threshold() {
        let mut congestion = Congestion::new(10 * MSS);
        congestion.on_timeout(10 * MSS, MSS, false);
        congestion.on_timeout(MSS, MSS, true);
        assert_eq!((congestion.window_bytes(), congestion.threshold_bytes()), (MSS, 5 * MSS));
    }

    #[test]
    fn idleness_shrinks_to_the_initial_window_and_recovery_makes_no_burst() {
        let mut congestion = Congestion::new(100 * MSS);
        congestion.on_idle(10 * MSS);
        assert_eq!(congestion.window_bytes(), 10 * MSS);
        congestion.on_loss(100 * MSS, MSS);
        congestion.on_recovered(2 * MSS, MSS);
        assert_eq!(congestion.window_bytes(), 3 * MSS);
        congestion.on_loss(4 * MSS, MSS);
        congestion.on_recovered(40 * MSS, MSS);
        assert_eq!(congestion.window_bytes(), 2 * MSS);
    }

    #[test]
    fn the_window_has_an_upper_bound() {
        let mut congestion = Congestion::new(10 * MSS);
        for _ in 0..100 {
            congestion.on_acknowledged(congestion.window_bytes(), MSS);
        }
        assert_eq!(congestion.window_bytes(), MAX_WINDOW_BYTES);
    }
}
