//! Places objects in the buckets of a hash table.
//!
//! A bucket that is full refuses (there is no chaining), so the table is shaped after the digests: the smallest buckets
//! are taken whose fullest still fits. A single bucket always fits, however the digests were chosen.

use minicache::cache::shfs::format::{Entry, FLAG_DEFAULT, FileAttributes, MAX_MIME_BYTES, MAX_NAME_BYTES};
use minicache::cache::shfs::geometry::bucket_of;
use zerocopy::{FromZeros, IntoBytes};

use super::digest::ObjectDigest;

/// The smallest bucket, the original's default.
const MIN_ENTRIES_PER_BUCKET: u32 = 8;

/// The shape of a table and each object's slot in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Number of buckets.
    pub bucket_count: u32,
    /// Slots of each bucket.
    pub entries_per_bucket: u32,
    /// For each object, in the order given, its slot.
    pub slots: Vec<u32>,
}

impl Table {
    /// Shapes a table of at most `max_slots` slots, at least as many as there are digests.
    pub fn place(digests: &[ObjectDigest], max_slots: u64) -> Self {
        let max_slots = u32::try_from(max_slots).unwrap_or(u32::MAX);
        assert!(digests.len() <= max_slots as usize);
        let mut entries_per_bucket = MIN_ENTRIES_PER_BUCKET.min(max_slots);
        loop {
            let bucket_count = max_slots / entries_per_bucket;
            if let Some(slots) = place_in(digests, bucket_count, entries_per_bucket) {
                return Self { bucket_count, entries_per_bucket, slots };
            }
            assert!(entries_per_bucket < max_slots, "a single bucket of all slots holds everything");
            let at_most_one_bucket = entries_per_bucket > max_slots / 4;
            entries_per_bucket = if at_most_one_bucket { max_slots } else { entries_per_bucket * 2 };
        }
    }
}

/// The slot of each object, or nothing if a bucket overflows.
fn place_in(digests: &[ObjectDigest], bucket_count: u32, entries_per_bucket: u32) -> Option<Vec<u32>> {
    let mut fill = vec![0u32; bucket_count as usize];
    digests
        .iter()
        .map(|digest| {
            let bucket = bucket_of(digest, bucket_count);
            let used = &mut fill[bucket as usize];
            let slot = (*used < entries_per_bucket).then(|| bucket * entries_per_bucket + *used);
            *used += 1;
            slot
        })
        .collect()
}

/// An object as the table describes it.
#[derive(Clone, Debug)]
pub struct PlacedObject {
    /// 1 to 64 bytes.
    pub name: Vec<u8>,
    /// Names the object.
    pub digest: ObjectDigest,
    /// At most 32 bytes.
    pub media_type: &'static str,
    /// Unix time in seconds: the file's modification time, which becomes `Last-Modified`.
    pub modified_unix_s: u64,
    /// The object that `/` names.
    pub is_default: bool,
    /// The extent's first chunk.
    pub chunk: u64,
    /// The extent's length.
    pub length_bytes: u64,
}

impl PlacedObject {
    /// The object as it lies on disk.
    pub fn entry(&self) -> Entry {
        assert!((1..=MAX_NAME_BYTES).contains(&self.name.len()) && self.media_type.len() <= MAX_MIME_BYTES);
        let mut attributes = FileAttributes::new_zeroed();
        attributes.chunk = self.chunk.into();
        attributes.len = self.length_bytes.into();
        attributes.mime[..self.media_type.len()].copy_from_slice(self.media_type.as_bytes());
        let mut entry = Entry::empty();
        entry.digest[..self.digest.len()].copy_from_slice(&self.digest);
        entry.attributes.copy_from_slice(attributes.as_bytes());
        entry.ts_creation = self.modified_unix_s.into();
        entry.flags = if self.is_default { FLAG_DEFAULT } else { 0 };
        entry.name[..self.name.len()].copy_from_slice(&self.name);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn digest(first: u32, last: u32) -> ObjectDigest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&first.to_le_bytes());
        digest[28..].copy_from_slice(&last.to_le_bytes());
        digest
    }

    /// What every table must be: each object in a slot of its own, inside its bucket, none beyond the room.
    fn check(digests: &[ObjectDigest], max_slots: u64) -> Table {
        let table = Table::place(digests, max_slots);
        assert!(u64::from(table.bucket_count) * u64::from(table.entries_per_bucket) <= max_slots);
        assert_eq!(table.slots.len(), digests.len());
        assert_eq!(table.slots.iter().collect::<HashSet<_>>().len(), digests.len());
        for (slot, digest) in table.slots.iter().zip(digests) {
            assert_eq!(slot / table.entries_per_bucket, bucket_of(digest, table.bucket_count));
        }
        table
    }

    #[test]
    fn even_digests_get_small_buckets() {
        let digests: Vec<_> = (0..800).map(|i| digest(i, 0)).collect();
        let table = check(&digests, 1600);
        assert_eq!((table.bucket_count, table.entries_per_bucket), (200, 8));
    }

    #[test]
    fn digests_of_one_bucket_grow_it() {
        // The same first four bytes: no number of buckets tells them apart.
        for (count, entries_per_bucket) in
            [(8, 8), (9, 16), (16, 16), (17, 32), (100, 128), (129, 256), (256, 256), (257, 512)]
        {
            let digests: Vec<_> = (0..count).map(|i| digest(7, i)).collect();
            assert_eq!(check(&digests, 512).entries_per_bucket, entries_per_bucket, "{count}");
        }
        let digests: Vec<_> = (0..500).map(|i| digest(7, i)).collect();
        assert_eq!(check(&digests, 500).bucket_count, 1);
    }

    #[test]
    fn an_empty_table_stands() {
        let table = check(&[], 16);
        assert_eq!((table.bucket_count, table.entries_per_bucket), (2, 8));
    }

    #[test]
    fn entries_are_written_where_readers_look() {
        let object = PlacedObject {
            name: b"index.html".to_vec(),
            digest: [0xab; 32],
            media_type: "text/html",
            modified_unix_s: 0x6b02_a15f,
            is_default: true,
            chunk: 18,
            length_bytes: 1984,
        };
        let entry = object.entry();
        let bytes = entry.as_bytes();
        assert_eq!(bytes[..32], [0xab; 32]);
        assert_eq!(bytes[32..64], [0; 32]);
        assert_eq!(bytes[64..72], 18u64.to_le_bytes());
        assert_eq!(bytes[80..88], 1984u64.to_le_bytes());
        assert_eq!(&bytes[88..98], b"text/html\0");
        assert_eq!(bytes[172..180], 0x6b02_a15fu64.to_le_bytes());
        assert_eq!(bytes[180], 8);
        assert_eq!(&bytes[181..192], b"index.html\0");
    }

    proptest! {
        #[test]
        fn any_digests_are_placed(firsts in prop::collection::vec(prop_oneof![0..4u32, any::<u32>()], 0..300), spare in 1..300u64) {
            let digests: Vec<_> = firsts.iter().enumerate().map(|(i, first)| digest(*first, i as u32)).collect();
            check(&digests, digests.len() as u64 + spare);
        }
    }
}
