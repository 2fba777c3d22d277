//! The one parse of a frame. RFC 791, 8200, 9293; RFC 1122 §3.2 for what to be silent about.
//!
//! A frame is for the serving TCP, for the control plane, or dropped for a reason that is counted. Nothing is believed before
//! it has been checked against the frame's own length.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
    TcpRepr, UdpPacket,
};

use super::addresses::Addresses;
use super::config::NetworkConfig;
use super::{checksum, dhcp, extensions, neighbours};
use crate::rings::{RxChecksum, RxFrame};
use crate::tcp_gso::RxSegment;

/// Bytes of a frame in which all headers must lie: Ethernet 14, IPv4 at most 60 or IPv6 40 and its extensions, TCP at most 60.
/// A longer chain of extension headers is dropped.
pub(super) const HEADER_VIEW_BYTES: usize = 384;

const ETHERNET_BYTES: usize = EthernetFrame::<&[u8]>::header_len();

/// Tag protocol identifiers of IEEE 802.1Q and 802.1ad.
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// What becomes of a frame.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time on the stack, and the large one is the usual one")]
pub(super) enum Verdict<'a> {
    /// TCP for the serving port.
    Serve(RxSegment<'a>),
    /// For the control plane: the frame's first `frame_bytes` bytes (what is behind them is padding).
    Control {
        /// Length without padding.
        frame_bytes: usize,
        /// It may ask which groups we listen to, and will be answered after a while.
        listener_query: bool,
    },
    /// For nobody.
    Drop(DropReason),
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    /// It contradicts itself, or a standard.
    Malformed,
    /// Addressed to somebody else, or of a protocol that nobody here speaks.
    NotOurs,
    /// A part of an IP packet.
    Fragment,
    /// It carries a VLAN tag.
    Vlan,
    /// The IPv4 header's checksum is wrong.
    HeaderChecksum,
    /// The checksum of a segment for the serving TCP is wrong.
    SegmentChecksum,
}

/// An IP packet whose addresses and lengths have been checked.
struct Packet {
    source: IpAddress,
    destination: IpAddress,
    protocol: IpProtocol,
    /// Where the transport header begins, in bytes from the start of the frame.
    transport: usize,
    /// Where the packet ends.
    end: usize,
    /// Sent to us alone, not to a group.
    unicast: bool,
    /// The control plane can read it.
    simple: bool,
    hop_by_hop: bool,
    /// From a DHCP server to a client that may have no address yet.
    dhcp: bool,
}

/// Parses `frame`, whose first [`HEADER_VIEW_BYTES`] bytes, or all that there are, are also in `view`.
pub(super) fn classify<'a>(
    frame: &'a RxFrame,
    view: &'a [u8],
    config: &NetworkConfig,
    hardware_address: [u8; 6],
    addresses: &Addresses,
) -> Verdict<'a> {
    match parse(frame, view, config, hardware_address, addresses) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::Drop(reason),
    }
}

fn parse<'a>(
    frame: &'a RxFrame,
    view: &'a [u8],
    config: &NetworkConfig,
    hardware_address: [u8; 6],
    addresses: &Addresses,
) -> Result<Verdict<'a>, DropReason> {
    let ethernet = EthernetFrame::new_checked(view).map_err(|_| DropReason::Malformed)?;
    let target = ethernet.dst_addr();
    let to_us = target == EthernetAddress(hardware_address);
    if !to_us && !target.is_multicast() {
        return Err(DropReason::NotOurs);
    }
    if !ethernet.src_addr().is_unicast() {
        return Err(DropReason::Malformed);
    }
    let packet = match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            return Ok(Verdict::Control { frame_bytes: frame.len(), listener_query: false });
        }
        EthernetProtocol::Ipv4 => ipv4(frame, view, config, addresses)?,
        EthernetProtocol::Ipv6 => ipv6(frame, view, config, addresses)?,
        EthernetProtocol::Unknown(tag) if VLAN_TAGS.contains(&tag) => return Err(DropReason::Vlan),
        EthernetProtocol::Unknown(_) => return Err(DropReason::NotOurs),
    };
    if packet.dhcp {
        return Ok(Verdict::Control { frame_bytes: packet.end, listener_query: false });
    }
    // RFC 1122 §3.3.6: a packet for one host that was sent to many is nobody's.
    if packet.unicast != to_us {
        return Err(DropReason::NotOurs);
    }
    if packet.unicast && packet.protocol == IpProtocol::Tcp {
        let tcp = tcp_header(view, &packet)?;
        if tcp.dst_port() == config.serving_port {
            let known = neighbours::find(&config.static_neighbours, packet.source);
            let remote = known.unwrap_or(ethernet.src_addr().0);
            return serve(frame, tcp, &packet, config.interface, remote).map(Verdict::Serve);
        }
    }
    let multicast_protocols = [IpProtocol::Icmp, IpProtocol::Igmp, IpProtocol::Icmpv6];
    if !packet.simple || !(packet.unicast || multicast_protocols.contains(&packet.protocol)) {
        return Err(DropReason::NotOurs);
    }
    Ok(Verdict::Control { frame_bytes: packet.end, listener_query: packet.hop_by_hop })
}

