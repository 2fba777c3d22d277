//! The network interface against an honest device: every feature and every one refused, back-pressure, notifications, the link.

use super::fake::{Fake, FakeTransport, net_config};
use crate::rings::virtio::features::*;
use crate::rings::virtio::{VirtioError, VirtioNet};
use crate::rings::{
    Capabilities, Family, Full, NetEvent, NetQueue, Offload, PAGE_BYTES, PagePool, PageSlice, PartialChecksum,
    RxChecksum, RxGso, TxFrame,
};
use crate::stats::Stats;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

/// Queues of the interface.
pub const RX: usize = 0;
pub const TX: usize = 1;

pub const OFFLOADS: u64 = NET_CSUM
    | NET_GUEST_CSUM
    | NET_GUEST_TSO4
    | NET_GUEST_TSO6
    | NET_GUEST_ECN
    | NET_HOST_TSO4
    | NET_HOST_TSO6
    | NET_MRG_RXBUF;
pub const EVERYTHING: u64 =
    OFFLOADS | NET_MTU | NET_MAC | NET_STATUS | ANY_LAYOUT | INDIRECT_DESC | EVENT_IDX | VERSION_1 | 1 << 17 | 1 << 22;

pub type Net = VirtioNet<FakeTransport>;

/// An interface, the device behind it, and memory.
pub struct World {
    pub fake: Fake,
    pub net: Net,
    pub rx_pool: PagePool,
    pub pool: PagePool,
    pub stats: Rc<Stats>,
}

pub fn world(legacy: bool, offered: u64, refused: u64) -> World {
    world_of(Fake::new(1, legacy, offered, &net_config(1500), &[256, 256]), refused).unwrap()
}

pub fn world_of(fake: Fake, refused: u64) -> Result<World, VirtioError> {
    let (rx_pool, stats) = (PagePool::new(300), Rc::new(Stats::default()));
    let net = VirtioNet::new(fake.transport(), refused, rx_pool.clone(), stats.clone())?;
    Ok(World { fake, net, rx_pool, pool: PagePool::new(400), stats })
}

/// Bytes that tell where they belong.
pub fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31) ^ at >> 8 ^ seed) as u8).collect()
}

impl World {
    /// Slices of pages that hold these bytes, cut as `lengths` says.
    pub fn slices(&self, lengths: &[usize], seed: usize) -> Vec<PageSlice> {
        let slice = |(index, &length): (usize, &usize)| {
            let mut page = self.pool.allocate().expect("a page");
            let offset = (PAGE_BYTES - length).min(index * 7);
            page.bytes_mut().unwrap()[offset..offset + length].copy_from_slice(&pattern(length, seed + index));
            page.slice(offset, length)
        };
        lengths.iter().enumerate().map(slice).collect()
    }

    /// Gives the driver a frame in buffers of `buffer_bytes` bytes, behind this header (whose last two bytes are filled in).
    pub fn deliver(&self, mut header: [u8; 12], frame: &[u8], buffer_bytes: usize) {
        let features = self.fake.0.borrow().features;
        let short = features & (NET_MRG_RXBUF | VERSION_1) == 0;
        let header_bytes = if short { 10 } else { 12 };
        let buffers = (header_bytes + frame.len()).div_ceil(buffer_bytes);
        header[10..].copy_from_slice(&(buffers as u16).to_le_bytes());
        let mut bytes = header[..header_bytes].to_vec();
        bytes.extend_from_slice(frame);
        for piece in bytes.chunks(buffer_bytes) {
            let chain = self.fake.take(RX).expect("a buffer");
            chain.write(0, piece);
            self.fake.put_used(RX, chain.head.into(), piece.len() as u32);
        }
    }

    /// What the driver receives now.
    pub fn received(&mut self) -> Vec<(Vec<u8>, RxChecksum, Option<RxGso>)> {
        let mut frames = Vec::new();
        self.net.receive(1000, &mut |frame| {
            let mut bytes = vec![0; frame.len()];
            assert_eq!(frame.copy_to(&mut bytes), bytes.len());
            frames.push((bytes, frame.checksum, frame.gso));
        });
        self.net.flush();
        frames
    }

    pub fn events(&mut self) -> Vec<NetEvent> {
        core::iter::from_fn(|| self.net.event()).collect()
    }

