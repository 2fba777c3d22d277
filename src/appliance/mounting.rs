//! Mounting: from all disks, from some, from one that is made anew each time; and what to read while a mount is under way.

use core::task::Poll;
use smoltcp::time::{Duration, Instant};

use super::shared_disks::Side;
use super::{Appliance, DiskSource};
use crate::cache::shfs::{MAX_DISKS, Mount, MountConfig, MountError, Volume};
use crate::rings::{BlockDevice, NetQueue};

/// Least time between two mounts because of changes.
const RENEW_INTERVAL: Duration = Duration::from_millis(200);

impl<N: NetQueue, B: BlockDevice> Appliance<N, B> {
    /// Begins to read a volume from the disks. It is served from the round on in which all of its table is read; until then, and
    /// if it can't be read, the one before it is (or none). Requests under way finish on the volume that they began with. What
    /// came of it: [`Appliance::mount_result`]. While a mount is under way, another one follows it.
    pub fn mount(&mut self) {
        self.mount_from(&[]);
    }

    /// As [`Appliance::mount`], from the disks with these numbers alone; none stands for all.
    pub fn mount_from(&mut self, disks: &[usize]) {
        self.mount_disks.clear();
        self.mount_disks.extend_from_slice(disks);
        if self.mount.is_some() {
            self.mount_again = true;
        } else {
            self.begin_mount();
        }
    }

    /// What the disk source shows has changed: it will be mounted anew, soon.
    pub fn set_stale(&mut self) {
        self.stale = true;
    }

    /// From now on [`Appliance::mount`] asks `source` for a disk, and mounts that alone. Disks that nobody uses any more are
    /// given up for it.
    pub fn set_disk_source(&mut self, source: DiskSource<B>) {
        self.disk_source = Some(source);
        self.http.set_renewable();
    }

    /// Puts a new disk in the place of one that nobody uses, or behind the others. Returns its number; an error if there
    /// are as many as there can be.
    fn attach_disk(&mut self, disk: B) -> Result<usize, MountError> {
        let cache = self.http.cache();
        let free = (0..self.disks.len()).find(|&number| !cache.uses_disk(number));
        match free {
            Some(number) => {
                self.disks[number] = disk;
                self.shared_disks.exchange(number);
                Ok(number)
            }
            None if self.disks.len() < MAX_DISKS => {
                self.disks.push(disk);
                Ok(self.disks.len() - 1)
            }
            None => Err(MountError::DiskCount(self.disks.len() + 1)),
        }
    }

    pub(super) fn begin_mount(&mut self) {
        if self.mount_disks.is_empty()
            && let Some(source) = &mut self.disk_source
        {
            let disk = source().map_err(MountError::NoDisk);
            match disk.and_then(|disk| self.attach_disk(disk)) {
                Ok(number) => self.mount_disks.push(number),
                Err(error) => {
                    self.mount_outcome = Some(Err(error));
                    self.mount_told = false;
                    return;
                }
            }
        }
        let (secret, directory_max_bytes) = (self.mount_secret, self.config.directory_bytes);
        self.shared_disks.begin(self.disks.len(), &self.mount_disks);
        self.mount_disks.clear();
        self.mount_outcome = None;
        self.mount_told = false;
        self.mount = Some(Mount::new(MountConfig { secret, directory_max_bytes }));
    }

    /// How the last [`Appliance::mount`] ended; told once. `None` while it is under way, and when there was none. What was
    /// noticed on the way (disks left out, damaged entries) is in [`Appliance::volume`].
    pub fn mount_result(&mut self) -> Option<Result<(), MountError>> {
        let outcome = self.mount_outcome.as_ref().filter(|_| !self.mount_told).cloned();
        self.mount_told |= outcome.is_some();
        outcome
    }

    /// Serves nothing from now on, until the next [`Appliance::mount`]. Requests under way finish.
    pub fn unmount(&mut self) {
        self.mount_dropped = self.mount.is_some();
        self.mount_again = false;
        info!("volume: unmounted");
        self.http.unmount();
    }

    /// The volume that new requests are served from.
    pub fn volume(&self) -> Option<&Volume> {
        self.http.volume()
    }

    /// Mounts anew when what the disks show has changed, but not again and again while it keeps changing.
    pub(super) fn renew(&mut self, now: Instant) -> bool {
        self.stale |= self.http.take_stale();
        // What has been unmounted stays so until it is asked for; and then it is read anew in any case.
        self.stale &= self.mount.is_some() || self.http.volume().is_some();
        if !self.stale || self.disk_source.is_none() || now < self.renew_at || self.mount.is_some() {
            return false;
        }
        self.stale = false;
        self.renew_at = now + RENEW_INTERVAL;
        self.mount();
        true
    }

    pub(super) fn poll_mount(&mut self) -> bool {
        let Some(mount) = &mut self.mount else { return false };
        let mut views = self.shared_disks.views(&mut self.disks, Side::Mount);
        let Poll::Ready(outcome) = mount.poll(&mut views) else { return false };
        drop(views);
        self.mount = None;
        let wanted = !core::mem::take(&mut self.mount_dropped);
        let outcome = wanted.then(|| {
            outcome.and_then(|mut volume| {
                // Those that the mount was not to look at are no news.
                volume.skipped_disks.retain(|skipped| self.shared_disks.is_shown(skipped.disk));
                Ok(self.http.set_volume(Some(volume))?)
            })
        });
        match &outcome {
            None => info!("volume: the mount was given up"),
            Some(Err(error)) => info!("volume: can't be mounted: {}", error),
            Some(Ok(())) => {
                if let Some(volume) = self.http.volume() {
                    let name = format_args!("{:?}", volume.name);
                    info!("volume: {} is mounted, {} objects", name, volume.directory.len());
                }
            }
        }
        if core::mem::take(&mut self.mount_again) {
            self.begin_mount();
        } else {
            self.mount_outcome = outcome;
        }
        true
    }

    pub(super) fn poll_cache(&mut self) -> bool {
        let cache = self.http.cache_mut();
        if self.mount.is_some() || self.shared_disks.has_kept() {
            cache.poll(&mut self.shared_disks.views(&mut self.disks, Side::Cache))
        } else {
            cache.poll(&mut self.disks)
        }
    }
}
