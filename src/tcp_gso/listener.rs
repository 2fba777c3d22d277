//! The SYN queue: connections whose handshake is under way (RFC 9293 §3.5, RFC 4987).
//!
//! A half-open connection is a compact entry here and costs nothing elsewhere. When the queue is full the oldest entry
//! gives way, so a flood of SYNs costs honest peers a retry and never memory.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use smoltcp::time::{Duration, Instant};

use super::links::{Links, List};
use super::sequence::Seq;
use super::table::Key;

/// Wait for the peer's acknowledgement before the SYN-ACK is sent again; doubles each time (RFC 6298 §2.1).
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// Most retries of a SYN-ACK that can be configured.
pub(super) const MAX_RETRIES: usize = 8;

/// What a SYN brought, and what we answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpen {
    /// The connection's name.
    pub key: Key,
    /// The name's hash.
    pub hash: u32,
    /// Where the peer is.
    pub remote_hardware_address: [u8; 6],
    /// ISS, our initial sequence number.
    pub iss: Seq,
    /// RCV.NXT: behind the peer's SYN.
    pub rcv_nxt: Seq,
    /// The peer's MSS option, or the default.
    pub peer_mss_bytes: u16,
    /// The peer's window scale, if it offered one.
    pub window_scale: Option<u8>,
    /// The peer permits SACK.
    pub sack_permitted: bool,
    /// TS.Recent, if the peer offered timestamps.
    pub timestamp: Option<u32>,
    /// When our SYN-ACK last went out.
    sent_at: Option<Instant>,
    /// How often it went out.
    times_sent: u8,
    /// How often the SYN-ACK was repeated.
    pub retries: u8,
    deadline: Instant,
    /// A SYN-ACK is to be sent.
    pending: bool,
    in_use: bool,
}

impl HalfOpen {
    /// An entry for a SYN that came at `now`.
    pub fn new(key: Key, hash: u32, remote_hardware_address: [u8; 6], iss: Seq, rcv_nxt: Seq, now: Instant) -> Self {
        Self {
            key,
            hash,
            remote_hardware_address,
            iss,
            rcv_nxt,
            peer_mss_bytes: 536,
            window_scale: None,
            sack_permitted: false,
            timestamp: None,
            sent_at: None,
            times_sent: 0,
            retries: 0,
            deadline: now + FIRST_TIMEOUT,
            pending: false,
            in_use: true,
        }
    }

    /// The time from our SYN-ACK to now, if it was sent only once (Karn: otherwise nobody knows which was answered).
    pub fn round_trip(&self, now: Instant) -> Option<Duration> {
        self.sent_at.filter(|_| self.times_sent == 1).map(|sent_at| now - sent_at)
    }
}

/// The half-open connections.
#[derive(Debug)]
pub(super) struct Listener {
    entries: Vec<HalfOpen>,
    free: Vec<u32>,
    links: Links,
    /// One list for each number of retries: within it all wait equally long, so it is in order of deadlines.
    order: [List; MAX_RETRIES + 1],
    /// Entries whose SYN-ACK is to be sent, oldest first; one that is gone or not pending any more is skipped.
    pending: VecDeque<u32>,
    retries: u8,
    backlog: usize,
}

