//! From the first instruction to a running event loop, and the machine under it.
//!
//! What may enter this room: what the machine is made of (memory, page tables, interrupts, clocks, power) and what a hypervisor
//! says of it. What is decided from plain bytes stands here and is tested on any host; what touches the machine stands in the
//! directory of its architecture, and only a kernel has it. With `rings` it is the only room that may say `unsafe`.

#[cfg(all(feature = "kernel", feature = "std"))]
compile_error!("the features `kernel` and `std` exclude each other: build the kernel with `cargo xtask kernel`");

pub mod acpi;
pub mod calendar;
pub mod clock;
pub mod console_ring;
pub mod control;
pub mod memory_map;
pub mod plan;
pub mod pv_clock;
pub mod start_info;
pub mod trace;
pub mod vbd_name;

#[cfg(feature = "kernel")]
pub(crate) mod console;
#[cfg(feature = "kernel")]
mod devices;
#[cfg(feature = "kernel")]
pub mod heap;
#[cfg(feature = "kernel")]
mod kernel;
#[cfg(feature = "kernel")]
mod logger;
#[cfg(feature = "kernel")]
mod panic;
#[cfg(feature = "kernel")]
mod timeline;
#[cfg(feature = "kernel")]
mod virtio;
#[cfg(feature = "kernel")]
mod world;
#[cfg(feature = "kernel")]
mod xen;

#[cfg(all(target_arch = "x86_64", any(feature = "kernel", test)))]
pub mod x86_64;

#[cfg(feature = "kernel")]
pub use panic::panic;
#[cfg(all(target_arch = "x86_64", feature = "kernel"))]
use x86_64 as machine;
