//! Xen's console: a ring that a daemon of the host empties, and a port that leads to Xen's own log.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use xen_sys::XEN_HVM_DEBUGCONS_IOPORT;

use super::{clock, events, hypercall};
use crate::boot::console_ring::{OUT_BYTES, OUT_CONS, OUT_PROD, place, room};
use crate::boot::x86_64::cpu::out8;
use crate::rings::xen::EventPort;

/// How long a full ring is waited for, in nanoseconds: a busy host may need so long, and nobody may hang because of a console.
const PATIENCE_NS: u64 = 50_000_000;
/// And how often it is looked at meanwhile.
const MAX_TRIES: u32 = 100_000;

/// The ring's page; null until it is mapped.
static PAGE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static PORT: AtomicU32 = AtomicU32::new(0);
/// Index behind the last byte that we have written.
static PRODUCED: AtomicU32 = AtomicU32::new(0);
/// The ring was full, and waiting did not help: it is not waited for again before something has been read.
static IS_STALLED: AtomicBool = AtomicBool::new(false);

/// From now on there is a ring.
///
/// # Safety
/// It must be the console's page, mapped for ever, and nobody else's.
pub unsafe fn attach(page: NonNull<u8>, port: EventPort) {
    PORT.store(port.0, Ordering::Relaxed);
    // SAFETY: as the caller promises. What was written before goes on where it is.
    let produced = unsafe { index(page.as_ptr(), OUT_PROD) }.load(Ordering::Relaxed);
    PRODUCED.store(produced, Ordering::Relaxed);
    PAGE.store(page.as_ptr(), Ordering::Release);
}

/// Writes to the ring, or to Xen's log while there is none.
pub fn write(text: &str) {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        return write_to_log(text);
    }
    for byte in text.bytes() {
        if byte == b'\n' {
            put(page, b'\r');
        }
        put(page, byte);
    }
    if text.contains('\n') {
        notify();
    }
}

/// Writes to the ring, and to Xen's log: whoever looks for the reason of an end may look there.
pub fn write_everywhere(text: &str) {
    if !PAGE.load(Ordering::Relaxed).is_null() {
        write_to_log(text);
    }
    write(text);
}

/// Writes to Xen's log, which shows whole lines.
fn write_to_log(text: &str) {
    for byte in text.bytes() {
        // SAFETY: where Xen runs us the port is its debug console's, which does nothing else.
        unsafe { out8(XEN_HVM_DEBUGCONS_IOPORT as u16, byte) };
    }
}

fn notify() {
    events::send(EventPort(PORT.load(Ordering::Relaxed)));
}

/// One of the ring's indices.
///
/// # Safety
/// `page` must be the console's, mapped for ever.
unsafe fn index<'a>(page: *mut u8, offset: usize) -> &'a AtomicU32 {
    // SAFETY: within the page, and aligned as the page is; both sides access indices as whole words.
    unsafe { AtomicU32::from_ptr(page.add(offset).cast()) }
}

fn put(page: *mut u8, byte: u8) {
    let produced = PRODUCED.load(Ordering::Relaxed);
    // SAFETY: `attach`'s caller promised what it takes.
    let consumed = unsafe { index(page, OUT_CONS) };
    let room = || room(produced, consumed.load(Ordering::Acquire));
    // Who reads a byte now and then would have each of them waited for.
    if room() >= OUT_BYTES / 2 {
        IS_STALLED.store(false, Ordering::Relaxed);
    }
    if room() == 0 && !wait(|| room() > 0) {
        return;
    }
    // SAFETY: the byte lies in the ring, and the other side does not read it before the index says so. The index is ours.
    unsafe {
        page.add(place(produced)).write_volatile(byte);
        index(page, OUT_PROD).store(produced.wrapping_add(1), Ordering::Release);
    }
    PRODUCED.store(produced.wrapping_add(1), Ordering::Relaxed);
}

/// Waits for room in the ring, not for long. True if there is some.
fn wait(has_room: impl Fn() -> bool) -> bool {
    if IS_STALLED.load(Ordering::Relaxed) {
        return false;
    }
    notify();
    let start_ns = clock::system_time_ns();
    for _ in 0..MAX_TRIES {
        hypercall::yield_now();
        if has_room() {
            return true;
        }
        let now_ns = clock::system_time_ns();
        if now_ns.zip(start_ns).is_some_and(|(now_ns, start_ns)| now_ns.saturating_sub(start_ns) > PATIENCE_NS) {
            break;
        }
    }
    IS_STALLED.store(true, Ordering::Relaxed);
    false
}
