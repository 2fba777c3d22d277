//! The modern PCI transport: register blocks in BARs, and one MSI-X vector for everything (virtio 1.2 §4.1.4, §4.1.5).

use super::super::VirtioError;
use super::super::registers::{Region, Registers};
use super::super::transport::{QueueAddresses, Transport, status};
use super::bars::{MemoryBars, Window, assign};
use super::capabilities::{Block, Capabilities};
use super::function::Function;
use super::{MsiMessage, PciError};

/// Offsets in `virtio_pci_common_cfg` (virtio 1.2 §4.1.4.3).
mod register {
    pub const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub const DEVICE_FEATURE: usize = 0x04;
    pub const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub const DRIVER_FEATURE: usize = 0x0c;
    pub const CONFIG_VECTOR: usize = 0x10;
    pub const DEVICE_STATUS: usize = 0x14;
    pub const CONFIG_GENERATION: usize = 0x15;
    pub const QUEUE_SELECT: usize = 0x16;
    pub const QUEUE_SIZE: usize = 0x18;
    pub const QUEUE_VECTOR: usize = 0x1a;
    pub const QUEUE_ENABLE: usize = 0x1c;
    pub const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
    pub const QUEUE_DESCRIPTORS: usize = 0x20;
    pub const QUEUE_DRIVER: usize = 0x28;
    pub const QUEUE_DEVICE: usize = 0x30;
    /// Behind the last of them.
    pub const END: u32 = 0x38;
}

/// Upper half of an MSI-X capability's first word: enable, and mask all vectors.
const MSI_X_ENABLE: u32 = 1 << 31;
const MSI_X_MASK_ALL: u32 = 1 << 30;

/// The entry of the MSI-X table that everything uses.
const VECTOR: u16 = 0;

/// Most queues of a device here: a network interface's two.
const MAX_QUEUES: usize = 2;

/// A virtio function. Its device ID comes from the configuration header, read once.
#[derive(Debug)]
pub struct PciTransport<R = Region> {
    device_id: u32,
    common: R,
    notify: R,
    device: R,
    notify_multiplier: u32,
    /// Offset in `notify` of each queue's register; checked to lie within.
    notify_offsets: [usize; MAX_QUEUES],
    generation: u8,
}

/// Sets a function up: BARs, MSI-X, bus mastering.
///
/// # Safety
/// As for [`super::probe_pci`].
pub(super) unsafe fn open(
    function: &mut Function<'_>,
    device_id: u32,
    window: &mut Window<'_>,
    message: MsiMessage,
) -> Result<PciTransport, PciError> {
    let capabilities = Capabilities::read(function)?;
    let bars = assign(function, window)?;
    let region = |block: &Block| -> Result<Region, PciError> {
        let (start, bytes) = locate(&bars, block)?;
        // SAFETY: the block lies in a BAR of this function, which is mapped; the caller promises that nobody else uses it.
        unsafe { Region::new(start, bytes) }.ok_or(PciError::BadCapabilities)
    };
    let msi_x = capabilities.msi_x;
    let mut table = region(&msi_x.table)?;
    let common = region(&capabilities.common)?;
    let notify = region(&capabilities.notify)?;
    let device = region(&capabilities.device)?;
    if capabilities.common.bytes < register::END {
        return Err(PciError::BadCapabilities);
    }
    let control = function.read(msi_x.place);
    function.write(msi_x.place, control | MSI_X_ENABLE | MSI_X_MASK_ALL);
    table.write32(0, message.address as u32);
    table.write32(4, (message.address >> 32) as u32);
    table.write32(8, message.data);
    table.write32(12, 0);
    function.write(msi_x.place, (control | MSI_X_ENABLE) & !MSI_X_MASK_ALL);
    function.set_bus_master();
    Ok(PciTransport::new(device_id, common, notify, device, capabilities.notify_multiplier))
}

/// Address and length of a block; an error if it doesn't lie in its BAR.
fn locate(bars: &MemoryBars, block: &Block) -> Result<(usize, usize), PciError> {
    let bar = bars.get(usize::from(block.bar)).ok_or(PciError::BadCapabilities)?;
    let start = bar.start.checked_add(block.offset.into()).ok_or(PciError::BadCapabilities)?;
    let end = start.checked_add(block.bytes.into()).filter(|end| *end <= bar.end).ok_or(PciError::BadCapabilities)?;
    let start_address = usize::try_from(start).map_err(|_| PciError::BadCapabilities)?;
    Ok((start_address, (end - start) as usize))
}

