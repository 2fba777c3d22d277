//! Bytes on their way to a host socket: the appliance's own pages, and copies of the response heads between them.

use std::collections::VecDeque;
use std::io::IoSlice;

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

    /// The first bytes of the queue, as many as one `writev` takes.
    pub fn io_slices(&self) -> ArrayVec<IoSlice<'_>, MAX_IO_SLICES> {
        let mut copies = &self.copies[self.copies_done..];
        self.pieces
            .iter()
            .take(MAX_IO_SLICES)
            .map(|piece| match piece {
                Piece::Copy(length) => {
                    let (bytes, rest) = copies.split_at(*length);
                    copies = rest;
                    IoSlice::new(bytes)
                }
                Piece::Slice(slice) => IoSlice::new(slice.bytes()),
            })
            .collect()
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
                let flat: Vec<u8> = pending.io_slices().iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(flat.len(), pending.len());
                let step = step.min(flat.len());
                written.extend_from_slice(&flat[..step]);
                pending.advance(step);
            }
            assert_eq!(written, b"head0123456789second34");
            assert_eq!(pool.in_use(), 0, "what is written is let go of");
        }
    }
}
