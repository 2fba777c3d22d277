//! Connections that have ended but whose last segments may still be about (RFC 9293 §3.6.1, RFC 6191), in compact form.
//!
//! All wait equally long, so the list in order of entry is also that of expiry.

use alloc::vec::Vec;
use smoltcp::time::{Duration, Instant};

use super::links::{Links, List};
use super::sequence::Seq;
use super::table::Key;

/// What must be remembered of an ended connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeWait {
    /// Its name.
    pub key: Key,
    /// The name's hash.
    pub hash: u32,
    /// SND.NXT: behind our FIN.
    pub snd_nxt: Seq,
    /// RCV.NXT: behind the peer's FIN.
    pub rcv_nxt: Seq,
    /// TS.Recent and our timestamps' offset, if timestamps were in use.
    pub timestamps: Option<(u32, u32)>,
    /// When it is over.
    pub expires_at: Instant,
}

impl TimeWait {
    /// True if a SYN with this number and timestamp belongs to a new connection and to no old duplicate (RFC 6191 §2,
    /// RFC 9293 §3.10.7.4).
    pub fn may_be_reused_by(&self, seq: Seq, timestamp: Option<u32>) -> bool {
        match (self.timestamps, timestamp) {
            (Some((recent, _)), Some(value)) if value != recent => value.wrapping_sub(recent) as i32 > 0,
            _ => seq > self.rcv_nxt,
        }
    }
}

/// The connections in TIME_WAIT.
#[derive(Debug, Default)]
pub(super) struct TimeWaits {
    entries: Vec<TimeWait>,
    free: Vec<u32>,
    links: Links,
    order: List,
}

impl TimeWaits {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// An entry that is in use.
    pub fn get(&self, index: u32) -> &TimeWait {
        &self.entries[index as usize]
    }

    /// Adds an entry and returns its index.
    pub fn insert(&mut self, entry: TimeWait) -> u32 {
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
        self.links.push(&mut self.order, index);
        index
    }

    /// Removes an entry.
    pub fn remove(&mut self, index: u32) -> TimeWait {
        self.links.remove(&mut self.order, index);
        self.free.push(index);
        self.entries[index as usize]
    }

    /// The peer has sent its FIN again: the wait begins anew.
    pub fn restart(&mut self, index: u32, now: Instant, duration: Duration) {
        self.links.remove(&mut self.order, index);
        self.links.push(&mut self.order, index);
        self.entries[index as usize].expires_at = now + duration;
    }

    /// The entry that ends first.
    pub fn oldest(&self) -> Option<u32> {
        self.order.first()
    }

    /// When the oldest entry ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.oldest().map(|index| self.get(index).expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(expires_at_s: i64) -> TimeWait {
        TimeWait {
            key: Key { remote: [0; 16], local: [0; 16], remote_port: 1, local_port: 80, interface: 0, is_ipv6: false },
            hash: 0,
            snd_nxt: Seq(1),
            rcv_nxt: Seq(1000),
            timestamps: None,
            expires_at: Instant::from_secs(expires_at_s),
        }
    }

    #[test]
    fn only_a_newer_syn_reuses_the_name() {
        let plain = entry(60);
        assert!(plain.may_be_reused_by(Seq(1001), None) && plain.may_be_reused_by(Seq(1001), Some(5)));
        assert!(!plain.may_be_reused_by(Seq(1000), None) && !plain.may_be_reused_by(Seq(999), None));
        let stamped = TimeWait { timestamps: Some((u32::MAX, 0)), ..plain };
        assert!(stamped.may_be_reused_by(Seq(5), Some(1)), "a newer timestamp, across the wrap");
        assert!(!stamped.may_be_reused_by(Seq(2000), Some(u32::MAX - 1)));
        assert!(stamped.may_be_reused_by(Seq(2000), Some(u32::MAX)), "the same timestamp: the sequence number decides");
        assert!(!stamped.may_be_reused_by(Seq(5), None));
    }

    #[test]
    fn the_oldest_goes_first_and_a_restart_makes_young() {
        let mut waits = TimeWaits::default();
        let indices: Vec<u32> = (0..3).map(|i| waits.insert(entry(60 + i))).collect();
        waits.restart(indices[0], Instant::from_secs(10), Duration::from_secs(60));
        assert_eq!(waits.oldest(), Some(indices[1]));
        assert_eq!(waits.next_deadline(), Some(Instant::from_secs(61)));
        waits.remove(indices[1]);
        assert_eq!((waits.len(), waits.oldest()), (2, Some(indices[2])));
        assert_eq!(waits.insert(entry(99)), indices[1]);
    }
}
