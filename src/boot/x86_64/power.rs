//! A PC's end: power off, reboot, and stopping after a failure.

use core::arch::asm;
use core::ptr;

use super::cpu::{self, in32, out8, out16, out32};
use super::paging::{PageTables, Rights};
use super::segments::TablePointer;
use super::xen::{self, hypercall};
use crate::boot::acpi::{Acpi, Register, SwitchOff};
use crate::boot::memory_map::Region;

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

/// Writes a byte to one of ACPI's registers.
fn write_register(tables: &mut PageTables, register: Register, value: u8) {
    match register {
        // SAFETY: the machine's description names the port for this; what comes is the machine's end.
        Register::Port(port) => unsafe { out8(port, value) },
        Register::Memory(address) => {
            let is_mapped = Region::new(address, 1).is_some_and(|region| tables.map(region, Rights::Device).is_ok());
            if is_mapped {
                // SAFETY: mapped now, and named by the machine's description for this.
                unsafe { ptr::with_exposed_provenance_mut::<u8>(address as usize).write_volatile(value) };
            }
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

/// Switches the machine off: by ACPI where it says how, by QEMU's debug exit device, or by a reset at last.
pub fn off(tables: &mut PageTables, acpi: &Acpi) -> ! {
    match acpi.switch_off {
        Some(SwitchOff::Pm1 { port_a, port_b, sleep_type }) => {
            const ENABLE: u16 = 1 << 13;
            let command = u16::from(sleep_type) << 10 | ENABLE;
            for port in [port_a, port_b].into_iter().filter(|port| *port != 0) {
                // SAFETY: ACPI's fixed table names the ports for this.
                unsafe { out16(port, command) };
            }
        }
        Some(SwitchOff::SleepControl { register, sleep_type }) => {
            const ENABLE: u8 = 1 << 5;
            write_register(tables, register, sleep_type << 2 & 0x1c | ENABLE);
        }
        None => {}
    }
    debug_exit(DebugExit::Success);
    triple_fault()
}

/// Starts the machine anew: by ACPI's reset register where there is one, by the keyboard controller, or by an exception.
pub fn reboot(tables: &mut PageTables, acpi: &Acpi) -> ! {
    if let Some((register, value)) = acpi.reset {
        write_register(tables, register, value);
    }
    const KEYBOARD_COMMAND: u16 = 0x64;
    const PULSE_RESET: u8 = 0xfe;
    // SAFETY: all that the command does is to reset the processor.
    unsafe { out8(KEYBOARD_COMMAND, PULSE_RESET) };
    triple_fault()
}

/// Stops for good after a failure that has been reported, with a failing status where the hypervisor takes one.
pub fn fail() -> ! {
    if hypercall::is_xen() {
        xen::power::crash();
    }
    debug_exit(DebugExit::Failure);
    cpu::stop()
}
