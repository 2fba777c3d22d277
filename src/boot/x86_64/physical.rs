//! The one door to physical memory that others have filled.

use core::{ptr, slice};

use super::paging::{BOOT_REACH_BYTES, PAGE_BYTES};
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
        if address < PAGE_BYTES as u64 || end > BOOT_REACH_BYTES {
            return None;
        }
        // SAFETY: the range is mapped, as `new`'s caller promises, and nothing writes it meanwhile. Not null: see above.
        Some(unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(address as usize), count) })
    }
}
