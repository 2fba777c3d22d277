//! Devices in memory, with Xen's limits: simulator, load generator and user-mode network stand on them.
//!
//! A device here has two sides that share state in one thread. The front implements the trait that the appliance uses
//! ([`super::NetQueue`], [`super::BlockDevice`]); the other side is a [`MemoryBackend`] or a [`MemoryDiskControl`], which may be
//! late, answer out of order, fail, go away and come back. Nothing here is unsafe: pages cross as counted references, so what
//! would be memory corruption on Xen is a panic, a counter or a page that can't be had.

mod backend;
mod disk;

mod net;
mod ring;

pub use backend::{MemoryBackend, TakenFrame};
pub use disk::{MemoryDisk, MemoryDiskControl, Pace};
pub use net::{MemoryNet, MemoryNetConfig, memory_net};

#[cfg(test)]
mod tests;
