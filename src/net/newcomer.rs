//! Hosts that come to the link and try out an address that is ours (RFC 4862 §5.4, duplicate address detection).
//!
//! They ask from the unspecified address, which smoltcp does not answer; we must (RFC 4861 §7.2.4), or two hosts end up with
//! one address.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Address, Ipv6Packet,
    Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};

use super::addresses::{ALL_NODES, Addresses};

/// Neighbour discovery's hop limit: it must not have crossed a router (RFC 4861 §7.1.1).
const HOP_LIMIT: u8 = 255;

/// `ff02::1` on Ethernet (RFC 2464 §7).
const ALL_NODES_ETHERNET: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);

const ETHERNET_BYTES: usize = EthernetFrame::<&[u8]>::header_len();

/// The address of ours that the frame's sender wants for itself, if that is what the frame says.
pub(super) fn wants(frame: &[u8], addresses: &Addresses) -> Option<Ipv6Address> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv6 {
        return None;
    }
    let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let discovery = packet.next_header() == IpProtocol::Icmpv6 && packet.hop_limit() == HOP_LIMIT;
    if !source.is_unspecified() || !destination.is_multicast() || !discovery {
        return None;
    }
    let message = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    match Icmpv6Repr::parse(&source, &destination, &message, &ChecksumCapabilities::default()).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr: None }) => {
            addresses.has_v6(target_addr).then_some(target_addr)
        }
        _ => None,
    }
}

/// Tells all nodes whose the address is.
pub(super) struct Advertisement {
    address: Ipv6Address,
    hardware_address: EthernetAddress,
}

impl Advertisement {
    pub fn new(address: Ipv6Address, hardware_address: [u8; 6]) -> Self {
        Self { address, hardware_address: EthernetAddress(hardware_address) }
    }

    fn message(&self) -> Icmpv6Repr<'static> {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
            // Not "solicited": the address of who asked does not exist yet.
            flags: NdiscNeighborFlags::OVERRIDE,
            target_addr: self.address,
            lladdr: Some(self.hardware_address.into()),
        })
    }

    /// Length of the frame in bytes.
    pub fn frame_bytes(&self) -> usize {
        ETHERNET_BYTES + smoltcp::wire::IPV6_HEADER_LEN + self.message().buffer_len()
    }

    /// Writes the frame.
    pub fn emit(&self, frame: &mut [u8]) {
        let message = self.message();
        let ip = Ipv6Repr {
            src_addr: self.address,
            dst_addr: ALL_NODES,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: HOP_LIMIT,
        };
        let mut ethernet = EthernetFrame::new_unchecked(frame);
        ethernet.set_src_addr(self.hardware_address);
        ethernet.set_dst_addr(ALL_NODES_ETHERNET);
        ethernet.set_ethertype(EthernetProtocol::Ipv6);
        let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
        ip.emit(&mut packet);
        let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
        message.emit(&ip.src_addr, &ip.dst_addr, &mut icmp, &ChecksumCapabilities::default());
    }
}
