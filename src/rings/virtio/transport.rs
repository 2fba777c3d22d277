//! What a driver asks of the way to its device, and the two ways there are.

use super::VirtioError;
use super::mmio::MmioTransport;
use super::pci::PciTransport;

/// Bits of the device status field (virtio 1.2 §2.1).
pub(super) mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// What a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A network interface (device ID 1).
    Network,
    /// A disk (device ID 2).
    Block,
}

impl DeviceKind {
    /// How its driver calls itself.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Network => "virtio-net",
            Self::Block => "virtio-blk",
        }
    }

    /// By the device ID (virtio 1.2 §5); `None` for kinds that there is no driver for, and for empty places (ID 0).
    pub fn of(device_id: u32) -> Option<Self> {
        match device_id {
            1 => Some(Self::Network),
            2 => Some(Self::Block),
            _ => None,
        }
    }
}

/// Where the three parts of a split queue lie (physical addresses), as the device is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAddresses {
    /// Entries, a power of two.
    pub entries: u16,
    /// Descriptor table; for legacy devices page-aligned, with the rings at the places that virtio 1.2 §2.7.2 prescribes.
    pub descriptors: u64,
    /// Available ring ("driver area").
    pub available: u64,
    /// Used ring ("device area").
    pub used: u64,
}

/// The way to a device: its registers, whatever bus they are on. What comes from it is the device's word and unchecked.
pub trait Transport {
    /// The device ID: what the device is.
    fn device_id(&mut self) -> u32;

    /// True for a device of before virtio 1.0 (`VIRTIO_F_VERSION_1` can't be negotiated).
    fn is_legacy(&self) -> bool;

    /// The device status field.
    fn status(&mut self) -> u8;

    /// Writes the device status field; 0 asks for a reset, which is finished when it reads as 0.
    fn set_status(&mut self, status: u8);

    /// The features that the device offers.
    fn device_features(&mut self) -> u64;

    /// Tells the device which features are used.
    fn set_driver_features(&mut self, features: u64);

    /// Most entries of a queue; 0 if there is no such queue.
    fn max_entries(&mut self, queue: u16) -> u16;

    /// Tells the device where a queue lies and enables it.
    ///
    /// # Errors
    /// If the transport can't name such an address, or the device has no interrupt for the queue.
    fn set_queue(&mut self, queue: u16, addresses: &QueueAddresses) -> Result<(), VirtioError>;

    /// Tells the device that there is something new in a queue.
    fn notify(&mut self, queue: u16);

    /// Changes whenever the configuration does; 0 for ever on legacy devices.
    fn config_generation(&mut self) -> u32;

    /// A byte of the device's configuration.
    ///
    /// # Errors
    /// Beyond its end.
    fn config8(&mut self, offset: usize) -> Result<u8, VirtioError>;

    /// An aligned 16-bit field of the device's configuration.
    ///
    /// # Errors
    /// Beyond its end.
    fn config16(&mut self, offset: usize) -> Result<u16, VirtioError>;

    /// An aligned 32-bit field of the device's configuration.
    ///
    /// # Errors
    /// Beyond its end.
    fn config32(&mut self, offset: usize) -> Result<u32, VirtioError>;

    /// Acknowledges what interrupts there were, before the rings are looked at a last time. True if the configuration or the
    /// device's status may have changed since the last call.
    fn acknowledge(&mut self) -> bool;
}

/// The way to a device of this machine, chosen when it is found.
#[derive(Debug)]
pub enum AnyTransport {
    /// A slot of memory-mapped registers.
    Mmio(MmioTransport),
    /// A PCI function.
    Pci(PciTransport),
}

macro_rules! either {
    ($self:ident, $transport:ident => $call:expr) => {
        match $self {
            AnyTransport::Mmio($transport) => $call,
            AnyTransport::Pci($transport) => $call,
        }
    };
}

impl Transport for AnyTransport {
    fn device_id(&mut self) -> u32 {
        either!(self, transport => transport.device_id())
    }

    fn is_legacy(&self) -> bool {
        either!(self, transport => transport.is_legacy())
    }

    fn status(&mut self) -> u8 {
        either!(self, transport => transport.status())
    }

    fn set_status(&mut self, status: u8) {
        either!(self, transport => transport.set_status(status));
    }

    fn device_features(&mut self) -> u64 {
        either!(self, transport => transport.device_features())
    }

    fn set_driver_features(&mut self, features: u64) {
        either!(self, transport => transport.set_driver_features(features));
    }

    fn max_entries(&mut self, queue: u16) -> u16 {
        either!(self, transport => transport.max_entries(queue))
    }

    fn set_queue(&mut self, queue: u16, addresses: &QueueAddresses) -> Result<(), VirtioError> {
        either!(self, transport => transport.set_queue(queue, addresses))
    }

    fn notify(&mut self, queue: u16) {
        either!(self, transport => transport.notify(queue));
    }

    fn config_generation(&mut self) -> u32 {
        either!(self, transport => transport.config_generation())
    }

    fn config8(&mut self, offset: usize) -> Result<u8, VirtioError> {
        either!(self, transport => transport.config8(offset))
    }

    fn config16(&mut self, offset: usize) -> Result<u16, VirtioError> {
        either!(self, transport => transport.config16(offset))
    }

    fn config32(&mut self, offset: usize) -> Result<u32, VirtioError> {
        either!(self, transport => transport.config32(offset))
    }

    fn acknowledge(&mut self) -> bool {
        either!(self, transport => transport.acknowledge())
    }
}
