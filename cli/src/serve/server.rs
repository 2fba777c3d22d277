//! The loop of the process: the appliance in its world, the folder, the log, and the end in order.

use std::path::{Path, PathBuf};
use std::time;

use anyhow::anyhow;
use minicache::appliance::Appliance;
use minicache::cache::shfs::{MountError, Volume};
use minicache::rings::NetQueue;
use minicache::rings::host::HostDisk;
use minicache::stats::Stats;
use smoltcp::time::{Duration, Instant};

use super::access_log::LogFile;
use super::live::{self, Live, Wake};
use super::status::StatusLine;
use super::world::World;
use crate::terminal::warn;

/// How long requests under way may take to finish after the first signal.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the resets may take that end what is not finished then.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The server.
pub struct Server<N: NetQueue, W: World> {
    appliance: Appliance<N, HostDisk>,
    world: W,
    live: Option<Live>,
    log: Option<LogFile>,
}

impl<N: NetQueue, W: World> Server<N, W> {
    /// A server that has not mounted anything.
    pub fn new(appliance: Appliance<N, HostDisk>, world: W) -> Self {
        Self { appliance, world, live: None, log: None }
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
        let now = self.world.now();
        let status_at = status.as_mut().and_then(|status| status.update(self.appliance.stats(), now));
        if let Some(log) = &self.log {
            log.flush();
        }
        if self.live.as_mut().is_some_and(|live| live.is_due(now)) {
            self.appliance.set_stale();
        }
        let folder_at = self.live.as_ref().and_then(Live::deadline);
        self.limit_sleep([folder_at, status_at].into_iter().flatten().min());
        if let Some(Err(error)) = self.appliance.mount_result() {
            warn(&format!("the folder can't be read anew, and is served as it was: {error}"));
        }
    }

    fn limit_sleep(&mut self, at: Option<Instant>) {
        self.world.common().limit = at;
    }

    /// Serves until a signal comes or the shell says `halt`, and then ends in order: requests under way are answered, for a while.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        self.world.open();
        let mut status = StatusLine::new(self.appliance.stats(), self.world.now());
        while !self.turn()? && self.appliance.power_request().is_none() {
            self.look_around(&mut status);
        }
        drop(status);
        let now = self.world.now();
        let deadline = now + DRAIN + LAST_WORDS;
        self.world.drain();
        self.limit_sleep(Some(deadline));
        self.appliance.shutdown(now, DRAIN);
        while !self.world.is_drained(self.appliance.is_stopped()) && self.world.now() < deadline {
            if self.turn()? {
                break;
            }
        }
        self.world.close();
        if let Some(log) = &self.log {
            log.flush();
        }
        Ok(())
    }

    /// True if a signal came.
    fn turn(&mut self) -> anyhow::Result<bool> {
        self.appliance.turn(&mut self.world)?;
        Ok(self.world.common().take_stop())
    }

    /// The network device.
    pub fn net(&self) -> &N {
        self.appliance.net()
    }

    /// Every counter.
    pub fn stats(&self) -> &Stats {
        self.appliance.stats()
    }

    /// How long the server has run.
    pub fn uptime(&self) -> time::Duration {
        time::Duration::from_micros(self.world.now().total_micros().unsigned_abs())
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
