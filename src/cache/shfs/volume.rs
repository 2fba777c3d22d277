//! A mounted volume, and what was noticed while mounting it.

use alloc::string::String;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt;
use uuid::Uuid;

use super::config::Table;
use super::entry::EntryDamage;
use super::format::MAX_MEMBERS;
use super::label::LabelError;
use super::{Directory, HashFunction, Layout};
use crate::rings::{BlockError, Geometry};

/// How many damaged entries a [`Volume`] describes; the others are only counted.
pub const MAX_DESCRIBED_DAMAGES: usize = 32;

/// A mounted volume.
pub struct Volume {
    /// Name, fit for a terminal.
    pub name: String,
    /// Identity.
    pub uuid: Uuid,
    /// Unix time in seconds at which the volume was made.
    pub created_unix_s: u64,
    /// What its digests are made with.
    pub hash_function: HashFunction,
    /// Bytes of a digest, 1 to 64.
    pub digest_bytes: usize,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// `vol_size`: chunks below it are handed out to objects.
    pub vol_size: u64,
    /// UUIDs of the members, in order; their disks are in `layout`.
    pub members: ArrayVec<Uuid, MAX_MEMBERS>,
    /// The hash table's place and shape.
    pub table: Table,
    /// Where chunks lie.
    pub layout: Layout,
    /// The objects.
    pub directory: Directory,
    /// Disks that were given and don't belong to the volume, in their order.
    pub skipped_disks: Vec<SkippedDisk>,
    /// Number of entries with damage; each makes one object missing or incomplete, and no other.
    pub damaged_entries: u64,
    /// The first of them.
    pub damages: Vec<DamagedEntry>,
}

/// A disk that does not belong to the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedDisk {
    /// Its place among the disks.
    pub disk: usize,
    /// Why it was left out.
    pub reason: SkipReason,
}

impl fmt::Display for SkippedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {} is not used: {}", self.disk, self.reason)
    }
}

/// Why a disk was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// It has no SHFS label.
    Unlabelled,
    /// It belongs to another volume.
    NotAMember {
        /// That volume's name.
        vol_name: String,
        /// That volume.
        vol_uuid: Uuid,
    },
    /// Its label makes no sense.
    Label(LabelError),
    /// Its label could not be read.
    Unreadable(BlockError),
    /// Its sectors are of no size that can be used.
    Sectors(Geometry),
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlabelled => f.write_str("it has no SHFS label"),
            Self::NotAMember { vol_name, vol_uuid } => {
                write!(f, "it belongs to another volume, \"{vol_name}\" ({vol_uuid})")
            }
            Self::Label(error) => error.fmt(f),
            Self::Unreadable(error) => write!(f, "its label (byte 0) could not be read: {error}"),
            Self::Sectors(geometry) => write!(
                f,
                "its sectors have {} bytes, but must have a power of two from 512 to 4096",
                geometry.sector_bytes
            ),
        }
    }
}

/// A table entry with damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedEntry {
    /// Its slot in the table: bucket times entries per bucket, plus the place in the bucket.
    pub slot: u32,
    /// What is wrong with it.
    pub damage: EntryDamage,
}

impl fmt::Display for DamagedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hash table slot {}: {}", self.slot, self.damage)
    }
}
