//! The machine as Xen shows it to a PVH guest: no chip of a PC, but hypercalls, event channels and a few shared pages.
//!
//! | file | duty |
//! |---|---|
//! | `abi` | what the crate xen-sys lacks of the hypercalls' structures |
//! | `hypercall` | the instruction |
//! | `shared_info` | pending events, time and wall clock in the page shared with Xen |
//! | `events` | event channels, sleep, parameters, and Xen as the drivers see it |
//! | `clock` | time |
//! | `console` | the console's ring, and Xen's log |
//! | `power` | the end |

mod abi;
pub mod clock;
pub mod console;
mod events;
pub mod hypercall;
pub mod power;
mod shared_info;

use core::ptr::{self, NonNull};

use xen_sys::__HYPERVISOR_memory_op;

use super::paging::{PAGE_BYTES, PageTables, Rights};
use crate::boot::memory_map::Region;
use crate::rings::xen::EventPort;

pub use events::{Calls, sleep};

use abi::{
    DOMID_SELF, HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN,
    XENMEM_CURRENT_RESERVATION,
};
use clock::Clock;

/// A page that we share with somebody of the host, and the event channel between us.
#[derive(Debug)]
pub struct SharedPage {
    /// The page, mapped for ever.
    pub page: NonNull<u8>,
    /// The channel.
    pub port: EventPort,
}

/// What a guest has.
#[derive(Debug)]
pub struct Guest {
    /// The way to the store, until somebody takes it.
    store: Option<SharedPage>,
}

impl Guest {
    /// Meets Xen: the shared page, the console, the store, time.
    ///
    /// # Safety
    /// To be called once, where Xen runs us, with interrupts off and the page tables in force.
    pub unsafe fn new(tables: &mut PageTables) -> (Self, Clock) {
        if let Err(error) = shared_info::map() {
            panic!("Xen refuses its shared page ({error}): boot this ELF as a PVH guest");
        }
        if let Some(console) = shared_page(tables, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_CONSOLE_EVTCHN) {
            // SAFETY: Xen says that the page is the console's, and gives it to us alone.
            unsafe { console::attach(console.page, console.port) };
        }
        let store = shared_page(tables, HVM_PARAM_STORE_PFN, HVM_PARAM_STORE_EVTCHN)
            .filter(|store| events::wake_by(store.port).is_ok());
        let clock =
            Clock::new().unwrap_or_else(|| panic!("Xen says no frequency of the time stamp counter that may be"));
        (Self { store }, clock)
    }

    /// How much of the memory that the map shows is not there, in bytes: a domain whose `maxmem` is more than its `memory` is shown all,
    /// and crashes if it uses more than it has.
    pub fn missing_bytes(&self, shown_bytes: u64) -> u64 {
        /// Pages of the domain that are not in the map: those that it shares with the tools.
        const SPARE_BYTES: u64 = 1 << 20;
        let mut domain = DOMID_SELF;
        // SAFETY: the number is the command's structure, and nothing is changed.
        let pages = unsafe { hypercall::call(__HYPERVISOR_memory_op, XENMEM_CURRENT_RESERVATION, &mut domain) };
        let missing = |pages: u64| shown_bytes.saturating_sub(pages.saturating_mul(PAGE_BYTES as u64));
        match pages.map_or(0, missing) {
            0 => 0,
            bytes => bytes + SPARE_BYTES,
        }
    }

    /// The way to the store; `None` if there is none, or it was taken.
    pub fn take_store(&mut self) -> Option<SharedPage> {
        self.store.take()
    }

    /// Xen, for drivers.
    ///
    /// # Safety
    /// Pages that are named in its calls must belong to whoever makes the calls, and be given up for good.
    pub unsafe fn calls(&self) -> Calls {
        Calls::new()
    }
}

/// A page and a channel that the domain's builder has left in these parameters, if it has.
fn shared_page(tables: &mut PageTables, page: u32, port: u32) -> Option<SharedPage> {
    let start = events::param(page)?.checked_mul(PAGE_BYTES as u64)?;
    let port = EventPort(events::param(port)?.try_into().ok()?);
    let region = Region::new(start, PAGE_BYTES as u64)?;
    // Where a large page maps it, it is memory like any other.
    tables.map_small(region, Some(Rights::Write)).or_else(|_| tables.map(region, Rights::Write)).ok()?;
    let page = NonNull::new(ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?))?;
    Some(SharedPage { page, port })
}
