//! A memory device behind a bad wire, on a clock that the test turns.

use super::*;
use crate::rings::memory::{MemoryBackend, MemoryNet, MemoryNetConfig, memory_net};
use crate::rings::{Family, PartialChecksum};
use alloc::vec;
use core::cell::Cell;
use smoltcp::time::Duration;
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket, checksum};

const HEADERS: usize = 54;
const PARTIAL: PartialChecksum = PartialChecksum { start: 34, offset: 16 };

struct World {
    net: Impaired<MemoryNet>,
    backend: MemoryBackend,
    now: Rc<Cell<Instant>>,
    stats: Rc<Stats>,
}

impl World {
    fn new(spec: &str, config: MemoryNetConfig) -> Self {
        let stats = Rc::new(Stats::default());
        let (inner, backend) = memory_net(config, PagePool::new(256), stats.clone());
        let now = Rc::new(Cell::new(Instant::ZERO));
        let clock = now.clone();
        let mut net = Impaired::new(inner, spec.parse().unwrap(), Box::new(move || clock.get()), stats.clone());
        assert!(matches!(net.event(), Some(NetEvent::Up(_))));
        Self { net, backend, now, stats }
    }

    fn usual(spec: &str) -> Self {
        Self::new(spec, MemoryNetConfig::default())
    }

    /// What the backend takes, completed at once.
    fn taken(&mut self) -> Vec<(Vec<u8>, Offload)> {
        let mut frames = Vec::new();
        while let Some(frame) = self.backend.take() {
            frames.push((frame.parts().collect::<Vec<_>>().concat(), frame.offload()));
            self.backend.complete(frame);
        }
        frames
    }

    fn received(&mut self, budget: usize) -> Vec<(Vec<u8>, RxChecksum, Option<RxGso>)> {
        let mut frames = Vec::new();
        let count = self.net.receive(budget, &mut |frame| {
            let bytes = frame.slices.iter().flat_map(|slice| slice.bytes()).copied().collect();
            frames.push((bytes, frame.checksum, frame.gso));
        });
        assert_eq!(count, frames.len());
        frames
    }
}

/// A TCP/IPv4 frame whose checksum is left to the device.
fn super_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADERS];
    frame.extend_from_slice(payload);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_total_len((40 + payload.len()) as u16);
    ip.set_next_header(IpProtocol::Tcp);
    ip.fill_checksum();
    let mut tcp = TcpPacket::new_unchecked(&mut frame[34..]);
    tcp.set_header_len(20);
    let zero = IpAddress::v4(0, 0, 0, 0);
    tcp.set_checksum(checksum::pseudo_header(&zero, &zero, IpProtocol::Tcp, 20 + payload.len() as u32));
    frame
}

fn is_intact(frame: &[u8]) -> bool {
    let zero = IpAddress::v4(0, 0, 0, 0);
    let ip = Ipv4Packet::new_unchecked(&frame[14..]);
    ip.verify_checksum() && TcpPacket::new_unchecked(ip.payload()).verify_checksum(&zero, &zero)
}

const SEGMENT: Offload = Offload::Segment { checksum: PARTIAL, family: Family::Ipv4, mss_bytes: 1000 };
const GSO: RxGso = RxGso { family: Family::Ipv4, mss_bytes: 1000 };

#[test]
fn transmitted_super_frames_arrive_as_finished_segments_when_it_is_time() {
    let mut world = World::usual("delay=10ms,jitter=0s,corrupt=100%");
    let pool = PagePool::new(1);
    let payload = [7; 2500];
    let mut page = pool.allocate().unwrap();
    page.bytes_mut().unwrap()[..2500].copy_from_slice(&payload);
    let whole = super_frame(&payload);
    world.net.transmit(&TxFrame { head: &whole[..HEADERS], slices: &[page.slice(0, 2500)], offload: SEGMENT }).unwrap();
    assert_eq!(pool.shared(), 0, "nothing holds the sender's pages");
    world.net.flush();
    assert!(world.taken().is_empty());
    assert_eq!(world.net.next_deadline(), Some(Instant::from_millis(10)));
    world.now.set(Instant::from_millis(10));
    world.net.flush();
    let frames = world.taken();
    assert_eq!(frames.iter().map(|(frame, _)| frame.len() - HEADERS).collect::<Vec<_>>(), [1000, 1000, 500]);
    // Corruption came after the checksum, or else it would not be found. (Of the three flipped bits all lie under a checksum.)
    assert!(frames.iter().all(|(frame, offload)| *offload == Offload::None && !is_intact(frame)));
    assert_eq!((world.net.counts().tx.corrupted, world.net.counts().tx.delivered), (3, 3));
    assert_eq!((world.stats.copied_bytes.get(), world.net.next_deadline()), (2500, None));
}

#[test]
fn a_constant_delay_takes_super_frames_whole_in_both_directions() {
    let mut world = World::usual("delay=10ms");
    let whole = super_frame(&[7; 60_000]);
    let head = &whole[..HEADERS];
    let pool = PagePool::new(15);
    let slices = in_pages(&whole[HEADERS..], &pool).unwrap();
    world.net.transmit(&TxFrame { head, slices: &slices, offload: SEGMENT }).unwrap();
    world.backend.deliver(&[&whole], RxChecksum::Partial(PARTIAL), Some(GSO)).unwrap();
    assert!(world.received(64).is_empty());
    world.now.set(Instant::from_millis(10));
    world.net.flush();
    assert_eq!(world.taken(), [(whole.clone(), SEGMENT)]);
    assert_eq!(world.received(64), [(whole.clone(), RxChecksum::Partial(PARTIAL), Some(GSO))]);
    // The checksum of this one is no use to whoever cuts it later.
    world.backend.deliver(&[&whole], RxChecksum::Verified, Some(GSO)).unwrap();
    world.received(64);
    world.now.set(Instant::from_millis(20));
    let frames = world.received(64);
    assert_eq!(frames.len(), 60);
    assert!(
        frames
            .iter()
            .all(|(frame, checksum, gso)| is_intact(frame) && (*checksum, *gso) == (RxChecksum::Unknown, None))
    );
}

