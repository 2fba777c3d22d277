//! The freestanding probe: the appliance with everything that an operating system would bring left out.
//!
//! `cargo xtask probe` makes a package of this file under `target/`, builds it as a static library and links that with
//! nothing. It is never run.
#![no_std]
#![deny(unsafe_code)]

#[allow(unsafe_code)]
#[path = "../../tests/support/allocators.rs"]
mod allocators;

use allocators::{NoMemory, Observed};
use core::panic::PanicInfo;
use minicache::rings::PagePool;

#[global_allocator]
static HEAP: Observed<NoMemory> = Observed::new(NoMemory, || {});

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {}
}

/// Keeps [`exercise`] in the library, since nothing calls it.
#[used]
static ENTRY: fn() -> usize = exercise;

/// Names the appliance's generic code with concrete types, so that it is compiled.
fn exercise() -> usize {
    PagePool::new(1).available()
}
