//! What the rooms log, on the console: warnings and errors, plain text, and not without end.

use core::sync::atomic::{AtomicU32, Ordering};
use log::{LevelFilter, Log, Metadata, Record};

use super::console::say;

/// Most lines since the start: a device that misbehaves all the time must not have us write all the time.
const MAX_LINES: u32 = 1000;

static LINES: AtomicU32 = AtomicU32::new(0);

struct ConsoleLog;

impl Log for ConsoleLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let lines = LINES.load(Ordering::Relaxed);
        if lines > MAX_LINES {
            return;
        }
        LINES.store(lines + 1, Ordering::Relaxed);
        match lines {
            MAX_LINES => say!("log: {MAX_LINES} lines have been written, and no more will be"),
            _ => say!("{}: {}", record.target(), record.args()),
        }
    }

    fn flush(&self) {}
}

/// Begins to log. To be called once.
pub fn initialise() {
    // An error would say that this was called before.
    let _ = log::set_logger(&ConsoleLog);
    log::set_max_level(LevelFilter::Warn);
}
