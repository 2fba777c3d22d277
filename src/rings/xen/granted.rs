//! Memory of our own that another domain may use for as long as a device is connected: rings, heads, descriptions.

use alloc::vec::Vec;

use super::grants::Access;
use super::{DomainId, GrantRef, Xen, XenError};
use crate::rings::PAGE_BYTES;
use crate::rings::shared_memory::SharedMemory;

/// Zeroed pages, each granted. When this is dropped, so are the grants; memory of which one can't be ended is never used again.
#[derive(Debug)]
pub(super) struct GrantedMemory {
    xen: Xen,
    pub memory: SharedMemory,
    grants: Vec<GrantRef>,
}

impl GrantedMemory {
    /// So many pages for `domain`.
    ///
    /// # Errors
    /// If there is too little memory, or too few entries of the grant table are left.
    pub fn new(xen: &Xen, domain: DomainId, pages: usize, access: Access) -> Result<Self, XenError> {
        let memory = SharedMemory::try_new(pages * PAGE_BYTES).ok_or(XenError::NoMemory)?;
        let mut granted = Self { xen: xen.clone(), memory, grants: Vec::with_capacity(pages) };
        for page in 0..pages {
            let address = granted.memory.address(page * PAGE_BYTES) as usize;
            granted.grants.push(xen.grant(domain, address, access)?);
        }
        Ok(granted)
    }

    /// The numbers of its pages' grants, in order.
    pub fn references(&self) -> impl Iterator<Item = u32> + '_ {
        self.grants.iter().map(GrantRef::number)
    }

    /// The number of the grant of the page in which this byte lies.
    pub fn reference_at(&self, offset: usize) -> u32 {
        self.grants[offset / PAGE_BYTES].number()
    }
}

impl Drop for GrantedMemory {
    fn drop(&mut self) {
        let in_use = self.grants.drain(..).map(|grant| self.xen.end_own(grant)).filter(|ended| !ended).count();
        if in_use > 0 {
            self.memory.abandon();
        }
    }
}
