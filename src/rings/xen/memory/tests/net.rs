//! netback.

use alloc::vec;
use alloc::vec::Vec;

use super::hand::{FrontRing, Hand, complaint_of};
use crate::rings::shared_memory::SharedMemory;
use crate::rings::xen::EventPort;
use crate::rings::xen::abi::net::{
    ExtraInfo, NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, NETRXF_CSUM_BLANK, NETRXF_DATA_VALIDATED,
    NETRXF_EXTRA_INFO, NETRXF_MORE_DATA, NETTXF_CSUM_BLANK, NETTXF_DATA_VALIDATED, NETTXF_EXTRA_INFO, NETTXF_MORE_DATA,
    RX_ENTRY_BYTES, RxRequest, RxResponse, TX_ENTRY_BYTES, TxRequest, TxResponse,
};
use crate::rings::xen::memory::{BusState, Manners, MemoryNetback, NetOffers, NetbackConfig};
use crate::rings::{Family, Full, Offload, PAGE_BYTES, PartialChecksum, RxChecksum, RxGso};
use zerocopy::{FromBytes, IntoBytes};

struct World {
    hand: Hand,
    back: MemoryNetback,
    tx: FrontRing,
    rx: FrontRing,
    port: EventPort,
    pages: Vec<SharedMemory>,
}

const HOME: &str = "/local/domain/7/device/vif/0";
const BACK: &str = "/local/domain/0/backend/vif/7/0";

impl World {
    fn new(config: NetbackConfig) -> Self {
        let hand = Hand::new();
        let back = MemoryNetback::new(&hand.xen, config);
        let (tx, rx) = (FrontRing::new(&hand, 1, TX_ENTRY_BYTES), FrontRing::new(&hand, 1, RX_ENTRY_BYTES));
        let port = hand.port();
        Self { hand, back, tx, rx, port, pages: Vec::new() }
    }

    fn set(&self, key: &str, value: impl core::fmt::Display) {
        self.hand.xen.write(&alloc::format!("{HOME}/{key}"), alloc::format!("{value}"));
    }

    /// Connects as a front that can do everything.
    fn connected(config: NetbackConfig) -> Self {
        let mut world = Self::new(config);
        world.introduce();
        world.set("state", 4);
        assert!(world.back.step() && !world.back.step());
        assert_eq!((world.back.state(), world.back.is_connected()), (BusState::Connected, true));
        assert!(world.back.notified(), "binding is an event");
        assert!(!world.back.arm());
        world
    }

    fn introduce(&self) {
        self.set("tx-ring-ref", self.tx.gref[0]);
        self.set("rx-ring-ref", self.rx.gref[0]);
        self.set("event-channel", self.port);
        let features = ["request-rx-copy", "feature-rx-notify", "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6"];
        for feature in features.into_iter().chain(["feature-ipv6-csum-offload"]) {
            self.set(feature, 1);
        }
    }

    fn page(&mut self, read_only: bool) -> u32 {
        let page = SharedMemory::new(PAGE_BYTES);
        let gref = self.hand.grant(&page, read_only);
        self.pages.push(page);
        gref
    }

    fn post(&mut self, count: u16) -> Vec<u32> {
        let mut grefs = Vec::new();
        for id in 0..count {
            let gref = self.page(false);
            self.rx.push(RxRequest { id, pad: 0, gref });
            grefs.push(gref);
        }
        grefs
    }

    /// Sends these slots as they are.
    fn send(&mut self, requests: &[TxRequest]) {
        requests.iter().for_each(|request| self.tx.push(*request));
        self.hand.calls.notify(self.port);
    }

    fn answers(&mut self) -> Vec<(u16, i16)> {
        let answers = core::iter::from_fn(|| self.tx.pop::<TxResponse>());
        answers.map(|answer| (answer.id, answer.status)).collect()
    }
}

