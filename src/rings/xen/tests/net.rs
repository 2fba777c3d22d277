//! The network interface.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

use crate::rings::xen::memory::{BusState, MemoryNetback, MemoryXen, NetOffers, NetbackConfig};
use crate::rings::xen::{Xen, XenNet};
use crate::rings::{
    Capabilities, Family, Full, NetEvent, NetQueue, Offload, PAGE_BYTES, PagePool, PageSlice, PartialChecksum,
    RxChecksum, RxFrame, RxGso, TxFrame,
};
use crate::stats::Stats;

/// Pages for what is sent.
const PAGES: usize = 512;
/// Entries of both rings.
pub const ENTRIES: usize = 256;
/// Rounds after which everybody must have come to rest.
const MAX_ROUNDS: usize = 100_000;

/// An interface and its other side.
pub struct World {
    pub xen: MemoryXen,
    pub guest: Xen,
    pub net: XenNet,
    pub back: MemoryNetback,
    pub pool: PagePool,
    pub rx_pool: PagePool,
    pub stats: Rc<Stats>,
    /// Something woke the guest, or may have.
    pub awake: bool,
    /// The back end only does anything when nobody else has anything to do.
    pub is_slow: bool,
    inbox: Vec<Received>,
}

/// A received frame, and what is known of it.
pub type Received = (Vec<u8>, RxChecksum, Option<RxGso>);

impl World {
    /// An interface that is not connected yet.
    pub fn new(config: NetbackConfig) -> Self {
        let stats = Rc::new(Stats::default());
        let xen = MemoryXen::new(5);
        let back = MemoryNetback::new(&xen, config);
        let guest = xen.connect(stats.clone());
        let rx_pool = PagePool::new(2 * ENTRIES);
        let net = XenNet::new(&guest, "device/vif/0", rx_pool.clone(), stats.clone()).unwrap();
        Self {
            xen,
            guest,
            net,
            back,
            pool: PagePool::new(PAGES),
            rx_pool,
            stats,
            awake: true,
            is_slow: false,
            inbox: Vec::new(),
        }
    }

    /// One that has come up.
    pub fn connected(config: NetbackConfig) -> Self {
        let mut world = Self::new(config);
        assert_eq!(world.settle(), [NetEvent::Up(world.net.capabilities())]);
        assert_eq!(world.back.state(), BusState::Connected);
        world
    }

