//! A time that may be never: small, and cheap to compare, since a connection has six of them.

use smoltcp::time::Instant;

/// When something is due, if ever. The earlier one is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    micros: i64,
}

impl Deadline {
    /// Not due at any time.
    pub const NEVER: Self = Self { micros: i64::MAX };

    /// Due at `at`.
    pub fn at(at: Instant) -> Self {
        Self { micros: at.total_micros() }
    }

    /// True unless it is never due.
    pub fn is_set(self) -> bool {
        self != Self::NEVER
    }

    /// True at its time and later.
    pub fn is_due(self, now: Instant) -> bool {
        self.micros <= now.total_micros()
    }

    /// Its time, if it has one.
    pub fn instant(self) -> Option<Instant> {
        self.is_set().then(|| Instant::from_micros(self.micros))
    }
}

impl From<Option<Instant>> for Deadline {
    fn from(at: Option<Instant>) -> Self {
        at.map_or(Self::NEVER, Self::at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_later_than_any_time() {
        let at = Deadline::at(Instant::from_secs(7));
        assert!(at < Deadline::NEVER && at.is_set() && !Deadline::NEVER.is_set());
        assert!(at.is_due(Instant::from_secs(7)) && !at.is_due(Instant::from_millis(6999)));
        assert!(!Deadline::NEVER.is_due(Instant::from_secs(1i64 << 40)));
        assert_eq!(Deadline::from(at.instant()), at);
        assert_eq!(Deadline::from(None).instant(), None);
    }
}
