//! Standard output and standard error, either of which may be closed, and what is fit for them.

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

/// Writes a line to standard output; where that is closed, nobody wants it.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Tells the user something on standard error; where that is closed, nobody wants it.
pub fn tell(message: &str) {
    let _ = writeln!(io::stderr(), "minicache: {message}");
}

/// Warns the user.
pub fn warn(message: &str) {
    tell(&format!("warning: {message}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_spared() {
        assert_eq!(printable("d\u{e9}j\u{e0}".as_bytes()), "d\u{e9}j\u{e0}");
        assert_eq!(printable(b"a\x1b[31m\n\xff"), "a\\u{1b}[31m\\n\\xff");
    }
}
