//! Devices on an operating system: a TAP interface, and disks that are image files or volumes put together from the files of a
//! folder.
//!
//! A read is tried at once with `preadv2(RWF_NOWAIT)`, straight into the request's pages; what the OS would have to wait for
//! goes to a few worker threads. The event loop never blocks on a disk.
//!
//! - `disk`: [`HostDisk`], requests and their completions;
//! - `image`, `folder`: what lies where on the two kinds of disk;
//! - `file`: one open file, and whether it is still the file that was planned;
//! - `workers`: the threads, and the memory that they may write meanwhile;
//! - `tap`: the interface.

mod disk;
mod file;
mod folder;
mod image;
mod tap;
mod workers;

pub use disk::HostDisk;
pub use folder::FolderExtent;
pub use tap::{Tap, TapError, TapWatch};
pub use workers::Waker;

#[cfg(test)]
mod tests;
