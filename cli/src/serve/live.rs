//! A served folder is watched: what is edited, added or removed is served as it is now, without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::Context;
use minicache::appliance::DiskSource;
use minicache::rings::host::HostDisk;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use smoltcp::time::{Duration, Instant};

use crate::volume;

/// Wakes the event loop from another thread.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// How long a folder must have been quiet before it is read anew, so that a file that is being written is not read in between...
const QUIET: Duration = Duration::from_millis(50);

/// ... but no longer than this after the first change.
const PATIENCE: Duration = Duration::from_secs(1);

/// The watch on a folder.
pub struct Live {
    changed: Arc<AtomicBool>,
    /// When the first and the last change were seen that have not been heeded.
    seen: Option<(Instant, Instant)>,
    /// Dropping it ends the watch.
    _watcher: RecommendedWatcher,
}

impl Live {
    /// Watches a folder with all that is in it.
    pub fn new(folder: &Path, wake: Wake) -> notify::Result<Self> {
        let changed = Arc::new(AtomicBool::new(false));
        let flag = changed.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading is no change; an error (the queue ran over) may hide one.
            let change = event.as_ref().map_or(true, |event| match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
                EventKind::Access(_) => false,
                _ => true,
            });
            if change {
                flag.store(true, Ordering::Release);
                wake();
            }
        })?;
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(Self { changed, seen: None, _watcher: watcher })
    }

    /// True when the folder is to be read anew.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.changed.swap(false, Ordering::Acquire) {
            let first = self.seen.map_or(now, |(first, _)| first);
            self.seen = Some((first, now));
        }
        let due = self.deadline().is_some_and(|at| at <= now);
        if due {
            self.seen = None;
        }
        due
    }

    /// When [`Live::is_due`] may become true though nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.seen.map(|(first, last)| (last + QUIET).min(first + PATIENCE))
    }
}

/// Makes a disk of the folder as it is now, as often as it is asked.
pub fn disk_source(folder: PathBuf, wake: Wake) -> DiskSource<HostDisk> {
    Box::new(move || {
        let make = || -> anyhow::Result<HostDisk> {
            let plan = volume::plan_folder(&folder, volume::unix_s(SystemTime::now()))?;
            let mut disk = HostDisk::open_folder(&folder, plan.prefix, plan.extents, plan.total_bytes)
                .with_context(|| format!("can't serve the folder {folder:?}"))?;
            disk.set_waker(wake.clone());
            Ok(disk)
        };
        make().map_err(|error| format!("{error:#}"))
    })
}
