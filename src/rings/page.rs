//! The page pool and the counted page.
//!
//! A [`PagePool`] is one contiguous, page-aligned piece of memory. A [`Page`] is a counted reference to one of its pages;
//! the page returns to the pool with its last reference. Counts live beside the memory and not in it, so that a page's
//! 4096 bytes are all payload and its address is arithmetic.

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::ptr::NonNull;

use super::PageSlice;
use super::free_map::FreeMap;

/// Size and alignment of a page in bytes: that of the x86-64 and aarch64 granule, of a Xen grant and of a ring.
pub const PAGE_BYTES: usize = 4096;

/// A bounded set of pages. Cloning gives another handle to the same pool.
///
/// The memory is released when the last handle *and* the last page are gone. Single-threaded by design: a second core
/// has a pool of its own.
#[derive(Clone)]
pub struct PagePool(Rc<Inner>);

struct Inner {
    /// The first page.
    base: NonNull<u8>,
    /// What `base` lies in; `None` for memory that nobody wants back.
    allocation: Option<NonNull<u8>>,
    count: u32,
    /// References to each page; 0 means free.
    references: Box<[Cell<u32>]>,
    free: RefCell<FreeMap>,
    in_use: Cell<u32>,
    /// Pages with more than one reference.
    shared: Cell<u32>,
}

impl PagePool {
    /// A pool of `pages` pages, zeroed.
    ///
    /// # Panics
    /// If `pages` is 0, does not fit 32 bits, or the memory can't be had (as every allocation here: at start, never later).
    pub fn new(pages: usize) -> Self {
        assert!(pages > 0 && pages < u32::MAX as usize, "a page pool of {pages} pages");
        let layout = Self::layout(pages);
        // SAFETY: the layout's size is not zero, since `pages` is not.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(allocation) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // SAFETY: the layout has a page more than the pool, so that its pages begin at the first border within.
        let base = unsafe { allocation.add(allocation.align_offset(PAGE_BYTES)) };
        Self::over(base, Some(allocation), pages)
    }

    /// A pool over memory that is there for good, such as what a machine has. Nothing of it is touched here.
    ///
    /// # Safety
    /// The `pages` pages from `base` on must be mapped, readable and writable for as long as the program runs, hold bytes that count
    /// as initialised (memory that no allocator or compiler knows does), and be nobody else's.
    ///
    /// # Panics
    /// If `pages` is 0 or does not fit 32 bits, or `base` is not the start of a page.
    pub unsafe fn from_memory(base: NonNull<u8>, pages: usize) -> Self {
        assert!(pages > 0 && pages < u32::MAX as usize, "a page pool of {pages} pages");
        assert!((base.as_ptr() as usize).is_multiple_of(PAGE_BYTES), "a page pool that begins amid a page");
        Self::over(base, None, pages)
    }

    fn over(base: NonNull<u8>, allocation: Option<NonNull<u8>>, pages: usize) -> Self {
        Self(Rc::new(Inner {
            base,
            allocation,
            count: pages as u32,
            references: vec![Cell::new(0); pages].into_boxed_slice(),
            free: RefCell::new(FreeMap::new(pages)),
            in_use: Cell::new(0),
            shared: Cell::new(0),
        }))
    }

    /// Of the pool's allocation. Its alignment is an allocator's usual one: more makes hosts clear the memory themselves, where
    /// otherwise they hand out untouched zero pages, which take no memory before they are used.
    fn layout(pages: usize) -> Layout {
        Layout::from_size_align((pages + 1) * PAGE_BYTES, align_of::<u128>()).expect("a pool fits the address space")
    }

    /// Takes a free page. Its content is whatever it last held. `None` when every page is in use.
    pub fn allocate(&self) -> Option<Page> {
        let index = self.0.free.borrow_mut().take()?;
        let in_use = self.0.in_use.get();
        self.0.in_use.set(in_use + 1);
        let inner = Rc::as_ptr(&self.0);
        if in_use == 0 {
            // Pages in use keep the pool alive together, with one count of its `Rc`.
            // SAFETY: `inner` comes from `Rc::as_ptr` of a live `Rc`.
            unsafe { Rc::increment_strong_count(inner) };
        }
        debug_assert_eq!(self.0.references[index as usize].get(), 0);
        self.0.references[index as usize].set(1);
        // SAFETY: `Rc::as_ptr` is never null.
        let pool = unsafe { NonNull::new_unchecked(inner.cast_mut()) };
        Some(Page { pool, index })
    }

