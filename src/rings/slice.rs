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

impl fmt::Debug for PageSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSlice({:?}, {}+{})", self.page, self.offset, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PagePool;

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
}
