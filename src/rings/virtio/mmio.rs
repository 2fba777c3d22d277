//! The memory-mapped transport, legacy and modern (virtio 1.2 §4.2).

use super::registers::{Region, Registers};
use super::transport::{QueueAddresses, Transport};
use super::{DeviceKind, Found, Place, VirtioError};
use crate::rings::PAGE_BYTES;

/// Bytes of a slot's registers and configuration: what QEMU's machines space them by.
const SLOT_BYTES: usize = 512;

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;

/// Register offsets (virtio 1.2 tables 4.1 and 4.3).
mod register {
    pub const MAGIC: usize = 0x000;
    pub const VERSION: usize = 0x004;
    pub const DEVICE_ID: usize = 0x008;
    pub const DEVICE_FEATURES: usize = 0x010;
    pub const DEVICE_FEATURES_SELECT: usize = 0x014;
    pub const DRIVER_FEATURES: usize = 0x020;
    pub const DRIVER_FEATURES_SELECT: usize = 0x024;
    /// Legacy only.
    pub const GUEST_PAGE_SIZE: usize = 0x028;
    pub const QUEUE_SELECT: usize = 0x030;
    pub const QUEUE_SIZE_MAX: usize = 0x034;
    pub const QUEUE_SIZE: usize = 0x038;
    /// Legacy only.
    pub const QUEUE_ALIGN: usize = 0x03c;
    /// Legacy only: the queue's page frame number.
    pub const QUEUE_PAGE: usize = 0x040;
    pub const QUEUE_READY: usize = 0x044;
    pub const QUEUE_NOTIFY: usize = 0x050;
    pub const INTERRUPT_STATUS: usize = 0x060;
    pub const INTERRUPT_ACKNOWLEDGE: usize = 0x064;
    pub const STATUS: usize = 0x070;
    pub const QUEUE_DESCRIPTORS: usize = 0x080;
    pub const QUEUE_DRIVER: usize = 0x090;
    pub const QUEUE_DEVICE: usize = 0x0a0;
    pub const CONFIG_GENERATION: usize = 0x0fc;
    pub const CONFIG: usize = 0x100;
}

/// Every bit of InterruptStatus that has a meaning.
const INTERRUPTS: u32 = 3;

/// InterruptStatus: the configuration has changed.
const CONFIGURATION_CHANGED: u32 = 2;

/// Looks for a device in a slot. `None` if there is none, or one that there is no driver for.
///
/// # Safety
/// The 512 bytes at `base` are mapped uncached (identity), harmless to read, and used by nobody else for as long as the
/// transport exists.
pub unsafe fn probe_mmio(base: usize) -> Option<Found> {
    // SAFETY: as the caller promises.
    let registers = unsafe { Region::new(base, SLOT_BYTES) }?;
    let (kind, transport) = MmioTransport::probe(registers)?;
    Some(Found { kind, place: Place::Mmio(base), transport: super::AnyTransport::Mmio(transport) })
}

/// A slot with a device in it.
#[derive(Debug)]
pub struct MmioTransport<R = Region> {
    registers: R,
    legacy: bool,
}

impl<R: Registers> MmioTransport<R> {
    /// The device behind these registers; `None` as for [`probe_mmio`].
    pub(super) fn probe(mut registers: R) -> Option<(DeviceKind, Self)> {
        if registers.bytes() < register::CONFIG || registers.read32(register::MAGIC) != MAGIC {
            return None;
        }
        let legacy = match registers.read32(register::VERSION) {
            1 => true,
            2 => false,
            _ => return None,
        };
        let kind = DeviceKind::of(registers.read32(register::DEVICE_ID))?;
        Some((kind, Self { registers, legacy }))
    }

    fn write64(&mut self, offset: usize, value: u64) {
        self.registers.write32(offset, value as u32);
        self.registers.write32(offset + 4, (value >> 32) as u32);
    }

    /// Where a configuration field of `bytes` bytes lies.
    fn field(&self, offset: usize, bytes: usize) -> Result<usize, VirtioError> {
        let place = offset.checked_add(register::CONFIG).ok_or(VirtioError::ShortConfiguration)?;
        let fits = place.checked_add(bytes).is_some_and(|end| end <= self.registers.bytes());
        if fits { Ok(place) } else { Err(VirtioError::ShortConfiguration) }
    }
}

