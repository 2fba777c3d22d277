//! Event channels, and what else the drivers ask of Xen.

use xen_sys::{
    __HYPERVISOR_event_channel_op, __HYPERVISOR_hvm_op, __HYPERVISOR_memory_op, EVTCHNOP_alloc_unbound,
    EVTCHNOP_bind_virq, EVTCHNOP_close, EVTCHNOP_send, EVTCHNOP_unmask, evtchn_alloc_unbound, evtchn_bind_virq,
    evtchn_close, evtchn_send, evtchn_unmask,
};

use super::abi::{
    AddToPhysmap, DOMID_SELF, HVM_PARAM_CALLBACK_IRQ, HVM_PARAM_CALLBACK_TYPE_VECTOR, HVMOP_GET_PARAM, HVMOP_SET_PARAM,
    HvmParam, XENMAPSPACE_GRANT_TABLE, XENMEM_ADD_TO_PHYSMAP,
};
use super::{hypercall, shared_info};
use crate::boot::x86_64::paging::PAGE_BYTES;
use crate::rings::xen::{DomainId, EventPort, HypercallError, Hypervisor};

/// Asks about event channels.
fn event_channel_op<T>(command: u32, about: &mut T) -> Result<(), HypercallError> {
    // SAFETY: private to this file, where each structure is its command's; channels are not memory.
    unsafe { hypercall::call(__HYPERVISOR_event_channel_op, command, about) }.map(drop)
}

/// Lets events interrupt by this vector.
///
/// # Errors
/// If Xen is too old for that.
pub fn set_upcall_vector(vector: u8) -> Result<(), HypercallError> {
    let value = HVM_PARAM_CALLBACK_TYPE_VECTOR << 56 | u64::from(vector);
    let mut param = HvmParam { domid: DOMID_SELF, pad: 0, index: HVM_PARAM_CALLBACK_IRQ, value };
    // SAFETY: the structure is the command's; the vector's gate is set up, and interrupts are off.
    unsafe { hypercall::call(__HYPERVISOR_hvm_op, HVMOP_SET_PARAM, &mut param) }.map(drop)
}

/// A parameter that the domain's builder has left, if it has and it is not 0.
pub fn param(index: u32) -> Option<u64> {
    let mut param = HvmParam { domid: DOMID_SELF, pad: 0, index, value: 0 };
    // SAFETY: the structure is the command's.
    unsafe { hypercall::call(__HYPERVISOR_hvm_op, HVMOP_GET_PARAM, &mut param) }.ok()?;
    Some(param.value).filter(|value| *value != 0)
}

/// Lets the channel's events come; one that is pending comes at once.
///
/// # Errors
/// If there is no such channel.
pub fn unmask(port: EventPort) -> Result<(), HypercallError> {
    event_channel_op(EVTCHNOP_unmask, &mut evtchn_unmask { port: port.0 })
}

/// A new event channel on which one of Xen's own events comes. It is not masked.
///
/// # Errors
/// If Xen has no such event.
pub fn bind_virq(virq: u32) -> Result<EventPort, HypercallError> {
    let mut bind = evtchn_bind_virq { virq, vcpu: 0, port: 0 };
    event_channel_op(EVTCHNOP_bind_virq, &mut bind)?;
    let port = EventPort(bind.port);
    unmask(port).map(|()| port)
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
        match unmask(port) {
            Ok(()) => Ok(port),
            Err(error) => {
                self.close(port);
                Err(error)
            }
        }
    }

    fn close(&self, port: EventPort) {
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
