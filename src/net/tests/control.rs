//! The control plane: ARP, neighbour discovery, echo, closed ports, limits, and a device that goes and comes back.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable,
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv6Address, Ipv6Packet,
    NdiscNeighborFlags, NdiscRepr, TcpControl, TcpPacket, TcpRepr, UdpRepr,
};

use super::client::Client;
use super::{OUR_MAC, PEER_MAC, SHELL_PORT, address, config, ethernet_header, ip_frame, tcp_frame};
use crate::net::{Network, NetworkConfig, NoSessions};
use crate::rings::memory::{MemoryNet, MemoryNetConfig, memory_net};
use crate::rings::{Capabilities, NetEvent, NetQueue, PagePool, PartialChecksum, RxChecksum};
use crate::stats::Stats;

/// A network on a memory device, and a host at the other end.
pub struct World {
    pub network: Network,
    pub net: MemoryNet,
    pub client: Client,
    pub stats: Rc<Stats>,
    pub now: Instant,
}

impl World {
    pub fn new(device: MemoryNetConfig) -> Self {
        Self::with_config(device, config())
    }

    pub fn with_config(device: MemoryNetConfig, config: NetworkConfig) -> Self {
        let stats = Rc::new(Stats::default());
        let (net, backend) = memory_net(device, PagePool::new(512), stats.clone());
        let network = Network::new(config, &net.capabilities(), 1, stats.clone()).unwrap();
        let client = Client::new(backend, &["192.168.7.9/24", "fd00::9/64", "fe80::9/64"]);
        Self { network, net, client, stats, now: Instant::from_secs(1) }
    }

    /// A round of the network without the client: what it was sent, it answers.
    pub fn round(&mut self) -> bool {
        let Self { network, net, now, .. } = self;
        while let Some(event) = net.event() {
            match event {
                NetEvent::Up(capabilities) => network.device_up(&capabilities),
                NetEvent::Down | NetEvent::Gone => network.device_down(),
            }
        }
        net.reclaim();
        let received = net.receive(64, &mut |frame| network.receive(frame, &mut |_| panic!("nothing is for port 80")));
        let busy = network.poll(*now, net, &mut NoSessions);
        net.flush();
        received > 0 || busy
    }

    /// Sends one frame and returns the answers.
    pub fn ask(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        // What the interface says unasked (group reports) is not an answer.
        self.round();
        self.client.take_raw();
        self.client.send_raw(frame);
        for _ in 0..4 {
            self.round();
        }
        self.client.take_raw()
    }

    /// As [`World::ask`], after the network has learned the sender's MAC addresses.
    pub fn ask_as_neighbor(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        for source in ["fd00::9", "fe80::9"] {
            let solicit = solicitation(source, "fd00::2", "ff02::1:ff00:2");
            assert_eq!(self.ask(&solicit).len(), 1);
        }
        assert_eq!(self.ask(&arp_request("192.168.7.2")).len(), 1);
        self.ask(frame)
    }
}

pub fn arp_request(target: &str) -> Vec<u8> {
    let IpAddress::Ipv4(target_protocol_addr) = address(target) else { panic!("ARP is for IPv4") };
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(PEER_MAC),
        source_protocol_addr: "192.168.7.9".parse().unwrap(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr,
    };
    // Padded to the least size of an Ethernet frame.
    let mut bytes = vec![0; 60];
    ethernet_header(&mut bytes, EthernetAddress::BROADCAST, EthernetProtocol::Arp);
    arp.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
    bytes
}

pub fn icmpv6_frame(source: &str, destination: &str, message: &Icmpv6Repr<'_>) -> Vec<u8> {
    let (source, destination): (Ipv6Address, Ipv6Address) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut payload = vec![0; message.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut payload[..]);
    message.emit(&source, &destination, &mut packet, &ChecksumCapabilities::default());
    let mut bytes = ip_frame(source.into(), destination.into(), IpProtocol::Icmpv6, &payload);
    if destination.is_multicast() {
        let [.., a, b, c, d] = destination.octets();
        ethernet_header(&mut bytes, EthernetAddress([0x33, 0x33, a, b, c, d]), EthernetProtocol::Ipv6);
    }
    // Neighbour discovery must not have crossed a router.
    Ipv6Packet::new_unchecked(&mut bytes[14..]).set_hop_limit(255);
    bytes
}

pub fn solicitation(source: &str, target: &str, destination: &str) -> Vec<u8> {
    let solicit = NdiscRepr::NeighborSolicit {
        target_addr: target.parse().unwrap(),
        lladdr: Some(EthernetAddress(PEER_MAC).into()),
    };
    icmpv6_frame(source, destination, &Icmpv6Repr::Ndisc(solicit))
}

