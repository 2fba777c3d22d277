//! How long each step of the start took.

use arrayvec::ArrayVec;

use super::console::say;
use super::machine::{Timer, ticks};

/// Most steps.
const MAX_STEPS: usize = 16;

/// The start's steps, by the counter that time is made of: how fast it runs is known only later.
#[derive(Debug)]
pub struct Timeline {
    start: u64,
    steps: ArrayVec<(&'static str, u64), MAX_STEPS>,
}

impl Timeline {
    /// Begins.
    pub fn new() -> Self {
        Self { start: ticks(), steps: ArrayVec::new() }
    }

    /// A step has ended.
    pub fn mark(&mut self, name: &'static str) {
        let _ = self.steps.try_push((name, ticks()));
    }

    /// Prints all steps, and how long it took together.
    pub fn print(&self, timer: &Timer) {
        let end = ticks();
        line("boot time since invoking main", timer, end - self.start);
        let mut before = self.start;
        for &(name, at) in &self.steps {
            line(name, timer, at - before);
            before = at;
        }
        say!(" {:<32}: {end} ticks", "time stamp counter");
        say!("***");
    }
}

fn line(name: &str, timer: &Timer, ticks: u64) {
    let us = (u128::from(ticks) * 1_000_000 / u128::from(timer.frequency_hz())) as u64;
    say!(" {name:<32}: {}.{:06}s", us / 1_000_000, us % 1_000_000);
}
