//! The Simple Hash Filesystem, version 2.1: on-disk format, mounting, and the directory of objects.

pub mod format;
pub mod geometry;
