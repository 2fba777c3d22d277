//! What a network interface with offloads does to a frame before it reaches the wire: completes checksums, cuts
//! super-frames into segments.
//!
//! It is as strict as the hardware is blind: what a real device would turn into garbage on the wire is an assertion here.
//! The arithmetic is its own, so that a mistake of the appliance's can't cancel itself out.

use minicache::rings::{Family, Offload, PartialChecksum};

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
/// Where the checksum lies in a TCP header (RFC 9293 §3.1).
const TCP_CHECKSUM: usize = 16;
const PROTOCOL_TCP: u8 = 6;
const FLAG_FIN: u8 = 0x01;
const FLAG_PSH: u8 = 0x08;
const FLAG_CWR: u8 = 0x80;

/// Where the headers of a TCP frame lie.
struct Layout {
    family: Family,
    /// Start of the TCP header.
    tcp: usize,
    /// Start of the payload.
    payload: usize,
}

impl Layout {
    /// The layout of a frame that claims to be TCP over `ETHERNET_BYTES` of Ethernet and IP.
    fn of(frame: &[u8]) -> Self {
        let ip = &frame[ETHERNET_BYTES..];
        let (family, tcp) = match u16::from_be_bytes([frame[12], frame[13]]) {
            0x0800 => {
                assert_eq!((ip[0] >> 4, ip[9]), (4, PROTOCOL_TCP), "IPv4 and TCP");
                (Family::Ipv4, ETHERNET_BYTES + usize::from(ip[0] & 15) * 4)
            }
            0x86dd => {
                assert_eq!((ip[0] >> 4, ip[6]), (6, PROTOCOL_TCP), "IPv6 and TCP");
                (Family::Ipv6, ETHERNET_BYTES + 40)
            }
            other => panic!("an offload for EtherType {other:04x}"),
        };
        Self { family, tcp, payload: tcp + usize::from(frame[tcp + 12] >> 4) * 4 }
    }

    /// Ones' complement sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) for `tcp_bytes` of TCP.
    fn pseudo_header_sum(&self, frame: &[u8], tcp_bytes: usize) -> u16 {
        let addresses = match self.family {
            Family::Ipv4 => &frame[ETHERNET_BYTES + 12..ETHERNET_BYTES + 20],
            Family::Ipv6 => &frame[ETHERNET_BYTES + 8..ETHERNET_BYTES + 40],
        };
        let length = (tcp_bytes as u32).to_be_bytes();
        fold(sum(addresses) + sum(&length) + u32::from(PROTOCOL_TCP))
    }

    /// Corrects the IP length, identification and header checksum of one segment.
    fn set_ip_length(&self, segment: &mut [u8], index: u16) {
        let bytes = segment.len() - ETHERNET_BYTES;
        match self.family {
            Family::Ipv4 => {
                let ip = &mut segment[ETHERNET_BYTES..self.tcp];
                ip[2..4].copy_from_slice(&u16::try_from(bytes).expect("an IPv4 length").to_be_bytes());
                let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index);
                ip[4..6].copy_from_slice(&identification.to_be_bytes());
                ip[10..12].fill(0);
                let checksum = !fold(sum(ip));
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            Family::Ipv6 => {
                let payload_bytes = u16::try_from(bytes - 40).expect("an IPv6 length");
                segment[ETHERNET_BYTES + 4..ETHERNET_BYTES + 6].copy_from_slice(&payload_bytes.to_be_bytes());
            }
        }
    }

    /// The IP packet's length as its header says.
    fn ip_length(&self, frame: &[u8]) -> usize {
        let ip = &frame[ETHERNET_BYTES..];
        match self.family {
            Family::Ipv4 => usize::from(u16::from_be_bytes([ip[2], ip[3]])),
            Family::Ipv6 => 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])),
        }
    }
}

/// The frames that appear on the wire for one frame given to the device.
pub fn wire_frames(mut frame: Vec<u8>, offload: Offload) -> Vec<Vec<u8>> {
    match offload {
        Offload::None => vec![frame],
        Offload::Checksum(partial) => {
            check_partial(&frame, partial);
            complete(&mut frame, partial);
            vec![frame]
        }
        Offload::Segment { checksum, family, mss_bytes } => {
            check_partial(&frame, checksum);
            assert_eq!(Layout::of(&frame).family, family, "the offload's family and the EtherType");
            segment(&frame, checksum, usize::from(mss_bytes))
        }
    }
}

