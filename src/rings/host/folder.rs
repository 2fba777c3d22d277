//! A disk put together from a prefix in memory and the files of a folder.
//!
//! Few files are open at a time, however many the folder has. A file that is no longer what it was when the disk was planned
//! is never read from: a volume's names, lengths and digests are those of the plan.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::io::Errno;

use super::file::{Folder, OpenFile, PlannedFile, Stamp};
use super::workers::{Piece, Pieces, Source, buffers};
use crate::rings::{PAGE_BYTES, PageVec};

/// Most files open at a time.
pub(super) const MAX_OPEN_FILES: usize = 256;

/// A file that lies on the disk from `start_bytes` on.
#[derive(Clone, Debug)]
pub struct FolderExtent {
    /// First byte on the disk: a multiple of [`PAGE_BYTES`].
    pub start_bytes: u64,
    /// Length of the file in bytes.
    pub length_bytes: u64,
    /// The file, in the folder: absolute or relative to it.
    pub path: PathBuf,
    /// When it was modified last.
    pub modified: SystemTime,
}

struct Extent {
    start: u64,
    length: u64,
    planned: Arc<PlannedFile>,
    /// Where it stands among the open files.
    slot: Option<u16>,
}

impl Extent {
    fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// The open files, replaced by second chance (CLOCK).
#[derive(Default)]
struct OpenFiles {
    slots: Vec<OpenSlot>,
    hand: usize,
}

struct OpenSlot {
    extent: u32,
    file: Arc<OpenFile>,
    used: bool,
}

/// What lies where on the disk.
pub(super) struct FolderMap {
    prefix: Vec<u8>,
    extents: Vec<Extent>,
    open: OpenFiles,
    max_open: usize,
    /// The kernel can open files without waiting for a disk (`RESOLVE_CACHED`, Linux 5.12); else workers open every file.
    opens_cached: bool,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}

impl FolderMap {
    pub fn new(root: &Path, prefix: Vec<u8>, extents: Vec<FolderExtent>, total_bytes: u64) -> io::Result<Self> {
        let folder = Arc::new(Folder::open(root)?);
        if u32::try_from(extents.len()).is_err() {
            return Err(invalid("more files than a disk has room for"));
        }
        let mut end = prefix.len() as u64;
        let mut checked = Vec::with_capacity(extents.len());
        for FolderExtent { start_bytes: start, length_bytes: length, path, modified } in extents {
            if start < end || start % PAGE_BYTES as u64 != 0 {
                return Err(invalid(format!("{path:?} can't lie at byte {start}, behind byte {end}")));
            }
            end = start.checked_add(length).ok_or_else(|| invalid(format!("{path:?} reaches beyond any disk")))?;
            let planned = PlannedFile::new(folder.clone(), folder.relative(&path).into(), Stamp { length, modified });
            checked.push(Extent { start, length, planned: Arc::new(planned), slot: None });
        }
        if end > total_bytes {
            return Err(invalid(format!("files up to byte {end} on a disk of {total_bytes} bytes")));
        }
        Ok(Self { prefix, extents: checked, open: OpenFiles::default(), max_open: MAX_OPEN_FILES, opens_cached: true })
    }

    /// Pieces of files that make up `pages` from byte `start` of the disk on. What is the prefix's, or nobody's, is filled in
    /// at once.
    pub fn locate(&mut self, start: u64, pages: &mut PageVec, pieces: &mut Pieces) {
        let total = pages.len() * PAGE_BYTES;
        let mut next = self.extents.partition_point(|extent| extent.end() <= start);
        let mut at = 0;
        while at < total {
            let (disk, left) = (start + at as u64, (total - at) as u64);
            while self.extents.get(next).is_some_and(|extent| extent.end() <= disk) {
                next += 1;
            }
            let length = match (self.prefix.get(within_memory(disk)..), self.extents.get(next)) {
                (Some(prefix), _) if !prefix.is_empty() => {
                    let length = left.min(prefix.len() as u64) as usize;
                    let mut rest = prefix;
                    for buffer in buffers(pages, at, length) {
                        buffer.copy_from_slice(&rest[..buffer.len()]);
                        rest = &rest[buffer.len()..];
                    }
                    length
                }
                (_, Some(extent)) if extent.start <= disk => {
                    let length = left.min(extent.end() - disk) as usize;
                    let offset = disk - extent.start;
                    let source = self.source(next);
                    pieces.push(Piece { source, offset, at, length });
                    length
                }
                (_, extent) => {
                    let length = left.min(extent.map_or(left, |extent| extent.start - disk)) as usize;
                    buffers(pages, at, length).into_iter().for_each(|buffer| buffer.fill(0));
                    length
                }
            };
            at += length;
        }
    }

