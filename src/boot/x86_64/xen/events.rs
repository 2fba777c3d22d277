//! Event channels, and what else the drivers ask of Xen.
//!
//! All events stay masked: none interrupts, and while we run none costs more than the bit that Xen sets. Who sleeps has Xen look at
//! the bits ([`sleep`]), which it does behind the mark that we sleep; so no event is lost between the last look and the sleep.

use core::cell::RefCell;

use arrayvec::ArrayVec;
use xen_sys::{
    __HYPERVISOR_event_channel_op, __HYPERVISOR_hvm_op, __HYPERVISOR_memory_op, __HYPERVISOR_sched_op,
    EVTCHNOP_alloc_unbound, EVTCHNOP_close, EVTCHNOP_send, SCHEDOP_poll, evtchn_alloc_unbound, evtchn_close,
    evtchn_port_t, evtchn_send, sched_poll,
};

use super::abi::{AddToPhysmap, DOMID_SELF, HVMOP_GET_PARAM, HvmParam, XENMAPSPACE_GRANT_TABLE, XENMEM_ADD_TO_PHYSMAP};
use super::{hypercall, shared_info};
use crate::boot::x86_64::paging::PAGE_BYTES;
use crate::rings::xen::{DomainId, EventPort, HypercallError, Hypervisor};

/// Most channels that Xen looks at (`do_poll`).
const MAX_PORTS: usize = 128;

/// Asks about event channels.
fn event_channel_op<T>(command: u32, about: &mut T) -> Result<(), HypercallError> {
    // SAFETY: private to this file, where each structure is its command's; channels are not memory.
    unsafe { hypercall::call(__HYPERVISOR_event_channel_op, command, about) }.map(drop)
}

/// A parameter that the domain's builder has left, if it has and it is not 0.
pub fn param(index: u32) -> Option<u64> {
    let mut param = HvmParam { domid: DOMID_SELF, pad: 0, index, value: 0 };
    // SAFETY: the structure is the command's.
    unsafe { hypercall::call(__HYPERVISOR_hvm_op, HVMOP_GET_PARAM, &mut param) }.ok()?;
    Some(param.value).filter(|value| *value != 0)
}

/// The channels whose events wake us.
struct Ports(RefCell<ArrayVec<evtchn_port_t, MAX_PORTS>>);

// SAFETY: there is one processor, and no interrupt handler or exception comes here.
unsafe impl Sync for Ports {}

static PORTS: Ports = Ports(RefCell::new(ArrayVec::new_const()));

/// From now on the channel's events wake us.
///
/// # Errors
/// If there are too many.
pub fn wake_by(EventPort(port): EventPort) -> Result<(), HypercallError> {
    const ENOSPC: HypercallError = HypercallError(28);
    PORTS.0.borrow_mut().try_push(port).map_err(|_| ENOSPC)
}

/// Sleeps until an event of one of the channels is pending, or until this moment of Xen's system time, in nanoseconds. One that is
/// pending already counts.
pub fn sleep(until_ns: Option<u64>) {
    let mut ports = PORTS.0.borrow_mut();
    let mut poll = sched_poll {
        ports: ports.as_mut_ptr(),
        nr_ports: ports.len() as u32,
        // 0 is never.
        timeout: until_ns.map_or(0, |ns| ns.max(1)),
    };
    // SAFETY: the structure is the command's, and names as many ports as there are. It only fails if one of them is no channel any
    // more: then nobody sleeps, and whoever used it finds out.
    let _ = unsafe { hypercall::call(__HYPERVISOR_sched_op, SCHEDOP_poll, &mut poll) };
    // Events that nobody acknowledges (of a device that is being closed) would end every sleep. Whoever waits looks now in any case.
    ports.iter().for_each(|port| shared_info::acknowledge(EventPort(*port)));
}

/// Raises an event for the other side. One that nobody is bound to is lost.
pub fn send(port: EventPort) {
    // It fails if there is no such channel, which then nobody listens to either.
    let _ = event_channel_op(EVTCHNOP_send, &mut evtchn_send { port: port.0 });
}

/// Xen, for the drivers.
#[derive(Clone, Copy, Debug)]
pub struct Calls(());

impl Calls {
    /// Xen. It must run us, and [`shared_info::map`] must have been called.
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Hypervisor for Calls {
    fn alloc_unbound(&self, remote: DomainId) -> Result<EventPort, HypercallError> {
        let mut alloc = evtchn_alloc_unbound { dom: DOMID_SELF, remote_dom: remote, port: 0 };
        event_channel_op(EVTCHNOP_alloc_unbound, &mut alloc)?;
        let port = EventPort(alloc.port);
        wake_by(port).inspect_err(|_| self.close(port))?;
        Ok(port)
    }

    fn close(&self, port: EventPort) {
        PORTS.0.borrow_mut().retain(|open| *open != port.0);
        // It fails if there is none, which is what is wanted.
        let _ = event_channel_op(EVTCHNOP_close, &mut evtchn_close { port: port.0 });
    }

    fn notify(&self, port: EventPort) {
        send(port);
    }

    fn acknowledge(&self, port: EventPort) {
        shared_info::acknowledge(port);
    }

    fn map_grant_frame(&self, index: u32, address: usize) -> Result<(), HypercallError> {
        let mut place = AddToPhysmap {
            domid: DOMID_SELF,
            size: 0,
            space: XENMAPSPACE_GRANT_TABLE,
            idx: index.into(),
            gpfn: (address / PAGE_BYTES) as u64,
        };
        // SAFETY: the structure is the command's; whoever calls gives the page's memory up.
        unsafe { hypercall::call(__HYPERVISOR_memory_op, XENMEM_ADD_TO_PHYSMAP, &mut place) }.map(drop)
    }
}
