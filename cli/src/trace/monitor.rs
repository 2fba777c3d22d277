//! QEMU's monitor, as far as it is asked for memory (QEMU, docs/interop/qmp-spec.rst and qapi/machine.json).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long QEMU may be silent. It answers one client at a time: another one may be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest line that is read, in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Most lines before the answer to a command: QEMU tells of events whenever they happen.
const MAX_EVENTS: usize = 1000;

/// A conversation with a machine's monitor.
pub struct Monitor {
    stream: BufReader<UnixStream>,
    /// QEMU writes memory to files.
    folder: TempDir,
}

impl Monitor {
    /// Begins one.
    ///
    /// # Errors
    /// If nobody answers there, or not as a monitor does.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| {
            format!("can't reach a machine's monitor at {socket:?} (`minicache boot` says where it is)")
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let folder = tempfile::Builder::new().prefix("minicache-trace-").tempdir().context("no temporary folder")?;
        let mut monitor = Self { stream: BufReader::new(stream), folder };
        let greeting = monitor.read()?;
        if greeting.get("QMP").is_none() {
            bail!("what answers at {socket:?} is no monitor of QEMU");
        }
        monitor.ask(&json!({"execute": "qmp_capabilities"}))?;
        Ok(monitor)
    }

    /// A copy of physical memory.
    ///
    /// # Errors
    /// If QEMU does not give it.
    pub fn memory(&mut self, address: u64, bytes: u64) -> anyhow::Result<Vec<u8>> {
        let path = self.folder.path().join("memory");
        let name = path.to_str().context("the temporary folder's name is not UTF-8, and QEMU takes no other")?;
        let arguments = json!({"val": address, "size": bytes, "filename": name});
        self.ask(&json!({"execute": "pmemsave", "arguments": arguments}))?;
        fs::read(&path)
            .with_context(|| format!("can't read what QEMU has written to {path:?}: does it run on this host?"))
    }

    /// Gives a command, and returns when it is done.
    fn ask(&mut self, command: &Value) -> anyhow::Result<()> {
        writeln!(self.stream.get_mut(), "{command}").context("QEMU's monitor does not listen")?;
        for _ in 0..MAX_EVENTS {
            let line = self.read()?;
            if line.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = line.get("error") {
                bail!("QEMU refuses {}: {}", command["execute"], error["desc"]);
            }
        }
        bail!("QEMU's monitor does not answer {}", command["execute"])
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        let read = (&mut self.stream).take(MAX_LINE_BYTES).read_line(&mut line);
        if read.context("QEMU's monitor is silent: perhaps it speaks to somebody else")? == 0 {
            bail!("QEMU's monitor hangs up: the machine has ended");
        }
        serde_json::from_str(&line).context("QEMU's monitor says what is no JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// What comes of asking a monitor that says these lines.
    fn outcome(lines: &'static str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("monitor");
        let listener = UnixListener::bind(&socket).unwrap();
        let monitor = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(lines.as_bytes()).unwrap();
            // Until the other side hangs up.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let outcome = Monitor::connect(&socket).and_then(|mut monitor| monitor.memory(0, 1));
        monitor.join().unwrap();
        format!("{:#}", outcome.expect_err("none of these writes memory"))
    }

    #[test]
    fn what_a_monitor_says_wrong_is_told() {
        for (lines, message) in [
            ("", "hangs up"),
            ("hello\n", "no JSON"),
            ("{}\n", "no monitor of QEMU"),
            ("{\"QMP\": {}}\n{\"error\": {\"desc\": \"no\"}}\n", "QEMU refuses \"qmp_capabilities\": \"no\""),
            ("{\"QMP\": {}}\n{\"event\": \"RESET\"}\n{\"return\": {}}\n{\"return\": {}}\n", "can't read what QEMU"),
            ("{\"QMP\": {}}\n{\"return\": {}}\n", "hangs up"),
        ] {
            let said = outcome(lines);
            assert!(said.contains(message), "{lines:?}: {said}");
        }
    }

    #[test]
    fn nobody_there_is_told() {
        let error = Monitor::connect(Path::new("/no/such/socket")).err().unwrap();
        assert!(format!("{error:#}").contains("minicache boot"), "{error:#}");
    }
}
