//! One line on a terminal that says what the server is doing.

use std::time::Duration as StdDuration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use minicache::stats::Stats;
use smoltcp::time::{Duration, Instant};

/// Time between two states of the line.
const INTERVAL: Duration = Duration::from_secs(1);

/// The line. While nothing is served it rests, and so does the process.
pub struct StatusLine {
    bar: ProgressBar,
    shown: Sample,
    next: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Sample {
    at: Instant,
    requests: u64,
    bytes: u64,
    connections: u64,
}

impl Sample {
    fn of(stats: &Stats, at: Instant) -> Self {
        let (requests, bytes) = (stats.http_requests.get(), stats.tx_bytes.get());
        Self { at, requests, bytes, connections: stats.connections_open.get() }
    }

    fn same_counts(&self, other: &Self) -> bool {
        *self == Self { at: self.at, ..*other }
    }
}

impl StatusLine {
    /// A line on standard error, if that is a terminal.
    pub fn new(stats: &Stats, now: Instant) -> Option<Self> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            return None;
        }
        bar.set_style(ProgressStyle::with_template("{wide_msg}").expect("the template is right"));
        Some(Self { bar, shown: Sample::of(stats, now), next: None })
    }

    /// Shows what has changed, at most once a second. Returns when to be called again though nothing else happens.
    pub fn update(&mut self, stats: &Stats, now: Instant) -> Option<Instant> {
        let sample = Sample::of(stats, now);
        match self.next {
            Some(at) if now < at => {}
            None if sample.same_counts(&self.shown) => {}
            _ => {
                self.show(sample, stats);
                self.next = (!sample.same_counts(&self.shown)).then_some(now + INTERVAL);
                self.shown = sample;
            }
        }
        self.next
    }

    fn show(&self, sample: Sample, stats: &Stats) {
        let passed = StdDuration::from(sample.at - self.shown.at).as_secs_f64().max(1e-3);
        let rate = |new: u64, old: u64| new.wrapping_sub(old) as f64 / passed;
        let bytes = rate(sample.bytes, self.shown.bytes);
        self.bar.set_message(format!(
            "{} requests ({:.0}/s), {} sent ({}/s), {} connections",
            sample.requests,
            rate(sample.requests, self.shown.requests),
            HumanBytes(stats.tx_bytes.get()),
            HumanBytes(bytes as u64),
            sample.connections,
        ));
        self.bar.tick();
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
