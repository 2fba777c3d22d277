//! No wake-up is lost, however the two sides of a device interleave.
//!
//! Each side runs a loop like the real ones: work, and only when a round found nothing to do, arm and sleep until it is
//! woken. A schedule decides whose next step comes. At the end every side runs until it sleeps: if work is left then, a
//! wake-up was lost.

use super::super::*;
use crate::rings::{
    BlockDevice, BlockOperation, BlockRequest, Capabilities, NetQueue, Offload, PagePool, PageVec, RxChecksum, TxFrame,
};
use crate::stats::Stats;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Where a side is in its loop.
#[derive(Default)]
struct Round {
    step: usize,
    busy: bool,
    asleep: bool,
}

impl Round {
    /// The step to be made now out of `steps` and a last one for arming; `None` while the side sleeps.
    fn next(&mut self, woken: bool, steps: usize) -> Option<usize> {
        if self.asleep {
            if !woken {
                return None;
            }
            *self = Self::default();
        }
        let step = self.step;
        self.step = (step + 1) % (steps + 1);
        Some(step)
    }

    /// Work came by other means than the device: a timer, a socket. The side looks at it before it sleeps.
    fn prod(&mut self) {
        self.asleep = false;
        self.busy = true;
    }

    fn sleep_unless_busy(&mut self, arm: impl FnOnce() -> bool) {
        self.asleep = !core::mem::take(&mut self.busy) && !arm();
    }
}

struct Front {
    net: MemoryNet,
    round: Round,
    to_send: usize,
    received: usize,
    wakeups: usize,
}

impl Front {
    fn step(&mut self) {
        let woken = self.net.woken();
        self.wakeups += usize::from(woken);
        let Some(step) = self.round.next(woken, 4) else { return };
        self.round.busy |= match step {
            0 => self.net.reclaim() > 0,
            1 => {
                let count = self.net.receive(2, &mut |_| {});
                self.received += count;
                count > 0
            }
            2 => {
                let frame = TxFrame { head: &[0; 60], slices: &[], offload: Offload::None };
                let before = self.to_send;
                while self.to_send > 0 && self.net.transmit(&frame).is_ok() {
                    self.to_send -= 1;
                }
                self.to_send < before
            }
            3 => {
                self.net.flush();
                false
            }
            _ => return self.round.sleep_unless_busy(|| self.net.arm()),
        };
    }
}

struct Back {
    back: MemoryBackend,
    round: Round,
    held: Vec<TakenFrame>,
    to_deliver: usize,
    completed: usize,
    wakeups: usize,
}

impl Back {
    fn step(&mut self) {
        let woken = self.back.notified();
        self.wakeups += usize::from(woken);
        let Some(step) = self.round.next(woken, 4) else { return };
        self.round.busy |= match step {
            0 => {
                let before = self.held.len();
                self.held.extend(core::iter::from_fn(|| self.back.take()).take(2));
                self.held.len() > before
            }
            1 => {
                let frame = self.held.pop();
                let some = frame.is_some();
                frame.into_iter().for_each(|frame| self.back.complete(frame));
                self.completed += usize::from(some);
                some
            }
            2 => {
                let before = self.to_deliver;
                while self.to_deliver > 0 && self.back.deliver(&[&[1; 150]], RxChecksum::Verified, None).is_ok() {
                    self.to_deliver -= 1;
                }
                self.to_deliver < before
            }
            3 => {
                self.back.notify();
                false
            }
            _ => return self.round.sleep_unless_busy(|| self.back.arm()),
        };
    }
}

#[derive(Clone, Debug)]
enum Turn {
    Front,
    Back,
    Send(usize),
    Deliver(usize),
    Restart,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        30 => Just(Turn::Front),
        30 => Just(Turn::Back),
        3 => (1..6usize).prop_map(Turn::Send),
        3 => (1..6usize).prop_map(Turn::Deliver),
        1 => Just(Turn::Restart),
    ]
}

