//! QEMU's monitor, as far as it is asked for the number of executed instructions (QEMU, docs/interop/qmp-spec.txt).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// The monitor of a machine, which is spoken to when it is asked for the first time.
pub struct Monitor {
    folder: TempDir,
    stream: Option<BufReader<UnixStream>>,
}

impl Monitor {
    /// A monitor with a place of its own.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir().context("no temporary folder")?, stream: None })
    }

    /// QEMU's arguments for it.
    pub fn arguments(&self) -> [String; 2] {
        ["-qmp".to_owned(), format!("unix:{},server=on,wait=off", self.path().display())]
    }

    /// How many instructions the machine has executed.
    pub fn instructions(&mut self, deadline: Instant) -> Result<u64> {
        if self.stream.is_none() {
            self.stream = Some(connect(&self.path(), deadline)?);
            self.ask("qmp_capabilities")?;
        }
        let answer = self.ask("query-replay")?;
        let number = answer.split_once("\"icount\": ").map(|(_, rest)| rest);
        let digits = number.and_then(|rest| rest.split(|character: char| !character.is_ascii_digit()).next());
        digits.and_then(|digits| digits.parse().ok()).with_context(|| format!("there is no count in {answer:?}"))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }

    /// Gives a command, and returns the answer; events that come between are left out.
    fn ask(&mut self, command: &str) -> Result<String> {
        let stream = self.stream.as_mut().context("not connected")?;
        writeln!(stream.get_mut(), "{{\"execute\": \"{command}\"}}")?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                bail!("the machine has ended");
            }
            if line.contains("\"return\"") {
                return Ok(line);
            }
            if line.contains("\"error\"") {
                bail!("{command}: {}", line.trim());
            }
        }
    }
}

fn connect(path: &Path, deadline: Instant) -> Result<BufReader<UnixStream>> {
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                return Ok(BufReader::new(stream));
            }
            Err(error) if Instant::now() > deadline => return Err(error).context("QEMU's monitor"),
            Err(_) => sleep(Duration::from_millis(5)),
        }
    }
}
