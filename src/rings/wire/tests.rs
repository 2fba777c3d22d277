//! Segments against smoltcp's idea of the same: every one parses with its checksums verified, and is the very frame that smoltcp
//! would have made.

use super::*;
use crate::rings::{PagePool, RxGso};
use alloc::vec;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet,
    Ipv6Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
};

const SOURCE: [IpAddress; 2] = [IpAddress::v4(10, 0, 0, 1), IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1)];
const DESTINATION: [IpAddress; 2] = [IpAddress::v4(10, 0, 0, 2), IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2)];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// What a segment is to be.
#[derive(Clone, Copy, Debug)]
struct Wanted<'a> {
    version: usize,
    sequence: u32,
    payload: &'a [u8],
    control: TcpControl,
    timestamps: bool,
    identification: u16,
}

impl Wanted<'_> {
    fn tcp(&self) -> TcpRepr<'_> {
        TcpRepr {
            src_port: 80,
            dst_port: 50000,
            control: self.control,
            seq_number: TcpSeqNumber(self.sequence as i32),
            ack_number: Some(TcpSeqNumber(77)),
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: self.timestamps.then(|| TcpTimestampRepr::new(1, 2)),
            payload: self.payload,
        }
    }

    /// The frame with complete checksums, made by smoltcp. More than 64 KiB get the length 0.
    fn frame(&self) -> Vec<u8> {
        let tcp = self.tcp();
        let (source, destination) = (SOURCE[self.version], DESTINATION[self.version]);
        let long = tcp.buffer_len() + 40 > 0xffff;
        let ip_payload_bytes = if long { 0 } else { tcp.buffer_len() };
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, ip_payload_bytes, 64);
        let start = ETHERNET_BYTES + ip.header_len();
        let mut bytes = vec![0; start + tcp.buffer_len()];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 2]));
        ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
        ethernet.set_ethertype([EthernetProtocol::Ipv4, EthernetProtocol::Ipv6][self.version]);
        let capabilities = ChecksumCapabilities::default();
        ip.emit(ethernet.payload_mut(), &capabilities);
        if self.version == 0 {
            let mut ip = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET_BYTES..]);
            ip.set_ident(self.identification);
            if long {
                ip.set_total_len(0);
            }
            ip.fill_checksum();
        }
        let mut tcp_packet = TcpPacket::new_unchecked(&mut bytes[start..]);
        tcp.emit(&mut tcp_packet, &source, &destination, &ChecksumCapabilities::ignored());
        if !long {
            tcp_packet.fill_checksum(&source, &destination);
        }
        bytes
    }

    /// Where TCP begins.
    fn partial(&self) -> PartialChecksum {
        PartialChecksum { start: [34, 54][self.version], offset: 16 }
    }

    fn segment(&self, mss_bytes: u16) -> Offload {
        Offload::Segment { checksum: self.partial(), family: FAMILIES[self.version], mss_bytes }
    }
}

/// Everything that appears on the wire.
fn on_the_wire(mut frame: Vec<u8>, offload: Offload) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut frames = Vec::new();
    let count = wire_frames(&mut frame, offload, &mut |frame| frames.push(frame.to_vec()));
    count.map(|count| {
        assert_eq!(count, frames.len());
        frames
    })
}

/// smoltcp finds the checksums right.
fn verify(frame: &[u8], version: usize) {
    let verified = ChecksumCapabilities::default();
    let packet = &frame[ETHERNET_BYTES..];
    let (source, destination, payload) = match version {
        0 => {
            let ip = Ipv4Packet::new_checked(packet).unwrap();
            let repr = Ipv4Repr::parse(&ip, &verified).unwrap();
            (repr.src_addr.into(), repr.dst_addr.into(), ip.payload())
        }
        _ => {
            let ip = Ipv6Packet::new_checked(packet).unwrap();
            let repr = Ipv6Repr::parse(&ip).unwrap();
            (IpAddress::from(repr.src_addr), IpAddress::from(repr.dst_addr), ip.payload())
        }
    };
    let tcp = TcpPacket::new_checked(payload).unwrap();
    TcpRepr::parse(&tcp, &source, &destination, &verified).unwrap();
    // Not smoltcp's arithmetic, which made the sum.
    let words =
        |bytes: &[u8]| bytes.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0))).sum::<u64>();
    let addresses = if version == 0 { &packet[12..20] } else { &packet[8..40] };
    assert_eq!((words(addresses) + 6 + payload.len() as u64 + words(payload)) % 0xffff, 0);
}

