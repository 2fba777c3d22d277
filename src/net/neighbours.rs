//! Neighbours whose MAC addresses an administrator has given (static ARP entries).
//!
//! smoltcp's neighbour cache takes no entries from outside, and forgets its own. So where it asks for one of these, the table
//! answers in the neighbour's stead; and what others say of them is not heard.

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, NdiscNeighborFlags,
    NdiscRepr, RawHardwareAddress,
};

use super::config::StaticNeighbour;
use super::discovery::{self, Message};

const ETHERNET_BYTES: usize = EthernetFrame::<&[u8]>::header_len();

/// The MAC address that is given for `address`.
pub(super) fn find(table: &[StaticNeighbour], address: IpAddress) -> Option<[u8; 6]> {
    table.iter().find(|neighbour| neighbour.address == address).map(|neighbour| neighbour.hardware_address)
}

/// What a neighbour of the table would answer.
pub(super) enum Answer {
    Arp { reply: ArpRepr, to: EthernetAddress },
    Discovery(Message),
}

impl Answer {
    /// Length of the frame in bytes.
    pub fn frame_bytes(&self) -> usize {
        match self {
            Self::Arp { reply, .. } => ETHERNET_BYTES + reply.buffer_len(),
            Self::Discovery(message) => message.frame_bytes(),
        }
    }

    /// Writes the frame.
    pub fn emit(&self, frame: &mut [u8]) {
        match self {
            Self::Arp { reply, to } => {
                let ArpRepr::EthernetIpv4 { source_hardware_addr, .. } = reply else { return };
                let mut ethernet = EthernetFrame::new_unchecked(frame);
                ethernet.set_src_addr(*source_hardware_addr);
                ethernet.set_dst_addr(*to);
                ethernet.set_ethertype(EthernetProtocol::Arp);
                reply.emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
            }
            Self::Discovery(message) => message.emit(frame),
        }
    }
}

/// The answer to a frame of ours, if it asks for a neighbour of the table.
pub(super) fn answer(table: &[StaticNeighbour], frame: &[u8]) -> Option<Answer> {
    if table.is_empty() {
        return None;
    }
    if let Some(request) = arp(frame) {
        let ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: us,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = request
        else {
            return None;
        };
        let neighbour = EthernetAddress(find(table, target_protocol_addr.into())?);
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: neighbour,
            source_protocol_addr: target_protocol_addr,
            target_hardware_addr: us,
            target_protocol_addr: source_protocol_addr,
        };
        return Some(Answer::Arp { reply, to: us });
    }
    let ours = discovery::read(frame)?;
    let Some(NdiscRepr::NeighborSolicit { target_addr, .. }) = ours.message() else { return None };
    // Nobody can be answered who has no address yet.
    if ours.source.is_unspecified() {
        return None;
    }
    let neighbour = EthernetAddress(find(table, target_addr.into())?);
    let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
    Some(Answer::Discovery(Message {
        source_hardware_address: neighbour,
        destination_hardware_address: ours.source_hardware_address,
        source: target_addr,
        destination: ours.source,
        content: NdiscRepr::NeighborAdvert { flags, target_addr, lladdr: Some(neighbour.into()) },
    }))
}

/// True if a received frame gives a neighbour of the table another MAC address.
pub(super) fn contradicts(table: &[StaticNeighbour], frame: &[u8]) -> bool {
    if table.is_empty() {
        return false;
    }
    let differs = |address: IpAddress, claimed: EthernetAddress| {
        find(table, address).is_some_and(|known| EthernetAddress(known) != claimed)
    };
    if let Some(ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, .. }) = arp(frame) {
        return differs(source_protocol_addr.into(), source_hardware_addr);
    }
    let Some(received) = discovery::read(frame) else { return false };
    let claimed =
        |address: Option<RawHardwareAddress>| Some(EthernetAddress::from_bytes(address?.as_bytes().get(..6)?));
    match received.message() {
        Some(NdiscRepr::NeighborSolicit { lladdr, .. }) => {
            claimed(lladdr).is_some_and(|claimed| differs(received.source.into(), claimed))
        }
        // smoltcp believes it of the source, others of the target.
        Some(NdiscRepr::NeighborAdvert { lladdr, target_addr, .. }) => claimed(lladdr)
            .is_some_and(|claimed| differs(received.source.into(), claimed) || differs(target_addr.into(), claimed)),
        _ => false,
    }
}

fn arp(frame: &[u8]) -> Option<ArpRepr> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).ok()?).ok()
}
