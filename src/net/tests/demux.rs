//! The parse: what reaches whom, whatever the slices, and what is dropped and counted.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use smoltcp::wire::{EthernetAddress, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpRepr, TcpSeqNumber};

use super::{
    OUR_MAC, PEER_MAC, address, config, ethernet_header, ip_frame, rx_frame, tcp_bytes, tcp_frame, tcp_header,
};
use crate::net::{Network, NetworkConfig, StaticNeighbour};
use crate::rings::memory::MemoryNetConfig;
use crate::rings::{Capabilities, Family, PagePool, PartialChecksum, RxChecksum, RxFrame, RxGso};
use crate::stats::{Counter, Stats};

/// A segment that reached the serving TCP, copied.
#[derive(Debug, PartialEq)]
struct Served {
    ends: (smoltcp::wire::IpAddress, smoltcp::wire::IpAddress),
    mac: [u8; 6],
    sequence: TcpSeqNumber,
    sack: Option<(u32, u32)>,
    payload: Vec<u8>,
}

struct Bench {
    network: Network,
    stats: Rc<Stats>,
    pool: PagePool,
}

impl Bench {
    fn new() -> Self {
        Self::with_config(config())
    }

    fn with_config(config: NetworkConfig) -> Self {
        let stats = Rc::new(Stats::default());
        let capabilities = Capabilities { hardware_address: OUR_MAC, ..MemoryNetConfig::default().capabilities };
        let network = Network::new(config, &capabilities, 1, stats.clone()).unwrap();
        Self { network, stats, pool: PagePool::new(64) }
    }

    fn receive(&mut self, frame: &RxFrame) -> Option<Served> {
        let mut served = None;
        self.network.receive(frame, &mut |segment| {
            assert!(segment.header.payload.is_empty(), "the payload is in the slices");
            assert!(served.is_none(), "one frame, one segment");
            served = Some(Served {
                ends: (segment.source, segment.destination),
                mac: segment.remote_hardware_address,
                sequence: segment.header.seq_number,
                sack: segment.header.sack_ranges[0],
                payload: segment.payload.concat(),
            });
        });
        served
    }

    fn receive_bytes(&mut self, bytes: &[u8]) -> Option<Served> {
        let frame = rx_frame(&self.pool, bytes, &[]);
        self.receive(&frame)
    }

    /// The frame is dropped, and that counter alone says why.
    fn assert_dropped(&mut self, bytes: &[u8], counter: fn(&Stats) -> &Counter) {
        let sum = |stats: &Stats| {
            [
                &stats.rx_malformed,
                &stats.rx_not_ours,
                &stats.rx_fragments,
                &stats.rx_vlan,
                &stats.rx_bad_checksum,
                &stats.rx_control,
                &stats.rx_control_dropped,
            ]
            .iter()
            .map(|counter| counter.get())
            .sum::<u64>()
        };
        let (before, total) = (counter(&self.stats).get(), sum(&self.stats));
        assert_eq!(self.receive_bytes(bytes), None);
        assert_eq!(counter(&self.stats).get(), before + 1, "{:?}", self.stats);
        assert_eq!(sum(&self.stats), total + 1, "counted twice");
    }
}

const V4: (&str, &str) = ("192.168.7.9", "192.168.7.2");
const V6: (&str, &str) = ("fd00::9", "fd00::2");

fn frame_to_us((source, destination): (&str, &str), payload: &[u8]) -> Vec<u8> {
    tcp_frame(source, destination, 80, payload)
}

