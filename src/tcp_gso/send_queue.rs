//! What is to be sent and not yet acknowledged, as slices of pages (RFC 9293 §3.3.1).
//!
//! ```text
//!      front                      cursor                    back
//!   |  slice  |  slice  |  slice  |  slice  |  slice  |  slice  |
//!       |                             |                         |
//!    SND.UNA                       SND.NXT                     end
//! ```

use alloc::collections::VecDeque;

use super::sequence::Seq;
use crate::rings::PageSlice;

/// A run of bytes in the queue.
#[derive(Debug)]
pub(super) struct Piece {
    /// The bytes.
    pub slice: PageSlice,
    /// Sequence number behind its last byte.
    end: Seq,
    /// Bytes of an object (never copied if it can be helped), as opposed to a head that the application made.
    pub is_body: bool,
}

/// Memory of a queue. Idle connections own none.
pub(super) type Storage = VecDeque<Piece>;

/// The send queue of one connection.
#[derive(Debug)]
pub(super) struct SendQueue {
    pieces: Storage,
    /// Sequence number behind the last byte queued: where FIN goes.
    end: Seq,
    /// The piece that SND.NXT lies in.
    cursor: usize,
}

impl SendQueue {
    /// An empty queue whose first byte will have the number `start`.
    pub fn new(start: Seq) -> Self {
        Self { pieces: Storage::new(), end: start, cursor: 0 }
    }

    /// Sequence number behind the last byte queued.
    pub fn end(&self) -> Seq {
        self.end
    }

    /// True if no byte is queued.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// True if the queue has no memory to put a piece into.
    pub fn needs_storage(&self) -> bool {
        self.pieces.capacity() == 0
    }

    /// Gives the queue memory, which must hold nothing.
    pub fn set_storage(&mut self, storage: Storage) {
        debug_assert!(self.pieces.is_empty() && storage.is_empty());
        self.pieces = storage;
        self.cursor = 0;
    }

    /// Takes the memory of an empty queue away, if it has any.
    pub fn take_storage(&mut self) -> Option<Storage> {
        debug_assert!(self.pieces.is_empty());
        (self.pieces.capacity() > 0).then(|| core::mem::take(&mut self.pieces))
    }

    /// Appends a slice.
    pub fn push(&mut self, slice: PageSlice, is_body: bool) {
        self.end += slice.len() as u32;
        self.pieces.push_back(Piece { slice, end: self.end, is_body });
    }

    /// Lets go of the slices that lie wholly before `una`.
    pub fn acknowledge(&mut self, una: Seq) {
        while self.pieces.front().is_some_and(|piece| piece.end <= una) {
            self.pieces.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }

    /// Lets go of everything; `end` stays where it is.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.cursor = 0;
    }

    /// SND.NXT has moved on to `nxt`.
    pub fn advance_cursor(&mut self, nxt: Seq) {
        while self.pieces.get(self.cursor).is_some_and(|piece| piece.end <= nxt) {
            self.cursor += 1;
        }
    }

    /// The pieces from the byte `seq` on, which must be queued, and its place in the first of them. At SND.UNA and SND.NXT
    /// this is immediate, elsewhere a binary search.
    pub fn pieces_from(&self, seq: Seq) -> (impl Iterator<Item = &Piece>, usize) {
        let index = match self.pieces.get(self.cursor) {
            Some(piece) if piece.end > seq && piece.end - piece.slice.len() as u32 <= seq => self.cursor,
            _ if self.pieces.front().is_some_and(|piece| piece.end > seq) => 0,
            _ => self.pieces.partition_point(|piece| piece.end <= seq),
        };
        let piece = &self.pieces[index];
        let offset = piece.slice.len() - (piece.end - seq) as usize;
        (self.pieces.range(index..), offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::PagePool;

    #[test]
    fn any_byte_is_found_across_the_wrap() {
        let pool = PagePool::new(1);
        let page = pool.allocate().unwrap();
        let start = Seq(u32::MAX - 50);
        let mut queue = SendQueue::new(start);
        for i in 0..10 {
            queue.push(page.slice(100 * i, 10 + i), i % 2 == 0);
        }
        let total: u32 = (0..10).map(|i| 10 + i).sum();
        assert_eq!(queue.end(), start + total);
        for una in [0, 7, 10, 30] {
            queue.acknowledge(start + una);
            for nxt in una..total {
                queue.advance_cursor(start + nxt);
                for at in [una, nxt, (una + nxt) / 2, total - 1] {
                    let (mut pieces, offset) = queue.pieces_from(start + at);
                    let piece = pieces.next().unwrap();
                    let begin = (0..10).map(|i| (i, (0..i).map(|j| 10 + j).sum::<u32>())).rfind(|b| b.1 <= at).unwrap();
                    assert_eq!((piece.slice.offset(), offset), (100 * begin.0 as usize, (at - begin.1) as usize));
                }
            }
            queue.cursor = 0;
        }
    }

    #[test]
    fn acknowledged_slices_let_go_of_their_page_and_the_memory_can_be_lent() {
        let pool = PagePool::new(3);
        let mut queue = SendQueue::new(Seq(0));
        assert!(queue.needs_storage());
        for _ in 0..3 {
            queue.push(pool.allocate().unwrap().slice(0, 4096), true);
        }
        queue.advance_cursor(Seq(8192));
        queue.acknowledge(Seq(4095));
        assert_eq!(pool.in_use(), 3);
        queue.acknowledge(Seq(8192));
        assert_eq!((pool.in_use(), queue.cursor), (1, 0));
        queue.clear();
        assert_eq!((pool.in_use(), queue.end()), (0, Seq(12288)));
        assert!(queue.take_storage().is_some() && queue.needs_storage() && queue.take_storage().is_none());
    }
}
