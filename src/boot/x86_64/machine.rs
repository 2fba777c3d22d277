//! The machine as the kernel knows it: one value that owns what there is only once.

use alloc::vec::Vec;
use core::ptr::{self, NonNull};

use super::cpu::Features;
use super::entropy::{self, Seed};
use super::hypervisor::Hypervisor;
use super::paging::{PageTables, Unmappable};
use super::pc::Pc;
use super::timer::Beginning;
use super::xen::{self, Guest};
use super::{power, rtc, virtio};
use crate::boot::heap;
use crate::boot::memory_map::{MemoryMap, Region};
use crate::params::VirtioMmio;
use crate::rings::virtio::Found;
use crate::rings::{PAGE_BYTES, PagePool};

/// Memory that has been taken, whole pages, and not been used.
#[derive(Debug)]
pub struct FreeMemory(Region);

/// What is around the processor.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one")]
pub enum Platform {
    /// A PC; its devices are virtio's.
    Pc(Pc),
    /// Xen; devices are found through its store.
    Xen(Guest),
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// What the processor can do.
    pub features: Features,
    /// Who runs us.
    pub hypervisor: Hypervisor,
    /// What is around the processor.
    pub platform: Platform,
    /// Memory that is nobody's yet.
    memory: MemoryMap,
    total_bytes: u64,
    tables: PageTables,
}

impl Machine {
    /// Takes stock, and begins to measure time. The hypervisor has shown `shown_bytes` of memory, and what is free of that is in `memory`.
    ///
    /// # Safety
    /// To be called once, with interrupts off, the page tables in force and mapping all of `memory`, which must be free.
    pub unsafe fn new(
        features: Features,
        hypervisor: Hypervisor,
        mut tables: PageTables,
        mut memory: MemoryMap,
        shown_bytes: u64,
        acpi_root: u64,
    ) -> Result<(Self, Beginning), Unmappable> {
        let (platform, beginning) = match hypervisor {
            Hypervisor::Xen => {
                // SAFETY: as the caller promises, and Xen says that it runs us.
                let (guest, clock) = unsafe { Guest::new(&mut tables) };
                let mut missing_bytes = guest.missing_bytes(shown_bytes);
                // Whichever pages are never touched, they are those that are not there.
                while let Some(left_alone) = memory.take_largest(missing_bytes) {
                    missing_bytes -= left_alone.bytes();
                }
                (Platform::Xen(guest), Beginning::Xen(clock))
            }
            _ => {
                // SAFETY: as the caller promises; what is not in `memory` may be the firmware's.
                let (pc, beginning) = unsafe { Pc::new(&mut tables, acpi_root, features.tsc_deadline) }?;
                (Platform::Pc(pc), beginning)
            }
        };
        let total_bytes = memory.free_bytes();
        Ok((Self { features, hypervisor, platform, memory, total_bytes, tables }, beginning))
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

    /// Looks for a PC's devices, in an order that stays; `named` are those that the command line knows of.
    pub fn find_virtio(&mut self, named: &[VirtioMmio]) -> Vec<Found> {
        match &self.platform {
            Platform::Pc(pc) => virtio::find(pc, &mut self.tables, named),
            Platform::Xen(_) => Vec::new(),
        }
    }

    /// A secret, with `salt` mixed in.
    pub fn seed(&self, salt: &[u8]) -> Seed {
        entropy::seed(self.features, salt)
    }

    /// The wall clock in seconds since 1970, if there is one and it can be read just now.
    pub fn wall_clock(&self) -> Option<u64> {
        match self.platform {
            Platform::Pc(_) => rtc::read_unix_s(),
            Platform::Xen(_) => xen::clock::unix_s(),
        }
    }

    /// Switches the machine off.
    pub fn off(&mut self) -> ! {
        match &self.platform {
            Platform::Pc(pc) => power::off(&mut self.tables, &pc.acpi),
            Platform::Xen(_) => xen::power::off(),
        }
    }

    /// Starts the machine anew.
    pub fn reboot(&mut self) -> ! {
        match &self.platform {
            Platform::Pc(pc) => power::reboot(&mut self.tables, &pc.acpi),
            Platform::Xen(_) => xen::power::reboot(),
        }
    }
}
