//! The kernel in virtual machines: every kind of machine, transport and network, with every offload missing in turn, and the
//! accidents that a machine can have. curl and ping are the judges.
//!
//! Needs QEMU (Debian package qemu-system-x86), curl and the kernel (`cargo xtask kernel`); the machines with a TAP interface need
//! root besides. What is missing is said, and what needs it is not run.

mod accidents;
mod command;
mod large;
mod matrix;
mod pairwise;
mod parameters;
mod site;
mod trace;
#[path = "../../../tests/volumes/mod.rs"]
mod volumes;
mod world;