/// Turns a frame with a right TCP checksum into one whose checksum is left to be completed, as a guest on the same machine
/// sends it.
pub fn to_partial(frame: &mut [u8]) -> PartialChecksum {
    let layout = Layout::of(frame);
    let end = ETHERNET_BYTES + layout.ip_length(frame);
    let pseudo = layout.pseudo_header_sum(frame, end - layout.tcp);
    frame[layout.tcp + TCP_CHECKSUM..][..2].copy_from_slice(&pseudo.to_be_bytes());
    PartialChecksum { start: layout.tcp as u16, offset: TCP_CHECKSUM as u16 }
}

/// The device trusts these values; so they have to be right.
fn check_partial(frame: &[u8], partial: PartialChecksum) {
    let layout = Layout::of(frame);
    assert_eq!(usize::from(partial.start), layout.tcp, "csum_start is where TCP begins");
    assert_eq!(usize::from(partial.offset), TCP_CHECKSUM, "csum_offset is TCP's");
    assert_eq!(layout.ip_length(frame), frame.len() - ETHERNET_BYTES, "IP's length and the frame's");
    let field = u16::from_be_bytes([frame[layout.tcp + TCP_CHECKSUM], frame[layout.tcp + TCP_CHECKSUM + 1]]);
    let expected = layout.pseudo_header_sum(frame, frame.len() - layout.tcp);
    assert_eq!(field, expected, "the field holds the pseudo-header's sum");
}

/// Sums from `start` on, with what the field holds, into the field.
fn complete(frame: &mut [u8], partial: PartialChecksum) {
    let start = usize::from(partial.start);
    let field = start + usize::from(partial.offset);
    let checksum = !fold(sum(&frame[start..]));
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Cuts a super-frame as Linux's `tcp_gso_segment` and hardware do: sequence numbers and IPv4 identifications count up, FIN
/// and PSH go to the last segment and CWR to the first.
fn segment(frame: &[u8], checksum: PartialChecksum, mss_bytes: usize) -> Vec<Vec<u8>> {
    assert!(mss_bytes > 0, "segments of no bytes");
    let layout = Layout::of(frame);
    let (head, payload) = frame.split_at(layout.payload);
    assert!(!payload.is_empty(), "a super-frame without payload");
    let count = payload.len().div_ceil(mss_bytes);
    let sequence = u32::from_be_bytes(head[layout.tcp + 4..layout.tcp + 8].try_into().expect("four bytes"));
    let cut = |(index, part): (usize, &[u8])| {
        let mut segment = [head, part].concat();
        layout.set_ip_length(&mut segment, index as u16);
        let tcp = &mut segment[layout.tcp..];
        tcp[4..8].copy_from_slice(&sequence.wrapping_add((index * mss_bytes) as u32).to_be_bytes());
        if index + 1 < count {
            tcp[13] &= !(FLAG_FIN | FLAG_PSH);
        }
        if index > 0 {
            tcp[13] &= !FLAG_CWR;
        }
        let tcp_bytes = tcp.len();
        let pseudo = layout.pseudo_header_sum(&segment, tcp_bytes);
        segment[layout.tcp + TCP_CHECKSUM..][..2].copy_from_slice(&pseudo.to_be_bytes());
        complete(&mut segment, checksum);
        segment
    };
    payload.chunks(mss_bytes).enumerate().map(cut).collect()
}

/// True if the frame is TCP over IP and the TCP checksum is right, as an interface that verifies would say.
pub fn tcp_checksum_is_right(frame: &[u8]) -> bool {
    if frame.len() < ETHERNET_BYTES + 40 {
        return false;
    }
    let ip = &frame[ETHERNET_BYTES..];
    let is_tcp = match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => ip[0] == 0x45 && ip[9] == PROTOCOL_TCP && fold(sum(&ip[..20])) == 0xffff,
        0x86dd => ip[0] >> 4 == 6 && ip[6] == PROTOCOL_TCP && frame.len() >= ETHERNET_BYTES + 60,
        _ => false,
    };
    if !is_tcp {
        return false;
    }
    let layout = Layout::of(frame);
    let end = ETHERNET_BYTES + layout.ip_length(frame);
    if end > frame.len() || end < layout.tcp + 20 {
        return false;
    }
    let tcp = &frame[layout.tcp..end];
    fold(sum(tcp) + u32::from(layout.pseudo_header_sum(frame, tcp.len()))) == 0xffff
}