pub fn icmpv4_frame(destination: &str, message: &Icmpv4Repr<'_>) -> Vec<u8> {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut Icmpv4Packet::new_unchecked(&mut payload[..]), &ChecksumCapabilities::default());
    ip_frame(address("192.168.7.9"), address(destination), IpProtocol::Icmp, &payload)
}

/// The only answer's Ethernet payload, after checking its addresses.
fn single_answer(answers: &[Vec<u8>]) -> &[u8] {
    let [answer] = answers else { panic!("{} answers", answers.len()) };
    let frame = EthernetFrame::new_checked(&answer[..]).unwrap();
    assert_eq!((frame.src_addr(), frame.dst_addr()), (EthernetAddress(OUR_MAC), EthernetAddress(PEER_MAC)));
    &answer[14..]
}

#[test]
fn arp_is_answered_for_our_addresses_only() {
    let mut world = World::new(MemoryNetConfig::default());
    let answers = world.ask(&arp_request("192.168.7.2"));
    let packet = ArpPacket::new_checked(single_answer(&answers)).unwrap();
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } =
        ArpRepr::parse(&packet).unwrap()
    else {
        panic!("no Ethernet and IPv4")
    };
    assert_eq!(operation, ArpOperation::Reply);
    assert_eq!(source_hardware_addr, EthernetAddress(OUR_MAC));
    assert_eq!(IpAddress::Ipv4(source_protocol_addr), address("192.168.7.2"));
    assert!(world.ask(&arp_request("192.168.7.3")).is_empty());
}

#[test]
fn neighbours_are_told_about_all_our_ipv6_addresses() {
    for (target, group) in [("fd00::2", "ff02::1:ff00:2"), ("fe80::ff:fe00:1", "ff02::1:ff00:1")] {
        // Asked through the group, and asked directly (is it still there?).
        for destination in [group, target] {
            let mut world = World::new(MemoryNetConfig::default());
            let answers = world.ask(&solicitation("fe80::9", target, destination));
            let packet = Ipv6Packet::new_checked(single_answer(&answers)).unwrap();
            let (source, destination) = (packet.src_addr(), packet.dst_addr());
            let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
            let checksums = ChecksumCapabilities::default();
            let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, lladdr, .. }) =
                Icmpv6Repr::parse(&source, &destination, &message, &checksums).unwrap()
            else {
                panic!("no advertisement")
            };
            assert_eq!((target_addr, target), (target.parse().unwrap(), target));
            assert_eq!(lladdr, Some(EthernetAddress(OUR_MAC).into()));
        }
    }
    let mut world = World::new(MemoryNetConfig::default());
    assert!(world.ask(&solicitation("fe80::9", "fd00::3", "ff02::1:ff00:3")).is_empty(), "somebody else's");
}

#[test]
fn a_newcomer_is_told_that_an_address_is_taken() {
    let ask = |target: &str, hop_limit: u8| {
        let mut world = World::new(MemoryNetConfig::default());
        let solicit = NdiscRepr::NeighborSolicit { target_addr: target.parse().unwrap(), lladdr: None };
        let mut frame = icmpv6_frame("::", "ff02::1:ff00:2", &Icmpv6Repr::Ndisc(solicit));
        Ipv6Packet::new_unchecked(&mut frame[14..]).set_hop_limit(hop_limit);
        world.ask(&frame)
    };
    let [answer] = &ask("fd00::2", 255)[..] else { panic!("one answer") };
    let frame = EthernetFrame::new_checked(&answer[..]).unwrap();
    assert_eq!(frame.dst_addr(), EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    assert_eq!((packet.dst_addr(), packet.hop_limit()), ("ff02::1".parse().unwrap(), 255));
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    let checksums = ChecksumCapabilities::default();
    let answer = Icmpv6Repr::parse(&packet.src_addr(), &packet.dst_addr(), &message, &checksums).unwrap();
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, flags, lladdr }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(IpAddress::Ipv6(target_addr), address("fd00::2"));
    assert_eq!((flags, lladdr), (NdiscNeighborFlags::OVERRIDE, Some(EthernetAddress(OUR_MAC).into())));

    assert!(ask("fd00::3", 255).is_empty(), "it may have that one");
    assert!(ask("fd00::2", 64).is_empty(), "from beyond a router");
}