    /// Lets everybody do what there is to do. The guest only does anything when it was woken. Returns what has happened.
    pub fn settle(&mut self) -> Vec<NetEvent> {
        let mut events = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let mut moved = self.xen.step();
            self.awake |= self.xen.woken();
            if !self.is_slow || !moved && !self.awake {
                moved |= self.back.step();
                self.awake |= self.xen.woken();
            }
            if core::mem::take(&mut self.awake) {
                events.extend(core::iter::from_fn(|| self.net.event()));
                self.net.reclaim();
                self.receive();
                self.awake = self.net.arm();
            } else if !moved {
                return events;
            }
        }
        panic!("nobody finds rest");
    }

    /// Slices of pages with these lengths, filled with a pattern.
    pub fn slices(&self, lengths: &[usize]) -> Vec<PageSlice> {
        let slice = |(index, length): (usize, &usize)| {
            let mut page = self.pool.allocate().unwrap();
            page.bytes_mut().unwrap().iter_mut().zip(index..).for_each(|(byte, value)| *byte = value as u8);
            page.slice((PAGE_BYTES - length) / 2, *length)
        };
        lengths.iter().enumerate().map(slice).collect()
    }

    pub fn send(&mut self, slices: &[PageSlice], offload: Offload) -> Result<(), Full> {
        let family =
            if matches!(offload, Offload::Segment { family: Family::Ipv6, .. }) { Family::Ipv6 } else { Family::Ipv4 };
        self.net.transmit(&TxFrame { head: &headers(family), slices, offload })
    }

    fn receive(&mut self) {
        let inbox = &mut self.inbox;
        let mut take = |frame: &RxFrame| {
            let mut bytes = vec![0; frame.len()];
            frame.copy_to(&mut bytes);
            inbox.push((bytes, frame.checksum, frame.gso));
        };
        while self.net.receive(64, &mut take) > 0 {}
        self.net.flush();
    }

    /// Everything that has been received since the last call.
    pub fn received(&mut self) -> Vec<Received> {
        self.receive();
        core::mem::take(&mut self.inbox)
    }

    /// All that goes in and out does so; nothing is lost.
    pub fn check_that_it_works(&mut self) {
        for round in 0..600 {
            let bytes = pattern(60 + round * 7 % 1400, round);
            self.back.deliver(&[&bytes], RxChecksum::Unknown, None).unwrap();
            self.back.notify();
            assert_eq!(self.received(), [(bytes, RxChecksum::Unknown, None)]);
            let slices = self.slices(&[100, 100]);
            self.send(&slices, Offload::None).unwrap();
            self.net.flush();
            let frame = self.back.take().unwrap();
            assert_eq!(
                frame.parts().skip(1).collect::<Vec<_>>(),
                slices.iter().map(PageSlice::bytes).collect::<Vec<_>>()
            );
            self.back.complete(frame);
            self.back.notify();
            assert_eq!(self.net.reclaim(), 1);
        }
        assert_eq!((self.pool.in_use(), self.rx_pool.in_use(), self.back.rx_posted()), (0, ENTRIES, ENTRIES));
    }

    /// The interface is dropped, and with it all that it had.
    pub fn check_that_nothing_is_left(self) {
        let Self { xen, net, mut back, pool, rx_pool, stats, guest, .. } = self;
        back.vanish();
        back.let_go();
        drop(net);
        guest.retry_quarantine();
        assert_eq!((xen.grants(), xen.mapped_grants(), xen.event_channels()), (0, 0, 0));
        assert_eq!((pool.in_use(), rx_pool.in_use()), (0, 0));
        assert_eq!((stats.grants_in_use.get(), stats.grants_quarantined.get()), (0, 0));
    }
}

/// Headers of a TCP segment.
pub fn headers(family: Family) -> Vec<u8> {
    let mut frame = vec![0; 14 + 60];
    let (kind, ip): ([u8; 2], usize) = match family {
        Family::Ipv4 => ([8, 0], 20),
        Family::Ipv6 => ([0x86, 0xdd], 40),
    };
    frame[12..14].copy_from_slice(&kind);
    match family {
        Family::Ipv4 => frame[14..24].copy_from_slice(&[0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6]),
        Family::Ipv6 => frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, 6, 64]),
    }
    frame[14 + ip + 12] = 0x50;
    frame
}

/// Bytes that look like no frame of any protocol.
pub fn pattern(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 31 + seed) as u8).collect()
}

fn checksum_at(start: u16) -> PartialChecksum {
    PartialChecksum { start, offset: 16 }
}

#[test]
fn capabilities_are_what_the_back_end_offers() {
    let all = NetOffers::ALL;
    let everything = Capabilities {
        hardware_address: [0, 0x16, 0x3e, 1, 2, 3],
        mtu_bytes: 1500,
        max_slots: 17,
        max_frame_bytes: 65_535,
        head_bytes: 2048,
        checksum: true,
        tso4: true,
        tso6: true,
    };
    let nothing = Capabilities { checksum: false, tso4: false, tso6: false, ..everything };
    for (offers, expected) in [
        (all, everything),
        (NetOffers { split_event_channels: false, ..all }, everything),
        (NetOffers { gso4: false, ..all }, Capabilities { tso4: false, ..everything }),
        (NetOffers { gso6: false, ..all }, Capabilities { tso6: false, ..everything }),
        (NetOffers { checksum4: false, ..all }, nothing),
        (NetOffers { checksum6: false, ..all }, nothing),
        (
            NetOffers { scatter_gather: false, ..all },
            Capabilities { max_slots: 1, tso4: false, tso6: false, ..everything },
        ),
    ] {
        let config = NetbackConfig { mac: everything.hardware_address, offers, domain: 2, ..NetbackConfig::default() };
        let mut world = World::connected(config);
        assert_eq!(world.net.capabilities(), expected, "{offers:?}");
        assert_eq!(world.back.rx_posted(), ENTRIES);
        assert!(world.received().is_empty());
        world.check_that_nothing_is_left();
    }
}