/// A TCP frame over IPv4 or IPv6, headers alone.
fn headers(family: Family) -> Vec<u8> {
    let mut frame = vec![0; 14 + 60];
    let (kind, ip): ([u8; 2], usize) = match family {
        Family::Ipv4 => ([8, 0], 20),
        Family::Ipv6 => ([0x86, 0xdd], 40),
    };
    frame[12..14].copy_from_slice(&kind);
    if family == Family::Ipv4 {
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6]);
    } else {
        frame[14..22].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, 6, 64]);
    }
    frame[14 + ip + 12] = 0x50;
    frame
}

fn extra(gso_size: u16, gso_type: u8) -> TxRequest {
    let info = ExtraInfo { kind: 1, gso_size, gso_type, ..ExtraInfo::default() };
    let mut request = TxRequest::default();
    request.as_mut_bytes()[..size_of::<ExtraInfo>()].copy_from_slice(info.as_bytes());
    request
}

#[test]
fn the_back_end_says_what_it_offers_and_follows_the_front() {
    let mut world = World::new(NetbackConfig::default());
    let read = |world: &World, key: &str| world.hand.xen.read(&alloc::format!("{BACK}/{key}"));
    assert_eq!(read(&world, "state").as_deref(), Some("2"));
    assert_eq!(read(&world, "feature-sg").as_deref(), Some("1"));
    assert_eq!(read(&world, "feature-no-csum-offload"), None);
    assert!(!world.back.step());
    world.introduce();
    world.set("state", 4);
    assert!(world.back.step());
    assert_eq!(read(&world, "state").as_deref(), Some("4"));
    assert_eq!(world.hand.xen.mapped_grants(), 2);
    assert!(!world.hand.end(world.tx.gref[0]), "it is mapped");
    world.set("state", 5);
    assert!(world.back.step());
    assert_eq!((world.back.state(), world.hand.xen.mapped_grants()), (BusState::Closing, 0));
    world.set("state", 6);
    assert!(world.back.step());
    world.set("state", 1);
    assert!(world.back.step());
    assert_eq!(world.back.state(), BusState::InitWait);
    // As somebody else.
    world.back.up(NetOffers { scatter_gather: false, checksum4: false, ..NetOffers::ALL });
    assert_eq!((read(&world, "feature-sg"), read(&world, "state").as_deref()), (None, Some("2")));
    assert_eq!(read(&world, "feature-no-csum-offload").as_deref(), Some("1"));
    assert!(!world.back.step(), "what was said to the other one is nothing to this one");
}

#[test]
fn split_event_channels_are_two() {
    let mut world = World::new(NetbackConfig::default());
    world.introduce();
    world.hand.xen.remove(&alloc::format!("{HOME}/event-channel"));
    let rx = world.hand.port();
    world.set("event-channel-tx", world.port);
    world.set("event-channel-rx", rx);
    world.set("state", 4);
    world.back.step();
    world.back.notified();
    world.hand.calls.notify(rx);
    assert!(world.back.notified() && !world.back.notified());
    world.hand.calls.notify(world.port);
    assert!(world.back.notified());
}

#[test]
fn a_frame_is_taken_whole_and_answered_slot_by_slot() {
    let mut world = World::connected(NetbackConfig::default());
    let (first, second) = (world.page(true), world.page(true));
    let head = headers(Family::Ipv4);
    world.pages[0].write(100, &head);
    world.pages[1].write(0, &[9; 4000]);
    let flags = NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED;
    let size = head.len() as u16 + 4000;
    world.send(&[
        TxRequest { gref: first, offset: 100, flags: flags | NETTXF_EXTRA_INFO | NETTXF_MORE_DATA, id: 3, size },
        extra(1448, 1),
        TxRequest { gref: second, offset: 0, flags: 0, id: 4, size: 4000 },
    ]);
    assert!(world.back.notified());
    let frame = world.back.take().unwrap();
    let checksum = PartialChecksum { start: 34, offset: 16 };
    assert_eq!(frame.offload(), Offload::Segment { checksum, family: Family::Ipv4, mss_bytes: 1448 });
    assert_eq!((frame.head(), frame.parts().nth(1), frame.len()), (&head[..], Some(&[9; 4000][..]), size.into()));
    assert_eq!(frame.places().nth(1), Some((world.pages[1].address(0) as usize, 4000)));
    assert!(world.back.take().is_none() && !world.hand.end(second));
    assert_eq!((world.back.in_flight(), world.back.slots_in_flight()), (1, 2));
    world.back.complete(frame);
    assert_eq!(world.answers(), [], "not published");
    assert!(world.back.notify() && world.hand.xen.woken());
    let answers = world.answers();
    assert_eq!(answers.len(), 3);
    assert_eq!((answers[0], answers[1].1, answers[2]), ((3, NETIF_RSP_OKAY), NETIF_RSP_NULL, (4, NETIF_RSP_OKAY)));
    assert!(world.hand.end(first) && world.hand.end(second));
}

