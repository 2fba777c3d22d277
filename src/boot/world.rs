//! The machine as the world under an appliance.

use alloc::rc::Rc;
use core::convert::Infallible;
use smoltcp::time::Instant;

use super::control::Control;
use super::machine::{Machine, Platform as MachinePlatform, Timer, interrupts};
use crate::platform::{Platform, Power};
use crate::stats::Stats;

/// How long after a reading of the wall clock that failed it is tried again, in microseconds.
const WALL_CLOCK_RETRY_US: u64 = 5_000;
/// And how often.
const WALL_CLOCK_TRIES: u32 = 100;
/// How long after one that did not fail it is read again, where whoever sets the clock goes on doing so.
const WALL_CLOCK_INTERVAL_US: u64 = 60_000_000;

/// The machine, with time.
pub struct World {
    /// The machine.
    pub machine: Machine,
    timer: Timer,
    wall_clock: WallClock,
    /// Where there is a toolstack.
    control: Option<Control>,
    stats: Rc<Stats>,
}

/// What is known of the wall clock.
#[derive(Clone, Copy, Debug)]
struct WallClock {
    /// It was this many seconds since 1970 when our time was 0.
    start_unix_s: Option<u64>,
    /// It is read again then, and that may fail so often.
    read_at_us: u64,
    tries: u32,
}

impl World {
    /// The machine with this timer; interrupts are counted in `stats`.
    pub fn new(machine: Machine, timer: Timer, stats: Rc<Stats>) -> Self {
        let wall_clock = WallClock { start_unix_s: None, read_at_us: 0, tries: WALL_CLOCK_TRIES };
        let mut world = Self { machine, timer, wall_clock, control: None, stats };
        world.read_wall_clock();
        world
    }

    /// The timer, to look at.
    pub fn timer(&self) -> &Timer {
        &self.timer
    }

    /// The toolstack is listened to from now on.
    pub fn set_control(&mut self, control: Control) {
        self.control = Some(control);
    }

    /// What the toolstack wants of the machine, once.
    pub fn take_wanted(&mut self) -> Option<Power> {
        self.control.as_mut()?.take_wanted()
    }

    /// Microseconds since the machine's start.
    pub fn now_us(&self) -> u64 {
        self.timer.now_us()
    }

    /// Sleeps until a device wakes us, or until this time.
    pub fn sleep_until_us(&mut self, deadline_us: u64) {
        self.timer.sleep_until(Some(deadline_us));
    }

    fn read_wall_clock(&mut self) {
        let WallClock { read_at_us, tries, .. } = self.wall_clock;
        // Without a look at the time, which may cost: a PC's clock is read once.
        if tries == 0 {
            return;
        }
        let now_us = self.timer.now_us();
        if now_us < read_at_us {
            return;
        }
        let clock = &mut self.wall_clock;
        match self.machine.wall_clock() {
            Some(unix_s) => {
                clock.start_unix_s = Some(unix_s.saturating_sub(now_us / 1_000_000));
                clock.read_at_us = now_us + WALL_CLOCK_INTERVAL_US;
                clock.tries = match self.machine.platform {
                    MachinePlatform::Pc(_) => 0,
                    MachinePlatform::Xen(_) => WALL_CLOCK_TRIES,
                };
            }
            None => {
                clock.read_at_us = now_us + WALL_CLOCK_RETRY_US;
                clock.tries = tries - 1;
            }
        }
    }

    /// Sleeps, whatever happens meanwhile.
    pub fn pause(&mut self, seconds: u32) {
        let until_us = self.timer.now_us() + u64::from(seconds) * 1_000_000;
        while self.timer.now_us() < until_us {
            self.timer.refine();
            self.timer.sleep_until(Some(until_us));
        }
    }
}

impl Platform for World {
    type Error = Infallible;

    fn now(&self) -> Instant {
        Instant::from_micros(self.timer.now_us() as i64)
    }

    fn unix_s(&self) -> u64 {
        self.wall_clock.start_unix_s.map_or(0, |start_unix_s| start_unix_s + self.timer.now_us() / 1_000_000)
    }

    fn work(&mut self) -> Result<bool, Infallible> {
        self.timer.refine();
        self.read_wall_clock();
        Ok(self.control.as_mut().is_some_and(Control::poll))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<(), Infallible> {
        if self.control.as_ref().is_some_and(Control::arm) {
            return Ok(());
        }
        let deadline_us = deadline.map(|at| u64::try_from(at.total_micros()).unwrap_or(0));
        self.timer.sleep_until(deadline_us);
        self.stats.interrupts.set(interrupts::count());
        Ok(())
    }
}
