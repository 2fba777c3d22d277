//! Mounting: from disks in any order to a [`Volume`], without blocking.

use core::task::Poll;

use super::{MountError, Volume};
use crate::rings::BlockDevice;

/// Most disks that are searched for members.
pub const MAX_DISKS: usize = 64;

/// Limits and secrets of a mount.
#[derive(Clone, Copy, Debug)]
pub struct MountConfig {
    /// Keys the directory's hashes.
    pub secret: [u8; 16],
    /// Most memory of the directory in bytes; about 120 bytes for each object.
    pub directory_max_bytes: usize,
}

/// A mount on its way.
pub struct Mount {
    config: MountConfig,
}

impl Mount {
    /// A mount that has not looked at any disk.
    pub fn new(config: MountConfig) -> Self {
        Self { config }
    }

    /// Goes on with what the disks have answered; call it until it is ready, whenever a disk has something new. It takes the
    /// disks' completions and events, so nobody else may have requests in flight on them.
    pub fn poll<B: BlockDevice>(&mut self, disks: &mut [B]) -> Poll<Result<Volume, MountError>> {
        let _ = (&self.config, disks);
        unimplemented!()
    }
}
