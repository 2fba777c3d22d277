//! What an administrator says about the network, validated.

use super::slaac::MAX_PREFIXES;
use arrayvec::ArrayVec;
use core::fmt;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};

/// Most addresses that can be configured. The IPv6 link-local address is added to them.
pub const MAX_ADDRESSES: usize = 7;

/// Most neighbours whose MAC addresses can be configured.
pub const MAX_STATIC_NEIGHBOURS: usize = 16;

/// Most DNS servers that can be configured.
pub const MAX_DNS_SERVERS: usize = 2;

/// A host on the link whose MAC address is known, and need not be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticNeighbour {
    /// Its IP address.
    pub address: IpAddress,
    /// Its MAC address.
    pub hardware_address: [u8; 6],
}

impl StaticNeighbour {
    /// True if both addresses can be those of a single host.
    pub fn is_valid(&self) -> bool {
        let mac = EthernetAddress(self.hardware_address);
        self.address.is_unicast() && mac.is_unicast() && self.hardware_address != [0; 6]
    }
}

/// Addresses, gateways and ports of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The interface's number: part of a connection's key. Default 0.
    pub interface: u8,
    /// Our addresses with their networks' prefix lengths. Where no IPv6 link-local address is among them, the one made from the
    /// MAC address (RFC 4291 appendix A) is added.
    pub addresses: ArrayVec<IpCidr, MAX_ADDRESSES>,
    /// The network is asked for an IPv4 address (DHCP, RFC 2131) besides these. Default `false`.
    pub dhcp: bool,
    /// IPv6 addresses and routers are taken from router advertisements (RFC 4861, RFC 4862) besides these. Default `false`.
    pub slaac: bool,
    /// The IPv4 router. Without DHCP it must be in one of our networks. It goes before one that the network announces.
    pub gateway_v4: Option<Ipv4Address>,
    /// The IPv6 router. Without `slaac` it must be in one of our networks, or link-local. It goes before one that the network
    /// announces.
    pub gateway_v6: Option<Ipv6Address>,
    /// DNS servers, to be asked in that order and before those that the network announces.
    pub dns_servers: ArrayVec<IpAddress, MAX_DNS_SERVERS>,
    /// Neighbours that need not be asked for, and that nobody else can speak for.
    pub static_neighbours: ArrayVec<StaticNeighbour, MAX_STATIC_NEIGHBOURS>,
    /// The TCP port that is served. Default 80.
    pub serving_port: u16,
    /// The TCP port of µShell (RFC 854 names 23). Default `None`: no sessions.
    pub shell_port: Option<u16>,
    /// Loopback addresses may be sources: the device is no wire but this host's own sockets, bridged. Default `false`: from a
    /// wire they are forged (RFC 1122 §3.2.1.3).
    pub loopback_sources: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            interface: 0,
            addresses: ArrayVec::new(),
            dhcp: false,
            slaac: false,
            gateway_v4: None,
            gateway_v6: None,
            dns_servers: ArrayVec::new(),
            static_neighbours: ArrayVec::new(),
            serving_port: 80,
            shell_port: None,
            loopback_sources: false,
        }
    }
}

/// What is wrong with a [`NetworkConfig`], or with the device under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkConfigError {
    /// The address can't be a host's.
    NotAHost(IpAddress),
    /// The address is there twice.
    Duplicate(IpAddress),
    /// More addresses than there is room for, together with those that the network may announce.
    TooManyAddresses {
        /// Those that are configured.
        configured: usize,
        /// Those that the network may announce.
        announced: usize,
    },
    /// A static neighbour that is no single host, or is there twice.
    Neighbour(StaticNeighbour),
    /// The gateway can't be reached without a gateway.
    Unreachable(IpAddress),
    /// The gateway is this host.
    OwnGateway(IpAddress),
    /// A port is 0.
    PortZero,
    /// µShell and the served port are the same.
    PortTwice(u16),
    /// The device's MAC address is none of a single host.
    HardwareAddress([u8; 6]),
}

impl fmt::Display for NetworkConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAHost(address) => {
                write!(f, "{address} is no host's address: give the interface a unicast address such as 192.168.0.2/24")
            }
            Self::Duplicate(address) => write!(f, "{address} is given twice: name each address once"),
            Self::TooManyAddresses { configured, announced } => write!(
                f,
                "{configured} addresses are too many beside the {announced} that the network may announce: {MAX_ADDRESSES} is \
                 the limit"
            ),
            Self::Neighbour(neighbour) => write!(
                f,
                "the static neighbour {} at {} is no single host, or is given twice: name each address once, with the MAC \
                 address of its host",
                neighbour.address,
                EthernetAddress(neighbour.hardware_address)
            ),
            Self::Unreachable(gateway) => write!(
                f,
                "the gateway {gateway} is in none of the interface's networks: correct it, or an address's prefix length"
            ),
            Self::OwnGateway(gateway) => {
                write!(f, "the gateway {gateway} is the interface's own address: name the router, or leave it out")
            }
            Self::PortZero => f.write_str("port 0 can't be served: choose one from 1 to 65535"),
            Self::PortTwice(port) => {
                write!(f, "port {port} is given to both the web server and the shell: choose two ports")
            }
            Self::HardwareAddress(m) => write!(
                f,
                "the network device's address {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x} is not a single host's: set one whose \
                 first byte is even",
                m[0], m[1], m[2], m[3], m[4], m[5]
            ),
        }
    }
}

