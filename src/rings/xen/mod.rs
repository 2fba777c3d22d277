//! Xen's paravirtual devices: grant table, xenstore, network interface (netfront) and disk (blkfront).
//!
//! What may enter this room: the front ends and what they share. It finds devices in the store, but knows no machine: the few
//! hypercalls that it needs are handed in as a [`Hypervisor`].
//!
//! # What it relies on
//! - Memory is mapped at its physical address: pages are named to Xen by their addresses.
//! - Both sides see the same memory (no cache maintenance).
//!
//! # When the other side lies
//! What back ends and store write (rings, values) is copied once and checked.

pub mod abi;
mod hypervisor;
#[cfg(feature = "std")]
pub mod memory;

pub use hypervisor::{DomainId, EventPort, HypercallError, Hypervisor};
