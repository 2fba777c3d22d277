//! Which addresses are ours, and which groups we listen to.

use arrayvec::ArrayVec;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address, Ipv6Cidr};

use super::config::MAX_ADDRESSES;

/// The prefix of link-local addresses with 64-bit interface identifiers (RFC 4291 §2.5.6).
const LINK_LOCAL: Ipv6Cidr = Ipv6Cidr::new(Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);

/// `224.0.0.1` (RFC 1112 §4): the only IPv4 group that every host is in.
const ALL_SYSTEMS: Ipv4Address = Ipv4Address::new(224, 0, 0, 1);

/// `ff02::1` (RFC 4291 §2.7.1): all nodes on the link.
pub(super) const ALL_NODES: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Our addresses: the configured ones, those that the network has given us, and the link-local one.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    cidrs: ArrayVec<IpCidr, { MAX_ADDRESSES + 1 }>,
}

impl Addresses {
    /// `configured`, those of `announced` that are not there yet, and the link-local address made from the MAC address unless one
    /// is configured.
    pub fn new(configured: &[IpCidr], announced: impl Iterator<Item = IpCidr>, hardware_address: [u8; 6]) -> Self {
        let mut cidrs: ArrayVec<IpCidr, { MAX_ADDRESSES + 1 }> =
            configured.iter().copied().take(MAX_ADDRESSES).collect();
        for cidr in announced {
            if cidrs.len() < MAX_ADDRESSES && cidrs.iter().all(|earlier| earlier.address() != cidr.address()) {
                cidrs.push(cidr);
            }
        }
        let has_link_local = cidrs
            .iter()
            .any(|cidr| matches!(cidr.address(), IpAddress::Ipv6(address) if address.is_unicast_link_local()));
        if !has_link_local {
            cidrs.push(Ipv6Cidr::new(link_local(hardware_address), LINK_LOCAL.prefix_len()).into());
        }
        Self { cidrs }
    }

    pub fn cidrs(&self) -> &[IpCidr] {
        &self.cidrs
    }

    /// Our link-local IPv6 address: there always is one.
    pub fn link_local(&self) -> Ipv6Address {
        let mut v6 = self.cidrs.iter().filter_map(|cidr| match cidr.address() {
            IpAddress::Ipv6(address) => Some(address),
            IpAddress::Ipv4(_) => None,
        });
        v6.find(Ipv6Address::is_unicast_link_local).unwrap_or(LINK_LOCAL.address())
    }

    /// True for an address of ours.
    pub fn has(&self, address: IpAddress) -> bool {
        self.cidrs.iter().any(|cidr| cidr.address() == address)
    }

    pub fn has_v4(&self, address: Ipv4Address) -> bool {
        self.cidrs.iter().any(|cidr| cidr.address() == IpAddress::Ipv4(address))
    }

    pub fn has_v6(&self, address: Ipv6Address) -> bool {
        self.cidrs.iter().any(|cidr| cidr.address() == IpAddress::Ipv6(address))
    }

    /// True for 255.255.255.255, for the broadcast address of one of our networks, and for the all-systems group.
    pub fn is_group_v4(&self, address: Ipv4Address) -> bool {
        address == ALL_SYSTEMS || self.is_broadcast_v4(address)
    }

    /// True for 255.255.255.255 and the broadcast address of one of our networks.
    pub fn is_broadcast_v4(&self, address: Ipv4Address) -> bool {
        let of_network = |cidr: &IpCidr| matches!(cidr, IpCidr::Ipv4(v4) if v4.broadcast() == Some(address));
        address.is_broadcast() || self.cidrs.iter().any(of_network)
    }

    /// True for the all-nodes group and the solicited-node groups of our addresses (RFC 4291 §2.7.1).
    pub fn is_group_v6(&self, address: Ipv6Address) -> bool {
        address == ALL_NODES
            || self
                .cidrs
                .iter()
                .any(|cidr| matches!(cidr.address(), IpAddress::Ipv6(ours) if solicited_node(ours) == address))
    }
}

/// The link-local address made from a MAC address (RFC 4291 appendix A).
pub(super) fn link_local(hardware_address: [u8; 6]) -> Ipv6Address {
    let identifier = HardwareAddress::Ethernet(EthernetAddress(hardware_address));
    Ipv6Cidr::from_link_prefix(&LINK_LOCAL, identifier).map_or(LINK_LOCAL.address(), |cidr| cidr.address())
}

/// `ff02::1:ff00:0/104` and the low 24 bits of the address.
pub(super) fn solicited_node(address: Ipv6Address) -> Ipv6Address {
    let [.., a, b, c] = address.octets();
    Ipv6Address::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

    fn addresses(texts: &[&str]) -> Addresses {
        let cidrs: ArrayVec<IpCidr, 8> = texts.iter().map(|text| text.parse().unwrap()).collect();
        Addresses::new(&cidrs, core::iter::empty(), MAC)
    }

    #[test]
    fn the_link_local_address_comes_from_the_mac_address() {
        let ours = addresses(&["10.0.0.2/24"]);
        assert!(ours.has_v6("fe80::5054:ff:fe12:3456".parse().unwrap()));
        let configured = addresses(&["fe80::1/64"]);
        assert_eq!(configured.cidrs().len(), 1);
    }

    #[test]
    fn groups_are_those_of_our_addresses() {
        let ours = addresses(&["10.1.2.3/16", "fd00::aa:bbcc/64"]);
        for group in ["255.255.255.255", "10.1.255.255", "224.0.0.1"] {
            assert!(ours.is_group_v4(group.parse().unwrap()), "{group}");
        }
        for stranger in ["10.1.2.3", "10.255.255.255", "224.0.0.251", "10.1.2.255"] {
            assert!(!ours.is_group_v4(stranger.parse().unwrap()), "{stranger}");
        }
        for group in ["ff02::1", "ff02::1:ffaa:bbcc", "ff02::1:ff12:3456"] {
            assert!(ours.is_group_v6(group.parse().unwrap()), "{group}");
        }
        for stranger in ["ff02::2", "ff02::fb", "ff02::1:ffab:bbcc", "fd00::aa:bbcc"] {
            assert!(!ours.is_group_v6(stranger.parse().unwrap()), "{stranger}");
        }
    }
}
