//! Neighbours whose MAC addresses are configured: they are not asked for, and nobody speaks for them.

use smoltcp::time::Duration;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Repr, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr,
};

use super::control::{World, arp_request, icmpv4_frame, icmpv6_frame, solicitation};
use super::{PEER_MAC, address, config};
use crate::net::StaticNeighbour;
use crate::rings::memory::MemoryNetConfig;

const KNOWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x42];

fn world(neighbours: &[&str]) -> World {
    let mut config = config();
    config.static_neighbours =
        neighbours.iter().map(|text| StaticNeighbour { address: address(text), hardware_address: KNOWN_MAC }).collect();
    World::with_config(MemoryNetConfig::default(), config)
}

fn echo_v4() -> alloc::vec::Vec<u8> {
    icmpv4_frame("192.168.7.2", &Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: b"ping" })
}

fn echo_v6() -> alloc::vec::Vec<u8> {
    icmpv6_frame("fd00::9", "fd00::2", &Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: b"ping" })
}

/// Where the only answer goes, and of what kind it is.
fn answer_to(world: &mut World, frame: &[u8]) -> (EthernetAddress, EthernetProtocol) {
    let answers = world.ask(frame);
    let [answer] = &answers[..] else { panic!("{} answers", answers.len()) };
    let frame = EthernetFrame::new_checked(&answer[..]).unwrap();
    (frame.dst_addr(), frame.ethertype())
}

#[test]
fn without_an_entry_neighbours_are_asked_for() {
    let mut world = world(&[]);
    assert_eq!(answer_to(&mut world, &echo_v4()), (EthernetAddress::BROADCAST, EthernetProtocol::Arp));
}

#[test]
fn answers_go_where_the_entry_says_for_ever() {
    let mut world = world(&["192.168.7.9", "fd00::9"]);
    let known = EthernetAddress(KNOWN_MAC);
    for _ in 0..3 {
        // The first echo makes smoltcp ask, and is lost as behind any neighbour's first question.
        world.ask(&echo_v4());
        assert_eq!(answer_to(&mut world, &echo_v4()), (known, EthernetProtocol::Ipv4));
        // smoltcp asks one question a second.
        world.now += Duration::from_secs(2);
        world.ask(&echo_v6());
        assert_eq!(answer_to(&mut world, &echo_v6()), (known, EthernetProtocol::Ipv6));
        world.now += Duration::from_secs(3600);
    }
}

#[test]
fn nobody_else_speaks_for_them() {
    let known = EthernetAddress(KNOWN_MAC);
    let mut world = world(&["192.168.7.9", "fd00::9"]);
    for echo in [echo_v4(), echo_v6()] {
        world.ask(&echo);
        world.now += Duration::from_secs(2);
    }
    // All of these come from another MAC address, and would be believed without the entry.
    let advert = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: "fd00::9".parse().unwrap(),
        lladdr: Some(EthernetAddress(PEER_MAC).into()),
    };
    for lie in [
        arp_request("192.168.7.2"),
        solicitation("fd00::9", "fd00::2", "ff02::1:ff00:2"),
        icmpv6_frame("fd00::9", "fd00::2", &Icmpv6Repr::Ndisc(advert)),
    ] {
        let before = world.stats.rx_malformed.get();
        assert!(world.ask(&lie).is_empty());
        assert_eq!(world.stats.rx_malformed.get(), before + 1);
    }
    assert_eq!(answer_to(&mut world, &echo_v4()).0, known);
    assert_eq!(answer_to(&mut world, &echo_v6()).0, known);
}
