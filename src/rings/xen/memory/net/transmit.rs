//! Frames from the guest.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::mem::offset_of;

use zerocopy::IntoBytes;

use super::super::super::abi::net::{
    ExtraInfo, NETIF_RSP_NULL, NETIF_RSP_OKAY, NETTXF_CSUM_BLANK, NETTXF_DATA_VALIDATED, NETTXF_EXTRA_INFO,
    NETTXF_MORE_DATA, TxResponse, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4,
    XEN_NETIF_GSO_TYPE_TCPV6,
};
use super::{MemoryNetback, NetOffers};
use crate::rings::{Family, Offload, PAGE_BYTES, PartialChecksum, wire};

/// Slots that a packet may take without being taken for an attack (`XEN_NETIF_NR_SLOTS_MIN`).
const MAX_SLOTS: usize = 18;
/// Shortest packet: an Ethernet header.
const MIN_BYTES: u16 = wire::ETHERNET_BYTES as u16;
/// Longest packet that is not to be cut.
const MAX_WHOLE_BYTES: usize = wire::ETHERNET_BYTES + 1500;
const PROTOCOL_TCP: u8 = 6;
/// Where the checksum lies in a TCP header (RFC 9293 §3.1).
const TCP_CHECKSUM: u16 = 16;

/// A slot of a frame.
#[derive(Clone, Copy, Debug)]
struct Slot {
    id: u16,
    /// Where its bytes lie in the guest.
    address: usize,
    bytes: usize,
}

/// A frame of which the back end has mapped all pages, until [`MemoryNetback::complete`].
pub struct GrantedFrame {
    number: u64,
    slots: Vec<Slot>,
    /// Slots of extra infos behind the first.
    extras: usize,
    /// What the slots held when they were taken.
    bytes: Vec<u8>,
    offload: Offload,
}

impl GrantedFrame {
    /// The first slot's bytes.
    pub fn head(&self) -> &[u8] {
        &self.bytes[..self.slots[0].bytes]
    }

    /// What is left to the device.
    pub fn offload(&self) -> Offload {
        self.offload
    }

    /// The bytes of each slot, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        self.slots.iter().map(move |slot| {
            let (now, later) = rest.split_at(slot.bytes);
            rest = later;
            now
        })
    }

    /// Where each slot's bytes lie in the guest's memory, and how many they are.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.slots.iter().map(|slot| (slot.address, slot.bytes))
    }

    /// Length of the whole frame in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for GrantedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantedFrame({}: {} bytes in {} slots)", self.number, self.len(), self.slots.len())
    }
}

/// What is to be done with a frame that netback has taken for sound, where it can be.
fn offload(bytes: &[u8], flags: u16, gso: Option<ExtraInfo>, offers: &NetOffers) -> Offload {
    if flags & NETTXF_CSUM_BLANK == 0 {
        assert!(gso.is_none(), "a frame to be cut whose checksum is not left to be completed");
        assert_eq!(flags & NETTXF_DATA_VALIDATED, 0, "a frame that goes to a wire is not validated");
        return Offload::None;
    }
    assert!(flags & NETTXF_DATA_VALIDATED != 0, "with a blank checksum the data are valid");
    let (family, ip) = wire::ip_start(bytes).expect("a blank checksum is one over IP");
    let (start, protocol, offered) = match family {
        Family::Ipv4 => (ip + usize::from(bytes[ip] & 15) * 4, bytes[ip + 9], offers.checksum4),
        Family::Ipv6 => (ip + 40, bytes[ip + 6], offers.checksum6),
    };
    assert!(offered, "the back end completes no checksums over {family:?}");
    assert_eq!(protocol, PROTOCOL_TCP, "a blank checksum is one of TCP");
    let checksum = PartialChecksum { start: start as u16, offset: TCP_CHECKSUM };
    let Some(gso) = gso else { return Offload::Checksum(checksum) };
    let (offered, of) = match gso.gso_type {
        XEN_NETIF_GSO_TYPE_TCPV4 => (offers.gso4, Family::Ipv4),
        XEN_NETIF_GSO_TYPE_TCPV6 => (offers.gso6, Family::Ipv6),
        other => panic!("GSO type {other}"),
    };
    assert!(offered && family == of, "GSO of {of:?} for a frame of {family:?}, offered: {offered}");
    assert!(gso.gso_size > 0 && gso.gso_features == 0 && gso.pad == 0, "{gso:?}");
    Offload::Segment { checksum, family, mss_bytes: gso.gso_size }
}

impl MemoryNetback {
    /// The next frame that the front has published, in order. One of which the front believes by a lie that it was answered is
    /// passed over.
    ///
    /// # Panics
    /// If netback would drop it, or take the front for malicious.
    pub fn take(&mut self) -> Option<GrantedFrame> {
        loop {
            let (frame, is_whole) = self.take_one()?;
            if is_whole {
                return Some(frame);
            }
            self.unmap(frame.number);
        }
    }

