//! Time from a counter: its frequency, found out while other work is done, and the microseconds that it stands for.
//!
//! The counter runs evenly, but nobody may say how fast. So it is compared with a timer of known frequency, once around the
//! boot's own work and then again at growing distances, each of which makes the frequency more exact. Nobody ever waits for it.

/// Ticks a second become microseconds: `ticks * factor >> SHIFT`.
const SHIFT: u32 = 32;
const US_PER_S: u64 = 1_000_000;

/// Turns a counter into monotonic microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The counter where the present frequency began to count.
    base_ticks: u64,
    /// The time then.
    base_us: u64,
    /// Microseconds a tick, times 2 to the power of [`SHIFT`], rounded up: who sleeps until a deadline finds that it has come.
    factor: u64,
    frequency_hz: u64,
}

impl Clock {
    /// Time is 0 at `ticks`. The frequency must not be 0.
    pub fn new(ticks: u64, frequency_hz: u64) -> Self {
        Self { base_ticks: ticks, base_us: 0, factor: factor(frequency_hz), frequency_hz }
    }

    /// The time at `ticks`; a counter that ran backwards stands still.
    pub fn us(&self, ticks: u64) -> u64 {
        let passed = ticks.saturating_sub(self.base_ticks);
        self.base_us + ((u128::from(passed) * u128::from(self.factor)) >> SHIFT) as u64
    }

    /// From `ticks` on the counter has this frequency. What was told until then stays true.
    pub fn set_frequency(&mut self, ticks: u64, frequency_hz: u64) {
        let base_us = self.us(ticks);
        *self = Self { base_us, ..Self::new(ticks, frequency_hz) };
    }

    /// The present frequency.
    pub fn frequency_hz(&self) -> u64 {
        self.frequency_hz
    }

    /// The counter at a time, rounded up; now at the earliest.
    pub fn ticks_at(&self, us: u64) -> u64 {
        let ahead = us.saturating_sub(self.base_us);
        let ticks = (u128::from(ahead) * u128::from(self.frequency_hz)).div_ceil(u128::from(US_PER_S));
        self.base_ticks.saturating_add(ticks.try_into().unwrap_or(u64::MAX))
    }
}

fn factor(frequency_hz: u64) -> u64 {
    assert!(frequency_hz > 0, "a counter that stands still is no clock");
    (u128::from(US_PER_S) << SHIFT).div_ceil(u128::from(frequency_hz)) as u64
}

/// The frequency of a time stamp counter as `cpuid` says it (leaf 0x15: a crystal's frequency, and the counter's ratio to it).
/// `None` if it says nothing, or what no counter has.
pub fn crystal_frequency(denominator: u32, numerator: u32, crystal_hz: u32) -> Option<u64> {
    let frequency_hz = (u64::from(crystal_hz) * u64::from(numerator)).checked_div(denominator.into())?;
    plausible(frequency_hz)
}

/// A frequency that somebody says, if it may be true.
pub fn plausible(frequency_hz: u64) -> Option<u64> {
    PLAUSIBLE_HZ.contains(&frequency_hz).then_some(frequency_hz)
}

/// A timer of known frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its frequency.
    pub frequency_hz: u32,
    /// Its bits: it counts up, modulo 2 to that power.
    pub bits: u32,
}

impl Reference {
    fn mask(&self) -> u64 {
        (1 << self.bits) - 1
    }
}

/// Both counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The counter whose frequency is wanted.
    pub ticks: u64,
    /// The reference.
    pub reference: u32,
}

/// Finds a counter's frequency by comparing it with a reference.
#[derive(Clone, Copy, Debug)]
pub struct Calibration {
    reference: Reference,
    first: Sample,
}

/// The least that the reference must have counted: with fewer a tick more or less would be more than a percent.
const MIN_REFERENCE_TICKS: u64 = 150;

/// Frequencies that are believed, in Hz.
const PLAUSIBLE_HZ: core::ops::RangeInclusive<u64> = 1_000_000..=100_000_000_000;

impl Calibration {
    /// Begins with this sample.
    pub fn new(reference: Reference, first: Sample) -> Self {
        Self { reference, first }
    }

    /// The frequency as of two samples between which the reference has not gone round. `None` if it has counted too little.
    pub fn first_estimate(&self, sample: Sample) -> Option<u64> {
        let counted = u64::from(sample.reference.wrapping_sub(self.first.reference)) & self.reference.mask();
        self.frequency(sample, counted)
    }

    /// A better frequency as of a later sample, where the reference may have gone round: `estimate_hz` says how often. `None` if it
    /// is too late to tell.
    pub fn refine(&self, sample: Sample, estimate_hz: u64) -> Option<u64> {
        let passed = u128::from(sample.ticks.saturating_sub(self.first.ticks));
        let expected = (passed * u128::from(self.reference.frequency_hz) / u128::from(estimate_hz.max(1))) as u64;
        let period = self.reference.mask() + 1;
        // The estimate may be off by a percent, and that must be less than a quarter of a round.
        if expected / 100 > period / 4 {
            return None;
        }
        let counted = u64::from(sample.reference.wrapping_sub(self.first.reference)) & self.reference.mask();
        // The number of rounds that brings what was counted closest to what is expected.
        let rounds = (expected + period / 2).saturating_sub(counted) / period;
        self.frequency(sample, rounds * period + counted)
    }

