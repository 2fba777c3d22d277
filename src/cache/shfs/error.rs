//! Why a volume could not be mounted.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use uuid::Uuid;

use super::config::ConfigError;
use super::volume::{SkipReason, SkippedDisk};
use crate::cache::AttachError;
use crate::rings::BlockError;

/// Why a volume could not be mounted. Disks are named by their place among those that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountError {
    /// The disk to mount from could not be made.
    NoDisk(String),
    /// No disk, or more than [`super::MAX_DISKS`].
    DiskCount(usize),
    /// No disk has a usable label.
    NoVolume {
        /// Why each of them was left out.
        skipped: Vec<SkippedDisk>,
    },
    /// A member is not among the disks.
    MissingMember {
        /// The volume's name.
        vol_name: String,
        /// The member's place in the volume.
        member: usize,
        /// Number of members.
        members: usize,
        /// The member.
        uuid: Uuid,
        /// The disks that were left out: one of them may be it.
        skipped: Vec<SkippedDisk>,
    },
    /// Two disks say that they are the same member.
    DuplicateMember {
        /// The member's place in the volume.
        member: usize,
        /// The member.
        uuid: Uuid,
        /// The first disk.
        disk: usize,
        /// The second disk.
        duplicate: usize,
    },
    /// The labels of two members contradict each other.
    Disagreement {
        /// The field.
        field: &'static str,
        /// The disk whose label decided.
        disk: usize,
        /// The disk whose label says otherwise.
        other: usize,
    },
    /// A member is smaller than the volume needs.
    DiskTooSmall {
        /// The disk.
        disk: usize,
        /// The member's place in the volume.
        member: usize,
        /// What it has.
        bytes: u64,
        /// What it needs at least.
        needed_bytes: u64,
        /// `vol_size`.
        vol_size: u64,
    },
    /// The configuration makes no sense.
    Config(ConfigError),
    /// A disk could not be read.
    Read {
        /// The disk.
        disk: usize,
        /// First byte of the read.
        byte: u64,
        /// What was to be read.
        what: &'static str,
        /// Why it failed.
        error: BlockError,
    },
    /// The directory would be larger than its limit.
    DirectoryTooLarge {
        /// The limit.
        max_bytes: usize,
        /// Objects that fit.
        objects: usize,
    },
    /// The machine has no memory for the directory.
    OutOfMemory {
        /// Objects that fit.
        objects: usize,
    },
    /// The chunk cache can't take the volume.
    Cache(AttachError),
}

impl MountError {
    /// The disk that the error is about, where it is about one.
    pub fn disk(&self) -> Option<usize> {
        match self {
            Self::DuplicateMember { duplicate, .. } => Some(*duplicate),
            Self::Disagreement { other, .. } => Some(*other),
            Self::DiskTooSmall { disk, .. } | Self::Read { disk, .. } => Some(*disk),
            _ => None,
        }
    }
}

impl From<AttachError> for MountError {
    fn from(error: AttachError) -> Self {
        Self::Cache(error)
    }
}

impl From<ConfigError> for MountError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk(why) => f.write_str(why),
            Self::DiskCount(0) => f.write_str("no disk was given, but a volume needs at least one"),
            Self::DiskCount(count) => {
                write!(f, "{count} disks were given, but at most {} are searched for a volume", super::MAX_DISKS)
            }
            Self::NoVolume { skipped } => {
                f.write_str("no disk holds an SHFS volume that can be read")?;
                hints(f, skipped, |_| true)
            }
            Self::MissingMember { vol_name, member, members, uuid, skipped } => {
                write!(
                    f,
                    "volume \"{vol_name}\" has {members} members, and member {member} ({uuid}) is not among the disks: \
                     give its disk or image too"
                )?;
                hints(f, skipped, |reason| *reason != SkipReason::Unlabelled)
            }
            Self::DuplicateMember { member, uuid, disk, duplicate } => write!(
                f,
                "disks {disk} and {duplicate} are both labelled as member {member} ({uuid}): leave the copy out"
            ),
            Self::Disagreement { field, disk, other } => write!(
                f,
                "the labels of disks {disk} and {other} name the same members, but differ in {field}: one is out of date"
            ),
            Self::DiskTooSmall { disk, member, bytes, needed_bytes, vol_size } => write!(
                f,
                "disk {disk} (member {member}) has {bytes} bytes, but with vol_size {vol_size} it needs at least \
                 {needed_bytes}: it has been cut short, or vol_size is damaged"
            ),
            Self::Config(error) => error.fmt(f),
            Self::Cache(error) => error.fmt(f),
            Self::Read { disk, byte, what, error } => {
                write!(f, "disk {disk}: could not read the {what} at byte {byte}: {error}")
            }
            Self::DirectoryTooLarge { max_bytes, objects } => write!(
                f,
                "the directory is limited to {max_bytes} bytes of memory, and the volume has more objects than the \
                 {objects} that fit: raise the limit"
            ),
            Self::OutOfMemory { objects } => {
                write!(f, "memory ran out after {objects} objects of the volume's directory: give the machine more")
            }
        }
    }
}

fn hints(f: &mut fmt::Formatter<'_>, skipped: &[SkippedDisk], wanted: impl Fn(&SkipReason) -> bool) -> fmt::Result {
    skipped.iter().filter(|disk| wanted(&disk.reason)).try_for_each(|disk| write!(f, "; {disk}"))
}

impl core::error::Error for MountError {}
