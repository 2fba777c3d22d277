//! The heap: talc over memory that boot hands it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use talc::TalcCell;
use talc::source::Manual;

use super::memory_map::Region;
use crate::platform::MemoryUse;

struct Heap(TalcCell<Manual>);

// SAFETY: there is one processor, and no interrupt handler allocates; so nobody is ever in the heap twice.
unsafe impl Sync for Heap {}

/// Empty until [`add`].
static HEAP: Heap = Heap(TalcCell::new(Manual));

/// Gives the heap this memory. False if it is too little to be of use.
///
/// # Safety
/// It must be mapped, writable, and from now on the heap's alone.
pub unsafe fn add(region: Region) -> bool {
    let start = ptr::with_exposed_provenance_mut(region.start as usize);
    // SAFETY: as the caller promises.
    unsafe { HEAP.0.claim(start, region.bytes() as usize).is_some() }
}

/// How the heap is used, on a machine with so much memory.
pub fn memory_use(total_bytes: u64) -> MemoryUse {
    let counters = HEAP.0.counters();
    MemoryUse {
        total_bytes,
        heap_bytes: counters.claimed_bytes as u64,
        heap_used_bytes: counters.allocated_bytes as u64,
        heap_peak_bytes: None,
        allocations: counters.allocation_count as u64,
    }
}

/// The kernel's allocator: a handle to the only heap.
pub struct Allocator;

// SAFETY: talc's own implementation, passed on.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { HEAP.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { HEAP.0.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { HEAP.0.realloc(memory, layout, bytes) }
    }
}