    /// Pages that the device may use are in use, whoever asks for pages.
    pub fn check_pages(&self) {
        let held = self.fake.held_pages();
        for pool in [&self.rx_pool, &self.pool] {
            let free: Vec<_> = core::iter::from_fn(|| pool.allocate()).collect();
            let taken: Vec<u64> = free.iter().map(|page| page.address() as u64).collect();
            assert!(taken.iter().all(|page| !held.contains(page)), "a page in the device's hands is free");
        }
    }
}

/// Ethernet, IPv4 and TCP headers as far as the driver looks at them.
pub fn headers() -> [u8; 66] {
    let mut head = [0; 66];
    head[34 + 12] = 8 << 4;
    head
}

pub const CHECKSUM: PartialChecksum = PartialChecksum { start: 34, offset: 16 };

fn exchange(legacy: bool, offered: u64, refused: u64) {
    let mut world = world(legacy, offered, refused);
    let capabilities = world.net.capabilities();
    assert_eq!(world.events(), [NetEvent::Up(capabilities)]);
    let agreed = world.fake.0.borrow().features;
    assert_eq!(agreed & refused & !VERSION_1, 0);
    assert_eq!(agreed, world.net.features());
    let csum = agreed & NET_CSUM != 0;
    let expected = Capabilities {
        hardware_address: [2, 0, 0, 0, 0, 7],
        mtu_bytes: 1500,
        max_slots: 18,
        max_frame_bytes: 65_535,
        head_bytes: 2036,
        checksum: csum,
        tso4: csum && agreed & NET_HOST_TSO4 != 0,
        tso6: csum && agreed & NET_HOST_TSO6 != 0,
    };
    assert_eq!(capabilities, expected);
    let header_bytes = if legacy && agreed & NET_MRG_RXBUF == 0 { 10 } else { 12 };

    // Often enough that every index wraps around the queue.
    for round in 0..300_usize {
        let head = headers();
        let segment = capabilities.tso4 && round % 3 == 0;
        let lengths = if segment { vec![3000; 1 + round % 17] } else { vec![300; round % 4] };
        let slices = world.slices(&lengths, round);
        let offload = match (segment, csum) {
            (true, _) => Offload::Segment { checksum: CHECKSUM, family: Family::Ipv4, mss_bytes: 1448 },
            (_, true) => Offload::Checksum(CHECKSUM),
            _ => Offload::None,
        };
        world.net.transmit(&TxFrame { head: &head, slices: &slices, offload }).unwrap();
        drop(slices);
        assert_eq!(world.fake.take(TX), None, "not published yet");
        world.net.flush();
        let chain = world.fake.take(TX).unwrap();
        let separate = legacy && agreed & ANY_LAYOUT == 0;
        assert_eq!(chain.pieces.len(), lengths.len() + 1 + usize::from(separate));
        assert!(!separate || chain.pieces[0].bytes == header_bytes as u32);
        let sent = chain.readable();
        let (header, frame) = sent.split_at(header_bytes);
        let header_wanted: &[u8] = match offload {
            Offload::None => &[0; 10],
            Offload::Checksum(_) => &[1, 0, 0, 0, 0, 0, 34, 0, 16, 0],
            Offload::Segment { .. } => &[1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0],
        };
        assert_eq!(&header[..10], header_wanted);
        let mut frame_wanted = head.to_vec();
        lengths.iter().enumerate().for_each(|(index, &length)| frame_wanted.extend(pattern(length, round + index)));
        assert!(frame == frame_wanted);
        if round % 16 == 0 {
            world.check_pages();
        }
        assert_eq!(world.pool.in_use(), lengths.len(), "held until it is sent");
        assert_eq!(world.net.reclaim(), 0);
        world.fake.put_used(TX, chain.head.into(), 0);
        assert_eq!((world.net.reclaim(), world.pool.in_use()), (1, 0));

        let large = agreed & NET_GUEST_TSO4 != 0 && round % 2 == 0;
        let frame = pattern(if large { 20_000 + round * 100 } else { 60 + round }, round);
        let mut header = [0; 12];
        let mut wanted = (frame.clone(), RxChecksum::Unknown, None);
        if large {
            header = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
            wanted.1 = RxChecksum::Partial(CHECKSUM);
            wanted.2 = Some(RxGso { family: Family::Ipv4, mss_bytes: 1448 });
        } else if agreed & NET_GUEST_CSUM != 0 {
            header[0] = 2;
            wanted.1 = RxChecksum::Verified;
        }
        let pieces = if large {
            PAGE_BYTES
        } else if agreed & NET_MRG_RXBUF != 0 {
            50
        } else {
            PAGE_BYTES
        };
        world.deliver(header, &frame, pieces);
        assert!(world.received() == [wanted]);
    }
    world.check_pages();
    assert_eq!((world.stats.rx_malformed.get(), world.stats.device_faults.get()), (0, 0));
    assert_eq!((world.stats.rx_frames.get(), world.stats.tx_frames.get()), (300, 300));
    let World { net, fake, rx_pool, .. } = world;
    drop(net);
    assert_eq!((fake.0.borrow().status, rx_pool.in_use()), (0, 0));
}

