//! Mounts images and reads objects, waiting for the disks.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use anyhow::{Context, anyhow, ensure};
use minicache::cache::shfs::geometry::MAX_CHUNK_PAGES;
use minicache::cache::shfs::{Content, MAX_DISKS, Mount, MountConfig, MountError, ObjectId, Volume};
use minicache::cache::{ChunkCache, Lookup};
use minicache::rings::host::HostDisk;
use minicache::rings::{BlockDevice, PAGE_BYTES, PagePool};
use minicache::stats::Stats;

use crate::terminal::warn;

/// Enough for many millions of objects; a damaged image can't make us take more.
const DIRECTORY_MAX_BYTES: usize = 4 << 30;

/// Memory for chunks: several of the largest.
const CACHE_PAGES: usize = 8 * MAX_CHUNK_PAGES;

/// How far reading goes ahead.
const AHEAD_BYTES: u64 = 1 << 20;

/// A mounted volume and its disks.
pub struct Image {
    /// The volume.
    pub volume: Volume,
    /// The disks, in the order of the arguments.
    pub disks: Vec<HostDisk>,
}

impl Image {
    /// Mounts the volume that the images hold. What is odd about it but does not prevent that is told on standard error.
    pub fn open(paths: &[PathBuf]) -> anyhow::Result<Self> {
        ensure!(paths.len() <= MAX_DISKS, "at most {MAX_DISKS} images can be searched for a volume");
        let mut disks = Vec::with_capacity(paths.len());
        for path in paths {
            disks.push(HostDisk::open_image(path, true).with_context(|| format!("can't open the image {path:?}"))?);
        }
        let image = Self::mount(disks).map_err(|error| explain(&error, paths))?;
        let volume = &image.volume;
        for skipped in &volume.skipped_disks {
            warn(&format!("{:?} is not used: {}", paths[skipped.disk], skipped.reason));
        }
        for damage in &volume.damages {
            warn(&format!("damaged: {damage}"));
        }
        let untold = volume.damaged_entries - volume.damages.len() as u64;
        if untold > 0 {
            warn(&format!("and {untold} more damaged entries"));
        }
        Ok(image)
    }

    /// Mounts the volume that the disks hold.
    pub fn mount(mut disks: Vec<HostDisk>) -> Result<Self, MountError> {
        for disk in &mut disks {
            let waiting = thread::current();
            disk.set_waker(Arc::new(move || waiting.unpark()));
        }
        // Nobody from outside chooses the names that are looked up here, so the hashes need no secret.
        let mut mount = Mount::new(MountConfig { secret: [0; 16], directory_max_bytes: DIRECTORY_MAX_BYTES });
        let volume = wait_for(&mut disks, |disks| mount.poll(disks))?;
        Ok(Self { volume, disks })
    }

    /// Reads an object through the chunk cache, as the server does, and hands its bytes to `sink` in order. A link has none.
    pub fn read(&mut self, id: ObjectId, mut sink: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let Content::Extent { mut chunk, offset_bytes, length_bytes } = self.volume.directory.get(id).content else {
            return Ok(());
        };
        let mut cache = ChunkCache::new(PagePool::new(CACHE_PAGES), 1, Rc::new(Stats::default()));
        let source = cache.attach(&self.volume.layout)?;
        let chunk_bytes = u64::from(self.volume.chunk_bytes);
        let (mut skip_bytes, mut left_bytes) = (offset_bytes as usize, length_bytes);
        while left_bytes > 0 {
            let ahead_chunks = (skip_bytes as u64 + left_bytes.min(AHEAD_BYTES)).div_ceil(chunk_bytes) - 1;
            let found = wait_for(&mut self.disks, |disks| {
                loop {
                    while let Some((_, result)) = cache.next_woken() {
                        if let Err(error) = result {
                            return Poll::Ready(Err(error.into()));
                        }
                    }
                    match cache.lookup(source, chunk, ahead_chunks as u32, 0) {
                        Lookup::Ready(pages) => return Poll::Ready(Ok(pages.to_vec())),
                        Lookup::OutOfRange => return Poll::Ready(Err(anyhow!("chunk {chunk} is not on the volume"))),
                        Lookup::Pending | Lookup::Starved => {}
                    }
                    if !cache.poll(disks) {
                        return Poll::Pending;
                    }
                }
            });
            for page in found? {
                let begin = skip_bytes.min(PAGE_BYTES);
                let taken = (PAGE_BYTES - begin).min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
                sink(&page.bytes()[begin..begin + taken])?;
                skip_bytes -= begin;
                left_bytes -= taken as u64;
            }
            chunk += 1;
        }
        Ok(())
    }
}

/// Drives something that lives on disks until it is ready, sleeping while they work.
fn wait_for<T>(disks: &mut [HostDisk], mut poll: impl FnMut(&mut [HostDisk]) -> Poll<T>) -> T {
    loop {
        if let Poll::Ready(value) = poll(disks) {
            return value;
        }
        // A completion that comes between `arm` and `park` leaves a token that makes `park` return at once.
        let ready = disks.iter_mut().fold(false, |ready, disk| {
            disk.flush();
            disk.arm() | ready
        });
        if !ready {
            thread::park();
        }
    }
}

/// The error with the images' names; the volume's reader knows its disks by number.
fn explain(error: &MountError, paths: &[PathBuf]) -> anyhow::Error {
    match (error.disk(), paths) {
        (Some(disk), _) => anyhow!("{:?}: {error}", paths[disk]),
        (None, [path]) => anyhow!("{path:?}: {error}"),
        (None, _) => {
            let disks: Vec<String> =
                paths.iter().enumerate().map(|(disk, path)| format!("{disk} is {path:?}")).collect();
            anyhow!("{error} (disk {})", disks.join(", "))
        }
    }
}
