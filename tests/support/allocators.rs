//! Allocators for tests: one that reports every allocation, and one that has no memory.
//!
//! The only file with `unsafe` outside the rooms that may have it. It uses `core` alone, since the freestanding probe
//! (xtask/probe) is built from it too.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

/// Passes everything on to `inner` and calls `observe` at each allocation and reallocation.
pub struct Observed<A> {
    inner: A,
    observe: fn(),
}

impl<A> Observed<A> {
    /// Observes `inner`. `observe` must not allocate.
    pub const fn new(inner: A, observe: fn()) -> Self {
        Self { inner, observe }
    }
}

// SAFETY: every call is passed on unchanged, so what `inner` promises holds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Observed<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        (self.observe)();
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `inner`.
        unsafe { self.inner.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        (self.observe)();
        // SAFETY: as in `alloc`.
        unsafe { self.inner.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        (self.observe)();
        // SAFETY: as in `alloc`; `memory` came from `inner`, as all memory that this allocator hands out.
        unsafe { self.inner.realloc(memory, layout, new_size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { self.inner.dealloc(memory, layout) }
    }
}

/// Has no memory: every allocation fails. Enough for a program that is linked and never run.
pub struct NoMemory;

// SAFETY: it never hands out memory, and a null pointer is how an allocator says so.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};

    static OBSERVED: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn what_is_passed_on_is_observed() {
        let allocator = Observed::new(NoMemory, || _ = OBSERVED.fetch_add(1, Ordering::Relaxed));
        let layout = Layout::new::<u64>();
        // SAFETY: the layout has a size, and no memory comes back.
        unsafe {
            assert!(allocator.alloc(layout).is_null());
            assert!(allocator.alloc_zeroed(layout).is_null());
        }
        assert_eq!(OBSERVED.load(Ordering::Relaxed), 2);
    }
}
