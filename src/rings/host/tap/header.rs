//! The header that goes before each frame (virtio 1.2 §5.1.6, `struct virtio_net_hdr` of linux/virtio_net.h): what is left to
//! do on it, in the host's byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::rings::{Family, Offload, PartialChecksum, RxChecksum, RxGso, TxFrame};

/// Length of a [`Header`] in bytes.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();

/// Bytes of an Ethernet header: no checksum covers any of them.
const ETHERNET_BYTES: usize = 14;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_F_DATA_VALID`.
const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// `VIRTIO_NET_HDR_GSO_*`.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Set beside the type: the first segment's CWR is not for the others.
const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr`, without the field that counts merged buffers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct Header {
    flags: u8,
    gso_type: u8,
    /// Ethernet, IP and TCP headers together: how much of a super-frame is to be kept in one piece.
    header_bytes: u16,
    gso_bytes: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

/// What a [`Header`] says of a received frame, checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub checksum: RxChecksum,
    pub gso: Option<RxGso>,
}

impl Header {
    /// The header of a frame to transmit.
    pub fn of(frame: &TxFrame<'_>) -> Self {
        match frame.offload {
            Offload::None => Self::default(),
            Offload::Checksum(checksum) => Self::partial(checksum),
            Offload::Segment { checksum, family, mss_bytes } => Self {
                gso_type: if family == Family::Ipv4 { GSO_TCPV4 } else { GSO_TCPV6 },
                header_bytes: headers_bytes(frame.head, checksum.start.into()) as u16,
                gso_bytes: mss_bytes,
                ..Self::partial(checksum)
            },
        }
    }

    fn partial(checksum: PartialChecksum) -> Self {
        Self {
            flags: NEEDS_CHECKSUM,
            checksum_start: checksum.start,
            checksum_offset: checksum.offset,
            ..Self::default()
        }
    }

    /// What the header of a received frame of `frame_bytes` says. `None` if it makes no sense.
    pub fn check(&self, frame_bytes: usize) -> Option<Received> {
        let checksum = if self.flags & NEEDS_CHECKSUM != 0 {
            let (start, offset) = (self.checksum_start, self.checksum_offset);
            let inside = usize::from(start) + usize::from(offset) + 2 <= frame_bytes;
            if usize::from(start) < ETHERNET_BYTES || !inside {
                return None;
            }
            RxChecksum::Partial(PartialChecksum { start, offset })
        } else if self.flags & DATA_VALID != 0 {
            RxChecksum::Verified
        } else {
            RxChecksum::Unknown
        };
        let family = match self.gso_type {
            GSO_NONE => return Some(Received { checksum, gso: None }),
            kind => match kind & !GSO_ECN {
                GSO_TCPV4 => Family::Ipv4,
                GSO_TCPV6 => Family::Ipv6,
                _ => return None,
            },
        };
        let gso = RxGso { family, mss_bytes: self.gso_bytes };
        (self.gso_bytes > 0).then_some(Received { checksum, gso: Some(gso) })
    }
}

