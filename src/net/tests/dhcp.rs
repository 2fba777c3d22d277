//! An address that a DHCP server lends: lease, renewal, rebinding, expiry, refusals, and servers that talk nonsense.

use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Address, Ipv4Packet, UdpPacket, UdpRepr,
};

use super::control::{World, arp_request};
use super::{OUR_MAC, PEER_MAC, address, ethernet_header, ip_frame};
use crate::net::{Lease, NetworkConfig};
use crate::rings::memory::MemoryNetConfig;
use crate::rings::{Capabilities, NetQueue};

/// A server with one address to give.
pub struct Server {
    pub offers: Ipv4Address,
    pub mask: Option<Ipv4Address>,
    pub router: Option<Ipv4Address>,
    pub lease_s: Option<u32>,
    pub mtu: Option<Vec<u8>>,
    /// Other options of its answers.
    pub options: Vec<(u8, Vec<u8>)>,
    /// Says NAK to requests.
    pub refuses: bool,
    pub silent: bool,
    /// What it has been asked, and the destination address of that.
    pub heard: Vec<(DhcpMessageType, Ipv4Address)>,
}

pub const SERVER: Ipv4Address = Ipv4Address::new(192, 168, 7, 9);
const DNS: Ipv4Address = Ipv4Address::new(9, 9, 9, 9);

impl Server {
    pub fn new() -> Self {
        Self {
            offers: Ipv4Address::new(192, 168, 7, 100),
            mask: Some(Ipv4Address::new(255, 255, 255, 0)),
            router: Some(Ipv4Address::new(192, 168, 7, 1)),
            lease_s: Some(1000),
            mtu: Some(vec![0x05, 0x78]),
            options: Vec::new(),
            refuses: false,
            silent: false,
            heard: Vec::new(),
        }
    }

    /// The answer to a client's message, both as UDP payload.
    pub fn answer(&mut self, message: &[u8], sent_to: Ipv4Address) -> Option<Vec<u8>> {
        let packet = DhcpPacket::new_checked(message).unwrap();
        let asked = DhcpRepr::parse(&packet).unwrap();
        self.heard.push((asked.message_type, sent_to));
        if self.silent {
            return None;
        }
        let message_type = match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            DhcpMessageType::Request if self.refuses => DhcpMessageType::Nak,
            DhcpMessageType::Request => DhcpMessageType::Ack,
            other => panic!("{other:?}"),
        };
        let others = self.options.iter().map(|(kind, data)| DhcpOption { kind: *kind, data });
        let options: Vec<DhcpOption<'_>> =
            self.mtu.iter().map(|mtu| DhcpOption { kind: 26, data: mtu }).chain(others).collect();
        let reply = DhcpRepr {
            message_type,
            your_ip: self.offers,
            server_identifier: Some(SERVER),
            subnet_mask: self.mask,
            router: self.router,
            dns_servers: Some([DNS].into_iter().collect()),
            lease_duration: self.lease_s,
            client_identifier: None,
            parameter_request_list: None,
            max_size: None,
            requested_ip: None,
            additional_options: &options,
            ..asked
        };
        let mut bytes = vec![0; reply.buffer_len()];
        reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
        // Many servers fill up what the client says it takes at least: longer than what is looked at of a frame's headers.
        bytes.resize(bytes.len().max(548), 0);
        Some(bytes)
    }

    /// The answer to a frame, as a frame.
    fn answer_frame(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        if ethernet.ethertype() == EthernetProtocol::Arp {
            return self.resolve(ethernet.payload());
        }
        if ethernet.ethertype() != EthernetProtocol::Ipv4 {
            return None;
        }
        let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        let udp = UdpPacket::new_checked(ip.payload()).ok().filter(|_| ip.next_header() == IpProtocol::Udp)?;
        assert_eq!((udp.src_port(), udp.dst_port()), (68, 67));
        let payload = self.answer(udp.payload(), ip.dst_addr())?;
        Some(to_client(self.offers, &payload))
    }
}

impl Server {
    /// The answer to an ARP request for the server, as a frame.
    fn resolve(&self, request: &[u8]) -> Option<Vec<u8>> {
        let request = ArpRepr::parse(&ArpPacket::new_checked(request).unwrap()).unwrap();
        let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } = request
        else {
            return None;
        };
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(PEER_MAC),
            source_protocol_addr: SERVER,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source_protocol_addr,
        };
        let mut bytes = vec![0; 60];
        ethernet_header(&mut bytes, EthernetAddress(OUR_MAC), EthernetProtocol::Arp);
        reply.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
        (target_protocol_addr == SERVER).then_some(bytes)
    }
}

