//! The commands that give this machine's end of the interface its addresses.

use std::net::IpAddr;

use smoltcp::wire::{IpAddress, IpCidr};

/// What root has to type so that this machine reaches the server at `addresses`.
pub fn commands(interface: &str, addresses: &[IpCidr], gateways: &[IpAddr]) -> Vec<String> {
    let mut commands = Vec::new();
    for (index, cidr) in addresses.iter().enumerate() {
        // One address in each network is enough.
        let again = addresses[..index].iter().any(|earlier| earlier.contains_addr(&cidr.address()));
        if let Some(host) = (!again).then(|| host_address(cidr, addresses, gateways)).flatten() {
            commands.push(format!("ip address add {host}/{} dev {interface}", cidr.prefix_len()));
        }
    }
    commands.push(format!("ip link set {interface} up"));
    commands
}

/// An address for this machine in the network `cidr`: the gateway's, since the router is behind the interface and so is this
/// machine, or the first that is free.
fn host_address(cidr: &IpCidr, addresses: &[IpCidr], gateways: &[IpAddr]) -> Option<IpAddress> {
    let gateway = gateways.iter().map(|gateway| IpAddress::from(*gateway)).find(|gateway| cidr.contains_addr(gateway));
    let is_taken = |address: &IpAddress| addresses.iter().any(|cidr| cidr.address() == *address);
    gateway.or_else(|| {
        // Among so many, one is free. The network's own address is none (but in a /31, RFC 3021).
        let candidates = (0..=addresses.len() as u32 + 1).map(|number| numbered(cidr, number));
        let usable = |address: &IpAddress| match cidr {
            IpCidr::Ipv4(v4) if v4.prefix_len() < 31 => {
                *address != v4.network().address().into() && v4.broadcast().map(IpAddress::from) != Some(*address)
            }
            IpCidr::Ipv4(_) => true,
            // RFC 4291 §2.6.1: all routers'.
            IpCidr::Ipv6(v6) => v6.prefix_len() >= 127 || *address != numbered(cidr, 0),
        };
        candidates.into_iter().find(|address| cidr.contains_addr(address) && usable(address) && !is_taken(address))
    })
}

/// The address with this number in a network.
fn numbered(cidr: &IpCidr, number: u32) -> IpAddress {
    match cidr {
        IpCidr::Ipv4(v4) => {
            let first = v4.network().address().to_bits();
            std::net::Ipv4Addr::from_bits(first.wrapping_add(number)).into()
        }
        IpCidr::Ipv6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6.prefix_len())).unwrap_or(0);
            let first = v6.address().to_bits() & mask;
            std::net::Ipv6Addr::from_bits(first.wrapping_add(number.into())).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(addresses: &[&str], gateways: &[&str]) -> Vec<String> {
        let addresses: Vec<IpCidr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let gateways: Vec<IpAddr> = gateways.iter().map(|text| text.parse().unwrap()).collect();
        let mut commands = commands("mc0", &addresses, &gateways);
        assert_eq!(commands.pop().unwrap(), "ip link set mc0 up");
        let address = |command: String| {
            command.strip_prefix("ip address add ").unwrap().strip_suffix(" dev mc0").unwrap().to_owned()
        };
        commands.into_iter().map(address).collect()
    }

    #[test]
    fn the_host_gets_an_address_that_is_free() {
        assert_eq!(proposed(&["10.0.0.2/24"], &[]), ["10.0.0.1/24"]);
        assert_eq!(proposed(&["10.0.0.1/24"], &[]), ["10.0.0.2/24"]);
        assert_eq!(proposed(&["10.1.2.3/8", "10.0.0.1/8", "10.0.0.2/8"], &[]), ["10.0.0.3/8"]);
        assert_eq!(proposed(&["10.0.0.2/24", "fd00::1/64"], &[]), ["10.0.0.1/24", "fd00::2/64"]);
        assert_eq!(proposed(&["10.0.0.1/31"], &[]), ["10.0.0.0/31"]);
        assert_eq!(proposed(&["10.0.0.1/30", "10.0.0.2/30"], &[]), [""; 0], "nobody else fits in");
        assert_eq!(proposed(&["10.0.0.1/32", "fd00::1/128"], &[]), [""; 0]);
    }

    #[test]
    fn the_host_is_the_gateway() {
        let gateways = ["10.0.0.254", "fe80::1"];
        assert_eq!(proposed(&["10.0.0.2/24", "192.168.0.9/24"], &gateways), ["10.0.0.254/24", "192.168.0.1/24"]);
        assert_eq!(proposed(&["fd00::2/64", "fe80::2/64"], &gateways), ["fd00::1/64", "fe80::1/64"]);
    }
}
