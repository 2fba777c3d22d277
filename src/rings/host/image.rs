//! A disk that is one file (or block device) of the host.

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::file::OpenFile;
use super::workers::{Piece, Pieces, Source, buffers};
use crate::rings::{PAGE_BYTES, PageVec};

pub(super) struct Image {
    pub file: Arc<OpenFile>,
    /// Length of the file when it was opened.
    pub length: u64,
}

impl Image {
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        // `O_NONBLOCK`: opening a FIFO by mistake must not hang.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file: File =
            OpenOptions::new().read(true).write(!read_only).custom_flags(flags.bits() as i32).open(path)?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
        }
        // A block device's metadata has no length.
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self { file: Arc::new(OpenFile::of_image(file)), length })
    }

    /// The piece of the file that makes up `pages` from byte `start` of the disk on. What lies behind its end is zero.
    pub fn locate(&self, start: u64, pages: &mut PageVec, pieces: &mut Pieces) {
        let wanted = pages.len() * PAGE_BYTES;
        let length = self.length.saturating_sub(start).min(wanted as u64) as usize;
        buffers(pages, length, wanted - length).into_iter().for_each(|buffer| buffer.fill(0));
        if length > 0 {
            pieces.push(Piece { source: Source::Open(self.file.clone()), offset: start, at: 0, length });
        }
    }
}
