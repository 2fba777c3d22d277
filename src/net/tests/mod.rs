//! What the tests of this room share: frames made with `smoltcp::wire`, cut into slices as a device would.

pub mod client;
pub mod control;
mod demux;
pub mod dhcp;
mod neighbours;
mod sessions;
mod slaac;

use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};

use super::NetworkConfig;
use crate::rings::{PAGE_BYTES, PagePool, RxChecksum, RxFrame};

pub const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];
pub const SHELL_PORT: u16 = 23;

/// Addresses of both families, and a shell.
pub fn config() -> NetworkConfig {
    NetworkConfig {
        addresses: ["192.168.7.2/24", "10.0.0.2/8", "fd00::2/64"].iter().map(|text| text.parse().unwrap()).collect(),
        gateway_v4: Some("192.168.7.1".parse().unwrap()),
        shell_port: Some(SHELL_PORT),
        ..NetworkConfig::default()
    }
}

pub fn address(text: &str) -> IpAddress {
    text.parse().unwrap()
}

/// A frame from `PEER_MAC` around an IP packet with that payload.
pub fn ip_frame(source: IpAddress, destination: IpAddress, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let ip = IpRepr::new(source, destination, protocol, payload.len(), 64);
    let ethertype = match ip {
        IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
        IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
    };
    let mut bytes = vec![0; 14 + ip.header_len() + payload.len()];
    ip.emit(&mut bytes[14..], &ChecksumCapabilities::default());
    bytes[14 + ip.header_len()..].copy_from_slice(payload);
    ethernet_header(&mut bytes, EthernetAddress(OUR_MAC), ethertype);
    bytes
}

pub fn ethernet_header(bytes: &mut [u8], destination: EthernetAddress, ethertype: EthernetProtocol) {
    let mut frame = EthernetFrame::new_unchecked(bytes);
    frame.set_src_addr(EthernetAddress(PEER_MAC));
    frame.set_dst_addr(destination);
    frame.set_ethertype(ethertype);
}

/// A TCP header as a client sends it, with its options.
pub fn tcp_header(port: u16, payload: &[u8]) -> TcpRepr<'_> {
    TcpRepr {
        src_port: 40_000,
        dst_port: port,
        control: TcpControl::Psh,
        seq_number: TcpSeqNumber(1_000_000),
        ack_number: Some(TcpSeqNumber(2_000_000)),
        window_len: 512,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [Some((2_001_000, 2_002_000)), None, None],
        timestamp: None,
        payload,
    }
}

/// A whole segment: header, options and payload with their checksum.
pub fn tcp_bytes(header: &TcpRepr<'_>, source: IpAddress, destination: IpAddress) -> Vec<u8> {
    let mut bytes = vec![0; header.buffer_len()];
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    header.emit(&mut packet, &source, &destination, &ChecksumCapabilities::default());
    bytes
}

/// A TCP segment to that port of ours, in a frame.
pub fn tcp_frame(source: &str, destination: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (address(source), address(destination));
    let segment = tcp_bytes(&tcp_header(port, payload), source, destination);
    ip_frame(source, destination, IpProtocol::Tcp, &segment)
}

/// The bytes as a device would lend them, cut at those places and wherever a page is full.
pub fn rx_frame(pool: &PagePool, bytes: &[u8], cuts: &[usize]) -> RxFrame {
    let mut places: Vec<usize> = cuts.iter().map(|cut| (*cut).min(bytes.len())).collect();
    places.extend((0..bytes.len()).step_by(PAGE_BYTES));
    places.push(bytes.len());
    places.sort_unstable();
    places.dedup();
    let mut slices = ArrayVec::new();
    for pair in places.windows(2) {
        let piece = &bytes[pair[0]..pair[1]];
        let mut page = pool.allocate().unwrap();
        // Anywhere in the page, as a device may put it.
        let offset = PAGE_BYTES - piece.len();
        page.bytes_mut().unwrap()[offset..].copy_from_slice(piece);
        slices.push(page.slice(offset, piece.len()));
    }
    RxFrame { slices, checksum: RxChecksum::Unknown, gso: None }
}
