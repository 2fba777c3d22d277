//! Time as Xen tells it: no counter, chip or interrupt controller of a PC is needed.

use super::shared_info;
use crate::boot::pv_clock::PvClock;

const NS_PER_US: u64 = 1000;
const NS_PER_S: u64 = 1_000_000_000;

/// Xen's system time, in nanoseconds, if Xen says it.
pub fn system_time_ns() -> Option<u64> {
    let (info, tsc) = shared_info::time();
    info.map(|info| info.ns(tsc))
}

/// The wall clock in seconds since 1970, if Xen says it.
pub fn unix_s() -> Option<u64> {
    let start_ns = shared_info::wall_clock_ns().filter(|ns| *ns > 0)?;
    Some(start_ns.saturating_add(system_time_ns()?) / NS_PER_S)
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