#[test]
fn received_super_frames_are_cut_and_handed_on_within_the_budget() {
    let mut world = World::usual("rx.duplicate=100%,rx.delay=1ms,hold=0");
    let whole = super_frame(&[7; 2500]);
    world.backend.deliver(&[&whole], RxChecksum::Partial(PARTIAL), Some(GSO)).unwrap();
    world.backend.deliver(&[&whole[..40]], RxChecksum::Partial(PARTIAL), Some(GSO)).unwrap();
    assert!(world.received(64).is_empty());
    world.now.set(Instant::from_millis(2));
    assert_eq!(world.received(2).len(), 2);
    assert!(world.net.next_deadline().unwrap() <= world.now.get(), "there is more");
    let rest = world.received(64);
    assert_eq!(rest.len(), 4);
    assert!(
        rest.iter().all(|(frame, checksum, gso)| is_intact(frame) && (*checksum, *gso) == (RxChecksum::Unknown, None))
    );
    assert_eq!((world.net.counts().malformed, world.net.counts().tx), (1, LinkCounts::default()));
}

#[test]
fn a_direction_without_impairment_is_the_device_itself() {
    let mut world = World::usual("rx.loss=100%");
    let whole = super_frame(&[7; 2500]);
    let pool = PagePool::new(1);
    let slices = in_pages(&whole[HEADERS..], &pool).unwrap();
    world.net.transmit(&TxFrame { head: &whole[..HEADERS], slices: &slices, offload: SEGMENT }).unwrap();
    world.net.flush();
    assert_eq!(pool.shared(), 1, "the ring holds the page itself");
    assert_eq!(world.backend.take().unwrap().offload(), SEGMENT);
    assert_eq!((world.stats.copied_bytes.get(), world.net.next_deadline()), (0, None));
    world.backend.deliver(&[&whole], RxChecksum::Partial(PARTIAL), Some(GSO)).unwrap();
    assert!(world.received(64).is_empty());
    assert_eq!(world.net.counts().rx.lost, 3);
}

#[test]
fn a_full_device_pushes_back_and_loses_nothing() {
    let config = MemoryNetConfig { ring_entries: 32, ..MemoryNetConfig::default() };
    let mut world = World::new("delay=1ms,duplicate=0.0001%", config);
    let whole = super_frame(&[7; 50_000]);
    let pool = PagePool::new(13);
    let slices = in_pages(&whole[HEADERS..], &pool).unwrap();
    world.net.transmit(&TxFrame { head: &whole[..HEADERS], slices: &slices, offload: SEGMENT }).unwrap();
    world.now.set(Instant::from_millis(1));
    world.net.flush();
    let single = TxFrame { head: &whole[..1000], slices: &[], offload: Offload::None };
    assert_eq!(world.net.transmit(&single), Err(Full));
    assert_eq!(world.net.next_deadline(), None, "the device's wake-up is what counts");
    assert!(!world.net.arm());
    assert_eq!(world.taken().len(), 32);
    assert!(world.backend.notify() && world.net.inner().woken());
    assert_eq!(world.net.reclaim(), 32);
    assert_eq!(world.net.transmit(&single), Ok(()), "there was room for all");
    world.net.flush();
    assert_eq!(world.taken().len(), 18);
}

#[test]
fn frames_larger_than_slot_0_go_on_in_pages() {
    let mut config = MemoryNetConfig::default();
    config.capabilities.mtu_bytes = 9000;
    let mut world = World::new("duplicate=100%,hold=0", config);
    let frame: Vec<u8> = (0..9014u32).map(|i| (i % 251) as u8).collect();
    let pool = PagePool::new(3);
    let slices = in_pages(&frame[100..], &pool).unwrap();
    world.net.transmit(&TxFrame { head: &frame[..100], slices: &slices, offload: Offload::None }).unwrap();
    world.now.set(Instant::from_millis(1));
    world.net.flush();
    assert_eq!(world.taken(), [(frame.clone(), Offload::None), (frame, Offload::None)]);
    world.net.reclaim();
    assert_eq!(world.net.tx_pages.in_use(), 0);
}

#[test]
fn what_is_on_its_way_is_lost_when_the_device_goes_down() {
    let mut world = World::usual("delay=1ms");
    let frame = super_frame(&[7; 100]);
    world.net.transmit(&TxFrame { head: &frame, slices: &[], offload: Offload::Checksum(PARTIAL) }).unwrap();
    world.backend.deliver(&[&frame], RxChecksum::Unknown, None).unwrap();
    world.received(64);
    world.backend.up(MemoryNetConfig::default().capabilities);
    assert_eq!(world.net.event(), Some(NetEvent::Down));
    assert!(matches!(world.net.event(), Some(NetEvent::Up(_))));
    assert_eq!((world.net.counts().tx.cleared, world.net.counts().rx.cleared), (1, 1));
    world.now.set(Instant::ZERO + Duration::from_secs(1));
    world.net.flush();
    assert!(world.taken().is_empty() && world.received(64).is_empty());
    world.backend.gone();
    assert_eq!((world.net.event(), world.net.event()), (Some(NetEvent::Down), Some(NetEvent::Gone)));
}
