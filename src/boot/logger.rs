//! Where the kernel's log messages go: all of them into the trace, warnings and errors on the console too, plain text, and not
//! without end.

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use defmt::{Encoder, Logger};
use log::{LevelFilter, Log, Metadata, Record};

use super::clock::Clock;
use super::console::say;
use super::machine::ticks;
use super::trace::{BUILD_ID_BYTES, KERNEL_BYTES, Ring};

/// Most lines since the start: a device that misbehaves all the time must not have us write all the time.
const MAX_LINES: u32 = 1000;

unsafe extern "C" {
    /// From the linker script.
    static build_id: [u8; BUILD_ID_BYTES];
}

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
    // SAFETY: the linker has written it where the script says, and nobody can.
    MINICACHE_TRACE.begin(unsafe { &build_id }, ticks() as u32);
    // An error would say that this was called before.
    let _ = log::set_logger(&ConsoleLog);
    log::set_max_level(LevelFilter::Warn);
}

/// Messages get their time by this clock from now on; before the first it is 0.
pub fn set_clock(clock: Clock) {
    *TIME.0.borrow_mut() = Some(clock);
}

/// Found by its name ([`super::trace::SYMBOL`]).
#[unsafe(no_mangle)]
static MINICACHE_TRACE: Ring<KERNEL_BYTES> = Ring::new();

struct OneProcessor<T>(T);

// SAFETY: there is one processor, and no interrupt handler logs or sets the clock.
unsafe impl<T> Sync for OneProcessor<T> {}

static TIME: OneProcessor<RefCell<Option<Clock>>> = OneProcessor(RefCell::new(None));
static ENCODER: OneProcessor<RefCell<Encoder>> = OneProcessor(RefCell::new(Encoder::new()));

defmt::timestamp!("{=u64:us}", TIME.0.borrow().map_or(0, |clock| clock.us(ticks())));

#[defmt::global_logger]
struct TraceLog;

/// A message is being written.
static IS_BUSY: AtomicBool = AtomicBool::new(false);

// SAFETY: there is one processor, no interrupt handler logs, and a message whose arguments log another is a panic; so there is
// one message at a time.
unsafe impl Logger for TraceLog {
    fn acquire() {
        assert!(!IS_BUSY.swap(true, Ordering::Relaxed), "a log message is made while another one is");
        ENCODER.0.borrow_mut().start_frame(|bytes| MINICACHE_TRACE.write(bytes));
    }

    unsafe fn flush() {}

    unsafe fn release() {
        ENCODER.0.borrow_mut().end_frame(|bytes| MINICACHE_TRACE.write(bytes));
        IS_BUSY.store(false, Ordering::Relaxed);
    }

    unsafe fn write(bytes: &[u8]) {
        ENCODER.0.borrow_mut().write(bytes, |bytes| MINICACHE_TRACE.write(bytes));
    }
}
