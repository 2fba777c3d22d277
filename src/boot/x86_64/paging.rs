//! Page tables: everything at its physical address, and each kind of memory with no more rights than it needs.
//!
//! The way in maps the first GiB with [`BOOT_TABLES`]. [`PageTables`] then maps what is there: our text (executable, not writable),
//! constants (readable), data and memory (not executable), devices (uncached) where somebody asks for them. The first page and
//! the pages below stacks stay unmapped, so that null pointers and overruns stop at once.

use core::cell::UnsafeCell;
use core::ptr;

use crate::boot::memory_map::Region;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// An entry is valid.
pub const PRESENT: u64 = 1 << 0;
/// What it maps may be written.
pub const WRITABLE: u64 = 1 << 1;
/// What it maps is not cached: write-through and cache-disable, the strong uncached type of the page attribute table's default.
const UNCACHED: u64 = 1 << 3 | 1 << 4;
/// It maps a page of 2 MiB or 1 GiB instead of naming a table.
pub const LARGE: u64 = 1 << 7;
/// What it maps may not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const LARGE_BYTES: u64 = 2 << 20;
const HUGE_BYTES: u64 = 1 << 30;
/// What four levels reach without the sign's half, in bytes.
const REACH_BYTES: u64 = 1 << 47;

/// A page table of any level.
pub type Table = [u64; 512];

/// The tables of the way in: the two upper levels, and one directory.
#[repr(C, align(4096))]
pub struct BootTables(UnsafeCell<[Table; 3]>);

// SAFETY: only the processor uses them, after the entry has written them.
unsafe impl Sync for BootTables {}

/// The tables of the way in.
pub static BOOT_TABLES: BootTables = BootTables(UnsafeCell::new([[0; 512]; 3]));

/// What the first GiB of memory holds may be read before [`PageTables`] are active.
pub const BOOT_REACH_BYTES: u64 = HUGE_BYTES;

/// What memory may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Our code.
    Execute,
    /// Our constants.
    Read,
    /// Data, and memory in general.
    Write,
    /// A device's registers.
    Device,
}

impl Rights {
    fn bits(self) -> u64 {
        PRESENT
            | match self {
                Self::Execute => 0,
                Self::Read => NO_EXECUTE,
                Self::Write => WRITABLE | NO_EXECUTE,
                Self::Device => WRITABLE | NO_EXECUTE | UNCACHED,
            }
    }
}

/// Nothing more can be mapped: the memory for tables is used up, or the address is beyond what tables reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmappable;

/// The page tables, and the pages from which further ones are made.
#[derive(Debug)]
pub struct PageTables {
    root: u64,
    frames: Region,
    has_huge_pages: bool,
}

impl PageTables {
    /// How much memory tables take for memory up to this address, in bytes; with some to spare for devices.
    pub fn bytes_for(end: u64, has_huge_pages: bool) -> u64 {
        const SPARE: u64 = 24;
        let directories = if has_huge_pages { 4 } else { end.div_ceil(HUGE_BYTES) };
        (directories + end.div_ceil(HUGE_BYTES * 512) + SPARE) * PAGE_BYTES as u64
    }

    /// Empty tables.
    ///
    /// # Safety
    /// `frames` must be whole pages, mapped, and from now on these tables' alone.
    pub unsafe fn new(mut frames: Region, has_huge_pages: bool) -> Result<Self, Unmappable> {
        let root = take_frame(&mut frames)?;
        Ok(Self { root, frames, has_huge_pages })
    }

    /// Makes the processor use them.
    ///
    /// # Safety
    /// They must map all memory that is in use.
    pub unsafe fn activate(&self) {
        // SAFETY: as the caller promises.
        unsafe { super::cpu::set_page_tables(self.root) };
    }