impl<R: Registers> Transport for MmioTransport<R> {
    fn device_id(&mut self) -> u32 {
        self.registers.read32(register::DEVICE_ID)
    }

    fn is_legacy(&self) -> bool {
        self.legacy
    }

    fn status(&mut self) -> u8 {
        self.registers.read32(register::STATUS) as u8
    }

    fn set_status(&mut self, status: u8) {
        self.registers.write32(register::STATUS, status.into());
    }

    fn device_features(&mut self) -> u64 {
        self.registers.write32(register::DEVICE_FEATURES_SELECT, 0);
        let low = self.registers.read32(register::DEVICE_FEATURES);
        if self.legacy {
            return low.into();
        }
        self.registers.write32(register::DEVICE_FEATURES_SELECT, 1);
        u64::from(self.registers.read32(register::DEVICE_FEATURES)) << 32 | u64::from(low)
    }

    fn set_driver_features(&mut self, features: u64) {
        self.registers.write32(register::DRIVER_FEATURES_SELECT, 0);
        self.registers.write32(register::DRIVER_FEATURES, features as u32);
        if !self.legacy {
            self.registers.write32(register::DRIVER_FEATURES_SELECT, 1);
            self.registers.write32(register::DRIVER_FEATURES, (features >> 32) as u32);
        }
    }

    fn max_entries(&mut self, queue: u16) -> u16 {
        self.registers.write32(register::QUEUE_SELECT, queue.into());
        self.registers.read32(register::QUEUE_SIZE_MAX).try_into().unwrap_or(u16::MAX)
    }

    fn set_queue(&mut self, queue: u16, addresses: &QueueAddresses) -> Result<(), VirtioError> {
        self.registers.write32(register::QUEUE_SELECT, queue.into());
        if self.legacy {
            let page = addresses.descriptors / PAGE_BYTES as u64;
            let page = u32::try_from(page).map_err(|_| VirtioError::QueueAddress)?;
            debug_assert!(addresses.descriptors.is_multiple_of(PAGE_BYTES as u64));
            self.registers.write32(register::GUEST_PAGE_SIZE, PAGE_BYTES as u32);
            self.registers.write32(register::QUEUE_SIZE, addresses.entries.into());
            self.registers.write32(register::QUEUE_ALIGN, PAGE_BYTES as u32);
            self.registers.write32(register::QUEUE_PAGE, page);
        } else {
            self.registers.write32(register::QUEUE_SIZE, addresses.entries.into());
            self.write64(register::QUEUE_DESCRIPTORS, addresses.descriptors);
            self.write64(register::QUEUE_DRIVER, addresses.available);
            self.write64(register::QUEUE_DEVICE, addresses.used);
            self.registers.write32(register::QUEUE_READY, 1);
        }
        Ok(())
    }

    fn notify(&mut self, queue: u16) {
        self.registers.write32(register::QUEUE_NOTIFY, queue.into());
    }

    fn config_generation(&mut self) -> u32 {
        if self.legacy { 0 } else { self.registers.read32(register::CONFIG_GENERATION) }
    }

    fn config8(&mut self, offset: usize) -> Result<u8, VirtioError> {
        let place = self.field(offset, 1)?;
        Ok(self.registers.read8(place))
    }

    fn config16(&mut self, offset: usize) -> Result<u16, VirtioError> {
        let place = self.field(offset, 2)?;
        Ok(self.registers.read16(place))
    }

    fn config32(&mut self, offset: usize) -> Result<u32, VirtioError> {
        let place = self.field(offset, 4)?;
        Ok(self.registers.read32(place))
    }

    fn acknowledge(&mut self) -> bool {
        let interrupts = self.registers.read32(register::INTERRUPT_STATUS);
        if interrupts & INTERRUPTS != 0 {
            self.registers.write32(register::INTERRUPT_ACKNOWLEDGE, interrupts & INTERRUPTS);
        }
        interrupts & CONFIGURATION_CHANGED != 0
    }
}
