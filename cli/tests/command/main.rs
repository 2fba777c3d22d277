//! The command `minicache` from the outside.

mod access_log;
mod curl;
mod pack;
mod serve;
mod shfs;
mod support;
