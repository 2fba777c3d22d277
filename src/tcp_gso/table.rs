//! Finding what a segment belongs to: one keyed hash over its addresses and ports, one look-up.
//!
//! Connections, half-open ones and those in TIME_WAIT live in tables of their own; this one only says where. The hash is
//! keyed (SipHash-1-3), so that nobody outside can make entries collide.

use core::hash::Hasher as _;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;

use super::sequence::Seq;
use super::{Peer, RxSegment};

/// What names a connection on the wire. IPv4 addresses fill the first four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The other side's address.
    pub remote: [u8; 16],
    /// Our address.
    pub local: [u8; 16],
    /// The other side's port.
    pub remote_port: u16,
    /// Our port.
    pub local_port: u16,
    /// The interface.
    pub interface: u8,
    /// IPv6, not IPv4.
    pub is_ipv6: bool,
}

impl Key {
    /// The key of the connection that `segment` belongs to.
    pub fn new(segment: &RxSegment<'_>) -> Self {
        let (remote, is_ipv6) = address_bytes(segment.source);
        let (local, _) = address_bytes(segment.destination);
        Self {
            remote,
            local,
            remote_port: segment.header.src_port,
            local_port: segment.header.dst_port,
            interface: segment.interface,
            is_ipv6,
        }
    }

    /// The two ends.
    pub fn peer(&self) -> Peer {
        Peer {
            address: self.address(&self.remote),
            port: self.remote_port,
            local_address: self.address(&self.local),
            local_port: self.local_port,
        }
    }

    fn address(&self, bytes: &[u8; 16]) -> IpAddress {
        match self.is_ipv6 {
            true => IpAddress::Ipv6((*bytes).into()),
            false => IpAddress::v4(bytes[0], bytes[1], bytes[2], bytes[3]),
        }
    }
}

fn address_bytes(address: IpAddress) -> ([u8; 16], bool) {
    match address {
        IpAddress::Ipv4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            (bytes, false)
        }
        IpAddress::Ipv6(address) => (address.octets(), true),
    }
}

/// The stack's keyed functions of a connection's name.
#[derive(Clone, Debug)]
pub(super) struct Secrets {
    table: SipHasher13,
    sequence: SipHasher13,
}

impl Secrets {
    /// Derives the keys from one secret.
    pub fn new(secret: [u8; 16]) -> Self {
        let derive = |label: u8| {
            let word = |half: u8| {
                let mut hasher = SipHasher13::new_with_key(&secret);
                hasher.write(&[label, half]);
                hasher.finish()
            };
            SipHasher13::new_with_keys(word(0), word(1))
        };
        Self { table: derive(0), sequence: derive(1) }
    }

    fn apply(mut hasher: SipHasher13, key: &Key) -> u64 {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let ports = u64::from(key.remote_port) | u64::from(key.local_port) << 16;
        let kind = u64::from(key.interface) << 32 | u64::from(key.is_ipv6) << 40;
        hasher.write_u64(ports | kind);
        if key.is_ipv6 {
            hasher.write_u64(word(&key.remote[..8]));
            hasher.write_u64(word(&key.remote[8..]));
            hasher.write_u64(word(&key.local[..8]));
            hasher.write_u64(word(&key.local[8..]));
        } else {
            let low = |bytes: &[u8; 16]| word(&bytes[..8]) & u64::from(u32::MAX);
            hasher.write_u64(low(&key.remote) | low(&key.local) << 32);
        }
        hasher.finish()
    }

    /// The table's hash.
    pub fn hash(&self, key: &Key) -> u32 {
        Self::apply(self.table, key) as u32
    }

    /// The initial sequence number: a clock of 4 µs and a keyed hash (RFC 6528 §3).
    pub fn initial_sequence(&self, key: &Key, now: Instant) -> Seq {
        Seq((Self::apply(self.sequence, key) as u32).wrapping_add((now.total_micros() / 4) as u32))
    }

    /// What is added to the millisecond clock for a connection's timestamps (RFC 7323 §5.4, §7.1): the same for every
    /// incarnation of a connection, so that its timestamps never go back.
    pub fn timestamp_offset(&self, key: &Key) -> u32 {
        (Self::apply(self.sequence, key) >> 32) as u32
    }
}