impl core::error::Error for NetworkConfigError {}

impl NetworkConfig {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), NetworkConfigError> {
        for (i, cidr) in self.addresses.iter().enumerate() {
            let address = cidr.address();
            if !is_host(cidr) {
                return Err(NetworkConfigError::NotAHost(address));
            }
            if self.addresses[..i].iter().any(|earlier| earlier.address() == address) {
                return Err(NetworkConfigError::Duplicate(address));
            }
        }
        let announced = usize::from(self.dhcp) + if self.slaac { MAX_PREFIXES } else { 0 };
        if self.addresses.len() + announced > MAX_ADDRESSES {
            return Err(NetworkConfigError::TooManyAddresses { configured: self.addresses.len(), announced });
        }
        if let Some(gateway) = self.gateway_v4 {
            self.check_gateway(gateway.into(), self.dhcp)?;
        }
        if let Some(gateway) = self.gateway_v6 {
            self.check_gateway(gateway.into(), self.slaac || gateway.is_unicast_link_local())?;
        }
        for (i, neighbour) in self.static_neighbours.iter().enumerate() {
            let twice = self.static_neighbours[..i].iter().any(|earlier| earlier.address == neighbour.address);
            if twice || !neighbour.is_valid() {
                return Err(NetworkConfigError::Neighbour(*neighbour));
            }
        }
        if self.serving_port == 0 || self.shell_port == Some(0) {
            return Err(NetworkConfigError::PortZero);
        }
        if self.shell_port == Some(self.serving_port) {
            return Err(NetworkConfigError::PortTwice(self.serving_port));
        }
        Ok(())
    }

    /// `anywhere`: nobody knows yet what networks we will be in.
    fn check_gateway(&self, gateway: IpAddress, anywhere: bool) -> Result<(), NetworkConfigError> {
        if !gateway.is_unicast() {
            return Err(NetworkConfigError::NotAHost(gateway));
        }
        if self.addresses.iter().any(|cidr| cidr.address() == gateway) {
            return Err(NetworkConfigError::OwnGateway(gateway));
        }
        match anywhere || self.addresses.iter().any(|cidr| cidr.contains_addr(&gateway)) {
            true => Ok(()),
            false => Err(NetworkConfigError::Unreachable(gateway)),
        }
    }
}

/// True for an address that one host may have in that network. Loopback addresses never leave a host (RFC 1122 §3.2.1.3).
pub(super) fn is_host(cidr: &IpCidr) -> bool {
    match cidr {
        IpCidr::Ipv4(v4) => {
            let address = v4.address();
            // /31 and /32 have neither a network nor a broadcast address (RFC 3021).
            let is_network = v4.prefix_len() < 31 && v4.network().address() == address;
            IpAddress::Ipv4(address).is_unicast()
                && !address.is_loopback()
                && v4.broadcast() != Some(address)
                && !is_network
        }
        IpCidr::Ipv6(v6) => IpAddress::Ipv6(v6.address()).is_unicast() && !v6.address().is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn config(addresses: &[&str]) -> NetworkConfig {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        NetworkConfig { addresses, ..NetworkConfig::default() }
    }

    #[test]
    fn usual_configurations_are_accepted() {
        let mut config = config(&["192.168.0.2/24", "10.0.0.1/31", "10.0.0.7/32", "fd00::2/64"]);
        config.gateway_v4 = Some(Ipv4Address::new(192, 168, 0, 1));
        config.gateway_v6 = Some("fe80::1".parse().unwrap());
        config.shell_port = Some(23);
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(NetworkConfig::default().validate(), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in
            ["224.0.0.1/4", "0.0.0.0/0", "127.0.0.1/8", "192.168.0.255/24", "192.168.0.0/24", "ff02::1/64", "::1/128"]
        {
            let error = config(&[bad]).validate().unwrap_err();
            assert!(matches!(error, NetworkConfigError::NotAHost(_)), "{bad}: {error}");
        }
        let twice = config(&["10.0.0.1/8", "10.0.0.1/24"]).validate().unwrap_err();
        assert_eq!(twice, NetworkConfigError::Duplicate("10.0.0.1".parse().unwrap()));

        let mut far = config(&["10.0.0.1/24"]);
        far.gateway_v4 = Some(Ipv4Address::new(10, 0, 1, 1));
        assert!(far.validate().unwrap_err().to_string().contains("10.0.1.1"));

        far.gateway_v4 = Some(Ipv4Address::new(10, 0, 0, 1));
        assert_eq!(far.validate(), Err(NetworkConfigError::OwnGateway("10.0.0.1".parse().unwrap())));

        let mut ports = config(&["10.0.0.1/24"]);
        ports.shell_port = Some(80);
        assert_eq!(ports.validate(), Err(NetworkConfigError::PortTwice(80)));
        ports.serving_port = 0;
        assert_eq!(ports.validate(), Err(NetworkConfigError::PortZero));
    }
}
