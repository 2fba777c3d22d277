//! The one door to physical memory that others have filled.

use core::cell::RefCell;
use core::{ptr, slice};

use super::paging::{BOOT_REACH_BYTES, PAGE_BYTES, PageTables, Rights};
use crate::boot::memory_map::Region;
use crate::boot::start_info::Physical;

/// Memory as the way in has mapped it: the first GiB.
#[derive(Debug)]
pub struct BootMemory(());

impl BootMemory {
    /// The door.
    ///
    /// # Safety
    /// The page tables of the way in must be in force, and nobody may write what is read as long as it is borrowed.
    pub unsafe fn new() -> Self {
        Self(())
    }
}

impl Physical for BootMemory {
    fn bytes(&self, address: u64, count: usize) -> Option<&[u8]> {
        let end = address.checked_add(count as u64)?;
        // The first page is mapped here, and some firmware uses it.
        if address == 0 || end > BOOT_REACH_BYTES {
            return None;
        }
        // SAFETY: the range is mapped, as `new`'s caller promises, and nothing writes it meanwhile. Not null: see above.
        Some(unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(address as usize), count) })
    }
}

/// The firmware's tables, wherever they are: mapped when they are read.
#[derive(Debug)]
pub struct FirmwareMemory<'a>(RefCell<&'a mut PageTables>);

impl<'a> FirmwareMemory<'a> {
    /// The door.
    ///
    /// # Safety
    /// The page tables must be in force, and what is read must be nobody's memory but the firmware's.
    pub unsafe fn new(tables: &'a mut PageTables) -> Self {
        Self(RefCell::new(tables))
    }
}

impl Physical for FirmwareMemory<'_> {
    fn bytes(&self, address: u64, count: usize) -> Option<&[u8]> {
        if address < PAGE_BYTES as u64 {
            return None;
        }
        let region = Region::new(address, count as u64)?;
        self.0.borrow_mut().map(region, Rights::Read).ok()?;
        // SAFETY: the range is mapped now, or was, and the firmware's memory, as `new`'s caller promises, changes no more.
        Some(unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(address as usize), count) })
    }
}