impl Listener {
    /// A queue of at most `backlog` entries, whose SYN-ACKs are repeated `retries` times.
    pub fn new(backlog: usize, retries: u8) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            links: Links::default(),
            order: [List::default(); MAX_RETRIES + 1],
            pending: VecDeque::new(),
            retries: retries.min(MAX_RETRIES as u8),
            backlog: backlog.max(1),
        }
    }

    /// How many half-open connections there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// True if an entry has to give way before another is inserted.
    pub fn is_full(&self) -> bool {
        self.len() >= self.backlog
    }

    /// An entry that is in use.
    pub fn get(&self, index: u32) -> &HalfOpen {
        &self.entries[index as usize]
    }

    /// Where an entry's peer is, to be brought up to date.
    pub fn get_mut(&mut self, index: u32) -> &mut HalfOpen {
        &mut self.entries[index as usize]
    }

    /// The entry that has waited longest, more or less: one whose peer has ignored most SYN-ACKs.
    pub fn oldest(&self) -> Option<u32> {
        self.order.iter().rev().find_map(List::first)
    }

    /// Adds an entry, whose SYN-ACK is then pending, and returns its index.
    pub fn insert(&mut self, entry: HalfOpen) -> u32 {
        debug_assert!(!self.is_full());
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.links.grow(self.entries.len());
                self.entries.len() as u32 - 1
            }
        };
        self.links.push(&mut self.order[0], index);
        self.request(index);
        index
    }

    /// Removes an entry.
    pub fn remove(&mut self, index: u32) -> HalfOpen {
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.in_use);
        entry.in_use = false;
        entry.pending = false;
        self.links.remove(&mut self.order[entry.retries as usize], index);
        self.free.push(index);
        *entry
    }

    /// Has the entry's SYN-ACK sent (again).
    pub fn request(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        // Never longer than the entries: what was skipped over makes room first.
        if !entry.pending && self.pending.len() < 2 * self.backlog {
            entry.pending = true;
            self.pending.push_back(index);
        }
    }

    /// The next entry whose SYN-ACK is to be sent.
    pub fn next_pending(&mut self) -> Option<u32> {
        while let Some(&index) = self.pending.front() {
            let entry = &self.entries[index as usize];
            if entry.in_use && entry.pending {
                return Some(index);
            }
            self.pending.pop_front();
        }
        None
    }

    /// The SYN-ACK that [`Listener::next_pending`] named was sent.
    pub fn sent(&mut self, index: u32, now: Instant) {
        let entry = &mut self.entries[index as usize];
        entry.pending = false;
        entry.sent_at = Some(now);
        entry.times_sent = entry.times_sent.saturating_add(1);
        self.pending.pop_front();
    }

    /// An entry whose time is over, if its SYN-ACK was repeated often enough; others are asked for again on the way.
    pub fn next_expired(&mut self, now: Instant) -> Option<u32> {
        if self.len() == 0 {
            return None;
        }
        for retries in 0..=self.retries as usize {
            while let Some(index) = self.order[retries].first() {
                if self.get(index).deadline > now {
                    break;
                }
                if retries == self.retries as usize {
                    return Some(index);
                }
                self.links.remove(&mut self.order[retries], index);
                self.links.push(&mut self.order[retries + 1], index);
                let entry = self.get_mut(index);
                entry.retries += 1;
                entry.deadline = now + FIRST_TIMEOUT * (1 << (retries + 1));
                self.request(index);
            }
        }
        None
    }

    /// When [`Listener::next_expired`] has to be asked again.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.len() == 0 {
            return None;
        }
        self.order.iter().filter_map(|list| list.first()).map(|index| self.get(index).deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(port: u16, now_s: i64) -> HalfOpen {
        let key =
            Key { remote: [0; 16], local: [0; 16], remote_port: port, local_port: 80, interface: 0, is_ipv6: false };
        HalfOpen::new(key, port.into(), [2; 6], Seq(0), Seq(0), Instant::from_secs(now_s))
    }

    #[test]
    fn a_syn_ack_is_repeated_at_doubling_distances_and_then_given_up() {
        let mut listener = Listener::new(10, 2);
        let index = listener.insert(entry(1, 0));
        let mut sent_ms = Vec::new();
        let mut expired_ms = None;
        for now_ms in (0..20_000).step_by(100) {
            let now = Instant::from_millis(now_ms);
            if let Some(expired) = listener.next_expired(now) {
                listener.remove(expired);
                expired_ms = Some(now_ms);
            }
            while let Some(pending) = listener.next_pending() {
                assert_eq!(pending, index);
                listener.sent(pending, now);
                sent_ms.push(now_ms);
                let timed = listener.get(pending).round_trip(now + Duration::from_millis(7));
                assert_eq!(timed, (now_ms == 0).then_some(Duration::from_millis(7)), "only the first is timed");
            }
        }
        assert_eq!((sent_ms, expired_ms), (alloc::vec![0, 1000, 3000], Some(7000)));
        assert_eq!((listener.len(), listener.next_deadline()), (0, None));
    }

    #[test]
    fn the_queue_is_bounded_and_removed_entries_are_not_answered() {
        let mut listener = Listener::new(2, 2);
        let first = listener.insert(entry(1, 0));
        let second = listener.insert(entry(2, 1));
        assert!(listener.is_full());
        assert_eq!(listener.oldest(), Some(first));
        listener.remove(first);
        let third = listener.insert(entry(3, 2));
        assert_eq!(third, first, "the place is used again");
        let mut sent = Vec::new();
        while let Some(index) = listener.next_pending() {
            sent.push(listener.get(index).key.remote_port);
            listener.sent(index, Instant::from_secs(2));
        }
        assert_eq!(sent, [3, 2]);
        assert_eq!(listener.oldest(), Some(second));
    }

    #[test]
    fn repeated_requests_do_not_grow_the_queue() {
        let mut listener = Listener::new(4, 2);
        for round in 0..1000 {
            let index = listener.insert(entry(round, 0));
            listener.request(index);
            if listener.is_full() {
                let oldest = listener.oldest().unwrap();
                listener.remove(oldest);
            }
        }
        assert!(listener.pending.len() <= 8);
    }
}
