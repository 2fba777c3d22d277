//! blkback.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::hand::{FrontRing, Hand, complaint_of};
use crate::rings::shared_memory::SharedMemory;
use crate::rings::xen::EventPort;
use crate::rings::xen::abi::block::{
    BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR,
    BLKIF_RSP_OKAY, ENTRY_BYTES, IndirectRequest, Request, Response, Segment,
};
use crate::rings::xen::memory::{BlkbackConfig, BusState, DiskOperation, LoggedRequest, MemoryBlkback};
use crate::rings::{Geometry, PAGE_BYTES};
use zerocopy::IntoBytes;

const HOME: &str = "/local/domain/7/device/vbd/51712";
const BACK: &str = "/local/domain/0/backend/vbd/7/51712";

struct World {
    hand: Hand,
    back: MemoryBlkback,
    ring: FrontRing,
    port: EventPort,
    pages: Vec<SharedMemory>,
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index / 512 + index) as u8).collect()
}

fn writable() -> BlkbackConfig {
    let config = BlkbackConfig::read_only(64 << 10);
    BlkbackConfig { geometry: Geometry { read_only: false, ..config.geometry }, ..config }
}

impl World {
    /// Connected, over so many pages of ring.
    fn new(config: BlkbackConfig, pages: usize) -> Self {
        let hand = Hand::new();
        let mut back = MemoryBlkback::new(&hand.xen, noise(64 << 10), config);
        assert_eq!(back.state(), BusState::InitWait);
        let ring = FrontRing::new(&hand, pages, ENTRY_BYTES);
        let port = hand.port();
        let set = |key: &str, value: u32| hand.xen.write(&format!("{HOME}/{key}"), format!("{value}"));
        match &ring.gref[..] {
            [gref] => set("ring-ref", *gref),
            grefs => {
                set("ring-page-order", grefs.len().ilog2());
                grefs.iter().enumerate().for_each(|(index, gref)| set(&format!("ring-ref{index}"), *gref));
            }
        }
        set("event-channel", port.0);
        hand.xen.write(&format!("{HOME}/protocol"), "x86_64-abi");
        set("state", 3);
        assert_eq!(hand.xen.read(&format!("{BACK}/sectors")), None, "not before it is connected");
        assert!(back.step());
        assert_eq!(hand.xen.read(&format!("{BACK}/sectors")).as_deref(), Some("128"));
        set("state", 4);
        back.step();
        Self { hand, back, ring, port, pages: Vec::new() }
    }

    fn page(&mut self, read_only: bool) -> u32 {
        let page = SharedMemory::new(PAGE_BYTES);
        let gref = self.hand.grant(&page, read_only);
        self.pages.push(page);
        gref
    }

    fn submit(&mut self, request: impl IntoBytes + zerocopy::Immutable) -> bool {
        self.ring.push(request);
        self.hand.calls.notify(self.port);
        self.back.step()
    }

    fn answers(&mut self) -> Vec<(u64, u8, i16)> {
        let answers = core::iter::from_fn(|| self.ring.pop::<Response>());
        answers.map(|answer| (answer.id, answer.operation, answer.status)).collect()
    }

    fn content(&self, page: usize, count: usize) -> Vec<u8> {
        (0..count).map(|index| self.pages[page].read8(index)).collect()
    }
}

fn request(operation: u8, id: u64, unit: u64, segments: &[Segment]) -> Request {
    let mut request =
        Request { operation, nr_segments: segments.len() as u8, id, sector_number: unit, ..Request::default() };
    request.segments[..segments.len()].copy_from_slice(segments);
    request
}

fn segment(gref: u32, first_sect: u8, last_sect: u8) -> Segment {
    Segment { gref, first_sect, last_sect, pad: 0 }
}

