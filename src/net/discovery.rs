//! Frames of neighbour discovery (RFC 4861): reading and writing them.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Address, Ipv6Packet,
    Ipv6Repr, NdiscRepr,
};

/// The hop limit of every message: it must not have crossed a router (RFC 4861 §6.1, §7.1).
const HOP_LIMIT: u8 = 255;

const ETHERNET_BYTES: usize = EthernetFrame::<&[u8]>::header_len();

/// A message that came, as far as all of them have the same rules.
pub(super) struct Received<'a> {
    /// MAC address of the sender.
    pub source_hardware_address: EthernetAddress,
    /// Its IP address, or the unspecified one.
    pub source: Ipv6Address,
    pub destination: Ipv6Address,
    /// Its checksum is right, its code 0.
    pub packet: Icmpv6Packet<&'a [u8]>,
}

impl Received<'_> {
    /// The message, if it is one of discovery's own.
    pub fn message(&self) -> Option<NdiscRepr<'_>> {
        match Icmpv6Repr::parse(&self.source, &self.destination, &self.packet, &ChecksumCapabilities::ignored()) {
            Ok(Icmpv6Repr::Ndisc(message)) => Some(message),
            _ => None,
        }
    }
}

/// Reads a frame. `None` if it is no ICMPv6, or comes from beyond a router, or is damaged.
pub(super) fn read(frame: &[u8]) -> Option<Received<'_>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv6 {
        return None;
    }
    let ip = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != IpProtocol::Icmpv6 || ip.hop_limit() != HOP_LIMIT {
        return None;
    }
    let (source, destination) = (ip.src_addr(), ip.dst_addr());
    let packet = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    let good = packet.msg_code() == 0 && packet.verify_checksum(&source, &destination);
    good.then_some(Received { source_hardware_address: ethernet.src_addr(), source, destination, packet })
}

/// A message to be sent.
pub(super) struct Message {
    pub source_hardware_address: EthernetAddress,
    pub destination_hardware_address: EthernetAddress,
    pub source: Ipv6Address,
    pub destination: Ipv6Address,
    pub content: NdiscRepr<'static>,
}

impl Message {
    /// A message to a group, at the group's Ethernet address (RFC 2464 §7).
    pub fn to_group(
        from: EthernetAddress,
        source: Ipv6Address,
        group: Ipv6Address,
        content: NdiscRepr<'static>,
    ) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self {
            source_hardware_address: from,
            destination_hardware_address: EthernetAddress([0x33, 0x33, a, b, c, d]),
            source,
            destination: group,
            content,
        }
    }

    /// Length of the frame in bytes.
    pub fn frame_bytes(&self) -> usize {
        ETHERNET_BYTES + smoltcp::wire::IPV6_HEADER_LEN + Icmpv6Repr::Ndisc(self.content).buffer_len()
    }

    /// Writes the frame.
    pub fn emit(&self, frame: &mut [u8]) {
        let message = Icmpv6Repr::Ndisc(self.content);
        let ip = Ipv6Repr {
            src_addr: self.source,
            dst_addr: self.destination,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            hop_limit: HOP_LIMIT,
        };
        let mut ethernet = EthernetFrame::new_unchecked(frame);
        ethernet.set_src_addr(self.source_hardware_address);
        ethernet.set_dst_addr(self.destination_hardware_address);
        ethernet.set_ethertype(EthernetProtocol::Ipv6);
        let mut packet = Ipv6Packet::new_unchecked(ethernet.payload_mut());
        ip.emit(&mut packet);
        let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
        message.emit(&ip.src_addr, &ip.dst_addr, &mut icmp, &ChecksumCapabilities::default());
    }
}