    /// How many pages the pool has.
    pub fn capacity(&self) -> usize {
        self.0.count as usize
    }

    /// How many pages are in use.
    pub fn in_use(&self) -> usize {
        self.0.in_use.get() as usize
    }

    /// How many pages are free.
    pub fn available(&self) -> usize {
        self.capacity() - self.in_use()
    }

    /// True if the slice lies in one of this pool's pages.
    pub fn owns(&self, slice: &PageSlice) -> bool {
        self.covers(slice.page_address())
    }

    /// True if one of this pool's pages lies at `address`.
    pub fn covers(&self, address: usize) -> bool {
        let start = self.0.base.as_ptr() as usize;
        (start..start + self.capacity() * PAGE_BYTES).contains(&address)
    }

    /// How many pages have more than one reference: for a cache's pool, the pages that something in flight pins.
    pub fn shared(&self) -> usize {
        self.0.shared.get() as usize
    }
}

impl fmt::Debug for PagePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PagePool({} of {} pages in use, {} shared)", self.in_use(), self.capacity(), self.shared())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        debug_assert_eq!(self.in_use.get(), 0);
        if let Some(allocation) = self.allocation {
            // SAFETY: it was allocated with this layout, and no page is in use: pages hold a count of the pool's `Rc`.
            unsafe { dealloc(allocation.as_ptr(), PagePool::layout(self.count as usize)) };
        }
    }
}

/// A counted reference to one page of a [`PagePool`]. `!Send`.
///
/// The bytes may be written only while this is the only reference ([`Page::bytes_mut`]).
pub struct Page {
    /// Valid while any page is in use: the pages in use hold one count of the `Rc` together.
    pool: NonNull<Inner>,
    index: u32,
}

impl Page {
    fn inner(&self) -> &Inner {
        // SAFETY: this page is in use, so the pool is alive (see `pool`), and `Inner` is only ever borrowed shared.
        unsafe { self.pool.as_ref() }
    }

    fn references(&self) -> &Cell<u32> {
        &self.inner().references[self.index as usize]
    }

    pub(super) fn pointer(&self) -> NonNull<u8> {
        // SAFETY: `index` is below the pool's count, so the result lies in its allocation.
        unsafe { self.inner().base.add(self.index as usize * PAGE_BYTES) }
    }

    /// The page's address in bytes, a multiple of [`PAGE_BYTES`]; what a grant or a descriptor is made from.
    pub fn address(&self) -> usize {
        self.pointer().as_ptr() as usize
    }

    /// The page's number in its pool.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// True while this is the only reference.
    pub fn is_unique(&self) -> bool {
        self.references().get() == 1
    }

    /// The page's bytes.
    pub fn bytes(&self) -> &[u8; PAGE_BYTES] {
        // SAFETY: the page lies in the pool's memory, all of which is initialised. Whoever could write it (`bytes_mut`, a device, a
        // `HeadPages`) owns the only `Page` or keeps every `Page` of it private while it does.
        unsafe { self.pointer().cast().as_ref() }
    }

