//! One direction of a ring, with event-index notifications as in Xen's `public/io/ring.h`.
//!
//! The producer puts items behind its private index and publishes them together. The consumer says with `event` at which
//! published index it wants to be told; a producer that has not crossed it since its last check stays silent. Setting `event`
//! and looking once more ([`Channel::arm`]) is what keeps a wake-up from being lost.

use alloc::collections::VecDeque;

pub(super) struct Channel<T> {
    items: VecDeque<T>,
    /// Index behind the last item that was produced.
    produced: u32,
    /// Index behind the last item that the consumer may see.
    published: u32,
    /// `published` at the producer's last check whether to notify.
    announced: u32,
    /// Index of the next item to be consumed.
    consumed: u32,
    /// The consumer wants to be told when `published` reaches this.
    event: u32,
}

impl<T> Channel<T> {
    /// An empty channel for up to `capacity` items, armed as `SHARED_RING_INIT` leaves it. Its indices begin at `start`.
    pub fn new(capacity: usize, start: u32) -> Self {
        Self {
            items: VecDeque::with_capacity(capacity),
            produced: start,
            published: start,
            announced: start,
            consumed: start,
            event: start.wrapping_add(1),
        }
    }

    /// Items that were produced and not consumed, published or not.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Items that the consumer can see.
    pub fn available(&self) -> usize {
        self.published.wrapping_sub(self.consumed) as usize
    }

    /// Produces an item that the consumer can't see yet.
    pub fn push(&mut self, item: T) {
        debug_assert!(self.items.len() < self.items.capacity(), "a ring runs over");
        self.items.push_back(item);
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the consumer everything that was produced.
    pub fn publish(&mut self) {
        self.published = self.produced;
    }

    /// Consumes the oldest published item.
    pub fn pop(&mut self) -> Option<T> {
        if self.available() == 0 {
            return None;
        }
        self.consumed = self.consumed.wrapping_add(1);
        self.items.pop_front()
    }

    /// True if the consumer asked to be told of something published since the last call (`RING_PUSH_*_AND_CHECK_NOTIFY`).
    pub fn crossed_event(&mut self) -> bool {
        let before = core::mem::replace(&mut self.announced, self.published);
        self.published.wrapping_sub(self.event) < self.published.wrapping_sub(before)
    }

    /// Asks to be told when `count` items are there. True if they are already (`RING_FINAL_CHECK_FOR_*`).
    pub fn arm(&mut self, count: usize) -> bool {
        self.event = self.consumed.wrapping_add(count as u32);
        self.available() >= count
    }

    /// Removes everything, published or not, as when the ring is torn down; the next one begins armed.
    pub fn reset(&mut self) -> impl Iterator<Item = T> + '_ {
        self.published = self.produced;
        self.announced = self.produced;
        self.consumed = self.produced;
        self.event = self.produced.wrapping_add(1);
        self.items.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_published_can_be_seen() {
        let mut channel = Channel::new(4, u32::MAX - 1);
        channel.push('a');
        assert_eq!((channel.pop(), channel.len()), (None, 1));
        channel.publish();
        channel.push('b');
        assert_eq!((channel.pop(), channel.pop()), (Some('a'), None));
        channel.publish();
        assert_eq!((channel.available(), channel.pop()), (1, Some('b')));
    }

    #[test]
    fn a_consumer_is_told_once_for_each_time_it_asked() {
        for start in [0, u32::MAX - 2, u32::MAX] {
            let mut channel = Channel::new(8, start);
            let produce = |channel: &mut Channel<u8>| {
                channel.push(0);
                channel.publish();
                channel.crossed_event()
            };
            assert!(produce(&mut channel), "a fresh ring is armed");
            assert!(!produce(&mut channel), "told already");
            assert!(channel.arm(1), "two are there");
            assert!(!produce(&mut channel), "the event lies behind");
            while channel.pop().is_some() {}
            assert!(!channel.arm(2));
            assert!(!produce(&mut channel), "one is not two");
            assert!(produce(&mut channel));
        }
    }

    #[test]
    fn a_reset_ring_is_empty_and_armed() {
        let mut channel = Channel::new(4, 7);
        channel.push(1);
        channel.publish();
        channel.push(2);
        assert!(channel.reset().eq([1, 2]));
        assert_eq!((channel.len(), channel.available()), (0, 0));
        channel.push(3);
        channel.publish();
        assert!(channel.crossed_event());
    }
}
