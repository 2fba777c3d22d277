//! The configuration of a volume, checked.

use core::fmt;
use zerocopy::FromBytes;

use super::format::{self, CONFIG_CHUNK, MAX_DIGEST_BYTES};
use super::geometry;

/// What digests are made with. Readers compare digests and never compute them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// Whatever the maker of the volume says.
    Manual,
    /// SHA-1 or SHA-2, by length.
    Sha,
    /// CRC-32, most significant bit first.
    Crc,
    /// MD5.
    Md5,
    /// HAVAL with 3 passes.
    Haval,
}

impl HashFunction {
    /// The function that `hfunc` names.
    pub fn from_disk(value: u8) -> Option<Self> {
        Some(match value {
            format::HASH_MANUAL => Self::Manual,
            format::HASH_SHA => Self::Sha,
            format::HASH_CRC => Self::Crc,
            format::HASH_MD5 => Self::Md5,
            format::HASH_HAVAL => Self::Haval,
            _ => return None,
        })
    }

    /// The value of `hfunc`.
    pub fn to_disk(self) -> u8 {
        match self {
            Self::Manual => format::HASH_MANUAL,
            Self::Sha => format::HASH_SHA,
            Self::Crc => format::HASH_CRC,
            Self::Md5 => format::HASH_MD5,
            Self::Haval => format::HASH_HAVAL,
        }
    }
}

impl fmt::Display for HashFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manual => "manual",
            Self::Sha => "SHA",
            Self::Crc => "CRC",
            Self::Md5 => "MD5",
            Self::Haval => "HAVAL",
        })
    }
}

/// The hash table's place and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// First chunk, at least 2.
    pub first_chunk: u64,
    /// First chunk of the copy, which nobody reads.
    pub backup_chunk: Option<u64>,
    /// Number of buckets, at least 1.
    pub bucket_count: u32,
    /// Entries of a bucket, at least 1.
    pub entries_per_bucket: u32,
    /// All entries.
    pub entries: u32,
    /// Length of the table (and of its copy) in chunks, at least 1.
    pub chunks: u64,
}

impl Table {
    /// True if one of the chunks `first` to `last` belongs to the label, the configuration, the table or its copy.
    pub fn is_metadata(&self, first: u64, last: u64) -> bool {
        let meets = |start: u64| first < start + self.chunks && last >= start;
        first <= CONFIG_CHUNK || meets(self.first_chunk) || self.backup_chunk.is_some_and(meets)
    }
}

/// What the configuration says, every field checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What digests are made with.
    pub hash_function: HashFunction,
    /// Bytes of a digest, 1 to 64.
    pub digest_bytes: usize,
    /// The hash table. It lies on the volume.
    pub table: Table,
}

