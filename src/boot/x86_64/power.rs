//! The end: power off, reboot, and stopping after a failure.

use core::arch::asm;

use super::cpu::{self, in32, out32};
use super::segments::TablePointer;

/// QEMU's debug exit device (`isa-debug-exit,iobase=0xf4,iosize=4`): ends QEMU with the status `2 * value + 1`.
const DEBUG_EXIT: u16 = 0xf4;

/// What QEMU's debug exit device is told.
#[derive(Clone, Copy)]
enum DebugExit {
    /// QEMU's status becomes 33.
    Success = 0x10,
    /// QEMU's status becomes 35.
    Failure = 0x11,
}

/// Ends QEMU if it has the debug exit device.
fn debug_exit(status: DebugExit) {
    // SAFETY: on a PC nothing else is at this port; where nothing is at all, it reads as ones. The device reads as 0.
    unsafe {
        if in32(DEBUG_EXIT) == 0 {
            out32(DEBUG_EXIT, status as u32);
        }
    }
}

/// Ends the machine without its help: an exception that nothing can handle resets the processor, which hypervisors that were told
/// not to reboot take for the end.
fn triple_fault() -> ! {
    let nothing = TablePointer { limit: 0, base: 0 };
    // SAFETY: what comes is meant to come: no gate is left, so the processor resets.
    unsafe { asm!("lidt [{}]", "int3", in(reg) &nothing, options(nostack)) };
    cpu::stop()
}

/// Switches the machine off.
pub fn off() -> ! {
    debug_exit(DebugExit::Success);
    triple_fault()
}

/// Stops for good after a failure that has been reported, with a failing status where the hypervisor takes one.
pub fn fail() -> ! {
    debug_exit(DebugExit::Failure);
    cpu::stop()
}
