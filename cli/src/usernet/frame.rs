//! Ethernet frames between the client halves and the appliance: what is written into one, what is read out of one.
//!
//! Each client half is a host of its own on the virtual wire: its hardware address holds its place in the connection table
//! ([`hardware_address`]), so that an answering frame names its connection and nothing has to be looked up.

use arrayvec::ArrayVec;
use minicache::rings::PageSlice;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN,
    IPV6_HEADER_LEN, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TCP_HEADER_LEN, TcpPacket,
    TcpRepr,
};

use super::MTU_BYTES;

/// Room for the headers of any frame that we build: Ethernet, IPv6, TCP with as many options as there can be.
pub const MAX_HEADER_BYTES: usize = ETHERNET_HEADER_LEN + IPV6_HEADER_LEN + 60;

/// The headers of a frame.
pub type Headers = ArrayVec<u8, MAX_HEADER_BYTES>;

/// The two ends of a connection on the virtual wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The client half's hardware address.
    pub client_hardware: EthernetAddress,
    /// The appliance's hardware address.
    pub appliance_hardware: EthernetAddress,
    /// The real client's address.
    pub client: IpAddress,
    /// The appliance's address, of the same IP version.
    pub appliance: IpAddress,
}

impl Route {
    /// The largest TCP payload in one frame that crosses the wire both ways, in bytes.
    pub fn mss_bytes(&self) -> usize {
        let ip_bytes = match self.client {
            IpAddress::Ipv4(_) => IPV4_HEADER_LEN,
            IpAddress::Ipv6(_) => IPV6_HEADER_LEN,
        };
        usize::from(MTU_BYTES) - ip_bytes - TCP_HEADER_LEN
    }
}

/// The hardware address of the client half at `index` of the connection table: locally administered, unicast.
pub fn hardware_address(index: u32, generation: u8) -> EthernetAddress {
    let [a, b, c, d] = index.to_be_bytes();
    EthernetAddress([0x02, generation, a, b, c, d])
}

/// The place in the connection table that a hardware address stands for; `None` for one that stands for none.
pub fn table_place(address: EthernetAddress) -> Option<(u32, u8)> {
    match address.0 {
        [0x02, generation, a, b, c, d] => Some((u32::from_be_bytes([a, b, c, d]), generation)),
        _ => None,
    }
}

/// Writes the headers of a frame that carries `tcp` and then `payload_bytes` bytes. The TCP checksum stays 0: the ring
/// vouches for it. `tcp.payload` must be empty.
pub fn build(route: &Route, tcp: &TcpRepr<'_>, payload_bytes: usize) -> Headers {
    debug_assert!(tcp.payload.is_empty());
    let mut headers = Headers::new();
    let tcp_bytes = tcp.header_len();
    let (ethertype, ip_bytes) = match route.client {
        IpAddress::Ipv4(_) => (EthernetProtocol::Ipv4, IPV4_HEADER_LEN),
        IpAddress::Ipv6(_) => (EthernetProtocol::Ipv6, IPV6_HEADER_LEN),
    };
    let tcp_start = ETHERNET_HEADER_LEN + ip_bytes;
    headers.extend([0; MAX_HEADER_BYTES]);
    headers.truncate(tcp_start + tcp_bytes);

    EthernetRepr { src_addr: route.client_hardware, dst_addr: route.appliance_hardware, ethertype }
        .emit(&mut EthernetFrame::new_unchecked(&mut headers[..]));
    match (route.client, route.appliance) {
        (IpAddress::Ipv4(src_addr), IpAddress::Ipv4(dst_addr)) => {
            let repr = Ipv4Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Tcp,
                payload_len: tcp_bytes + payload_bytes,
                hop_limit: 64,
            };
            let packet = &mut headers[ETHERNET_HEADER_LEN..tcp_start];
            repr.emit(&mut Ipv4Packet::new_unchecked(packet), &ChecksumCapabilities::default());
        }
        (IpAddress::Ipv6(src_addr), IpAddress::Ipv6(dst_addr)) => {
            let repr = Ipv6Repr {
                src_addr,
                dst_addr,
                next_header: IpProtocol::Tcp,
                payload_len: tcp_bytes + payload_bytes,
                hop_limit: 64,
            };
            repr.emit(&mut Ipv6Packet::new_unchecked(&mut headers[ETHERNET_HEADER_LEN..tcp_start]));
        }
        _ => unreachable!("both ends of a route are of one IP version"),
    }
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut headers[tcp_start..]),
        &route.client,
        &route.appliance,
        &ChecksumCapabilities::ignored(),
    );
    headers
}

