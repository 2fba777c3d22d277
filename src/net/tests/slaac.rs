//! Addresses and routers that a router announces: how they come, stay and go, and announcements that are none.

use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Address,
    Ipv6Packet, NdiscNeighborFlags, NdiscRepr,
};

use super::control::{World, icmpv6_frame, solicitation};
use super::{PEER_MAC, address, ethernet_header, ip_frame};
use crate::net::NetworkConfig;
use crate::rings::memory::MemoryNetConfig;

const ROUTER: &str = "fe80::9";
/// What [`super::OUR_MAC`] makes of `2001:db8:1::/64`.
const OURS: &str = "2001:db8:1::ff:fe00:1";

fn world() -> World {
    let config = NetworkConfig { slaac: true, ..NetworkConfig::default() };
    World::with_config(MemoryNetConfig::default(), config)
}

/// A prefix information option.
fn prefix(prefix: &str, length: u8, flags: u8, valid_s: u32, preferred_s: u32) -> Vec<u8> {
    let prefix: Ipv6Address = prefix.parse().unwrap();
    let mut option = vec![3, 4, length, flags];
    option.extend(valid_s.to_be_bytes());
    option.extend(preferred_s.to_be_bytes());
    option.extend([0; 4]);
    option.extend(prefix.octets());
    option
}

/// The usual one.
fn good(valid_s: u32) -> Vec<u8> {
    prefix("2001:db8:1::", 64, 0xc0, valid_s, valid_s)
}

fn mtu(bytes: u32) -> Vec<u8> {
    [&[5, 1, 0, 0][..], &bytes.to_be_bytes()].concat()
}

/// A router advertisement as a frame.
fn announcement(source: &str, lifetime_s: u16, options: &[u8]) -> Vec<u8> {
    let (source, all): (Ipv6Address, Ipv6Address) = (source.parse().unwrap(), "ff02::1".parse().unwrap());
    let mut bytes = vec![134, 0, 0, 0, 64, 0];
    bytes.extend(lifetime_s.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(options);
    Icmpv6Packet::new_unchecked(&mut bytes[..]).fill_checksum(&source, &all);
    let mut frame = ip_frame(source.into(), all.into(), IpProtocol::Icmpv6, &bytes);
    ethernet_header(&mut frame, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), EthernetProtocol::Ipv6);
    Ipv6Packet::new_unchecked(&mut frame[14..]).set_hop_limit(255);
    frame
}

/// Lets virtual time pass, and returns the discovery messages that were sent, with their times in seconds.
fn run(world: &mut World, time: Duration) -> Vec<(i64, Icmpv6Message, Ipv6Address)> {
    let end = world.now + time;
    let mut sent = Vec::new();
    loop {
        let moved = world.round();
        for frame in world.client.take_raw() {
            let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
            let packet = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
            if packet.next_header() == IpProtocol::Icmpv6 {
                assert_eq!(packet.hop_limit(), 255);
                let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
                assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
                sent.push((world.now.secs(), message.msg_type(), packet.src_addr()));
            }
        }
        if moved {
            continue;
        }
        match world.network.next_deadline() {
            Some(next) if next <= end => world.now = next.max(world.now + Duration::from_micros(1)),
            _ => break,
        }
    }
    world.now = end;
    sent
}

/// A world in which that has been announced, some seconds ago.
fn announced(lifetime_s: u16, options: &[u8]) -> World {
    let mut world = world();
    world.client.send_raw(&announcement(ROUTER, lifetime_s, options));
    run(&mut world, Duration::from_secs(3));
    world
}

fn has(world: &World, text: &str) -> bool {
    world.network.is_ours(address(text))
}

fn say(world: &mut World, frame: &[u8]) {
    world.client.send_raw(frame);
    run(world, Duration::from_millis(1));
}

#[test]
fn routers_are_asked_for_ever_more_rarely() {
    let mut world = world();
    let sent = run(&mut world, Duration::from_secs(100));
    let link_local: Ipv6Address = "fe80::ff:fe00:1".parse().unwrap();
    assert!(
        sent.iter().all(|(_, kind, from)| (*kind, *from) == (Icmpv6Message::RouterSolicit, link_local)),
        "{sent:?}"
    );
    let times: Vec<i64> = sent.iter().map(|(at, ..)| *at).collect();
    assert_eq!(times, [1, 5, 13, 29, 61]);
    say(&mut world, &announcement(ROUTER, 1800, &[]));
    assert_eq!(run(&mut world, Duration::from_secs(1000)), [], "one has answered");
    let again = run(&mut world, Duration::from_secs(1000));
    assert!(again.len() > 3, "it is gone: {again:?}");
}

