//! Received bytes that can't be handed on yet: not consumed by the application, or out of order (RFC 9293 §3.10.7.4).
//!
//! ```text
//!   base                RCV.NXT                          base + capacity
//!    |  unread, in order  |      | held |    | held |          |
//! ```
//! The bytes are kept contiguous, so that a request that came in pieces is shown whole. Buffers are borrowed from a
//! bounded pool; a connection with nothing to keep owns none.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

use super::sequence::Seq;

/// Most separate runs of out-of-order bytes in a buffer.
const MAX_HELD_RANGES: usize = 8;

/// One buffer.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    bytes: Box<[u8]>,
    /// Where the byte at `base` is.
    start: usize,
    /// Sequence number of the first unread byte.
    base: Seq,
    /// Unread bytes in order.
    unread: usize,
    /// Out-of-order runs, the one that grew last first (as RFC 2018 §4 wants them reported).
    held: ArrayVec<(Seq, Seq), MAX_HELD_RANGES>,
}

impl ReceiveBuffer {
    fn new(capacity: usize) -> Self {
        Self { bytes: vec![0; capacity].into_boxed_slice(), start: 0, base: Seq(0), unread: 0, held: ArrayVec::new() }
    }

    /// The unread bytes that are in order.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.unread]
    }

    /// RCV.NXT as far as this buffer knows.
    pub fn next(&self) -> Seq {
        self.base + self.unread as u32
    }

    /// True if nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.unread == 0 && self.held.is_empty()
    }

    /// The out-of-order runs, latest first.
    pub fn held(&self) -> &[(Seq, Seq)] {
        &self.held
    }

    /// The application has consumed `bytes` of the unread ones.
    pub fn consume(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.unread);
        self.start += bytes;
        self.base += bytes as u32;
        self.unread -= bytes;
    }

    /// Keeps bytes that arrived, from RCV.NXT or later on and within the capacity. False, and nothing kept, when that would
    /// make one run too many.
    pub fn keep(&mut self, seq: Seq, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let end = seq + bytes.len() as u32;
        debug_assert!(seq >= self.next());
        debug_assert!((end - self.base) as usize <= self.bytes.len());
        if seq > self.next() && !self.note_held(seq, end) {
            return false;
        }
        let offset = (seq - self.base) as usize;
        if self.start + offset + bytes.len() > self.bytes.len() {
            let kept = self.held.iter().map(|range| (range.1 - self.base) as usize).fold(self.unread, usize::max);
            self.bytes.copy_within(self.start..(self.start + kept).min(self.bytes.len()), 0);
            self.start = 0;
        }
        self.bytes[self.start + offset..][..bytes.len()].copy_from_slice(bytes);
        if seq == self.next() {
            self.unread += bytes.len();
            self.join_held();
        }
        true
    }

    /// Adds `left..right` to the runs, merged with those that it touches.
    fn note_held(&mut self, left: Seq, right: Seq) -> bool {
        let touches = |range: &(Seq, Seq)| range.0 <= right && left <= range.1;
        if self.held.is_full() && !self.held.iter().any(touches) {
            return false;
        }
        let mut merged = (left, right);
        self.held.retain(|range| {
            let touches = range.0 <= right && left <= range.1;
            if touches {
                merged = (merged.0.min(range.0), merged.1.max(range.1));
            }
            !touches
        });
        self.held.insert(0, merged);
        true
    }

    /// The in-order bytes have grown: runs that they reach belong to them now.
    fn join_held(&mut self) {
        while let Some(index) = self.held.iter().position(|range| range.0 <= self.next()) {
            let (_, right) = self.held.remove(index);
            self.unread += right.bytes_past(self.next()) as usize;
        }
    }
}

/// The buffers of one stack.
#[derive(Debug)]
pub(super) struct ReceiveBuffers {
    /// Boxed, so that lending one moves a pointer.
    #[expect(clippy::vec_box, reason = "a connection keeps the box")]
    free: Vec<Box<ReceiveBuffer>>,
    capacity_bytes: usize,
}

impl ReceiveBuffers {
    /// `count` buffers of `capacity_bytes`.
    pub fn new(count: usize, capacity_bytes: usize) -> Self {
        Self { free: (0..count).map(|_| Box::new(ReceiveBuffer::new(capacity_bytes))).collect(), capacity_bytes }
    }

    /// Size of a buffer in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// Lends an empty buffer whose first byte has the number `base`.
    pub fn lend(&mut self, base: Seq) -> Option<Box<ReceiveBuffer>> {
        let mut buffer = self.free.pop()?;
        buffer.start = 0;
        buffer.base = base;
        buffer.unread = 0;
        buffer.held.clear();
        Some(buffer)
    }

    /// Takes a buffer back.
    pub fn give_back(&mut self, buffer: Box<ReceiveBuffer>) {
        self.free.push(buffer);
    }

    /// How many can be lent now.
    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_is_filled_and_the_latest_run_comes_first() {
        let mut buffers = ReceiveBuffers::new(1, 100);
        let mut buffer = buffers.lend(Seq(u32::MAX - 4)).unwrap();
        assert!(buffers.lend(Seq(0)).is_none());
        let at = |i: u32| Seq(u32::MAX - 4) + i;
        assert!(buffer.keep(at(10), &[10, 11]));
        assert!(buffer.keep(at(20), &[20]));
        assert!(buffer.keep(at(12), &[12]));
        assert_eq!(buffer.held(), [(at(10), at(13)), (at(20), at(21))]);
        assert!(buffer.unread().is_empty());
        assert!(buffer.keep(at(0), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
        assert_eq!(buffer.unread(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        buffer.consume(13);
        assert_eq!((buffer.next(), buffer.is_empty()), (at(13), false));
        assert!(buffer.keep(at(13), &[13, 14, 15, 16, 17, 18, 19]));
        buffer.consume(8);
        assert!(buffer.is_empty());
        buffers.give_back(buffer);
        assert_eq!(buffers.available(), 1);
    }

    #[test]
    fn one_run_too_many_is_refused() {
        let mut buffers = ReceiveBuffers::new(1, 100);
        let mut buffer = buffers.lend(Seq(0)).unwrap();
        for i in 0..MAX_HELD_RANGES as u32 {
            assert!(buffer.keep(Seq(10 + 2 * i), &[1]));
        }
        assert!(!buffer.keep(Seq(60), &[1]));
        assert!(buffer.keep(Seq(11), &[1]), "it joins two runs");
    }

    proptest! {
        #[test]
        fn whatever_the_order_the_bytes_come_out_right(
            pieces in prop::collection::vec((0usize..64, 1usize..30, 0usize..20), 1..200), origin in any::<u32>(),
        ) {
            let stream: Vec<u8> = (0..4096u32).map(|i| (i * 7 + i / 256) as u8).collect();
            let mut buffers = ReceiveBuffers::new(1, 64);
            let mut buffer = buffers.lend(Seq(origin)).unwrap();
            let mut read = 0;
            for (ahead, length, consume) in pieces {
                let next = read + buffer.unread().len();
                let from = next + ahead / 2;
                let to = (from + length).min(read + 64);
                if from < to {
                    buffer.keep(Seq(origin) + from as u32, &stream[from..to]);
                }
                prop_assert_eq!(buffer.unread(), &stream[read..read + buffer.unread().len()]);
                prop_assert_eq!(buffer.next(), Seq(origin) + (read + buffer.unread().len()) as u32);
                let consumed = consume.min(buffer.unread().len());
                buffer.consume(consumed);
                read += consumed;
            }
        }
    }
}
