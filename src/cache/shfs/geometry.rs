//! The arithmetic of a volume: chunks, stripes, sizes, buckets (docs/shfs.md). Reader and writers share it, so that they
//! can't disagree.

use core::fmt;

use super::format::{ENTRY_BYTES, MAX_MEMBERS, MAX_STRIPE_BYTES, MIN_STRIPE_BYTES};
use super::format::{STRIPE_MODE_COMBINED, STRIPE_MODE_INDEPENDENT};
use crate::rings::PAGE_BYTES;

/// Most pages of a chunk: a stripe of 32 KiB from each of 16 members.
pub const MAX_CHUNK_PAGES: usize = MAX_STRIPE_BYTES as usize * MAX_MEMBERS / PAGE_BYTES;

/// How stripes are dealt out to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StripeMode {
    /// A chunk is one stripe; chunks go to the members in turn.
    Independent,
    /// A chunk is one stripe of every member.
    Combined,
}

impl StripeMode {
    /// The mode that `member_stripemode` names.
    pub fn from_disk(value: u8) -> Option<Self> {
        match value {
            STRIPE_MODE_INDEPENDENT => Some(Self::Independent),
            STRIPE_MODE_COMBINED => Some(Self::Combined),
            _ => None,
        }
    }

    /// The value of `member_stripemode`.
    pub fn to_disk(self) -> u8 {
        match self {
            Self::Independent => STRIPE_MODE_INDEPENDENT,
            Self::Combined => STRIPE_MODE_COMBINED,
        }
    }
}

impl fmt::Display for StripeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Independent => "independent",
            Self::Combined => "combined",
        })
    }
}

/// A stripe's place: `member` counts in the volume's order, `byte` from the member's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripePlace {
    /// The member that holds the stripe.
    pub member: usize,
    /// First byte of the stripe on that member.
    pub byte: u64,
}

/// Stripe size, mode and number of members: what maps chunks to bytes of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Striping {
    mode: StripeMode,
    stripe_bytes: u32,
    members: u8,
}

impl Striping {
    /// `None` unless `stripe_bytes` is a power of two from 4096 to 32768 and `members` is from 1 to 16.
    pub fn new(mode: StripeMode, stripe_bytes: u32, members: usize) -> Option<Self> {
        let sound = stripe_bytes.is_power_of_two()
            && (MIN_STRIPE_BYTES..=MAX_STRIPE_BYTES).contains(&stripe_bytes)
            && (1..=MAX_MEMBERS).contains(&members);
        sound.then_some(Self { mode, stripe_bytes, members: members as u8 })
    }

    /// How stripes are dealt out.
    pub fn mode(&self) -> StripeMode {
        self.mode
    }

    /// Bytes of a stripe.
    pub fn stripe_bytes(&self) -> u32 {
        self.stripe_bytes
    }

    /// Number of members, 1 to 16.
    pub fn members(&self) -> usize {
        self.members.into()
    }

    /// Stripes that a chunk is made of.
    pub fn stripes_per_chunk(&self) -> usize {
        match self.mode {
            StripeMode::Independent => 1,
            StripeMode::Combined => self.members(),
        }
    }

    /// Bytes of a chunk: a multiple of 4096, not always a power of two.
    pub fn chunk_bytes(&self) -> u32 {
        self.stripe_bytes * self.stripes_per_chunk() as u32
    }

    /// Pages of a chunk, 1 to [`MAX_CHUNK_PAGES`].
    pub fn chunk_pages(&self) -> usize {
        self.chunk_bytes() as usize / PAGE_BYTES
    }

    /// Where the `index`-th stripe of `chunk` lies. `None` when that place can't be counted in 64 bits.
    ///
    /// # Panics
    /// If a chunk has no such stripe.
    pub fn place(&self, chunk: u64, index: usize) -> Option<StripePlace> {
        assert!(index < self.stripes_per_chunk(), "stripe {index} of a chunk");
        let members = u64::from(self.members);
        let (member, row) = match self.mode {
            StripeMode::Combined => (index, chunk),
            StripeMode::Independent => {
                // The label takes the first stripe of every member, chunk 0 stands for the first member's.
                let stripe = chunk.checked_add(members - 1)?;
                ((stripe % members) as usize, stripe / members)
            }
        };
        Some(StripePlace { member, byte: row.checked_mul(self.stripe_bytes.into())? })
    }

