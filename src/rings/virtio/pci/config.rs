//! Configuration space: the trait, and the two ways to reach it on a PC.

use core::fmt;

use super::super::registers::{Region, Registers};

/// The place of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Bus.
    pub bus: u8,
    /// Device on the bus, below 32.
    pub device: u8,
    /// Function of the device, below 8.
    pub function: u8,
}

impl fmt::Display for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Access to the first 256 bytes of every function's configuration space, in aligned words of 32 bits.
pub trait PciConfig {
    /// Reads a word; all ones where nobody answers.
    fn read32(&mut self, function: PciFunction, offset: u8) -> u32;

    /// Writes a word.
    fn write32(&mut self, function: PciFunction, offset: u8, value: u32);
}

/// Configuration space in memory (PCI Express: "ECAM"; its address stands in the ACPI table MCFG).
#[derive(Debug)]
pub struct Ecam {
    region: Region,
    first_bus: u8,
}

impl Ecam {
    /// Bytes of a function's configuration space here.
    const FUNCTION_BYTES: usize = 4096;
    /// Bytes of a bus's.
    const BUS_BYTES: usize = 256 * Self::FUNCTION_BYTES;

    /// The configuration space of buses `first_bus` to `last_bus`, beginning with the first one's at `address`. `None` if there
    /// is nothing there by these numbers.
    ///
    /// # Safety
    /// As the numbers say it is there, mapped uncached (identity), for as long as this exists.
    pub unsafe fn new(address: usize, first_bus: u8, last_bus: u8) -> Option<Self> {
        let buses = usize::from(last_bus.checked_sub(first_bus)?) + 1;
        // SAFETY: as the caller promises.
        let region = unsafe { Region::new(address, buses * Self::BUS_BYTES) }?;
        Some(Self { region, first_bus })
    }

    fn place(&self, function: PciFunction, offset: u8) -> Option<usize> {
        let bus = usize::from(function.bus.checked_sub(self.first_bus)?);
        let number = usize::from(function.device & 31) * 8 + usize::from(function.function & 7);
        Some(bus * Self::BUS_BYTES + number * Self::FUNCTION_BYTES + usize::from(offset & !3))
    }
}

impl PciConfig for Ecam {
    fn read32(&mut self, function: PciFunction, offset: u8) -> u32 {
        self.place(function, offset).map_or(u32::MAX, |place| self.region.read32(place))
    }

    fn write32(&mut self, function: PciFunction, offset: u8, value: u32) {
        if let Some(place) = self.place(function, offset) {
            self.region.write32(place, value);
        }
    }
}

/// The x86 instructions `in` and `out`, which live where the architecture does.
pub trait PortIo {
    /// Reads 32 bits from a port.
    fn read32(&mut self, port: u16) -> u32;

    /// Writes 32 bits to a port.
    fn write32(&mut self, port: u16, value: u32);
}

/// Configuration space through the ports 0xcf8 and 0xcfc ("configuration mechanism 1").
#[derive(Debug)]
pub struct PortConfig<P>(pub P);

impl<P: PortIo> PortConfig<P> {
    const ADDRESS: u16 = 0xcf8;
    const DATA: u16 = 0xcfc;
    const ENABLE: u32 = 1 << 31;

    fn select(&mut self, function: PciFunction, offset: u8) {
        let device = u32::from(function.device & 31) << 11;
        let number = u32::from(function.function & 7) << 8;
        let address = Self::ENABLE | u32::from(function.bus) << 16 | device | number | u32::from(offset & !3);
        self.0.write32(Self::ADDRESS, address);
    }
}

impl<P: PortIo> PciConfig for PortConfig<P> {
    fn read32(&mut self, function: PciFunction, offset: u8) -> u32 {
        self.select(function, offset);
        self.0.read32(Self::DATA)
    }

    fn write32(&mut self, function: PciFunction, offset: u8, value: u32) {
        self.select(function, offset);
        self.0.write32(Self::DATA, value);
    }
}
