//! The command `minicache` from the outside.

mod pack;
mod shfs;
mod support;
