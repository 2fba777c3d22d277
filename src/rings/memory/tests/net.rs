//! Frames through the in-memory network device.

use super::super::*;
use crate::rings::{
    Capabilities, Family, Full, NetEvent, NetQueue, Offload, PAGE_BYTES, PagePool, PageSlice, PartialChecksum,
    RxChecksum, RxGso, TxFrame,
};
use crate::stats::Stats;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::array;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

const CHECKSUM: PartialChecksum = PartialChecksum { start: 34, offset: 16 };
const SEGMENT: Offload = Offload::Segment { checksum: CHECKSUM, family: Family::Ipv4, mss_bytes: 1448 };

fn device(config: MemoryNetConfig, rx_pages: usize) -> (MemoryNet, MemoryBackend, PagePool) {
    let pool = PagePool::new(rx_pages);
    let (front, back) = memory_net(config, pool.clone(), Rc::new(Stats::default()));
    (front, back, pool)
}

fn received(front: &mut MemoryNet, budget: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let count = front.receive(budget, &mut |frame| {
        let mut bytes = vec![0; frame.len()];
        assert_eq!(frame.copy_to(&mut bytes), bytes.len());
        frames.push(bytes);
    });
    assert_eq!(count, frames.len());
    frames
}

fn bytes(frame: &TakenFrame) -> Vec<u8> {
    frame.parts().flatten().copied().collect()
}

/// A slice of a page of its own, all `fill`.
fn slice(pool: &PagePool, length: usize, fill: u8) -> PageSlice {
    let mut page = pool.allocate().unwrap();
    page.bytes_mut().unwrap().fill(fill);
    page.slice(PAGE_BYTES - length, length)
}

#[test]
fn the_slices_taken_are_the_pages_given() {
    let cache = PagePool::new(2);
    let (mut front, mut back, _) = device(MemoryNetConfig::default(), 4);
    let slices = [slice(&cache, 4000, 1), slice(&cache, 7, 2)];
    front.transmit(&TxFrame { head: &[9; 66], slices: &slices, offload: SEGMENT }).unwrap();
    assert!(back.take().is_none(), "not flushed");
    front.flush();
    let taken = back.take().unwrap();
    assert_eq!((taken.head(), taken.offload(), taken.len()), (&[9; 66][..], SEGMENT, 4073));
    assert!(taken.slices().iter().zip(&slices).all(|(a, b)| a.same_page(b) && a.offset() == b.offset()));
    drop(slices);
    back.complete(taken);
    assert_eq!((cache.in_use(), front.grants_in_use(), front.in_flight()), (2, 4, 1));
    assert_eq!(front.reclaim(), 1);
    assert_eq!((cache.in_use(), front.grants_in_use(), front.in_flight()), (0, 0, 0));
}

#[test]
fn the_ring_counts_slots_and_full_changes_nothing() {
    let cache = PagePool::new(17);
    let (mut front, mut back, _) = device(MemoryNetConfig::default(), 4);
    let slices: [PageSlice; 17] = array::from_fn(|i| slice(&cache, 3800, i as u8));
    let large = TxFrame { head: &[1; 66], slices: &slices, offload: SEGMENT };
    let shared = || cache.shared();
    for _ in 0..13 {
        front.transmit(&large).unwrap();
    }
    assert_eq!(front.grants_in_use(), 13 * 19, "head, 17 slices, extra info");
    assert_eq!(front.transmit(&large), Err(Full));
    assert_eq!((front.grants_in_use(), front.in_flight()), (13 * 19, 13));
    let small: Vec<PageSlice> = slices.iter().map(|slice| slice.part(0, 80)).collect();
    let filling = TxFrame { head: &[2; 66], slices: &small[..8], offload: Offload::Checksum(CHECKSUM) };
    front.transmit(&filling).unwrap();
    assert_eq!(front.grants_in_use(), 256);
    let nothing_fits = TxFrame { head: &[3; 60], slices: &[], offload: Offload::None };
    assert_eq!(front.transmit(&nothing_fits), Err(Full));
    front.flush();
    let taken: Vec<TakenFrame> = core::iter::from_fn(|| back.take()).collect();
    assert_eq!(taken.len(), 14);
    assert_eq!(front.transmit(&nothing_fits), Err(Full), "taken is not completed");
    taken.into_iter().for_each(|frame| back.complete(frame));
    assert_eq!(front.transmit(&nothing_fits), Err(Full), "completed is not reclaimed");
    assert_eq!(front.reclaim(), 14);
    drop(small);
    assert_eq!(shared(), 0);
    front.transmit(&large).unwrap();
}