fn ipv4(frame: &RxFrame, view: &[u8], config: &NetworkConfig, addresses: &Addresses) -> Result<Packet, DropReason> {
    let bytes = &view[ETHERNET_BYTES..];
    let packet = Ipv4Packet::new_unchecked(bytes);
    if bytes.len() < smoltcp::wire::IPV4_HEADER_LEN || packet.version() != 4 {
        return Err(DropReason::Malformed);
    }
    let header_bytes = usize::from(packet.header_len());
    let available = frame.len() - ETHERNET_BYTES;
    let total_bytes = match packet.total_len() {
        // Linux's super-frames beyond 64 KiB.
        0 if frame.gso.is_some() => available,
        total => usize::from(total),
    };
    if header_bytes < smoltcp::wire::IPV4_HEADER_LEN || header_bytes > bytes.len() {
        return Err(DropReason::Malformed);
    }
    if total_bytes < header_bytes || total_bytes > available {
        return Err(DropReason::Malformed);
    }
    if !packet.verify_checksum() {
        return Err(DropReason::HeaderChecksum);
    }
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let unicast = addresses.has_v4(destination);
    let dhcp = config.dhcp && is_from_dhcp_server(&bytes[header_bytes..], packet.next_header());
    if !unicast && !dhcp && !addresses.is_group_v4(destination) {
        return Err(DropReason::NotOurs);
    }
    // RFC 1122 §3.2.1.3: addresses that nobody may send from. One of ours would make us talk to ourselves.
    let may_send = IpAddress::Ipv4(source).is_unicast()
        && (config.loopback_sources || !source.is_loopback())
        && !addresses.is_broadcast_v4(source)
        && !addresses.has_v4(source);
    if !may_send {
        return Err(DropReason::Malformed);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Err(DropReason::Fragment);
    }
    Ok(Packet {
        source: source.into(),
        destination: destination.into(),
        protocol: packet.next_header(),
        transport: ETHERNET_BYTES + header_bytes,
        end: ETHERNET_BYTES + total_bytes,
        unicast,
        simple: true,
        hop_by_hop: false,
        dhcp,
    })
}

/// True for UDP between DHCP's ports, towards the client. What is offered may be sent to the offered address (RFC 2131 §4.1).
fn is_from_dhcp_server(transport: &[u8], protocol: IpProtocol) -> bool {
    // The header alone is sure to be in sight.
    let udp = UdpPacket::new_unchecked(transport);
    protocol == IpProtocol::Udp
        && transport.len() >= smoltcp::wire::UDP_HEADER_LEN
        && (udp.src_port(), udp.dst_port()) == (dhcp::SERVER_PORT, dhcp::CLIENT_PORT)
}

fn ipv6(frame: &RxFrame, view: &[u8], config: &NetworkConfig, addresses: &Addresses) -> Result<Packet, DropReason> {
    const HEADER_BYTES: usize = smoltcp::wire::IPV6_HEADER_LEN;
    let bytes = &view[ETHERNET_BYTES..];
    let packet = Ipv6Packet::new_unchecked(bytes);
    if bytes.len() < HEADER_BYTES || packet.version() != 6 {
        return Err(DropReason::Malformed);
    }
    let available = frame.len() - ETHERNET_BYTES - HEADER_BYTES;
    let jumbo = packet.payload_len() == 0 && frame.gso.is_some();
    let payload_bytes = if jumbo { available } else { usize::from(packet.payload_len()) };
    if payload_bytes > available {
        return Err(DropReason::Malformed);
    }
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let unicast = addresses.has_v6(destination);
    if !unicast && !addresses.is_group_v6(destination) {
        return Err(DropReason::NotOurs);
    }
    // The unspecified address is that of a host that is still looking for one (RFC 4862 §5.4.2).
    let may_send =
        !source.is_multicast() && (config.loopback_sources || !source.is_loopback()) && !addresses.has_v6(source);
    if !may_send {
        return Err(DropReason::Malformed);
    }
    let extensions_end = bytes.len().min(HEADER_BYTES + payload_bytes);
    let chain = extensions::walk(packet.next_header(), &bytes[HEADER_BYTES..extensions_end], jumbo)?;
    Ok(Packet {
        source: source.into(),
        destination: destination.into(),
        protocol: chain.protocol,
        transport: ETHERNET_BYTES + HEADER_BYTES + chain.bytes,
        end: ETHERNET_BYTES + HEADER_BYTES + payload_bytes,
        unicast,
        simple: chain.simple,
        hop_by_hop: chain.hop_by_hop,
        dhcp: false,
    })
}

/// The TCP header with its options, checked against the packet's length.
fn tcp_header<'a>(view: &'a [u8], packet: &Packet) -> Result<TcpPacket<&'a [u8]>, DropReason> {
    let end = packet.end.min(view.len());
    TcpPacket::new_checked(&view[packet.transport..end]).map_err(|_| DropReason::Malformed)
}

fn serve<'a>(
    frame: &'a RxFrame,
    tcp: TcpPacket<&'a [u8]>,
    packet: &Packet,
    interface: u8,
    remote_hardware_address: [u8; 6],
) -> Result<RxSegment<'a>, DropReason> {
    let Packet { source, destination, transport, end, .. } = *packet;
    let vouched_for = match frame.checksum {
        RxChecksum::Unknown => false,
        RxChecksum::Partial(_) | RxChecksum::Verified => true,
    };
    if source.is_unspecified() {
        return Err(DropReason::Malformed);
    }
    if !vouched_for && !checksum::segment_is_intact(frame, transport, end, &source, &destination) {
        return Err(DropReason::SegmentChecksum);
    }
    let payload_start = transport + usize::from(tcp.header_len());
    let header = TcpRepr::parse(&tcp, &source, &destination, &ChecksumCapabilities::ignored())
        .map_err(|_| DropReason::Malformed)?;
    Ok(RxSegment {
        interface,
        remote_hardware_address,
        source,
        destination,
        header: TcpRepr { payload: &[], ..header },
        payload: checksum::pieces(frame, payload_start, end).collect(),
    })
}
