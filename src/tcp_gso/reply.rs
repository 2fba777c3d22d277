//! Answers that belong to no connection: resets, and acknowledgements from half-open connections and TIME_WAIT.
//!
//! They wait here until `poll` has a device to send them to. There is room for few, and so many a second: who provokes
//! more gets none.

use alloc::collections::VecDeque;
use smoltcp::time::{Duration, Instant};

use super::segment::Path;
use super::sequence::Seq;

/// Most answers that wait.
const MAX_WAITING: usize = 256;

/// A segment without payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    /// From where to where.
    pub path: Path,
    pub seq: Seq,
    /// The acknowledgement number; meaningful with the flag.
    pub ack: Seq,
    /// TCP flags.
    pub flags: u8,
    /// Window in bytes.
    pub window: u16,
    /// TSval and TSecr.
    pub timestamp: Option<(u32, u32)>,
}

/// The answers that wait.
#[derive(Debug)]
pub(super) struct Replies {
    waiting: VecDeque<Reply>,
    per_second: u32,
    /// Beginning of the second that is being counted, and the count.
    second: (Instant, u32),
}

impl Replies {
    /// At most `per_second` answers to segments that nobody waits for.
    pub fn new(per_second: u32) -> Self {
        Self { waiting: VecDeque::with_capacity(MAX_WAITING), per_second, second: (Instant::ZERO, 0) }
    }

    /// Sends the answer at the next opportunity, or never, if there are too many.
    pub fn push(&mut self, reply: Reply) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(reply);
        }
    }

    /// As [`Replies::push`], for an answer that anybody can provoke.
    pub fn push_limited(&mut self, reply: Reply, now: Instant) {
        let (begin, count) = &mut self.second;
        if now >= *begin + Duration::from_secs(1) || now < *begin {
            *begin = now;
            *count = 0;
        }
        if *count < self.per_second {
            *count += 1;
            self.push(reply);
        }
    }

    /// The answer that has waited longest.
    pub fn first(&self) -> Option<&Reply> {
        self.waiting.front()
    }

    /// The first answer was sent.
    pub fn sent(&mut self) {
        self.waiting.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Key;
    use super::*;

    #[test]
    fn answers_are_bounded_in_number_and_rate() {
        let key = Key { remote: [0; 16], local: [0; 16], remote_port: 1, local_port: 80, interface: 0, is_ipv6: false };
        let reply =
            Reply { path: Path::new(key, 0, [0; 6]), seq: Seq(0), ack: Seq(0), flags: 0, window: 0, timestamp: None };
        let mut replies = Replies::new(3);
        let drain = |replies: &mut Replies| {
            let mut count = 0;
            while replies.first().is_some() {
                replies.sent();
                count += 1;
            }
            count
        };
        (0..10).for_each(|_| replies.push_limited(reply, Instant::from_millis(500)));
        assert_eq!(drain(&mut replies), 3);
        (0..10).for_each(|_| replies.push_limited(reply, Instant::from_millis(1500)));
        assert_eq!(drain(&mut replies), 3);
        (0..10 * MAX_WAITING).for_each(|_| replies.push(reply));
        assert_eq!(drain(&mut replies), MAX_WAITING);
    }
}
