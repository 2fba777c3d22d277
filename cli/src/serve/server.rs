//! The loop of the process: the appliance, the user-mode network, and signals.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{self, SystemTime};

use anyhow::anyhow;
use minicache::appliance::Appliance;
use minicache::cache::shfs::{MountError, Volume};
use minicache::rings::host::HostDisk;
use minicache::rings::memory::MemoryNet;
use minicache::stats::Stats;
use mio::{Interest, Token, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use smoltcp::time::{Duration, Instant};

use crate::usernet::{Bridge, FOREIGN_TOKENS};
use crate::volume;

/// A worker thread of a disk has finished something.
pub const WAKER: Token = Token(FOREIGN_TOKENS);

/// A signal has come.
const SIGNALS: Token = Token(FOREIGN_TOKENS + 1);

/// Rounds after which epoll is asked for news though there is still work.
const ROUNDS: usize = 16;

/// How long requests under way may take to finish after the first signal.
const DRAIN: Duration = Duration::from_secs(5);

/// The appliance that runs here.
pub type ProcessAppliance = Appliance<MemoryNet, HostDisk>;

/// The server.
pub struct Server {
    appliance: ProcessAppliance,
    bridge: Bridge,
    signals: Signals,
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
        Ok(Self { appliance, bridge, signals, started: time::Instant::now() })
    }

    /// Mounts the volume on the appliance's disks, which were opened from `paths`. `None` if a signal ended it.
    pub fn mount(&mut self, paths: &[PathBuf]) -> anyhow::Result<Option<&Volume>> {
        self.appliance.mount();
        loop {
            while self.appliance.poll(self.now(), volume::unix_s(SystemTime::now())) {}
            match self.appliance.mount_result() {
                Some(Ok(())) => return Ok(self.appliance.volume()),
                Some(Err(error)) => return Err(explain(&error, paths)),
                None => {}
            }
            if !self.appliance.arm() && self.wait(self.appliance.next_deadline())? {
                return Ok(None);
            }
        }
    }

    /// Serves until a signal comes, and then ends in order: requests under way are answered, for a while.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        while !self.turn(None)? {}
        let now = self.now();
        let deadline = now + DRAIN;
        self.bridge.drain();
        self.appliance.shutdown(now, DRAIN);
        while self.bridge.clients() > 0 && self.now() < deadline {
            if self.turn(Some(deadline))? {
                break;
            }
        }
        self.bridge.reset_all();
        Ok(())
    }

    /// Works until there is nothing to do, then sleeps until there is, but not beyond `limit`. True if a signal came.
    fn turn(&mut self, limit: Option<Instant>) -> anyhow::Result<bool> {
        let unix_s = volume::unix_s(SystemTime::now());
        let mut idle = false;
        for _ in 0..ROUNDS {
            let now = self.now();
            idle = !(self.bridge.poll(now) | self.appliance.poll(now, unix_s));
            if idle {
                break;
            }
        }
        // What epoll knows already goes before sleep, and before acknowledgements that data may carry.
        let now = self.now();
        let (events, stop) = self.look(Some(time::Duration::ZERO))?;
        if stop || !idle || events > 0 || self.bridge.flush_acknowledgements(now) {
            return Ok(stop);
        }
        if self.bridge.arm() | self.appliance.arm() {
            return Ok(false);
        }
        let deadlines = [self.bridge.next_deadline(), self.appliance.next_deadline(), limit];
        self.wait(deadlines.into_iter().flatten().min())
    }

    /// Sleeps until something happens or `deadline` comes. True if a signal came.
    fn wait(&mut self, deadline: Option<Instant>) -> anyhow::Result<bool> {
        let now = self.now();
        let timeout = deadline.map(|at| if at > now { (at - now).into() } else { time::Duration::ZERO });
        Ok(self.look(timeout)?.1)
    }

    /// Waits for events: how many there were, and whether a signal came.
    fn look(&mut self, timeout: Option<time::Duration>) -> anyhow::Result<(usize, bool)> {
        let mut signalled = false;
        let events = self.bridge.wait(timeout, |token| signalled |= token == SIGNALS)?;
        Ok((events, signalled && self.signals.pending().next().is_some()))
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.started.elapsed().as_micros() as i64)
    }

    /// Every counter.
    pub fn stats(&self) -> &Stats {
        self.appliance.stats()
    }

    /// How long the server has run.
    pub fn uptime(&self) -> time::Duration {
        self.started.elapsed()
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
