//! Segments as they cross the border of this room: parsed on the way in, written on the way out.

use arrayvec::ArrayVec;
use smoltcp::wire::{IpAddress, TcpRepr};

use super::checksum::Sum;
use super::sequence::Seq;
use super::table::Key;
use crate::rings::{Family, MAX_RX_SLICES, Offload, PageSlice, PartialChecksum};

/// A TCP segment that arrived, parsed and with its checksum verified (or vouched for by the device). Lent for one call.
#[derive(Debug)]
pub struct RxSegment<'a> {
    /// The interface it came in by, part of a connection's key.
    pub interface: u8,
    /// The sender's MAC address: where the answer goes (the way back is the way it came).
    pub remote_hardware_address: [u8; 6],
    /// Sender.
    pub source: IpAddress,
    /// Receiver: one of our addresses.
    pub destination: IpAddress,
    /// The TCP header with its options; its `payload` is empty, see below.
    pub header: TcpRepr<'a>,
    /// The payload, in order; the sum of the lengths is the segment's length.
    pub payload: ArrayVec<&'a [u8], MAX_RX_SLICES>,
}

impl RxSegment<'_> {
    /// Payload length in bytes.
    pub fn payload_bytes(&self) -> usize {
        self.payload.iter().map(|part| part.len()).sum()
    }
}

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET_BYTES: usize = 14;
/// Bytes of a TCP header without options.
const TCP_BYTES: usize = 20;
/// Most SACK blocks that we send: what fits beside timestamps (RFC 2018 §3).
pub(super) const MAX_SACK_BLOCKS: usize = 3;
/// Longest headers: Ethernet, IPv6, and TCP with 40 bytes of options.
pub(super) const MAX_HEADER_BYTES: usize = ETHERNET_BYTES + 40 + 60;

const TTL: u8 = 64;
const PROTOCOL_TCP: u8 = 6;

/// The two ends of a connection as a header needs them, with what can be computed once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// Addresses and ports.
    pub key: Key,
    /// Sum of the words of both IP addresses.
    address_sum: u32,
    /// IPv6 flow label (RFC 6437): constant and unpredictable.
    flow_label: u32,
    /// Where the frames go.
    pub remote_hardware_address: [u8; 6],
}

impl Path {
    /// The path of the connection with this name.
    pub fn new(key: Key, hash: u32, remote_hardware_address: [u8; 6]) -> Self {
        let words = |bytes: &[u8; 16]| {
            bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>()
        };
        let address_sum = words(&key.remote) + words(&key.local);
        Self { key, address_sum, flow_label: (hash >> 12).max(1), remote_hardware_address }
    }

    /// Bytes of an IP header.
    pub fn ip_bytes(&self) -> usize {
        if self.key.is_ipv6 { 40 } else { 20 }
    }

    /// The largest segment, in bytes of TCP payload and options, that a packet of `mtu_bytes` holds.
    pub fn mss_bytes(&self, mtu_bytes: u16) -> u16 {
        mtu_bytes.saturating_sub((self.ip_bytes() + TCP_BYTES) as u16)
    }
}

/// The fields of a TCP header that vary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    pub seq: Seq,
    pub ack: Seq,
    /// FIN, SYN, RST, PSH, ACK.
    pub flags: u8,
    /// The window as it stands in the header.
    pub window: u16,
    /// TSval and TSecr.
    pub timestamp: Option<(u32, u32)>,
    /// Out-of-order data that we hold; at most [`MAX_SACK_BLOCKS`].
    pub sack: &'a [(Seq, Seq)],
    /// Options of a SYN.
    pub handshake: Option<Handshake>,
}

/// The options that only a SYN carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handshake {
    pub mss_bytes: u16,
    /// The shift of our own window.
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
}

impl Fields<'_> {
    /// Bytes that the options take, a multiple of four.
    pub fn option_bytes(&self) -> usize {
        let handshake = self.handshake.map_or(0, |handshake| {
            // SACK-permitted lies in the padding of the timestamps where there are some.
            4 + 4 * usize::from(handshake.window_scale.is_some())
                + 4 * usize::from(handshake.sack_permitted && self.timestamp.is_none())
        });
        handshake + timestamp_bytes(self.timestamp.is_some()) + sack_bytes(self.sack.len())
    }
}

