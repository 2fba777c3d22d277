//! The x86-64 PC as hypervisors show it: entered in 32-bit mode as PVH says, one processor, its legacy devices perhaps there.
//!
//! Invariants:
//! - Interrupts are enabled at one instruction only: the halt of [`cpu::halt`]. All other code runs undisturbed.
//! - All memory and all devices are mapped at their physical addresses.
//! - Every gate has a stack of its own, since compiled code keeps data below its stack pointer (the red zone).

pub mod memory_functions;

#[cfg(feature = "kernel")]
pub mod apic;
#[cfg(feature = "kernel")]
pub mod cpu;
#[cfg(feature = "kernel")]
mod entry;
#[cfg(feature = "kernel")]
pub mod interrupts;
#[cfg(feature = "kernel")]
pub mod paging;
#[cfg(feature = "kernel")]
mod physical;
#[cfg(feature = "kernel")]
pub mod power;
#[cfg(feature = "kernel")]
mod segments;
#[cfg(feature = "kernel")]
pub mod serial;
#[cfg(feature = "kernel")]
mod start;
