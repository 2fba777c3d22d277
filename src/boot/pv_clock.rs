//! Xen's clock: what Xen writes of the time stamp counter (`vcpu_time_info` of `xen.h`), and the nanoseconds that it stands for.

use core::cell::Cell;

use super::clock::plausible;

/// How often what somebody is writing is read again before it is given up.
const MAX_TRIES: u32 = 1000;
const NS_PER_S: u64 = 1_000_000_000;

/// What Xen says of the counter, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeInfo {
    tsc_timestamp: u64,
    system_time: u64,
    tsc_to_system_mul: u32,
    tsc_shift: i8,
}

impl TimeInfo {
    /// With these fields of `vcpu_time_info`; `None` if no counter is like that.
    pub fn new(tsc_timestamp: u64, system_time: u64, tsc_to_system_mul: u32, tsc_shift: i8) -> Option<Self> {
        const MAX_SHIFT: u32 = 31;
        let info = Self { tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift };
        let is_possible = tsc_to_system_mul > 0 && tsc_shift.unsigned_abs() as u32 <= MAX_SHIFT;
        (is_possible && plausible(info.frequency_hz()).is_some()).then_some(info)
    }

    /// The counter's frequency.
    pub fn frequency_hz(&self) -> u64 {
        let unshifted = (u128::from(NS_PER_S) << 32) / u128::from(self.tsc_to_system_mul);
        shifted(unshifted, -self.tsc_shift).try_into().unwrap_or(u64::MAX)
    }

    /// Xen's system time when the counter is at `tsc`, in nanoseconds. One from before is taken for the moment of the information.
    /// The difference is modulo 2^64: a guest's counter begins with 0, and the moment may be one of before that.
    pub fn ns(&self, tsc: u64) -> u64 {
        let passed = (tsc.wrapping_sub(self.tsc_timestamp) as i64).max(0) as u128;
        let ns = (shifted(passed, self.tsc_shift) * u128::from(self.tsc_to_system_mul)) >> 32;
        self.system_time.saturating_add(ns.try_into().unwrap_or(u64::MAX))
    }
}

/// `value` times 2 to the power of `shift`.
fn shifted(value: u128, shift: i8) -> u128 {
    let bits = u32::from(shift.unsigned_abs());
    if shift < 0 { value >> bits } else { value << bits }
}

/// Reads what somebody else may be writing, who counts `version` up before and after: it is odd meanwhile. `None` if he never ends.
pub fn read_consistently<T>(mut version: impl FnMut() -> u32, mut copy: impl FnMut() -> T) -> Option<T> {
    for _ in 0..MAX_TRIES {
        let before = version();
        let value = copy();
        if before & 1 == 0 && version() == before {
            return Some(value);
        }
        core::hint::spin_loop();
    }
    None
}

/// Monotonic time by what Xen says.
#[derive(Debug)]
pub struct PvClock {
    info: Cell<TimeInfo>,
    last_ns: Cell<u64>,
}

impl PvClock {
    /// A clock that begins with this information.
    pub fn new(info: TimeInfo) -> Self {
        Self { info: Cell::new(info), last_ns: Cell::new(0) }
    }

    /// Xen's system time when the counter is at `tsc`, by the newest information; where there is none, by what was known. Never
    /// less than what was said before: two processors' counters may differ a little, and we may have moved from one to the other.
    pub fn ns(&self, info: Option<TimeInfo>, tsc: u64) -> u64 {
        if let Some(info) = info {
            self.info.set(info);
        }
        let ns = self.info.get().ns(tsc).max(self.last_ns.get());
        self.last_ns.set(ns);
        ns
    }

