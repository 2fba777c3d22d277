//! A real Xen host in QEMU: Debian's Xen, Debian's Linux as dom0 with xl and the backends of network and disks, and guests.
//!
//! What may enter: what makes the host ([`Bed`]), what runs it and has dom0 do things ([`Host`]), and what a guest is made of
//! ([`DomU`]) and does ([`Guest`]). It tells whether something works, and not how fast: each exit of a guest costs some 100 µs here.

mod bed;
mod channel;
mod domu;
mod guest;
mod host;

pub use bed::{Bed, obstacle};
pub use channel::Output;
pub use domu::{Disk, DomU, Kind, MAC};
pub use guest::{Guest, State};
pub use host::{Config, DOM0, GUEST, Host, HostDisk};
