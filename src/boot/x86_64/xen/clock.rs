//! Time as Xen tells it, and its alarm: no counter, chip or interrupt controller of a PC is needed.

use xen_sys::VIRQ_TIMER;

use super::abi::{VCPUOP_SET_SINGLESHOT_TIMER, VcpuSetSingleshotTimer};
use super::{events, hypercall, shared_info};
use crate::boot::pv_clock::PvClock;
use crate::rings::xen::{EventPort, HypercallError};

const NS_PER_US: u64 = 1000;
const NS_PER_S: u64 = 1_000_000_000;

/// Xen's system time, in nanoseconds; 0 where Xen does not say it.
pub fn system_time_ns() -> u64 {
    let (info, tsc) = shared_info::time();
    info.map_or(0, |info| info.ns(tsc))
}

/// The wall clock in seconds since 1970, if Xen says it.
pub fn unix_s() -> Option<u64> {
    let start_ns = shared_info::wall_clock_ns().filter(|ns| *ns > 0)?;
    Some(start_ns.saturating_add(system_time_ns()) / NS_PER_S)
}

/// Monotonic time.
#[derive(Debug)]
pub struct Clock {
    clock: PvClock,
    /// The system time at its beginning, and the time stamp counter.
    start_ns: u64,
    start_ticks: u64,
}

impl Clock {
    /// It begins with 0. `None` if Xen says nothing that makes sense.
    pub fn new() -> Option<Self> {
        let (info, start_ticks) = shared_info::time();
        let info = info?;
        Some(Self { clock: PvClock::new(info), start_ns: info.ns(start_ticks), start_ticks })
    }

    /// Microseconds since its beginning.
    pub fn us(&self) -> u64 {
        let (info, tsc) = shared_info::time();
        self.clock.ns(info, tsc).saturating_sub(self.start_ns) / NS_PER_US
    }

    /// The system time then.
    pub fn system_time_ns(&self, us: u64) -> u64 {
        self.start_ns.saturating_add(us.saturating_mul(NS_PER_US))
    }

    /// The time stamp counter at its beginning.
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// The time stamp counter's frequency, as Xen says it at present.
    pub fn frequency_hz(&self) -> u64 {
        self.clock.frequency_hz()
    }
}

/// The alarm: an event at a moment of system time.
#[derive(Debug)]
pub struct Alarm {
    port: EventPort,
    armed_ns: Option<u64>,
}

impl Alarm {
    /// The alarm, not set.
    ///
    /// # Errors
    /// If Xen refuses.
    pub fn new() -> Result<Self, HypercallError> {
        events::bind_virq(VIRQ_TIMER).map(|port| Self { port, armed_ns: None })
    }

    /// Wakes at this moment of system time at the latest, and perhaps once before: one that is set already and comes earlier is
    /// left as it is, since to wake once costs no more than to ask Xen each time that a deadline moves away. False if Xen refuses.
    pub fn set(&mut self, wake_ns: u64) -> bool {
        // It has come, so it is not set any more. One that comes behind this wakes at once.
        if shared_info::acknowledge(self.port) {
            self.armed_ns = None;
        }
        if self.armed_ns.is_some_and(|armed_ns| armed_ns <= wake_ns) {
            return true;
        }
        let mut timer = VcpuSetSingleshotTimer { timeout_abs_ns: wake_ns, flags: 0 };
        // SAFETY: the structure is the command's, and all that comes of it is an event.
        let is_set = unsafe { hypercall::vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, &mut timer) }.is_ok();
        self.armed_ns = is_set.then_some(wake_ns);
        is_set
    }
}
