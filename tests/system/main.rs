//! Whole-system tests: the appliance on virtual time, between a simulated network and a simulated disk.

mod allocation;
#[path = "../support/allocators.rs"]
mod allocators;
mod fixtures;
mod flood;
mod impaired;
mod sim;
mod stalled;
mod ten_thousand;
#[path = "../volumes/mod.rs"]
mod volumes;
mod zero_copy;

use std::alloc::System;
use std::cell::Cell;

use allocators::Observed;

#[global_allocator]
static ALLOCATOR: Observed<System> = Observed::new(System, count_allocation);

thread_local! {
    /// Allocations of this thread: tests run side by side.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count_allocation() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

/// Allocations that this thread has made.
fn allocations() -> u64 {
    ALLOCATIONS.get()
}
