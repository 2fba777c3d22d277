//! The freestanding probe: the appliance with everything that an operating system would bring left out.
//!
//! `cargo xtask probe` makes a package of this file under `target/`, builds it as a static library and links that with
//! nothing. It is never run.
#![no_std]
#![deny(unsafe_code)]

#[allow(unsafe_code)]
#[path = "../../tests/support/allocators.rs"]
mod allocators;

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::panic::PanicInfo;

use allocators::{NoMemory, Observed};
use minicache::appliance::{Appliance, ApplianceConfig};
use minicache::rings::PagePool;
use minicache::rings::memory::{MemoryDisk, MemoryNetConfig, memory_net};
use minicache::stats::Stats;
use smoltcp::time::{Duration, Instant};

#[global_allocator]
static HEAP: Observed<NoMemory> = Observed::new(NoMemory, || {});

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {}
}

/// Keeps [`exercise`] in the library, since nothing calls it.
#[used]
static ENTRY: fn() -> usize = exercise;

/// Names the appliance's generic code with concrete types, so that it is compiled. Returns how much there was to do.
fn exercise() -> usize {
    let stats = Rc::new(Stats::default());
    let (net, mut backend) = memory_net(MemoryNetConfig::default(), PagePool::new(512), stats.clone());
    let disks = vec![MemoryDisk::read_only(Vec::new())];
    let Ok(mut appliance) = Appliance::new(ApplianceConfig::default(), net, disks, [0; 32], stats) else { return 0 };
    appliance.mount();
    let mut rounds = 0;
    while appliance.poll(Instant::ZERO, 0) || appliance.arm() {
        while let Some(frame) = backend.take() {
            backend.complete(frame);
        }
        rounds += 1;
    }
    appliance.shutdown(Instant::ZERO, Duration::from_secs(1));
    rounds + usize::from(appliance.is_stopped()) + usize::from(appliance.next_deadline().is_some())
}
