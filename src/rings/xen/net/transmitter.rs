//! The transmit ring: heads in memory that is granted once, the slices' pages as they are, granted for as long as they are in flight.
//!
//! Writing a grant and ending it is four stores and a compare-and-exchange: less than finding out whether a page is granted already.

use alloc::boxed::Box;
use alloc::rc::Rc;
use arrayvec::ArrayVec;

use super::super::abi::net::{
    ExtraInfo, NETIF_RSP_NULL, NETIF_RSP_OKAY, NETTXF_CSUM_BLANK, NETTXF_DATA_VALIDATED, NETTXF_EXTRA_INFO,
    NETTXF_MORE_DATA, TxRequest, TxResponse, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4,
    XEN_NETIF_GSO_TYPE_TCPV6,
};
use super::super::granted::GrantedMemory;
use super::super::grants::Access;
use super::super::ring::FrontRing;
use super::super::{DomainId, GrantRef, Xen, XenError};
use super::{MAX_SLOTS, RING_ENTRIES};
use crate::rings::{Family, Offload, PAGE_BYTES, Page, TxFrame};
use crate::stats::Stats;

/// Longest head of a frame.
pub(super) const HEAD_BYTES: usize = 2048;

const HEADS_PER_PAGE: usize = PAGE_BYTES / HEAD_BYTES;

/// Pages of all heads.
pub(super) const HEAD_PAGES: usize = RING_ENTRIES / HEADS_PER_PAGE;

/// What a request in flight is about, by its id.
#[derive(Debug)]
enum Slot {
    Free,
    /// The first of a frame: a head.
    Head,
    /// A page, held until the back end has answered.
    Page(GrantRef, Page),
}

pub(super) struct Transmitter {
    ring: FrontRing,
    xen: Xen,
    domain: DomainId,
    /// A head for each id.
    heads: GrantedMemory,
    slots: Box<[Slot]>,
    free: ArrayVec<u16, RING_ENTRIES>,
    /// A frame found no room since the last completion.
    starved: bool,
    stats: Rc<Stats>,
}

impl Transmitter {
    pub fn new(ring: FrontRing, xen: &Xen, domain: DomainId, stats: Rc<Stats>) -> Result<Self, XenError> {
        debug_assert_eq!(ring.entries() as usize, RING_ENTRIES);
        Ok(Self {
            ring,
            xen: xen.clone(),
            domain,
            heads: GrantedMemory::new(xen, domain, HEAD_PAGES, Access::Read)?,
            slots: (0..RING_ENTRIES).map(|_| Slot::Free).collect(),
            free: (0..RING_ENTRIES as u16).rev().collect(),
            starved: false,
            stats,
        })
    }

    pub fn ring(&mut self) -> &mut FrontRing {
        &mut self.ring
    }

    /// Grants the slices' pages. `None`, and nothing is granted, if the grant table is full (pages are in quarantine).
    fn grant(&mut self, frame: &TxFrame<'_>) -> Option<ArrayVec<GrantRef, MAX_SLOTS>> {
        let mut grants = ArrayVec::new();
        for slice in frame.slices {
            match self.xen.grant(self.domain, slice.page_address(), Access::Read) {
                Ok(grant) => grants.push(grant),
                Err(_) => {
                    // Nobody has been told of them.
                    for (grant, slice) in grants.drain(..).zip(frame.slices) {
                        drop(self.xen.end_grant(grant, slice.clone().into_page()));
                    }
                    return None;
                }
            }
        }
        Some(grants)
    }

