//! virtio (version 1.2, and legacy devices): network interfaces with segmentation offload and scatter-gather, and disks, over
//! memory-mapped registers or PCI.
//!
//! What may enter this room: the two drivers, the split queue that they share, and the ways to a device. It finds devices where
//! it is told to look, but knows no machine: addresses, port instructions and interrupt messages are handed in.
//!
//! # How a machine uses it
//! 1. Look for devices: [`probe_mmio`] for each slot (QEMU's microvm: `0xfeb0_0000 + i * 512` for i in 0..24, whatever its command
//!    line says; slots without a device answer with ID 0 and are `None`), and [`probe_pci`] once, with [`Ecam`] or [`PortConfig`]
//!    as the way to configuration space. The order of what is found is that of the calls, then that of bus, device and function;
//!    disks are numbered in this order. QEMU fills microvm's slots from the last one down: who goes through them downwards finds
//!    devices in the order of QEMU's command line, as on PCI.
//! 2. Make a driver of each: [`VirtioNet::new`] for [`DeviceKind::Network`], [`VirtioBlk::new`] for [`DeviceKind::Block`]. Both take
//!    a mask of features ([`features`]) to do without: 0 in production, one bit in a test of a fallback.
//! 3. Interrupts: the handler does nothing with the device; it sets a flag that ends the sleep. Memory-mapped slots have a line
//!    each, edge-triggered on QEMU's machines; [`crate::rings::NetQueue::arm`] and [`crate::rings::BlockDevice::arm`] acknowledge.
//!    PCI functions write the [`MsiMessage`] that they were given, all of them the same if it is so wished. The last two steps
//!    before the sleep are `arm` of every device and, with interrupts off, a look at the flag.
//!
//! # What it relies on
//! - Memory is mapped at its physical address: what is allocated here and the pages of a [`crate::rings::PagePool`] are named to
//!   the device by their addresses.
//! - Devices and CPU see the same memory (no cache maintenance, no IOMMU: `VIRTIO_F_ACCESS_PLATFORM` is not accepted).
//!
//! # Own transports
//! The crate `virtio-drivers` has both transports too. They are not used, since its PCI transport sets no MSI-X vectors and gives
//! BARs no addresses, its queue setup asks for a trait of global functions that allocate, and register accesses could not be put
//! in front of a test's device. What is left of a transport is a table of offsets.
//!
//! # When a device lies
//! What it writes (used rings, frame headers, status bytes, configuration) is copied once and checked. What can't be true makes
//! the driver reset the device: only then do the pages that it held come back, so that none is used again while the device may
//! write it. `Down` is said after the reset is confirmed; then the device is started anew, which ends in `Up` or, for one that
//! keeps lying, in `Gone`. [`crate::stats::Stats::device_faults`] counts; the log says what was wrong.

mod block;
mod error;
pub mod features;
mod life;
mod mmio;
mod net;
mod pci;
mod queue;
mod registers;
mod transport;

use core::fmt;

pub use block::VirtioBlk;
pub use error::VirtioError;
pub use mmio::{MmioTransport, probe_mmio};
pub use net::VirtioNet;
pub use pci::{
    Ecam, MsiMessage, PciConfig, PciError, PciFunction, PciMemory, PciTransport, PortConfig, PortIo, probe_pci,
};
pub use registers::{Region, Registers};
pub use transport::{AnyTransport, DeviceKind, QueueAddresses, Transport};

/// Where a device was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A memory-mapped slot at this address.
    Mmio(usize),
    /// A PCI function.
    Pci(PciFunction),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmio(base) => write!(f, "mmio {base:#x}"),
            Self::Pci(function) => write!(f, "pci {function}"),
        }
    }
}

/// A device that there is a driver for.
#[derive(Debug)]
pub struct Found {
    /// Which driver.
    pub kind: DeviceKind,
    /// Where it is, to be told to people.
    pub place: Place,
    /// The way to it.
    pub transport: AnyTransport,
}

#[cfg(test)]
mod tests;
