//! What to do when slices that nobody acknowledges pin the cache (see ARCHITECTURE.md, "What always holds").
//!
//! Beyond half of the cache each send queue is cut to one chunk. Where even then readers wait for memory, the slowest ones are
//! reset, a few at a time: their pages come back, and if that is enough nobody else has to go.

use smoltcp::time::{Duration, Instant};

/// Send queues are cut when more than this part of the cache is pinned...
const PRESSED_ABOVE: (usize, usize) = (1, 2);

/// ... and free again when less than this is: the distance keeps the limit from flapping.
const RELIEVED_BELOW: (usize, usize) = (3, 8);

/// How long readers wait for memory before the first connection is reset: what healthy peers acknowledge meanwhile may be enough.
const PATIENCE: Duration = Duration::from_millis(100);

/// Time between resets while memory stays short, and how many each time: 400 a second.
const RESET_INTERVAL: Duration = Duration::from_millis(10);
const RESETS_AT_ONCE: usize = 4;

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pressure {
    pressed: bool,
    /// When connections are to be reset, if readers still wait then.
    reset_at: Option<Instant>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relief {
    /// The limit of the send queues is to be set (true) or lifted (false).
    pub limit: Option<bool>,
    /// So many connections are to be reset.
    pub resets: usize,
}

impl Pressure {
    /// `pinned_bytes` of the cache's `capacity_bytes` are pinned; readers wait for memory if `starved`.
    pub fn update(&mut self, now: Instant, pinned_bytes: usize, capacity_bytes: usize, starved: bool) -> Relief {
        let above = |(part, of): (usize, usize)| pinned_bytes > capacity_bytes / of * part;
        let pressed = above(if self.pressed { RELIEVED_BELOW } else { PRESSED_ABOVE });
        let limit = (pressed != self.pressed).then_some(pressed);
        self.pressed = pressed;
        let mut resets = 0;
        self.reset_at = match self.reset_at {
            // Readers that wait though little is pinned wait for the disk, or for each other.
            _ if !pressed => None,
            Some(at) if starved && now >= at => {
                resets = RESETS_AT_ONCE;
                Some(now + RESET_INTERVAL)
            }
            // Once begun, an episode lasts until the pressure is gone: the next reader that waits is not kept for as long.
            Some(at) => Some(at),
            None => starved.then_some(now + PATIENCE),
        };
        Relief { limit, resets }
    }

    /// When to look again though nothing else happens.
    pub fn next_deadline(&self, starved: bool) -> Option<Instant> {
        self.reset_at.filter(|_| starved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 8000;

    #[test]
    fn the_limit_has_hysteresis() {
        let mut pressure = Pressure::default();
        let mut limit = |pinned| pressure.update(Instant::ZERO, pinned, CAPACITY, false).limit;
        assert_eq!(
            [4000, 4001, 5000, 4000, 3001, 3000].map(&mut limit),
            [None, Some(true), None, None, None, Some(false)]
        );
        assert_eq!([3500, 4000, 4001].map(&mut limit), [None, None, Some(true)]);
    }

    #[test]
    fn resets_wait_for_patience_and_stop_with_the_pressure() {
        let mut pressure = Pressure::default();
        let mut now = Instant::ZERO;
        assert_eq!(pressure.update(now, 100, CAPACITY, true).resets, 0, "starved, but not by pins");
        assert_eq!(pressure.next_deadline(true), None);
        assert_eq!(pressure.update(now, 6000, CAPACITY, true).resets, 0);
        assert_eq!(pressure.next_deadline(true), Some(now + PATIENCE));
        assert_eq!(pressure.next_deadline(false), None, "nobody waits");
        now += PATIENCE;
        assert_eq!(pressure.update(now, 6000, CAPACITY, false).resets, 0, "nobody waits any more");
        assert_eq!(pressure.update(now, 6000, CAPACITY, true).resets, RESETS_AT_ONCE);
        assert_eq!(pressure.update(now, 6000, CAPACITY, true).resets, 0);
        now += RESET_INTERVAL;
        assert_eq!(pressure.update(now, 6000, CAPACITY, true).resets, RESETS_AT_ONCE);
        let relief = pressure.update(now + RESET_INTERVAL, 2000, CAPACITY, true);
        assert_eq!(relief, Relief { limit: Some(false), resets: 0 });
        assert_eq!(pressure, Pressure::default());
    }
}
