//! One function's configuration header (PCI Local Bus 3.0 §6.1, §6.2).

use super::config::{PciConfig, PciFunction};

/// Offsets of configuration words.
mod word {
    pub const IDENTITY: u8 = 0x00;
    pub const COMMAND: u8 = 0x04;
    pub const HEADER_TYPE: u8 = 0x0c;
    pub const BARS: u8 = 0x10;
    /// Of bridges: primary, secondary and subordinate bus.
    pub const BUSES: u8 = 0x18;
    pub const SUBSYSTEM: u8 = 0x2c;
    pub const CAPABILITIES: u8 = 0x34;
}

/// Command register: answer at the memory BARs.
const MEMORY_SPACE: u32 = 1 << 1;
/// Command register: read and write memory.
const BUS_MASTER: u32 = 1 << 2;
/// Status register (the upper half of the command's word): there is a capability list.
const HAS_CAPABILITIES: u32 = 1 << 20;
/// Header type: the device has functions besides 0.
const MORE_FUNCTIONS: u8 = 0x80;
/// Header type of a function that is no bridge.
const ENDPOINT: u8 = 0;
/// Header type of a PCI-to-PCI bridge.
const BRIDGE: u8 = 1;

/// A function and the way to its configuration.
pub(super) struct Function<'a> {
    config: &'a mut dyn PciConfig,
    pub at: PciFunction,
}

impl<'a> Function<'a> {
    pub fn new(config: &'a mut dyn PciConfig, at: PciFunction) -> Self {
        Self { config, at }
    }

    pub fn read(&mut self, offset: u8) -> u32 {
        self.config.read32(self.at, offset)
    }

    pub fn write(&mut self, offset: u8, value: u32) {
        self.config.write32(self.at, offset, value);
    }

    /// Vendor and device; the vendor is 0xffff where there is no function.
    pub fn identity(&mut self) -> (u16, u16) {
        let word = self.read(word::IDENTITY);
        (word as u16, (word >> 16) as u16)
    }

    /// The subsystem's device number.
    pub fn subsystem(&mut self) -> u16 {
        (self.read(word::SUBSYSTEM) >> 16) as u16
    }

    fn header_type(&mut self) -> u8 {
        (self.read(word::HEADER_TYPE) >> 16) as u8
    }

    pub fn has_more_functions(&mut self) -> bool {
        self.header_type() & MORE_FUNCTIONS != 0
    }

    pub fn is_endpoint(&mut self) -> bool {
        self.header_type() & !MORE_FUNCTIONS == ENDPOINT
    }

    /// The bus behind a bridge; `None` for other functions. 0 if nobody has set it up.
    pub fn secondary_bus(&mut self) -> Option<u8> {
        let is_bridge = self.header_type() & !MORE_FUNCTIONS == BRIDGE;
        is_bridge.then(|| (self.read(word::BUSES) >> 8) as u8)
    }

    /// Offset of the first capability; 0 if there is none.
    pub fn first_capability(&mut self) -> u8 {
        if self.read(word::COMMAND) & HAS_CAPABILITIES == 0 {
            return 0;
        }
        self.read(word::CAPABILITIES) as u8 & !3
    }

    pub fn bar(&mut self, bar: u8) -> u32 {
        self.read(word::BARS + bar * 4)
    }

    pub fn set_bar(&mut self, bar: u8, value: u32) {
        self.write(word::BARS + bar * 4, value);
    }

    /// Sets and clears bits of the command register, and leaves the status register alone (its bits are cleared by ones).
    fn change_command(&mut self, set: u32, clear: u32) {
        let command = self.read(word::COMMAND) & 0xffff;
        self.write(word::COMMAND, command & !clear | set);
    }

    /// Whether the function answers at its memory BARs.
    pub fn set_memory_space(&mut self, on: bool) {
        if on { self.change_command(MEMORY_SPACE, 0) } else { self.change_command(0, MEMORY_SPACE) }
    }

    /// Lets the function read and write memory.
    pub fn set_bus_master(&mut self) {
        self.change_command(BUS_MASTER, 0);
    }
}
