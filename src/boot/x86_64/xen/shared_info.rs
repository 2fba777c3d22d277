//! The page that Xen shares with us (`shared_info` of `xen.h`): pending events, time, the wall clock.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use xen_sys::{__HYPERVISOR_memory_op, shared_info};

use super::abi::{AddToPhysmap, DOMID_SELF, XENMAPSPACE_SHARED_INFO, XENMEM_ADD_TO_PHYSMAP};
use super::hypercall;
use crate::boot::pv_clock::{TimeInfo, read_consistently};
use crate::boot::x86_64::cpu::time_stamp;
use crate::boot::x86_64::paging::PAGE_BYTES;
use crate::rings::xen::{EventPort, HypercallError};

/// A page of ours, in whose place the shared one comes.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_BYTES]>);

// SAFETY: Xen writes it at any time, so nobody refers to its bytes: all accesses are volatile or atomic.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; PAGE_BYTES]));

const _: () = assert!(size_of::<shared_info>() <= PAGE_BYTES);

/// Event channels of two levels: as many words as a word has bits.
const WORD_BITS: u32 = u64::BITS;
const EVENTS: u32 = WORD_BITS * WORD_BITS;

fn shared() -> *mut shared_info {
    PAGE.0.get().cast()
}

/// Has Xen put the page in its place. All events are masked from then on. To be called once, before anything else here.
///
/// # Errors
/// If Xen refuses.
pub fn map() -> Result<(), HypercallError> {
    let mut place = AddToPhysmap {
        domid: DOMID_SELF,
        size: 0,
        space: XENMAPSPACE_SHARED_INFO,
        idx: 0,
        gpfn: (shared().addr() / PAGE_BYTES) as u64,
    };
    // SAFETY: the structure is the command's, and the page that is lost is a whole one, used for nothing else.
    unsafe { hypercall::call(__HYPERVISOR_memory_op, XENMEM_ADD_TO_PHYSMAP, &mut place) }?;
    for word in 0..WORD_BITS {
        bits(Bits::Mask, word).store(u64::MAX, Ordering::SeqCst);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Bits {
    Pending,
    Mask,
}

/// A word with the bits of 64 events.
fn bits(which: Bits, word: u32) -> &'static AtomicU64 {
    let word = word as usize;
    // SAFETY: within the page, which stays for ever, and aligned; Xen changes these words by atomic operations, as we do. An index
    // that is out of bounds is a panic.
    unsafe {
        AtomicU64::from_ptr(match which {
            Bits::Pending => &raw mut (*shared()).evtchn_pending[word],
            Bits::Mask => &raw mut (*shared()).evtchn_mask[word],
        })
    }
}

/// Takes note of an event: the next one wakes again. What was written before it came is seen afterwards.
pub fn acknowledge(EventPort(port): EventPort) {
    if port < EVENTS {
        let bit = 1 << (port % WORD_BITS);
        // A whole barrier too: nothing is looked at before the bit is clear.
        bits(Bits::Pending, port / WORD_BITS).fetch_and(!bit, Ordering::SeqCst);
    }
}

/// What Xen says of the time stamp counter, and the counter then. `None` if it makes no sense.
pub fn time() -> (Option<TimeInfo>, u64) {
    let info = shared();
    // SAFETY: within the page and aligned. Xen may write them meanwhile, which the version shows.
    let copied = unsafe {
        let time = &raw mut (*info).vcpu_info[0].time;
        read_consistently(
            || version(&raw const (*time).version),
            || {
                let mul = (&raw const (*time).tsc_to_system_mul).read_volatile();
                let shift = (&raw const (*time).tsc_shift).read_volatile();
                let stamp = (&raw const (*time).tsc_timestamp).read_volatile();
                let system_time = (&raw const (*time).system_time).read_volatile();
                // With the rest: we may be moved to another processor.
                (stamp, system_time, mul, shift, time_stamp())
            },
        )
    };
    match copied {
        Some((stamp, system_time, mul, shift, tsc)) => (TimeInfo::new(stamp, system_time, mul, shift), tsc),
        None => (None, time_stamp()),
    }
}

/// The time since 1970 when Xen's system time was 0, in nanoseconds. `None` if Xen never ends writing it.
pub fn wall_clock_ns() -> Option<u64> {
    const NS_PER_S: u64 = 1_000_000_000;
    let info = shared();
    // SAFETY: as in `time`.
    let (low, high, ns) = unsafe {
        read_consistently(
            || version(&raw const (*info).wc_version),
            || {
                let low = (&raw const (*info).wc_sec).read_volatile();
                let high = (&raw const (*info).wc_sec_hi).read_volatile();
                (low, high, (&raw const (*info).wc_nsec).read_volatile())
            },
        )?
    };
    let s = u64::from(high) << 32 | u64::from(low);
    s.checked_mul(NS_PER_S)?.checked_add(ns.into())
}

/// Reads a version, with nothing that is read before or after it on the other side.
///
/// # Safety
/// It must be a word of the page.
unsafe fn version(place: *const u32) -> u32 {
    fence(Ordering::SeqCst);
    // SAFETY: as the caller promises.
    let version = unsafe { place.read_volatile() };
    fence(Ordering::SeqCst);
    version
}