    /// The file of an extent, open if that needs no disk.
    fn source(&mut self, index: usize) -> Source {
        if let Some(slot) = self.extents[index].slot {
            let slot = &mut self.open.slots[usize::from(slot)];
            slot.used = true;
            return Source::Open(slot.file.clone());
        }
        while self.opens_cached {
            match self.extents[index].planned.open(true) {
                Ok(file) => {
                    let file = Arc::new(file);
                    self.keep_open(index as u32, file.clone());
                    return Source::Open(file);
                }
                // The process may have fewer files than we would like to keep open: live with what there is.
                Err(error) if is_out_of_files(&error) && self.open.slots.len() > 1 => self.close_one(),
                Err(error) if is_unknown_call(&error) => self.opens_cached = false,
                // Whatever it is, a worker has the time to find out.
                Err(_) => break,
            }
        }
        Source::Closed(index as u32, self.extents[index].planned.clone())
    }

    /// Keeps a file open that has been opened for an extent.
    pub fn keep_open(&mut self, extent: u32, file: Arc<OpenFile>) {
        if self.extents[extent as usize].slot.is_some() {
            return;
        }
        let slot = OpenSlot { extent, file, used: false };
        let place = if self.open.slots.len() < self.max_open {
            self.open.slots.push(slot);
            self.open.slots.len() - 1
        } else {
            let place = self.second_chance();
            let evicted = std::mem::replace(&mut self.open.slots[place], slot);
            self.extents[evicted.extent as usize].slot = None;
            place
        };
        self.extents[extent as usize].slot = Some(place as u16);
    }

    /// The place of the file to be closed next.
    fn second_chance(&mut self) -> usize {
        loop {
            let place = self.open.hand % self.open.slots.len();
            self.open.hand = place + 1;
            if !std::mem::take(&mut self.open.slots[place].used) {
                return place;
            }
        }
    }

    /// Closes a file, and keeps one less open from now on.
    fn close_one(&mut self) {
        let place = self.second_chance();
        let closed = self.open.slots.swap_remove(place);
        self.extents[closed.extent as usize].slot = None;
        if let Some(moved) = self.open.slots.get(place) {
            self.extents[moved.extent as usize].slot = Some(place as u16);
        }
        self.max_open = self.open.slots.len().max(1);
    }

    #[cfg(test)]
    pub fn open_files(&self) -> usize {
        self.open.slots.len()
    }

    #[cfg(test)]
    pub fn force_slow(&mut self) {
        self.opens_cached = false;
        self.open.slots.iter().for_each(|slot| slot.file.force_slow());
    }
}

/// A byte of the disk as an index; what fits none lies behind everything in memory.
fn within_memory(disk: u64) -> usize {
    usize::try_from(disk).unwrap_or(usize::MAX)
}

fn is_unknown_call(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSYS | Errno::INVAL | Errno::PERM))
}

fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_fewer_files_open_than_wanted_every_slot_still_names_its_extent() {
        let dir = tempfile::tempdir().unwrap();
        let extents = (0..8u64).map(|number| {
            let path = dir.path().join(number.to_string());
            std::fs::write(&path, "content").unwrap();
            let modified = path.metadata().unwrap().modified().unwrap();
            FolderExtent { start_bytes: number * PAGE_BYTES as u64, length_bytes: 7, path, modified }
        });
        let mut map = FolderMap::new(dir.path(), Vec::new(), extents.collect(), 1 << 16).unwrap();
        for keep in (1..8).rev() {
            for index in 0..8 {
                assert!(matches!(map.source(index), Source::Open(_)));
                for (place, slot) in map.open.slots.iter().enumerate() {
                    assert_eq!(map.extents[slot.extent as usize].slot, Some(place as u16));
                }
                assert_eq!(map.extents.iter().filter(|extent| extent.slot.is_some()).count(), map.open_files());
            }
            map.close_one();
            assert_eq!(map.open_files(), keep);
        }
    }
}