#[test]
fn frames_cross_with_every_feature_and_without_each() {
    for legacy in [false, true] {
        let offered = if legacy { EVERYTHING & !VERSION_1 } else { EVERYTHING };
        exchange(legacy, offered, 0);
        for bit in (0..32).filter(|bit| 1 << bit != NET_MAC && EVERYTHING & 1 << bit != 0) {
            exchange(legacy, offered, 1 << bit);
            exchange(legacy, offered & !(1 << bit), 0);
        }
        exchange(legacy, offered, OFFLOADS | INDIRECT_DESC | EVENT_IDX);
        exchange(legacy, NET_MAC | offered & VERSION_1, 0);
    }
}

#[test]
fn what_cannot_be_used_says_why() {
    let make = |offered, config: &[u8], queues: &[u32]| Fake::new(1, false, offered, config, queues);
    let config = net_config(1500);
    let refuse = |fake: Fake| world_of(fake, 0).err();
    assert_eq!(
        refuse(make(EVERYTHING & !VERSION_1, &config, &[256, 256])),
        Some(VirtioError::MissingFeature("VIRTIO_F_VERSION_1"))
    );
    assert_eq!(
        refuse(make(EVERYTHING & !NET_MAC, &config, &[256, 256])),
        Some(VirtioError::MissingFeature("VIRTIO_NET_F_MAC"))
    );
    assert_eq!(refuse(make(EVERYTHING, &config[..8], &[256, 256])), Some(VirtioError::ShortConfiguration));
    assert_eq!(refuse(make(EVERYTHING, &net_config(575), &[256, 256])), Some(VirtioError::BadConfiguration("mtu")));
    assert_eq!(refuse(make(EVERYTHING, &config, &[256, 0])), Some(VirtioError::NoQueue { queue: 1, entries: 0 }));
    assert_eq!(refuse(make(EVERYTHING, &config, &[3, 256])), Some(VirtioError::NoQueue { queue: 0, entries: 3 }));
    let group = [1, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 5];
    assert_eq!(refuse(make(EVERYTHING, &group, &[256, 256])), Some(VirtioError::BadConfiguration("mac")));
    let restless = make(EVERYTHING, &config, &[256, 256]);
    restless.0.borrow_mut().restless = true;
    assert_eq!(refuse(restless), Some(VirtioError::RestlessConfiguration));
    let refusing = make(EVERYTHING, &config, &[256, 256]);
    refusing.0.borrow_mut().refuses = true;
    assert_eq!(refuse(refusing), Some(VirtioError::FeaturesRefused));
    let translated = make(EVERYTHING | ACCESS_PLATFORM, &config, &[256, 256]);
    translated.0.borrow_mut().refuses = true;
    assert_eq!(refuse(translated), Some(VirtioError::BehindIommu));
    let disk = Fake::new(2, false, EVERYTHING, &config, &[256, 256]);
    assert_eq!(refuse(disk), Some(VirtioError::WrongDevice { found: 2 }));
}

