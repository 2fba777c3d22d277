//! Xen in memory: grant table, event channels, xenstored and back ends in one thread, steered by a test.
//!
//! The front ends run on it as they do on Xen. It is their judge: whatever netback, blkback or Xen itself would refuse, and some
//! that they put up with, is a panic. What it does to them is up to the test: it may be late, answer out of order, fail, go away,
//! come back as somebody else, and lie. Nothing happens by itself: xenstored and back ends work when they are told to
//! ([`MemoryXen::step`] and theirs), and only look for what they were notified of. So a lost event is a stall here too.
//!
//! Pages are named by the low 44 bits of the addresses of a process, which is what a grant can say.
//!
//! | file | duty |
//! |---|---|
//! | `machine` | the handle on all, and the guest's calls |
//! | `guest` | pages of the guest's |
//! | `events` | event channels |
//! | `grants` | the grant table |
//! | `bus` | a device's directories in the store |
//! | `back_ring` | a ring, from the other side |
//! | `net`, `block` | netback and blkback |
//! | `tree`, `store`, `requests` | xenstored: what it keeps, the page that it serves, what it is asked |

mod back_ring;
mod block;
mod bus;
mod events;
mod grants;
mod guest;
mod machine;
mod net;
mod requests;
mod store;
mod tree;

pub use block::{BlkbackConfig, DiskOperation, LoggedRequest, MemoryBlkback};
pub use bus::{BusState, Manners};
pub use machine::MemoryXen;
pub use net::{GrantedFrame, MemoryNetback, NetOffers, NetbackConfig};

#[cfg(test)]
mod tests;