proptest! {
    #[test]
    fn segments_are_what_smoltcp_would_have_sent(
        version in 0..2usize,
        // Sequence numbers that wrap within the super-frame are likely.
        sequence in prop_oneof![any::<u32>(), u32::MAX - 100_000..],
        identification in prop_oneof![any::<u16>(), u16::MAX - 10..],
        length in prop_oneof![1..10_000usize, 60_000..66_000usize, 200_000..260_000usize],
        mss_bytes in 500..9000u16,
        control in prop::sample::select(vec![TcpControl::None, TcpControl::Psh, TcpControl::Fin]),
        timestamps in any::<bool>(),
    ) {
        let payload: Vec<u8> = (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let whole = Wanted { version, sequence, payload: &payload, control, timestamps, identification };
        let mut super_frame = whole.frame();
        // What the field holds is the sender's affair.
        let field = usize::from(whole.partial().start) + 16;
        super_frame[field] ^= 0x5a;
        let segments = on_the_wire(super_frame, whole.segment(mss_bytes)).unwrap();
        prop_assert_eq!(segments.len(), length.div_ceil(mss_bytes.into()));
        for (index, (segment, part)) in segments.iter().zip(payload.chunks(mss_bytes.into())).enumerate() {
            let expected = Wanted {
                sequence: sequence.wrapping_add((index * usize::from(mss_bytes)) as u32),
                payload: part,
                control: if index + 1 == segments.len() { control } else { TcpControl::None },
                identification: identification.wrapping_add(index as u16),
                ..whole
            };
            verify(segment, version);
            prop_assert!(*segment == expected.frame(), "segment {} of {:?}", index, segment.len());
        }
    }

        #[test]
        fn a_completed_checksum_verifies(mut bytes in prop::collection::vec(any::<u8>(), 8..100), start in 0..4_u16) {
            let pseudo: [u8; 2] = core::array::from_fn(|i| bytes[usize::from(start) + 2 + i]);
            let completed = complete(&mut bytes, PartialChecksum { start, offset: 2 });
            prop_assert!(completed);
            // What the field held stands for the pseudo-header, which is summed too when verifying.
            let sums = [checksum::data(&bytes[usize::from(start)..]), checksum::data(&pseudo)];
            prop_assert_eq!(checksum::combine(&sums), 0xffff);
        }

    #[test]
    fn nothing_that_a_peer_sends_panics(
        mut noise in prop::collection::vec(any::<u8>(), 0..200),
        version in 0..2usize,
        hit in prop::collection::vec((0..120usize, any::<u8>()), 0..6),
        cut_at in 0..200usize,
        start in any::<u16>(),
        offset in prop_oneof![Just(16u16), any::<u16>()],
        mss_bytes in any::<u16>(),
        valid in any::<bool>(),
    ) {
        let wanted = Wanted {
            version, sequence: 1, payload: &[7; 100], control: TcpControl::None, timestamps: false, identification: 0,
        };
        if valid {
            noise = wanted.frame();
            for (at, value) in hit {
                noise[at] = value;
            }
            noise.truncate(cut_at);
        }
        for start in [0, start, start % 100, wanted.partial().start] {
            let checksum = PartialChecksum { start, offset };
            for family in FAMILIES {
                let longest = noise.len();
                if let Ok(frames) = on_the_wire(noise.clone(), Offload::Segment { checksum, family, mss_bytes }) {
                    prop_assert!(frames.iter().all(|frame| frame.len() <= longest));
                }
            }
            let _ = on_the_wire(noise.clone(), Offload::Checksum(checksum));
        }
    }
}

fn wanted(version: usize, payload: &[u8]) -> Wanted<'_> {
    Wanted { version, sequence: 5, payload, control: TcpControl::Psh, timestamps: false, identification: 0 }
}

#[test]
fn a_single_checksum_is_completed_without_the_padding() {
    for version in [0, 1] {
        for length in [0, 1, 2, 999, 1460] {
            let payload = vec![0xa5; length];
            let it = wanted(version, &payload);
            let whole = it.frame();
            let mut partial = whole.clone();
            let (source, destination) = (SOURCE[version], DESTINATION[version]);
            let tcp_bytes = (partial.len() - usize::from(it.partial().start)) as u32;
            let pseudo = checksum::pseudo_header(&source, &destination, IpProtocol::Tcp, tcp_bytes);
            partial[usize::from(it.partial().start) + 16..][..2].copy_from_slice(&pseudo.to_be_bytes());
            partial.extend([0x5a; 7]);
            let frames = on_the_wire(partial, Offload::Checksum(it.partial())).unwrap();
            assert_eq!(frames[0][..whole.len()], whole);
            assert_eq!(frames[0][whole.len()..], [0x5a; 7], "the padding stays as it is");
        }
    }
}

