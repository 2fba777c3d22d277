//! What goes wrong on the way.

use core::fmt;
use smoltcp::time::Duration;

/// How long a reordered segment is held back, and a duplicate comes late, at most, unless told otherwise.
pub const DEFAULT_HOLD: Duration = Duration::from_millis(5);

/// Least bytes that may wait for a bottleneck whose queue is not given: some forty full segments.
const LEAST_QUEUE_BYTES: u64 = 64 << 10;

/// What one direction of a wire does to segments. Probabilities are from 0 to 1, for each segment on its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Probability of being lost, after it has taken its time on the bottleneck.
    pub loss: f64,
    /// Time on the way.
    pub delay: Duration,
    /// The delay varies by up to so much in both directions, evenly; at most `delay`. It does not change the order: what would
    /// overtake arrives together with the one before it.
    pub jitter: Duration,
    /// Probability of being held back for a random time of at most `hold`, so that later segments overtake it.
    pub reorder: f64,
    /// Probability of arriving twice, the second time a random time of at most `hold` later.
    pub duplicate: f64,
    /// Probability that one bit behind the Ethernet header is flipped. Only IP packets are hit: what no checksum but the
    /// Ethernet's own protects would have been lost on a real wire, never delivered.
    pub corrupt: f64,
    /// See `reorder` and `duplicate`.
    pub hold: Duration,
    /// Bits per second of the bottleneck, where segments follow one another (Ethernet header included, preamble and check
    /// sequence not). `None`: there is none.
    pub rate_bits_per_s: Option<u64>,
    /// Bytes of segments that may wait for the bottleneck; what comes beyond them is lost. `None`: those of 100 ms, at least
    /// 64 KiB.
    pub queue_bytes: Option<u64>,
}

impl Impairment {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        loss: 0.0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        reorder: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        hold: DEFAULT_HOLD,
        rate_bits_per_s: None,
        queue_bytes: None,
    };

    /// True if frames pass as they are, at once.
    pub fn is_none(&self) -> bool {
        self.delay == Duration::ZERO && !self.needs_segments()
    }

    /// True if what happens to a segment must not happen to a super-frame instead. Only a constant delay is the same for
    /// both.
    pub fn needs_segments(&self) -> bool {
        let accidents = [self.loss, self.reorder, self.duplicate, self.corrupt];
        accidents.iter().any(|p| *p > 0.0) || self.jitter > Duration::ZERO || self.rate_bits_per_s.is_some()
    }

    /// Bytes that may wait for a bottleneck of `rate` bits per second.
    pub fn queue_bytes_at(&self, rate: u64) -> u64 {
        self.queue_bytes.unwrap_or((rate / 80).max(LEAST_QUEUE_BYTES))
    }
}

impl Default for Impairment {
    fn default() -> Self {
        Self::NONE
    }
}

/// As it would be given, without the defaults: `loss=1%,delay=20ms`. "nothing" where nothing goes wrong.
impl fmt::Display for Impairment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("nothing");
        }
        let mut parts = Parts { f, prefix: "", any: false };
        parts.write(self, &Self::NONE)
    }
}

/// What goes wrong in the two directions of a wire, and the seed that decides when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairments {
    /// On the way to us.
    pub rx: Impairment,
    /// On the way from us.
    pub tx: Impairment,
    /// Decides everything that looks random: the same frames at the same times meet the same accidents.
    pub seed: u64,
}

impl Impairments {
    /// Nothing goes wrong.
    pub const NONE: Self = Self { rx: Impairment::NONE, tx: Impairment::NONE, seed: 1 };

    /// The same in both directions.
    pub fn both(impairment: Impairment, seed: u64) -> Self {
        Self { rx: impairment, tx: impairment, seed }
    }
}

/// As it would be given; reading it gives the same again.
impl fmt::Display for Impairments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Parts { f, prefix: "", any: false };
        if self.rx == self.tx {
            parts.write(&self.rx, &Impairment::NONE)?;
        } else {
            parts.prefix = "rx.";
            parts.write(&self.rx, &Impairment::NONE)?;
            parts.prefix = "tx.";
            parts.write(&self.tx, &Impairment::NONE)?;
            parts.prefix = "";
        }
        parts.one("seed", format_args!("{}", self.seed))
    }
}

/// Writes `name=value` parts with commas between them.
struct Parts<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    prefix: &'static str,
    any: bool,
}

impl Parts<'_, '_> {
    fn one(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        let comma = if core::mem::replace(&mut self.any, true) { "," } else { "" };
        write!(self.f, "{comma}{}{name}={value}", self.prefix)
    }

    /// What differs from `usual`.
    fn write(&mut self, it: &Impairment, usual: &Impairment) -> fmt::Result {
        let percentages = [
            ("loss", it.loss, usual.loss),
            ("reorder", it.reorder, usual.reorder),
            ("duplicate", it.duplicate, usual.duplicate),
            ("corrupt", it.corrupt, usual.corrupt),
        ];
        let times =
            [("delay", it.delay, usual.delay), ("jitter", it.jitter, usual.jitter), ("hold", it.hold, usual.hold)];
        for (name, value, usual) in percentages {
            if value != usual {
                // A millionth of a percent is the finest that is shown.
                let millionths = (value * 1e8 + 0.5) as u64;
                self.one(name, format_args!("{}%", millionths as f64 / 1e6))?;
            }
        }
        for (name, value, usual) in times {
            if value != usual {
                let us = value.total_micros();
                match us % 1000 {
                    0 => self.one(name, format_args!("{}ms", us / 1000))?,
                    _ => self.one(name, format_args!("{us}us"))?,
                }
            }
        }
        if let Some(rate) = it.rate_bits_per_s {
            let (divisor, unit) = match rate {
                _ if rate % 1_000_000_000 == 0 => (1_000_000_000, "gbit"),
                _ if rate % 1_000_000 == 0 => (1_000_000, "mbit"),
                _ if rate % 1000 == 0 => (1000, "kbit"),
                _ => (1, "bit"),
            };
            self.one("rate", format_args!("{}{unit}", rate / divisor))?;
        }
        if let Some(bytes) = it.queue_bytes {
            match bytes % 1024 {
                0 => self.one("queue", format_args!("{}k", bytes / 1024))?,
                _ => self.one("queue", format_args!("{bytes}"))?,
            }
        }
        Ok(())
    }
}