#[test]
fn sectors_are_read_and_written() {
    for pages in [1, 2, 16] {
        let mut world = World::new(writable(), pages);
        let (first, second) = (world.page(false), world.page(false));
        // More than the ring has entries, so that it is crossed.
        for round in 0..700 {
            let segments = [segment(first, 0, 7), segment(second, 2, 3)];
            assert!(world.submit(request(BLKIF_OP_READ, round, 10, &segments)));
            assert_eq!(world.answers(), [(round, BLKIF_OP_READ, BLKIF_RSP_OKAY)]);
        }
        let disk = noise(64 << 10);
        assert_eq!(world.content(0, 4096), disk[5120..9216]);
        assert_eq!(world.content(1, 2048)[1024..], disk[9216..10240]);
        let source = world.page(true);
        world.pages[2].write(512, &[7; 512]);
        world.submit(request(BLKIF_OP_WRITE, 9, 127, &[segment(source, 1, 1)]));
        world.submit(request(BLKIF_OP_FLUSH_DISKCACHE, 10, 0, &[]));
        assert_eq!(world.answers(), [(9, BLKIF_OP_WRITE, 0), (10, BLKIF_OP_FLUSH_DISKCACHE, 0)]);
        assert_eq!(world.back.bytes()[127 * 512..], [7; 512]);
        let last = world.back.take_log().pop().unwrap();
        let flush = DiskOperation::Flush;
        assert_eq!(last, LoggedRequest { operation: flush, unit: 0, units: 0, segments: 0, indirect: false });
        assert!([first, second, source].into_iter().all(|gref| world.hand.end(gref)));
    }
}

#[test]
fn segments_lie_in_pages_of_their_own() {
    let mut world = World::new(writable(), 1);
    let grefs: Vec<u32> = (0..14).map(|_| world.page(false)).collect();
    let table = world.page(true);
    for (index, gref) in grefs.iter().enumerate() {
        world.pages[14].put(index * size_of::<Segment>(), segment(*gref, 0, 7));
    }
    let mut indirect_grefs = [0; 8];
    indirect_grefs[0] = table;
    let request = IndirectRequest {
        operation: BLKIF_OP_INDIRECT,
        indirect_op: BLKIF_OP_READ,
        nr_segments: 14,
        id: 5,
        sector_number: 8,
        indirect_grefs,
        ..IndirectRequest::default()
    };
    world.submit(request);
    assert_eq!(world.answers(), [(5, BLKIF_OP_INDIRECT, BLKIF_RSP_OKAY)]);
    let read: Vec<u8> = (0..14).flat_map(|page| world.content(page, 4096)).collect();
    assert_eq!(read, noise(64 << 10)[4096..15 * 4096]);
    let log = world.back.take_log();
    let operation = DiskOperation::Read;
    assert_eq!(log, [LoggedRequest { operation, unit: 8, units: 112, segments: 14, indirect: true }]);
}

