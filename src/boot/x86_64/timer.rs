//! Monotonic time and sleep: on a PC the time stamp counter, compared with a timer of known frequency, and the local APIC's alarm; on
//! Xen what Xen says, and a sleep that ends with an event.

use core::arch::x86_64::__cpuid;

use super::apic::{LocalApic, set_deadline};
use super::cpu::{self, in8, in32, out8, time_stamp};
use super::interrupts::{self, FIRST_VECTOR};
use super::xen;
use crate::boot::acpi::PmTimer;
use crate::boot::clock::{Calibration, Clock, Reference, Sample, crystal_frequency, plausible};
use crate::boot::logger;

/// The vector of the local APIC's timer.
const TIMER_VECTOR: u8 = FIRST_VECTOR;

/// What is assumed of a time stamp counter that nothing can be compared with.
const FALLBACK_HZ: u64 = 1_000_000_000;

/// When the frequency is first made more exact, in microseconds; then each time after this many times as long.
const FIRST_REFINEMENT_US: u64 = 2_000;
const REFINEMENT_STEP: u64 = 8;
/// And when that has been enough.
const LAST_REFINEMENT_US: u64 = 1_000_000;

/// How often the reference is asked before it is taken to stand still: some hundred microseconds on any machine.
const MAX_READINGS: u32 = 20_000;

/// Ports of the old interval timer.
const PIT_CHANNEL_2: u16 = 0x42;
const PIT_CONTROL: u16 = 0x43;

/// A timer of known frequency, to compare with.
#[derive(Clone, Copy, Debug)]
enum ReferenceTimer {
    /// ACPI's.
    Pm(PmTimer),
    /// The second channel of the old interval timer, which nobody else uses.
    Pit,
}

impl ReferenceTimer {
    fn reference(self) -> Reference {
        match self {
            Self::Pm(timer) => Reference { frequency_hz: 3_579_545, bits: if timer.is_wide { 32 } else { 24 } },
            Self::Pit => Reference { frequency_hz: 1_193_182, bits: 16 },
        }
    }

    /// Lets it count, from its start.
    fn start(self) {
        const GATE: u16 = 0x61;
        // "Interrupt on terminal count": the output stays high from the end of the first round on.
        const CHANNEL_2_ONCE: u8 = 0b1011_0000;
        if let Self::Pit = self {
            // SAFETY: these ports are the interval timer's; its second channel can do no more than sound the speaker, which stays off.
            unsafe {
                out8(GATE, (in8(GATE) & !2) | 1);
                out8(PIT_CONTROL, CHANNEL_2_ONCE);
                out8(PIT_CHANNEL_2, 0);
                out8(PIT_CHANNEL_2, 0);
            }
        }
    }

    /// True if it may have gone round since its start.
    fn is_round(self) -> bool {
        const READ_STATUS_2: u8 = 0b1110_1000;
        const OUTPUT: u8 = 0x80;
        match self {
            // It takes seconds to.
            Self::Pm(_) => false,
            Self::Pit => {
                // SAFETY: as in `start`.
                let status = unsafe {
                    out8(PIT_CONTROL, READ_STATUS_2);
                    in8(PIT_CHANNEL_2)
                };
                status & OUTPUT != 0
            }
        }
    }

    /// It and the time stamp counter at one moment: of some readings the one that took the least time, in which nobody came between.
    fn sample(self) -> Sample {
        const READINGS: usize = 3;
        let reading = |_| {
            let before = time_stamp();
            let reference = self.read();
            let passed = time_stamp().saturating_sub(before);
            (passed, Sample { ticks: before + passed / 2, reference })
        };
        let readings: [(u64, Sample); READINGS] = core::array::from_fn(reading);
        readings.iter().min_by_key(|(passed, _)| *passed).expect("there are some").1
    }

    fn read(self) -> u32 {
        const LATCH_2: u8 = 0b1000_0000;
        match self {
            // SAFETY: reading the timer has no effect.
            Self::Pm(timer) => unsafe { in32(timer.port) },
            Self::Pit => {
                // SAFETY: as in `start`.
                let left = unsafe {
                    out8(PIT_CONTROL, LATCH_2);
                    u16::from_le_bytes([in8(PIT_CHANNEL_2), in8(PIT_CHANNEL_2)])
                };
                // It counts down.
                left.wrapping_neg().into()
            }
        }
    }
}