    /// The counter's frequency, as last told.
    pub fn frequency_hz(&self) -> u64 {
        self.info.get().frequency_hz()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What Xen says of a counter of this frequency (`set_time_scale`): the factor has its highest bit set.
    fn info(frequency_hz: u64, tsc_timestamp: u64, system_time: u64) -> TimeInfo {
        let (mut shift, mut ns) = (0, u128::from(NS_PER_S) << 64);
        ns /= u128::from(frequency_hz);
        // A tick's nanoseconds, times 2 to the power of 64: brought to what 32 bits behind the point can hold.
        while ns >= 1 << 64 {
            ns >>= 1;
            shift += 1;
        }
        while ns < 1 << 63 {
            ns <<= 1;
            shift -= 1;
        }
        TimeInfo::new(tsc_timestamp, system_time, (ns >> 32) as u32, shift).unwrap()
    }

    #[test]
    fn what_a_bed_of_ours_was_told() {
        // 1 GHz: half a nanosecond, doubled.
        let info = TimeInfo::new(5000, 70, 1 << 31, 1).unwrap();
        assert_eq!((info.ns(5000), info.ns(6000), info.ns(0)), (70, 1070, 70));
        assert_eq!(info.frequency_hz(), NS_PER_S);
    }

    #[test]
    fn the_counter_may_have_begun_after_the_information() {
        // 1 GHz, a second before the guest's counter began.
        let info = TimeInfo::new(0_u64.wrapping_sub(NS_PER_S), 70, 1 << 31, 1).unwrap();
        assert_eq!(info.ns(1000), 70 + NS_PER_S + 1000);
    }

    #[test]
    fn what_no_counter_is_like_is_refused() {
        for (factor, shift) in [(0, 0), (1, 0), (1 << 31, 32), (1 << 31, i8::MIN), (1 << 31, 20), (1 << 31, -20)] {
            assert_eq!(TimeInfo::new(0, 0, factor, shift), None, "{factor} {shift}");
        }
        let late = TimeInfo::new(0, u64::MAX - 1, 1 << 31, 0).unwrap();
        assert_eq!(late.ns(u64::MAX >> 1), u64::MAX);
    }

    #[test]
    fn what_is_being_written_is_read_again() {
        let versions = [7, 8, 8, 9, 10, 10];
        let (mut asked, mut copies) = (versions.iter(), 0);
        // Odd: not asked again. Then it changes meanwhile. Then odd again. Then whole.
        let value = read_consistently(
            || *asked.next().unwrap(),
            || {
                copies += 1;
                copies
            },
        );
        assert_eq!(value, Some(2));
        let mut version = 0;
        let never = read_consistently(
            || {
                version += 2;
                version
            },
            || (),
        );
        assert_eq!(never, None);
        assert_eq!(read_consistently(|| 3, || ()), None);
    }

    proptest! {
        #[test]
        fn time_is_right_within_the_factors_precision(
            frequency_hz in 1_000_000_u64..10_000_000_000, start in 0_u64..1 << 60, s in 0_u64..100_000, rest in 0_u64..1_000_000
        ) {
            let info = info(frequency_hz, start, 12345);
            prop_assert!(info.frequency_hz().abs_diff(frequency_hz) <= 1 + (frequency_hz >> 30));
            let ticks = s * frequency_hz + rest * frequency_hz / 1_000_000;
            let expected = 12345 + (u128::from(ticks) * u128::from(NS_PER_S) / u128::from(frequency_hz)) as u64;
            let ns = info.ns(start + ticks);
            prop_assert!(ns <= expected && expected - ns <= 2 + (expected >> 30), "{ns} for {expected}");
        }

        #[test]
        fn any_information_gives_some_time(
            stamp: u64, time: u64, factor: u32, shift: i8, tsc in proptest::collection::vec(any::<u64>(), 1..10)
        ) {
            if let Some(info) = TimeInfo::new(stamp, time, factor, shift) {
                prop_assert!(tsc.iter().all(|tsc| info.ns(*tsc) >= time));
            }
        }

        #[test]
        fn a_clock_never_runs_backwards(
            steps in proptest::collection::vec((0_u64..1 << 40, 0_u64..1 << 40, 1_000_000_u64..10_000_000_000, any::<bool>()), 1..20)
        ) {
            let clock = PvClock::new(info(NS_PER_S, 0, 0));
            let mut last_ns = 0;
            for (tsc, time, frequency_hz, is_told) in steps {
                let told = is_told.then(|| info(frequency_hz, tsc / 2, time));
                let ns = clock.ns(told, tsc);
                prop_assert!(ns >= last_ns);
                last_ns = ns;
            }
        }
    }
}