#[test]
fn a_page_comes_back_with_its_own_frame() {
    let cache = PagePool::new(5);
    let (mut front, mut back, _) = device(MemoryNetConfig::default(), 4);
    for fill in 0..5 {
        let slices = [slice(&cache, 100, fill)];
        front.transmit(&TxFrame { head: &[fill; 60], slices: &slices, offload: Offload::None }).unwrap();
    }
    front.flush();
    let mut taken: Vec<TakenFrame> = core::iter::from_fn(|| back.take()).collect();
    for (left, index) in [(4, 3), (3, 0), (2, 2), (1, 1), (0, 0)] {
        back.complete(taken.remove(index));
        assert_eq!((front.reclaim(), front.in_flight(), cache.in_use()), (1, left, left));
        // Who is still there has its bytes.
        assert!(taken.iter().all(|frame| frame.slices()[0].bytes().iter().all(|byte| *byte == frame.head()[0])));
    }
}

#[test]
fn frames_beyond_the_capabilities_are_our_own_mistake() {
    let cache = PagePool::new(32);
    let slices: Vec<PageSlice> = (0..18).map(|_| slice(&cache, 4096, 0)).collect();
    let no_offload =
        Capabilities { checksum: false, tso4: false, tso6: false, ..MemoryNetConfig::default().capabilities };
    let no_tso = Capabilities { checksum: true, ..no_offload };
    let all = MemoryNetConfig::default().capabilities;
    let zero_mss = Offload::Segment { checksum: CHECKSUM, family: Family::Ipv4, mss_bytes: 0 };
    let ipv6 = Offload::Segment { checksum: CHECKSUM, family: Family::Ipv6, mss_bytes: 1 };
    let behind_head = Offload::Checksum(PartialChecksum { start: 34, offset: 19 });
    let head = [0; 3000];
    let cases: [(&str, Capabilities, &[u8], usize, Offload); 10] = [
        ("no head", all, &[], 1, SEGMENT),
        ("a long head", all, &head[..2049], 0, SEGMENT),
        ("slots", all, &head[..54], 18, SEGMENT),
        ("bytes", all, &head[..54], 16, SEGMENT),
        ("the MTU", all, &head[..1515], 0, Offload::None),
        ("no checksum offload", no_offload, &head[..54], 0, Offload::Checksum(CHECKSUM)),
        ("no TSO", no_tso, &head[..54], 1, SEGMENT),
        ("no TSO for IPv6", Capabilities { tso6: false, ..all }, &head[..54], 1, ipv6),
        ("segments of nothing", all, &head[..54], 1, zero_mss),
        ("the checksum field", all, &head[..54], 0, behind_head),
    ];
    for (name, capabilities, head, count, offload) in cases {
        let (mut front, ..) = device(MemoryNetConfig { capabilities, ..MemoryNetConfig::default() }, 4);
        let frame = TxFrame { head, slices: &slices[..count], offload };
        let outcome = catch_unwind(AssertUnwindSafe(|| front.transmit(&frame)));
        assert_eq!(outcome.is_err(), cfg!(debug_assertions), "{name}");
    }
    let (mut front, ..) = device(MemoryNetConfig::default(), 4);
    let largest = TxFrame { head: &head[..66], slices: &slices[..15], offload: SEGMENT };
    let rest = slices[15].part(0, 65_535 - largest.len());
    let slices: Vec<PageSlice> = slices[..15].iter().cloned().chain([rest]).collect();
    front.transmit(&TxFrame { slices: &slices, ..largest }).unwrap();
    front.transmit(&TxFrame { head: &head[..1514], slices: &[], offload: Offload::None }).unwrap();
}