#[test]
fn echo_is_answered_in_both_versions() {
    let data: Vec<u8> = (0..1400_u32).map(|i| i as u8).collect();
    for destination in ["192.168.7.2", "10.0.0.2"] {
        let mut world = World::new(MemoryNetConfig::default());
        let request = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: &data };
        let answers = world.ask_as_neighbor(&icmpv4_frame(destination, &request));
        let packet = Ipv4Packet::new_checked(single_answer(&answers)).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(IpAddress::Ipv4(packet.src_addr()), address(destination));
        let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        let answer = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap();
        assert_eq!(answer, Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data: &data });
    }
    for (source, destination) in [("fd00::9", "fd00::2"), ("fe80::9", "fe80::ff:fe00:1")] {
        let mut world = World::new(MemoryNetConfig::default());
        let request = Icmpv6Repr::EchoRequest { ident: 7, seq_no: 9, data: &data };
        let answers = world.ask_as_neighbor(&icmpv6_frame(source, destination, &request));
        let packet = Ipv6Packet::new_checked(single_answer(&answers)).unwrap();
        let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let answer = Icmpv6Repr::parse(&source, &destination, &message, &ChecksumCapabilities::default()).unwrap();
        assert_eq!(answer, Icmpv6Repr::EchoReply { ident: 7, seq_no: 9, data: &data });
    }
}

#[test]
fn closed_ports_say_so() {
    for (source, destination) in [("192.168.7.9", "192.168.7.2"), ("fd00::9", "fd00::2")] {
        let mut world = World::new(MemoryNetConfig::default());
        let answers = world.ask_as_neighbor(&tcp_frame(source, destination, 81, b"anybody?"));
        let bytes = single_answer(&answers);
        let payload = if source.contains('.') { &bytes[20..] } else { &bytes[40..] };
        let packet = TcpPacket::new_checked(payload).unwrap();
        let (from, to) = (address(destination), address(source));
        let header = TcpRepr::parse(&packet, &from, &to, &ChecksumCapabilities::default()).unwrap();
        assert_eq!((header.src_port, header.control), (81, TcpControl::Rst));
    }
    let mut world = World::new(MemoryNetConfig::default());
    let udp = UdpRepr { src_port: 1000, dst_port: 53 };
    let (source, destination) = (address("192.168.7.9"), address("192.168.7.2"));
    let mut payload = vec![0; 8 + 4];
    let mut packet = smoltcp::wire::UdpPacket::new_unchecked(&mut payload[..]);
    udp.emit(&mut packet, &source, &destination, 4, |data| data.fill(7), &ChecksumCapabilities::default());
    let answers = world.ask_as_neighbor(&ip_frame(source, destination, IpProtocol::Udp, &payload));
    let packet = Ipv4Packet::new_checked(single_answer(&answers)).unwrap();
    let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    let answer = Icmpv4Repr::parse(&message, &ChecksumCapabilities::default()).unwrap();
    let port_unreachable = Icmpv4DstUnreachable::PortUnreachable;
    assert!(matches!(answer, Icmpv4Repr::DstUnreachable { reason, .. } if reason == port_unreachable), "{answer:?}");
}

#[test]
fn a_partial_checksum_is_completed_for_the_control_plane() {
    let mut world = World::new(MemoryNetConfig::default());
    world.ask_as_neighbor(&arp_request("192.168.7.2"));
    let mut bytes = tcp_frame("192.168.7.9", "192.168.7.2", 81, b"odd");
    let (source, destination) = (address("192.168.7.9"), address("192.168.7.2"));
    let length = bytes.len() as u32 - 34;
    let pseudo = smoltcp::wire::checksum::pseudo_header(&source, &destination, IpProtocol::Tcp, length);
    bytes[34 + 16..34 + 18].copy_from_slice(&pseudo.to_be_bytes());
    // As it is, the checksum is wrong and nobody answers.
    assert!(world.ask(&bytes).is_empty());
    let mut ask = |partial| {
        world.client.backend.deliver(&[&bytes], RxChecksum::Partial(partial), None).unwrap();
        world.round();
        world.client.take_raw().len()
    };
    assert_eq!(ask(PartialChecksum { start: 34, offset: 16 }), 1);
    assert_eq!(ask(PartialChecksum { start: 34, offset: 60_000 }), 0, "outside of the frame");
}

#[test]
fn a_burst_beyond_the_queue_is_counted() {
    let mut world = World::new(MemoryNetConfig::default());
    world.round();
    let frame = arp_request("192.168.7.2");
    for _ in 0..40 {
        world.client.backend.deliver(&[&frame], RxChecksum::Unknown, None).unwrap();
    }
    world.round();
    assert_eq!((world.stats.rx_control.get(), world.stats.rx_control_dropped.get()), (32, 8));
    assert!(!world.round(), "everything has been answered");
}

