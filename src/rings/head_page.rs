//! Small writes packed into pages: response heads and other bytes that the CPU makes.
//!
//! Heads are a few hundred bytes; a page of its own for each would waste memory and grants. [`HeadPages`] appends them
//! one behind the other to a page that earlier heads may already have in flight.

use super::{PAGE_BYTES, Page, PagePool, PageSlice};

/// Writes small pieces into pool pages and hands each out as a [`PageSlice`].
///
/// Bytes behind `filled` belong to this writer, bytes before it to the slices handed out. The `Page` itself never leaves,
/// so nobody can look past a slice.
pub struct HeadPages {
    pool: PagePool,
    current: Option<(Page, usize)>,
}

impl HeadPages {
    /// A writer that takes its pages from `pool`.
    pub fn new(pool: PagePool) -> Self {
        Self { pool, current: None }
    }

    /// Appends `bytes` (1 to [`PAGE_BYTES`]) and returns the slice that shows them; `None` when the pool is empty.
    ///
    /// # Panics
    /// If `bytes` is empty or longer than a page.
    pub fn write(&mut self, bytes: &[u8]) -> Option<PageSlice> {
        assert!(!bytes.is_empty() && bytes.len() <= PAGE_BYTES, "a head of {} bytes", bytes.len());
        let (page, filled) = match self.current.take() {
            Some((page, _)) if page.is_unique() => (page, 0),
            Some((page, filled)) if PAGE_BYTES - filled >= bytes.len() => (page, filled),
            _ => (self.pool.allocate()?, 0),
        };
        // SAFETY: `filled + bytes.len()` is within the page. No slice that was handed out reaches behind `filled`, and the
        // only `Page` that could show more is ours, so no reference to these bytes exists.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), page.pointer().add(filled).as_ptr(), bytes.len());
        }
        let slice = page.slice(filled, bytes.len());
        self.current = Some((page, filled + bytes.len()));
        Some(slice)
    }

    /// Gives the page back that is being filled, so that an idle pool is whole again.
    pub fn release(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_share_a_page_and_keep_their_bytes() {
        let pool = PagePool::new(2);
        let mut heads = HeadPages::new(pool.clone());
        let first = heads.write(&[1; 3000]).unwrap();
        let second = heads.write(&[2; 1096]).unwrap();
        assert!(first.same_page(&second));
        let third = heads.write(&[3; 1]).unwrap();
        assert!(!third.same_page(&second));
        assert!(heads.write(&[4; 4096]).is_none(), "the pool is empty");
        assert!(first.bytes().iter().all(|b| *b == 1) && second.bytes().iter().all(|b| *b == 2));
        assert_eq!(third.bytes(), [3]);
    }

    #[test]
    fn a_page_that_nobody_holds_is_filled_from_its_start() {
        let pool = PagePool::new(1);
        let mut heads = HeadPages::new(pool.clone());
        for _ in 0..10 {
            let slice = heads.write(&[9; 4000]).unwrap();
            assert_eq!(slice.offset(), 0);
        }
        heads.release();
        assert_eq!(pool.in_use(), 0);
    }
}