#[test]
fn a_page_written_while_granted_is_noticed() {
    for written_when in ["before it is taken", "before it is completed", "before a down"] {
        let cache = PagePool::new(1);
        let (mut front, mut back, _) = device(MemoryNetConfig { verify: true, ..MemoryNetConfig::default() }, 4);
        let page = cache.allocate().unwrap();
        let slices = [page.slice(100, 10)];
        let frame = TxFrame { head: &[0; 60], slices: &slices, offload: Offload::None };
        // SAFETY: the byte is the page's, and no reference to it is held: this is what a stray write would do.
        let write = |offset| unsafe { page.pointer().add(offset).write(0x55) };
        let mut transmit_and_take = || {
            front.transmit(&frame).unwrap();
            front.flush();
            back.take()
        };
        let taken = transmit_and_take().unwrap();
        write(99);
        write(110);
        back.complete(taken);
        assert_eq!(back.violations(), 0, "beside the slice");
        let outcome = match written_when {
            "before a down" => {
                front.transmit(&frame).unwrap();
                write(105);
                catch_unwind(AssertUnwindSafe(|| back.down()))
            }
            _ => {
                front.transmit(&frame).unwrap();
                front.flush();
                let taken = back.take().unwrap();
                write(109);
                catch_unwind(AssertUnwindSafe(|| back.complete(taken)))
            }
        };
        assert_eq!((outcome.is_err(), back.violations()), (cfg!(debug_assertions), 1), "{written_when}");
    }
}

#[test]
fn received_frames_fill_page_after_page() {
    let (mut front, mut back, _) = device(MemoryNetConfig::default(), 20);
    let gso = Some(RxGso { family: Family::Ipv6, mss_bytes: 1440 });
    let parts: [&[u8]; 4] = [&[1; 86], &[], &[2; 8000], &[3; 57_449]];
    back.deliver(&parts, RxChecksum::Partial(CHECKSUM), gso).unwrap();
    back.deliver(&[&[7; 42]], RxChecksum::Unknown, None).unwrap();
    assert_eq!(back.rx_posted(), 20 - 17);
    let mut seen = Vec::new();
    let count = front.receive(8, &mut |frame| {
        let lengths: Vec<usize> = frame.slices.iter().map(PageSlice::len).collect();
        seen.push((lengths, frame.checksum, frame.gso, frame.slices[0].bytes()[85.min(frame.len() - 1)]));
    });
    let mut lengths = vec![PAGE_BYTES; 15];
    lengths.push(65_535 - 15 * PAGE_BYTES);
    assert_eq!(count, 2);
    assert_eq!(seen[0], (lengths, RxChecksum::Partial(CHECKSUM), gso, 1));
    assert_eq!(seen[1], (vec![42], RxChecksum::Unknown, None, 7));
    assert_eq!(back.rx_posted(), 20, "posted again");
}

#[test]
fn a_frame_without_pages_for_all_of_it_is_not_begun() {
    let (mut front, mut back, _) = device(MemoryNetConfig { rx_buffer_bytes: 100, ..MemoryNetConfig::default() }, 4);
    back.deliver(&[&[1; 150]], RxChecksum::Verified, None).unwrap();
    assert_eq!(back.deliver(&[&[2; 201]], RxChecksum::Verified, None), Err(Full));
    assert!(!back.arm(), "two pages are not three");
    back.deliver(&[&[3; 200]], RxChecksum::Verified, None).unwrap();
    assert_eq!(back.deliver(&[&[4; 1]], RxChecksum::Verified, None), Err(Full));
    assert_eq!(received(&mut front, 1), [vec![1; 150]]);
    back.deliver(&[&[4; 1]], RxChecksum::Verified, None).unwrap();
    assert_eq!(received(&mut front, 9), [vec![3; 200], vec![4]]);
}