#[test]
fn it_is_down_and_asleep_until_both_sides_are_connected() {
    let mut world = World::new(NetbackConfig::default());
    assert!(world.net.is_connecting() && world.send(&[], Offload::None).is_err());
    assert_eq!((world.net.reclaim(), world.received(), world.net.event()), (0, vec![], None));
    while world.net.arm() {
        world.net.event();
    }
    world.net.flush();
    // However small the pieces are in which the store answers, and however often it has to be asked.
    world.xen.set_store_pace(3);
    world.xen.conflict_next(3);
    let events = world.settle();
    assert_eq!(events, [NetEvent::Up(world.net.capabilities())]);
    assert!(!world.net.is_connecting());
    world.check_that_it_works();
    world.check_that_nothing_is_left();
}

#[test]
fn frames_go_out_as_head_and_pages() {
    for split in [false, true] {
        let offers = NetOffers { split_event_channels: split, ..NetOffers::ALL };
        let mut world = World::connected(NetbackConfig { offers, ..NetbackConfig::default() });
        let slices = world.slices(&[4096; 15]);
        let offloads = [
            Offload::Segment { checksum: checksum_at(34), family: Family::Ipv4, mss_bytes: 1448 },
            Offload::Segment { checksum: checksum_at(54), family: Family::Ipv6, mss_bytes: 1428 },
        ];
        for offload in offloads {
            world.back.notified();
            world.back.arm();
            world.send(&slices, offload).unwrap();
            assert!(world.back.take().is_none(), "not before the flush");
            world.net.flush();
            assert!(world.back.notified() && !world.back.notified());
            let frame = world.back.take().unwrap();
            assert_eq!((frame.offload(), frame.parts().count()), (offload, 16));
            assert!(
                frame.places().skip(1).eq(slices.iter().map(|slice| (slice.page_address() + slice.offset(), 4096)))
            );
            assert_eq!((world.net.reclaim(), world.pool.in_use()), (0, 15));
            world.back.complete(frame);
            assert!(world.back.notify() || !world.net.arm());
            assert_eq!(world.net.reclaim(), 1);
        }
        let partial = Offload::Checksum(checksum_at(34));
        world.send(&slices[..0], partial).unwrap();
        world.net.flush();
        let frame = world.back.take().unwrap();
        assert_eq!((frame.offload(), frame.head().len()), (partial, 74));
        world.back.complete(frame);
        drop(slices);
        world.back.notify();
        assert_eq!((world.net.reclaim(), world.pool.in_use()), (1, 0));
        world.check_that_nothing_is_left();
    }
}

#[test]
fn a_full_ring_says_so_and_wakes_when_there_is_room() {
    let mut world = World::connected(NetbackConfig::default());
    let slices = world.slices(&[80; 16]);
    let mut sent = 0;
    while world.send(&slices, Offload::None).is_ok() {
        sent += 1;
    }
    assert_eq!((sent, world.stats.tx_full.get()), (ENTRIES / 17, 1));
    world.net.flush();
    let frames: Vec<_> = core::iter::from_fn(|| world.back.take()).collect();
    assert_eq!(frames.len(), sent);
    world.settle();
    for frame in frames.into_iter().rev() {
        world.back.complete(frame);
        world.back.notify();
    }
    assert!(world.xen.woken(), "it waits for room");
    assert_eq!(world.net.reclaim(), sent);
    assert!(world.send(&slices, Offload::None).is_ok());
}

