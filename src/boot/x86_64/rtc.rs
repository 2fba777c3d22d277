//! The clock chip: what day it is.

use super::cpu::{in8, out8};
use crate::boot::calendar::{ClockRegisters, unix_s};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

fn read(register: u8) -> u8 {
    // SAFETY: the ports are the clock chip's, and nobody else uses it. Where there is none, they read as ones.
    unsafe {
        out8(INDEX, register);
        in8(DATA)
    }
}

/// Seconds since 1970. `None` if there is no clock, or while it moves on (less than 2.3 ms each second): try again.
pub fn read_unix_s() -> Option<u64> {
    const STATUS_A: u8 = 0x0a;
    const STATUS_B: u8 = 0x0b;
    const IS_UPDATING: u8 = 0x80;
    const REGISTERS: [u8; 6] = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09];
    if read(STATUS_A) & IS_UPDATING != 0 {
        return None;
    }
    let values = REGISTERS.map(read);
    // A second that began meanwhile shows in the seconds.
    if read(REGISTERS[0]) != values[0] {
        return None;
    }
    unix_s(ClockRegisters { values, status_b: read(STATUS_B) })
}