#[test]
fn congestion_window_reduced_is_said_once_and_vlan_tags_stay() {
    let payload = [1; 3000];
    let it = wanted(0, &payload);
    let mut frame = it.frame();
    frame[34 + TCP_FLAGS] |= FLAG_CWR;
    for tags in 0..=3 {
        let mut tagged = frame.clone();
        (0..tags).for_each(|_| drop(tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05])));
        let checksum = PartialChecksum { start: 34 + 4 * tags, offset: 16 };
        let segments = on_the_wire(tagged, Offload::Segment { checksum, family: Family::Ipv4, mss_bytes: 1448 });
        if tags == 3 {
            assert_eq!(segments, Err(Malformed));
            continue;
        }
        let flags: Vec<u8> = segments.unwrap().iter().map(|s| s[usize::from(checksum.start) + TCP_FLAGS]).collect();
        assert_eq!(flags, [0x90, 0x10, 0x18], "CWR first, PSH last");
    }
}

#[test]
fn a_checksum_outside_the_frame_is_refused() {
    let mut frame = [0; 20];
    for (start, offset) in [(19, 0), (0, 19), (20, 0), (65535, 65535)] {
        assert!(!complete(&mut frame, PartialChecksum { start, offset }));
    }
    assert_eq!(frame, [0; 20]);
    assert!(complete(&mut frame, PartialChecksum { start: 18, offset: 0 }));
    // In UDP a sum of 0 would say that there is none.
    let mut ones = [0xff; 8];
    assert!(complete(&mut ones, PartialChecksum { start: 0, offset: 6 }));
    assert_eq!(ones[6..], [0xff, 0xff]);
}

#[test]
fn a_received_super_frame_is_cut_whatever_is_known_of_its_checksum() {
    let payload = [9; 3000];
    let it = wanted(1, &payload);
    let pool = PagePool::new(1);
    let mut page = pool.allocate().unwrap();
    let bytes = it.frame();
    page.bytes_mut().unwrap()[..bytes.len()].copy_from_slice(&bytes);
    for checksum in [RxChecksum::Partial(it.partial()), RxChecksum::Verified, RxChecksum::Unknown] {
        let gso = Some(RxGso { family: Family::Ipv6, mss_bytes: 1000 });
        let frame = RxFrame { slices: [page.slice(0, bytes.len())].into_iter().collect(), checksum, gso };
        let segments = on_the_wire(bytes.clone(), offload_of(&frame)).unwrap();
        assert_eq!(segments.len(), 3);
        segments.iter().for_each(|segment| verify(segment, 1));
    }
}

#[test]
fn where_a_checksum_goes_is_found_behind_tags_options_and_extension_headers() {
    let found = |parts: &[&[u8]]| transport_checksum(&parts.concat()).map(|found| (found.start, found.offset));
    let ethernet = |kind: [u8; 2]| [&[0; 12][..], &kind].concat();
    let v4 = |first: u8, protocol: u8| {
        let mut header = vec![0; usize::from(first & 15) * 4];
        (header[0], header[9]) = (first, protocol);
        header
    };
    let v6 = |next: u8| [&[0x60, 0, 0, 0, 0, 0, next, 64][..], &[0; 32]].concat();
    let tcp = [0; 20];
    assert_eq!(found(&[&ethernet([8, 0]), &v4(0x45, 6), &tcp]), Some((34, 16)));
    assert_eq!(found(&[&ethernet([8, 0]), &v4(0x4f, 17), &tcp]), Some((74, 6)));
    assert_eq!(found(&[&ethernet([0x81, 0]), &[0, 1, 8, 0], &v4(0x45, 6), &tcp]), Some((38, 16)));
    assert_eq!(found(&[&ethernet([0x86, 0xdd]), &v6(6), &tcp]), Some((54, 16)));
    let options = [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[17, 1], &[0; 14]].concat();
    assert_eq!(found(&[&ethernet([0x86, 0xdd]), &v6(0), &options, &tcp]), Some((78, 6)));
    // Another protocol, another kind of frame, a field behind the end, nothing at all.
    assert_eq!(found(&[&ethernet([8, 0]), &v4(0x45, 1), &tcp]), None);
    assert_eq!(found(&[&ethernet([8, 6]), &v4(0x45, 6), &tcp]), None);
    assert_eq!(found(&[&ethernet([8, 0]), &v4(0x45, 6), &tcp[..17]]), None);
    assert_eq!(found(&[&ethernet([0x86, 0xdd]), &v6(0), &[0, 255]]), None);
    assert_eq!(found(&[]), None);
}
