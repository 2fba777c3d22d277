//! An impairment as an operator writes it: `loss=1%,delay=20ms`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use smoltcp::time::Duration;

use super::config::{Impairment, Impairments};
use super::link::MAX_HELD_BYTES;

/// What can be given, in a few lines.
pub const ACCEPTED: &str = "\
parts with commas between them, such as loss=1%,delay=20ms:
  loss=, reorder=, duplicate=, corrupt=  how many of the segments: 1% or 1 (both are percent), 1/100
  delay=, jitter=, hold=                 times: 500us, 20ms, 1.5s (delay is one way; jitter at most delay;
                                         hold is how long a reordered segment is held back at most, 5ms)
  rate=                                  bits per second: 64kbit, 10mbit, 1gbit
  queue=                                 bytes that may wait for rate=: 15000, 64k, 1m (else those of 100 ms)
  seed=                                  a number; the same seed has the same accidents
and before any but seed=, rx. or tx. for one direction alone, such as tx.loss=1%";

/// Longest time that is accepted.
const MAX_TIME_US: f64 = 60e6;

/// Rates that are accepted, in bits per second.
const RATES: core::ops::RangeInclusive<f64> = 1e3..=1e12;

/// What is wrong with an impairment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// There is nothing.
    Empty,
    /// A part that is not `name=value`.
    NoValue(String),
    /// A part with an unknown name.
    UnknownName(String),
    /// A part whose value can't be read, and what it should be.
    BadValue(String, &'static str),
    /// A name that is there twice.
    Twice(String),
    /// More jitter than delay, in this direction.
    JitterBeyondDelay(&'static str),
    /// A queue and nothing to wait for, in this direction.
    QueueWithoutRate(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is nothing"),
            Self::NoValue(part) => write!(f, "'{part}' is no name=value"),
            Self::UnknownName(name) => write!(f, "there is no '{name}='"),
            Self::BadValue(part, wanted) => write!(f, "'{part}': give {wanted}"),
            Self::Twice(name) => write!(f, "'{name}=' is there twice"),
            Self::JitterBeyondDelay(direction) => {
                write!(f, "jitter= must not be more than delay= ({direction}): nothing arrives before it is sent")
            }
            Self::QueueWithoutRate(direction) => {
                write!(f, "queue= needs rate= ({direction}): without a bottleneck nothing waits for one")
            }
        }?;
        write!(f, "\ngive {ACCEPTED}")
    }
}

impl core::error::Error for ParseError {}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Field {
    Probability(fn(&mut Impairment) -> &mut f64),
    Time(fn(&mut Impairment) -> &mut Duration),
    Rate,
    Queue,
}

const FIELDS: [(&str, Field); 9] = [
    ("loss", Field::Probability(|it| &mut it.loss)),
    ("reorder", Field::Probability(|it| &mut it.reorder)),
    ("duplicate", Field::Probability(|it| &mut it.duplicate)),
    ("corrupt", Field::Probability(|it| &mut it.corrupt)),
    ("delay", Field::Time(|it| &mut it.delay)),
    ("jitter", Field::Time(|it| &mut it.jitter)),
    ("hold", Field::Time(|it| &mut it.hold)),
    ("rate", Field::Rate),
    ("queue", Field::Queue),
];