/// Bytes that timestamps take.
pub(super) fn timestamp_bytes(present: bool) -> usize {
    if present { 12 } else { 0 }
}

/// Bytes that `count` SACK blocks take.
pub(super) fn sack_bytes(count: usize) -> usize {
    if count == 0 { 0 } else { 4 + 8 * count }
}

/// Bytes of all headers of a segment with these fields.
pub(super) fn header_bytes(path: &Path, fields: &Fields<'_>) -> usize {
    ETHERNET_BYTES + path.ip_bytes() + TCP_BYTES + fields.option_bytes()
}

fn put<const N: usize>(buffer: &mut [u8], at: usize, bytes: [u8; N]) {
    buffer[at..at + N].copy_from_slice(&bytes);
}

/// Writes all headers to the front of `head`, for a segment with `payload_bytes` of payload. The TCP checksum is left zero,
/// for [`seal`].
pub(super) fn write_headers(
    head: &mut [u8],
    local_hardware_address: [u8; 6],
    path: &Path,
    fields: &Fields<'_>,
    payload_bytes: usize,
) {
    let option_bytes = fields.option_bytes();
    let tcp_bytes = TCP_BYTES + option_bytes + payload_bytes;
    put(head, 0, path.remote_hardware_address);
    put(head, 6, local_hardware_address);
    if path.key.is_ipv6 {
        put(head, 12, [0x86, 0xdd]);
        put(head, 14, (6 << 28 | path.flow_label).to_be_bytes());
        let payload_bytes = u16::try_from(tcp_bytes).expect("an IPv6 packet of at most 64 KiB");
        put(head, 18, payload_bytes.to_be_bytes());
        put(head, 20, [PROTOCOL_TCP, TTL]);
        put(head, 22, path.key.local);
        put(head, 38, path.key.remote);
    } else {
        // What the field can't hold is told by 0, as Linux does for frames that are segmented before they meet a wire.
        let total_bytes = u16::try_from(20 + tcp_bytes).unwrap_or(0);
        // Don't fragment: an atomic datagram, whose identification means nothing (RFC 6864).
        let mut sum = Sum::from_words(path.address_sum);
        for word in [0x4500, total_bytes, 0x4000, u16::from_be_bytes([TTL, PROTOCOL_TCP])] {
            sum.add_word(word);
        }
        put(head, 12, [0x08, 0x00, 0x45, 0x00]);
        put(head, 16, total_bytes.to_be_bytes());
        put(head, 18, [0, 0, 0x40, 0, TTL, PROTOCOL_TCP]);
        put(head, 24, sum.complement().to_be_bytes());
        head[26..30].copy_from_slice(&path.key.local[..4]);
        head[30..34].copy_from_slice(&path.key.remote[..4]);
    }
    let tcp = &mut head[ETHERNET_BYTES + path.ip_bytes()..];
    put(tcp, 0, path.key.local_port.to_be_bytes());
    put(tcp, 2, path.key.remote_port.to_be_bytes());
    put(tcp, 4, fields.seq.0.to_be_bytes());
    put(tcp, 8, fields.ack.0.to_be_bytes());
    put(tcp, 12, [(((TCP_BYTES + option_bytes) / 4) << 4) as u8, fields.flags]);
    put(tcp, 14, fields.window.to_be_bytes());
    put(tcp, 16, [0; 4]);
    write_options(&mut tcp[TCP_BYTES..TCP_BYTES + option_bytes], fields);
}