#[test]
fn rx_pages_are_posted_as_the_pool_has_them() {
    let pool = PagePool::new(10);
    let mut held: Vec<_> = core::iter::from_fn(|| pool.allocate()).collect();
    let config = MemoryNetConfig { ring_entries: 19, ..MemoryNetConfig::default() };
    let (mut front, mut back) = memory_net(config, pool.clone(), Rc::new(Stats::default()));
    assert_eq!(back.deliver(&[&[0; 1]], RxChecksum::Verified, None), Err(Full));
    assert!(!back.arm());
    held.truncate(7);
    front.flush();
    assert!(back.notified(), "the backend waits for a page");
    assert_eq!(back.rx_posted(), 3);
    held.clear();
    assert!(front.event().is_some() && !front.arm());
    assert_eq!(back.rx_posted(), 10);
    back.deliver(&[&[0; 1]], RxChecksum::Verified, None).unwrap();
    // A reader that keeps a page, against the rules, doesn't see it overwritten.
    let mut kept = None;
    front.receive(1, &mut |frame| kept = Some(frame.slices[0].clone()));
    assert_eq!((back.rx_posted(), pool.in_use()), (9, 10));
    drop(kept);
    front.flush();
    assert_eq!((back.rx_posted(), pool.in_use()), (10, 10));
}

#[test]
fn down_brings_every_page_back_and_up_begins_anew() {
    let cache = PagePool::new(3);
    let (mut front, mut back, rx_pool) = device(MemoryNetConfig { verify: true, ..MemoryNetConfig::default() }, 8);
    let all = MemoryNetConfig::default().capabilities;
    assert_eq!((front.event(), front.event()), (Some(NetEvent::Up(all)), None));
    let send = |front: &mut MemoryNet, fill| {
        let slices = [slice(&cache, 50, fill)];
        front.transmit(&TxFrame { head: &[fill; 60], slices: &slices, offload: Offload::None })
    };
    send(&mut front, 1).unwrap();
    front.flush();
    let stale = back.take().unwrap();
    send(&mut front, 2).unwrap();
    front.flush();
    let completed = back.take().unwrap();
    back.complete(completed);
    send(&mut front, 3).unwrap();
    back.deliver(&[&[4; 5000]], RxChecksum::Verified, None).unwrap();
    assert!(!front.woken() || back.notify());
    back.down();
    assert!(front.woken());
    assert_eq!((front.event(), front.event()), (Some(NetEvent::Down), None));
    assert_eq!((front.in_flight(), front.grants_in_use(), front.reclaim()), (0, 0, 0));
    assert_eq!((rx_pool.in_use(), cache.in_use()), (0, 1), "all but what the backend still maps");
    assert_eq!(send(&mut front, 5), Err(Full));
    assert_eq!(back.deliver(&[&[6; 60]], RxChecksum::Verified, None), Err(Full));
    front.flush();
    assert!(back.take().is_none() && received(&mut front, 9).is_empty());

    let less = Capabilities { tso4: false, tso6: false, checksum: false, ..all };
    back.up(less);
    assert!(front.woken());
    assert_eq!((front.event(), front.capabilities()), (Some(NetEvent::Up(less)), less));
    send(&mut front, 7).unwrap();
    front.flush();
    back.complete(stale);
    assert_eq!((front.reclaim(), front.in_flight(), cache.in_use()), (0, 1, 1), "a stale frame completes nothing");
    assert_eq!(bytes(&back.take().unwrap())[..60], [7; 60]);
    back.gone();
    back.up(all);
    assert_eq!((front.event(), front.event(), front.event()), (Some(NetEvent::Down), Some(NetEvent::Gone), None));
    assert_eq!((front.in_flight(), rx_pool.in_use(), cache.in_use()), (0, 0, 0));
}

