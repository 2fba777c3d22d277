//! A bounded queue of frames in memory of its own, allocated once.

use alloc::boxed::Box;
use alloc::vec;

/// Frames in order of arrival. A frame larger than a slot, or one more than there are slots, is refused.
pub(super) struct FrameQueue {
    memory: Box<[u8]>,
    lengths: Box<[usize]>,
    slot_bytes: usize,
    /// The oldest frame's slot.
    head: usize,
    count: usize,
}

impl FrameQueue {
    /// Room for `slots` frames of up to `slot_bytes` bytes.
    pub fn new(slots: usize, slot_bytes: usize) -> Self {
        assert!(slots > 0 && slot_bytes > 0, "a queue of {slots} frames of {slot_bytes} bytes");
        Self {
            memory: vec![0; slots * slot_bytes].into_boxed_slice(),
            lengths: vec![0; slots].into_boxed_slice(),
            slot_bytes,
            head: 0,
            count: 0,
        }
    }

    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn is_full(&self) -> bool {
        self.count == self.lengths.len()
    }

    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Room for a frame of `length` bytes at the end of the queue, to be filled by the caller.
    pub fn push(&mut self, length: usize) -> Option<&mut [u8]> {
        if self.is_full() || length > self.slot_bytes {
            return None;
        }
        let slot = (self.head + self.count) % self.lengths.len();
        self.lengths[slot] = length;
        self.count += 1;
        Some(&mut self.memory[slot * self.slot_bytes..][..length])
    }

    /// The oldest frame.
    pub fn front(&self) -> Option<&[u8]> {
        (self.count > 0).then(|| &self.memory[self.head * self.slot_bytes..][..self.lengths[self.head]])
    }

    /// Forgets the oldest frame.
    pub fn pop(&mut self) {
        if self.count > 0 {
            self.head = (self.head + 1) % self.lengths.len();
            self.count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_order_and_the_bounds_hold() {
        let mut queue = FrameQueue::new(3, 10);
        for round in 0..7_u8 {
            for i in 0..3 {
                queue.push(usize::from(i) + 1).unwrap().fill(round * 3 + i);
            }
            assert!(queue.is_full() && queue.push(1).is_none());
            for i in 0..3 {
                assert_eq!(queue.front().unwrap(), vec![round * 3 + i; usize::from(i) + 1]);
                queue.pop();
                // Keeps the head moving, so that every slot is the first once.
                if i == 0 {
                    queue.push(1).unwrap().fill(0);
                }
            }
            queue.pop();
            assert!(queue.is_empty() && queue.front().is_none());
        }
        assert!(queue.push(11).is_none(), "larger than a slot");
        assert!(queue.push(10).is_some());
    }
}