/// Sum of big-endian 16-bit words, an odd last byte padded with zero. At most 64 KiB, so it can't overflow.
fn sum(bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let total: u32 = words.by_ref().map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    total + words.remainder().first().map_or(0, |byte| u32::from(*byte) << 8)
}

/// Folds the carries in (RFC 1071 §4.1).
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpControl,
        TcpPacket, TcpRepr, TcpSeqNumber,
    };

    const SOURCE: [IpAddress; 2] = [IpAddress::v4(10, 0, 0, 1), IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1)];
    const DESTINATION: [IpAddress; 2] = [IpAddress::v4(10, 0, 0, 2), IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2)];

    /// A frame with complete checksums, made by smoltcp.
    fn frame(version: usize, sequence: u32, payload: &[u8], control: TcpControl) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: 80,
            dst_port: 50000,
            control,
            seq_number: TcpSeqNumber(sequence as i32),
            ack_number: Some(TcpSeqNumber(77)),
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let (source, destination) = (SOURCE[version], DESTINATION[version]);
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let mut bytes = vec![0; ETHERNET_BYTES + ip.buffer_len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 2]));
        ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
        ethernet.set_ethertype([EthernetProtocol::Ipv4, EthernetProtocol::Ipv6][version]);
        let capabilities = ChecksumCapabilities::default();
        ip.emit(ethernet.payload_mut(), &capabilities);
        let start = ETHERNET_BYTES + ip.header_len();
        tcp.emit(&mut TcpPacket::new_unchecked(&mut bytes[start..]), &source, &destination, &capabilities);
        bytes
    }

    /// The same frame as the appliance would hand it to a device that finishes it.
    fn unfinished(mut frame: Vec<u8>) -> (Vec<u8>, PartialChecksum) {
        let checksum = to_partial(&mut frame);
        (frame, checksum)
    }

    #[test]
    fn completed_checksums_are_smoltcps() {
        for version in [0, 1] {
            for length in [0, 1, 2, 999, 1460] {
                let whole = frame(version, 5, &vec![0xa5; length], TcpControl::Psh);
                assert!(tcp_checksum_is_right(&whole));
                let (partial, checksum) = unfinished(whole.clone());
                assert!(!tcp_checksum_is_right(&partial));
                assert_eq!(wire_frames(partial, Offload::Checksum(checksum)), [whole]);
            }
        }
    }

    #[test]
    fn segments_are_what_smoltcp_would_have_sent() {
        let payload: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for (version, family) in [(0, Family::Ipv4), (1, Family::Ipv6)] {
            // A sequence number that wraps within the super-frame.
            let first = u32::MAX - 3000;
            let (super_frame, checksum) = unfinished(frame(version, first, &payload, TcpControl::Fin));
            let segments = wire_frames(super_frame, Offload::Segment { checksum, family, mss_bytes: 1448 });
            assert_eq!(segments.len(), 7);
            for (index, (segment, part)) in segments.iter().zip(payload.chunks(1448)).enumerate() {
                let control = if index == 6 { TcpControl::Fin } else { TcpControl::None };
                let mut expected = frame(version, first.wrapping_add(index as u32 * 1448), part, control);
                if version == 0 {
                    let mut ip = Ipv4Packet::new_unchecked(&mut expected[ETHERNET_BYTES..]);
                    ip.set_ident(index as u16);
                    ip.fill_checksum();
                }
                assert_eq!(segment, &expected, "segment {index} of family {family:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "pseudo-header")]
    fn a_wrong_pseudo_header_sum_is_found() {
        let (mut frame, checksum) = unfinished(frame(0, 5, &[1; 100], TcpControl::None));
        frame[ETHERNET_BYTES + 20 + TCP_CHECKSUM] ^= 1;
        wire_frames(frame, Offload::Checksum(checksum));
    }
}