/// A frame from the server's port to a client that is to have `destination`.
fn to_client(destination: Ipv4Address, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (IpAddress::Ipv4(SERVER), IpAddress::Ipv4(destination));
    let repr = UdpRepr { src_port: 67, dst_port: 68 };
    let mut bytes = vec![0; repr.header_len() + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &source,
        &destination,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &Default::default(),
    );
    ip_frame(source, destination, IpProtocol::Udp, &bytes)
}

struct Link {
    world: World,
    server: Server,
}

impl Link {
    fn new() -> Self {
        let config = NetworkConfig { dhcp: true, ..NetworkConfig::default() };
        Self { world: World::with_config(MemoryNetConfig::default(), config), server: Server::new() }
    }

    fn leased() -> Self {
        let mut link = Self::new();
        link.run(Duration::from_secs(1));
        assert!(link.lease().is_some());
        link
    }

    /// Lets virtual time pass; only what is due happens.
    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        loop {
            let mut moved = self.world.round();
            for frame in self.world.client.take_raw() {
                moved = true;
                if let Some(answer) = self.server.answer_frame(&frame) {
                    self.world.client.send_raw(&answer);
                }
            }
            if moved {
                continue;
            }
            match self.world.network.next_deadline() {
                Some(next) if next <= end => self.world.now = next.max(self.world.now + Duration::from_micros(1)),
                _ => break,
            }
        }
        self.world.now = end;
    }

    fn lease(&self) -> Option<Lease> {
        self.world.network.status().dhcp.expect("DHCP is on")
    }

    fn has(&self, text: &str) -> bool {
        self.world.network.is_ours(address(text))
    }

    fn asked(&mut self) -> Vec<(DhcpMessageType, Ipv4Address)> {
        core::mem::take(&mut self.server.heard)
    }
}

const BROADCAST: Ipv4Address = Ipv4Address::BROADCAST;

#[test]
fn an_address_is_lent_used_and_renewed() {
    let mut link = Link::new();
    assert!(!link.has("192.168.7.100") && link.has("fe80::ff:fe00:1"));
    link.run(Duration::from_secs(1));
    assert_eq!(link.asked(), [(DhcpMessageType::Discover, BROADCAST), (DhcpMessageType::Request, BROADCAST)]);
    let lease = link.lease().unwrap();
    assert_eq!(alloc::format!("{}", lease.address), "192.168.7.100/24");
    assert_eq!((lease.server, lease.mtu_bytes, &lease.dns_servers[..]), (SERVER, Some(1400), &[DNS][..]));
    assert_eq!(lease.expires_at, Instant::from_secs(1001));
    assert!(link.has("192.168.7.100") && link.world.network.take_changed());
    assert_eq!(link.world.network.mtu_limits(), (Some(1400), None));
    let status = link.world.network.status();
    assert_eq!((status.gateway_v4, &status.dns_servers[..]), (link.server.router, &[IpAddress::Ipv4(DNS)][..]));
    assert_eq!(link.world.ask(&arp_request("192.168.7.100")).len(), 1, "it is answered for");

    // At half time it is renewed with the server itself, which is news to nobody.
    link.run(Duration::from_secs(505));
    assert_eq!(link.asked(), [(DhcpMessageType::Request, SERVER)]);
    assert_eq!(link.lease().unwrap().expires_at, Instant::from_secs(1501));
    assert!(!link.world.network.take_changed());
}

#[test]
fn without_a_server_the_search_goes_on_and_ipv6_works() {
    let mut link = Link::new();
    link.server.silent = true;
    link.run(Duration::from_secs(60));
    let asked = link.asked();
    assert!((10..20).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|asked| *asked == (DhcpMessageType::Discover, BROADCAST)));
    assert!(link.lease().is_none() && link.has("fe80::ff:fe00:1"));
    link.server.silent = false;
    link.run(Duration::from_secs(5));
    assert!(link.has("192.168.7.100"));
}

#[test]
fn a_lease_that_nobody_renews_is_sought_elsewhere_and_ends() {
    let mut link = Link::leased();
    link.server.silent = true;
    link.asked();
    link.world.network.take_changed();
    link.run(Duration::from_secs(990));
    let asked = link.asked();
    assert!(asked.iter().all(|(kind, _)| *kind == DhcpMessageType::Request), "{asked:?}");
    assert_eq!(asked.first().unwrap().1, SERVER, "renewing");
    assert_eq!(asked.last().unwrap().1, BROADCAST, "rebinding");
    assert!(link.has("192.168.7.100"));
    link.run(Duration::from_secs(20));
    assert!(!link.has("192.168.7.100") && link.lease().is_none() && link.world.network.take_changed());
    assert_eq!(link.world.network.mtu_limits(), (None, None));
    assert_eq!(link.world.network.status().gateway_v4, None);
    assert!(link.world.ask(&arp_request("192.168.7.100")).is_empty(), "it is not answered for any more");
    assert!(link.asked().contains(&(DhcpMessageType::Discover, BROADCAST)));
}

