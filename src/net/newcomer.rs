//! Hosts that come to the link and try out an address that is ours (RFC 4862 §5.4, duplicate address detection).
//!
//! They ask from the unspecified address, which smoltcp does not answer; we must (RFC 4861 §7.2.4), or two hosts end up with
//! one address.

use smoltcp::wire::{EthernetAddress, Ipv6Address, NdiscNeighborFlags, NdiscRepr};

use super::addresses::{ALL_NODES, Addresses};
use super::discovery::{Message, Received};

/// The address of ours that the message's sender wants for itself, if that is what it says.
pub(super) fn wants(received: &Received<'_>, addresses: &Addresses) -> Option<Ipv6Address> {
    if !received.source.is_unspecified() || !received.destination.is_multicast() {
        return None;
    }
    match received.message()? {
        NdiscRepr::NeighborSolicit { target_addr, lladdr: None } => {
            addresses.has_v6(target_addr).then_some(target_addr)
        }
        _ => None,
    }
}

/// Tells all nodes whose the address is.
pub(super) fn advertisement(address: Ipv6Address, hardware_address: [u8; 6]) -> Message {
    let hardware_address = EthernetAddress(hardware_address);
    let content = NdiscRepr::NeighborAdvert {
        // Not "solicited": the address of who asked does not exist yet.
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: address,
        lladdr: Some(hardware_address.into()),
    };
    Message::to_group(hardware_address, address, ALL_NODES, content)
}
