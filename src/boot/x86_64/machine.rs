//! The machine as the kernel knows it: one value that owns what there is only once.

use core::ops::Range;
use core::ptr::{self, NonNull};

use arrayvec::ArrayVec;

use super::apic::{IoApic, LOCAL_APIC, LocalApic};
use super::cpu::Features;
use super::entropy::{self, Seed};
use super::hypervisor::Hypervisor;
use super::interrupts::FIRST_VECTOR;
use super::paging::{PageTables, Rights, Unmappable};
use super::physical::FirmwareMemory;
use super::timer::Beginning;
use super::{power, rtc};
use crate::boot::acpi::{Acpi, IoApicFact};
use crate::boot::heap;
use crate::boot::memory_map::{MemoryMap, Region};
use crate::rings::{PAGE_BYTES, PagePool};

/// The vector of every device: whichever interrupts, it wakes.
const DEVICE_VECTOR: u8 = FIRST_VECTOR + 1;

/// The I/O APIC of a machine that says nothing.
const USUAL_IO_APIC: IoApicFact = IoApicFact { address: 0xfec0_0000, first_line: 0 };

/// Memory that has been taken, whole pages, and not been used.
#[derive(Debug)]
pub struct FreeMemory(Region);

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// What the processor can do.
    pub features: Features,
    /// Who runs us.
    pub hypervisor: Hypervisor,
    /// What ACPI says.
    pub acpi: Acpi,
    /// Memory that is nobody's yet.
    memory: MemoryMap,
    total_bytes: u64,
    tables: PageTables,
    io_apics: ArrayVec<IoApic, 8>,
    processor: u8,
}

impl Machine {
    /// Takes stock, and begins to measure time.
    ///
    /// # Safety
    /// To be called once, with interrupts off, the page tables in force and mapping all of `memory`, which must be free.
    pub unsafe fn new(
        features: Features,
        mut tables: PageTables,
        memory: MemoryMap,
        acpi_root: u64,
    ) -> Result<(Self, Beginning), Unmappable> {
        let acpi = match acpi_root {
            0 => Acpi::default(),
            // SAFETY: what the root pointer leads to is the firmware's, and has been left out of the memory that is free.
            root => Acpi::read(&unsafe { FirmwareMemory::new(&mut tables) }, root),
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
        let beginning = Beginning::new(apic, acpi.pm_timer, features.tsc_deadline);
        let total_bytes = memory.free_bytes();
        let hypervisor = Hypervisor::find();
        let machine = Self { features, hypervisor, acpi, memory, total_bytes, tables, io_apics, processor };
        Ok((machine, beginning))
    }

    /// Memory that was there for us at the start, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Memory that is nobody's yet, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.memory.free_bytes()
    }

    /// Takes memory: so much, or as much as there is in one piece. `None` if nothing is left.
    pub fn take(&mut self, bytes: u64) -> Option<FreeMemory> {
        self.memory.take_largest(bytes).map(FreeMemory)
    }

    /// Makes a pool of it.
    pub fn pool(&self, FreeMemory(region): FreeMemory) -> PagePool {
        let base = ptr::with_exposed_provenance_mut(region.start as usize);
        let base = NonNull::new(base).expect("the first page is never free");
        // SAFETY: `new`'s caller promised that the map's memory is mapped, writable and nobody's; no allocator knows this piece,
        // since `take` took it, and it can be used only once.
        unsafe { PagePool::from_memory(base, region.bytes() as usize / PAGE_BYTES) }
    }

    /// Gives the heap all that is left.
    pub fn give_rest_to_heap(&mut self) {
        while let Some(region) = self.memory.take_largest(u64::MAX) {
            // SAFETY: as in `pool`. A piece that is too small for a heap is left.
            let _ = unsafe { heap::add(region) };
        }
    }

    /// Maps a device's registers.
    ///
    /// # Errors
    /// If the address is beyond all reach.
    pub fn map_device(&mut self, region: Region) -> Result<(), Unmappable> {
        self.tables.map(region, Rights::Device)
    }

    /// Lets an interrupt line's rising edges wake us. False if no interrupt controller has such a line.
    pub fn route_line(&mut self, line: u32) -> bool {
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

    /// A secret, with `salt` mixed in.
    pub fn seed(&self, salt: &[u8]) -> Seed {
        entropy::seed(self.features, salt)
    }

    /// The wall clock in seconds since 1970, if there is one and it can be read just now.
    pub fn wall_clock(&self) -> Option<u64> {
        rtc::read_unix_s()
    }

    /// Switches the machine off.
    pub fn off(&mut self) -> ! {
        power::off(&mut self.tables, &self.acpi)
    }

    /// Starts the machine anew.
    pub fn reboot(&mut self) -> ! {
        power::reboot(&mut self.tables, &self.acpi)
    }
}
