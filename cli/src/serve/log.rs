//! What the appliance's rooms warn of, on standard error, and not without end.

use std::sync::atomic::{AtomicU32, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

use crate::terminal::{printable, warn};

/// Most lines: what fails all the time must not have us write all the time.
const MAX_LINES: u32 = 1000;

struct Warnings(AtomicU32);

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LevelFilter::Warn && metadata.target().starts_with("minicache")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0..MAX_LINES => warn(&printable(record.args().to_string().as_bytes())),
            MAX_LINES => warn(&format!("{MAX_LINES} warnings have been written, and no more will be")),
            // Not to be counted round.
            _ => self.0.store(MAX_LINES + 1, Ordering::Relaxed),
        }
    }

    fn flush(&self) {}
}

/// Begins to write them. To be called once.
pub fn initialise() {
    static WARNINGS: Warnings = Warnings(AtomicU32::new(0));
    // An error would say that this was called before.
    let _ = log::set_logger(&WARNINGS);
    log::set_max_level(LevelFilter::Warn);
}