#[test]
fn a_full_ring_holds_the_control_plane_back_and_loses_nothing() {
    let mut world = World::new(MemoryNetConfig { ring_entries: 20, ..MemoryNetConfig::default() });
    world.round();
    world.client.take_raw();
    let frame = arp_request("192.168.7.2");
    let mut taken = Vec::new();
    let mut answers = 0;
    for sent in 1..=60 {
        while world.client.backend.deliver(&[&frame], RxChecksum::Unknown, None).is_err() {
            world.round();
        }
        world.round();
        // The other side takes frames but completes none, so that the ring fills up: 20 in it, 16 queued, the rest waits.
        while let Some(frame) = world.client.backend.take() {
            taken.push(frame);
        }
        answers = taken.len();
        assert!(answers <= 20 && answers <= sent);
    }
    assert_eq!(answers, 20);
    assert_eq!(world.network.next_deadline(), None, "only the ring can wake us");
    assert!(!world.round(), "and without it there is nothing to do");
    for _ in 0..10 {
        for frame in taken.drain(..) {
            world.client.backend.complete(frame);
        }
        world.round();
        while let Some(frame) = world.client.backend.take() {
            answers += 1;
            taken.push(frame);
        }
    }
    assert_eq!(answers as u64, world.stats.rx_control.get(), "every question that had been taken in is answered");
    assert_eq!(world.stats.rx_control.get() + world.stats.rx_control_dropped.get(), 60);
}

#[test]
fn a_device_that_comes_back_different_is_believed() {
    let mut world = World::new(MemoryNetConfig::default());
    let data = [1; 1400];
    let request = icmpv4_frame("192.168.7.2", &Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: &data });
    assert_eq!(world.ask_as_neighbor(&request).len(), 1);

    let other_mac = [0x06, 0, 0, 0, 0, 0x55];
    let old = MemoryNetConfig::default().capabilities;
    world.client.backend.up(Capabilities { hardware_address: other_mac, mtu_bytes: 1000, ..old });
    world.round();
    assert_eq!(world.network.hardware_address(), other_mac);
    let link_local: IpAddress = address("fe80::400:ff:fe00:55");
    assert!(world.network.addresses().iter().any(|cidr| cidr.address() == link_local));
    world.client.take_raw();
    let answers = world.ask(&arp_request("192.168.7.2"));
    assert_eq!(EthernetFrame::new_unchecked(&answers[0][..]).src_addr(), EthernetAddress(other_mac));

    let mut to_new_mac = request;
    to_new_mac[..6].copy_from_slice(&other_mac);
    assert!(world.ask(&to_new_mac).is_empty(), "an answer would be larger than the MTU");
    let mut small = icmpv4_frame("192.168.7.2", &Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: &data[..900] });
    small[..6].copy_from_slice(&other_mac);
    assert_eq!(world.ask(&small).len(), 1);
}

#[test]
fn nothing_is_done_while_the_device_is_down() {
    let mut world = World::new(MemoryNetConfig::default());
    world.ask_as_neighbor(&arp_request("192.168.7.2"));
    world.client.backend.down();
    world.round();
    assert!(!world.round());
    assert_eq!(world.network.next_deadline(), None);
    world.client.backend.up(MemoryNetConfig::default().capabilities);
    world.round();
    assert_eq!(world.ask(&arp_request("192.168.7.2")).len(), 1);
}

#[test]
fn groups_are_reported_and_queries_answered() {
    let mut world = World::new(MemoryNetConfig::default());
    for _ in 0..3 {
        world.round();
    }
    let is_report = |frame: &Vec<u8>| frame[..6] == [0x33, 0x33, 0, 0, 0, 0x16];
    // One for each solicited-node group: of fd00::2 and of the link-local address.
    assert_eq!(world.client.take_raw().iter().filter(|frame| is_report(frame)).count(), 2);

    // A general query (RFC 3810 §5.1) with a maximum response delay of one second.
    let router = "fe80::1";
    let mut query =
        [&[58, 0, 5, 2, 0, 0, 1, 0][..], &[130, 0, 0, 0, 0x03, 0xe8, 0, 0], &[0; 16], &[0x02, 125, 0, 0]].concat();
    let (source, destination) = (address(router), address("ff02::1"));
    let pseudo = smoltcp::wire::checksum::pseudo_header(&source, &destination, IpProtocol::Icmpv6, 28);
    let sum = smoltcp::wire::checksum::combine(&[pseudo, smoltcp::wire::checksum::data(&query[8..])]);
    query[10..12].copy_from_slice(&(!sum).to_be_bytes());
    let mut frame = ip_frame(source, destination, IpProtocol::HopByHop, &query);
    ethernet_header(&mut frame, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), EthernetProtocol::Ipv6);
    Ipv6Packet::new_unchecked(&mut frame[14..]).set_hop_limit(1);
    world.client.send_raw(&frame);
    let mut reports = 0;
    let until = world.now + Duration::from_secs(3);
    world.round();
    while let Some(deadline) = world.network.next_deadline().filter(|deadline| *deadline < until) {
        world.now = world.now.max(deadline);
        world.round();
        reports += world.client.take_raw().iter().filter(|frame| is_report(frame)).count();
    }
    assert_eq!(reports, 1);
}

