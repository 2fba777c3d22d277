//! Where a volume's chunks lie on the disks that were found: shared by mounting and by the chunk cache.

use arrayvec::ArrayVec;

use super::format::MAX_MEMBERS;
use super::geometry::Striping;
use crate::rings::{Geometry, PAGE_BYTES};

/// A member's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberDisk {
    /// Its place among the disks that are handed to every `poll`.
    pub disk: usize,
    /// Its size and sector size, as it was when the volume was mounted.
    pub geometry: Geometry,
}

/// Pages of a chunk that lie one behind the other on one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The disk, as in [`MemberDisk::disk`].
    pub disk: usize,
    /// First byte on the disk, a multiple of the page size.
    pub byte: u64,
    /// First sector on the disk.
    pub sector: u64,
    /// First page within the chunk.
    pub first_page: usize,
    /// Number of pages, at least 1.
    pub pages: usize,
}

/// Maps chunks to sectors of disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    striping: Striping,
    members: ArrayVec<MemberDisk, MAX_MEMBERS>,
    last_chunk: u64,
    /// Chunks up to here lie on the disks as a whole.
    last_whole_chunk: u64,
}

impl Layout {
    /// The layout of a volume whose label says `vol_size`, on these disks in the members' order.
    ///
    /// # Panics
    /// If the number of disks is not that of `striping`, or a sector is not a power of two from 512 to 4096 bytes.
    pub fn new(striping: Striping, members: ArrayVec<MemberDisk, MAX_MEMBERS>, vol_size: u64) -> Self {
        assert_eq!(members.len(), striping.members());
        for member in &members {
            let sector_bytes = member.geometry.sector_bytes;
            assert!(sector_bytes.is_power_of_two() && (512..=4096).contains(&sector_bytes), "{member:?}");
        }
        let stripe = u64::from(striping.stripe_bytes());
        let last_whole = striping.last_chunk(members.iter().map(|member| member.geometry.bytes() / stripe));
        let last_begun = striping.last_chunk(members.iter().map(|member| member.geometry.bytes().div_ceil(stripe)));
        Self { striping, members, last_chunk: vol_size.min(last_begun), last_whole_chunk: vol_size.min(last_whole) }
    }

    /// Stripe size and mode.
    pub fn striping(&self) -> &Striping {
        &self.striping
    }

    /// The members' disks, in the volume's order.
    pub fn members(&self) -> &[MemberDisk] {
        &self.members
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> u32 {
        self.striping.chunk_bytes()
    }

    /// Pages of a chunk.
    pub fn chunk_pages(&self) -> usize {
        self.striping.chunk_pages()
    }

    /// The highest chunk that can be read: at most `vol_size` (which the format's readers accept), and begun on the disks.
    /// Chunks from 1 to this one can be read; 0 when there is none.
    pub fn last_chunk(&self) -> u64 {
        self.last_chunk
    }

    /// True for a chunk that can be read. Chunk 0, the label, is none.
    pub fn contains(&self, chunk: u64) -> bool {
        (1..=self.last_chunk).contains(&chunk)
    }

    /// True if the first `bytes` bytes of `chunk` lie on the disks.
    pub fn holds(&self, chunk: u64, bytes: u32) -> bool {
        if !self.contains(chunk) || bytes > self.chunk_bytes() {
            return false;
        }
        let stripe = self.striping.stripe_bytes();
        chunk <= self.last_whole_chunk
            || (0..self.striping.stripes_per_chunk()).all(|index| {
                let needed = bytes.saturating_sub(index as u32 * stripe).min(stripe);
                let place = self.striping.place(chunk, index).expect("the chunk was begun on the disks");
                let end = place.byte.saturating_add(needed.into());
                needed == 0 || end <= self.members[place.member].geometry.bytes()
            })
    }

    /// True if `length_bytes` bytes, from `offset_bytes` into `chunk` on, lie on the disks and none in chunk 0.
    pub fn holds_extent(&self, chunk: u64, offset_bytes: u64, length_bytes: u64) -> bool {
        let chunk_bytes = u64::from(self.chunk_bytes());
        let Some(end_bytes) = offset_bytes.checked_add(length_bytes) else { return false };
        let Some(last) = chunk.checked_add(end_bytes.saturating_sub(1) / chunk_bytes) else { return false };
        if chunk == 0 || last > self.last_chunk {
            return false;
        }
        // Behind the last whole chunk come at most as many as there are members, so this loop is short.
        let first_doubtful = chunk.max(self.last_whole_chunk.saturating_add(1));
        (first_doubtful..=last).all(|doubtful| {
            let needed = (end_bytes - (doubtful - chunk) * chunk_bytes).min(chunk_bytes);
            self.holds(doubtful, needed as u32)
        })
    }

    /// The run of pages that begins at `page` of `chunk` and ends with its stripe. `None` if that page lies behind the
    /// disk's end (in a chunk that is cut short), or there is no such page.
    pub fn run(&self, chunk: u64, page: usize) -> Option<Run> {
        if !self.contains(chunk) || page >= self.chunk_pages() {
            return None;
        }
        let stripe_pages = self.striping.stripe_bytes() as usize / PAGE_BYTES;
        let place = self.striping.place(chunk, page / stripe_pages)?;
        let member = &self.members[place.member];
        let byte = place.byte + (page % stripe_pages * PAGE_BYTES) as u64;
        let pages_on_disk = member.geometry.bytes().checked_sub(byte)?.div_ceil(PAGE_BYTES as u64);
        let pages = pages_on_disk.min((stripe_pages - page % stripe_pages) as u64) as usize;
        let sector = byte / u64::from(member.geometry.sector_bytes);
        (pages > 0).then_some(Run { disk: member.disk, byte, sector, first_page: page, pages })
    }

    /// The runs that a chunk is made of, one for each stripe that begins on its disk. Pages that no run covers lie behind
    /// the end of a disk.
    pub fn runs(&self, chunk: u64) -> impl Iterator<Item = Run> + '_ {
        let stripe_pages = self.striping.stripe_bytes() as usize / PAGE_BYTES;
        (0..self.striping.stripes_per_chunk()).filter_map(move |stripe| self.run(chunk, stripe * stripe_pages))
    }
}
