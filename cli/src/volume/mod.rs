//! Lays out SHFS volumes from folders: what `pack` writes to an image and `serve` shows as a disk.
//!
//! A volume of one member: label, configuration, hash table, then the objects' extents, all in whole chunks
//! (docs/shfs.md). [`walk`](walk()) finds the files, [`table`] places the objects in buckets, [`head`] makes the bytes
//! before the first extent; [`plan_folder`] joins them without reading any content, [`write_image`] with.

mod digest;
mod head;
mod layout;
mod media_type;
mod plan;
mod table;
mod walk;
mod write;

pub use head::VolumeName;
pub use layout::is_chunk_bytes;
pub use plan::{DEFAULT_NAME, plan_folder, unix_s};
pub use walk::{Skipped, walk};
pub use write::{DigestKind, WriteOptions, check_target, write_image};
