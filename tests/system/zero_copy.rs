//! The CPU never touches a body byte where the device does its part, and the counter says what it cost where it does not.

use std::cell::Cell;
use std::rc::Rc;

use minicache::rings::Capabilities;
use minicache::rings::memory::MemoryNetConfig;
use smoltcp::time::Duration;

use crate::sim::devices::Devices;
use crate::sim::in_memory::InMemory;
use crate::sim::on_xen::OnXen;
use crate::sim::population::{Behaviour, Population, Tally};
use crate::sim::site::Site;
use crate::sim::world::{World, WorldConfig};

/// What a run over a perfect wire showed.
struct Run {
    tally: Tally,
    /// Bytes in slices of TX frames that lie in the cache's pages.
    from_cache_bytes: u64,
    copied_bytes: u64,
    /// Body bytes that the server sent.
    body_bytes: u64,
}

/// Fetches some objects with a device of these capabilities.
fn fetch<D: Devices>(capabilities: Capabilities) -> Run {
    let site = Rc::new(Site::new([0, 1, 5000, 16_384, 100_000, 1 << 20], 3));
    let mut world = World::<D>::new(WorldConfig { capabilities, ..WorldConfig::default() }, &site);
    let from_cache_bytes = Rc::new(Cell::new(0));
    let (cache, sum) = (world.appliance.cache_pages().clone(), from_cache_bytes.clone());
    world.inspect = Box::new(move |places| {
        let of_cache = places.iter().filter(|(address, _)| cache.covers(*address));
        sum.set(sum.get() + of_cache.map(|(_, bytes)| *bytes as u64).sum::<u64>());
    });
    let behaviour = Behaviour { requests: 300, connections_each: 4, mixed: true };
    let mut population = Population::new(site, 1, behaviour, 9);
    world.run(&mut population, Duration::from_secs(600), |_| false);
    assert!(population.is_done(), "{:?}", population.tally);
    assert_eq!(world.stats.tcp_retransmitted_bytes.get(), 0, "nothing is lost on this wire");
    Run {
        tally: population.tally,
        from_cache_bytes: from_cache_bytes.get(),
        copied_bytes: world.stats.copied_bytes.get(),
        body_bytes: world.stats.http_body_bytes.get(),
    }
}

fn all() -> Capabilities {
    MemoryNetConfig::default().capabilities
}

/// With scatter-gather and checksums.
fn fetch_without_a_copy<D: Devices>() {
    for capabilities in [all(), Capabilities { tso4: false, tso6: false, ..all() }] {
        let run = fetch::<D>(capabilities);
        assert!(run.tally.verified_bytes > 10 << 20, "{:?}", run.tally);
        assert_eq!(run.copied_bytes, 0);
        assert_eq!(
            run.from_cache_bytes, run.body_bytes,
            "every body byte was in a cache page that the device was given"
        );
    }
}

/// Without checksums.
fn fetch_with_sums<D: Devices>() {
    let run = fetch::<D>(Capabilities { checksum: false, tso4: false, tso6: false, ..all() });
    assert_eq!(run.copied_bytes, run.body_bytes);
    assert_eq!(run.from_cache_bytes, run.body_bytes);
}

/// Without scatter-gather.
fn fetch_with_copies<D: Devices>() {
    let run = fetch::<D>(Capabilities { checksum: false, tso4: false, tso6: false, max_slots: 1, ..all() });
    assert_eq!(run.copied_bytes, run.body_bytes);
    assert_eq!(run.from_cache_bytes, 0);
}

#[test]
fn the_slices_of_frames_are_the_caches_pages() {
    fetch_without_a_copy::<InMemory>();
}

#[test]
fn without_checksum_offload_every_body_byte_is_summed_once() {
    fetch_with_sums::<InMemory>();
}

#[test]
fn without_scatter_gather_every_body_byte_is_copied_once() {
    fetch_with_copies::<InMemory>();
}

#[test]
fn on_xen_bodies_are_granted_summed_or_copied_in_the_same_way() {
    fetch_without_a_copy::<OnXen>();
    fetch_with_sums::<OnXen>();
    fetch_with_copies::<OnXen>();
}