proptest! {
    #[test]
    fn every_cut_of_a_valid_frame_parses_the_same(
        payload in prop::collection::vec(any::<u8>(), 0..3000),
        cuts in prop::collection::vec(0..200_usize, 0..8),
        far_cuts in prop::collection::vec(0..3100_usize, 0..8),
        version_6 in any::<bool>(),
    ) {
        let ends = if version_6 { V6 } else { V4 };
        let bytes = frame_to_us(ends, &payload);
        let mut bench = Bench::new();
        let cuts = [cuts, far_cuts].concat();
        let frame = rx_frame(&bench.pool, &bytes, &cuts);
        let served = bench.receive(&frame);
        let expected = Served {
            ends: (address(ends.0), address(ends.1)),
            mac: PEER_MAC,
            sequence: TcpSeqNumber(1_000_000),
            sack: Some((2_001_000, 2_002_000)),
            payload,
        };
        prop_assert_eq!(served, Some(expected));
    }

    #[test]
    fn a_flipped_bit_never_reaches_the_serving_tcp(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        bit in 0..4000_usize,
        version_6 in any::<bool>(),
    ) {
        let mut bytes = frame_to_us(if version_6 { V6 } else { V4 }, &payload);
        let bit = bit % (bytes.len() * 8);
        // Nothing protects the sender's MAC address, and in IPv6 nothing the traffic class, flow label and hop limit.
        let unprotected = (48..96).contains(&bit)
            || version_6 && ((14 * 8 + 4..18 * 8).contains(&bit) || (21 * 8..22 * 8).contains(&bit));
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        let mut bench = Bench::new();
        let served = bench.receive_bytes(&bytes);
        prop_assert!(served.is_none() || unprotected, "bit {} went unnoticed", bit);
    }

    #[test]
    fn no_frame_panics(bytes in prop::collection::vec(any::<u8>(), 1..300), cuts in prop::collection::vec(0..100_usize, 0..5)) {
        let mut bench = Bench::new();
        let frame = rx_frame(&bench.pool, &bytes, &cuts);
        bench.receive(&frame);
    }

    #[test]
    fn no_mutation_of_a_valid_frame_panics(
        payload in prop::collection::vec(any::<u8>(), 0..100),
        changes in prop::collection::vec((0..150_usize, any::<u8>()), 1..6),
        keep in 1..300_usize,
        partial in prop::option::of((any::<u16>(), any::<u16>())),
        gso in any::<bool>(),
        version_6 in any::<bool>(),
    ) {
        let mut bytes = frame_to_us(if version_6 { V6 } else { V4 }, &payload);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(keep);
        let mut bench = Bench::new();
        let mut frame = rx_frame(&bench.pool, &bytes, &[]);
        if let Some((start, offset)) = partial {
            frame.checksum = RxChecksum::Partial(PartialChecksum { start, offset });
        }
        frame.gso = gso.then_some(RxGso { family: Family::Ipv4, mss_bytes: 1448 });
        bench.receive(&frame);
    }
}

#[test]
fn a_static_neighbour_is_answered_where_it_is_said_to_be() {
    let mut config = config();
    let hardware_address = [2, 0, 0, 0, 0, 0x42];
    for known in ["192.168.7.9", "fd00::9"] {
        config.static_neighbours.push(StaticNeighbour { address: address(known), hardware_address });
    }
    let mut bench = Bench::with_config(config);
    for (source, destination, mac) in [
        ("192.168.7.9", "192.168.7.2", hardware_address),
        ("fd00::9", "fd00::2", hardware_address),
        ("192.168.7.10", "192.168.7.2", PEER_MAC),
    ] {
        let served = bench.receive_bytes(&frame_to_us((source, destination), b"x")).unwrap();
        assert_eq!(served.mac, mac, "{source}");
    }
}

#[test]
fn padding_is_cut_off_and_a_length_beyond_the_frame_is_malformed() {
    for ends in [V4, V6] {
        let mut bench = Bench::new();
        let whole = frame_to_us(ends, b"GET");
        let padded = [&whole[..], &[0xaa; 30]].concat();
        assert_eq!(bench.receive_bytes(&padded).unwrap().payload, b"GET");
        bench.assert_dropped(&whole[..whole.len() - 1], |stats| &stats.rx_malformed);
    }
}