impl Field {
    /// Reads `value` into the field.
    fn read(self, value: &str, into: &mut Impairment) -> Result<(), &'static str> {
        match self {
            Self::Probability(field) => {
                *field(into) = probability(value).ok_or("a percentage from 0 to 100, such as 1%, 0.1% or 1/1000")?;
            }
            Self::Time(field) => {
                *field(into) = time(value).ok_or("a time of at most 60 s with its unit, such as 500us, 20ms or 1s")?;
            }
            Self::Rate => {
                let rate = number(value, &[("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)]);
                let rate = rate.filter(|rate| RATES.contains(rate));
                let wanted = "bits per second from 1kbit to 1000gbit, such as 64kbit, 10mbit or 1gbit";
                into.rate_bits_per_s = Some(rate.ok_or(wanted)? as u64);
            }
            Self::Queue => {
                let bytes = number(value, &[("k", 1024.0), ("m", 1_048_576.0), ("", 1.0)]);
                let bytes = bytes.filter(|bytes| (1.0..=MAX_HELD_BYTES as f64).contains(bytes));
                into.queue_bytes = Some(bytes.ok_or("bytes from 1 to 64m, such as 15000, 64k or 1m")? as u64);
            }
        }
        Ok(())
    }
}

/// A number with one of these units, by what the unit is worth.
fn number(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let (digits, worth) = units.iter().find_map(|(unit, worth)| Some((lower.strip_suffix(unit)?, worth)))?;
    // What `f64` reads is more than what a person writes ("inf", "1e3", "-0").
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value: f64 = digits.parse().ok().filter(|_| is_plain)?;
    Some(value * worth)
}

fn probability(text: &str) -> Option<f64> {
    let value = match text.split_once('/') {
        Some((some, all)) => number(some, &[("", 1.0)])? / number(all, &[("", 1.0)])?,
        None => number(text, &[("%", 1.0), ("", 1.0)])? / 100.0,
    };
    (0.0..=1.0).contains(&value).then_some(value)
}

fn time(text: &str) -> Option<Duration> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let micros = if text == "0" { 0.0 } else { number(text, &units)? };
    // Halves are rounded up; there are no negative numbers here.
    (micros <= MAX_TIME_US).then(|| Duration::from_micros((micros + 0.5) as u64))
}

impl FromStr for Impairments {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.trim().is_empty() {
            return Err(ParseError::Empty);
        }
        let mut it = Self::NONE;
        // Which fields have been given for both directions, for `rx` and for `tx`.
        let mut given = [[false; FIELDS.len()]; 3];
        let mut seeded = false;
        // What is for one direction alone goes before what is for both, wherever it stands.
        for one_direction in [false, true] {
            for part in text.split(',').map(str::trim) {
                let (name, value) = part.split_once('=').ok_or_else(|| ParseError::NoValue(part.to_owned()))?;
                let (name, value) = (name.trim(), value.trim());
                let (direction, field_name) = match name.split_once('.') {
                    Some(("rx", field)) => (1, field),
                    Some(("tx", field)) => (2, field),
                    _ => (0, name),
                };
                if one_direction != (direction > 0) {
                    continue;
                }
                if name == "seed" {
                    if core::mem::replace(&mut seeded, true) {
                        return Err(ParseError::Twice(name.to_owned()));
                    }
                    let wanted = "a whole number below 2^64, such as 42";
                    it.seed = value.parse().map_err(|_| ParseError::BadValue(part.to_owned(), wanted))?;
                    continue;
                }
                let found = FIELDS.iter().position(|(known, _)| *known == field_name);
                let index = found.ok_or_else(|| ParseError::UnknownName(name.to_owned()))?;
                if core::mem::replace(&mut given[direction][index], true) {
                    return Err(ParseError::Twice(name.to_owned()));
                }
                let bad = |wanted| ParseError::BadValue(part.to_owned(), wanted);
                if direction != 2 {
                    FIELDS[index].1.read(value, &mut it.rx).map_err(bad)?;
                }
                if direction != 1 {
                    FIELDS[index].1.read(value, &mut it.tx).map_err(bad)?;
                }
            }
        }
        check(&it.rx, "rx")?;
        check(&it.tx, "tx")?;
        Ok(it)
    }
}