    fn frequency(&self, sample: Sample, counted: u64) -> Option<u64> {
        if counted < MIN_REFERENCE_TICKS {
            return None;
        }
        let passed = u128::from(sample.ticks.saturating_sub(self.first.ticks));
        let frequency = (passed * u128::from(self.reference.frequency_hz) / u128::from(counted)) as u64;
        plausible(frequency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIT: Reference = Reference { frequency_hz: 1_193_182, bits: 16 };

    /// Both counters after so many microseconds.
    fn at(us: u64, frequency_hz: u64) -> Sample {
        let reference = (us * 1_193_182 / US_PER_S) & 0xffff;
        Sample { ticks: 77 + us * frequency_hz / US_PER_S, reference: reference as u32 }
    }

    #[test]
    fn two_samples_tell_the_frequency_and_later_ones_better() {
        let truth = 2_893_217_000;
        let calibration = Calibration::new(PIT, at(0, truth));
        assert_eq!(calibration.first_estimate(at(120, truth)), None, "too little has been counted");
        let rough = calibration.first_estimate(at(300, truth)).unwrap();
        assert!(rough.abs_diff(truth) < truth / 200, "{rough}");
        let better = calibration.refine(at(100_000, truth), rough).unwrap();
        assert!(better.abs_diff(truth) < truth / 50_000, "{better}");
        let best = calibration.refine(at(1_300_000, truth), better).unwrap();
        assert!(best.abs_diff(truth) < truth / 1_000_000, "{best}");
        assert_eq!(calibration.refine(at(60_000_000, truth), rough), None, "nobody knows how often it went round");
    }

    #[test]
    fn a_reference_that_stands_still_tells_nothing() {
        let calibration = Calibration::new(PIT, Sample { ticks: 0, reference: 0xffff });
        assert_eq!(calibration.first_estimate(Sample { ticks: 1 << 40, reference: 0xffff }), None);
        assert_eq!(calibration.refine(Sample { ticks: 1000, reference: 0xffff }, 1_000_000_000), None);
        let nonsense = Sample { ticks: 1, reference: 0xfff };
        assert_eq!(calibration.first_estimate(nonsense), None, "no counter is as slow as that");
    }

    #[test]
    fn what_the_processor_says_is_believed_within_reason() {
        assert_eq!(crystal_frequency(2, 168, 24_000_000), Some(2_016_000_000));
        for (denominator, numerator, crystal_hz) in
            [(0, 168, 24_000_000), (2, 0, 24_000_000), (2, 168, 0), (u32::MAX, 1, 1), (1, u32::MAX, u32::MAX)]
        {
            assert_eq!(crystal_frequency(denominator, numerator, crystal_hz), None);
        }
        assert_eq!((plausible(0), plausible(1000), plausible(3_000_000_000)), (None, None, Some(3_000_000_000)));
    }

    #[test]
    fn a_new_frequency_does_not_move_the_past() {
        let mut clock = Clock::new(1000, 1_000_000_000);
        assert_eq!((clock.us(1000), clock.us(0), clock.us(5_001_000)), (0, 0, 5000));
        clock.set_frequency(5_001_000, 2_000_000_000);
        assert_eq!((clock.us(5_001_000), clock.us(5_003_000)), (5000, 5001));
        assert_eq!(clock.frequency_hz(), 2_000_000_000);
    }

    proptest! {
        #[test]
        fn time_never_runs_backwards(
            frequencies in proptest::collection::vec(1_000_000_u64..10_000_000_000, 1..8),
            steps in proptest::collection::vec(0_u64..1_000_000_000_000, 8),
        ) {
            let (mut ticks, mut last_us) = (0, 0);
            let mut clock = Clock::new(0, 1_000_000_000);
            for (frequency, step) in frequencies.into_iter().zip(steps) {
                ticks += step;
                let us = clock.us(ticks);
                prop_assert!(us >= last_us);
                clock.set_frequency(ticks, frequency);
                prop_assert_eq!(clock.us(ticks), us);
                last_us = us;
            }
        }

        #[test]
        fn a_deadline_has_come_when_its_ticks_have(frequency in 1_000_000_u64..10_000_000_000, us in 0_u64..1 << 40) {
            let clock = Clock::new(500, frequency);
            let ticks = clock.ticks_at(us);
            prop_assert!(clock.us(ticks) >= us);
            prop_assert!(clock.us(ticks - 1) <= us + us / 100_000, "{} of {us}", clock.us(ticks));
        }

        #[test]
        fn refining_finds_the_frequency_again(truth in 500_000_000_u64..5_000_000_000, us in 1000_u64..1_200_000) {
            let calibration = Calibration::new(PIT, at(0, truth));
            let estimate = truth / 1000 * 1005;
            let found = calibration.refine(at(us, truth), estimate).unwrap();
            prop_assert!(found.abs_diff(truth) <= truth / us + truth / 1000, "{found} for {truth} after {us} us");
        }
    }
}
