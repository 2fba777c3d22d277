//! The guest's memory as Xen, store and back ends see it: pages that the guest has let them use.

use core::sync::atomic::{AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::rings::PAGE_BYTES;

/// A page of the guest's that may be used for as long as the guest has promised.
///
/// No reference to its bytes is ever made: accesses are volatile or atomic, within bounds, and by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GuestPage {
    address: usize,
}

impl GuestPage {
    /// The page at `address`.
    ///
    /// # Safety
    /// It must be readable, and writable where it is written, for as long as it is used; so long the guest keeps no reference that
    /// forbids it.
    ///
    /// # Panics
    /// If no page begins there.
    pub unsafe fn new(address: usize) -> Self {
        assert!(address != 0 && address.is_multiple_of(PAGE_BYTES), "no page begins at {address:#x}");
        Self { address }
    }

    /// Where it begins.
    pub fn address(&self) -> usize {
        self.address
    }

    fn place<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= PAGE_BYTES, "{offset} is outside of the page");
        let place = core::ptr::with_exposed_provenance_mut::<T>(self.address + offset);
        assert!(place.is_aligned(), "{offset} is not aligned");
        place
    }

    /// Copies a value out.
    pub fn read<T: FromBytes>(&self, offset: usize) -> T {
        // SAFETY: within the page (see `new`) and aligned; any bytes are a T.
        unsafe { self.place::<T>(offset).read_volatile() }
    }

    /// Copies a value in.
    pub fn put<T: IntoBytes + Immutable>(&self, offset: usize, value: T) {
        // SAFETY: as for `read`.
        unsafe { self.place::<T>(offset).write_volatile(value) }
    }

    /// Reads an index and sees all that the guest wrote before it.
    pub fn load32(&self, offset: usize) -> u32 {
        // SAFETY: as for `read`; both sides access indices as whole words.
        u32::from_le(unsafe { AtomicU32::from_ptr(self.place(offset)) }.load(Ordering::SeqCst))
    }

    /// Writes an index.
    pub fn store32(&self, offset: usize, value: u32) {
        // SAFETY: as for `load32`.
        unsafe { AtomicU32::from_ptr(self.place(offset)) }.store(value.to_le(), Ordering::SeqCst);
    }

    /// Copies bytes out.
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= PAGE_BYTES, "{offset}+{} is outside of the page", bytes.len());
        let place = core::ptr::with_exposed_provenance::<u8>(self.address + offset);
        // SAFETY: the range lies in the page (see `new`), and `bytes` elsewhere.
        unsafe { core::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Copies bytes in.
    pub fn copy_from(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= PAGE_BYTES, "{offset}+{} is outside of the page", bytes.len());
        let place = core::ptr::with_exposed_provenance_mut::<u8>(self.address + offset);
        // SAFETY: as for `copy_to`.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) }
    }
}