/// Where a segment's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An entry of the connection table.
    Connection(u32),
    /// An entry of the listener.
    HalfOpen(u32),
    /// An entry of TIME_WAIT.
    TimeWait(u32),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    place: Place,
}

/// From names to places.
#[derive(Debug, Default)]
pub(super) struct Table(HashTable<Entry>);

/// Spreads a hash over the 64 bits that [`HashTable`] uses (it looks at the lowest and at the highest).
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl Table {
    /// The place whose name `is_named` recognises, among those with this hash.
    pub fn find(&self, hash: u32, mut is_named: impl FnMut(Place) -> bool) -> Option<Place> {
        self.0.find(spread(hash), |entry| entry.hash == hash && is_named(entry.place)).map(|entry| entry.place)
    }

    /// Enters a place that is not in the table.
    pub fn insert(&mut self, hash: u32, place: Place) {
        self.0.insert_unique(spread(hash), Entry { hash, place }, |entry| spread(entry.hash));
    }

    /// The connection has moved from one place to another.
    pub fn relocate(&mut self, hash: u32, from: Place, to: Place) {
        match self.0.find_mut(spread(hash), |entry| entry.place == from) {
            Some(entry) => entry.place = to,
            None => debug_assert!(false, "{from:?} is not in the table"),
        }
    }

    /// Forgets a place.
    pub fn remove(&mut self, hash: u32, place: Place) {
        match self.0.find_entry(spread(hash), |entry| entry.place == place) {
            Ok(entry) => drop(entry.remove()),
            Err(_) => debug_assert!(false, "{place:?} is not in the table"),
        }
    }

    /// Number of places.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(remote: IpAddress, remote_port: u16) -> Key {
        let (remote, is_ipv6) = address_bytes(remote);
        Key { remote, local: [7; 16], remote_port, local_port: 80, interface: 0, is_ipv6 }
    }

    #[test]
    fn places_are_found_moved_and_removed() {
        let mut table = Table::default();
        for i in 0..1000 {
            table.insert(i / 4, Place::Connection(i));
        }
        assert_eq!(table.find(5, |place| place == Place::Connection(22)), Some(Place::Connection(22)));
        assert_eq!(table.find(5, |place| place == Place::Connection(24)), None);
        table.relocate(5, Place::Connection(22), Place::TimeWait(1));
        assert_eq!(table.find(5, |place| place == Place::TimeWait(1)), Some(Place::TimeWait(1)));
        table.remove(5, Place::TimeWait(1));
        assert_eq!((table.find(5, |place| place == Place::TimeWait(1)), table.len()), (None, 999));
    }

    #[test]
    fn every_part_of_the_name_counts() {
        let secrets = Secrets::new([1; 16]);
        let base = key(IpAddress::v4(10, 0, 0, 1), 1000);
        let v6 = key(IpAddress::v6(0xa00, 1, 0, 0, 0, 0, 0, 0), 1000);
        let others = [
            key(IpAddress::v4(10, 0, 0, 2), 1000),
            key(IpAddress::v4(10, 0, 0, 1), 1001),
            Key { local_port: 81, ..base },
            Key { interface: 1, ..base },
            Key { local: [8; 16], ..base },
            v6,
            Key {
                remote: {
                    let mut r = v6.remote;
                    r[15] = 1;
                    r
                },
                ..v6
            },
        ];
        for (i, other) in others.iter().enumerate() {
            assert_ne!(secrets.hash(&base), secrets.hash(other));
            assert!(others[..i].iter().all(|earlier| secrets.hash(earlier) != secrets.hash(other)));
        }
        assert_ne!(secrets.hash(&base), Secrets::new([2; 16]).hash(&base));
        assert_eq!(base.peer().address, IpAddress::v4(10, 0, 0, 1));
        assert_eq!(v6.peer().address, IpAddress::v6(0xa00, 1, 0, 0, 0, 0, 0, 0));
    }

    #[test]
    fn initial_sequence_numbers_follow_the_clock() {
        let secrets = Secrets::new([1; 16]);
        let key = key(IpAddress::v4(10, 0, 0, 1), 1000);
        let first = secrets.initial_sequence(&key, Instant::from_secs(1));
        assert_eq!(secrets.initial_sequence(&key, Instant::from_secs(2)), first + 250_000);
    }
}
