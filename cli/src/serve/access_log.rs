//! The access log in the common log format, to a file or to standard output.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context;
use jiff::Timestamp;
use minicache::http::{Access, AccessLog};

use crate::terminal::warn;

/// A log that is written to. Clones write to the same place.
#[derive(Clone)]
pub struct LogFile(Rc<RefCell<Writer>>);

struct Writer {
    to: BufWriter<Box<dyn Write>>,
    /// Writing has failed, and that has been told.
    failed: bool,
}

impl LogFile {
    /// Appends to the file at `path`, which is made if there is none; `-` stands for standard output.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let to: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = File::options().append(true).create(true).open(path);
            Box::new(
                file.with_context(|| format!("can't write the access log {path:?}: name another with --access-log"))?,
            )
        };
        Ok(Self(Rc::new(RefCell::new(Writer { to: BufWriter::new(to), failed: false }))))
    }

    /// Hands on what has been recorded so far.
    pub fn flush(&self) {
        let mut writer = self.0.borrow_mut();
        let flushed = writer.to.flush();
        writer.check(flushed);
    }
}

impl Writer {
    fn check(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !std::mem::replace(&mut self.failed, true)
        {
            warn(&format!("the access log can't be written, and is not complete: {error}"));
        }
    }
}

impl AccessLog for LogFile {
    fn record(&mut self, access: &Access<'_>) {
        let mut writer = self.0.borrow_mut();
        let written = write_line(&mut writer.to, access);
        writer.check(written);
    }
}

/// Client, two dashes for what is not known, time, request line, status, bytes of the body.
fn write_line(to: &mut impl Write, access: &Access<'_>) -> io::Result<()> {
    let client = IpAddr::from(access.client);
    let time = i64::try_from(access.unix_s).ok().and_then(|unix_s| Timestamp::from_second(unix_s).ok());
    let time = time.unwrap_or_default().strftime("%d/%b/%Y:%H:%M:%S +0000");
    write!(to, "{client} - - [{time}] \"")?;
    for &byte in access.request_line {
        match byte {
            b'"' | b'\\' => write!(to, "\\{}", char::from(byte))?,
            0x20..0x7f => to.write_all(&[byte])?,
            _ => write!(to, "\\x{byte:02x}")?,
        }
    }
    match access.status {
        Some(status) => writeln!(to, "\" {status} {}", access.body_bytes),
        None => writeln!(to, "\" - {}", access.body_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_in_the_common_format_and_can_not_be_broken() {
        let access = Access {
            client: IpAddr::from([127, 0, 0, 1]).into(),
            unix_s: 1_795_334_462,
            request_line: b"GET /\"\x1b\\\xff HTTP/1.1",
            status: Some(404),
            body_bytes: 12,
        };
        let mut line = Vec::new();
        write_line(&mut line, &access).unwrap();
        let expected = r#"127.0.0.1 - - [22/Nov/2026:08:01:02 +0000] "GET /\"\x1b\\\xff HTTP/1.1" 404 12"#;
        assert_eq!(String::from_utf8(line).unwrap(), format!("{expected}\n"));
        let mut line = Vec::new();
        write_line(&mut line, &Access { status: None, ..access }).unwrap();
        assert!(line.ends_with(b"\" - 12\n"));
    }
}