#[test]
fn a_server_that_takes_an_address_back_gives_another() {
    let mut link = Link::leased();
    link.server.refuses = true;
    link.run(Duration::from_secs(501));
    assert!(!link.has("192.168.7.100"), "NAK");
    link.asked();
    // It offers and refuses in turn.
    link.run(Duration::from_secs(100));
    let asked = link.asked();
    assert!((25..80).contains(&asked.len()), "no faster than the clock: {}", asked.len());
    link.server.refuses = false;
    link.server.offers = Ipv4Address::new(192, 168, 7, 101);
    link.run(Duration::from_secs(60));
    assert!(link.has("192.168.7.101") && !link.has("192.168.7.100"));
    // A renewal may change it too.
    link.server.offers = Ipv4Address::new(192, 168, 7, 102);
    link.world.network.take_changed();
    link.run(Duration::from_secs(600));
    assert!(link.has("192.168.7.102") && !link.has("192.168.7.101") && link.world.network.take_changed());
}

#[test]
fn offers_that_make_no_sense_are_not_taken() {
    let host = Ipv4Address::new(192, 168, 7, 100);
    let mask = Some(Ipv4Address::new(255, 255, 255, 0));
    for (offers, mask, lease_s) in [
        (host, mask, Some(0)),
        (host, mask, Some(9)),
        (host, None, Some(1000)),
        (host, Some(Ipv4Address::new(255, 0, 255, 0)), Some(1000)),
        (host, Some(Ipv4Address::UNSPECIFIED), Some(1000)),
        (Ipv4Address::new(192, 168, 7, 255), mask, Some(1000)),
        (Ipv4Address::new(192, 168, 7, 0), mask, Some(1000)),
        (Ipv4Address::new(127, 0, 0, 1), mask, Some(1000)),
        (Ipv4Address::new(224, 0, 0, 1), mask, Some(1000)),
    ] {
        let mut link = Link::new();
        link.server.offers = offers;
        link.server.mask = mask;
        link.server.lease_s = lease_s;
        link.run(Duration::from_secs(30));
        assert!(link.lease().is_none(), "{offers} {mask:?} {lease_s:?}");
        let asked = link.asked();
        assert!(asked.len() < 12, "no faster than the clock: {asked:?}");
        // A renewal with the same is not heard either: the lease ends in its time.
        let mut link = Link::leased();
        (link.server.offers, link.server.mask, link.server.lease_s) = (offers, mask, lease_s);
        link.run(Duration::from_secs(900));
        assert!(link.has("192.168.7.100"), "{offers} {mask:?} {lease_s:?}");
        link.run(Duration::from_secs(200));
        assert!(link.lease().is_none());
    }
}

#[test]
fn what_can_be_left_out_of_a_lease_is() {
    for mtu in [&[2, 0x3f][..], &[0, 68], &[0, 0], &[5], &[0, 0, 5, 0xdc], &[]] {
        let mut link = Link::new();
        link.server.mtu = Some(mtu.to_vec());
        link.server.router = Some(link.server.offers);
        link.run(Duration::from_secs(1));
        let lease = link.lease().unwrap();
        assert_eq!((lease.mtu_bytes, lease.router), (None, None), "{mtu:?}");
    }
    let mut link = Link::new();
    link.server.mtu = Some(vec![0xff, 0xff]);
    link.server.lease_s = Some(u32::MAX);
    link.server.router = Some(Ipv4Address::new(224, 0, 0, 1));
    link.run(Duration::from_secs(1));
    let lease = link.lease().unwrap();
    assert_eq!((lease.mtu_bytes, lease.router), (Some(65535), None));
    link.run(Duration::from_secs(100_000_000));
    assert!(link.has("192.168.7.100"), "for ever, nearly");
}

#[test]
fn the_first_of_several_routers_is_used() {
    for (routers, used) in [
        (&[192, 168, 7, 1, 192, 168, 7, 2][..], Some(Ipv4Address::new(192, 168, 7, 1))),
        (&[0, 0, 0, 0, 192, 168, 7, 100, 192, 168, 7, 2], Some(Ipv4Address::new(192, 168, 7, 2))),
        (&[192, 168, 7, 1, 192, 168, 7], Some(Ipv4Address::new(192, 168, 7, 1))),
        (&[192, 168, 7], None),
    ] {
        let mut link = Link::new();
        link.server.router = None;
        link.server.options = vec![(3, routers.to_vec())];
        link.run(Duration::from_secs(1));
        assert_eq!(link.lease().unwrap().router, used, "{routers:?}");
        assert_eq!(link.world.network.status().gateway_v4, used);
    }
}