#[test]
fn frames_come_in_over_one_page_or_more() {
    for (rx_offset, rx_bytes) in [(0, 4096), (2, 1000), (100, 256)] {
        let mut world = World::connected(NetbackConfig { rx_offset, rx_bytes, ..NetbackConfig::default() });
        for round in 0..500 {
            let most = 18 * rx_bytes;
            let bytes = [headers(Family::Ipv4), pattern(round * 97 % (most - 100), round)].concat();
            let (checksum, gso) = match round % 4 {
                0 => (RxChecksum::Unknown, None),
                1 => (RxChecksum::Verified, None),
                2 => (RxChecksum::Partial(checksum_at(34)), None),
                _ => (RxChecksum::Partial(checksum_at(34)), Some(RxGso { family: Family::Ipv4, mss_bytes: 700 })),
            };
            let parts = bytes.split_at(round % 50);
            world.back.deliver(&[parts.0, parts.1], checksum, gso).unwrap();
            assert!(world.back.notify());
            assert!(world.xen.woken());
            assert_eq!(world.received(), [(bytes, checksum, gso)]);
            assert!(!world.net.arm(), "all has been seen");
            assert!(world.back.front_may_sleep());
        }
        assert_eq!((world.rx_pool.in_use(), world.back.rx_posted()), (ENTRIES, ENTRIES));
        world.check_that_nothing_is_left();
    }
}

#[test]
fn what_came_after_the_last_look_keeps_it_awake() {
    let mut world = World::connected(NetbackConfig::default());
    assert!(world.received().is_empty() && !world.net.arm());
    world.back.deliver(&[&[7; 100]], RxChecksum::Unknown, None).unwrap();
    world.back.notify();
    assert!(world.net.arm());
    assert_eq!(world.received().len(), 1);
    assert!(!world.net.arm());
    world.back.down();
    world.xen.step();
    assert!(world.net.arm());
    assert_eq!(world.settle(), [NetEvent::Down]);
}

#[test]
fn a_page_that_is_kept_is_replaced() {
    let mut world = World::connected(NetbackConfig::default());
    world.back.deliver(&[&[7; 100]], RxChecksum::Unknown, None).unwrap();
    world.back.notify();
    let mut kept = Vec::new();
    assert_eq!(world.net.receive(1, &mut |frame| kept.extend(frame.slices.iter().cloned())), 1);
    world.net.flush();
    assert_eq!((world.rx_pool.in_use(), world.back.rx_posted()), (ENTRIES + 1, ENTRIES));
    world.check_that_it_works_with(1);
    assert_eq!(kept[0].bytes(), [7; 100]);
    drop(kept);
    assert_eq!(world.rx_pool.in_use(), ENTRIES);
}

impl World {
    /// As [`World::check_that_it_works`], while somebody keeps pages of received frames.
    fn check_that_it_works_with(&mut self, kept: usize) {
        for round in 0..600 {
            let bytes = pattern(100, round);
            self.back.deliver(&[&bytes], RxChecksum::Unknown, None).unwrap();
            self.back.notify();
            assert_eq!(self.received(), [(bytes, RxChecksum::Unknown, None)]);
        }
        assert_eq!(self.rx_pool.in_use(), ENTRIES + kept);
    }
}

#[test]
fn without_pages_the_back_end_waits_for_them() {
    let mut world = World::connected(NetbackConfig::default());
    let mut held = Vec::new();
    for _ in 0..2 * ENTRIES {
        world.back.deliver(&[&[7; 100]], RxChecksum::Unknown, None).unwrap();
        world.back.notify();
        world.net.receive(1, &mut |frame| held.push(frame.slices[0].clone()));
        world.net.flush();
    }
    assert_eq!(world.back.deliver(&[&[7; 100]], RxChecksum::Unknown, None), Err(Full));
    world.back.notified();
    assert!(!world.back.arm());
    world.net.flush();
    assert!(!world.back.notified(), "there are no pages");
    held.clear();
    assert!(!world.net.arm());
    assert!(world.back.notified(), "pages are posted before it sleeps");
    world.back.deliver(&[&[7; 100]], RxChecksum::Unknown, None).unwrap();
}

