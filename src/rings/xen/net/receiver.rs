//! The receive ring: pages that wait to be filled, and packets put together from one or more of them.

use alloc::boxed::Box;
use arrayvec::ArrayVec;

use super::super::abi::net::{
    ExtraInfo, NETRXF_CSUM_BLANK, NETRXF_DATA_VALIDATED, NETRXF_EXTRA_INFO, NETRXF_MORE_DATA, RxRequest, RxResponse,
    XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
};
use super::super::grants::Access;
use super::super::ring::FrontRing;
use super::super::{DomainId, GrantRef, Xen, XenError};
use super::{ETHERNET_BYTES, RING_ENTRIES};
use crate::rings::{Family, PAGE_BYTES, Page, PagePool, PageSlice, RxChecksum, RxFrame, RxGso, wire};

/// What a look into the ring found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing (more) yet.
    Nothing,
    /// A packet that makes no sense, or that the back end could not deliver; it is dropped.
    Malformed,
    /// [`Receiver::lent`] is a packet.
    Frame,
}

/// What the next response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The first slot of a packet.
    First,
    /// An extra info; behind the last one there may be more slots.
    Extra { more_data: bool },
    /// A further slot.
    More,
}

/// What is known of the packet that is being put together.
#[derive(Clone, Copy, Debug, Default)]
struct Packet {
    flags: u16,
    gso: Option<RxGso>,
    /// Something about it makes no sense.
    malformed: bool,
    /// Responses that it has taken.
    slots: usize,
}

/// Most responses of a packet: what Xen guarantees, and extra infos.
const MAX_PACKET_SLOTS: usize = 18 + 4;

pub(super) struct Receiver {
    ring: FrontRing,
    xen: Xen,
    domain: DomainId,
    /// Pages that the back end may write, by the index of their request.
    posted: Box<[Option<(GrantRef, Page)>]>,
    pool: PagePool,
    /// The packet being put together or lent; empty otherwise.
    pub lent: RxFrame,
    packet: Packet,
    expected: Expected,
}

impl Receiver {
    pub fn new(ring: FrontRing, xen: &Xen, domain: DomainId, pool: PagePool) -> Self {
        debug_assert_eq!(ring.entries() as usize, RING_ENTRIES);
        Self {
            ring,
            xen: xen.clone(),
            domain,
            posted: (0..RING_ENTRIES).map(|_| None).collect(),
            pool,
            lent: RxFrame { slices: ArrayVec::new(), checksum: RxChecksum::Unknown, gso: None },
            packet: Packet::default(),
            expected: Expected::First,
        }
    }

    pub fn ring(&mut self) -> &mut FrontRing {
        &mut self.ring
    }

    /// Fills the ring with pages from the pool, as far as both go.
    pub fn post(&mut self) {
        while self.ring.room() > 0 {
            let Some(page) = self.pool.allocate() else { return };
            if !self.post_page(page) {
                return;
            }
        }
    }

    /// False if the grant table is full.
    ///
    /// # Panics
    /// Without room.
    fn post_page(&mut self, page: Page) -> bool {
        let Ok(grant) = self.xen.grant(self.domain, page.address(), Access::Write) else { return false };
        let place = self.ring.next_index() as usize % RING_ENTRIES;
        self.ring.put(RxRequest { id: place as u16, pad: 0, gref: grant.number() });
        debug_assert!(self.posted[place].is_none());
        self.posted[place] = Some((grant, page));
        true
    }

    /// Posts a page again that has been returned. One that somebody kept a reference to must not be written: it goes back to its
    /// pool in time.
    fn keep(&mut self, page: Page) {
        if page.is_unique() && self.ring.room() > 0 {
            self.post_page(page);
        }
    }

    /// Posts the pages of [`Receiver::lent`] again.
    pub fn recycle(&mut self) {
        while let Some(slice) = self.lent.slices.pop() {
            self.keep(slice.into_page());
        }
    }

    /// The page of a request that has been answered, ours alone again. `None` if the back end still uses it.
    fn page_of(&mut self, index: u32) -> Option<Page> {
        let posted = self.posted[index as usize % RING_ENTRIES].take();
        let (grant, page) = posted.expect("a request in the ring has a page");
        self.xen.end_grant(grant, page)
    }