#[test]
fn a_lease_that_is_to_be_renewed_at_once_is_renewed_no_faster_than_the_clock() {
    const T1: u8 = 58;
    let mut link = Link::new();
    link.server.options = vec![(T1, vec![0; 4])];
    for _ in 0..100 {
        link.world.round();
        for frame in link.world.client.take_raw() {
            if let Some(answer) = link.server.answer_frame(&frame) {
                link.world.client.send_raw(&answer);
            }
        }
    }
    assert!(link.has("192.168.7.100"));
    let asked = link.asked();
    assert!(asked.len() < 6, "in no time: {}", asked.len());
    // Nor is it lost.
    link.run(Duration::from_secs(3000));
    assert!(link.has("192.168.7.100"));
    assert!(link.asked().iter().all(|(kind, _)| *kind == DhcpMessageType::Request));
}

#[test]
fn a_configured_router_goes_before_a_lent_one() {
    let mut config = NetworkConfig { dhcp: true, ..NetworkConfig::default() };
    config.gateway_v4 = Some(Ipv4Address::new(192, 168, 7, 77));
    let world = World::with_config(MemoryNetConfig::default(), config.clone());
    let mut link = Link { world, server: Server::new() };
    link.run(Duration::from_secs(1));
    assert_eq!(link.world.network.status().gateway_v4, config.gateway_v4);
}

#[test]
fn a_lease_outlives_the_device_but_not_its_mac_address() {
    let mut link = Link::leased();
    let capabilities = Capabilities { hardware_address: OUR_MAC, ..link.world.net.capabilities() };
    link.world.network.device_down();
    link.world.network.device_up(&capabilities);
    assert!(link.has("192.168.7.100"));
    link.run(Duration::from_secs(1));
    assert!(link.has("192.168.7.100"));
    let other = Capabilities { hardware_address: [2, 0, 0, 0, 0, 0x77], ..capabilities };
    link.world.network.device_up(&other);
    assert!(!link.has("192.168.7.100"));
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut link = Link::leased();
    let mut quiet = World::new(MemoryNetConfig::default());
    let discover = discover();
    let asked = DhcpPacket::new_checked(&discover[..]).unwrap();
    let mut forged = DhcpRepr::parse(&asked).unwrap();
    forged.transaction_id ^= 1;
    forged.message_type = DhcpMessageType::Ack;
    forged.your_ip = Ipv4Address::new(192, 168, 7, 66);
    forged.server_identifier = Some(SERVER);
    forged.subnet_mask = Some(Ipv4Address::new(255, 255, 255, 0));
    let mut bytes = vec![0; forged.buffer_len()];
    forged.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
    let frame = to_client(forged.your_ip, &bytes);
    link.world.client.send_raw(&frame);
    link.run(Duration::from_secs(1));
    assert!(link.has("192.168.7.100") && !link.has("192.168.7.66"), "another transaction's");
    assert!(quiet.ask(&frame).is_empty());
    assert_eq!(quiet.stats.rx_not_ours.get(), 1, "without DHCP it is for another address");
}

/// A client's first message.
fn discover() -> Vec<u8> {
    let mut link = Link::new();
    link.world.round();
    let frames = link.world.client.take_raw();
    let is_dhcp = |frame: &&Vec<u8>| frame.len() > 250;
    frames.iter().find(is_dhcp).expect("it is sent at once")[42..].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// A server whose answers are damaged, in options too, so that they pass for good ones as often as possible.
    #[test]
    fn damaged_answers_never_panic_and_give_no_impossible_address(
        damage in prop::collection::vec((0..400_usize, any::<u8>()), 1..6),
    ) {
        let mut link = Link::new();
        for _ in 0..20 {
            link.world.round();
            for frame in link.world.client.take_raw() {
                let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
                if ethernet.ethertype() != EthernetProtocol::Ipv4 || frame.len() < 250 {
                    continue;
                }
                let Some(mut payload) = link.server.answer(&frame[42..], BROADCAST) else { continue };
                for (at, value) in &damage {
                    let at = at % payload.len();
                    payload[at] = *value;
                }
                let answer = to_client(link.server.offers, &payload);
                link.world.client.send_raw(&answer);
            }
        }
        if let Some(lease) = link.lease() {
            let address = lease.address.address();
            prop_assert!(!address.is_multicast() && !address.is_loopback() && !address.is_unspecified());
            prop_assert!(lease.mtu_bytes.is_none_or(|bytes| bytes >= 576));
        }
        link.run(Duration::from_secs(10_000));
    }
}