    /// Maps small pages, or unmaps them (`None`). What they were before is replaced.
    ///
    /// # Errors
    /// If the tables are used up, or a large page is in the way.
    pub fn map_small(&mut self, region: Region, rights: Option<Rights>) -> Result<(), Unmappable> {
        let bits = rights.map_or(0, Rights::bits);
        let mut address = region.start;
        while address < region.end {
            let table = self.table(address, 1)?;
            let first = index(address, 0);
            let count = (512 - first).min(((region.end - address) / PAGE_BYTES as u64) as usize);
            // SAFETY: it is a table of ours, and nobody else refers to it.
            let table = unsafe { &mut *table };
            let entries = &mut table[first..first + count];
            for entry in entries {
                *entry = if bits == 0 { 0 } else { address | bits };
                address += PAGE_BYTES as u64;
            }
        }
        Ok(())
    }

    /// Maps the large pages that the region touches. Those that are mapped already, whole or in part, stay as they are.
    ///
    /// # Errors
    /// If the tables are used up or don't reach so far.
    pub fn map(&mut self, region: Region, rights: Rights) -> Result<(), Unmappable> {
        if region.end > REACH_BYTES {
            return Err(Unmappable);
        }
        let mut address = region.start / LARGE_BYTES * LARGE_BYTES;
        while address < region.end {
            if self.has_huge_pages && address.is_multiple_of(HUGE_BYTES) && region.end - address >= HUGE_BYTES {
                let table = self.table(address, 3)?;
                // SAFETY: as above.
                let entry = unsafe { &mut (*table)[index(address, 2)] };
                if *entry == 0 {
                    *entry = address | rights.bits() | LARGE;
                    address += HUGE_BYTES;
                    continue;
                }
            }
            let Some(table) = self.directory(address)? else {
                address = (address / HUGE_BYTES + 1) * HUGE_BYTES;
                continue;
            };
            let first = index(address, 1);
            let count = (512 - first).min((region.end - address).div_ceil(LARGE_BYTES) as usize);
            // SAFETY: as above.
            let table = unsafe { &mut *table };
            let entries = &mut table[first..first + count];
            for entry in entries {
                if *entry == 0 {
                    *entry = address | rights.bits() | LARGE;
                }
                address += LARGE_BYTES;
            }
        }
        Ok(())
    }

    /// The directory of the GiB that holds the address; `None` if one huge page maps it.
    fn directory(&mut self, address: u64) -> Result<Option<*mut Table>, Unmappable> {
        let above = self.table(address, 3)?;
        // SAFETY: as above.
        let entry = unsafe { (*above)[index(address, 2)] };
        if entry & LARGE != 0 { Ok(None) } else { self.table(address, 2).map(Some) }
    }

    /// The table whose entries map pages (level 1), large pages (2) or huge ones (3) around the address; made where there is none.
    fn table(&mut self, address: u64, level: u32) -> Result<*mut Table, Unmappable> {
        let mut table: *mut Table = ptr::with_exposed_provenance_mut(self.root as usize);
        for above in (level..4).rev() {
            // SAFETY: the root and what entries without `LARGE` name are tables of ours, mapped where they are.
            let entry = unsafe { &mut (*table)[index(address, above)] };
            if *entry & LARGE != 0 {
                return Err(Unmappable);
            }
            if *entry == 0 {
                *entry = take_frame(&mut self.frames)? | PRESENT | WRITABLE;
            }
            table = ptr::with_exposed_provenance_mut((*entry & ADDRESS) as usize);
        }
        Ok(table)
    }
}

/// The entry for the address in a table whose entries stand for `512 ^ level` pages each.
fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize & 511
}

/// An empty table.
fn take_frame(frames: &mut Region) -> Result<u64, Unmappable> {
    if frames.bytes() < PAGE_BYTES as u64 {
        return Err(Unmappable);
    }
    let frame = frames.start;
    frames.start += PAGE_BYTES as u64;
    let table: *mut Table = ptr::with_exposed_provenance_mut(frame as usize);
    // SAFETY: `PageTables::new` was given these pages, and each is taken once.
    unsafe { table.write([0; 512]) };
    Ok(frame)
}
