//! Sectors of a disk, read straight into pages.

use arrayvec::ArrayVec;
use core::fmt;

use super::{PAGE_BYTES, Page};

/// Most pages of one request: 64 KiB.
pub const MAX_REQUEST_PAGES: usize = 16;

/// The pages of one request, in order.
pub type PageVec = ArrayVec<Page, MAX_REQUEST_PAGES>;

/// Size and nature of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a sector: a power of two from 512 to 4096.
    pub sector_bytes: u32,
    /// Number of sectors.
    pub sectors: u64,
    /// Writes are refused.
    pub read_only: bool,
}

impl Geometry {
    /// The disk's size in bytes (saturating: a lying backend may claim more than exists).
    pub fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(self.sector_bytes.into())
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOperation {
    /// Fills the pages from the disk.
    Read,
    /// Writes the pages to the disk.
    Write,
    /// Makes earlier writes durable; carries no pages.
    Flush,
}

/// A request. Its pages belong to the device until it completes.
#[derive(Debug)]
pub struct BlockRequest {
    /// What to do.
    pub operation: BlockOperation,
    /// First sector; the pages' bytes (whole pages) must lie on the disk, but for a read that begins on it and ends beyond
    /// its last sector: there the rest of the pages is zero.
    pub sector: u64,
    /// Whole pages, each the only reference to it where the operation is `Read`.
    pub pages: PageVec,
    /// The caller's name for the request, given back with its completion.
    pub token: u64,
}

impl BlockRequest {
    /// Checks the request against the disk and returns its first byte on it.
    pub(super) fn check(&self, geometry: &Geometry) -> Result<u64, BlockError> {
        if self.operation == BlockOperation::Flush {
            return Ok(0);
        }
        if self.pages.is_empty() || (self.operation == BlockOperation::Write && geometry.read_only) {
            return Err(BlockError::Unsupported);
        }
        let start = self.sector.checked_mul(geometry.sector_bytes.into()).ok_or(BlockError::OutOfRange)?;
        let pages_on_disk = match self.operation {
            BlockOperation::Read => self.sector < geometry.sectors,
            _ => (self.pages.len() * PAGE_BYTES) as u64 <= geometry.bytes().saturating_sub(start),
        };
        if pages_on_disk { Ok(start) } else { Err(BlockError::OutOfRange) }
    }

    /// Checks the request against the disk and says where it begins on it and how many bytes are to be moved. Of a read the rest
    /// of the pages is zeroed, and they are made sure to be writable: the device writes them past any reference.
    pub(super) fn prepare(&mut self, geometry: &Geometry) -> Result<(u64, usize), BlockError> {
        let start = self.check(geometry)?;
        let mut bytes = self.pages.len() * PAGE_BYTES;
        match self.operation {
            BlockOperation::Flush => bytes = 0,
            BlockOperation::Write => {}
            BlockOperation::Read => {
                let on_disk = geometry.bytes() - start;
                bytes = bytes.min(usize::try_from(on_disk).unwrap_or(usize::MAX));
                for (index, page) in self.pages.iter_mut().enumerate() {
                    let Some(page) = page.bytes_mut() else {
                        // Of a page that a back end has kept, for instance.
                        return Err(BlockError::Failed);
                    };
                    let end = bytes.saturating_sub(index * PAGE_BYTES).min(PAGE_BYTES);
                    page[end..].fill(0);
                }
            }
        }
        Ok((start, bytes))
    }
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The disk could not read or write.
    Failed,
    /// The sectors are not on the disk.
    OutOfRange,
    /// The disk is read-only, or knows no such operation.
    Unsupported,
    /// The device went down while the request was on its way.
    Down,
    /// What the disk stands for (the files of a folder) has changed since the disk was made: a new one shows it as it is now.
    Changed,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "the disk reported an error",
            Self::OutOfRange => "the sectors lie beyond the end of the disk",
            Self::Unsupported => "the disk does not support this operation",
            Self::Down => "the disk went away",
            Self::Changed => "what the disk shows has changed",
        })
    }
}

impl core::error::Error for BlockError {}

/// A finished request, with its pages.
#[derive(Debug)]
pub struct BlockCompletion {
    /// The request's token.
    pub token: u64,
    /// The request's pages. After a failed read their content is arbitrary.
    pub pages: PageVec,
    /// How it went.
    pub result: Result<(), BlockError>,
}

/// A change of the device's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEvent {
    /// Every request in flight has been completed with [`BlockError::Down`]; nothing can be submitted until `Up`.
    Down,
    /// The device works, with this geometry.
    Up(Geometry),
    /// The device has been removed for good.
    Gone,
}

/// A disk with requests in flight. Requests may complete late and in any order.
pub trait BlockDevice {
    /// Size and nature.
    fn geometry(&self) -> Geometry;

    /// The next change of state, oldest first. A device is down until its first `Up`.
    fn event(&mut self) -> Option<BlockEvent>;

    /// Starts a request. Bad ones are accepted and complete with an error; when the queue is full or the device is down, the
    /// request comes back unchanged.
    #[expect(clippy::result_large_err, reason = "the pages come back without an allocation")]
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest>;

    /// Publishes what `submit` queued, with at most one notification.
    fn flush(&mut self);

    /// Hands finished requests to `sink` and returns how many there were.
    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize;

    /// Asks to be woken by the next completion. True if one is there already: then don't sleep.
    fn arm(&mut self) -> bool;
}