#[test]
fn netbacks_complaints_are_panics() {
    let head = headers(Family::Ipv4);
    let size = head.len() as u16;
    let blank = NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED;
    let whole = TxRequest { gref: 0, offset: 0, flags: 0, id: 0, size };
    let more = TxRequest { flags: NETTXF_MORE_DATA, ..whole };
    let gso = TxRequest { flags: blank | NETTXF_EXTRA_INFO, ..whole };
    let slots = |count: usize| {
        let mut requests = vec![TxRequest { flags: NETTXF_MORE_DATA, size: 1000, ..whole }; count];
        requests[1..].iter_mut().for_each(|request| request.size = 10);
        requests.last_mut().unwrap().flags = 0;
        requests
    };
    let cases = [
        ("13 bytes", vec![TxRequest { size: 13, ..whole }]),
        ("4090+", vec![TxRequest { offset: 4090, ..whole }]),
        ("published together", vec![more]),
        ("0+0 bytes", vec![more, TxRequest { size: 0, ..whole }]),
        ("the others have", vec![more, TxRequest { size: size + 1, ..whole }]),
        ("published with its frame", vec![gso]),
        ("no other extra info", vec![gso, TxRequest::default()]),
        ("GSO type 3", vec![gso, extra(1448, 3)]),
        ("for a frame of Ipv4", vec![gso, extra(1448, 2)]),
        ("gso_size: 0", vec![gso, extra(0, 1)]),
        ("not left to be completed", vec![TxRequest { flags: NETTXF_EXTRA_INFO, ..whole }, extra(1448, 1)]),
        ("not to be cut", vec![TxRequest { size: 1515, ..whole }]),
        ("has flags", vec![TxRequest { flags: 1 << 4, ..whole }]),
        ("a frame of 19 slots", slots(19)),
        ("", vec![whole]),
        ("", vec![TxRequest { flags: blank, ..whole }]),
        ("", vec![gso, extra(10, 1)]),
        ("", slots(18)),
    ];
    for (complaint, requests) in cases {
        let mut world = World::connected(NetbackConfig::default());
        let gref = world.page(true);
        world.pages[0].write(0, &head);
        let is_extra = |index: usize| index == 1 && requests[0].flags & NETTXF_EXTRA_INFO != 0;
        let requests: Vec<TxRequest> = requests
            .iter()
            .enumerate()
            .map(|(index, request)| if is_extra(index) { *request } else { TxRequest { gref, ..*request } })
            .collect();
        world.send(&requests);
        let said = complaint_of(|| world.back.take().is_some());
        assert!(said.contains(complaint) && said.is_empty() == complaint.is_empty(), "{said:?}, not {complaint:?}");
    }
}

