//! Tells a slow reader from one that makes progress.

use smoltcp::time::Instant;

use super::config::Config;

/// Watches what a peer acknowledges, in windows of two [`Config::stall_timeout`]s.
#[derive(Clone, Copy, Debug)]
pub struct ReaderWatch {
    started: Instant,
    acknowledged_bytes: u64,
    /// What had been acknowledged at the middle of the window.
    middle_bytes: Option<u64>,
}

/// The peer is too slow; its connection is to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled;

impl ReaderWatch {
    /// Begins a window. To be done whenever bytes are queued while the peer owes nothing.
    pub fn new(now: Instant, acknowledged_bytes: u64) -> Self {
        Self { started: now, acknowledged_bytes, middle_bytes: None }
    }

    /// Judges a peer that owes acknowledgements, and returns when to judge again.
    pub fn check(&mut self, now: Instant, acknowledged_bytes: u64, config: &Config) -> Result<Instant, Stalled> {
        let half = config.stall_timeout;
        let Some(middle_bytes) = self.middle_bytes else {
            if now < self.started + half {
                return Ok(self.started + half);
            }
            if acknowledged_bytes == self.acknowledged_bytes {
                return Err(Stalled);
            }
            self.middle_bytes = Some(acknowledged_bytes);
            return Ok((self.started + half * 2).max(now));
        };
        if now < self.started + half * 2 {
            return Ok(self.started + half * 2);
        }
        let needed_bytes = config.min_rate_bytes_per_s.saturating_mul(half.secs().saturating_mul(2));
        if acknowledged_bytes == middle_bytes || acknowledged_bytes - self.acknowledged_bytes < needed_bytes {
            return Err(Stalled);
        }
        *self = Self::new(now, acknowledged_bytes);
        Ok(now + half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::time::Duration;

    /// Judges a reader that has acknowledged `bytes(s)` bytes after `s` seconds, and returns when it was found to stall.
    fn stalls_after_s(bytes: impl Fn(u64) -> u64) -> Option<u64> {
        let config = Config::default();
        let mut watch = ReaderWatch::new(Instant::from_secs(0), bytes(0));
        let mut now_s = 0;
        while now_s < 600 {
            match watch.check(Instant::from_secs(now_s as i64), bytes(now_s), &config) {
                Ok(next) => now_s = (next - Instant::from_secs(0)).secs(),
                Err(Stalled) => return Some(now_s),
            }
        }
        None
    }

    #[test]
    fn progress_is_needed_in_each_half_and_a_rate_over_the_whole() {
        assert_eq!(Config::default().stall_timeout, Duration::from_secs(30));
        assert_eq!(stalls_after_s(|_| 7), Some(30));
        assert_eq!(stalls_after_s(|s| s), Some(60));
        assert_eq!(stalls_after_s(|s| s * 255), Some(60));
        assert_eq!(stalls_after_s(|s| s * 256), None);
        assert_eq!(stalls_after_s(|s| if s < 10 { s * 100_000 } else { 1_000_000 }), Some(60));
        assert_eq!(stalls_after_s(|s| s.min(200) * 1000), Some(240));
    }
}
