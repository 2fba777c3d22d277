//! The memory that frames are read into: one run of pages, so that one plain `read` takes a header and its frame.

use arrayvec::ArrayVec;
use zerocopy::FromBytes;

use super::header::{HEADER_BYTES, Header};
use crate::rings::{MAX_RX_SLICES, PAGE_BYTES, Page, PagePool, PageSlice, RxChecksum, RxFrame};

/// Bytes of the buffer. It is larger than a header and a frame of 64 KiB: one that fills it was cut off.
const BUFFER_BYTES: usize = MAX_RX_SLICES * PAGE_BYTES;

/// Contiguous pages of a pool that nobody else takes pages from.
pub(super) struct ReceiveBuffer {
    pool: PagePool,
    /// One behind the other in memory.
    pages: ArrayVec<Page, MAX_RX_SLICES>,
    /// The frame being lent; empty otherwise.
    lent: RxFrame,
}

impl ReceiveBuffer {
    pub fn new() -> Self {
        let pool = PagePool::new(MAX_RX_SLICES);
        let pages: ArrayVec<Page, MAX_RX_SLICES> = core::iter::from_fn(|| pool.allocate()).collect();
        let adjacent = |pair: &[Page]| pair[0].address() + PAGE_BYTES == pair[1].address();
        assert!(pages.is_full() && pages.windows(2).all(adjacent), "a new pool hands its pages out in order");
        let lent = RxFrame { slices: ArrayVec::new(), checksum: RxChecksum::Unknown, gso: None };
        Self { pool, pages, lent }
    }

    /// The buffer, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        assert_eq!(self.pool.shared(), 0, "a page of a lent frame was kept");
        // SAFETY: the pages are adjacent parts of the pool's one allocation (checked in `new`), which is initialised and lives
        // as long as they do. Each is the only reference to its page (just checked) and is borrowed mutably with `self`.
        unsafe { core::slice::from_raw_parts_mut(self.pages[0].pointer().as_ptr(), BUFFER_BYTES) }
    }

    /// The frame in the buffer's first `bytes` bytes, which begin with its header. `None` if that makes no sense.
    pub fn frame(&mut self, bytes: usize) -> Option<&RxFrame> {
        // What fills the buffer is longer than it.
        if !(HEADER_BYTES + 1..BUFFER_BYTES).contains(&bytes) {
            return None;
        }
        let (header, _) = Header::read_from_prefix(self.pages[0].bytes()).ok()?;
        let received = header.check(bytes - HEADER_BYTES)?;
        self.lent.checksum = received.checksum;
        self.lent.gso = received.gso;
        let slice = |(index, page): (usize, &Page)| -> PageSlice {
            let start = if index == 0 { HEADER_BYTES } else { 0 };
            page.slice(start, (bytes - index * PAGE_BYTES).min(PAGE_BYTES) - start)
        };
        let pages = self.pages.iter().take(bytes.div_ceil(PAGE_BYTES));
        self.lent.slices = pages.enumerate().map(slice).collect();
        Some(&self.lent)
    }

    /// Takes the lent frame's pages back.
    pub fn recover(&mut self) {
        self.lent.slices.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_is_what_was_written_behind_the_header(bytes in 0..BUFFER_BYTES + 1, seed in any::<u8>()) {
            let mut buffer = ReceiveBuffer::new();
            for (i, byte) in buffer.bytes_mut().iter_mut().enumerate().skip(HEADER_BYTES) {
                *byte = (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed;
            }
            let written = buffer.bytes_mut()[..bytes].to_vec();
            match buffer.frame(bytes) {
                Some(frame) => {
                    let mut copy = vec![0; BUFFER_BYTES];
                    let length = frame.copy_to(&mut copy);
                    prop_assert_eq!(&copy[..length], &written[HEADER_BYTES..]);
                    prop_assert_eq!(frame.len(), length);
                }
                None => prop_assert!(bytes <= HEADER_BYTES || bytes == BUFFER_BYTES),
            }
            buffer.recover();
            buffer.bytes_mut()[0] = 1;
        }
    }

    #[test]
    fn a_header_that_makes_no_sense_gives_no_frame() {
        let mut buffer = ReceiveBuffer::new();
        buffer.bytes_mut()[1] = 3;
        assert!(buffer.frame(100).is_none());
    }

    #[test]
    fn what_may_have_been_cut_off_is_no_frame() {
        let mut buffer = ReceiveBuffer::new();
        assert!(buffer.frame(HEADER_BYTES).is_none() && buffer.frame(BUFFER_BYTES).is_none());
        assert_eq!(buffer.frame(BUFFER_BYTES - 1).map(RxFrame::len), Some(BUFFER_BYTES - 1 - HEADER_BYTES));
    }

    #[test]
    #[should_panic(expected = "a page of a lent frame was kept")]
    fn a_kept_page_is_never_written() {
        let mut buffer = ReceiveBuffer::new();
        let kept = buffer.frame(100).unwrap().slices[0].clone();
        buffer.recover();
        buffer.bytes_mut();
        drop(kept);
    }
}
