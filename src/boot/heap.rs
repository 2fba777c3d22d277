//! The heap: talc over memory that boot hands it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use talc::TalcCell;
use talc::source::Manual;

/// The kernel's allocator. Empty until [`Heap::add`].
pub struct Heap(TalcCell<Manual>);

// SAFETY: there is one processor, and no interrupt handler allocates; so nobody is ever in the heap twice.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap without memory.
    #[expect(clippy::new_without_default, reason = "it is made in a constant")]
    pub const fn new() -> Self {
        Self(TalcCell::new(Manual))
    }

    /// Gives the heap these bytes. False if they are too few to be of use.
    ///
    /// # Safety
    /// The memory must be mapped, writable, and from now on the heap's alone.
    pub unsafe fn add(&self, start: usize, bytes: usize) -> bool {
        // SAFETY: as the caller promises.
        unsafe { self.0.claim(ptr::with_exposed_provenance_mut(start), bytes).is_some() }
    }
}

// SAFETY: talc's own implementation, passed on.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { self.0.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { self.0.realloc(memory, layout, bytes) }
    }
}