    /// The highest chunk of which every stripe is among the first stripes of its member, `stripes` of the members in order;
    /// 0 for none.
    pub fn last_chunk(&self, stripes: impl Iterator<Item = u64>) -> u64 {
        let members = u64::from(self.members);
        match self.mode {
            StripeMode::Combined => stripes.min().unwrap_or(0).saturating_sub(1),
            // The first stripe that is missing ends the volume; stripe `members` is that of chunk 1.
            StripeMode::Independent => stripes
                .enumerate()
                .map(|(member, count)| count.saturating_mul(members).saturating_add(member as u64))
                .min()
                .unwrap_or(0)
                .saturating_sub(members),
        }
    }

    /// Bytes that a member needs at least so that every chunk from 1 to `last_chunk` begins on it; saturating.
    pub fn member_bytes(&self, member: usize, last_chunk: u64) -> u64 {
        let members = u64::from(self.members);
        let last_row = match self.mode {
            StripeMode::Combined => last_chunk,
            StripeMode::Independent => {
                let last_stripe = last_chunk.saturating_add(members - 1);
                last_stripe.saturating_sub(member as u64) / members
            }
        };
        last_row.saturating_mul(self.stripe_bytes.into()).saturating_add(1)
    }

    /// `vol_size` of a volume whose smallest member has `member_bytes` bytes: chunks below it are handed out to objects.
    pub fn vol_size(&self, member_bytes: u64) -> u64 {
        let (chunk, stripe) = (u64::from(self.chunk_bytes()), u64::from(self.stripe_bytes));
        let Some(behind_label) = member_bytes.checked_sub(chunk) else { return 0 };
        match self.mode {
            StripeMode::Independent => behind_label / chunk * u64::from(self.members),
            StripeMode::Combined => behind_label / stripe + 1,
        }
    }
}

/// Entries of the hash table that a chunk holds.
pub fn entries_per_chunk(chunk_bytes: u32) -> u32 {
    chunk_bytes / ENTRY_BYTES as u32
}

/// Chunks that a hash table of `entries` entries takes.
pub fn table_chunks(entries: u32, chunk_bytes: u32) -> u64 {
    entries.div_ceil(entries_per_chunk(chunk_bytes)).into()
}

/// Chunks in front of the first object when the table begins at chunk 2 as usual: label, configuration, table and its copy.
pub fn metadata_chunks(entries: u32, chunk_bytes: u32, backup: bool) -> u64 {
    2 + table_chunks(entries, chunk_bytes) * if backup { 2 } else { 1 }
}

/// The bucket of a digest (all `hlen` bytes of it): its first four bytes or what there is of them, read little-endian,
/// modulo the number of buckets.
///
/// # Panics
/// If there are no buckets.
pub fn bucket_of(digest: &[u8], bucket_count: u32) -> u32 {
    let value = digest.iter().take(4).rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
    value % bucket_count
}

