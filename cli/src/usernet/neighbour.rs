//! The router of the virtual wire: it answers for itself, and frames for it find their client by address.
//!
//! The serving TCP answers to where a segment came from and needs no neighbours. The control plane is an ordinary host: it
//! sends everything to its router, once it knows that router's hardware address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IPV6_HEADER_LEN, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscRepr, RawHardwareAddress,
};

use super::table::{Key, Table};

/// The router's addresses, of the same networks as the appliance's.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// See [`ROUTER_V4`].
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);

/// The router's hardware address: locally administered, and none of a client half's or of the appliance.
pub const ROUTER_HARDWARE: EthernetAddress = EthernetAddress([0x0a, 0, 0, 0, 0, 1]);

/// The answer to a frame that asks for the router's hardware address.
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Arp => answer_arp(&ethernet),
        EthernetProtocol::Ipv6 => answer_neighbour_solicitation(&ethernet),
        _ => None,
    }
}

fn answer_arp(ethernet: &EthernetFrame<&[u8]>) -> Option<Vec<u8>> {
    let request = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).ok()?).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr: ROUTER_V4,
        ..
    } = request
    else {
        return None;
    };
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: ROUTER_HARDWARE,
        source_protocol_addr: ROUTER_V4,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut bytes = vec![0; ETHERNET_HEADER_LEN + reply.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    EthernetRepr { src_addr: ROUTER_HARDWARE, dst_addr: source_hardware_addr, ethertype: EthernetProtocol::Arp }
        .emit(&mut frame);
    reply.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    Some(bytes)
}

fn answer_neighbour_solicitation(ethernet: &EthernetFrame<&[u8]>) -> Option<Vec<u8>> {
    let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
    if packet.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let (asker, asked) = (packet.src_addr(), packet.dst_addr());
    let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    let checksums = ChecksumCapabilities::ignored();
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: ROUTER_V6, .. }) =
        Icmpv6Repr::parse(&asker, &asked, &icmp, &checksums).ok()?
    else {
        return None;
    };
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
        target_addr: ROUTER_V6,
        lladdr: Some(RawHardwareAddress::from(ROUTER_HARDWARE)),
    });
    let ip = Ipv6Repr {
        src_addr: ROUTER_V6,
        dst_addr: asker,
        next_header: IpProtocol::Icmpv6,
        payload_len: advertisement.buffer_len(),
        hop_limit: 255,
    };
    let mut bytes = vec![0; ETHERNET_HEADER_LEN + IPV6_HEADER_LEN + advertisement.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    EthernetRepr { src_addr: ROUTER_HARDWARE, dst_addr: ethernet.src_addr(), ethertype: EthernetProtocol::Ipv6 }
        .emit(&mut frame);
    let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet);
    let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
    advertisement.emit(&ROUTER_V6, &asker, &mut icmp, &ChecksumCapabilities::default());
    Some(bytes)
}

/// The client half that a segment to the router is meant for: from one of the appliance's addresses, which stands for a
/// listening socket, to the client's.
pub fn find(table: &Table, appliance: IpAddr, client: SocketAddr) -> Option<Key> {
    let host = match appliance {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    table.find(host.checked_sub(1)?, client)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: EthernetAddress = EthernetAddress([6, 0, 0, 0, 0, 1]);

    fn arp_request(target: Ipv4Addr) -> Vec<u8> {
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: ASKER,
            source_protocol_addr: Ipv4Addr::new(192, 0, 2, 1),
            target_hardware_addr: EthernetAddress::BROADCAST,
            target_protocol_addr: target,
        };
        let mut bytes = vec![0; ETHERNET_HEADER_LEN + request.buffer_len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        EthernetRepr { src_addr: ASKER, dst_addr: EthernetAddress::BROADCAST, ethertype: EthernetProtocol::Arp }
            .emit(&mut frame);
        request.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        bytes
    }

    #[test]
    fn the_router_answers_for_itself_alone() {
        let reply = answer(&arp_request(ROUTER_V4)).unwrap();
        let frame = EthernetFrame::new_checked(&reply[..]).unwrap();
        assert_eq!((frame.src_addr(), frame.dst_addr()), (ROUTER_HARDWARE, ASKER));
        let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } =
            ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap()
        else {
            panic!("no ARP for IPv4")
        };
        assert_eq!(operation, ArpOperation::Reply);
        assert_eq!((source_protocol_addr, target_protocol_addr), (ROUTER_V4, Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(answer(&arp_request(Ipv4Addr::new(192, 0, 2, 7))), None);
        assert_eq!(answer(&reply), None);
    }

    #[test]
    fn what_makes_no_sense_is_not_answered() {
        let request = arp_request(ROUTER_V4);
        for cut in 0..request.len() {
            assert_eq!(answer(&request[..cut]), None);
        }
    }
}
