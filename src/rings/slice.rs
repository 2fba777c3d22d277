//! A run of bytes within one page.

use core::fmt;

use super::{PAGE_BYTES, Page};

/// `length` bytes of a page from `offset` on, with a counted reference to the page. Never empty.
///
/// It shows only its own bytes: the rest of the page may still be written by the owner of a head page.
#[derive(Clone)]
pub struct PageSlice {
    page: Page,
    offset: u16,
    length: u16,
}

impl PageSlice {
    /// The slice of `page` from `offset` on.
    ///
    /// # Panics
    /// If it does not lie in the page or is empty.
    pub fn new(page: Page, offset: usize, length: usize) -> Self {
        assert!(length > 0 && offset < PAGE_BYTES && length <= PAGE_BYTES - offset, "slice {offset}+{length}");
        Self { page, offset: offset as u16, length: length as u16 }
    }

    /// The slice's bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in the page (checked in `new`), whose memory is initialised. Nobody writes it: pages are
        // written only through their sole `Page`, and head pages only behind every slice that was handed out.
        unsafe {
            core::slice::from_raw_parts(self.page.pointer().add(self.offset as usize).as_ptr(), self.length as usize)
        }
    }

    /// First byte within the page.
    pub fn offset(&self) -> usize {
        self.offset as usize
    }

    /// Length in bytes, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a slice is never empty")]
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// The page's address in bytes (not the slice's).
    pub fn page_address(&self) -> usize {
        self.page.address()
    }

    /// True if both lie in the same page.
    pub fn same_page(&self, other: &PageSlice) -> bool {
        self.page.same(&other.page)
    }

    /// True if the slice lies in `page`.
    pub fn lies_in(&self, page: &Page) -> bool {
        self.page.same(page)
    }

    /// True if `next` begins where this ends, in the same pool's memory.
    #[cfg(feature = "std")]
    fn adjoins(&self, next: &PageSlice) -> bool {
        self.page.same_pool(&next.page)
            && self.page_address() + self.offset() + self.len() == next.page_address() + next.offset()
    }

    /// The page, given up by the slice.
    pub(super) fn into_page(self) -> Page {
        self.page
    }

    /// A part of this slice, with a reference of its own.
    ///
    /// # Panics
    /// If the part does not lie in the slice or is empty.
    pub fn part(&self, offset: usize, length: usize) -> PageSlice {
        assert!(offset <= self.len() && length <= self.len() - offset, "part {offset}+{length} of {}", self.len());
        Self::new(self.page.clone(), self.offset() + offset, length)
    }

    /// Takes the first `bytes` bytes off, in place.
    ///
    /// # Panics
    /// If nothing would be left.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes < self.len(), "advance by {bytes} of {}", self.len());
        self.offset += bytes as u16;
        self.length -= bytes as u16;
    }
}

/// The bytes of `slices`, in order, in as few pieces as they lie in memory: what adjoins in one pool is one piece.
#[cfg(feature = "std")]
pub(super) fn runs(slices: &[PageSlice]) -> impl Iterator<Item = &[u8]> {
    let mut rest = slices;
    core::iter::from_fn(move || {
        let first = rest.first()?;
        let joined = rest.windows(2).take_while(|pair| pair[0].adjoins(&pair[1])).count() + 1;
        let (run, behind) = rest.split_at(joined);
        rest = behind;
        let bytes = run.iter().map(PageSlice::len).sum();
        // SAFETY: these are the bytes of the run's slices and nothing else: each begins where the one before ends, in the one
        // allocation that the pointer comes from. They are readable for the same reasons as in `PageSlice::bytes`.
        Some(unsafe { core::slice::from_raw_parts(first.page.pointer().add(first.offset()).as_ptr(), bytes) })
    })
}

impl fmt::Debug for PageSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSlice({:?}, {}+{})", self.page, self.offset, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PagePool;
    use super::*;
    use arrayvec::ArrayVec;

    #[test]
    fn parts_show_their_bytes_and_pin_the_page() {
        let pool = PagePool::new(1);
        let mut page = pool.allocate().unwrap();
        for (i, byte) in page.bytes_mut().unwrap().iter_mut().enumerate() {
            *byte = i as u8;
        }
        let mut slice = page.slice(100, 50);
        let part = slice.part(10, 5);
        assert_eq!(part.bytes(), &[110, 111, 112, 113, 114]);
        slice.advance(49);
        assert_eq!(slice.bytes(), &[149]);
        drop(page);
        assert_eq!(pool.in_use(), 1);
        drop((slice, part));
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    #[cfg(feature = "std")]
    fn runs_join_what_adjoins_and_nothing_else() {
        let (pool, other) = (PagePool::new(4), PagePool::new(1));
        let pages: ArrayVec<_, 4> = core::iter::from_fn(|| pool.allocate()).collect();
        let alien = other.allocate().unwrap();
        let [a, b, c, d] = &pages[..] else { unreachable!() };
        let slices = [
            a.slice(5, 4091),
            b.slice(0, 4096),
            c.slice(0, 7),
            c.slice(7, 1),
            // Behind a gap, before a gap, out of order, of another pool.
            c.slice(9, 4087),
            d.slice(1, 4095),
            a.slice(0, 4096),
            c.slice(0, 4096),
            alien.slice(0, 1),
        ];
        let lengths: ArrayVec<usize, 9> = runs(&slices).map(<[u8]>::len).collect();
        assert_eq!(lengths[..], [4091 + 4096 + 7 + 1, 4087, 4095, 4096, 4096, 1]);
        assert!(runs(&slices).flatten().eq(slices.iter().flat_map(PageSlice::bytes)));
        assert_eq!(runs(&[]).count(), 0);
    }
}