fn write_options(options: &mut [u8], fields: &Fields<'_>) {
    const NOP: u8 = 1;
    let mut at = 0;
    let mut next = |bytes| {
        at += bytes;
        at - bytes
    };
    let mut sack_permitted = false;
    if let Some(handshake) = fields.handshake {
        let [high, low] = handshake.mss_bytes.to_be_bytes();
        put(options, next(4), [2, 4, high, low]);
        if let Some(shift) = handshake.window_scale {
            put(options, next(4), [NOP, 3, 3, shift]);
        }
        sack_permitted = handshake.sack_permitted;
        if sack_permitted && fields.timestamp.is_none() {
            put(options, next(4), [NOP, NOP, 4, 2]);
        }
    }
    if let Some((value, echo)) = fields.timestamp {
        put(options, next(4), if sack_permitted { [4, 2, 8, 10] } else { [NOP, NOP, 8, 10] });
        put(options, next(4), value.to_be_bytes());
        put(options, next(4), echo.to_be_bytes());
    }
    if !fields.sack.is_empty() {
        put(options, next(4), [NOP, NOP, 5, (2 + 8 * fields.sack.len()) as u8]);
        for (left, right) in fields.sack {
            put(options, next(4), left.0.to_be_bytes());
            put(options, next(4), right.0.to_be_bytes());
        }
    }
    debug_assert_eq!(at, options.len());
}

