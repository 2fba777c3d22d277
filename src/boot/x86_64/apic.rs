//! The interrupt controllers: the processor's local APIC, and I/O APICs for devices with interrupt lines.

use core::arch::x86_64::__cpuid;
use core::ops::Range;
use core::ptr;

use super::cpu::{out8, read_msr, write_msr};
use super::interrupts::SPURIOUS_VECTOR;

/// Where the local APIC is mapped.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// The register that a handler writes 0 to when it is done.
pub const LOCAL_APIC_END_OF_INTERRUPT: u32 = LOCAL_APIC + 0xb0;

/// Registers of the local APIC (Intel SDM volume 3, 11.4.1).
#[derive(Clone, Copy)]
enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    Spurious = 0xf0,
    Timer = 0x320,
    Lint0 = 0x350,
    Lint1 = 0x360,
    Error = 0x370,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    Divide = 0x3e0,
}

const MASKED: u32 = 1 << 16;

/// The local APIC with its timer.
#[derive(Debug)]
pub struct LocalApic {
    id: u8,
}

impl LocalApic {
    /// Switches it on, and the old interrupt controllers off. `None` if the processor has none.
    ///
    /// # Safety
    /// Its page must be mapped, and nobody else may use it.
    pub unsafe fn enable() -> Option<Self> {
        const HAS_APIC: u32 = 1 << 9;
        if __cpuid(1).edx & HAS_APIC == 0 {
            return None;
        }
        for port in [0x21, 0xa1] {
            // SAFETY: a mask for every line of the legacy controllers; nobody uses them.
            unsafe { out8(port, 0xff) };
        }
        const APIC_BASE: u32 = 0x1b;
        const ENABLED: u64 = 1 << 11;
        const X2APIC: u64 = 1 << 10;
        const BOOT_PROCESSOR: u64 = 1 << 8;
        // SAFETY: a processor with a local APIC has the register. Its registers at the usual place are ours.
        unsafe {
            let base = read_msr(APIC_BASE);
            let wanted = u64::from(LOCAL_APIC) | ENABLED | base & BOOT_PROCESSOR;
            if base & X2APIC != 0 {
                // The way back to registers in memory leads through "disabled".
                write_msr(APIC_BASE, base & !(X2APIC | ENABLED));
            }
            if base != wanted {
                write_msr(APIC_BASE, wanted);
            }
        }
        let mut apic = Self { id: 0 };
        apic.id = (apic.read(Register::Id) >> 24) as u8;
        for register in [Register::Lint0, Register::Lint1, Register::Error, Register::Timer] {
            apic.write(register, MASKED | u32::from(SPURIOUS_VECTOR));
        }
        apic.write(Register::TaskPriority, 0);
        const SOFTWARE_ENABLE: u32 = 1 << 8;
        apic.write(Register::Spurious, SOFTWARE_ENABLE | u32::from(SPURIOUS_VECTOR));
        Some(apic)
    }

    fn read(&self, register: Register) -> u32 {
        let address = LOCAL_APIC as usize + register as usize;
        // SAFETY: `enable`'s caller has mapped the page; reading has no effect on memory.
        unsafe { ptr::with_exposed_provenance::<u32>(address).read_volatile() }
    }

    fn write(&mut self, register: Register, value: u32) {
        let address = LOCAL_APIC as usize + register as usize;
        // SAFETY: as above; no register that we write makes the APIC touch memory.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(value) };
    }

    /// The processor's number among interrupt destinations.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Lets the timer count its bus clock, divided by 16, and interrupt once at the end of each count.
    pub fn set_one_shot(&mut self, vector: u8) {
        const BY_16: u32 = 0b0011;
        self.write(Register::Divide, BY_16);
        self.write(Register::Timer, vector.into());
    }

    /// Lets the timer interrupt when the time stamp counter reaches a deadline, [`set_deadline`].
    pub fn set_deadline_mode(&mut self, vector: u8) {
        const TSC_DEADLINE: u32 = 0b10 << 17;
        self.write(Register::Timer, TSC_DEADLINE | u32::from(vector));
    }

    /// Begins to count down from so many; 0 stops the timer.
    pub fn start_count(&mut self, ticks: u32) {
        self.write(Register::InitialCount, ticks);
    }

    /// How many are left.
    pub fn current_count(&self) -> u32 {
        self.read(Register::CurrentCount)
    }
}

/// Interrupts when the time stamp counter gets there; 0 is never. The processor must have the deadline mode.
pub fn set_deadline(time_stamp: u64) {
    const TSC_DEADLINE: u32 = 0x6e0;
    // SAFETY: all that the register does is to interrupt, and only in the mode in which it is there.
    unsafe { write_msr(TSC_DEADLINE, time_stamp) };
}

/// An I/O APIC: lines of devices become vectors.
#[derive(Clone, Copy, Debug)]
pub struct IoApic {
    address: u32,
    /// The number of its first line among all.
    first_line: u32,
    lines: u32,
}

impl IoApic {
    /// The I/O APIC at this address, whose lines begin with this number.
    ///
    /// # Safety
    /// It must be one, mapped, and nobody else may use it.
    pub unsafe fn new(address: u32, first_line: u32) -> Self {
        let mut apic = Self { address, first_line, lines: 0 };
        const VERSION: u32 = 1;
        apic.lines = (apic.read(VERSION) >> 16 & 0xff) + 1;
        apic
    }

    fn read(&self, register: u32) -> u32 {
        let select = ptr::with_exposed_provenance_mut::<u32>(self.address as usize);
        // SAFETY: as `new`'s caller promises, these are an I/O APIC's two windows, and its registers don't touch memory.
        unsafe {
            select.write_volatile(register);
            select.byte_add(0x10).read_volatile()
        }
    }

    fn write(&self, register: u32, value: u32) {
        let select = ptr::with_exposed_provenance_mut::<u32>(self.address as usize);
        // SAFETY: as above.
        unsafe {
            select.write_volatile(register);
            select.byte_add(0x10).write_volatile(value);
        }
    }

    /// The numbers of its lines.
    pub fn lines(&self) -> Range<u32> {
        self.first_line..self.first_line.saturating_add(self.lines)
    }

    /// Sends a line's rising edges to a processor as this vector. False if it is not one of our lines.
    pub fn route(&self, line: u32, vector: u8, processor: u8) -> bool {
        let Some(own) = line.checked_sub(self.first_line).filter(|own| *own < self.lines) else { return false };
        let entry = 0x10 + 2 * own;
        self.write(entry + 1, u32::from(processor) << 24);
        self.write(entry, vector.into());
        true
    }
}
