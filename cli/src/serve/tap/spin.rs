//! Whether to look for frames for a while before sleeping.
//!
//! A core that falls asleep and is woken costs a small request more than everything else does. So when idle times have lately
//! been shorter than [`SPIN`], it pays to wait awake. Where it was in vain, longer proof is asked for the next time: an idle
//! server sleeps, and so does one whose clients need its core.

use smoltcp::time::{Duration, Instant};

/// How long to wait awake at most.
pub const SPIN: Duration = Duration::from_micros(200);

/// Short idle times in a row before spinning begins: at least, and at most after it was in vain again and again.
const LEAST_PROOF: u32 = 4;
const MOST_PROOF: u32 = 1024;

/// What idle times have been like.
pub struct Spin {
    /// The idle time under way began then.
    since: Option<Instant>,
    /// When it was last seen that nothing had come.
    seen_at: Instant,
    /// The idle time under way has been spent awake so far.
    spinning: bool,
    /// Short idle times in a row.
    proof: u32,
    proof_needed: u32,
}

impl Spin {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self { since: None, seen_at: Instant::ZERO, spinning: false, proof: 0, proof_needed: LEAST_PROOF }
    }

    /// Something was done: the idle time is over.
    pub fn worked(&mut self) {
        let Some(since) = self.since.take() else { return };
        if self.seen_at - since > SPIN {
            self.proof = 0;
            return;
        }
        self.proof = self.proof.saturating_add(1);
        if self.spinning {
            self.proof_needed = (self.proof_needed / 2).max(LEAST_PROOF);
        }
    }

    /// There is nothing to do. True if it pays to look again at once.
    pub fn is_worth_it(&mut self, now: Instant) -> bool {
        if self.since.is_none() {
            self.since = Some(now);
            self.spinning = self.proof >= self.proof_needed;
        }
        self.seen_at = now;
        let expired = self.since.is_some_and(|since| now - since > SPIN);
        if self.spinning && expired {
            self.spinning = false;
            self.proof = 0;
            self.proof_needed = (self.proof_needed * 2).min(MOST_PROOF);
        }
        self.spinning
    }

    /// A sleep has ended.
    pub fn slept(&mut self, now: Instant) {
        self.seen_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event loop whose next event comes when `event_us` says, given whether it spins; or no sooner than it sleeps, with
    /// `needs_core`.
    struct Loop {
        spin: Spin,
        now: Instant,
        slept: u32,
        awake_us: u64,
    }

    impl Loop {
        fn new() -> Self {
            Self { spin: Spin::new(), now: Instant::ZERO, slept: 0, awake_us: 0 }
        }

        fn idle(&mut self, event_us: u64, needs_core: bool) {
            let mut left_us = event_us;
            loop {
                if !self.spin.is_worth_it(self.now) {
                    self.slept += 1;
                    self.now += Duration::from_micros(left_us);
                    self.spin.slept(self.now);
                    break;
                }
                self.now += Duration::from_micros(1);
                self.awake_us += 1;
                left_us -= u64::from(!needs_core);
                if left_us == 0 {
                    break;
                }
            }
            self.spin.worked();
        }
    }

    #[test]
    fn short_idle_times_are_spent_awake() {
        let mut world = Loop::new();
        (0..1000).for_each(|_| world.idle(50, false));
        assert_eq!(world.slept, LEAST_PROOF);
        // One that is longer now and then changes little.
        (0..1000).for_each(|i| world.idle(if i % 100 == 0 { 5000 } else { 50 }, false));
        assert!(world.slept < 150, "{}", world.slept);
    }

    #[test]
    fn who_is_idle_for_long_sleeps() {
        let mut world = Loop::new();
        (0..1000).for_each(|_| world.idle(1000, false));
        assert_eq!((world.slept, world.awake_us), (1000, 0));
        (0..20).for_each(|_| world.idle(20, false));
        let awake_us = world.awake_us;
        world.idle(1_000_000, false);
        assert!(world.awake_us - awake_us <= SPIN.total_micros() + 1);
    }

    #[test]
    fn who_has_its_clients_core_gives_it_up() {
        let mut world = Loop::new();
        (0..10_000).for_each(|_| world.idle(30, true));
        assert!(world.awake_us < 20 * SPIN.total_micros(), "{} us in vain", world.awake_us);
    }
}
