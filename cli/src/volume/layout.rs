//! Where things lie on a volume of one member: label, configuration, table, extents (docs/shfs.md).

use anyhow::Context;
use minicache::cache::shfs::format::{CONFIG_CHUNK, MAX_STRIPE_BYTES, MIN_STRIPE_BYTES};
use minicache::cache::shfs::geometry::{StripeMode, Striping, entries_per_chunk};

/// Table slots for each object. With SHA-256 digests half-full tables have buckets of 16 to 64 slots.
const SLOTS_PER_OBJECT: u64 = 2;

/// At most one part in so many of a volume is the padding of extents to whole chunks, where chunks can be that small.
const PADDING_SHARE: u64 = 8;

/// The chunk size and the table's room. With one member a chunk is a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    chunk_bytes: u32,
    table_chunks: u64,
}

impl Layout {
    /// Room for `objects` objects. The table's size depends only on their number, so that extents can be written before
    /// the digests are known.
    pub fn new(chunk_bytes: u32, objects: usize) -> Self {
        assert!(is_chunk_bytes(chunk_bytes));
        let slots = objects as u64 * SLOTS_PER_OBJECT;
        let table_chunks = slots.div_ceil(entries_per_chunk(chunk_bytes).into()).max(1);
        Self { chunk_bytes, table_chunks }
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// The table's first chunk.
    pub fn table_chunk(&self) -> u64 {
        CONFIG_CHUNK + 1
    }

    /// Slots that the table's chunks hold.
    pub fn slots(&self) -> u64 {
        self.table_chunks * u64::from(entries_per_chunk(self.chunk_bytes))
    }

    /// The first chunk behind the table.
    pub fn first_extent_chunk(&self) -> u64 {
        self.table_chunk() + self.table_chunks
    }

    /// Chunks that an object of `length_bytes` needs.
    pub fn chunks_of(&self, length_bytes: u64) -> u64 {
        length_bytes.div_ceil(self.chunk_bytes.into())
    }

    /// Byte at which `chunk` begins; an error if no disk has so many.
    pub fn byte_of(&self, chunk: u64) -> anyhow::Result<u64> {
        chunk
            .checked_mul(self.chunk_bytes.into())
            .filter(|byte| *byte <= i64::MAX as u64)
            .context("the files have more bytes than a disk can have")
    }

    /// Size of the disk whose `vol_size` is `end_chunk`, the number of the first chunk that nothing occupies: the format
    /// counts `vol_size` like a highest address, so one chunk more than is used.
    pub fn total_bytes(&self, end_chunk: u64) -> anyhow::Result<u64> {
        self.byte_of(end_chunk + 1)
    }
}

/// Whether a volume may have such chunks.
pub fn is_chunk_bytes(bytes: u32) -> bool {
    Striping::new(StripeMode::Independent, bytes, 1).is_some()
}

/// The largest chunk size that pads little: large chunks mean few reads, small ones waste neither disk nor cache on small
/// files.
pub fn choose_chunk_bytes(lengths_bytes: impl Iterator<Item = u64> + Clone) -> u32 {
    let content = lengths_bytes.clone().fold(0u64, u64::saturating_add);
    let mut chunk_bytes = MAX_STRIPE_BYTES;
    while chunk_bytes > MIN_STRIPE_BYTES {
        let chunk = u64::from(chunk_bytes);
        let padding =
            lengths_bytes.clone().fold(0u64, |sum, length| sum.saturating_add((chunk - length % chunk) % chunk));
        if padding <= content / PADDING_SHARE {
            break;
        }
        chunk_bytes /= 2;
    }
    chunk_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_volume_has_a_table() {
        let layout = Layout::new(4096, 0);
        assert_eq!((layout.slots(), layout.first_extent_chunk()), (16, 3));
        assert_eq!(layout.total_bytes(3).unwrap(), 4 * 4096);
    }

    #[test]
    fn tables_are_whole_chunks() {
        assert_eq!(Layout::new(4096, 8).first_extent_chunk(), 3);
        assert_eq!(Layout::new(4096, 9).first_extent_chunk(), 4);
        assert_eq!(Layout::new(32768, 2000).slots(), 32 * 128);
    }

    #[test]
    fn extents_are_whole_chunks() {
        let layout = Layout::new(8192, 1);
        for (length, chunks) in [(0, 0), (1, 1), (8192, 1), (8193, 2), (u64::MAX, 1 << 51)] {
            assert_eq!(layout.chunks_of(length), chunks);
        }
    }

    #[test]
    fn more_than_a_disk_is_an_error() {
        let layout = Layout::new(32768, 1);
        assert!(layout.byte_of(1 << 47).is_ok());
        assert!(layout.byte_of(1 << 48).is_err());
        assert!(layout.byte_of(u64::MAX).is_err());
    }

    #[test]
    fn chunks_follow_the_files() {
        assert_eq!(choose_chunk_bytes([10 << 20, 5 << 20].into_iter()), 32768);
        assert_eq!(choose_chunk_bytes([100_000; 50].into_iter()), 8192);
        assert_eq!(choose_chunk_bytes([1500; 50].into_iter()), 4096);
        assert_eq!(choose_chunk_bytes([u64::MAX; 2].into_iter()), 32768);
        assert_eq!(choose_chunk_bytes([].into_iter()), 32768);
    }
}
