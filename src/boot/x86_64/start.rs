//! The first Rust code: the processor, the memory map, the final page tables, and on to the kernel.

use arrayvec::ArrayVec;

use super::console::Console;
use super::cpu::Features;
use super::hypervisor::Hypervisor;
use super::machine::Machine;
use super::paging::{BOOT_REACH_BYTES, PageTables, Rights, Unmappable};
use super::physical::BootMemory;
use super::segments::{INTERRUPTION_STACKS, MAIN_STACK};
use super::{interrupts, segments};
use crate::boot::kernel;
use crate::boot::memory_map::{MemoryMap, Region};
use crate::boot::start_info::{MAX_COMMAND_LINE_BYTES, StartInfo, StartInfoError};

unsafe extern "C" {
    // Borders of the image, from the linker script.
    static image_start: u8;
    static rodata_start: u8;
    static data_start: u8;
    static image_end: u8;
}

/// Where legacy devices are, below 1 MiB.
const LEGACY: Region = Region { start: 0xa_0000, end: 0x10_0000 };
/// Memory below is left to whoever may have put something there: tables of the firmware.
const LOW_END: u64 = 1 << 20;
const LARGE_BYTES: u64 = 2 << 20;
const PAGE: u64 = super::paging::PAGE_BYTES as u64;

/// Called by the entry with the start information's address.
pub extern "C" fn start(info_address: u32) -> ! {
    let hypervisor = Hypervisor::find();
    Console::initialise(hypervisor);
    segments::initialise();
    interrupts::initialise();
    let features = Features::enable();
    // Without it the page tables' bit for it is an error, those in force among them: nothing but this code may be touched yet.
    if !features.no_execute {
        panic!("the processor can't forbid to execute data (NX), or was told not to: give the machine one that can");
    }
    // SAFETY: the entry's page tables are in force, and what the hypervisor has written is reserved below.
    let memory = unsafe { BootMemory::new() };
    let (info, mut map, shown_bytes) = match memory_map(&memory, info_address.into()) {
        Ok(found) => found,
        Err(error) => panic!("{error}"),
    };
    // What it lies in becomes free.
    let mut line = ArrayVec::<u8, MAX_COMMAND_LINE_BYTES>::new();
    if line.try_extend_from_slice(info.command_line(&memory)).is_err() || line.is_full() {
        panic!("the command line is too long: at most {MAX_COMMAND_LINE_BYTES} bytes are read");
    }
    let end = map.free().last().map_or(0, |region| region.end);
    let frames = map.take_below(PageTables::bytes_for(end, features.huge_pages), BOOT_REACH_BYTES);
    let frames =
        frames.unwrap_or_else(|| panic!("there is no memory for page tables: give the machine at least 16 MiB"));
    let tables = match protect(frames, &map, features) {
        Ok(tables) => tables,
        Err(Unmappable) => panic!("the memory for page tables is used up"),
    };
    // SAFETY: they map the image, all memory of the map, and what is read of the hypervisor's.
    unsafe { tables.activate() };
    // SAFETY: this is the first code of all, and runs once; interrupts are off, and the tables map what is free.
    match unsafe { Machine::new(features, hypervisor, tables, map, shown_bytes, info.acpi_root) } {
        Ok((machine, beginning)) => kernel::run(machine, beginning, &line),
        Err(Unmappable) => panic!("the memory for page tables is used up"),
    }
}

/// The address of one of the linker's borders.
fn border(symbol: *const u8) -> u64 {
    symbol.addr() as u64
}

/// Reads the start information, and finds out which memory is ours, and how much there is in all, in bytes.
fn memory_map(memory: &BootMemory, address: u64) -> Result<(StartInfo, MemoryMap, u64), StartInfoError> {
    let info = StartInfo::read(memory, address)?;
    let mut map = MemoryMap::default();
    info.memory_map(memory, |region, is_ram| {
        if is_ram {
            map.add(region);
        }
    })?;
    let shown_bytes = map.free_bytes();
    // Where entries overlap, the careful one counts.
    info.memory_map(memory, |region, is_ram| {
        if !is_ram {
            map.reserve(region);
        }
    })?;
    map.reserve(Region { start: 0, end: LOW_END });
    map.reserve(Region { start: border(&raw const image_start), end: border(&raw const image_end) });
    info.occupied(memory, address, |region| map.reserve(region));
    Ok((info, map, shown_bytes))
}

/// The final page tables: the image by its sections, memory, the legacy area.
fn protect(frames: Region, map: &MemoryMap, features: Features) -> Result<PageTables, Unmappable> {
    // SAFETY: the frames have been taken from the map, so they are nobody else's, and lie in the first GiB.
    let mut tables = unsafe { PageTables::new(frames, features.huge_pages)? };
    let text = border(&raw const image_start);
    let (rodata, data) = (border(&raw const rodata_start), border(&raw const data_start));
    let end = border(&raw const image_end).next_multiple_of(LARGE_BYTES);
    tables.map_small(Region { start: PAGE, end: LEGACY.start }, Some(Rights::Write))?;
    tables.map_small(LEGACY, Some(Rights::Device))?;
    tables.map_small(Region { start: LEGACY.end, end: text }, Some(Rights::Write))?;
    tables.map_small(Region { start: text, end: rodata }, Some(Rights::Execute))?;
    tables.map_small(Region { start: rodata, end: data }, Some(Rights::Read))?;
    tables.map_small(Region { start: data, end }, Some(Rights::Write))?;
    for guard in INTERRUPTION_STACKS.iter().map(|stack| stack.guard()).chain([MAIN_STACK.guard()]) {
        tables.map_small(Region { start: guard, end: guard + PAGE }, None)?;
    }
    tables.map(frames, Rights::Write)?;
    for region in map.free() {
        tables.map(*region, Rights::Write)?;
    }
    Ok(tables)
}
