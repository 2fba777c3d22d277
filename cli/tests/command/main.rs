//! The command `minicache` from the outside.

mod access_log;
mod curl;
mod live;
mod pack;
mod serve;
mod shell;
mod shfs;
mod support;
mod tap;
