//! Xen's paravirtual devices: grant table, xenstore, network interface (netfront) and disk (blkfront).
//!
//! What may enter this room: the front ends and what they share. It finds devices in the store, but knows no machine: the few
//! hypercalls that it needs are handed in as a [`Hypervisor`].
//!
//! # What it relies on
//! - Memory is mapped at its physical address: pages are named to Xen by their addresses.
//! - Both sides see the same memory (no cache maintenance).
//!
//! # When the other side lies
//! What back ends and store write (rings, values) is copied once and checked.

pub mod abi;
mod block;
mod error;
mod granted;
mod grants;
mod hypervisor;
mod life;
#[cfg(feature = "std")]
pub mod memory;
mod net;
mod ring;
mod store;
mod xenbus;

use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;
use core::ptr::NonNull;

use grants::{Access, GrantTable};

pub use block::XenBlk;
pub use error::XenError;
pub use grants::GrantRef;
pub use hypervisor::{DomainId, EventPort, HypercallError, Hypervisor};
pub use net::XenNet;
pub use store::{Store, Transaction, Watch};
pub use xenbus::{DeviceKind, Found, devices};

use super::Page;
use crate::stats::Stats;

/// What all of a domain's front ends share: Xen, the store, the grant table. Cloning gives another handle.
#[derive(Clone)]
pub struct Xen(Rc<Shared>);

struct Shared {
    hypervisor: Rc<dyn Hypervisor>,
    store: Store,
    grants: RefCell<GrantTable>,
    stats: Rc<Stats>,
}

impl Xen {
    /// Xen, with the store behind this page and this event channel.
    ///
    /// # Safety
    /// The page must be the store's ring (`io/xs_wire.h`), mapped and writable for as long as the program runs, and used by nobody
    /// else in it. All memory that is allocated here must lie at the address by which the hypervisor knows it.
    pub unsafe fn new(
        hypervisor: Rc<dyn Hypervisor>,
        store_page: NonNull<u8>,
        store_port: EventPort,
        stats: Rc<Stats>,
    ) -> Self {
        // SAFETY: as the caller promises.
        let store = unsafe { Store::new(hypervisor.clone(), store_page, store_port) };
        let grants = RefCell::new(GrantTable::new(stats.clone()));
        Self(Rc::new(Shared { hypervisor, store, grants, stats }))
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Promises a driver so many entries of the grant table.
    fn reserve_grants(&self, entries: usize) -> Result<(), XenError> {
        self.0.grants.borrow_mut().reserve(&*self.0.hypervisor, entries)
    }

    /// Gives the promise back.
    fn release_grants(&self, entries: usize) {
        self.0.grants.borrow_mut().release(entries);
    }

    fn grant(&self, domain: DomainId, address: usize, access: Access) -> Result<GrantRef, XenError> {
        self.0.grants.borrow_mut().grant(domain, address, access).ok_or(XenError::NoGrants)
    }

    /// Ends a grant and gives its page back, if that is ours again.
    fn end_grant(&self, grant: GrantRef, page: Page) -> Option<Page> {
        self.0.grants.borrow_mut().end(grant, page)
    }

    /// As [`Xen::end_grant`], where somebody else has the page, too. False if the other domain still uses it.
    fn end_grant_of(&self, grant: GrantRef, page: &Page) -> bool {
        self.0.grants.borrow_mut().end_of(grant, page)
    }

    /// Ends the grant of memory of our own. False if the other domain still uses it.
    fn end_own(&self, grant: GrantRef) -> bool {
        self.0.grants.borrow_mut().end_own(grant)
    }

    /// Has another look at what could not be ended.
    fn retry_quarantine(&self) {
        self.0.grants.borrow_mut().retry_quarantine();
    }

    fn alloc_unbound(&self, remote: DomainId) -> Result<Channel, XenError> {
        let port = self.0.hypervisor.alloc_unbound(remote);
        let port = port.map_err(|error| XenError::Hypercall { what: "an event channel can't be had", error })?;
        Ok(Channel { xen: self.clone(), port })
    }
}

impl fmt::Debug for Xen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xen({:?})", self.0.store)
    }
}

/// An event channel of ours, closed when it is dropped.
#[derive(Debug)]
struct Channel {
    xen: Xen,
    port: EventPort,
}

impl Channel {
    fn notify(&self) {
        self.xen.0.hypervisor.notify(self.port);
        self.xen.0.stats.notifications.increment();
    }

    /// Shows the back end what was put into a ring.
    fn publish(&self, ring: &mut ring::FrontRing) {
        match ring.publish() {
            ring::Publication::Empty => {}
            ring::Publication::Quiet => self.xen.0.stats.notifications_spared.increment(),
            ring::Publication::Notify => self.notify(),
        }
    }

    fn acknowledge(&self) {
        self.xen.0.hypervisor.acknowledge(self.port);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.xen.0.hypervisor.close(self.port);
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
