//! A PC's console: the first serial port (COM1, a 16550), 115200 baud, 8N1, without interrupts.

use core::sync::atomic::{AtomicU8, Ordering};

use super::cpu::{in8, out8};

const PORT: u16 = 0x3f8;
/// Bytes that the transmitter takes at once when it is empty.
const FIFO_BYTES: u8 = 16;
/// How often the transmitter is asked before a byte is given up for lost: nobody may hang because of a console.
const MAX_TRIES: u32 = 100_000;

/// Bytes written since the transmitter was last seen empty.
static WRITTEN: AtomicU8 = AtomicU8::new(FIFO_BYTES);

/// Sets the port up.
pub fn initialise() {
    const DIVISOR_LATCH: u8 = 0x80;
    const EIGHT_BITS: u8 = 3;
    const FIFO_ENABLE_AND_CLEAR: u8 = 7;
    const DTR_RTS: u8 = 3;
    for (register, value) in
        [(1, 0), (3, DIVISOR_LATCH), (0, 1), (1, 0), (3, EIGHT_BITS), (2, FIFO_ENABLE_AND_CLEAR), (4, DTR_RTS)]
    {
        // SAFETY: the port is the console's alone, and a UART can't touch memory.
        unsafe { out8(PORT + register, value) };
    }
}

/// Writes to the port; a new line gets its carriage return.
pub fn write(text: &str) {
    for byte in text.bytes() {
        if byte == b'\n' {
            put(b'\r');
        }
        put(byte);
    }
}

fn put(byte: u8) {
    const LINE_STATUS: u16 = 5;
    const TRANSMITTER_EMPTY: u8 = 0x20;
    let mut written = WRITTEN.load(Ordering::Relaxed);
    if written >= FIFO_BYTES {
        // SAFETY: as above.
        let is_empty = || unsafe { in8(PORT + LINE_STATUS) } & TRANSMITTER_EMPTY != 0;
        if !(0..MAX_TRIES).any(|_| is_empty()) {
            return;
        }
        written = 0;
    }
    WRITTEN.store(written + 1, Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { out8(PORT, byte) };
}
