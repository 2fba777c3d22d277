//! A PC around the processor: what ACPI says, and interrupt controllers.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::apic::{IoApic, LOCAL_APIC, LocalApic};
use super::interrupts::FIRST_VECTOR;
use super::paging::{PageTables, Rights, Unmappable};
use super::physical::FirmwareMemory;
use super::timer::Beginning;
use crate::boot::acpi::{Acpi, IoApicFact};
use crate::boot::memory_map::Region;
use crate::rings::PAGE_BYTES;

/// The vector of every device: whichever interrupts, it wakes.
const DEVICE_VECTOR: u8 = FIRST_VECTOR + 1;

/// The I/O APIC of a machine that says nothing.
const USUAL_IO_APIC: IoApicFact = IoApicFact { address: 0xfec0_0000, first_line: 0 };

/// A PC.
#[derive(Debug)]
pub struct Pc {
    /// What ACPI says.
    pub acpi: Acpi,
    io_apics: ArrayVec<IoApic, 8>,
    processor: u8,
}

impl Pc {
    /// Takes stock, and begins to measure time.
    ///
    /// # Safety
    /// To be called once, with interrupts off, the page tables in force, and no memory free that the firmware uses.
    pub unsafe fn new(
        tables: &mut PageTables,
        acpi_root: u64,
        has_deadline: bool,
    ) -> Result<(Self, Beginning), Unmappable> {
        let acpi = match acpi_root {
            0 => Acpi::default(),
            // SAFETY: what the root pointer leads to is the firmware's, and has been left out of the memory that is free.
            root => Acpi::read(&unsafe { FirmwareMemory::new(tables) }, root),
        };
        let devices = |address: u32| Region { start: address.into(), end: u64::from(address) + PAGE_BYTES as u64 };
        tables.map(devices(LOCAL_APIC), Rights::Device)?;
        // SAFETY: mapped just now, and this is called once.
        let Some(apic) = (unsafe { LocalApic::enable() }) else {
            panic!("the processor has no local APIC, without which nothing wakes it: give the machine one");
        };
        let mut facts = acpi.io_apics.clone();
        if facts.is_empty() {
            facts.push(USUAL_IO_APIC);
        }
        let mut io_apics = ArrayVec::new();
        for IoApicFact { address, first_line } in facts {
            tables.map(devices(address), Rights::Device)?;
            // SAFETY: mapped just now, and where the firmware says or every PC has one.
            io_apics.push(unsafe { IoApic::new(address, first_line) });
        }
        let processor = apic.id();
        let beginning = Beginning::compare(apic, acpi.pm_timer, has_deadline);
        Ok((Self { acpi, io_apics, processor }, beginning))
    }

    /// Lets an interrupt line's rising edges wake us. False if no interrupt controller has such a line.
    pub fn route_line(&self, line: u32) -> bool {
        self.io_apics.iter().any(|io_apic| io_apic.route(line, DEVICE_VECTOR, self.processor))
    }

    /// The numbers of all interrupt lines.
    pub fn lines(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.io_apics.iter().map(IoApic::lines)
    }

    /// What a device writes where to wake us: address and data.
    pub fn interrupt_message(&self) -> (u64, u32) {
        (u64::from(LOCAL_APIC) | u64::from(self.processor) << 12, DEVICE_VECTOR.into())
    }
}
