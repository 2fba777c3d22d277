//! Digests and times as text.

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that hexadecimal digits stand for.
pub fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect())?
}

/// A time in UTC as in RFC 3339; nothing if it is beyond the year 9999.
pub fn rfc3339(unix_s: u64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_second(i64::try_from(unix_s).ok()?).ok()?;
    Some(timestamp.to_string())
}

/// A time in UTC for people: `2026-11-22 08:27`, or the number of seconds if it is beyond the year 9999.
pub fn date(unix_s: u64) -> String {
    rfc3339(unix_s).map_or_else(|| format!("@{unix_s}"), |text| text[..16].replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_go_both_ways() {
        assert_eq!(hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(from_hex(b"001fFF"), Some(vec![0, 0x1f, 0xff]));
        assert_eq!(from_hex(b""), Some(vec![]));
        for bad in ["0", "0g", "+1", "00 "] {
            assert_eq!(from_hex(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn dates_are_readable() {
        assert_eq!(date(0x6b02_a15f), "2026-11-22 08:01");
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(date(u64::MAX), format!("@{}", u64::MAX));
    }
}
