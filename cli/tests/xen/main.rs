//! The kernel as a guest of a real Xen, which runs in QEMU: dom0's Linux with its back ends, curl, ping and wrk are the judges.
//!
//! Needs QEMU (Debian package qemu-system-x86), apt-get for Xen and Linux, which are fetched once, and the kernel (`cargo xtask
//! kernel`). What is missing is said, and what needs it is not run. Each test boots a host of its own, which takes some 10 seconds,
//! and runs several guests there.

mod changes;
mod configured;
mod disks;
mod served;
#[path = "../machines/site.rs"]
mod site;
#[path = "../../../tests/volumes/mod.rs"]
mod volumes;
mod world;
