//! The one door to memory that a device reads and writes while we do.
//!
//! No reference to its bytes is ever made: accesses are volatile or atomic, within bounds, and by value.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::rings::PAGE_BYTES;

/// Zeroed, page-aligned memory, named to the device by its address.
#[derive(Debug)]
pub(super) struct SharedMemory {
    base: NonNull<u8>,
    layout: Layout,
    /// A device may still use it: it is never given back.
    abandoned: bool,
}

impl SharedMemory {
    /// `bytes` bytes (at least 1).
    pub fn new(bytes: usize) -> Self {
        Self::try_new(bytes).unwrap_or_else(|| handle_alloc_error(Self::layout(bytes)))
    }

    /// The same; `None` if there is too little memory.
    pub fn try_new(bytes: usize) -> Option<Self> {
        assert!(bytes > 0, "memory of no bytes");
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        Some(Self { base: NonNull::new(memory)?, layout, abandoned: false })
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, PAGE_BYTES).expect("queues fit the address space")
    }

    /// Memory that is there for good, such as a page that a hypervisor has made for us.
    ///
    /// # Safety
    /// The `bytes` bytes from `base` on, page-aligned, must be mapped and writable for as long as the program runs, and be used by
    /// nobody else in it.
    pub unsafe fn over(base: NonNull<u8>, bytes: usize) -> Self {
        assert!(bytes > 0 && (base.as_ptr() as usize).is_multiple_of(PAGE_BYTES), "shared memory amid a page");
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("it lies in the address space");
        Self { base, layout, abandoned: true }
    }

    /// The address of a byte, as the device is to be told.
    pub fn address(&self, offset: usize) -> u64 {
        self.place::<u8>(offset).expose_provenance() as u64
    }

    /// Never gives the memory back.
    pub fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// Where a `T` lies. That it lies within the memory and is aligned is up to us alone, so a mistake ends the program.
    fn place<T>(&self, offset: usize) -> *mut T {
        assert!(offset <= self.layout.size() && size_of::<T>() <= self.layout.size() - offset, "{offset} is outside");
        // SAFETY: the offset lies within the allocation.
        let place = unsafe { self.base.as_ptr().add(offset) }.cast::<T>();
        debug_assert!(place.is_aligned());
        place
    }

    pub fn read8(&self, offset: usize) -> u8 {
        // SAFETY: `place` is within the allocation; any byte is a u8. Whoever writes it meanwhile is outside the program.
        unsafe { self.place::<u8>(offset).read_volatile() }
    }

    pub fn write8(&self, offset: usize, value: u8) {
        // SAFETY: as for `read8`.
        unsafe { self.place::<u8>(offset).write_volatile(value) }
    }

    pub fn write16(&self, offset: usize, value: u16) {
        // SAFETY: as for `read8`, and aligned: every offset of a u16 is even.
        unsafe { self.place::<u16>(offset).write_volatile(value.to_le()) }
    }

    pub fn read64(&self, offset: usize) -> u64 {
        // SAFETY: as for `read8`. Used elements lie at 4 behind a page border, so they are read as halves.
        unsafe {
            let low = self.place::<u32>(offset).read_volatile();
            let high = self.place::<u32>(offset + 4).read_volatile();
            u64::from(u32::from_le(high)) << 32 | u64::from(u32::from_le(low))
        }
    }

    pub fn write64(&self, offset: usize, value: u64) {
        // SAFETY: as for `read8`, and aligned: descriptors and request headers begin at multiples of 16.
        unsafe { self.place::<u64>(offset).write_volatile(value.to_le()) }
    }

    /// Copies bytes in that the device will only read.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.layout.size() && bytes.len() <= self.layout.size() - offset, "{offset} is outside");
        // SAFETY: the range lies in the allocation, to which no reference exists, so `bytes` lies elsewhere.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) }
    }

    /// Copies a value out that the other side may have written.
    pub fn read<T: FromBytes>(&self, offset: usize) -> T {
        // SAFETY: within the allocation and aligned, as `place` checks; any bytes are a T. Whoever writes it meanwhile is outside
        // the program, and what comes of that is checked after this copy.
        unsafe { self.place::<T>(offset).read_volatile() }
    }

    /// Copies a value in that the other side will read.
    pub fn put<T: IntoBytes + Immutable>(&self, offset: usize, value: T) {
        // SAFETY: within the allocation and aligned, as `place` checks; no reference to these bytes exists.
        unsafe { self.place::<T>(offset).write_volatile(value) }
    }

    /// Zeroes everything.
    pub fn clear(&self) {
        // SAFETY: the whole allocation, to which no reference exists.
        unsafe { core::ptr::write_bytes(self.base.as_ptr(), 0, self.layout.size()) }
    }

    /// Reads an index of the device's, and sees everything that it wrote before.
    pub fn load16(&self, offset: usize, ordering: Ordering) -> u16 {
        // SAFETY: as for `write16`; both sides access indices as whole 16-bit words.
        u16::from_le(unsafe { AtomicU16::from_ptr(self.place(offset)) }.load(ordering))
    }

    /// Writes an index of ours.
    pub fn store16(&self, offset: usize, value: u16, ordering: Ordering) {
        // SAFETY: as for `load16`.
        unsafe { AtomicU16::from_ptr(self.place(offset)) }.store(value.to_le(), ordering);
    }

    /// As [`SharedMemory::load16`], for Xen's rings.
    pub fn load32(&self, offset: usize, ordering: Ordering) -> u32 {
        // SAFETY: as for `load16`; both sides access indices as whole 32-bit words.
        u32::from_le(unsafe { AtomicU32::from_ptr(self.place(offset)) }.load(ordering))
    }

    /// As [`SharedMemory::store16`], for Xen's rings.
    pub fn store32(&self, offset: usize, value: u32, ordering: Ordering) {
        // SAFETY: as for `load32`.
        unsafe { AtomicU32::from_ptr(self.place(offset)) }.store(value.to_le(), ordering);
    }

    /// Replaces a word that the other side may change, if it is still `current`. Otherwise says what it is.
    pub fn compare_exchange16(&self, offset: usize, current: u16, new: u16) -> Result<u16, u16> {
        // SAFETY: as for `load16`.
        let word = unsafe { AtomicU16::from_ptr(self.place(offset)) };
        let result = word.compare_exchange(current.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst);
        result.map(u16::from_le).map_err(u16::from_le)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        if !self.abandoned {
            // SAFETY: it was allocated with this layout; the owner has made sure that the device uses it no longer.
            unsafe { dealloc(self.base.as_ptr(), self.layout) };
        }
    }
}