#[test]
fn the_device_may_vouch_for_a_checksum() {
    for ends in [V4, V6] {
        let mut bench = Bench::new();
        let mut bytes = frame_to_us(ends, b"GET / HTTP/1.1\r\n");
        *bytes.last_mut().unwrap() ^= 1;
        bench.assert_dropped(&bytes, |stats| &stats.rx_bad_checksum);
        assert_eq!(bench.stats.tcp_bad_checksum.get(), 1);
        for checksum in [RxChecksum::Verified, RxChecksum::Partial(PartialChecksum { start: 34, offset: 16 })] {
            let mut frame = rx_frame(&bench.pool, &bytes, &[]);
            frame.checksum = checksum;
            assert!(bench.receive(&frame).is_some(), "{checksum:?}");
        }
    }
}

#[test]
fn only_what_is_addressed_to_us_is_served() {
    let mut bench = Bench::new();
    for ends in [("192.168.7.9", "10.0.0.2"), ("fe80::9", "fe80::ff:fe00:1")] {
        assert!(bench.receive_bytes(&frame_to_us(ends, b"x")).is_some(), "{ends:?}");
    }
    for ends in [("192.168.7.9", "192.168.7.3"), ("fd00::9", "fd00::3"), ("192.168.7.9", "192.168.7.255")] {
        bench.assert_dropped(&frame_to_us(ends, b"x"), |stats| &stats.rx_not_ours);
    }
    for ends in [V4, V6] {
        let mut bytes = frame_to_us(ends, b"x");
        for target in [EthernetAddress::BROADCAST, EthernetAddress([0x33, 0x33, 0, 0, 0, 1]), EthernetAddress([2; 6])] {
            let ethertype = if ends == V4 { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
            ethernet_header(&mut bytes, target, ethertype);
            bench.assert_dropped(&bytes, |stats| &stats.rx_not_ours);
        }
    }
}

#[test]
fn nobody_may_send_from_these_addresses() {
    let mut bench = Bench::new();
    for source in ["0.0.0.0", "127.0.0.1", "255.255.255.255", "192.168.7.255", "224.0.0.1", "192.168.7.2", "10.0.0.2"] {
        bench.assert_dropped(&frame_to_us((source, V4.1), b"x"), |stats| &stats.rx_malformed);
    }
    for source in ["::", "::1", "ff02::1", "fd00::2"] {
        bench.assert_dropped(&frame_to_us((source, V6.1), b"x"), |stats| &stats.rx_malformed);
    }
    let mut from_group = frame_to_us(V4, b"x");
    from_group[6] |= 1;
    bench.assert_dropped(&from_group, |stats| &stats.rx_malformed);
}

#[test]
fn fragments_and_tags_are_dropped() {
    let mut bench = Bench::new();
    for (more, offset) in [(true, 0), (false, 8), (true, 1480)] {
        let mut bytes = frame_to_us(V4, &[0; 64]);
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        packet.set_dont_frag(false);
        packet.set_more_frags(more);
        packet.set_frag_offset(offset);
        packet.fill_checksum();
        bench.assert_dropped(&bytes, |stats| &stats.rx_fragments);
    }
    let mut tagged = frame_to_us(V4, b"x");
    tagged.splice(12..12, [0x81, 0x00, 0, 5]);
    bench.assert_dropped(&tagged, |stats| &stats.rx_vlan);
}

#[test]
fn a_broken_ip_header_is_counted() {
    let mut bench = Bench::new();
    let mut bytes = frame_to_us(V4, b"x");
    bytes[14 + 8] ^= 1;
    bench.assert_dropped(&bytes, |stats| &stats.rx_bad_checksum);
    assert_eq!(bench.stats.tcp_bad_checksum.get(), 0);
    for cut in [14, 20, 33] {
        bench.assert_dropped(&bytes[..cut], |stats| &stats.rx_malformed);
    }
    let mut other_version = frame_to_us(V6, b"x");
    other_version[14] = 0x45;
    bench.assert_dropped(&other_version, |stats| &stats.rx_malformed);
}

#[test]
fn ipv4_options_and_ipv6_extensions_are_passed_over() {
    let mut bench = Bench::new();
    let mut bytes = frame_to_us(V4, b"with options");
    // Three no-operations and the end of the list.
    bytes.splice(34..34, [1, 1, 1, 0]);
    bytes[14] = 0x46;
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
    let total = packet.total_len() + 4;
    packet.set_total_len(total);
    packet.fill_checksum();
    assert_eq!(bench.receive_bytes(&bytes).unwrap().payload, b"with options");

    let (source, destination) = (address(V6.0), address(V6.1));
    let segment = tcp_bytes(&tcp_header(80, b"behind"), source, destination);
    let chain = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[6, 0, 1, 4, 0, 0, 0, 0], &segment].concat();
    let bytes = ip_frame(source, destination, IpProtocol::HopByHop, &chain);
    for cuts in [vec![], vec![57, 63, 71]] {
        let frame = rx_frame(&bench.pool, &bytes, &cuts);
        assert_eq!(bench.receive(&frame).unwrap().payload, b"behind");
    }
    // A chain that goes beyond the bytes that are looked at hides the port: dropped, and not shown to the control plane.
    let long = [&[6, 60][..], &[0; 60 * 8 + 6], &segment].concat();
    bench.assert_dropped(&ip_frame(source, destination, IpProtocol::Ipv6Opts, &long), |stats| &stats.rx_malformed);
}

