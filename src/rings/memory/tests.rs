//! The in-memory devices against their limits, against late and disorderly other sides, and against simple models.

use super::*;
use crate::rings::{NetQueue, Offload, PagePool, RxChecksum, TxFrame};
use crate::stats::Stats;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

#[test]
fn frames_go_out_and_come_in() {
    let pool = PagePool::new(16);
    let cache = PagePool::new(1);
    let (mut front, mut back) = memory_net(MemoryNetConfig::default(), pool.clone(), Rc::new(Stats::default()));
    let slice = cache.allocate().unwrap().slice(10, 20);
    front.transmit(&TxFrame { head: &[7; 54], slices: core::slice::from_ref(&slice), offload: Offload::None }).unwrap();
    assert!(back.take().is_none(), "not flushed");
    front.flush();
    assert!(back.notified());
    let taken = back.take().unwrap();
    assert!(taken.slices()[0].same_page(&slice));
    drop(slice);
    back.complete(taken);
    assert_eq!((cache.in_use(), front.grants_in_use()), (1, 2));
    assert_eq!(front.reclaim(), 1);
    assert_eq!((cache.in_use(), front.grants_in_use()), (0, 0));
    back.deliver(&[&[1; 60], &[2; 4095]], RxChecksum::Verified, None).unwrap();
    assert!(back.notify() && front.woken());
    let mut seen = Vec::new();
    front.receive(8, &mut |frame| {
        let mut bytes = vec![0; frame.len()];
        frame.copy_to(&mut bytes);
        seen.push((frame.slices.len(), bytes));
    });
    let mut expected = vec![1; 60];
    expected.extend([2; 4095]);
    assert_eq!(seen, [(2, expected)]);
    back.gone();
    assert_eq!(pool.in_use(), 0);
}
