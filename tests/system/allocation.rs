//! The serve path allocates nothing once it is warm.

use std::rc::Rc;

use minicache::appliance::ApplianceConfig;
use smoltcp::time::Duration;

use crate::sim::devices::Devices;
use crate::sim::in_memory::InMemory;
use crate::sim::on_xen::OnXen;
use crate::sim::population::{Behaviour, Population};
use crate::sim::site::Site;
use crate::sim::world::{World, WorldConfig};

/// Serves until it is warm, and then counts.
fn serve_warm<D: Devices>() {
    // Twice the cache, so that chunks are read and evicted all the time.
    let site = Rc::new(Site::new((0..128).map(|i| i * 500), 1));
    let appliance = ApplianceConfig { cache_bytes: 2 << 20, ..Default::default() };
    let mut world =
        World::<D>::new(WorldConfig { appliance, hosts: vec![1500, 1500], ..WorldConfig::default() }, &site);
    let fetch = |world: &mut World<D>, requests, connections_each, seed| {
        let behaviour = Behaviour { requests, connections_each, mixed: false };
        let mut population = Population::new(site.clone(), 2, behaviour, seed);
        world.allocations = 0;
        world.run(&mut population, Duration::from_secs(600), |_| false);
        assert!(population.is_done(), "{:?}", population.tally);
        (world.allocations, world.stats.cache_evictions.get())
    };
    // Warm is when every queue and table has been as long as it will be.
    let (_, evictions_before) = fetch(&mut world, 8000, 12, 1);
    world.run(&mut (), Duration::from_secs(120), |_| false);
    assert_eq!(world.stats.time_wait.get(), 0);
    let (allocations, evictions) = fetch(&mut world, 5000, 8, 2);
    assert!(evictions > evictions_before + 1000, "the cache was never full");
    assert_eq!(allocations, 0);
}

#[test]
fn a_warm_appliance_serves_without_allocating() {
    serve_warm::<InMemory>();
}

#[test]
fn a_warm_appliance_serves_without_allocating_on_xen() {
    serve_warm::<OnXen>();
}

#[test]
fn the_count_sees_allocations() {
    let before = crate::allocations();
    std::hint::black_box(vec![1u8; std::hint::black_box(100)]);
    assert_eq!(crate::allocations() - before, 1);
}
