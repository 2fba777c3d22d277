//! Round-trip time and retransmission timeout (before you work on this file, read RFC 6298).

use smoltcp::time::Duration;

/// The timeout before anything has been measured (RFC 6298 §2.1).
const INITIAL_RTO_US: u32 = 1_000_000;

/// Samples beyond this are no round trips (RFC 6298 asks for a maximum of at least 60 s).
const MAX_SAMPLE_US: u64 = 120_000_000;

/// SRTT, RTTVAR and the back-off of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    /// SRTT in microseconds; 0 before the first sample.
    smoothed_us: u32,
    /// RTTVAR in microseconds.
    variation_us: u32,
    /// Smallest sample in microseconds; `u32::MAX` before the first.
    min_us: u32,
    /// The timeout while nothing has been measured.
    initial_us: u32,
    /// How often the timer has expired since the last sample.
    backoff: u8,
}

impl Rtt {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self { smoothed_us: 0, variation_us: 0, min_us: u32::MAX, initial_us: INITIAL_RTO_US, backoff: 0 }
    }

    /// Nothing measured yet, and the handshake had to be repeated: begin with 3 s (RFC 6298 §5.7).
    pub fn after_lost_handshake() -> Self {
        Self { initial_us: 3 * INITIAL_RTO_US, ..Self::new() }
    }

    /// Takes a measurement; it also ends the back-off (RFC 6298 §5.7, Karn).
    pub fn sample(&mut self, rtt: Duration) {
        let rtt_us = rtt.total_micros().clamp(1, MAX_SAMPLE_US) as u32;
        if self.smoothed_us == 0 {
            self.smoothed_us = rtt_us;
            self.variation_us = rtt_us / 2;
        } else {
            let error_us = self.smoothed_us.abs_diff(rtt_us);
            self.variation_us = self.variation_us - self.variation_us / 4 + error_us / 4;
            self.smoothed_us = (self.smoothed_us - self.smoothed_us / 8 + rtt_us / 8).max(1);
        }
        self.min_us = self.min_us.min(rtt_us);
        self.backoff = 0;
    }

    /// The retransmission timeout. The minimum stands in for RTTVAR (as in Linux), so that a peer that delays its
    /// acknowledgements by up to `min` causes none.
    pub fn timeout(&self, min: Duration, max: Duration) -> Duration {
        let base_us = match self.smoothed_us {
            0 => self.initial_us.into(),
            smoothed_us => u64::from(smoothed_us) + (4 * u64::from(self.variation_us)).max(min.total_micros()),
        };
        Duration::from_micros((base_us << self.backoff.min(16)).min(max.total_micros()))
    }

    /// The timer has expired: doubles the timeout (RFC 6298 §5.5).
    pub fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// The peer opened its window: the next timeout measures the path and not the wait.
    pub fn forget_backoff(&mut self) {
        self.backoff = 0;
    }

    /// True if the timer has expired since the last sample.
    pub fn is_backed_off(&self) -> bool {
        self.backoff > 0
    }

    /// SRTT, once something has been measured.
    pub fn smoothed(&self) -> Option<Duration> {
        (self.smoothed_us != 0).then(|| Duration::from_micros(self.smoothed_us.into()))
    }

    /// The smallest sample in microseconds, once something has been measured.
    pub fn min_us(&self) -> Option<u32> {
        (self.min_us != u32::MAX).then_some(self.min_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_sample_and_the_smoothing_are_those_of_rfc_6298() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.timeout(MIN, MAX), Duration::from_secs(1));
        rtt.sample(Duration::from_millis(800));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(800)));
        assert_eq!(rtt.timeout(MIN, MAX), Duration::from_millis(800 + 4 * 400));
        rtt.sample(Duration::from_millis(1600));
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(900)));
        assert_eq!(rtt.timeout(MIN, MAX), Duration::from_millis(900 + 4 * (300 + 200)));
        assert_eq!(rtt.min_us(), Some(800_000));
    }

    #[test]
    fn the_timeout_keeps_its_minimum_and_doubles_to_its_maximum() {
        let mut rtt = Rtt::new();
        for _ in 0..100 {
            rtt.sample(Duration::from_micros(100));
        }
        assert!(rtt.timeout(MIN, MAX) >= MIN && rtt.timeout(MIN, MAX) < Duration::from_millis(201));
        let base = rtt.timeout(MIN, MAX);
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.timeout(MIN, MAX), base * 4);
        for _ in 0..300 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(MIN, MAX), MAX);
        rtt.sample(Duration::from_micros(100));
        assert_eq!(rtt.timeout(MIN, MAX), base);
    }

    #[test]
    fn a_repeated_handshake_begins_with_three_seconds() {
        assert_eq!(Rtt::after_lost_handshake().timeout(MIN, MAX), Duration::from_secs(3));
    }

    #[test]
    fn absurd_samples_do_not_overflow() {
        let mut rtt = Rtt::new();
        rtt.sample(Duration::from_micros(u64::MAX));
        rtt.sample(Duration::from_micros(0));
        rtt.back_off();
        assert!(rtt.timeout(MIN, MAX) <= MAX);
    }
}