#[test]
fn routers_are_asked_from_an_address_of_ours() {
    let addresses = ["fe80::77/64"].iter().map(|text| text.parse().unwrap()).collect();
    let config = NetworkConfig { slaac: true, addresses, ..NetworkConfig::default() };
    let mut world = World::with_config(MemoryNetConfig::default(), config);
    let sent = run(&mut world, Duration::from_secs(2));
    let [(_, Icmpv6Message::RouterSolicit, from)] = sent[..] else { panic!("{sent:?}") };
    assert!(world.network.is_ours(from.into()), "{from}: a router may answer it alone");
}

#[test]
fn only_what_is_on_the_link_is_asked_for_there() {
    let bits = |world: &World| {
        let cidrs = world.network.addresses().iter();
        cidrs.filter(|cidr| cidr.address() == address(OURS)).map(|cidr| cidr.prefix_len()).collect::<Vec<_>>()
    };
    let mut world = announced(1800, &prefix("2001:db8:1::", 64, 0x40, 3600, 3600));
    assert_eq!(bits(&world), [128], "its prefix is behind the router (RFC 5942 §4)");
    say(&mut world, &announcement(ROUTER, 1800, &good(3600)));
    assert_eq!(bits(&world), [64]);
    // A flag that is 0 says nothing of the link (RFC 4861 §4.6.2).
    say(&mut world, &announcement(ROUTER, 1800, &prefix("2001:db8:1::", 64, 0x40, 3600, 3600)));
    assert_eq!(bits(&world), [64]);
}

#[test]
fn an_announced_address_is_ours_when_nobody_objects() {
    let mut world = world();
    world.client.send_raw(&announcement(ROUTER, 1800, &[good(3600), mtu(1400)].concat()));
    let asked = run(&mut world, Duration::from_millis(900));
    assert!(asked.contains(&(1, Icmpv6Message::NeighborSolicit, Ipv6Address::UNSPECIFIED)), "{asked:?}");
    assert!(!has(&world, OURS), "somebody may still object");
    run(&mut world, Duration::from_millis(200));
    assert!(has(&world, OURS) && world.network.take_changed());
    assert_eq!(world.network.mtu_limits(), (None, Some(1400)));
    assert_eq!(world.network.status().gateway_v6, Some(ROUTER.parse().unwrap()));
    assert_eq!(world.ask(&solicitation("2001:db8:1::9", OURS, "ff02::1:ff00:1")).len(), 1, "it is answered for");
    // Announced again it is no news.
    world.network.take_changed();
    say(&mut world, &announcement(ROUTER, 1800, &[good(3600), mtu(1400)].concat()));
    assert!(!world.network.take_changed());
}

#[test]
fn an_address_that_another_host_has_is_not_used() {
    let taken: Ipv6Address = OURS.parse().unwrap();
    let advert = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: taken,
        lladdr: Some(EthernetAddress(PEER_MAC).into()),
    };
    let solicit = NdiscRepr::NeighborSolicit { target_addr: taken, lladdr: None };
    for objection in [
        icmpv6_frame(OURS, "ff02::1", &Icmpv6Repr::Ndisc(advert)),
        icmpv6_frame("::", "ff02::1:ff00:1", &Icmpv6Repr::Ndisc(solicit)),
    ] {
        let mut world = world();
        say(&mut world, &announcement(ROUTER, 1800, &good(3600)));
        say(&mut world, &objection);
        run(&mut world, Duration::from_secs(10));
        assert!(!has(&world, OURS));
        let refused = world.network.status().slaac.unwrap();
        assert_eq!(refused.iter().map(|cidr| cidr.address()).collect::<Vec<_>>(), [taken]);
        // Too late is too late.
        let mut world = announced(1800, &good(3600));
        say(&mut world, &objection);
        run(&mut world, Duration::from_secs(10));
        assert!(has(&world, OURS));
    }
}

#[test]
fn addresses_and_routers_end_with_their_lifetimes() {
    let mut world = announced(1000, &good(500));
    run(&mut world, Duration::from_secs(490));
    assert!(has(&world, OURS));
    world.network.take_changed();
    run(&mut world, Duration::from_secs(20));
    assert!(!has(&world, OURS) && world.network.take_changed());
    assert!(world.network.status().gateway_v6.is_some());
    run(&mut world, Duration::from_secs(500));
    assert!(world.network.status().gateway_v6.is_none() && world.network.take_changed());

    let mut world = announced(1000, &good(u32::MAX));
    run(&mut world, Duration::from_secs(1_000_000_000));
    assert!(has(&world, OURS), "for ever");

    let mut world = announced(1000, &[]);
    say(&mut world, &announcement("fe80::a", 1000, &[]));
    assert_eq!(world.network.status().gateway_v6, Some(ROUTER.parse().unwrap()), "the one that was there first");
    say(&mut world, &announcement(ROUTER, 0, &[]));
    assert_eq!(world.network.status().gateway_v6, Some("fe80::a".parse().unwrap()));
}

