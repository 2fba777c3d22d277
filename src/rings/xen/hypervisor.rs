//! What the drivers ask of Xen itself: a few calls, so that they run on any host over an imitation.

use core::fmt;

/// A domain's number (`domid_t`).
pub type DomainId = u16;

/// An event channel's number in this domain (`evtchn_port_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPort(pub u32);

impl fmt::Display for EventPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a hypercall answered that did not go well: Xen's error number, positive (`errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypercallError(pub u32);

impl fmt::Display for HypercallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "EPERM",
            3 => "ESRCH",
            12 => "ENOMEM",
            14 => "EFAULT",
            22 => "EINVAL",
            28 => "ENOSPC",
            38 => "ENOSYS",
            number => return write!(f, "error {number}"),
        };
        f.write_str(name)
    }
}

impl core::error::Error for HypercallError {}

/// Xen, as the drivers see it. Memory is named by its address divided by the page size: physical addresses in a kernel.
///
/// Event channels are such that an event which comes while its channel is pending is no new one: who wants to be woken by the next
/// event acknowledges first ([`Hypervisor::acknowledge`]), then looks for work, then sleeps. An event that was raised before ends a
/// sleep at once, and is acknowledged by that.
pub trait Hypervisor {
    /// A new event channel that `remote` may bind to (`EVTCHNOP_alloc_unbound`). Its events end a sleep.
    ///
    /// # Errors
    /// If Xen has no more, or refuses.
    fn alloc_unbound(&self, remote: DomainId) -> Result<EventPort, HypercallError>;

    /// Ends an event channel (`EVTCHNOP_close`). One that is none is left alone.
    fn close(&self, port: EventPort);

    /// Raises an event for the other side (`EVTCHNOP_send`). One that nobody is bound to is lost.
    fn notify(&self, port: EventPort);

    /// Takes note of the events so far: the next one wakes again.
    fn acknowledge(&self, port: EventPort);

    /// Makes the page at `address` show frame `index` of the domain's grant table, version 1 (`XENMEM_add_to_physmap` with
    /// `XENMAPSPACE_grant_table`). The page's own memory is lost for good.
    ///
    /// # Errors
    /// If the table can't have so many frames.
    fn map_grant_frame(&self, index: u32, address: usize) -> Result<(), HypercallError>;
}
