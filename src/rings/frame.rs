//! Frames on their way out and in, as lists of page slices.

use arrayvec::ArrayVec;

use super::{Capabilities, PageSlice};

/// Most slices of a received frame: 18 slots that Xen guarantees a packet (`XEN_NETBK_LEGACY_SLOTS_MAX`), and one to spare
/// for the descriptor that a virtio header may occupy.
pub const MAX_RX_SLICES: usize = 19;

/// Bytes of an Ethernet header, which an MTU does not count.
const ETHERNET_HEADER_BYTES: usize = 14;

/// The IP version of a segmentation offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`, `XEN_NETIF_GSO_TYPE_TCPV4`).
    Ipv4,
    /// TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`, `XEN_NETIF_GSO_TYPE_TCPV6`).
    Ipv6,
}

/// A checksum that holds only the sum over the pseudo-header so far (virtio 1.2 §5.1.6.2: `csum_start`, `csum_offset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First summed byte, counted from the start of the Ethernet header.
    pub start: u16,
    /// Where the 16-bit sum goes, counted from `start`.
    pub offset: u16,
}

/// What the device has to finish on a frame that it transmits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing: every checksum is complete.
    None,
    /// One TCP checksum.
    Checksum(PartialChecksum),
    /// Cut the TCP payload into segments of `mss_bytes` and complete their checksums.
    Segment {
        /// Checksum of the super-frame, to be completed for each segment.
        checksum: PartialChecksum,
        /// IP version.
        family: Family,
        /// Payload bytes of each segment but the last. Never 0.
        mss_bytes: u16,
    },
}

/// A frame to transmit: headers (and, when it comes first, the response head) by value, then page slices.
///
/// The device copies `head` into memory of its own (slot 0) and keeps a reference to each slice's page until the other side
/// has completed the frame.
#[derive(Clone, Copy, Debug)]
pub struct TxFrame<'a> {
    /// From the Ethernet header on; at least the headers, at most [`super::Capabilities::head_bytes`].
    pub head: &'a [u8],
    /// What follows `head`, in order.
    pub slices: &'a [PageSlice],
    /// What is left to the device.
    pub offload: Offload,
}

impl TxFrame<'_> {
    /// Length of the whole frame in bytes, Ethernet header included.
    pub fn len(&self) -> usize {
        self.head.len() + self.slices.iter().map(PageSlice::len).sum::<usize>()
    }

    /// True for a frame without a byte (which no device takes).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ring slots that the frame takes: one for the head and one for each slice.
    pub fn slots(&self) -> usize {
        1 + self.slices.len()
    }

    /// A frame that doesn't keep to the capabilities is our own mistake: debug builds stop at it.
    pub(super) fn debug_check(&self, capabilities: &Capabilities) {
        debug_assert!(!self.head.is_empty(), "a frame without a head");
        debug_assert!(self.head.len() <= capabilities.head_bytes, "a head of {} bytes", self.head.len());
        debug_assert!(self.slots() <= capabilities.max_slots, "a frame of {} slots", self.slots());
        let single = ETHERNET_HEADER_BYTES + usize::from(capabilities.mtu_bytes);
        let (limit, checksum) = match self.offload {
            Offload::None => (single, None),
            Offload::Checksum(checksum) => (single, Some(checksum)),
            Offload::Segment { checksum, family, mss_bytes } => {
                let (offered, limit) = match family {
                    Family::Ipv4 => (capabilities.tso4, capabilities.max_frame_bytes),
                    Family::Ipv6 => (capabilities.tso6, capabilities.max_frame_bytes.min(usize::from(u16::MAX))),
                };
                debug_assert!(offered, "the device does not segment {family:?}");
                debug_assert!(mss_bytes > 0, "segments of no bytes");
                (limit, Some(checksum))
            }
        };
        debug_assert!(self.len() <= limit, "a frame of {} bytes where {limit} are the limit", self.len());
        if let Some(checksum) = checksum {
            debug_assert!(capabilities.checksum, "the device completes no checksums");
            let field = usize::from(checksum.start) + usize::from(checksum.offset);
            debug_assert!(field + 2 <= self.head.len(), "a checksum field at {field} lies behind the head");
        }
    }
}

/// What is known of a received frame's TCP/UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxChecksum {
    /// Not checked: the receiver has to.
    Unknown,
    /// The data did not cross a wire and the field holds the pseudo-header's sum only (`VIRTIO_NET_HDR_F_NEEDS_CSUM`,
    /// `NETRXF_csum_blank`): trusted content, not to be verified.
    Partial(PartialChecksum),
    /// Checked by the device (`VIRTIO_NET_HDR_F_DATA_VALID`, `NETRXF_data_validated`).
    Verified,
}

/// Segmentation state of a received frame that is larger than the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxGso {
    /// IP version.
    pub family: Family,
    /// Payload bytes of each segment that it was made of.
    pub mss_bytes: u16,
}

/// A received frame. It is lent to a callback: who wants to keep bytes copies them.
#[derive(Debug)]
pub struct RxFrame {
    /// The frame from the Ethernet header on; the device makes sure that the first slice holds all headers where the
    /// backend sent them together. Never empty.
    pub slices: ArrayVec<PageSlice, MAX_RX_SLICES>,
    /// State of the transport checksum.
    pub checksum: RxChecksum,
    /// Set on a frame that stands for several segments.
    pub gso: Option<RxGso>,
}

impl RxFrame {
    /// Length of the whole frame in bytes.
    pub fn len(&self) -> usize {
        self.slices.iter().map(PageSlice::len).sum()
    }

    /// True for a frame without a byte (which no device hands out).
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Copies the frame into `buffer` and returns the bytes written (at most `buffer.len()`).
    pub fn copy_to(&self, buffer: &mut [u8]) -> usize {
        let mut filled = 0;
        for slice in &self.slices {
            let take = slice.len().min(buffer.len() - filled);
            buffer[filled..filled + take].copy_from_slice(&slice.bytes()[..take]);
            filled += take;
        }
        filled
    }
}