#[test]
fn a_super_frame_is_a_segment_like_any_other() {
    let payload: Vec<u8> = (0..60_000_u32).map(|i| i as u8).collect();
    for ends in [V4, V6] {
        let mut bench = Bench::new();
        let bytes = frame_to_us(ends, &payload);
        let mut frame = rx_frame(&bench.pool, &bytes, &[]);
        frame.gso = Some(RxGso { family: Family::Ipv4, mss_bytes: 1448 });
        assert_eq!(bench.receive(&frame).unwrap().payload, payload);
    }
}

#[test]
fn a_super_frame_beyond_64_kib_has_no_length_field() {
    let payload: Vec<u8> = (0..70_000_u32).map(|i| i as u8).collect();
    for ends in [V4, V6] {
        let mut bench = Bench::new();
        let mut bytes = frame_to_us(ends, b"");
        bytes.extend_from_slice(&payload);
        match ends {
            V4 => {
                let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
                packet.set_total_len(0);
                packet.fill_checksum();
            }
            _ => Ipv6Packet::new_unchecked(&mut bytes[14..]).set_payload_len(0),
        }
        let mut frame = rx_frame(&bench.pool, &bytes, &[]);
        frame.checksum = RxChecksum::Verified;
        assert_eq!(bench.receive(&frame), None, "a length of 0 means what it says");
        frame.gso = Some(RxGso { family: Family::Ipv4, mss_bytes: 1448 });
        assert_eq!(bench.receive(&frame).unwrap().payload, payload);
    }
}

#[test]
fn a_tcp_header_must_lie_in_its_packet() {
    let mut bench = Bench::new();
    for offset in [0x10, 0x40, 0xf0] {
        let mut bytes = frame_to_us(V4, b"");
        bytes[34 + 12] = offset;
        bench.assert_dropped(&bytes, |stats| &stats.rx_malformed);
    }
    let (source, destination) = (address(V4.0), address(V4.1));
    let no_source_port = TcpRepr { src_port: 0, ..tcp_header(80, b"") };
    let segment = tcp_bytes(&no_source_port, source, destination);
    bench.assert_dropped(&ip_frame(source, destination, IpProtocol::Tcp, &segment), |stats| &stats.rx_malformed);
}