/// True for the digest of an empty slot, which no object can have: all its bytes are zero.
pub fn is_empty_digest(digest: &[u8]) -> bool {
    digest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn striping(mode: StripeMode, stripe_bytes: u32, members: usize) -> Striping {
        Striping::new(mode, stripe_bytes, members).unwrap()
    }

    #[test]
    fn sizes_are_those_of_the_original_tools() {
        use StripeMode::{Combined, Independent};
        assert_eq!(striping(Independent, 4096, 1).vol_size(6 * MIB), 1535);
        assert_eq!(striping(Combined, 8192, 2).vol_size(3 * MIB), 383);
        assert_eq!(striping(Independent, 8192, 2).vol_size(3 * MIB), 766);
        // shfs_mkfs' summaries of 1 MiB members: (KiB of volume / KiB of chunk).
        assert_eq!(striping(Combined, 8192, 2).vol_size(MIB), 2032 / 16);
        assert_eq!(striping(Combined, 4096, 3).vol_size(MIB), 3048 / 12);
        assert_eq!(striping(Independent, 8192, 2).vol_size(MIB), 2032 / 8);
        for members in 1..=16 {
            for mode in [Independent, Combined] {
                let striping = striping(mode, 4096, members);
                assert_eq!(striping.vol_size(0), 0);
                assert_eq!(striping.vol_size(u64::from(striping.chunk_bytes()) - 1), 0);
            }
        }
    }

    #[test]
    fn impossible_striping_is_refused() {
        for (stripe_bytes, members) in [(2048, 1), (65536, 1), (4097, 1), (0, 1), (4096, 0), (4096, 17)] {
            assert_eq!(Striping::new(StripeMode::Independent, stripe_bytes, members), None);
        }
    }

    #[test]
    fn chunks_lie_where_the_format_puts_them() {
        let two = striping(StripeMode::Independent, 8192, 2);
        let place = |chunk| two.place(chunk, 0).unwrap();
        assert_eq!(place(1), StripePlace { member: 0, byte: 8192 });
        assert_eq!(place(2), StripePlace { member: 1, byte: 8192 });
        assert_eq!(place(3), StripePlace { member: 0, byte: 16384 });
        let three = striping(StripeMode::Combined, 4096, 3);
        assert_eq!(three.chunk_bytes(), 12288);
        assert_eq!(three.place(5, 2), Some(StripePlace { member: 2, byte: 5 * 4096 }));
        assert_eq!(three.place(u64::MAX, 0), None);
        assert_eq!(two.place(u64::MAX, 0), None);
        let one = striping(StripeMode::Combined, 16384, 1);
        assert_eq!(one.place(7, 0), Some(StripePlace { member: 0, byte: 7 * 16384 }));
    }

    #[test]
    fn no_two_chunks_share_a_byte_and_none_touches_a_label() {
        for mode in [StripeMode::Independent, StripeMode::Combined] {
            for members in 1..=16 {
                let striping = striping(mode, 4096, members);
                let mut seen = alloc::collections::BTreeSet::new();
                for chunk in 1..100 {
                    for index in 0..striping.stripes_per_chunk() {
                        let place = striping.place(chunk, index).unwrap();
                        assert!(place.byte >= 4096 && place.member < members);
                        assert!(seen.insert((place.member, place.byte)));
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_chunk_is_the_last_that_the_members_hold() {
        for mode in [StripeMode::Independent, StripeMode::Combined] {
            for members in 1..=16 {
                let striping = striping(mode, 4096, members);
                for last in 1..50 {
                    let bytes = |member| striping.member_bytes(member, last);
                    let stripes = |member| bytes(member).div_ceil(4096);
                    assert!(striping.last_chunk((0..members).map(stripes)) >= last);
                    let place = striping.place(last, 0).unwrap();
                    assert_eq!(bytes(place.member), place.byte + 1);
                    let cut = |member| stripes(member) - u64::from(member == place.member);
                    assert!(striping.last_chunk((0..members).map(cut)) < last);
                }
                assert_eq!(striping.member_bytes(0, u64::MAX), u64::MAX);
            }
        }
        assert_eq!(striping(StripeMode::Independent, 4096, 1).last_chunk([0].into_iter()), 0);
    }

    #[test]
    fn buckets_follow_the_first_four_bytes() {
        assert_eq!(bucket_of(&[0x1e, 0x83, 0x3c, 0x10, 0x40], 64), 30);
        assert_eq!(bucket_of(&[200], 64), 8);
        assert_eq!(bucket_of(&[1, 2], 1000), 0x0201);
        assert_eq!(bucket_of(&[1, 2, 3], 100_000), 0x03_0201 - 100_000);
        assert_eq!(bucket_of(&[1, 2, 3, 4, 255, 255, 255, 255], u32::MAX), 0x0403_0201);
    }

    #[test]
    fn tables_fill_whole_chunks() {
        assert_eq!(entries_per_chunk(12288), 48);
        assert_eq!(table_chunks(128, 12288), 3);
        assert_eq!(table_chunks(12, 4096), 1);
        assert_eq!(table_chunks(u32::MAX, 4096), 1 << 28);
        assert_eq!(metadata_chunks(256, 4096, false), 18);
        assert_eq!(metadata_chunks(256, 4096, true), 34);
    }
}