    /// Takes responses until they are a packet. After [`Next::Frame`] and [`Next::Malformed`], [`Receiver::recycle`] has to follow.
    pub fn next(&mut self) -> Result<Next, XenError> {
        loop {
            let more = match self.expected {
                Expected::First | Expected::More => {
                    let Some((index, response)) = self.ring.take::<RxResponse>()? else { return Ok(Next::Nothing) };
                    self.slot(index, response)?
                }
                Expected::Extra { more_data } => {
                    let Some((index, extra)) = self.ring.take::<ExtraInfo>()? else { return Ok(Next::Nothing) };
                    self.extra(index, extra);
                    match extra.flags & XEN_NETIF_EXTRA_FLAG_MORE {
                        0 if more_data => Some(Expected::More),
                        0 => None,
                        _ => Some(self.expected),
                    }
                }
            };
            self.packet.slots += 1;
            if let Some(expected) = more {
                if self.packet.slots > MAX_PACKET_SLOTS {
                    return Err(XenError::BadPacket("takes more slots than any does"));
                }
                self.expected = expected;
                continue;
            }
            self.expected = Expected::First;
            let packet = core::mem::take(&mut self.packet);
            return Ok(if self.finish(packet) { Next::Frame } else { Next::Malformed });
        }
    }

    /// Takes in a slot with data, and says what follows it.
    fn slot(&mut self, index: u32, response: RxResponse) -> Result<Option<Expected>, XenError> {
        let RxResponse { id, offset, flags, status } = response;
        if u32::from(id) != index % RING_ENTRIES as u32 {
            return Err(XenError::UnknownId(id.into()));
        }
        if status > 0 && usize::from(offset) + status as usize > PAGE_BYTES {
            return Err(XenError::OutsidePage { offset, bytes: status });
        }
        match self.page_of(index) {
            Some(page) if status > 0 => {
                let slice = PageSlice::new(page, offset.into(), status as usize);
                if self.lent.slices.try_push(slice).is_err() {
                    return Err(XenError::BadPacket("takes more slots than any does"));
                }
            }
            Some(page) => {
                self.packet.malformed |= status < 0;
                self.keep(page);
            }
            // What it holds could still change.
            None => return Err(XenError::StillInUse),
        }
        let more_data = flags & NETRXF_MORE_DATA != 0;
        if self.expected == Expected::First {
            self.packet.flags = flags;
            if flags & NETRXF_EXTRA_INFO != 0 {
                return Ok(Some(Expected::Extra { more_data }));
            }
        }
        Ok(more_data.then_some(Expected::More))
    }

    fn extra(&mut self, index: u32, extra: ExtraInfo) {
        if let Some(page) = self.page_of(index) {
            self.keep(page);
        }
        let family = match extra.gso_type {
            XEN_NETIF_GSO_TYPE_TCPV4 => Some(Family::Ipv4),
            XEN_NETIF_GSO_TYPE_TCPV6 => Some(Family::Ipv6),
            _ => None,
        };
        match (extra.kind, family) {
            (XEN_NETIF_EXTRA_TYPE_GSO, Some(family)) if extra.gso_size > 0 => {
                self.packet.gso = Some(RxGso { family, mss_bytes: extra.gso_size });
            }
            // No other was asked for.
            _ => self.packet.malformed = true,
        }
    }

    /// Completes [`Receiver::lent`]. False if the packet makes no sense.
    fn finish(&mut self, packet: Packet) -> bool {
        if packet.malformed || self.lent.len() < ETHERNET_BYTES {
            return false;
        }
        self.lent.gso = packet.gso;
        self.lent.checksum = if packet.flags & NETRXF_CSUM_BLANK != 0 {
            match wire::transport_checksum(self.lent.slices[0].bytes()) {
                Some(checksum) => RxChecksum::Partial(checksum),
                None => return false,
            }
        } else if packet.flags & NETRXF_DATA_VALIDATED != 0 {
            RxChecksum::Verified
        } else {
            RxChecksum::Unknown
        };
        true
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        for posted in &mut self.posted {
            if let Some((grant, page)) = posted.take() {
                drop(self.xen.end_grant(grant, page));
            }
        }
    }
}
