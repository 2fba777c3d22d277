//! Frames to the guest.

use alloc::vec::Vec;

use super::super::super::abi::net::{
    ExtraInfo, NETRXF_CSUM_BLANK, NETRXF_DATA_VALIDATED, NETRXF_EXTRA_INFO, NETRXF_MORE_DATA, RxRequest, RxResponse,
    XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
};
use super::{Life, MemoryNetback};
use crate::rings::{Family, Full, MAX_RX_SLICES, Offload, RxChecksum, RxGso, wire};

impl MemoryNetback {
    /// Copies a frame, given in parts, into pages that the front has posted. `Full` if there are too few now, or the device is
    /// not connected; nothing is changed then.
    ///
    /// A checksum that the front does not want to see blank is completed before.
    ///
    /// # Panics
    /// If the frame is empty or takes more than [`MAX_RX_SLICES`] pages, or the front has not asked for such frames.
    pub fn deliver(&mut self, parts: &[&[u8]], checksum: RxChecksum, gso: Option<RxGso>) -> Result<(), Full> {
        let (offset, room) = (self.config.rx_offset, self.config.rx_bytes);
        let Some(life) = &mut self.life else { return Err(Full) };
        let mut frame = parts.concat();
        let pages = frame.len().div_ceil(room);
        assert!((1..=MAX_RX_SLICES).contains(&pages), "a frame of {} bytes takes {pages} pages", frame.len());
        assert!(pages == 1 || life.wishes.scatter_gather, "the front takes no frames of several slots");
        let slots = (pages + usize::from(gso.is_some())) as u32;
        if life.rx.available() < slots {
            life.rx_wanted = slots;
            return Err(Full);
        }
        life.rx_wanted = 0;
        let mut flags = life.checksum_flags(&mut frame, checksum);
        let mut extra = gso.map(|gso| life.extra_info(gso));
        if extra.is_some() {
            flags |= NETRXF_EXTRA_INFO;
        }
        let mut grants = self.bus.machine.grants.borrow_mut();
        for (index, piece) in frame.chunks(room).enumerate() {
            let request = life.rx.take().expect("counted above");
            let mapping = grants.map(self.bus.back_domain, request.gref, true);
            let mapping = mapping.unwrap_or_else(|error| panic!("a posted page, grant {}: {error}", request.gref));
            mapping.page.copy_from(offset, piece);
            grants.unmap(mapping);
            let more = if index + 1 < pages { NETRXF_MORE_DATA } else { 0 };
            let status = piece.len() as i16;
            life.rx.respond(RxResponse { id: request.id, offset: offset as u16, flags: flags | more, status });
            flags = 0;
            if let Some(extra) = extra.take() {
                // It stands in the place of a request, whose page the front must find by that place.
                life.rx.take().expect("counted above");
                life.rx.respond(extra);
            }
        }
        Ok(())
    }

    /// Answers the next posted page with an error, as when it could not be written.
    pub fn fail_rx(&mut self, status: i16) -> bool {
        let Some(life) = &mut self.life else { return false };
        let Some(RxRequest { id, .. }) = life.rx.take() else { return false };
        life.rx.respond(RxResponse { id, offset: 0, flags: 0, status });
        true
    }

    /// Puts an extra info of any kind in the place of the next posted page's answer.
    pub fn lie_rx_extra(&mut self, extra: ExtraInfo) -> bool {
        let Some(life) = &mut self.life else { return false };
        let taken = life.rx.take().is_some();
        if taken {
            life.rx.lie().respond(extra);
        }
        taken
    }
}

impl Life {
    fn checksum_flags(&self, frame: &mut Vec<u8>, checksum: RxChecksum) -> u16 {
        match checksum {
            RxChecksum::Unknown => 0,
            RxChecksum::Verified => NETRXF_DATA_VALIDATED,
            RxChecksum::Partial(partial) => {
                let wanted = match wire::ip_start(frame) {
                    Some((Family::Ipv4, _)) => self.wishes.checksum4,
                    Some((Family::Ipv6, _)) => self.wishes.checksum6,
                    None => panic!("a partial checksum over no IP"),
                };
                if wanted {
                    return NETRXF_CSUM_BLANK | NETRXF_DATA_VALIDATED;
                }
                let mut whole = Vec::with_capacity(frame.len());
                let offload = Offload::Checksum(partial);
                let done = wire::wire_frames(frame, offload, &mut |done| whole.extend_from_slice(done));
                done.expect("a sound frame");
                *frame = whole;
                NETRXF_DATA_VALIDATED
            }
        }
    }

    fn extra_info(&self, gso: RxGso) -> ExtraInfo {
        let (wanted, gso_type) = match gso.family {
            Family::Ipv4 => (self.wishes.gso4, XEN_NETIF_GSO_TYPE_TCPV4),
            Family::Ipv6 => (self.wishes.gso6, XEN_NETIF_GSO_TYPE_TCPV6),
        };
        assert!(wanted, "the front takes no frames that stand for several over {:?}", gso.family);
        ExtraInfo { kind: XEN_NETIF_EXTRA_TYPE_GSO, gso_size: gso.mss_bytes, gso_type, ..ExtraInfo::default() }
    }
}
