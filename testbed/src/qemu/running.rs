//! A virtual machine that runs: its console, its end, and the deadline that brings it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::PACKAGE;
use super::monitor::Monitor;
use crate::console::{Console, Missed};

/// A machine that was started. It is killed when this is dropped, and at its deadline.
pub struct Running {
    child: Arc<Mutex<Child>>,
    console: Console,
    deadline: Instant,
    monitor: Option<Monitor>,
    /// For messages.
    shown: String,
    /// Dropped to end the watch over the deadline.
    _watch: mpsc::Sender<()>,
}

impl Running {
    /// Runs QEMU by this command, for at most `limit`.
    pub(crate) fn start(mut command: Command, limit: Duration) -> Result<Self> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let shown = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("can't start QEMU (Debian package {PACKAGE})"))?;
        let console = Console::default();
        console.collect(child.stdout.take().context("a pipe was asked for")?);
        console.collect(child.stderr.take().context("a pipe was asked for")?);
        let child = Arc::new(Mutex::new(child));
        let (watch, dropped) = mpsc::channel::<()>();
        let watched = child.clone();
        thread::spawn(move || {
            if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                kill(&watched);
            }
        });
        Ok(Self { child, console, deadline: Instant::now() + limit, monitor: None, shown, _watch: watch })
    }

    /// The same with a monitor.
    pub(crate) fn start_with_monitor(mut command: Command, limit: Duration) -> Result<Self> {
        let monitor = Monitor::new()?;
        command.args(monitor.arguments());
        let mut running = Self::start(command, limit)?;
        running.monitor = Some(monitor);
        Ok(running)
    }

    /// How many instructions it has executed. Only where they are counted (`Counting::Executed`).
    pub fn instructions(&mut self) -> Result<u64> {
        let monitor = self.monitor.as_mut().context("this machine's instructions are not counted")?;
        monitor.instructions(self.deadline)
    }

    /// Has QEMU's monitor execute this command, and returns its answer. Only where there is a monitor.
    pub(crate) fn ask(&mut self, command: &str, arguments: &serde_json::Value) -> Result<serde_json::Value> {
        let monitor = self.monitor.as_mut().context("this machine has no monitor")?;
        monitor.ask(command, arguments, self.deadline)
    }

    /// What the console and QEMU have said so far.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// When it will be killed.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Process number of QEMU.
    pub fn pid(&self) -> u32 {
        self.child.lock().expect("nobody panics").id()
    }

    /// Waits for a line of the console that contains `text`, and returns it.
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        self.console.wait_for(text, self.deadline).map_err(|missed| {
            let why = if missed == Missed::Ended { "the machine has ended" } else { "it took too long" };
            anyhow!("no {text:?} on the console: {why}\n{}", self.report())
        })
    }

    /// Waits until QEMU ends by itself, and returns its status.
    pub fn wait_for_end(&mut self) -> Result<i32> {
        let ended = self.console.wait_for_end(self.deadline);
        let mut child = self.child.lock().expect("nobody panics");
        if ended.is_err() {
            child.kill()?;
        }
        let status = child.wait()?;
        drop(child);
        match (ended, status.code()) {
            (Ok(()), Some(code)) => Ok(code),
            _ => bail!("the machine did not end by itself (signal {:?})\n{}", status.signal(), self.report()),
        }
    }

    /// Command line and console, for messages.
    pub fn report(&self) -> String {
        format!("command: {}\nconsole:\n{}", self.shown, self.console())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill(&self.child);
    }
}

fn kill(child: &Mutex<Child>) {
    if let Ok(mut child) = child.lock() {
        // It may be gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}