/// Fills in the TCP checksum of a frame whose headers [`write_headers`] wrote, and says what is left to the device.
///
/// With `offload` only the pseudo-header is summed, with the length of the whole frame also where the device segments it
/// (what Linux does, and virtio and Xen backends expect); otherwise head and slices are.
pub(super) fn seal(
    head: &mut [u8],
    slices: &[PageSlice],
    path: &Path,
    offload: bool,
    segment_mss_bytes: Option<u16>,
) -> Offload {
    let start = ETHERNET_BYTES + path.ip_bytes();
    let tcp_bytes = head.len() - start + slices.iter().map(PageSlice::len).sum::<usize>();
    let mut sum = Sum::from_words(path.address_sum);
    sum.add_word(PROTOCOL_TCP.into());
    // 32 bits long, as in Linux, where a frame is longer than a packet can be.
    sum.add_word((tcp_bytes >> 16) as u16);
    sum.add_word(tcp_bytes as u16);
    let (field, result) = if offload {
        let checksum = PartialChecksum { start: start as u16, offset: 16 };
        let family = if path.key.is_ipv6 { Family::Ipv6 } else { Family::Ipv4 };
        let offload = match segment_mss_bytes {
            Some(mss_bytes) => Offload::Segment { checksum, family, mss_bytes },
            None => Offload::Checksum(checksum),
        };
        (sum.folded(), offload)
    } else {
        debug_assert!(segment_mss_bytes.is_none(), "segmentation needs checksum offload");
        sum.add_bytes(&head[start..]);
        for slice in slices {
            sum.add_bytes(slice.bytes());
        }
        (sum.complement(), Offload::None)
    };
    put(head, start + 16, field.to_be_bytes());
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rings::PagePool;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket};

    fn path(is_ipv6: bool) -> Path {
        let mut remote = [0; 16];
        let mut local = [0; 16];
        remote[..4].copy_from_slice(&[10, 0, 0, 1]);
        local[..4].copy_from_slice(&[192, 168, 255, 254]);
        if is_ipv6 {
            remote[15] = 9;
            local[14] = 255;
        }
        let key = Key { remote, local, remote_port: 40_000, local_port: 80, interface: 0, is_ipv6 };
        Path::new(key, 0xdead_beef, [2, 0, 0, 0, 0, 1])
    }

    /// Builds a frame, completes it as a device would, and has smoltcp check it.
    fn check(is_ipv6: bool, offload: bool, fields: Fields<'_>, head_payload: &[u8], body: &[&[u8]]) {
        let pool = PagePool::new(body.len().max(1));
        let slices: alloc::vec::Vec<PageSlice> = body
            .iter()
            .map(|bytes| {
                let mut page = pool.allocate().unwrap();
                page.bytes_mut().unwrap()[5..5 + bytes.len()].copy_from_slice(bytes);
                page.slice(5, bytes.len())
            })
            .collect();
        let path = path(is_ipv6);
        let payload: alloc::vec::Vec<u8> = head_payload.iter().chain(body.iter().copied().flatten()).copied().collect();
        let headers = header_bytes(&path, &fields);
        let mut head = alloc::vec![0xee; headers];
        head.extend_from_slice(head_payload);
        write_headers(&mut head, [2, 0, 0, 0, 0, 9], &path, &fields, payload.len());
        let offload_left = seal(&mut head, &slices, &path, offload, None);
        let mut frame = head.clone();
        frame.extend_from_slice(&payload[head_payload.len()..]);
        if let Offload::Checksum(PartialChecksum { start, offset }) = offload_left {
            let mut sum = Sum::default();
            sum.add_bytes(&frame[start as usize..]);
            put(&mut frame, (start + offset) as usize, sum.complement().to_be_bytes());
        }
        assert_eq!(offload, offload_left != Offload::None);

        let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
        assert_eq!((ethernet.dst_addr().0, ethernet.src_addr().0), ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9]));
        let peer = path.key.peer();
        let tcp = if is_ipv6 {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
            let repr = Ipv6Repr::parse(&packet).unwrap();
            assert_eq!(
                (IpAddress::Ipv6(repr.src_addr), IpAddress::Ipv6(repr.dst_addr)),
                (peer.local_address, peer.address)
            );
            assert_eq!(packet.flow_label(), 0xdeadb);
            packet.payload()
        } else {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            let repr = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).unwrap();
            assert_eq!(
                (IpAddress::Ipv4(repr.src_addr), IpAddress::Ipv4(repr.dst_addr)),
                (peer.local_address, peer.address)
            );
            assert!(packet.dont_frag() && packet.ident() == 0);
            packet.payload()
        };
        let packet = TcpPacket::new_checked(tcp).unwrap();
        let repr =
            TcpRepr::parse(&packet, &peer.local_address, &peer.address, &ChecksumCapabilities::default()).unwrap();
        assert_eq!((repr.src_port, repr.dst_port, repr.payload), (80, 40_000, &payload[..]));
        assert_eq!((Seq::from(repr.seq_number), repr.ack_number.map(Seq::from)), (fields.seq, Some(fields.ack)));
        assert_eq!(repr.window_len, fields.window);
        assert_eq!(repr.timestamp.map(|t| (t.tsval, t.tsecr)), fields.timestamp);
        let sack: alloc::vec::Vec<_> = repr.sack_ranges.iter().flatten().map(|r| (Seq(r.0), Seq(r.1))).collect();
        assert_eq!(sack, fields.sack);
        match fields.handshake {
            Some(handshake) => {
                assert_eq!(repr.control, TcpControl::Syn);
                assert_eq!((repr.max_seg_size, repr.window_scale), (Some(handshake.mss_bytes), handshake.window_scale));
                assert_eq!(repr.sack_permitted, handshake.sack_permitted);
            }
            None => assert!(repr.max_seg_size.is_none() && repr.window_scale.is_none() && !repr.sack_permitted),
        }
    }

    #[test]
    fn smoltcp_reads_what_we_write() {
        let plain = Fields {
            seq: Seq(u32::MAX),
            ack: Seq(0x8000_0001),
            flags: ACK | PSH,
            window: 0xabcd,
            timestamp: None,
            sack: &[],
            handshake: None,
        };
        let stamped = Fields { timestamp: Some((1, u32::MAX)), ..plain };
        let blocks = [(Seq(5), Seq(6)), (Seq(u32::MAX), Seq(1)), (Seq(9), Seq(10))];
        for is_ipv6 in [false, true] {
            for offload in [false, true] {
                check(is_ipv6, offload, plain, b"", &[]);
                check(is_ipv6, offload, plain, b"odd", &[b"pieces", b"of", b"b", b"ody"]);
                check(is_ipv6, offload, stamped, b"", &[&[0xff; 1201], &[0xfe; 247]]);
                check(is_ipv6, offload, Fields { sack: &blocks, ..stamped }, b"x", &[]);
                check(is_ipv6, offload, Fields { sack: &blocks[..1], ..plain }, b"x", &[]);
                for window_scale in [None, Some(0)] {
                    for sack_permitted in [false, true] {
                        let handshake = Some(Handshake { mss_bytes: 1460, window_scale, sack_permitted });
                        check(is_ipv6, offload, Fields { flags: SYN | ACK, handshake, ..stamped }, b"", &[]);
                        check(is_ipv6, offload, Fields { flags: SYN | ACK, handshake, ..plain }, b"", &[]);
                    }
                }
            }
        }
    }
}
