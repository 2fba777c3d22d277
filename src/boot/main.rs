//! The kernel as a program: what a Rust program without an operating system has to supply. All else is in the library.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use minicache::boot::heap::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    minicache::boot::panic(info)
}