#[test]
fn odd_queue_sizes_are_rounded_down_and_limit_the_frames() {
    for (entries, slots, indirect) in [(1024, 18, true), (300, 18, true), (7, 4, true), (4, 4, false), (64, 18, false)]
    {
        let refused = if indirect { 0 } else { INDIRECT_DESC };
        let fake = Fake::new(1, false, EVERYTHING, &net_config(1500), &[entries, entries]);
        let mut world = world_of(fake, refused).unwrap();
        assert_eq!(world.net.capabilities().max_slots, slots, "{entries} entries");
        let slices = world.slices(&vec![10; slots - 1], 0);
        let mut sent = 0;
        while world.net.transmit(&TxFrame { head: &headers(), slices: &slices, offload: Offload::None }).is_ok() {
            sent += 1;
        }
        let usable = (1 << entries.ilog2()).min(256);
        assert_eq!(sent, if indirect { usable } else { usable / slots });
        world.net.flush();
        for _ in 0..sent {
            let chain = world.fake.take(TX).unwrap();
            world.fake.put_used(TX, chain.head.into(), 0);
        }
        assert_eq!(world.net.reclaim(), sent);
    }
}

#[test]
fn a_large_mtu_needs_merged_buffers() {
    let fake = || Fake::new(1, false, EVERYTHING, &net_config(9000), &[256, 256]);
    assert_eq!(world_of(fake(), 0).unwrap().net.capabilities().mtu_bytes, 9000);
    assert_eq!(world_of(fake(), NET_MRG_RXBUF).unwrap().net.capabilities().mtu_bytes, 1500);
}

#[test]
fn a_full_ring_says_so_and_wakes_when_half_of_it_is_free() {
    for refused in [0, EVENT_IDX] {
        let mut world = world(false, EVERYTHING, refused);
        world.events();
        let frame = TxFrame { head: &headers(), slices: &[], offload: Offload::None };
        for _ in 0..256 {
            world.net.transmit(&frame).unwrap();
        }
        assert_eq!(world.net.transmit(&frame), Err(Full));
        world.net.flush();
        assert_eq!(world.fake.notified(TX), 1, "one notification for 256 frames");
        assert!(!world.net.arm());
        let mut woken_after = None;
        for sent in 1..=256 {
            let chain = world.fake.take(TX).unwrap();
            world.fake.put_used(TX, chain.head.into(), 0);
            if world.fake.interrupt(TX) {
                woken_after.get_or_insert(sent);
            }
        }
        assert_eq!(woken_after, Some(if refused == 0 { 129 } else { 1 }));
        assert!(world.net.arm(), "there is something to reclaim");
        assert_eq!(world.net.reclaim(), 256);
        assert_eq!(world.net.transmit(&frame), Ok(()));
        assert_eq!(world.stats.tx_full.get(), 1);
    }
}

#[test]
fn notifications_are_sent_only_where_they_are_wanted() {
    for refused in [0, EVENT_IDX] {
        let mut world = world(false, EVERYTHING, refused);
        let frame = TxFrame { head: &headers(), slices: &[], offload: Offload::None };
        world.net.flush();
        world.fake.notified(TX);
        for round in 0..1000_u32 {
            let wanted = round % 3 == 0;
            world.fake.want_notifications(TX, wanted);
            let (sent, spared) = (world.stats.notifications.get(), world.stats.notifications_spared.get());
            world.net.transmit(&frame).unwrap();
            world.net.transmit(&frame).unwrap();
            world.net.flush();
            world.net.flush();
            assert_eq!(world.fake.notified(TX), u32::from(wanted));
            assert_eq!(world.stats.notifications.get() - sent, u64::from(wanted));
            assert_eq!(world.stats.notifications_spared.get() - spared, u64::from(!wanted));
            for _ in 0..2 {
                let chain = world.fake.take(TX).unwrap();
                world.fake.put_used(TX, chain.head.into(), 0);
            }
            assert_eq!(world.net.reclaim(), 2);
        }
    }
}

