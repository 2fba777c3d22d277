//! The loop of the process: the appliance, the user-mode network, and signals.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{self, SystemTime};

use anyhow::anyhow;
use minicache::appliance::Appliance;
use minicache::cache::shfs::{MountError, Volume};
use minicache::platform::Platform;
use minicache::rings::host::HostDisk;
use minicache::rings::memory::MemoryNet;
use minicache::stats::Stats;
use mio::{Interest, Token, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use smoltcp::time::{Duration, Instant};

use super::access_log::LogFile;
use super::live::{self, Live, Wake};
use super::status::StatusLine;
use crate::terminal::warn;
use crate::usernet::{Bridge, FOREIGN_TOKENS};
use crate::volume;

/// A worker thread of a disk has finished something.
pub const WAKER: Token = Token(FOREIGN_TOKENS);

/// A signal has come.
const SIGNALS: Token = Token(FOREIGN_TOKENS + 1);

/// How long requests under way may take to finish after the first signal.
const DRAIN: Duration = Duration::from_secs(5);

/// The appliance that runs here.
pub type ProcessAppliance = Appliance<MemoryNet, HostDisk>;

/// The server.
pub struct Server {
    appliance: ProcessAppliance,
    process: Process,
    live: Option<Live>,
    log: Option<LogFile>,
}

/// The world that the appliance runs in: sockets, signals and the system's clocks.
struct Process {
    bridge: Bridge,
    signals: Signals,
    /// Clients are let in: before there is a volume they wait outside.
    open: bool,
    /// A signal has come that nobody has heeded yet.
    stop: bool,
    /// Nobody sleeps for longer than that.
    limit: Option<Instant>,
    started: time::Instant,
}

/// A waker for the disks' worker threads.
pub fn disk_waker(bridge: &Bridge) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
    let waker = Waker::new(bridge.registry(), WAKER)?;
    // It fails only where the event loop's own end of it is gone, and with it everybody who could be woken.
    Ok(Arc::new(move || _ = waker.wake()))
}

impl Server {
    /// A server that has not mounted anything.
    pub fn new(appliance: ProcessAppliance, bridge: Bridge) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        bridge.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let process = Process { bridge, signals, open: false, stop: false, limit: None, started: time::Instant::now() };
        Ok(Self { appliance, process, live: None, log: None })
    }

    /// Mounts the volume on the appliance's disks, which were opened from `paths`. `None` if a signal ended it.
    pub fn mount(&mut self, paths: &[PathBuf]) -> anyhow::Result<Option<&Volume>> {
        self.appliance.mount();
        loop {
            if self.turn()? {
                return Ok(None);
            }
            match self.appliance.mount_result() {
                Some(Ok(())) => return Ok(self.appliance.volume()),
                Some(Err(error)) => return Err(explain(&error, paths)),
                None => {}
            }
        }
    }

    /// Serves the folder as it will be, not only as it was: its changes are seen, or at least `remount` in the shell reads it
    /// anew. True if it is watched.
    pub fn keep_live(&mut self, folder: &Path, wake: Wake) -> bool {
        self.appliance.set_disk_source(live::disk_source(folder.to_path_buf(), wake.clone()));
        match Live::new(folder, wake) {
            Ok(live) => self.live = Some(live),
            Err(error) => warn(&format!(
                "the folder can't be watched ({error}): new and removed files are noticed when the shell is told to 'remount'"
            )),
        }
        self.live.is_some()
    }

    /// Keeps an access log.
    pub fn keep_log(&mut self, log: LogFile) {
        self.appliance.set_access_log(Box::new(log.clone()));
        self.log = Some(log);
    }

    /// What is served.
    pub fn volume(&self) -> Option<&Volume> {
        self.appliance.volume()
    }

    /// What is done besides serving: the folder, the log, the line on the terminal.
    fn look_around(&mut self, status: &mut Option<StatusLine>) {
        let now = self.process.now();
        let status_at = status.as_mut().and_then(|status| status.update(self.appliance.stats(), now));
        if let Some(log) = &self.log {
            log.flush();
        }
        if self.live.as_mut().is_some_and(|live| live.is_due(now)) {
            self.appliance.set_stale();
        }
        let folder_at = self.live.as_ref().and_then(Live::deadline);
        self.process.limit = [folder_at, status_at].into_iter().flatten().min();
        if let Some(Err(error)) = self.appliance.mount_result() {
            warn(&format!("the folder can't be read anew, and is served as it was: {error}"));
        }
    }

    /// Serves until a signal comes or the shell says `halt`, and then ends in order: requests under way are answered, for a while.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        self.process.open = true;
        let mut status = StatusLine::new(self.appliance.stats(), self.process.now());
        while !self.turn()? && self.appliance.power_request().is_none() {
            self.look_around(&mut status);
        }
        drop(status);
        let now = self.process.now();
        let deadline = now + DRAIN;
        self.process.bridge.drain();
        self.process.limit = Some(deadline);
        self.appliance.shutdown(now, DRAIN);
        while self.process.bridge.clients() > 0 && self.process.now() < deadline {
            if self.turn()? {
                break;
            }
        }
        self.process.bridge.reset_all();
        if let Some(log) = &self.log {
            log.flush();
        }
        Ok(())
    }

    /// True if a signal came.
    fn turn(&mut self) -> anyhow::Result<bool> {
        self.appliance.turn(&mut self.process)?;
        Ok(mem::take(&mut self.process.stop))
    }

    /// Every counter.
    pub fn stats(&self) -> &Stats {
        self.appliance.stats()
    }

    /// How long the server has run.
    pub fn uptime(&self) -> time::Duration {
        self.process.started.elapsed()
    }
}

impl Platform for Process {
    type Error = io::Error;

    fn now(&self) -> Instant {
        Instant::from_micros(self.started.elapsed().as_micros() as i64)
    }

    fn unix_s(&self) -> u64 {
        volume::unix_s(SystemTime::now())
    }

    fn work(&mut self) -> io::Result<bool> {
        Ok(self.open && self.bridge.poll(self.now()))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        // What epoll knows already goes before sleep, and before acknowledgements that data may carry.
        let now = self.now();
        let events = self.look(Some(time::Duration::ZERO))?;
        let busy = deadline.is_some_and(|deadline| deadline <= now);
        if self.stop || busy || events > 0 {
            return Ok(());
        }
        let mut earliest = [deadline, self.limit].into_iter().flatten().min();
        if self.open {
            if self.bridge.flush_acknowledgements(now) || self.bridge.arm() {
                return Ok(());
            }
            earliest = earliest.into_iter().chain(self.bridge.next_deadline()).min();
        }
        self.look(earliest.map(|at| if at > now { (at - now).into() } else { time::Duration::ZERO }))?;
        Ok(())
    }
}

impl Process {
    /// Waits for events, at most that long, and returns how many there were.
    fn look(&mut self, timeout: Option<time::Duration>) -> io::Result<usize> {
        let mut signalled = false;
        let events = self.bridge.wait(timeout, |token| signalled |= token == SIGNALS)?;
        self.stop |= signalled && self.signals.pending().next().is_some();
        Ok(events)
    }
}

/// A mount error, with the paths of the disks that it names by number.
fn explain(error: &MountError, paths: &[PathBuf]) -> anyhow::Error {
    match paths {
        [path] => anyhow!("can't serve {path:?}: {error}"),
        paths => {
            let disks: Vec<String> =
                paths.iter().enumerate().map(|(i, path)| format!("disk {i} is {path:?}")).collect();
            anyhow!("can't serve these images: {error} ({})", disks.join(", "))
        }
    }
}