    /// The page's bytes for writing; `None` while another reference exists.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8; PAGE_BYTES]> {
        if !self.is_unique() {
            return None;
        }
        // SAFETY: this is the only reference to the page, and it is borrowed mutably.
        Some(unsafe { self.pointer().cast().as_mut() })
    }

    /// A slice of this page, with a reference of its own.
    ///
    /// # Panics
    /// If the slice does not lie in the page or is empty.
    pub fn slice(&self, offset: usize, length: usize) -> PageSlice {
        PageSlice::new(self.clone(), offset, length)
    }

    /// True if both are pages of the same pool.
    #[cfg(feature = "std")]
    pub(super) fn same_pool(&self, other: &Page) -> bool {
        self.pool == other.pool
    }

    /// True if both are references to the same page.
    pub fn same(&self, other: &Page) -> bool {
        self.pool == other.pool && self.index == other.index
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        let count = self.references().get();
        assert!(count < u32::MAX, "references to page {} exhausted", self.index);
        if count == 1 {
            let shared = &self.inner().shared;
            shared.set(shared.get() + 1);
        }
        self.references().set(count + 1);
        Self { pool: self.pool, index: self.index }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let inner = self.inner();
        let count = self.references().get();
        self.references().set(count - 1);
        match count {
            2 => inner.shared.set(inner.shared.get() - 1),
            1 => {
                inner.free.borrow_mut().put(self.index);
                let in_use = inner.in_use.get();
                inner.in_use.set(in_use - 1);
                if in_use == 1 {
                    // SAFETY: the last page in use gives back the count that the first one took; `pool` came from
                    // `Rc::as_ptr`. Nothing of `inner` is touched afterwards.
                    unsafe { Rc::decrement_strong_count(self.pool.as_ptr()) };
                }
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Page({}, {} references)", self.index, self.references().get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrayvec::ArrayVec;

    #[test]
    fn pages_are_distinct_aligned_and_return() {
        let pool = PagePool::new(3);
        let pages: ArrayVec<Page, 3> = core::iter::from_fn(|| pool.allocate()).collect();
        assert!(pool.allocate().is_none());
        assert_eq!(pool.available(), 0);
        assert!(pages.iter().all(|p| p.address() % PAGE_BYTES == 0));
        assert!(!pages[0].same(&pages[1]) && pages[0].address() != pages[1].address());
        drop(pages);
        assert_eq!(pool.available(), 3);
        assert!(pool.allocate().is_some());
    }

    #[test]
    fn only_the_sole_reference_writes() {
        let pool = PagePool::new(1);
        let mut page = pool.allocate().unwrap();
        page.bytes_mut().unwrap()[7] = 42;
        let second = page.clone();
        assert!(page.bytes_mut().is_none());
        assert_eq!(pool.shared(), 1);
        assert_eq!(second.bytes()[7], 42);
        drop(second);
        assert_eq!(pool.shared(), 0);
        assert!(page.bytes_mut().is_some());
    }

    #[test]
    fn a_pool_knows_its_pages() {
        let (pool, other) = (PagePool::new(2), PagePool::new(2));
        let pages = [pool.allocate().unwrap(), pool.allocate().unwrap()];
        assert!(pages.iter().all(|page| pool.owns(&page.slice(4095, 1)) && !other.owns(&page.slice(0, 1))));
    }

    #[test]
    fn memory_that_is_there_becomes_a_pool_as_it_is() {
        #[repr(align(4096))]
        struct Memory([u8; 2 * PAGE_BYTES]);
        let memory = alloc::boxed::Box::leak(alloc::boxed::Box::new(Memory([7; 2 * PAGE_BYTES])));
        let base = NonNull::new(memory.0.as_mut_ptr()).unwrap();
        // SAFETY: leaked memory stays, and nobody else uses it.
        let pool = unsafe { PagePool::from_memory(base, 2) };
        let pages = [pool.allocate().unwrap(), pool.allocate().unwrap()];
        assert!(pool.allocate().is_none() && pages.iter().all(|page| page.bytes() == &[7; PAGE_BYTES]));
        assert_eq!(pages[0].address(), base.as_ptr() as usize);
    }

    #[test]
    fn pages_outlive_the_handle() {
        let pool = PagePool::new(2);
        let page = pool.allocate().unwrap();
        drop(pool);
        assert_eq!(page.bytes()[0], 0);
        let third = page.clone();
        drop(page);
        drop(third);
    }

    #[test]
    fn a_churned_pool_hands_out_every_page_once() {
        let pool = PagePool::new(300);
        let mut held = alloc::vec::Vec::new();
        for round in 0..50 {
            while let Some(page) = pool.allocate() {
                held.push(page);
            }
            let mut seen: alloc::vec::Vec<u32> = held.iter().map(Page::index).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..300));
            held.retain(|page| !page.index().wrapping_mul(2_654_435_761).wrapping_add(round).is_multiple_of(3));
        }
    }
}
