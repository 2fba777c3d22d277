//! The chunk cache: chunks of volumes in pages, read once however many wait, evicted when nobody uses them.

use alloc::rc::Rc;
use core::fmt;

use super::shfs::Layout;
use crate::rings::{BlockDevice, BlockError, Page, PagePool};
use crate::stats::Stats;

/// What is cached from: one generation of a volume. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId {
    index: u32,
    generation: u32,
}

/// Who waits for a chunk: a name that the cache only hands back (http packs its connection into it).
///
/// A waiter waits for one thing at a time: a look-up that has to wait replaces the waiter's earlier one.
pub type Waiter = u64;

/// A chunk that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The chunk.
    pub chunk: u64,
    /// What the disk said; [`BlockError::Down`] also when the source was detached meanwhile.
    pub error: BlockError,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {}: {}", self.chunk, self.error)
    }
}

impl core::error::Error for ReadError {}

/// Why a volume could not be attached to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// One chunk has more bytes than the whole cache.
    ChunkLargerThanCache {
        /// Bytes of a chunk.
        chunk_bytes: usize,
        /// Bytes of the cache.
        cache_bytes: usize,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChunkLargerThanCache { chunk_bytes, cache_bytes } => write!(
                f,
                "the volume's chunks have {chunk_bytes} bytes, but the cache has only {cache_bytes}: give it more memory"
            ),
        }
    }
}

impl core::error::Error for AttachError {}

/// What became of a look-up.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// The chunk's pages, all of it. Slices taken from them pin the chunk.
    Ready(&'a [Page]),
    /// Being read; the waiter will be woken.
    Pending,
    /// Every page is pinned or in use. The waiter is remembered, the chunk is read as soon as there is memory, and then the
    /// waiter is woken.
    Starved,
    /// The source has no such chunk, or has been detached.
    OutOfRange,
}

/// The cache.
pub struct ChunkCache {
    pool: PagePool,
    stats: Rc<Stats>,
}

impl ChunkCache {
    /// A cache of the pages of `pool`, which nobody else may use. `max_waiters` is how many different waiters can wait at
    /// once.
    pub fn new(pool: PagePool, max_waiters: usize, stats: Rc<Stats>) -> Self {
        let _ = max_waiters;
        Self { pool, stats }
    }

    /// Makes the chunks of a volume available.
    pub fn attach(&mut self, layout: &Layout) -> Result<SourceId, AttachError> {
        let _ = layout;
        unimplemented!()
    }

    /// Forgets a source. Its waiters are woken with an error; pages that are pinned live on with their slices.
    pub fn detach(&mut self, source: SourceId) {
        let _ = source;
        unimplemented!()
    }

    /// Looks for a chunk, and starts reading it and the `ahead_chunks` behind it where they are not there. The hint may reach
    /// beyond the source's end, but should not reach beyond the object's.
    pub fn lookup(&mut self, source: SourceId, chunk: u64, ahead_chunks: u32, waiter: Waiter) -> Lookup<'_> {
        let _ = (source, chunk, ahead_chunks, waiter);
        unimplemented!()
    }

    /// Takes the disks' events and completions, and submits reads. True if anything was done. Once a round.
    pub fn poll<B: BlockDevice>(&mut self, disks: &mut [B]) -> bool {
        let _ = disks;
        unimplemented!()
    }

    /// The next waiter whose chunk is there (look it up again) or failed, in the order in which that happened.
    pub fn next_woken(&mut self) -> Option<(Waiter, Result<(), ReadError>)> {
        unimplemented!()
    }

    /// Forgets a waiter: its connection has gone.
    pub fn forget(&mut self, waiter: Waiter) {
        let _ = waiter;
        unimplemented!()
    }

    /// Bytes that can't be evicted because a slice refers to their page.
    pub fn pinned_bytes(&self) -> usize {
        unimplemented!()
    }

    /// Bytes of the whole cache.
    pub fn capacity_bytes(&self) -> usize {
        let _ = &self.stats;
        self.pool.capacity() * crate::rings::PAGE_BYTES
    }

    /// True while a look-up waits for memory.
    pub fn starved(&self) -> bool {
        unimplemented!()
    }
}