#[test]
fn a_lifetime_can_be_cut_to_two_hours_but_no_further() {
    let hour = Duration::from_secs(3600);
    let mut world = announced(1000, &good(100_000));
    say(&mut world, &announcement(ROUTER, 1000, &good(1)));
    run(&mut world, hour);
    assert!(has(&world, OURS));
    say(&mut world, &announcement(ROUTER, 1000, &good(0)));
    run(&mut world, hour / 2);
    assert!(has(&world, OURS));
    run(&mut world, hour);
    assert!(!has(&world, OURS), "two hours after the first attempt");
    // A longer one counts at once.
    let mut world = announced(1000, &good(100));
    say(&mut world, &announcement(ROUTER, 1000, &good(5000)));
    run(&mut world, hour);
    assert!(has(&world, OURS));
}

#[test]
fn announcements_that_are_none_are_ignored() {
    let fine = good(3600);
    let mut far = announcement(ROUTER, 1800, &fine);
    Ipv6Packet::new_unchecked(&mut far[14..]).set_hop_limit(254);
    let mut damaged = announcement(ROUTER, 1800, &fine);
    *damaged.last_mut().unwrap() ^= 1;
    for (what, frame) in [
        ("from beyond a router", far),
        ("damaged", damaged),
        ("from a global address", announcement("2001:db8::1", 1800, &fine)),
        ("an option without length", announcement(ROUTER, 1800, &[&fine[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat())),
        ("an option beyond the end", announcement(ROUTER, 1800, &[&fine[..], &[1, 2, 0, 0, 0, 0, 0, 0]].concat())),
        ("half an option", announcement(ROUTER, 1800, &[&fine[..], &[1]].concat())),
        ("a short prefix option", announcement(ROUTER, 1800, &[&fine[..], &[3, 1, 64, 0xc0, 0, 0, 1, 0]].concat())),
    ] {
        let mut world = world();
        say(&mut world, &frame);
        run(&mut world, Duration::from_secs(3));
        let status = world.network.status();
        assert!(!has(&world, OURS) && status.gateway_v6.is_none(), "{what}");
    }
    for (what, options) in [
        ("a long prefix", prefix("2001:db8:1::", 65, 0xc0, 3600, 3600)),
        ("a short prefix", prefix("2001:db8:1::", 48, 0xc0, 3600, 3600)),
        ("not for addresses", prefix("2001:db8:1::", 64, 0x80, 3600, 3600)),
        ("preferred after its end", prefix("2001:db8:1::", 64, 0xc0, 3600, 3601)),
        ("without time", prefix("2001:db8:1::", 64, 0xc0, 0, 0)),
        ("link-local", prefix("fe80::", 64, 0xc0, 3600, 3600)),
        ("multicast", prefix("ff02::", 64, 0xc0, 3600, 3600)),
        ("nothing", prefix("::", 64, 0xc0, 3600, 3600)),
        ("too small an MTU", mtu(1279)),
    ] {
        let world = announced(1800, &options);
        assert_eq!(world.network.addresses().len(), 1, "{what}");
        assert_eq!(world.network.mtu_limits(), (None, None), "{what}");
        assert!(world.network.status().gateway_v6.is_some(), "{what}: the router is one all the same");
    }
    assert_eq!(announced(0, &mtu(u32::MAX)).network.mtu_limits(), (None, Some(65535)), "the device's own limit counts");
}

#[test]
fn there_are_limits_to_what_is_remembered() {
    let options: Vec<u8> =
        (0..30).flat_map(|i| prefix(&alloc::format!("2001:db8:{i}::"), 64, 0xc0, 3600, 3600)).collect();
    let mut world = announced(1800, &options);
    assert_eq!(world.network.addresses().len(), 1 + 4);
    for i in 0..50 {
        say(&mut world, &announcement(&alloc::format!("fe80::1:{i}"), 1800, &good(3600)));
    }
    assert_eq!(world.network.addresses().len(), 1 + 4);
    assert!(world.network.next_deadline() > Some(Instant::ZERO));
}

proptest! {
    #[test]
    fn no_announcement_panics(
        lifetime in any::<u16>(),
        options in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                (0..8_u32).prop_map(mtu),
                (any::<u8>(), any::<u8>(), any::<u32>(), any::<u32>())
                    .prop_map(|(length, flags, valid, preferred)| prefix("2001:db8:1::", length, flags, valid, preferred)),
                any::<u32>().prop_map(good),
            ],
            0..8,
        ),
    ) {
        let mut world = announced(lifetime, &options.concat());
        prop_assert!(world.network.addresses().len() <= 1 + 4);
        run(&mut world, Duration::from_secs(100));
    }
}