#[test]
fn what_was_not_offered_or_granted_is_a_panic_too() {
    let head = headers(Family::Ipv6);
    let size = head.len() as u16;
    let flags = NETTXF_CSUM_BLANK | NETTXF_DATA_VALIDATED;
    let gso = TxRequest { gref: 10, offset: 0, flags: flags | NETTXF_EXTRA_INFO, id: 0, size };
    let whole = TxRequest { gref: 10, offset: 0, flags: 0, id: 0, size };
    let all = NetOffers::ALL;
    let cases = [
        (NetOffers { gso6: false, ..all }, vec![gso, extra(9, 2)], true, "offered: false"),
        (
            NetOffers { checksum6: false, ..all },
            vec![TxRequest { flags, ..whole }],
            true,
            "completes no checksums over Ipv6",
        ),
        (
            NetOffers { scatter_gather: false, ..all },
            vec![TxRequest { flags: NETTXF_MORE_DATA, ..whole }, TxRequest { size: 9, ..whole }],
            true,
            "scatter-gather was not offered",
        ),
        (all, vec![whole], false, "the back end could write"),
        (all, vec![TxRequest { gref: 400, ..whole }], true, "entry allows nothing"),
        (all, vec![TxRequest { gref: 700, ..whole }], true, "no such entry"),
    ];
    for (offers, requests, read_only, complaint) in cases {
        let mut world = World::connected(NetbackConfig { offers, ..NetbackConfig::default() });
        assert_eq!(world.page(read_only), 10);
        world.pages[0].write(0, &head);
        world.send(&requests);
        let said = complaint_of(|| world.back.take().is_some());
        assert!(said.contains(complaint), "{said:?}, not {complaint:?}");
    }
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "while it was granted")]
fn a_page_that_is_written_while_it_is_granted_is_noticed() {
    let mut world = World::connected(NetbackConfig::default());
    let gref = world.page(true);
    world.send(&[TxRequest { gref, offset: 0, flags: 0, id: 0, size: 60 }]);
    let frame = world.back.take().unwrap();
    world.pages[0].write8(59, 1);
    world.back.complete(frame);
}

#[test]
fn frames_fill_the_posted_pages() {
    let config = NetbackConfig { rx_offset: 2, rx_bytes: 1000, ..NetbackConfig::default() };
    let mut world = World::connected(config);
    let bytes: Vec<u8> = (0..2500_u32).map(|index| index as u8).collect();
    let (head, tail) = bytes.split_at(70);
    assert_eq!(world.back.deliver(&[head, tail], RxChecksum::Unknown, None), Err(Full));
    assert!(!world.back.arm());
    world.post(3);
    assert!(world.rx.wants_notice(), "the third page is what it lacked");
    world.post(1);
    let gso = RxGso { family: Family::Ipv4, mss_bytes: 900 };
    world.back.deliver(&[head, tail], RxChecksum::Verified, Some(gso)).unwrap();
    assert_eq!(world.back.deliver(&[head], RxChecksum::Unknown, None), Err(Full));
    assert!(world.back.notify() && world.hand.xen.woken() && !world.back.front_may_sleep());
    let first: RxResponse = world.rx.pop().unwrap();
    assert_eq!((first.id, first.offset, first.status), (0, 2, 1000));
    assert_eq!(first.flags, NETRXF_DATA_VALIDATED | NETRXF_EXTRA_INFO | NETRXF_MORE_DATA);
    let info: RxResponse = world.rx.pop().unwrap();
    let info = ExtraInfo::read_from_bytes(info.as_bytes()).unwrap();
    assert_eq!((info.kind, info.gso_size, info.gso_type), (1, 900, 1));
    let second: RxResponse = world.rx.pop().unwrap();
    let third: RxResponse = world.rx.pop().unwrap();
    // The second page went with the extra info.
    assert_eq!((second.id, second.flags, second.status), (2, NETRXF_MORE_DATA, 1000));
    assert_eq!((third.id, third.flags, third.status), (0, 0, 500));
    assert!(!world.back.front_may_sleep(), "it has not armed");
    world.rx.arm();
    assert!(world.back.front_may_sleep());
    let at = |page: usize, count: usize| (0..count).map(|index| world.pages[page].read8(2 + index)).collect::<Vec<_>>();
    assert_eq!([at(0, 1000), at(2, 1000), at(3, 500)].concat(), bytes);
}

#[test]
fn a_blank_checksum_is_completed_for_who_does_not_want_it() {
    for wanted in [true, false] {
        let mut world = World::new(NetbackConfig::default());
        world.introduce();
        world.set("feature-no-csum-offload", u32::from(!wanted));
        world.set("state", 4);
        world.back.step();
        world.post(1);
        let frame = headers(Family::Ipv4);
        let partial = RxChecksum::Partial(PartialChecksum { start: 34, offset: 16 });
        world.back.deliver(&[&frame], partial, None).unwrap();
        world.back.notify();
        let response: RxResponse = world.rx.pop().unwrap();
        let blank = if wanted { NETRXF_CSUM_BLANK } else { 0 };
        assert_eq!(response.flags, NETRXF_DATA_VALIDATED | blank);
        let field = (world.pages[0].read8(50), world.pages[0].read8(51));
        assert_eq!(field == (0, 0), wanted);
    }
}

