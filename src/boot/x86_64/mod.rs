//! x86-64 as hypervisors show it: entered in 32-bit mode as PVH says, one processor; around it a PC, whose legacy devices are perhaps
//! there, or Xen.
//!
//! Invariants:
//! - Interrupts are enabled at one instruction only: the halt of [`cpu::halt`], which Xen's guests never get to. All other code runs
//!   undisturbed.
//! - All memory and all devices are mapped at their physical addresses.
//! - Every gate has a stack of its own, since compiled code keeps data below its stack pointer (the red zone).

pub mod memory_functions;

#[cfg(feature = "kernel")]
mod apic;
#[cfg(feature = "kernel")]
pub mod console;
#[cfg(feature = "kernel")]
pub mod cpu;
#[cfg(feature = "kernel")]
mod entropy;
#[cfg(feature = "kernel")]
mod entry;
#[cfg(feature = "kernel")]
mod hypervisor;
#[cfg(feature = "kernel")]
pub mod interrupts;
#[cfg(feature = "kernel")]
mod machine;
#[cfg(feature = "kernel")]
mod paging;
#[cfg(feature = "kernel")]
mod pc;
#[cfg(feature = "kernel")]
mod physical;
#[cfg(feature = "kernel")]
pub mod power;
#[cfg(feature = "kernel")]
mod rtc;
#[cfg(feature = "kernel")]
mod segments;
#[cfg(feature = "kernel")]
mod serial;
#[cfg(feature = "kernel")]
mod start;
#[cfg(feature = "kernel")]
mod timer;
#[cfg(feature = "kernel")]
mod virtio;
#[cfg(feature = "kernel")]
pub mod xen;

#[cfg(feature = "kernel")]
pub use cpu::{name as processor_name, time_stamp as ticks};
#[cfg(feature = "kernel")]
pub use entropy::Origin as SecretOrigin;
#[cfg(feature = "kernel")]
pub use hypervisor::Hypervisor;
#[cfg(feature = "kernel")]
pub use machine::{Machine, Platform};
#[cfg(feature = "kernel")]
pub use timer::{Beginning, Origin as FrequencyOrigin, Timer};
