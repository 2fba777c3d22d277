//! The header in front of every frame, `struct virtio_net_hdr` (virtio 1.2 §5.1.6).

use super::super::features::{NET_GUEST_CSUM, NET_GUEST_ECN, NET_GUEST_TSO4, NET_GUEST_TSO6, NET_MRG_RXBUF, VERSION_1};
use crate::rings::{Family, Offload, PartialChecksum, RxChecksum, RxGso, TxFrame};

/// Bytes of the longest header.
pub(super) const MAX_HEADER_BYTES: usize = 12;
/// Bytes without `num_buffers`, as legacy devices have it that merge no buffers.
const SHORT_HEADER_BYTES: usize = 10;

/// `flags`: `csum_start` and `csum_offset` say what is left to do.
const NEEDS_CSUM: u8 = 1;
/// `flags`: the device has checked the checksum.
const DATA_VALID: u8 = 2;

/// `gso_type`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;

/// Bytes of the header where these features were agreed on.
pub(super) fn header_bytes(features: u64) -> usize {
    if features & (NET_MRG_RXBUF | VERSION_1) == 0 { SHORT_HEADER_BYTES } else { MAX_HEADER_BYTES }
}

/// The header of a frame to be sent.
pub(super) fn transmit_header(frame: &TxFrame<'_>) -> [u8; MAX_HEADER_BYTES] {
    let mut header = [0; MAX_HEADER_BYTES];
    let (checksum, segments) = match frame.offload {
        Offload::None => return header,
        Offload::Checksum(checksum) => (checksum, None),
        Offload::Segment { checksum, family, mss_bytes } => (checksum, Some((family, mss_bytes))),
    };
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&checksum.start.to_le_bytes());
    header[8..10].copy_from_slice(&checksum.offset.to_le_bytes());
    if let Some((family, mss_bytes)) = segments {
        header[1] = match family {
            Family::Ipv4 => GSO_TCPV4,
            Family::Ipv6 => GSO_TCPV6,
        };
        header[2..4].copy_from_slice(&tcp_headers_bytes(frame.head, checksum).to_le_bytes());
        header[4..6].copy_from_slice(&mss_bytes.to_le_bytes());
    }
    header
}

/// Bytes up to the end of the TCP header (`hdr_len`), by its data offset: the frame's head may hold payload too.
fn tcp_headers_bytes(head: &[u8], checksum: PartialChecksum) -> u16 {
    let start = usize::from(checksum.start);
    let tcp_bytes = head.get(start + 12).map_or(20, |byte| usize::from(byte >> 4) * 4);
    (start + tcp_bytes).min(head.len()) as u16
}

/// The header of a received frame, as the device wrote it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReceivedHeader {
    flags: u8,
    gso_type: u8,
    gso_bytes: u16,
    checksum_start: u16,
    checksum_offset: u16,
    /// Buffers that the frame takes; 1 in a short header.
    pub buffers: u16,
}