#[test]
fn who_sleeps_is_woken_by_the_next_frame_and_by_no_other() {
    for refused in [0, EVENT_IDX] {
        let mut world = world(false, EVERYTHING, refused);
        world.events();
        for round in 0..700 {
            assert!(!world.net.arm(), "round {round}");
            world.deliver([0; 12], &pattern(60, round), PAGE_BYTES);
            assert!(world.fake.interrupt(RX), "round {round}");
            assert!(world.net.arm(), "it came before the sleep");
            assert_eq!(world.fake.0.borrow().interrupt_status, 0, "acknowledged");
            assert_eq!(world.received().len(), 1);
            // While it is awake: no interrupt.
            world.deliver([0; 12], &pattern(60, round), PAGE_BYTES);
            assert_eq!(world.received().len(), 1);
            world.deliver([0; 12], &pattern(60, round), PAGE_BYTES);
            assert!(!world.fake.interrupt(RX), "round {round}");
            assert_eq!(world.received().len(), 1);
        }
    }
}

#[test]
fn a_page_that_is_kept_is_not_written_again() {
    let fake = Fake::new(1, false, EVERYTHING, &net_config(1500), &[8, 8]);
    let mut world = world_of(fake, 0).unwrap();
    world.events();
    let mut kept = Vec::new();
    for round in 0..100 {
        world.deliver([0; 12], &pattern(100, round), PAGE_BYTES);
        world.net.receive(1, &mut |frame| kept.push(frame.slices[0].clone()));
        world.net.flush();
        world.check_pages();
    }
    assert_eq!(kept.len(), 100);
    for (round, slice) in kept.iter().enumerate() {
        assert_eq!(slice.bytes(), pattern(100, round));
    }
}

#[test]
fn an_empty_pool_is_refilled_by_what_comes_back() {
    let fake = Fake::new(1, false, EVERYTHING, &net_config(1500), &[256, 256]);
    let pool = PagePool::new(3);
    let others: Vec<_> = core::iter::from_fn(|| pool.allocate()).take(2).collect();
    let mut net = VirtioNet::new(fake.transport(), 0, pool.clone(), Rc::new(Stats::default())).unwrap();
    assert!(net.event().is_some());
    assert!(fake.take(RX).is_some() && fake.take(RX).is_none());
    drop(others);
    assert!(!net.arm());
    assert!(fake.take(RX).is_some() && fake.take(RX).is_some() && fake.take(RX).is_none());
}

#[test]
fn a_link_that_goes_down_gives_every_page_back() {
    let mut world = world(false, EVERYTHING, 0);
    let up = NetEvent::Up(world.net.capabilities());
    assert_eq!(world.events(), [up]);
    let slices = world.slices(&[700, 700], 0);
    let frame = TxFrame { head: &headers(), slices: &slices, offload: Offload::None };
    world.net.transmit(&frame).unwrap();
    world.net.flush();
    world.fake.take(TX).unwrap();
    world.fake.change(6, &[0]);
    assert!(world.net.arm());
    assert_eq!(world.net.transmit(&frame), Err(Full));
    assert_eq!(world.events(), [NetEvent::Down]);
    assert_eq!(world.pool.shared(), 0);
    assert!(!world.net.arm(), "nothing to do until the link is back");
    assert_eq!((world.net.transmit(&frame), world.events()), (Err(Full), vec![]));
    world.fake.change(6, &[1]);
    assert!(world.net.arm());
    assert_eq!(world.events(), [up]);
    world.net.transmit(&frame).unwrap();
    world.net.flush();
    assert!(world.fake.take(TX).is_some());
    assert_eq!(world.stats.device_faults.get(), 0, "that is no fault");
}

#[test]
fn a_link_that_comes_up_while_the_device_starts_is_seen() {
    for legacy in [false, true] {
        let mut config = net_config(1500);
        config[6] = 0;
        let fake = Fake::new(1, legacy, EVERYTHING, &config, &[256, 256]);
        // Before it works a device tells nobody of changes.
        fake.0.borrow_mut().config_at_start = Some(net_config(1500));
        let mut world = world_of(fake, 0).unwrap();
        assert_eq!(world.events(), [NetEvent::Up(world.net.capabilities())]);
    }
}

#[test]
fn a_link_that_is_down_at_first_is_awaited() {
    let mut config = net_config(1500);
    config[6] = 0;
    let mut world = world_of(Fake::new(1, false, EVERYTHING, &config, &[256, 256]), 0).unwrap();
    assert_eq!(world.events(), []);
    assert!(!world.net.arm());
    world.fake.change(6, &[1]);
    assert!(world.net.arm());
    assert_eq!(world.events(), [NetEvent::Up(world.net.capabilities())]);
}