#[test]
fn what_blkback_refuses_is_a_panic() {
    let read = |unit, first, last| move |gref| request(BLKIF_OP_READ, 0, unit, &[segment(gref, first, last)]);
    type Case = (&'static str, alloc::boxed::Box<dyn Fn(u32) -> Request>);
    let cases: [Case; 9] = [
        ("beyond the disk's 128 units", alloc::boxed::Box::new(read(127, 0, 1))),
        ("beyond the disk's 128 units", alloc::boxed::Box::new(read(u64::MAX, 0, 1))),
        ("first_sect: 2", alloc::boxed::Box::new(read(0, 2, 1))),
        ("last_sect: 8", alloc::boxed::Box::new(read(0, 0, 8))),
        ("a request for nothing", alloc::boxed::Box::new(|_| request(BLKIF_OP_READ, 0, 0, &[]))),
        ("could be written", alloc::boxed::Box::new(|gref| request(BLKIF_OP_WRITE, 0, 0, &[segment(gref, 0, 0)]))),
        ("operation 17", alloc::boxed::Box::new(|gref| request(17, 0, 0, &[segment(gref, 0, 0)]))),
        (
            "entry allows nothing",
            alloc::boxed::Box::new(|gref| request(BLKIF_OP_READ, 0, 0, &[segment(gref + 1, 0, 0)])),
        ),
        ("12 segments", alloc::boxed::Box::new(|_| Request { nr_segments: 12, ..Request::default() })),
    ];
    for (complaint, make) in cases {
        let mut world = World::new(writable(), 1);
        let gref = world.page(false);
        let said = complaint_of(|| world.submit(make(gref)));
        assert!(said.contains(complaint), "{said:?}, not {complaint:?}");
    }
    let config = BlkbackConfig {
        flush: false,
        geometry: Geometry { sector_bytes: 4096, sectors: 16, read_only: true },
        ..writable()
    };
    for (complaint, request) in [
        ("flushes were not offered", request(BLKIF_OP_FLUSH_DISKCACHE, 0, 0, &[])),
        ("parts of sectors", request(BLKIF_OP_READ, 0, 8, &[segment(9, 0, 3)])),
    ] {
        let mut world = World::new(config, 1);
        world.page(false);
        let said = complaint_of(|| world.submit(request));
        assert!(said.contains(complaint), "{said:?}, not {complaint:?}");
    }
}

#[test]
fn requests_are_late_disorderly_and_failing() {
    let mut world = World::new(writable(), 1);
    world.back.set_held(true);
    world.back.set_shuffled(true);
    let grefs: Vec<u32> = (0..20).map(|_| world.page(false)).collect();
    for (id, gref) in grefs.iter().enumerate() {
        world.submit(request(BLKIF_OP_READ, id as u64, 0, &[segment(*gref, 0, 7)]));
    }
    assert_eq!((world.back.in_flight(), world.answers().len()), (20, 0));
    assert!(grefs.iter().all(|gref| !world.hand.end(*gref)));
    world.hand.xen.woken();
    world.back.fail_next(2);
    assert_eq!(world.back.release(2), 2);
    assert!(world.hand.xen.woken());
    assert!(world.answers().iter().all(|answer| answer.2 == BLKIF_RSP_ERROR));
    assert!(!world.back.front_may_sleep());
    world.ring.arm();
    assert!(world.back.front_may_sleep());
    world.back.fail_units(7..8);
    assert_eq!((world.back.release(1), world.answers()[0].2), (1, BLKIF_RSP_ERROR));
    world.back.fail_units(0..0);
    world.back.refuse(Some(DiskOperation::Read));
    assert_eq!((world.back.release(1), world.answers()[0].2), (1, BLKIF_RSP_EOPNOTSUPP));
    world.back.refuse(None);
    world.back.fail_one_in(3);
    world.back.set_held(false);
    let (answers, order) =
        (world.answers(), |answers: &[(u64, u8, i16)]| answers.iter().map(|a| a.0).collect::<Vec<_>>());
    assert_eq!(answers.len(), 16);
    let failed = answers.iter().filter(|answer| answer.2 == BLKIF_RSP_ERROR).count();
    assert!((1..16).contains(&failed) && !order(&answers).is_sorted(), "{answers:?}");
}

#[test]
fn a_disk_goes_and_comes_back_larger() {
    let mut world = World::new(writable(), 1);
    world.back.set_held(true);
    let gref = world.page(false);
    world.submit(request(BLKIF_OP_READ, 0, 0, &[segment(gref, 0, 7)]));
    world.back.resize(200);
    assert_eq!(world.hand.xen.read(&format!("{BACK}/sectors")).as_deref(), Some("200"));
    world.back.set_keeps_mappings(true);
    world.back.down();
    assert_eq!((world.back.in_flight(), world.back.state(), world.hand.end(gref)), (0, BusState::Closed, false));
    world.back.let_go();
    assert!(world.hand.end(gref));
    world.back.up(Geometry { sector_bytes: 512, sectors: 300, read_only: true });
    assert_eq!(world.back.state(), BusState::InitWait);
    assert!(!world.back.step());
    world.back.gone();
    world.hand.xen.write(&format!("{HOME}/state"), "6");
    while world.back.step() {}
    assert_eq!(world.hand.xen.read(&format!("{HOME}/virtual-device")), None);
}

#[test]
fn lies_reach_the_ring() {
    let mut world = World::new(writable(), 1);
    world.back.lie(Response { id: 99, operation: 7, status: -7, ..Response::default() });
    assert!(world.hand.xen.woken());
    assert_eq!(world.answers(), [(99, 7, -7)]);
    world.back.jump(5000);
    assert_eq!(world.ring.responses(), 5001);
    let config = BlkbackConfig { max_indirect_segments: None, max_ring_page_order: None, ..writable() };
    let world = World::new(config, 1);
    assert_eq!(world.hand.xen.read(&format!("{BACK}/feature-max-indirect-segments")), None);
    assert_eq!(vec![world.hand.xen.read(&format!("{BACK}/max-ring-page-order"))], [None]);
}