/// Where the TCP payload begins in a head whose TCP header lies at `tcp`.
fn headers_bytes(head: &[u8], tcp: usize) -> usize {
    let words = head.get(tcp + 12).map_or(0, |offset| usize::from(offset >> 4));
    (tcp + 4 * words).min(head.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = Header> {
        // Small numbers too, so that what is valid comes up.
        let number = || prop_oneof![0..200_u16, any::<u16>()];
        let kind = prop_oneof![Just(0_u8), Just(1), Just(4), Just(0x81), Just(0x84), any::<u8>()];
        (0..4_u8, kind, number(), number(), number(), number()).prop_map(
            |(flags, gso_type, header_bytes, gso_bytes, checksum_start, checksum_offset)| Header {
                flags,
                gso_type,
                header_bytes,
                gso_bytes,
                checksum_start,
                checksum_offset,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_believed_lies_in_the_frame(header in any_header(), frame_bytes in 1..400_usize) {
            let bytes: [u8; HEADER_BYTES] = zerocopy::transmute!(header);
            let read = Header::read_from_bytes(&bytes).unwrap();
            prop_assert_eq!(read, header);
            let sound = |start: u16, offset: u16| {
                start >= 14 && usize::from(start) + usize::from(offset) <= frame_bytes.saturating_sub(2)
            };
            match header.check(frame_bytes) {
                Some(Received { checksum, gso }) => {
                    match checksum {
                        RxChecksum::Partial(PartialChecksum { start, offset }) => {
                            prop_assert!(header.flags & 1 == 1 && sound(start, offset));
                        }
                        RxChecksum::Verified => prop_assert_eq!(header.flags, 2),
                        RxChecksum::Unknown => prop_assert_eq!(header.flags, 0),
                    }
                    match gso {
                        None => prop_assert_eq!(header.gso_type, 0),
                        Some(gso) => {
                            prop_assert!(gso.mss_bytes > 0 && gso.mss_bytes == header.gso_bytes);
                            prop_assert_eq!(header.gso_type & 0x7f, if gso.family == Family::Ipv4 { 1 } else { 4 });
                        }
                    }
                }
                None => {
                    let bad_sum = header.flags & 1 == 1 && !sound(header.checksum_start, header.checksum_offset);
                    let bad_kind = header.gso_type != 0 && ![1, 4].contains(&(header.gso_type & 0x7f));
                    prop_assert!(bad_sum || bad_kind || header.gso_type != 0 && header.gso_bytes == 0);
                }
            }
        }

        #[test]
        fn what_is_sent_says_what_was_asked(start in 34..60_u16, words in 5..16_u8, mss_bytes in 1..9000_u16, v4 in any::<bool>()) {
            let mut head = [0; 200];
            head[usize::from(start) + 12] = words << 4;
            let checksum = PartialChecksum { start, offset: 16 };
            let family = if v4 { Family::Ipv4 } else { Family::Ipv6 };
            let frame = TxFrame { head: &head, slices: &[], offload: Offload::Segment { checksum, family, mss_bytes } };
            let header = Header::of(&frame);
            prop_assert_eq!(usize::from(header.header_bytes), usize::from(start) + 4 * usize::from(words));
            let expected = Received { checksum: RxChecksum::Partial(checksum), gso: Some(RxGso { family, mss_bytes }) };
            prop_assert_eq!(header.check(frame.len()), Some(expected));

            let header = Header::of(&TxFrame { offload: Offload::Checksum(checksum), ..frame });
            let expected = Received { checksum: RxChecksum::Partial(checksum), gso: None };
            prop_assert_eq!(header.check(frame.len()), Some(expected));
            prop_assert_eq!(Header::of(&TxFrame { offload: Offload::None, ..frame }), Header::default());
        }
    }

    #[test]
    fn a_checksum_field_ends_where_the_frame_does_at_the_latest() {
        let partial = |start, offset| Header::partial(PartialChecksum { start, offset });
        assert!(partial(34, 16).check(52).is_some());
        assert_eq!(partial(34, 16).check(51), None);
        assert!(partial(14, 0).check(16).is_some());
        assert_eq!(partial(13, 1).check(100), None);
        assert_eq!(partial(u16::MAX, u16::MAX).check(70_000), None);
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let header = Header {
            flags: 1,
            gso_type: 4,
            header_bytes: 0x0102,
            gso_bytes: 0x0304,
            checksum_start: 0x0506,
            checksum_offset: 0x0708,
        };
        let words = [0x0102_u16, 0x0304, 0x0506, 0x0708].map(u16::to_ne_bytes).concat();
        assert_eq!(header.as_bytes(), [&[1, 4], words.as_slice()].concat());
        assert_eq!(HEADER_BYTES, 10);
    }
}