/// A frame that the header describes wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl ReceivedHeader {
    /// Takes the header from the first bytes of a frame's first buffer.
    pub fn read(bytes: &[u8; MAX_HEADER_BYTES], features: u64) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            gso_bytes: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
            buffers: if features & NET_MRG_RXBUF == 0 { 1 } else { word(10) },
        }
    }

    /// What the header says of a frame of `frame_bytes` bytes, checked against its length and what was agreed on.
    pub fn check(&self, frame_bytes: usize, features: u64) -> Result<(RxChecksum, Option<RxGso>), Malformed> {
        if frame_bytes < ETHERNET_BYTES {
            return Err(Malformed);
        }
        Ok((self.checksum(frame_bytes, features)?, self.gso(features)?))
    }

    fn checksum(&self, frame_bytes: usize, features: u64) -> Result<RxChecksum, Malformed> {
        let agreed = features & NET_GUEST_CSUM != 0;
        if self.flags & NEEDS_CSUM == 0 {
            let verified = agreed && self.flags & DATA_VALID != 0;
            return Ok(if verified { RxChecksum::Verified } else { RxChecksum::Unknown });
        }
        let start = usize::from(self.checksum_start);
        let field = start + usize::from(self.checksum_offset);
        if !agreed || start < ETHERNET_BYTES || field + 2 > frame_bytes {
            return Err(Malformed);
        }
        Ok(RxChecksum::Partial(PartialChecksum { start: self.checksum_start, offset: self.checksum_offset }))
    }

    fn gso(&self, features: u64) -> Result<Option<RxGso>, Malformed> {
        let (family, need) = match self.gso_type & !GSO_ECN {
            GSO_NONE => return Ok(None),
            GSO_TCPV4 => (Family::Ipv4, NET_GUEST_TSO4),
            GSO_TCPV6 => (Family::Ipv6, NET_GUEST_TSO6),
            _ => return Err(Malformed),
        };
        let need = need | if self.gso_type & GSO_ECN != 0 { NET_GUEST_ECN } else { 0 };
        if features & need != need || self.gso_bytes == 0 {
            return Err(Malformed);
        }
        Ok(Some(RxGso { family, mss_bytes: self.gso_bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = NET_GUEST_CSUM | NET_GUEST_TSO4 | NET_GUEST_TSO6 | NET_MRG_RXBUF | VERSION_1;

    fn check(bytes: [u8; 12], features: u64) -> Result<(RxChecksum, Option<RxGso>), Malformed> {
        ReceivedHeader::read(&bytes, features).check(100, features)
    }

    #[test]
    fn what_the_device_says_is_believed_within_what_was_agreed() {
        let partial = RxChecksum::Partial(PartialChecksum { start: 34, offset: 16 });
        let gso = RxGso { family: Family::Ipv4, mss_bytes: 1448 };
        let header = [1, 1, 0, 0, 0xa8, 5, 34, 0, 16, 0, 1, 0];
        assert_eq!(check(header, ALL), Ok((partial, Some(gso))));
        assert_eq!(check(header, ALL & !NET_GUEST_TSO4), Err(Malformed));
        assert_eq!(check(header, ALL & !NET_GUEST_CSUM), Err(Malformed));
        assert_eq!(check([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], ALL), Ok((RxChecksum::Verified, None)));
        assert_eq!(check([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], 0), Ok((RxChecksum::Unknown, None)));
    }

    #[test]
    fn nonsense_is_malformed() {
        for (header, why) in [
            ([1, 0, 0, 0, 0, 0, 13, 0, 0, 0, 1, 0], "a checksum of the Ethernet header"),
            ([1, 0, 0, 0, 0, 0, 98, 0, 1, 0, 1, 0], "a field behind the end"),
            ([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0], "a field far behind the end"),
            ([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "segments of no bytes"),
            ([0, 3, 0, 0, 100, 0, 0, 0, 0, 0, 1, 0], "UDP"),
            ([0, 0x81, 0, 0, 100, 0, 0, 0, 0, 0, 1, 0], "ECN, which was not agreed on"),
            ([0, 0x7f, 0, 0, 100, 0, 0, 0, 0, 0, 1, 0], "an unknown type"),
        ] {
            assert_eq!(check(header, ALL), Err(Malformed), "{why}");
        }
        assert_eq!(ReceivedHeader::default().check(13, ALL), Err(Malformed));
    }

    #[test]
    fn a_sent_header_counts_the_tcp_header_and_no_payload() {
        let mut head = [0_u8; 120];
        head[34 + 12] = 8 << 4;
        let checksum = PartialChecksum { start: 34, offset: 16 };
        let offload = Offload::Segment { checksum, family: Family::Ipv6, mss_bytes: 1000 };
        let header = transmit_header(&TxFrame { head: &head, slices: &[], offload });
        assert_eq!(header, [1, 4, 66, 0, 0xe8, 3, 34, 0, 16, 0, 0, 0]);
        assert_eq!(transmit_header(&TxFrame { head: &head, slices: &[], offload: Offload::None }), [0; 12]);
    }
}