#[test]
fn what_was_in_flight_comes_back_when_the_back_end_goes() {
    let mut world = World::connected(NetbackConfig::default());
    for life in 0..20 {
        let slices = world.slices(&[80; 5]);
        for _ in 0..10 {
            world.send(&slices, Offload::None).unwrap();
        }
        world.net.flush();
        drop(slices);
        let taken = [world.back.take(), world.back.take()];
        world.back.deliver(&[&[1; 100]], RxChecksum::Unknown, None).unwrap();
        let offers = NetOffers { gso4: life % 2 == 0, ..NetOffers::ALL };
        if life % 3 == 0 {
            world.back.down();
            assert_eq!(world.settle(), [NetEvent::Down]);
            assert_eq!((world.pool.in_use(), world.rx_pool.in_use()), (0, 0));
            assert!(world.send(&[], Offload::None).is_err() && world.net.is_connecting());
            world.back.up(offers);
            assert_eq!(world.settle(), [NetEvent::Up(world.net.capabilities())]);
        } else {
            // So quickly that the front never sees it closed.
            world.back.up(offers);
            assert_eq!(world.settle(), [NetEvent::Down, NetEvent::Up(world.net.capabilities())]);
        }
        taken.into_iter().flatten().for_each(|frame| world.back.complete(frame));
        assert_eq!((world.net.reclaim(), world.net.capabilities().tso4), (0, life % 2 == 0));
        world.check_that_it_works();
    }
    assert_eq!(world.stats.device_faults.get(), 0);
    world.check_that_nothing_is_left();
}

#[test]
fn a_detached_interface_may_come_back_as_another() {
    for polite in [true, false] {
        let mut world = World::connected(NetbackConfig::default());
        let slices = world.slices(&[80; 5]);
        world.send(&slices, Offload::None).unwrap();
        world.net.flush();
        drop(slices);
        if polite {
            world.back.gone();
        } else {
            world.back.vanish();
        }
        assert_eq!(world.settle(), [NetEvent::Down], "{polite}");
        assert_eq!(world.xen.read("/local/domain/5/device/vif/0/mac"), None);
        assert_eq!((world.pool.in_use(), world.rx_pool.in_use(), world.xen.grants()), (0, 0, 0));
        assert!(world.net.is_connecting() && !world.net.arm());
        assert!(world.send(&[], Offload::None).is_err());
        let mac = [2, 3, 4, 5, 6, 7];
        world.back = MemoryNetback::new(&world.xen, NetbackConfig { mac, domain: 4, ..NetbackConfig::default() });
        assert_eq!(world.settle(), [NetEvent::Up(world.net.capabilities())]);
        assert_eq!(world.net.capabilities().hardware_address, mac);
        world.check_that_it_works();
        world.check_that_nothing_is_left();
    }
}

#[test]
fn what_the_back_end_says_of_frames_is_counted() {
    let mut world = World::connected(NetbackConfig::default());
    for status in [-1, -2] {
        world.send(&[], Offload::None).unwrap();
        world.net.flush();
        let frame = world.back.take().unwrap();
        world.back.complete_with(frame, status);
        world.back.notify();
        assert_eq!(world.net.reclaim(), 1);
    }
    assert_eq!(world.stats.tx_lost.get(), 2);
    assert!(world.back.fail_rx(-1));
    world.back.notify();
    assert_eq!((world.received(), world.stats.rx_malformed.get()), (vec![], 1));
    world.check_that_it_works();
}
