//! The capability list: where a virtio device's register blocks and its MSI-X table lie (virtio 1.2 §4.1.4; PCI Local Bus 3.0
//! §6.7, §6.8.2).

use super::PciError;
use super::bars::BARS;
use super::function::Function;

/// Capability IDs.
const VENDOR_SPECIFIC: u8 = 0x09;
const MSI_X: u8 = 0x11;

/// `cfg_type` of virtio's capabilities.
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;

/// Capabilities lie behind the header and take at least four bytes, so a list can't be longer.
const MAX_CAPABILITIES: usize = (256 - 64) / 4;

/// A piece of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Below [`BARS`].
    pub bar: u8,
    pub offset: u32,
    pub bytes: u32,
}

/// The MSI-X capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsiX {
    /// Offset of the capability in configuration space.
    pub place: u8,
    /// Its table, whole.
    pub table: Block,
}

/// What the list says. Blocks may still point outside their BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub common: Block,
    pub notify: Block,
    /// Bytes between two queues' notification registers, times `queue_notify_off`.
    pub notify_multiplier: u32,
    pub device: Block,
    pub msi_x: MsiX,
}

impl Capabilities {
    /// Walks the list. Of several capabilities of one type the first counts (virtio 1.2 §4.1.4.1).
    pub fn read(function: &mut Function<'_>) -> Result<Self, PciError> {
        let (mut common, mut notify, mut device, mut msi_x) = (None, None, None, None);
        let mut notify_multiplier = 0;
        let mut place = function.first_capability();
        for _ in 0..MAX_CAPABILITIES {
            if place == 0 {
                let common = common.ok_or(PciError::NoModernInterface)?;
                let notify = notify.ok_or(PciError::NoModernInterface)?;
                let device = device.ok_or(PciError::NoModernInterface)?;
                let msi_x = msi_x.ok_or(PciError::NoMsiX)?;
                return Ok(Self { common, notify, notify_multiplier, device, msi_x });
            }
            // The header's registers are no capabilities.
            if place < 0x40 {
                return Err(PciError::BadCapabilities);
            }
            let [id, next, bytes, kind] = function.read(place).to_le_bytes();
            match (id, kind) {
                (VENDOR_SPECIFIC, COMMON) if common.is_none() => common = read_block(function, place, bytes, 16)?,
                (VENDOR_SPECIFIC, NOTIFY) if notify.is_none() => {
                    notify = read_block(function, place, bytes, 20)?;
                    notify_multiplier = if notify.is_some() { function.read(place + 16) } else { 0 };
                }
                (VENDOR_SPECIFIC, DEVICE) if device.is_none() => device = read_block(function, place, bytes, 16)?,
                (MSI_X, _) if msi_x.is_none() => msi_x = read_msi_x(function, place)?,
                _ => {}
            }
            place = next & !3;
        }
        Err(PciError::BadCapabilities)
    }
}

/// A `virtio_pci_cap` of at least `need` bytes. `None` if its BAR is a reserved one, which is to be ignored.
fn read_block(function: &mut Function<'_>, place: u8, bytes: u8, need: u8) -> Result<Option<Block>, PciError> {
    if bytes < need || place.checked_add(need - 1).is_none() {
        return Err(PciError::BadCapabilities);
    }
    let bar = function.read(place + 4) as u8;
    let block = Block { bar, offset: function.read(place + 8), bytes: function.read(place + 12) };
    Ok((bar < BARS).then_some(block))
}

fn read_msi_x(function: &mut Function<'_>, place: u8) -> Result<Option<MsiX>, PciError> {
    if place.checked_add(11).is_none() {
        return Err(PciError::BadCapabilities);
    }
    let entries = (function.read(place) >> 16 & 0x7ff) + 1;
    let table = function.read(place + 4);
    let bar = (table & 7) as u8;
    let block = Block { bar, offset: table & !7, bytes: entries * 16 };
    Ok((bar < BARS).then_some(MsiX { place, table: block }))
}
