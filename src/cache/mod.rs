//! SHFS (format, volume, directory) and the chunk cache over block devices.
//!
//! What may enter this room: disks' bytes and what they mean. It knows no network. Everything read from a disk is checked
//! before it is used; a damaged volume is an error that names the field, never a panic or a huge allocation.

mod chunk_cache;
pub mod shfs;

pub use chunk_cache::{AttachError, ChunkCache, Lookup, ReadError, SourceId, Waiter};
