//! Bytes on their way to a host socket: the appliance's own pages, and copies of the response heads between them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use arrayvec::ArrayVec;
use minicache::rings::PageSlice;

/// Most pieces of one `writev`: 1 MiB of whole pages. (Linux takes `IOV_MAX`, 1024.)
pub const MAX_IO_SLICES: usize = 256;

enum Piece {
    /// So many of the bytes in `Pending::copies`, behind those of the pieces before.
    Copy(usize),
    /// Bytes of a page of the appliance, kept by reference.
    Slice(PageSlice),
}

/// A queue of bytes that the host socket has not taken yet.
#[derive(Default)]
pub struct Pending {
    pieces: VecDeque<Piece>,
    copies: Vec<u8>,
    /// Bytes of `copies` that have been written.
    copies_done: usize,
    bytes: usize,
}

impl Pending {
    /// Bytes in the queue.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends a copy of `bytes`.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.copies.extend_from_slice(bytes);
        self.bytes += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Copy(length)) => *length += bytes.len(),
            _ => self.pieces.push_back(Piece::Copy(bytes.len())),
        }
    }

    /// Appends a slice, by reference.
    pub fn push_slice(&mut self, slice: PageSlice) {
        self.bytes += slice.len();
        self.pieces.push_back(Piece::Slice(slice));
    }

    /// Gives the first bytes of the queue to one `writev`. Returns how many bytes it took, and whether that is all that it was
    /// given. They stay in the queue until [`Pending::advance`].
    pub fn write_to(&self, socket: &mut impl Write) -> io::Result<(usize, bool)> {
        let mut slices = ArrayVec::<IoSlice<'_>, MAX_IO_SLICES>::new();
        let mut copies = &self.copies[self.copies_done..];
        let mut given = 0;
        for piece in self.pieces.iter().take(MAX_IO_SLICES) {
            let bytes = match piece {
                Piece::Copy(length) => {
                    let (bytes, rest) = copies.split_at(*length);
                    copies = rest;
                    bytes
                }
                Piece::Slice(slice) => slice.bytes(),
            };
            given += bytes.len();
            slices.push(IoSlice::new(bytes));
        }
        let written = socket.write_vectored(&slices)?;
        Ok((written, written == given))
    }

    /// Takes the first `bytes` bytes off: they have been written.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, mut bytes: usize) {
        assert!(bytes <= self.bytes, "{bytes} bytes written of {}", self.bytes);
        self.bytes -= bytes;
        while bytes > 0 {
            let piece = self.pieces.front_mut().expect("the pieces add up to `self.bytes`");
            let length = match piece {
                Piece::Copy(length) => *length,
                Piece::Slice(slice) => slice.len(),
            };
            let done = bytes.min(length);
            bytes -= done;
            match piece {
                Piece::Copy(length) => {
                    self.copies_done += done;
                    *length -= done;
                }
                Piece::Slice(slice) if done < length => slice.advance(done),
                Piece::Slice(_) => {}
            }
            if done == length {
                self.pieces.pop_front();
            }
        }
        if self.copies_done == self.copies.len() {
            self.copies.clear();
            self.copies_done = 0;
        }
    }

    /// Forgets everything, and keeps the memory for another connection.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.copies.clear();
        self.copies_done = 0;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minicache::rings::PagePool;

    /// A socket that takes no more than `limit` bytes at a time.
    struct Sink<'a> {
        taken: &'a mut Vec<u8>,
        limit: usize,
    }

    impl Write for Sink<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let before = self.taken.len();
            self.taken.extend(slices.iter().flat_map(|slice| slice.iter()).take(self.limit));
            Ok(self.taken.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_come_out_in_order_whatever_is_written_at_a_time() {
        let pool = PagePool::new(2);
        for step in 1..40 {
            let mut page = pool.allocate().unwrap();
            page.bytes_mut().unwrap()[..10].copy_from_slice(b"0123456789");
            let mut pending = Pending::default();
            pending.push_copy(b"");
            pending.push_copy(b"he");
            pending.push_copy(b"ad");
            pending.push_slice(page.slice(0, 10));
            pending.push_copy(b"second");
            pending.push_slice(page.slice(3, 2));
            drop(page);
            let mut written = Vec::new();
            while !pending.is_empty() {
                let (bytes, all) = pending.write_to(&mut Sink { taken: &mut written, limit: step }).unwrap();
                assert_eq!((bytes, all), (step.min(pending.len()), step >= pending.len()));
                pending.advance(bytes);
            }
            assert_eq!(written, b"head0123456789second34");
            assert_eq!(pool.in_use(), 0, "what is written is let go of");
        }
    }
}
