//! QEMU's monitor (QEMU, docs/interop/qmp-spec.txt).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
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
        let answer = self.ask("query-replay", &json!({}), deadline)?;
        answer["icount"].as_u64().with_context(|| format!("there is no count in {answer}"))
    }

    /// Gives a command, and returns the answer.
    pub fn ask(&mut self, command: &str, arguments: &Value, deadline: Instant) -> Result<Value> {
        if self.stream.is_none() {
            self.stream = Some(connect(&self.path(), deadline)?);
            self.talk("qmp_capabilities", &json!({}))?;
        }
        self.talk(command, arguments)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("qmp")
    }

    /// Events that come between are left out.
    fn talk(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let stream = self.stream.as_mut().context("not connected")?;
        writeln!(stream.get_mut(), "{}", json!({ "execute": command, "arguments": arguments }))?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                bail!("the machine has ended");
            }
            let mut said: Value = serde_json::from_str(&line).with_context(|| format!("{line:?} is no JSON"))?;
            if let Some(answer) = said.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = said.get("error") {
                bail!("QEMU's monitor: {command}: {}", error["desc"]);
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