/// What is wrong with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `hfunc` is unknown.
    HashFunction(u8),
    /// `hlen` is not from 1 to 64.
    DigestBytes(u8),
    /// `htable_bucket_count` is 0.
    NoBuckets,
    /// `htable_entries_per_bucket` is 0.
    NoEntries,
    /// More entries than 32 bits count.
    TooManyEntries {
        /// `htable_bucket_count`.
        bucket_count: u32,
        /// `htable_entries_per_bucket`.
        entries_per_bucket: u32,
    },
    /// A table would overlap the label or the configuration.
    TableInHeader {
        /// The field.
        field: &'static str,
        /// Its value.
        first_chunk: u64,
    },
    /// A table does not lie on the volume.
    TableOffVolume {
        /// The field.
        field: &'static str,
        /// Its value.
        first_chunk: u64,
        /// Length of the table in chunks.
        chunks: u64,
        /// The volume's last chunk.
        last_chunk: u64,
    },
    /// The copy overlaps the table.
    Overlap {
        /// `htable_ref`.
        first_chunk: u64,
        /// `htable_bak_ref`.
        backup_chunk: u64,
        /// Length of the table in chunks.
        chunks: u64,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("configuration (chunk 1): ")?;
        match self {
            Self::HashFunction(value) => write!(f, "hfunc is {value}, but must be from 1 to 5"),
            Self::DigestBytes(value) => write!(f, "hlen is {value} bytes, but must be from 1 to {MAX_DIGEST_BYTES}"),
            Self::NoBuckets => f.write_str("htable_bucket_count is 0, but must be at least 1"),
            Self::NoEntries => f.write_str("htable_entries_per_bucket is 0, but must be at least 1"),
            Self::TooManyEntries { bucket_count, entries_per_bucket } => write!(
                f,
                "htable_bucket_count {bucket_count} times htable_entries_per_bucket {entries_per_bucket} must be at most {}",
                u32::MAX
            ),
            Self::TableInHeader { field, first_chunk } => {
                write!(f, "{field} is chunk {first_chunk}, but chunks 0 and 1 are the label and the configuration")
            }
            Self::TableOffVolume { field, first_chunk, chunks, last_chunk } => write!(
                f,
                "{field} is chunk {first_chunk} and the table has {chunks} chunks, but the volume ends with chunk {last_chunk}"
            ),
            Self::Overlap { first_chunk, backup_chunk, chunks } => write!(
                f,
                "htable_bak_ref is chunk {backup_chunk}, which overlaps the table (htable_ref {first_chunk}, {chunks} chunks)"
            ),
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Reads the configuration from the beginning of its chunk, for a volume with these chunks.
    pub fn parse(
        chunk: &[u8; crate::rings::PAGE_BYTES],
        chunk_bytes: u32,
        last_chunk: u64,
    ) -> Result<Self, ConfigError> {
        let (raw, _) = format::Config::ref_from_prefix(chunk).expect("a configuration is shorter than a page");
        let hash_function = HashFunction::from_disk(raw.hfunc).ok_or(ConfigError::HashFunction(raw.hfunc))?;
        let digest_bytes = usize::from(raw.hlen);
        if !(1..=MAX_DIGEST_BYTES).contains(&digest_bytes) {
            return Err(ConfigError::DigestBytes(raw.hlen));
        }
        let (bucket_count, entries_per_bucket) = (raw.htable_bucket_count.get(), raw.htable_entries_per_bucket.get());
        if bucket_count == 0 {
            return Err(ConfigError::NoBuckets);
        }
        if entries_per_bucket == 0 {
            return Err(ConfigError::NoEntries);
        }
        let entries = bucket_count
            .checked_mul(entries_per_bucket)
            .ok_or(ConfigError::TooManyEntries { bucket_count, entries_per_bucket })?;
        let chunks = geometry::table_chunks(entries, chunk_bytes);
        let check = |field, first_chunk: u64| {
            let end = first_chunk.checked_add(chunks - 1);
            if first_chunk <= CONFIG_CHUNK {
                Err(ConfigError::TableInHeader { field, first_chunk })
            } else if end.is_none_or(|end| end > last_chunk) {
                Err(ConfigError::TableOffVolume { field, first_chunk, chunks, last_chunk })
            } else {
                Ok(())
            }
        };
        let first_chunk = raw.htable_ref.get();
        check("htable_ref", first_chunk)?;
        let backup_chunk = Some(raw.htable_bak_ref.get()).filter(|&chunk| chunk != 0);
        if let Some(backup_chunk) = backup_chunk {
            check("htable_bak_ref", backup_chunk)?;
            if first_chunk.abs_diff(backup_chunk) < chunks {
                return Err(ConfigError::Overlap { first_chunk, backup_chunk, chunks });
            }
        }
        let table = Table { first_chunk, backup_chunk, bucket_count, entries_per_bucket, entries, chunks };
        Ok(Self { hash_function, digest_bytes, table })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::PAGE_BYTES;
    use alloc::string::ToString;
    use zerocopy::{FromZeros, IntoBytes};

    fn raw() -> format::Config {
        let mut raw = format::Config::new_zeroed();
        raw.htable_ref = 2.into();
        raw.hfunc = 2;
        raw.hlen = 32;
        raw.htable_bucket_count = 64.into();
        raw.htable_entries_per_bucket = 4.into();
        raw
    }

    fn parse(raw: &format::Config, last_chunk: u64) -> Result<Config, ConfigError> {
        let mut page = [0; PAGE_BYTES];
        page[..raw.as_bytes().len()].copy_from_slice(raw.as_bytes());
        Config::parse(&page, 4096, last_chunk)
    }

    #[test]
    fn a_sound_configuration_is_read() {
        let config = parse(&raw(), 17).unwrap();
        assert_eq!((config.table.chunks, config.table.entries, config.digest_bytes), (16, 256, 32));
        assert!(config.table.is_metadata(0, 0) && config.table.is_metadata(1, 1) && config.table.is_metadata(17, 20));
        assert!(!config.table.is_metadata(18, 20));
        let mut with_backup = raw();
        with_backup.htable_bak_ref = 18.into();
        let table = parse(&with_backup, 33).unwrap().table;
        assert!(table.is_metadata(33, 33) && !table.is_metadata(34, 34));
    }

    #[test]
    fn each_bad_field_is_named() {
        type Damage = fn(&mut format::Config);
        let cases: [(Damage, &str); 13] = [
            (|c| c.hfunc = 0, "hfunc is 0"),
            (|c| c.hfunc = 6, "hfunc is 6"),
            (|c| c.hlen = 0, "hlen is 0"),
            (|c| c.hlen = 65, "hlen is 65"),
            (|c| c.htable_bucket_count = 0.into(), "htable_bucket_count is 0"),
            (|c| c.htable_entries_per_bucket = 0.into(), "htable_entries_per_bucket is 0"),
            (|c| c.htable_bucket_count = (1 << 30).into(), "must be at most 4294967295"),
            (|c| c.htable_ref = 1.into(), "htable_ref is chunk 1"),
            (|c| c.htable_ref = 3.into(), "htable_ref is chunk 3 and the table has 16 chunks"),
            (|c| c.htable_ref = u64::MAX.into(), "htable_ref is chunk 18446744073709551615"),
            (|c| c.htable_bak_ref = 1.into(), "htable_bak_ref is chunk 1"),
            (|c| c.htable_bak_ref = 18.into(), "htable_bak_ref is chunk 18 and"),
            (|c| c.htable_bak_ref = 2.into(), "overlaps the table"),
        ];
        for (damage, expected) in cases {
            let mut raw = raw();
            damage(&mut raw);
            let error = parse(&raw, 17).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} lacks {expected:?}");
        }
    }
}
