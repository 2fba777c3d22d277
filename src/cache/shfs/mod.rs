//! The Simple Hash Filesystem, version 2.1 (docs/shfs.md): on-disk format, mounting, and the directory of objects.
//!
//! Reading goes in steps, each with its own type that says what has been checked: [`format`] (bytes as they lie on disk) →
//! [`Label`], [`Config`], table entries (checked) → [`Layout`] and [`Directory`] → [`Volume`], by [`Mount`].

mod config;
mod directory;
mod entry;
mod error;
pub mod format;
pub mod geometry;
mod label;
mod layout;
mod mount;
mod object;
mod reads;
mod volume;

pub use config::{Config, ConfigError, HashFunction, Table};
pub use directory::{Directory, ObjectId};
pub use entry::EntryDamage;
pub use error::MountError;
pub use label::{Label, LabelError};
pub use layout::{Layout, MemberDisk, Run};
pub use mount::{MAX_DISKS, Mount, MountConfig};
pub use object::{Content, Host, Link, LinkKind, Object};
pub use reads::MOUNT_TOKEN;
pub use volume::{DamagedEntry, MAX_DESCRIBED_DAMAGES, SkipReason, SkippedDisk, Volume};