/// How time begins.
#[derive(Debug)]
pub enum Beginning {
    /// A calibration under way, from the start of the machine on.
    Compare(Comparison),
    /// Xen tells it.
    Xen(xen::clock::Clock),
}

impl Beginning {
    /// Begins to count.
    pub fn compare(apic: LocalApic, pm_timer: Option<PmTimer>, has_deadline: bool) -> Self {
        Self::Compare(Comparison::new(apic, pm_timer, has_deadline))
    }

    /// Ends the first comparison, where there is one.
    pub fn settle(self) -> Timer {
        let clock = match self {
            Self::Compare(comparison) => return comparison.settle(),
            Self::Xen(clock) => clock,
        };
        logger::set_clock(Clock::new(clock.start_ticks(), clock.frequency_hz()));
        Timer { time: Time::Xen(clock), alarm: Alarm::InSleep, refinement: None, refine_at_us: 0, origin: Origin::Said }
    }
}

/// A calibration under way.
#[derive(Debug)]
pub struct Comparison {
    reference: ReferenceTimer,
    calibration: Calibration,
    apic: LocalApic,
    apic_began: u64,
    has_deadline: bool,
}

impl Comparison {
    fn new(mut apic: LocalApic, pm_timer: Option<PmTimer>, has_deadline: bool) -> Self {
        let reference = pm_timer.map_or(ReferenceTimer::Pit, ReferenceTimer::Pm);
        reference.start();
        let calibration = Calibration::new(reference.reference(), reference.sample());
        if has_deadline {
            apic.set_deadline_mode(TIMER_VECTOR);
        } else {
            // It can't reach the end before somebody looks.
            apic.set_one_shot(TIMER_VECTOR);
            apic.start_count(u32::MAX);
        }
        Self { reference, calibration, apic, apic_began: time_stamp(), has_deadline }
    }

    /// What the comparison says so far. Where the reference may have gone round meanwhile, or has hardly counted, a short wait
    /// makes another.
    fn measure(&mut self) -> Option<u64> {
        let sample = self.reference.sample();
        let estimate = self.calibration.first_estimate(sample);
        if estimate.is_some() && !self.reference.is_round() {
            return estimate;
        }
        self.reference.start();
        self.calibration = Calibration::new(self.reference.reference(), self.reference.sample());
        (0..MAX_READINGS).find_map(|_| self.calibration.first_estimate(self.reference.sample()))
    }

    fn settle(mut self) -> Timer {
        let said_hz = said_frequency();
        let (frequency_hz, origin) = match said_hz {
            Some(frequency_hz) => (frequency_hz, Origin::Said),
            None => match self.measure() {
                Some(frequency_hz) => (frequency_hz, Origin::Measured),
                None => (FALLBACK_HZ, Origin::Assumed),
            },
        };
        let apic_passed = u64::from(u32::MAX - self.apic.current_count());
        let passed = time_stamp().saturating_sub(self.apic_began).max(1);
        let apic_hz = (u128::from(apic_passed) * u128::from(frequency_hz) / u128::from(passed)) as u64;
        self.apic.start_count(0);
        let alarm =
            if self.has_deadline { Alarm::Deadline } else { Alarm::Count { apic: self.apic, apic_hz: apic_hz.max(1) } };
        let clock = Clock::new(self.apic_began, frequency_hz);
        logger::set_clock(clock);
        Timer {
            time: Time::Counter(clock),
            alarm,
            refinement: (origin == Origin::Measured).then_some((self.reference, self.calibration)),
            refine_at_us: FIRST_REFINEMENT_US,
            origin,
        }
    }
}