    /// Adds a frame and returns how many entries it takes. `None` if there is no room.
    pub fn add(&mut self, frame: &TxFrame<'_>) -> Option<usize> {
        assert!(frame.slots() <= MAX_SLOTS && frame.head.len() <= HEAD_BYTES, "a frame of {} slots", frame.slots());
        let gso = match frame.offload {
            Offload::Segment { family, mss_bytes, .. } => Some((family, mss_bytes)),
            Offload::None | Offload::Checksum(_) => None,
        };
        let entries = frame.slots() + usize::from(gso.is_some());
        let has_room = entries <= self.ring.room() as usize && frame.slots() <= self.free.len();
        let Some(grants) = has_room.then(|| self.grant(frame)).flatten() else {
            self.starved = true;
            return None;
        };
        let mut flags = match frame.offload {
            Offload::None => 0,
            Offload::Checksum(_) | Offload::Segment { .. } => NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED,
        };
        flags |= if gso.is_some() { NETTXF_EXTRA_INFO } else { 0 };
        let id = self.free.pop().expect("counted above");
        let place = usize::from(id) * HEAD_BYTES;
        self.heads.memory.write(place, frame.head);
        self.slots[usize::from(id)] = Slot::Head;
        self.ring.put(TxRequest {
            gref: self.heads.reference_at(place),
            offset: (place % PAGE_BYTES) as u16,
            flags: flags | if frame.slices.is_empty() { 0 } else { NETTXF_MORE_DATA },
            id,
            // The capabilities limit it.
            size: frame.len() as u16,
        });
        if let Some((family, mss_bytes)) = gso {
            self.ring.put(extra_info(family, mss_bytes));
        }
        let last = grants.len().saturating_sub(1);
        for (at, (slice, grant)) in frame.slices.iter().zip(grants).enumerate() {
            let id = self.free.pop().expect("counted above");
            let (offset, size) = (slice.offset() as u16, slice.len() as u16);
            let flags = if at == last { 0 } else { NETTXF_MORE_DATA };
            self.ring.put(TxRequest { gref: grant.number(), offset, flags, id, size });
            self.slots[usize::from(id)] = Slot::Page(grant, slice.clone().into_page());
        }
        Some(entries)
    }

    /// Takes back what the back end has answered, and counts frames in `frames`.
    pub fn reclaim(&mut self, frames: &mut usize) -> Result<(), XenError> {
        while let Some((_, TxResponse { id, status })) = self.ring.take()? {
            self.starved = false;
            // The answer to an extra info has no id.
            if status == NETIF_RSP_NULL {
                continue;
            }
            let slot = self.slots.get_mut(usize::from(id)).ok_or(XenError::UnknownId(id.into()))?;
            let slot = core::mem::replace(slot, Slot::Free);
            self.free.extend((!matches!(slot, Slot::Free)).then_some(id));
            match slot {
                Slot::Free => return Err(XenError::UnknownId(id.into())),
                Slot::Head => {
                    *frames += 1;
                    if status != NETIF_RSP_OKAY {
                        self.stats.tx_lost.increment();
                    }
                }
                Slot::Page(grant, page) => drop(self.xen.end_grant(grant, page).ok_or(XenError::StillInUse)?),
            }
        }
        Ok(())
    }

    /// Asks for an event only when there is need for it: frames wait for room, or half the ring is out. Otherwise what has been sent
    /// is taken back with whatever happens next; until then it pins pages, but no frame waits for them. True if it has happened
    /// already.
    pub fn arm(&mut self) -> bool {
        let in_flight = self.ring.in_flight();
        let wanted = self.starved || in_flight > self.ring.entries() / 2;
        wanted && self.ring.arm((in_flight / 2).max(1))
    }
}

impl Drop for Transmitter {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Page(grant, page) = core::mem::replace(slot, Slot::Free) {
                drop(self.xen.end_grant(grant, page));
            }
        }
    }
}

fn extra_info(family: Family, mss_bytes: u16) -> ExtraInfo {
    let gso_type = match family {
        Family::Ipv4 => XEN_NETIF_GSO_TYPE_TCPV4,
        Family::Ipv6 => XEN_NETIF_GSO_TYPE_TCPV6,
    };
    ExtraInfo { kind: XEN_NETIF_EXTRA_TYPE_GSO, flags: 0, gso_size: mss_bytes, gso_type, pad: 0, gso_features: 0 }
}