impl<R: Registers> PciTransport<R> {
    pub(super) fn new(device_id: u32, common: R, notify: R, device: R, notify_multiplier: u32) -> Self {
        Self { device_id, common, notify, device, notify_multiplier, notify_offsets: [0; MAX_QUEUES], generation: 0 }
    }

    fn write64(&mut self, offset: usize, value: u64) {
        self.common.write32(offset, value as u32);
        self.common.write32(offset + 4, (value >> 32) as u32);
    }

    /// Refuses configuration fields that end behind the block.
    fn check_field(&self, offset: usize, bytes: usize) -> Result<(), VirtioError> {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.device.bytes());
        if fits { Ok(()) } else { Err(VirtioError::ShortConfiguration) }
    }
}

impl<R: Registers> Transport for PciTransport<R> {
    fn device_id(&mut self) -> u32 {
        self.device_id
    }

    fn is_legacy(&self) -> bool {
        false
    }

    fn status(&mut self) -> u8 {
        self.common.read8(register::DEVICE_STATUS)
    }

    fn set_status(&mut self, status: u8) {
        self.common.write8(register::DEVICE_STATUS, status);
    }

    fn device_features(&mut self) -> u64 {
        self.common.write32(register::DEVICE_FEATURE_SELECT, 0);
        let low = self.common.read32(register::DEVICE_FEATURE);
        self.common.write32(register::DEVICE_FEATURE_SELECT, 1);
        u64::from(self.common.read32(register::DEVICE_FEATURE)) << 32 | u64::from(low)
    }

    fn set_driver_features(&mut self, features: u64) {
        self.common.write32(register::DRIVER_FEATURE_SELECT, 0);
        self.common.write32(register::DRIVER_FEATURE, features as u32);
        self.common.write32(register::DRIVER_FEATURE_SELECT, 1);
        self.common.write32(register::DRIVER_FEATURE, (features >> 32) as u32);
    }

    fn max_entries(&mut self, queue: u16) -> u16 {
        self.common.write16(register::QUEUE_SELECT, queue);
        self.common.read16(register::QUEUE_SIZE)
    }

    fn set_queue(&mut self, queue: u16, addresses: &QueueAddresses) -> Result<(), VirtioError> {
        self.common.write16(register::CONFIG_VECTOR, VECTOR);
        self.common.write16(register::QUEUE_SELECT, queue);
        let place = usize::from(self.common.read16(register::QUEUE_NOTIFY_OFFSET));
        let place = place.saturating_mul(self.notify_multiplier as usize);
        let fits = place.checked_add(size_of::<u16>()).is_some_and(|end| end <= self.notify.bytes());
        let known = self.notify_offsets.get_mut(usize::from(queue)).filter(|_| fits && place.is_multiple_of(2));
        *known.ok_or(VirtioError::BadConfiguration("queue_notify_off"))? = place;
        self.common.write16(register::QUEUE_VECTOR, VECTOR);
        // A device that has no vector to spare says so with all ones.
        if self.common.read16(register::QUEUE_VECTOR) != VECTOR {
            return Err(VirtioError::BadConfiguration("queue_msix_vector"));
        }
        self.common.write16(register::QUEUE_SIZE, addresses.entries);
        self.write64(register::QUEUE_DESCRIPTORS, addresses.descriptors);
        self.write64(register::QUEUE_DRIVER, addresses.available);
        self.write64(register::QUEUE_DEVICE, addresses.used);
        self.common.write16(register::QUEUE_ENABLE, 1);
        Ok(())
    }

    fn notify(&mut self, queue: u16) {
        if let Some(&place) = self.notify_offsets.get(usize::from(queue)) {
            self.notify.write16(place, queue);
        }
    }

    fn config_generation(&mut self) -> u32 {
        self.common.read8(register::CONFIG_GENERATION).into()
    }

    fn config8(&mut self, offset: usize) -> Result<u8, VirtioError> {
        self.check_field(offset, 1)?;
        Ok(self.device.read8(offset))
    }

    fn config16(&mut self, offset: usize) -> Result<u16, VirtioError> {
        self.check_field(offset, 2)?;
        Ok(self.device.read16(offset))
    }

    fn config32(&mut self, offset: usize) -> Result<u32, VirtioError> {
        self.check_field(offset, 4)?;
        Ok(self.device.read32(offset))
    }

    fn acknowledge(&mut self) -> bool {
        // Messages need no acknowledgement; one vector does not tell a changed configuration from a used buffer.
        let generation = self.common.read8(register::CONFIG_GENERATION);
        let changed = core::mem::replace(&mut self.generation, generation) != generation;
        changed || self.common.read8(register::DEVICE_STATUS) & (status::NEEDS_RESET | status::FAILED) != 0
    }
}