fn sides(rx_pages: usize) -> (Front, Back, Capabilities) {
    let config = MemoryNetConfig { ring_entries: 4, rx_buffer_bytes: 100, ..MemoryNetConfig::default() };
    let capabilities = Capabilities { max_slots: 2, ..config.capabilities };
    let config = MemoryNetConfig { capabilities, ..config };
    let (net, back) = memory_net(config, PagePool::new(rx_pages), Rc::new(Stats::default()));
    let front = Front { net, round: Round::default(), to_send: 0, received: 0, wakeups: 0 };
    let back = Back { back, round: Round::default(), held: Vec::new(), to_deliver: 0, completed: 0, wakeups: 0 };
    (front, back, capabilities)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn nobody_sleeps_while_there_is_work(turns in prop::collection::vec(turn(), 1..400), rx_pages in 2..6usize) {
        let (mut front, mut back, capabilities) = sides(rx_pages);
        for turn in turns {
            match turn {
                Turn::Front => front.step(),
                Turn::Back => back.step(),
                Turn::Send(count) => {
                    front.to_send += count;
                    front.round.prod();
                }
                Turn::Deliver(count) => {
                    back.to_deliver += count;
                    back.round.prod();
                }
                Turn::Restart => {
                    back.back.up(capabilities);
                    back.round.prod();
                }
            }
            while front.net.event().is_some() {
                front.round.prod();
            }
        }
        for _ in 0..2000 {
            front.step();
            back.step();
        }
        prop_assert!(front.round.asleep && back.round.asleep, "both come to rest");
        prop_assert_eq!((front.to_send, front.net.in_flight(), back.held.len(), back.to_deliver), (0, 0, 0, 0));
        prop_assert_eq!((front.net.receive(1, &mut |_| ()), back.back.take().is_none()), (0, true));
    }
}

#[test]
fn a_side_at_work_is_not_woken() {
    let (mut front, mut back, _) = sides(4);
    front.to_send = 100;
    back.to_deliver = 100;
    while front.received < 100 || back.completed < 100 {
        front.step();
        back.step();
    }
    // A fresh ring is armed; after that only who sleeps is notified.
    assert!(front.wakeups <= 2 && back.wakeups <= 2, "{} and {} wake-ups", front.wakeups, back.wakeups);
}

proptest! {
    #[test]
    fn a_disk_wakes_who_waits_for_it(
        turns in prop::collection::vec((0..4usize, 1..4usize), 1..100),
        delayed: bool,
        seed: u64,
    ) {
        let mut disk = MemoryDisk::read_only(vec![5; 65_536]);
        let control = disk.control();
        while disk.event().is_some() {}
        control.set_pace(if delayed { Pace::Delayed { most_polls: 3 } } else { Pace::Held });
        control.set_shuffled(seed.is_multiple_of(2));
        let pool = PagePool::new(64);
        let mut round = Round::default();
        let (mut to_read, mut outstanding) = (0, 0);
        let mut step = |to_read: &mut usize, outstanding: &mut usize, round: &mut Round| {
            let Some(step) = round.next(disk.woken(), 3) else { return };
            round.busy |= match step {
                0 => {
                    let count = disk.complete(&mut |completion| assert!(completion.result.is_ok()));
                    *outstanding -= count;
                    count > 0
                }
                1 => {
                    let before = *to_read;
                    while *to_read > 0 && let Some(page) = pool.allocate() {
                        let pages: PageVec = [page].into_iter().collect();
                        let request = BlockRequest { operation: BlockOperation::Read, sector: 3, pages, token: 0 };
                        disk.submit(request).unwrap();
                        *to_read -= 1;
                        *outstanding += 1;
                    }
                    *to_read < before
                }
                2 => {
                    disk.flush();
                    false
                }
                _ => return round.sleep_unless_busy(|| disk.arm()),
            };
        };
        for (what, count) in turns {
            match what {
                0 => drop(control.release(count)),
                1 => {
                    to_read += count;
                    round.prod();
                }
                _ => step(&mut to_read, &mut outstanding, &mut round),
            }
        }
        for _ in 0..2000 {
            step(&mut to_read, &mut outstanding, &mut round);
            control.release(1);
        }
        prop_assert_eq!((to_read, outstanding), (0, 0));
    }
}
