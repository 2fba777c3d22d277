//! Byte ranges (RFC 9110 §14).
//!
//! One range is served; a request for several is answered with the whole, as §14.2 allows.

use super::request::Fields;
use super::transfer::ByteRange;

/// What a `Range` field asks of a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it: there is no such field, or none that is understood.
    Whole,
    /// A part of it.
    Part(ByteRange),
    /// What is not there: 416.
    Unsatisfiable,
}

/// Evaluates the `Range` field for a representation of `length_bytes`.
pub fn select(fields: &Fields<'_>, length_bytes: u64) -> Selection {
    let Some(value) = fields.single("range") else { return Selection::Whole };
    match parse(value) {
        Some(range) => range.of(length_bytes),
        None => Selection::Whole,
    }
}

/// A range as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// From a byte on, to a last one or to the end.
    From { first: u64, last: Option<u64> },
    /// So many bytes at the end.
    Suffix(u64),
}

impl Asked {
    fn of(self, length_bytes: u64) -> Selection {
        match self {
            Self::From { first, .. } if first >= length_bytes => Selection::Unsatisfiable,
            Self::From { first, last } => {
                let last = last.unwrap_or(u64::MAX).min(length_bytes - 1);
                Selection::Part(ByteRange { first, length: last - first + 1 })
            }
            Self::Suffix(0) => Selection::Unsatisfiable,
            // Satisfiable by §14.1.2, but no Content-Range can say "no bytes".
            Self::Suffix(_) if length_bytes == 0 => Selection::Whole,
            Self::Suffix(bytes) => {
                let length = bytes.min(length_bytes);
                Selection::Part(ByteRange { first: length_bytes - length, length })
            }
        }
    }
}

/// `bytes=` and one range. `None` for another unit, for several ranges and for what is malformed: such a field is ignored.
fn parse(value: &[u8]) -> Option<Asked> {
    let equals = value.iter().position(|&byte| byte == b'=')?;
    if !value[..equals].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    // Lists may have empty elements (§5.6.1.2).
    let mut elements =
        value[equals + 1..].split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|e| !e.is_empty());
    let element = elements.next()?;
    if elements.next().is_some() {
        return None;
    }
    let dash = element.iter().position(|&byte| byte == b'-')?;
    match (&element[..dash], &element[dash + 1..]) {
        (b"", bytes) => Some(Asked::Suffix(position(bytes)?)),
        (first, b"") => Some(Asked::From { first: position(first)?, last: None }),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then_some(Asked::From { first, last: Some(last) })
        }
    }
}

/// `1*DIGIT`. Numbers beyond 64 bits are beyond every object, so the largest stands for them.
fn position(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u64, length: u64) -> Option<Selection> {
        Some(Selection::Part(ByteRange { first, length }))
    }

    #[test]
    fn ranges_of_ten_thousand_bytes() {
        let of = |value: &str| parse(value.as_bytes()).map(|asked| asked.of(10_000));
        assert_eq!(of("bytes=0-499"), part(0, 500));
        assert_eq!(of("bytes=500-999"), part(500, 500));
        assert_eq!(of("bytes=-500"), part(9500, 500));
        assert_eq!(of("bytes=9500-"), part(9500, 500));
        assert_eq!(of("bytes=0-0"), part(0, 1));
        assert_eq!(of("bytes=9999-9999"), part(9999, 1));
        assert_eq!(of("bytes=9999-10000"), part(9999, 1));
        assert_eq!(of("bytes=-10001"), part(0, 10_000));
        assert_eq!(of("bytes=0-99999999999999999999999"), part(0, 10_000));
        assert_eq!(of("BYTES=, 1-2 ,"), part(1, 2));
        for unsatisfiable in ["bytes=10000-", "bytes=10000-10001", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(of(unsatisfiable), Some(Selection::Unsatisfiable), "{unsatisfiable}");
        }
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=1",
            "bytes=2-1",
            "bytes=a-b",
            "bytes=1-b",
            "bytes=1--2",
            "bytes=+1-2",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes 0-1",
            "bytes=0 - 1",
            "bytes=0x1-2",
            " bytes=--1",
        ] {
            assert_eq!(of(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn ranges_of_nothing() {
        let of = |value: &str| parse(value.as_bytes()).map(|asked| asked.of(0));
        assert_eq!(of("bytes=0-"), Some(Selection::Unsatisfiable));
        assert_eq!(of("bytes=-5"), Some(Selection::Whole));
        assert_eq!(of("bytes=-0"), Some(Selection::Unsatisfiable));
    }

    proptest! {
        #[test]
        fn parts_lie_in_the_whole(value in "bytes=[0-9]{0,21}-[0-9]{0,21}", length in any::<u64>()) {
            if let Some(Selection::Part(ByteRange { first, length: part })) =
                parse(value.as_bytes()).map(|asked| asked.of(length))
            {
                prop_assert!(part > 0 && first.checked_add(part).is_some_and(|end| end <= length));
            }
        }
    }
}
