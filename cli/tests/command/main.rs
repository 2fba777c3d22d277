//! The command `minicache` from the outside.

mod pack;
mod serve;
mod shfs;
mod support;
