//! A network interface with offloads: what it is told of a frame is checked before it finishes it.
//!
//! It is as strict as the hardware is blind: what a real device would turn into garbage on the wire is an assertion here.
//! The arithmetic of the checks is its own, so that a mistake of the appliance's can't cancel itself out; what is cut is
//! judged by the clients, which are smoltcp.

use minicache::rings::{Family, Offload, PartialChecksum, wire};

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
/// Where the checksum lies in a TCP header (RFC 9293 §3.1).
const TCP_CHECKSUM: usize = 16;
const PROTOCOL_TCP: u8 = 6;

/// Where the headers of a TCP frame lie.
struct Layout {
    family: Family,
    /// Start of the TCP header.
    tcp: usize,
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
        Self { family, tcp }
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
        Offload::None => {}
        Offload::Checksum(partial) => check_partial(&frame, partial),
        Offload::Segment { checksum, family, .. } => {
            check_partial(&frame, checksum);
            assert_eq!(Layout::of(&frame).family, family, "the offload's family and the EtherType");
        }
    }
    let mut frames = Vec::new();
    wire::wire_frames(&mut frame, offload, &mut |frame| frames.push(frame.to_vec())).expect("a sound frame");
    frames
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
        EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket,
        TcpRepr, TcpSeqNumber,
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
    #[should_panic(expected = "pseudo-header")]
    fn a_wrong_pseudo_header_sum_is_found() {
        let (mut frame, checksum) = unfinished(frame(0, 5, &[1; 100], TcpControl::None));
        frame[ETHERNET_BYTES + 20 + TCP_CHECKSUM] ^= 1;
        wire_frames(frame, Offload::Checksum(checksum));
    }
}