#[test]
fn a_hardware_address_that_is_none_is_refused() {
    let stats = Rc::new(Stats::default());
    for hardware_address in [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 1], [0; 6]] {
        let capabilities = Capabilities { hardware_address, ..MemoryNetConfig::default().capabilities };
        assert!(Network::new(config(), &capabilities, 1, stats.clone()).is_err());
    }
    let mut world = World::new(MemoryNetConfig::default());
    let liar = Capabilities { hardware_address: [0xff; 6], mtu_bytes: 0, ..MemoryNetConfig::default().capabilities };
    world.network.device_up(&liar);
    assert_eq!(world.network.hardware_address(), OUR_MAC);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn no_frame_panics_the_control_plane(
        choices in prop::collection::vec((0..8_usize, prop::collection::vec((0..200_usize, any::<u8>()), 0..4), 14..400_usize), 1..40),
    ) {
        let mut world = World::new(MemoryNetConfig::default());
        world.ask_as_neighbor(&arp_request("192.168.7.2"));
        for (kind, changes, keep) in choices {
            let mut bytes = match kind {
                0 => arp_request("192.168.7.2"),
                1 => solicitation("fe80::9", "fd00::2", "ff02::1:ff00:2"),
                2 => icmpv4_frame("192.168.7.2", &Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: b"data" }),
                3 => icmpv6_frame("fd00::9", "ff02::1", &Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: b"data" }),
                4 => tcp_frame("192.168.7.9", "192.168.7.2", SHELL_PORT, b"shell"),
                5 => tcp_frame("fd00::9", "fd00::2", SHELL_PORT, b"shell"),
                6 => ip_frame(address("fe80::9"), address("ff02::1"), IpProtocol::HopByHop, &[58, 0, 5, 2, 0, 0, 1, 0, 130, 0, 0, 0]),
                _ => ip_frame(address("192.168.7.9"), address("192.168.7.2"), IpProtocol::Udp, &[0; 20]),
            };
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(keep);
            // Headers that the changes broke would end the journey early: make their checksums fit, as an attacker would.
            fix_checksums(&mut bytes);
            world.client.send_raw(&bytes);
            world.now += Duration::from_millis(300);
            world.net.reclaim();
            let World { network, net, now, .. } = &mut world;
            net.receive(64, &mut |frame| network.receive(frame, &mut |_| ()));
            network.poll(*now, net, &mut NoSessions);
            net.flush();
            world.client.take_raw();
        }
    }
}

/// Makes the checksums of an IPv4 or IPv6 packet right, as far as it has such fields.
pub fn fix_checksums(bytes: &mut [u8]) {
    let Ok(frame) = EthernetFrame::new_checked(&*bytes) else { return };
    let (source, destination, start, end, protocol) = match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut packet) = Ipv4Packet::new_checked(&mut bytes[14..]) else { return };
            packet.fill_checksum();
            let start = 14 + usize::from(packet.header_len());
            let end = 14 + usize::from(packet.total_len());
            (packet.src_addr().into(), packet.dst_addr().into(), start, end, packet.next_header())
        }
        EthernetProtocol::Ipv6 => {
            let Ok(packet) = Ipv6Packet::new_checked(&bytes[14..]) else { return };
            let end = 14 + packet.total_len();
            (packet.src_addr().into(), packet.dst_addr().into(), 54, end, packet.next_header())
        }
        _ => return,
    };
    let payload = &mut bytes[start..end];
    let field = match protocol {
        IpProtocol::Tcp => 16,
        IpProtocol::Icmp | IpProtocol::Icmpv6 => 2,
        _ => return,
    };
    if payload.len() < field + 2 {
        return;
    }
    payload[field..field + 2].fill(0);
    let pseudo = match protocol {
        IpProtocol::Icmp => 0,
        _ => smoltcp::wire::checksum::pseudo_header(&source, &destination, protocol, payload.len() as u32),
    };
    let sum = smoltcp::wire::checksum::combine(&[pseudo, smoltcp::wire::checksum::data(payload)]);
    payload[field..field + 2].copy_from_slice(&(!sum).to_be_bytes());
}