/// The frame that `headers` (of [`build`]) and `payload` make, with its TCP checksum.
pub fn with_checksum(route: &Route, headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let ip_bytes = match route.client {
        IpAddress::Ipv4(_) => IPV4_HEADER_LEN,
        IpAddress::Ipv6(_) => IPV6_HEADER_LEN,
    };
    let mut frame = [headers, payload].concat();
    TcpPacket::new_unchecked(&mut frame[ETHERNET_HEADER_LEN + ip_bytes..])
        .fill_checksum(&route.client, &route.appliance);
    frame
}

/// A TCP segment from the appliance.
#[derive(Debug)]
pub struct FromAppliance<'a> {
    /// The client half that it is meant for, as a hardware address.
    pub client_hardware: EthernetAddress,
    /// The appliance's address.
    pub appliance: IpAddress,
    /// The client's address.
    pub client: IpAddress,
    /// The TCP header; its `payload` is what follows it in the frame's head, and the frame's slices come behind.
    pub tcp: TcpRepr<'a>,
}

/// Takes a frame apart; with `verify`, only one without slices whose checksums are right. `None` for one that is not a whole, unfragmented TCP segment: neighbour discovery and the like, which
/// has no meaning on a wire that needs no neighbours.
pub fn parse<'a>(head: &'a [u8], slices: &[PageSlice], verify: bool) -> Option<FromAppliance<'a>> {
    let checksums = if verify { ChecksumCapabilities::default() } else { ChecksumCapabilities::ignored() };
    let frame = EthernetFrame::new_checked(head).ok()?;
    let ip = &head[ETHERNET_HEADER_LEN..];
    let frame_ip_bytes = ip.len() + slices.iter().map(PageSlice::len).sum::<usize>();
    // The packet's payload lies beyond `head`, so `new_checked` would refuse it: lengths are checked here.
    let (appliance, client, ip_header_bytes, ip_total_bytes) = match frame.ethertype() {
        EthernetProtocol::Ipv4 if ip.len() >= IPV4_HEADER_LEN => {
            let packet = Ipv4Packet::new_unchecked(ip);
            let fragment = packet.more_frags() || packet.frag_offset() != 0;
            if packet.version() != 4 || packet.next_header() != IpProtocol::Tcp || fragment {
                return None;
            }
            let header_bytes = usize::from(packet.header_len());
            if verify && (header_bytes > ip.len() || !packet.verify_checksum()) {
                return None;
            }
            let total_bytes = usize::from(packet.total_len());
            (IpAddress::Ipv4(packet.src_addr()), IpAddress::Ipv4(packet.dst_addr()), header_bytes, total_bytes)
        }
        EthernetProtocol::Ipv6 if ip.len() >= IPV6_HEADER_LEN => {
            let packet = Ipv6Packet::new_unchecked(ip);
            if packet.version() != 6 || packet.next_header() != IpProtocol::Tcp {
                return None;
            }
            let total_bytes = IPV6_HEADER_LEN + usize::from(packet.payload_len());
            (IpAddress::Ipv6(packet.src_addr()), IpAddress::Ipv6(packet.dst_addr()), IPV6_HEADER_LEN, total_bytes)
        }
        _ => return None,
    };
    let segment_start = ip_header_bytes.max(IPV4_HEADER_LEN);
    if ip_total_bytes != frame_ip_bytes || ip.len() < segment_start + TCP_HEADER_LEN {
        return None;
    }
    let packet = TcpPacket::new_checked(&ip[segment_start..]).ok()?;
    let tcp = TcpRepr::parse(&packet, &appliance, &client, &checksums).ok()?;
    Some(FromAppliance { client_hardware: frame.dst_addr(), appliance, client, tcp })
}