#[test]
fn a_back_end_that_goes_lets_go_of_everything_or_not() {
    for keeps in [false, true] {
        let mut world = World::connected(NetbackConfig::default());
        let gref = world.page(true);
        world.send(&[TxRequest { gref, offset: 0, flags: 0, id: 0, size: 60 }]);
        let frame = world.back.take().unwrap();
        world.back.set_keeps_mappings(keeps);
        world.back.down();
        assert_eq!((world.back.state(), world.back.is_connected()), (BusState::Closed, false));
        assert_eq!(world.hand.end(gref), !keeps);
        world.back.complete(frame);
        world.back.let_go();
        assert!(world.hand.end(gref) || !keeps);
        assert_eq!(world.hand.xen.mapped_grants(), 0);
    }
}

#[test]
fn the_toolstack_waits_for_both_sides_or_does_not() {
    let mut world = World::connected(NetbackConfig::default());
    world.back.gone();
    assert_eq!(world.hand.xen.read(&alloc::format!("{BACK}/state")).as_deref(), Some("5"));
    assert!(!world.back.step() && world.back.is_connected());
    world.set("state", 5);
    assert!(world.back.step() && !world.back.is_connected());
    world.set("state", 6);
    while world.back.step() {}
    assert_eq!((world.hand.xen.read(&alloc::format!("{HOME}/mac")), world.hand.xen.mapped_grants()), (None, 0));
    world.back.up(NetOffers::ALL);
    assert_eq!(world.hand.xen.read(&alloc::format!("{BACK}/state")), None);

    let mut world = World::connected(NetbackConfig::default());
    world.back.vanish();
    assert_eq!((world.hand.xen.read(&alloc::format!("{HOME}/mac")), world.hand.xen.mapped_grants()), (None, 0));
}

#[test]
fn bad_manners() {
    let mut world = World::new(NetbackConfig::default());
    world.introduce();
    world.back.set_manners(Manners { stays_in: Some(BusState::InitWait), ..Manners::default() });
    world.set("state", 4);
    assert!(!world.back.step() && !world.back.step());
    world.back.set_manners(Manners { closes_before: Some(BusState::Connected), ..Manners::default() });
    assert!(world.back.step());
    assert_eq!((world.back.state(), world.hand.xen.mapped_grants()), (BusState::Closed, 0));
    world.back.set_manners(Manners { closes_before: Some(BusState::InitWait), ..Manners::default() });
    world.set("state", 1);
    assert!(world.back.step());
    assert_eq!(world.back.state(), BusState::Closed);
}

#[test]
fn lies_reach_the_rings() {
    let mut world = World::connected(NetbackConfig::default());
    let grefs = world.post(2);
    world.back.lie_tx(TxResponse { id: 500, status: 9 });
    assert!(world.back.lie_rx(|request| RxResponse { id: request.id + 5, offset: 5000, flags: 0xffff, status: 5000 }));
    assert!(world.back.fail_rx(NETIF_RSP_ERROR) && !world.back.fail_rx(0));
    world.back.notify();
    assert_eq!(world.answers(), [(500, 9)]);
    let (lie, failure): (RxResponse, RxResponse) = (world.rx.pop().unwrap(), world.rx.pop().unwrap());
    assert_eq!((lie.id, lie.offset, failure.id, failure.status), (5, 5000, 1, NETIF_RSP_ERROR));
    world.back.jump_tx(1000);
    world.back.jump_rx(70_000);
    world.back.notify();
    assert_eq!((world.tx.responses(), world.rx.responses()), (1001, 70_002));
    assert!(grefs.into_iter().all(|gref| world.hand.end(gref)));
}