/// The frequency of the time stamp counter, where processor or hypervisor say it exactly.
fn said_frequency() -> Option<u64> {
    const HYPERVISOR: u32 = 0x4000_0000;
    // Introduced by VMware, taken over by KVM: kHz.
    const HYPERVISOR_TIMING: u32 = 0x4000_0010;
    if __cpuid(1).ecx & 1 << 31 != 0 && (HYPERVISOR_TIMING..HYPERVISOR + 0x100).contains(&__cpuid(HYPERVISOR).eax) {
        let khz = __cpuid(HYPERVISOR_TIMING).eax;
        if let Some(frequency_hz) = plausible(u64::from(khz) * 1000) {
            return Some(frequency_hz);
        }
    }
    if __cpuid(0).eax >= 0x15 {
        let ratio = __cpuid(0x15);
        return crystal_frequency(ratio.eax, ratio.ebx, ratio.ecx);
    }
    None
}

/// Where the frequency is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Processor or hypervisor say it.
    Said,
    /// It was compared with a timer.
    Measured,
    /// Nobody knows: it is taken for 1 GHz.
    Assumed,
}

#[derive(Debug)]
enum Time {
    Counter(Clock),
    Xen(xen::clock::Clock),
}

#[derive(Debug)]
enum Alarm {
    Deadline,
    Count {
        apic: LocalApic,
        apic_hz: u64,
    },
    /// Xen has one in its call to sleep.
    InSleep,
}

/// Monotonic time, and sleep.
#[derive(Debug)]
pub struct Timer {
    time: Time,
    alarm: Alarm,
    /// What the counter is compared with, until that has been enough.
    refinement: Option<(ReferenceTimer, Calibration)>,
    refine_at_us: u64,
    origin: Origin,
}

impl Timer {
    /// Microseconds since the machine's start.
    pub fn now_us(&self) -> u64 {
        match &self.time {
            Time::Counter(clock) => clock.us(time_stamp()),
            Time::Xen(clock) => clock.us(),
        }
    }

    /// The counter's frequency, as far as it is known.
    pub fn frequency_hz(&self) -> u64 {
        match &self.time {
            Time::Counter(clock) => clock.frequency_hz(),
            Time::Xen(clock) => clock.frequency_hz(),
        }
    }

    /// Where that is from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Compares again, if it is time. To be called often.
    pub fn refine(&mut self) {
        let Some((timer, calibration)) = self.refinement else { return };
        if self.now_us() < self.refine_at_us {
            return;
        }
        let Time::Counter(clock) = &mut self.time else { return };
        let sample = timer.sample();
        self.refine_at_us = self.refine_at_us.saturating_mul(REFINEMENT_STEP);
        match calibration.refine(sample, clock.frequency_hz()) {
            Some(frequency_hz) => {
                clock.set_frequency(sample.ticks, frequency_hz);
                logger::set_clock(*clock);
            }
            None => self.refinement = None,
        }
        if self.refine_at_us > LAST_REFINEMENT_US {
            self.refinement = None;
        }
    }

    /// Sleeps until an interrupt, or until this time; returns at once if that has passed.
    pub fn sleep_until(&mut self, deadline_us: Option<u64>) {
        let now_us = self.now_us();
        let refine_at_us = self.refinement.map(|_| self.refine_at_us);
        let wake_us = [deadline_us, refine_at_us].into_iter().flatten().min();
        if wake_us.is_some_and(|wake_us| wake_us <= now_us) {
            return;
        }
        match (&mut self.alarm, &self.time, wake_us) {
            (Alarm::Deadline, Time::Counter(clock), Some(wake_us)) => set_deadline(clock.ticks_at(wake_us)),
            (Alarm::Deadline, ..) => set_deadline(0),
            (Alarm::Count { apic, apic_hz }, _, Some(wake_us)) => {
                let count = u128::from(wake_us - now_us) * u128::from(*apic_hz) / 1_000_000 + 1;
                apic.start_count(count.try_into().unwrap_or(u32::MAX));
            }
            (Alarm::Count { apic, .. }, ..) => apic.start_count(0),
            (Alarm::InSleep, time, wake_us) => {
                if let Time::Xen(clock) = time {
                    xen::sleep(wake_us.map(|us| clock.system_time_ns(us)));
                    interrupts::count_one();
                }
                return;
            }
        }
        cpu::halt();
    }
}
