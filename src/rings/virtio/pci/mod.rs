//! PCI: finding virtio devices, giving their BARs addresses, and the modern transport with MSI-X (virtio 1.2 §4.1).
//!
//! Everything in a function's configuration space is the device's word: capability lists may loop, point outside their BAR or
//! claim tables that are not there. Such a function is reported and left alone.

mod bars;
mod capabilities;
mod config;
mod function;
mod transport;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use super::{AnyTransport, DeviceKind, Found, Place};
use bars::Window;
pub use config::{Ecam, PciConfig, PciFunction, PortConfig, PortIo};
use function::Function;
pub use transport::PciTransport;

/// Functions on a bus: 32 devices of 8.
const DEVICES_PER_BUS: u8 = 32;
const FUNCTIONS_PER_DEVICE: u8 = 8;

/// Vendor of every virtio device.
const VIRTIO_VENDOR: u16 = 0x1af4;

/// An interrupt as a write to memory: what the interrupt controller wants of a function (on x86: an address of the local APIC
/// and the vector).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where to write.
    pub address: u64,
    /// What to write.
    pub data: u32,
}

/// What the machine says about its PCI memory.
#[derive(Clone, Debug)]
pub struct PciMemory {
    /// Addresses that BARs may be given: nothing else is there, and the machine routes them to PCI (32-bit: QEMU's microvm has
    /// them at 0xc0000000). Empty if the firmware assigns every BAR.
    pub window: Range<u64>,
    /// What of the address space is mapped (identity, uncached) and holds no memory; a BAR that does not lie in it is moved into
    /// the window. So no function can have its registers taken for memory of ours.
    pub mapped: Range<u64>,
}

/// Why a function that is a virtio device can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// It has no modern interface (capability `VIRTIO_PCI_CAP_COMMON_CFG` and its companions): start it without
    /// `disable-modern`.
    NoModernInterface,
    /// A capability points outside its BAR, or the list of them has no end.
    BadCapabilities,
    /// It has no MSI-X, or a table without an entry.
    NoMsiX,
    /// A BAR has no address, and there is no room for it in the window, or it lies behind a bridge that routes no address to it.
    NoAddress {
        /// The BAR's number.
        bar: u8,
        /// Bytes that it takes.
        bytes: u64,
    },
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModernInterface => {
                f.write_str("the device has only the legacy PCI interface: give it disable-modern=off")
            }
            Self::BadCapabilities => f.write_str("the device's list of capabilities makes no sense"),
            Self::NoMsiX => f.write_str("the device has no MSI-X vectors: give it vectors=1 or more"),
            Self::NoAddress { bar, bytes } => {
                write!(f, "BAR {bar} of {bytes} bytes has no address, and the window for BARs has no room for it")
            }
        }
    }
}

impl core::error::Error for PciError {}

/// Looks for network interfaces and disks on bus 0 and on the buses behind bridges that the firmware has set up, in the order
/// of bus, device and function. Every device's interrupts are made to write `message`; BARs without an address get one.
///
/// A device that can't be used is reported in its place.
///
/// # Safety
/// `memory` is true, and nobody else uses the virtio functions for as long as the transports exist.
pub unsafe fn probe_pci(
    config: &mut dyn PciConfig,
    memory: &PciMemory,
    message: MsiMessage,
) -> Vec<Result<Found, (PciFunction, PciError)>> {
    let mut window = Window::new(memory);
    let mut found = Vec::new();
    for_each_function(config, &mut |config, at| {
        let mut function = Function::new(config, at);
        let Some((kind, device_id)) = virtio_kind(&mut function) else { return };
        // SAFETY: as the caller promises.
        let transport = unsafe { transport::open(&mut function, device_id, &mut window, message) };
        found.push(match transport {
            Ok(transport) => Ok(Found { kind, place: Place::Pci(at), transport: AnyTransport::Pci(transport) }),
            Err(error) => Err((at, error)),
        });
    });
    found
}

/// What a function is, if it is a virtio device that there is a driver for (virtio 1.2 §4.1.2).
fn virtio_kind(function: &mut Function<'_>) -> Option<(DeviceKind, u32)> {
    let (vendor, device) = function.identity();
    if vendor != VIRTIO_VENDOR {
        return None;
    }
    let device_id = match device {
        // Transitional devices name their kind as the subsystem.
        0x1000..=0x103f => function.subsystem().into(),
        0x1040..=0x107f => u32::from(device) - 0x1040,
        _ => return None,
    };
    Some((DeviceKind::of(device_id)?, device_id))
}

/// Calls `visit` for every function that answers, each bus once.
fn for_each_function(config: &mut dyn PciConfig, visit: &mut dyn FnMut(&mut dyn PciConfig, PciFunction)) {
    let mut known = [false; 256];
    known[0] = true;
    for bus in 0..=u8::MAX {
        // Bridges lead to buses of higher numbers only, so one pass finds all.
        if !known[usize::from(bus)] {
            continue;
        }
        for device in 0..DEVICES_PER_BUS {
            for number in 0..FUNCTIONS_PER_DEVICE {
                let at = PciFunction { bus, device, function: number };
                let mut function = Function::new(config, at);
                if function.identity().0 == u16::MAX {
                    if number == 0 {
                        break;
                    }
                    continue;
                }
                if let Some(behind) = function.secondary_bus().filter(|behind| *behind > bus) {
                    known[usize::from(behind)] = true;
                }
                let alone = number == 0 && !function.has_more_functions();
                visit(config, at);
                if alone {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
