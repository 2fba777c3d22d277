//! The command `minicache` from the outside.

mod curl;
mod pack;
mod serve;
mod shfs;
mod support;