    /// The next frame, and whether all of it could be mapped.
    fn take_one(&mut self) -> Option<(GrantedFrame, bool)> {
        let life = self.life.as_mut()?;
        let first = life.tx.take()?;
        let (mut extras, mut gso) = (0, None);
        let mut more = first.flags & NETTXF_EXTRA_INFO != 0;
        while more {
            let request = life.tx.take().expect("an extra info is published with its frame");
            let extra: ExtraInfo = zerocopy::FromBytes::read_from_prefix(request.as_bytes()).expect("it is shorter").0;
            assert_eq!(extra.kind, XEN_NETIF_EXTRA_TYPE_GSO, "no other extra info was offered");
            assert!(gso.replace(extra).is_none(), "two infos about GSO");
            more = extra.flags & XEN_NETIF_EXTRA_FLAG_MORE != 0;
            extras += 1;
        }
        let mut requests = vec![first];
        while requests.last().is_some_and(|last| last.flags & NETTXF_MORE_DATA != 0) {
            requests.push(life.tx.take().expect("a frame's slots are published together"));
        }
        let offers = self.offers;
        assert!(requests.len() <= MAX_SLOTS, "a frame of {} slots", requests.len());
        assert!(requests.len() == 1 || offers.scatter_gather, "scatter-gather was not offered");
        assert!(first.size >= MIN_BYTES, "a frame of {} bytes", first.size);
        let behind: usize = requests[1..].iter().map(|request| usize::from(request.size)).sum();
        let own = usize::from(first.size).checked_sub(behind).unwrap_or_else(|| {
            panic!("the first slot says {} bytes, the others have {behind}", first.size);
        });
        assert!(
            gso.is_some() || usize::from(first.size) <= MAX_WHOLE_BYTES,
            "{} bytes that are not to be cut",
            first.size
        );
        let (mut slots, mut mappings, mut bytes) = (Vec::new(), Vec::new(), vec![0; first.size.into()]);
        let mut rest = &mut bytes[..];
        let mut grants = self.bus.machine.grants.borrow_mut();
        for (index, request) in requests.iter().enumerate() {
            let length = if index == 0 { own } else { request.size.into() };
            let offset = usize::from(request.offset);
            assert!(length > 0 && offset + length <= PAGE_BYTES, "a slot of {offset}+{length} bytes");
            let known = if index == 0 { NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED | NETTXF_EXTRA_INFO } else { 0 };
            assert_eq!(request.flags & !(known | NETTXF_MORE_DATA), 0, "slot {index} has flags {:#x}", request.flags);
            let mapping = match grants.map(self.bus.back_domain, request.gref, false) {
                Ok(mapping) => mapping,
                Err(_) if life.tx.has_lied() => break,
                Err(error) => panic!("slot {index}, grant {}: {error}", request.gref),
            };
            assert!(grants.is_read_only(request.gref), "a page to be sent that the back end could write");
            let (now, later) = rest.split_at_mut(length);
            mapping.page.copy_to(offset, now);
            rest = later;
            slots.push(Slot { id: request.id, address: mapping.page.address() + offset, bytes: length });
            mappings.push(mapping);
        }
        let is_whole = slots.len() == requests.len();
        let offload = if is_whole { offload(&bytes, first.flags, gso, &offers) } else { Offload::None };
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, mappings);
        Some((GrantedFrame { number, slots, extras, bytes, offload }, is_whole))
    }

    /// Lets go of a frame's pages.
    fn unmap(&mut self, number: u64) {
        let mappings = self.taken.remove(&number).expect("it was taken");
        if self.keeps {
            self.kept.extend(mappings);
        } else {
            let mut grants = self.bus.machine.grants.borrow_mut();
            mappings.into_iter().for_each(|mapping| grants.unmap(mapping));
        }
    }

    /// Answers a frame: its pages go back to the front. Late and in any order; a frame from before a `down` is just dropped.
    pub fn complete(&mut self, frame: GrantedFrame) {
        self.complete_with(frame, NETIF_RSP_OKAY);
    }

    /// As [`MemoryNetback::complete`], with this status.
    pub fn complete_with(&mut self, frame: GrantedFrame, status: i16) {
        let Some(mappings) = self.taken.get(&frame.number) else { return };
        let mut now = Vec::with_capacity(frame.len());
        for (mapping, slot) in mappings.iter().zip(&frame.slots) {
            let start = now.len();
            now.resize(start + slot.bytes, 0);
            mapping.page.copy_to(slot.address - mapping.page.address(), &mut now[start..]);
        }
        if now != frame.bytes {
            self.violations += 1;
            debug_assert!(false, "a page was written while it was granted to the back end");
        }
        self.unmap(frame.number);
        let Some(life) = &mut self.life else { return };
        // Each slot is answered by itself; which comes first depends on when the last reference to its page went.
        let first = (frame.number % frame.slots.len() as u64) as usize;
        for index in (first..frame.slots.len()).chain(0..first) {
            life.tx.respond(TxResponse { id: frame.slots[index].id, status });
            if index == 0 {
                // Of the answer to an extra info netback writes the status alone.
                let at = offset_of!(TxResponse, status);
                (0..frame.extras).for_each(|_| life.tx.respond_at(at, NETIF_RSP_NULL.as_bytes()));
            }
        }
    }
}