#[cfg(test)]
mod tests {
    use super::*;
    use minicache::rings::PagePool;
    use smoltcp::wire::{TcpControl, TcpSeqNumber};

    fn route(client: &str, appliance: &str) -> Route {
        Route {
            client_hardware: hardware_address(0x0102_0304, 9),
            appliance_hardware: EthernetAddress([6, 0, 0, 0, 0, 1]),
            client: client.parse().unwrap(),
            appliance: appliance.parse().unwrap(),
        }
    }

    fn tcp(payload: &[u8]) -> TcpRepr<'_> {
        TcpRepr {
            src_port: 80,
            dst_port: 5000,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(-3),
            ack_number: Some(TcpSeqNumber(17)),
            window_len: 100,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        }
    }

    /// What we build, read as a frame of the other direction.
    fn frame(route: &Route, payload: &[u8], slice_bytes: usize) -> Vec<u8> {
        let there = Route {
            client: route.appliance,
            appliance: route.client,
            client_hardware: route.appliance_hardware,
            appliance_hardware: route.client_hardware,
        };
        let mut frame = build(&there, &tcp(&[]), payload.len() + slice_bytes).to_vec();
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn what_is_built_is_parsed_again() {
        let pool = PagePool::new(1);
        let slices = [pool.allocate().unwrap().slice(7, 1000)];
        for (client, appliance) in [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")] {
            let route = route(client, appliance);
            let bytes = frame(&route, b"head", 1000);
            let segment = parse(&bytes, &slices, false).unwrap();
            assert_eq!((segment.client, segment.appliance), (route.client, route.appliance));
            assert_eq!(table_place(segment.client_hardware), Some((0x0102_0304, 9)));
            assert_eq!(segment.tcp, tcp(b"head"));
        }
    }

    #[test]
    fn the_largest_segment_just_fits_the_ring() {
        for (client, appliance) in [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")] {
            let route = route(client, appliance);
            assert_eq!(build(&route, &tcp(&[]), route.mss_bytes()).len() + route.mss_bytes(), 65_535);
        }
    }

    #[test]
    fn a_verified_segment_has_no_flipped_bit_that_matters() {
        for (client, appliance) in [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")] {
            let route = route(client, appliance);
            let there = Route { client: route.appliance, appliance: route.client, ..route };
            let bytes = with_checksum(&there, &build(&there, &tcp(&[]), 7), b"payload");
            let segment = parse(&bytes, &[], true).unwrap();
            assert_eq!(segment.tcp, tcp(b"payload"));
            for bit in 0..(bytes.len() - ETHERNET_HEADER_LEN) * 8 {
                let mut flipped = bytes.clone();
                flipped[ETHERNET_HEADER_LEN + bit / 8] ^= 1 << (bit % 8);
                // What IPv6 protects by nothing (traffic class, flow label, hop limit) means nothing to us either.
                if let Some(other) = parse(&flipped, &[], true) {
                    assert_eq!((other.tcp, other.client), (segment.tcp, segment.client));
                }
            }
        }
    }

    #[test]
    fn cut_off_and_mangled_frames_are_refused() {
        for (client, appliance) in [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")] {
            let bytes = frame(&route(client, appliance), b"payload", 0);
            assert!(parse(&bytes, &[], false).is_some());
            for length in 0..bytes.len() {
                assert!(parse(&bytes[..length], &[], false).is_none(), "{length} bytes");
            }
            let pool = PagePool::new(1);
            assert!(
                parse(&bytes, &[pool.allocate().unwrap().slice(0, 1)], false).is_none(),
                "more than the header says"
            );
            for position in 0..bytes.len() {
                for value in [0, 1, 0x0f, 0x40, 0x4f, 0x80, 0xff] {
                    let mut mangled = bytes.clone();
                    mangled[position] = value;
                    parse(&mangled, &[], false);
                    parse(&mangled, &[], true);
                }
            }
        }
    }
}