#[test]
fn a_backend_that_loses_frames_stops_nothing_after_the_next_up() {
    let config = MemoryNetConfig { ring_entries: 20, ..MemoryNetConfig::default() };
    let (mut front, mut back, _) = device(config, 4);
    let frame = TxFrame { head: &[0; 60], slices: &[], offload: Offload::None };
    for _ in 0..3 {
        while front.transmit(&frame).is_ok() {}
        assert_eq!(front.in_flight(), 20);
        front.flush();
        while back.take().is_some() {}
        assert_eq!((front.reclaim(), front.grants_in_use()), (0, 20), "it never answers");
        back.up(config.capabilities);
        assert_eq!(front.grants_in_use(), 0);
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Transmit { head: usize, slices: Vec<(usize, usize, usize)>, segment: bool },
    Flush,
    Take,
    Complete(prop::sample::Index),
    Reclaim,
    Deliver { lengths: Vec<usize> },
    Receive(usize),
    Down,
    Up,
    Events,
}

fn operation() -> impl Strategy<Value = Operation> {
    let slices = prop::collection::vec((0..8usize, 0..2000usize, 1..2000usize), 0..=5);
    prop_oneof![
        6 => (54..200usize, slices, any::<bool>())
            .prop_map(|(head, slices, segment)| Operation::Transmit { head, slices, segment }),
        4 => Just(Operation::Flush),
        5 => Just(Operation::Take),
        5 => any::<prop::sample::Index>().prop_map(Operation::Complete),
        3 => Just(Operation::Reclaim),
        4 => prop::collection::vec(0..300usize, 1..4).prop_map(|lengths| Operation::Deliver { lengths }),
        4 => (0..4usize).prop_map(Operation::Receive),
        1 => Just(Operation::Down),
        2 => Just(Operation::Up),
        2 => Just(Operation::Events),
    ]
}

/// What the device should be like: frames as bytes with the slots and the cache pages that they take.
#[derive(Clone)]
struct ModelFrame {
    bytes: Vec<u8>,
    slots: usize,
    pages: BTreeSet<usize>,
}

#[derive(Default)]
struct Model {
    up: bool,
    told_up: bool,
    private: Vec<ModelFrame>,
    published: VecDeque<ModelFrame>,
    completed: Vec<ModelFrame>,
    received: VecDeque<Vec<u8>>,
}

const MODEL_ENTRIES: usize = 12;
const MODEL_BUFFER_BYTES: usize = 64;
const MODEL_RX_PAGES: usize = 9;

proptest! {
    #[test]
    fn the_device_behaves_as_its_model(operations in prop::collection::vec(operation(), 1..250)) {
        let mut config = MemoryNetConfig {
            ring_entries: MODEL_ENTRIES,
            rx_buffer_bytes: MODEL_BUFFER_BYTES,
            verify: true,
            ..MemoryNetConfig::default()
        };
        config.capabilities.max_slots = 6;
        config.capabilities.mtu_bytes = 12_000;
        let (mut front, mut back, rx_pool) = device(config, MODEL_RX_PAGES);
        let cache = PagePool::new(8);
        let pages: Vec<_> = (0..8).map(|i| {
            let mut page = cache.allocate().unwrap();
            page.bytes_mut().unwrap().fill(i);
            page
        }).collect();
        // Taken frames of this life of the device, and those of earlier ones.
        let mut taken: Vec<(TakenFrame, ModelFrame)> = Vec::new();
        let mut stale: Vec<(TakenFrame, ModelFrame)> = Vec::new();
        let mut model = Model { up: true, ..Model::default() };
        let mut counter = 0u8;

        for operation in operations {
            match operation {
                Operation::Transmit { head, slices, segment } => {
                    counter = counter.wrapping_add(1);
                    let head = vec![counter; head];
                    let given: Vec<PageSlice> = slices.iter().map(|&(page, at, len)| pages[page].slice(at, len)).collect();
                    let frame = ModelFrame {
                        bytes: given.iter().fold(head.clone(), |bytes, slice| [&bytes, slice.bytes()].concat()),
                        slots: 1 + slices.len() + usize::from(segment),
                        pages: slices.iter().map(|(page, ..)| *page).collect(),
                    };
                    let offload = if segment { SEGMENT } else { Offload::None };
                    let outcome = front.transmit(&TxFrame { head: &head, slices: &given, offload });
                    let on_their_way = model.private.iter().chain(&model.published).chain(&model.completed);
                    let used: usize = on_their_way.chain(taken.iter().map(|(_, f)| f)).map(|f| f.slots).sum();
                    let fits = model.up && used + frame.slots <= MODEL_ENTRIES;
                    prop_assert_eq!(outcome, if fits { Ok(()) } else { Err(Full) });
                    if fits {
                        model.private.push(frame);
                    }
                }
                Operation::Flush => {
                    front.flush();
                    model.published.extend(model.private.drain(..));
                }
                Operation::Take => {
                    let (frame, expected) = (back.take(), model.published.pop_front());
                    prop_assert_eq!(frame.is_some(), expected.is_some());
                    taken.extend(frame.zip(expected));
                }
                Operation::Complete(index) => {
                    let count = taken.len() + stale.len();
                    if count > 0 {
                        let index = index.index(count);
                        let (frame, expected) = if index < taken.len() {
                            let both = taken.remove(index);
                            model.completed.push(both.1.clone());
                            both
                        } else {
                            stale.remove(index - taken.len())
                        };
                        prop_assert_eq!(bytes(&frame), expected.bytes);
                        back.complete(frame);
                    }
                }
                Operation::Reclaim => {
                    prop_assert_eq!(front.reclaim(), model.completed.drain(..).count());
                }
                Operation::Deliver { mut lengths } => {
                    counter = counter.wrapping_add(1);
                    lengths[0] += 1;
                    let all = vec![counter; lengths.iter().sum()];
                    let mut rest = &all[..];
                    let parts: Vec<&[u8]> = lengths.iter().map(|&length| rest.split_off(..length).unwrap()).collect();
                    let in_use: usize = model.received.iter().map(|f| f.len().div_ceil(MODEL_BUFFER_BYTES)).sum();
                    let fits = model.up && in_use + all.len().div_ceil(MODEL_BUFFER_BYTES) <= MODEL_RX_PAGES;
                    let outcome = back.deliver(&parts, RxChecksum::Verified, None);
                    prop_assert_eq!(outcome, if fits { Ok(()) } else { Err(Full) });
                    if fits {
                        model.received.push_back(all);
                    }
                }
                Operation::Receive(budget) => {
                    let count = budget.min(model.received.len());
                    let expected: Vec<Vec<u8>> = model.received.drain(..count).collect();
                    prop_assert_eq!(received(&mut front, budget), expected);
                }
                Operation::Down | Operation::Up => {
                    model.private.clear();
                    model.published.clear();
                    model.completed.clear();
                    model.received.clear();
                    stale.append(&mut taken);
                    model.up = matches!(operation, Operation::Up);
                    if model.up { back.up(config.capabilities) } else { back.down() }
                }
                Operation::Events => {
                    let mut last = model.told_up;
                    while let Some(event) = front.event() {
                        prop_assert_ne!(event == NetEvent::Down, !last, "{:?} when told {}", event, last);
                        last = event != NetEvent::Down;
                    }
                    prop_assert_eq!(last, model.up);
                    model.told_up = last;
                }
            }
            let granted = model.private.iter().chain(&model.published).chain(&model.completed);
            let granted: Vec<&ModelFrame> = granted.chain(taken.iter().map(|(_, frame)| frame)).collect();
            prop_assert_eq!(front.in_flight(), granted.len());
            prop_assert_eq!(front.grants_in_use(), granted.iter().map(|frame| frame.slots).sum::<usize>());
            let mapped = granted.into_iter().chain(stale.iter().map(|(_, frame)| frame));
            let pinned: BTreeSet<usize> = mapped.flat_map(|frame| frame.pages.iter().copied()).collect();
            prop_assert_eq!(cache.shared(), pinned.len());
            prop_assert_eq!(rx_pool.in_use(), if model.up { MODEL_RX_PAGES } else { 0 });
        }
        taken.into_iter().chain(stale).for_each(|(frame, _)| back.complete(frame));
        back.gone();
        prop_assert_eq!((cache.shared(), rx_pool.in_use(), back.grants_in_use()), (0, 0, 0));
    }
}