/// What one direction must not be.
fn check(impairment: &Impairment, direction: &'static str) -> Result<(), ParseError> {
    if impairment.jitter > impairment.delay {
        return Err(ParseError::JitterBeyondDelay(direction));
    }
    if impairment.queue_bytes.is_some() && impairment.rate_bits_per_s.is_none() {
        return Err(ParseError::QueueWithoutRate(direction));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Impairments, ParseError> {
        text.parse()
    }

    #[test]
    fn every_name_and_unit_is_read() {
        let it = parse(
            "loss=0.1%,delay=20ms, jitter = 500us,reorder=1,duplicate=1/200,corrupt=0.02%,hold=1.5ms,rate=10Mbit,queue=64k,seed=7",
        );
        let one = Impairment {
            loss: 0.001,
            delay: Duration::from_millis(20),
            jitter: Duration::from_micros(500),
            reorder: 0.01,
            duplicate: 0.005,
            corrupt: 0.0002,
            hold: Duration::from_micros(1500),
            rate_bits_per_s: Some(10_000_000),
            queue_bytes: Some(65_536),
        };
        assert_eq!(it, Ok(Impairments::both(one, 7)));
        for (text, bits) in
            [("64kbit", 64_000), ("1gbit", 1_000_000_000), ("2.5gbit", 2_500_000_000), ("5000bit", 5000)]
        {
            assert_eq!(parse(&alloc::format!("rate={text}")).unwrap().rx.rate_bits_per_s, Some(bits));
        }
        for (text, us) in [("0", 0), ("1us", 1), ("1.5s", 1_500_000), ("60s", 60_000_000)] {
            assert_eq!(parse(&alloc::format!("delay={text}")).unwrap().tx.delay, Duration::from_micros(us));
        }
        assert_eq!(parse("rate=1mbit,queue=1m").unwrap().rx.queue_bytes, Some(1 << 20));
    }

    #[test]
    fn one_direction_goes_before_both() {
        for text in ["tx.loss=2%,loss=1%", "loss=1%,tx.loss=2%"] {
            let it = parse(text).unwrap();
            assert_eq!((it.rx.loss, it.tx.loss), (0.01, 0.02), "{text}");
        }
        let it = parse("rx.delay=5ms").unwrap();
        assert_eq!((it.rx.delay, it.tx), (Duration::from_millis(5), Impairment::NONE));
        assert!(it.tx.is_none() && !it.rx.is_none() && !it.rx.needs_segments());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let bad = |part: &str| matches!(parse(part), Err(ParseError::BadValue(named, _)) if named == part);
        for part in [
            "loss=101%",
            "loss=-1%",
            "loss=",
            "loss=x",
            "loss=1/0",
            "loss=0/0",
            "loss=2/1",
            "loss=1e1",
            "loss=inf",
            "loss=1%%",
            "delay=20",
            "delay=61s",
            "delay=ms",
            "delay=1h",
            "rate=10",
            "rate=0mbit",
            "rate=10mb",
            "rate=2000gbit",
            "rate=1bit",
            "queue=0",
            "queue=65m",
            "queue=1g",
            "seed=-1",
            "seed=x",
            "seed=18446744073709551616",
            "tx.loss=NaN",
        ] {
            assert!(bad(part), "{part}: {:?}", parse(part));
        }
        assert_eq!(parse(" "), Err(ParseError::Empty));
        assert_eq!(parse("loss=1%,"), Err(ParseError::NoValue("".into())));
        assert_eq!(parse("loss"), Err(ParseError::NoValue("loss".into())));
        assert_eq!(parse("lost=1%"), Err(ParseError::UnknownName("lost".into())));
        assert_eq!(parse("up.loss=1%"), Err(ParseError::UnknownName("up.loss".into())));
        assert_eq!(parse("tx.seed=1"), Err(ParseError::UnknownName("tx.seed".into())));
        assert_eq!(parse("loss=1%,delay=1ms,loss=2%"), Err(ParseError::Twice("loss".into())));
        assert_eq!(parse("tx.loss=1%,tx.loss=1%"), Err(ParseError::Twice("tx.loss".into())));
        assert_eq!(parse("seed=1,seed=1"), Err(ParseError::Twice("seed".into())));
        assert_eq!(parse("jitter=2ms,delay=1ms"), Err(ParseError::JitterBeyondDelay("rx")));
        assert_eq!(parse("jitter=2ms,rx.delay=2ms"), Err(ParseError::JitterBeyondDelay("tx")));
        assert_eq!(parse("queue=64k"), Err(ParseError::QueueWithoutRate("rx")));
        let error = parse("delay=20").unwrap_err().to_string();
        assert!(error.starts_with("'delay=20': give a time") && error.contains("tx.loss=1%"), "{error}");
    }

    /// Any direction that can be written: thousandths of a percent, so that both ways of writing a number are the same one.
    fn impairment() -> impl Strategy<Value = Impairment> {
        let probability = || (0..=100_000u32).prop_map(|n| f64::from(n) / 1000.0 / 100.0);
        let chances = (probability(), probability(), probability(), probability());
        let times = (0..60_000_000u64, 0..60_000_000u64, 0..60_000_000u64);
        let rate = prop::option::of((1000..1_000_000_000_000u64, prop::option::of(1..MAX_HELD_BYTES)));
        (chances, times, rate).prop_map(|((loss, reorder, duplicate, corrupt), (delay, jitter, hold), rate)| {
            Impairment {
                loss,
                delay: Duration::from_micros(delay),
                jitter: Duration::from_micros(jitter.min(delay)),
                reorder,
                duplicate,
                corrupt,
                hold: Duration::from_micros(hold),
                rate_bits_per_s: rate.map(|(rate, _)| rate),
                queue_bytes: rate.and_then(|(_, queue)| queue),
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(rx in impairment(), tx in impairment(), same in any::<bool>(), seed in any::<u64>()) {
            let it = Impairments { rx, tx: if same { rx } else { tx }, seed };
            let back = parse(&it.to_string()).unwrap();
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            for (a, b) in [(it.rx, back.rx), (it.tx, back.tx)] {
                prop_assert!(close(a.loss, b.loss) && close(a.reorder, b.reorder));
                prop_assert!(close(a.duplicate, b.duplicate) && close(a.corrupt, b.corrupt));
                let rest = |i: Impairment| Impairment { loss: 0.0, reorder: 0.0, duplicate: 0.0, corrupt: 0.0, ..i };
                prop_assert_eq!(rest(a), rest(b));
            }
            prop_assert_eq!(it.seed, back.seed);
        }

        #[test]
        fn no_text_panics(text in "[a-z.=,%0-9/ ]{0,40}") {
            let _ = parse(&text);
        }
    }
}
