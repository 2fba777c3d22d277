//! Standard output that may close early, and how bytes of a volume are shown on it.

use std::io::{self, BufWriter, StdoutLock, Write};

/// Standard output. When its reader has gone (`minicache shfs ls … | head`), the command ends quietly.
pub struct Output {
    writer: BufWriter<StdoutLock<'static>>,
    closed: bool,
}

impl Output {
    /// Standard output.
    pub fn new() -> Self {
        Self { writer: BufWriter::with_capacity(1 << 16, io::stdout().lock()), closed: false }
    }

    /// Writes out what is buffered, unless the reader has gone.
    pub fn finish(mut self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        let flushed = if self.closed { Ok(()) } else { self.flush() };
        if self.closed {
            // What is left in the buffer has nowhere to go.
            let _ = self.writer.into_parts();
            return Ok(());
        }
        result?;
        flushed.map_err(|error| anyhow::anyhow!("can't write to standard output: {error}"))
    }

    fn notice(&mut self, result: io::Result<()>) -> io::Result<()> {
        self.closed |= result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.writer.write_all(bytes);
        self.notice(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.writer.flush();
        self.notice(result)
    }
}

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

/// Text fit for a terminal: control characters escaped, what is not UTF-8 as escaped bytes.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            if character.is_control() { text.extend(character.escape_default()) } else { text.push(character) }
        }
        text.extend(part.invalid().escape_ascii().map(char::from));
    }
    text
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
    fn terminals_are_spared() {
        assert_eq!(printable("d\u{e9}j\u{e0}".as_bytes()), "d\u{e9}j\u{e0}");
        assert_eq!(printable(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\\xff");
    }

    #[test]
    fn dates_are_readable() {
        assert_eq!(date(0x6b02_a15f), "2026-11-22 08:01");
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(date(u64::MAX), format!("@{}", u64::MAX));
    }
}
