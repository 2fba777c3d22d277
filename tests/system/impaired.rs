//! The appliance with a bad network within its own device: the instrument keeps the device's contract, and bodies arrive whole.

use std::rc::Rc;

use minicache::rings::Capabilities;
use minicache::rings::memory::MemoryNetConfig;
use smoltcp::time::Duration;

use crate::sim::devices::Devices;
use crate::sim::in_memory::InMemory;
use crate::sim::on_xen::OnXen;
use crate::sim::population::{Behaviour, Population};
use crate::sim::site::Site;
use crate::sim::world::{Event, World, WorldConfig};

/// Fetches objects through `spec` while the device goes down and up, and returns what `look` says of the world at the end.
fn fetch<D: Devices>(spec: &str, capabilities: Capabilities, look: impl FnOnce(&World<D>)) {
    let site = Rc::new(Site::new([0, 1, 5000, 16_384, 100_000, 1 << 20], 3));
    let device = spec.parse().expect("a sound impairment");
    let config = WorldConfig { capabilities, device, hosts: vec![1500, 1280], ..WorldConfig::default() };
    let mut world = World::<D>::new(config, &site);
    let blip = world.now + Duration::from_secs(2);
    world.schedule(blip, Event::NetDown);
    world.schedule(blip + Duration::from_millis(50), Event::NetUp(capabilities));
    let behaviour = Behaviour { requests: 300, connections_each: 4, mixed: true };
    let mut population = Population::new(site, 2, behaviour, 9);
    world.run(&mut population, Duration::from_secs(3600), |_| false);
    assert!(population.is_done(), "{:?}, {:?}", population.tally, world.appliance.net().counts());
    look(&world);
    world.check_that_all_came_back();
}

/// Everything goes wrong at once.
fn fetch_through_everything<D: Devices>() {
    const SPEC: &str = "loss=1%,delay=5ms,jitter=2ms,reorder=1%,duplicate=1%,corrupt=1%,rate=50mbit,queue=100k,seed=5";
    let all = MemoryNetConfig::default().capabilities;
    for capabilities in [all, Capabilities { checksum: false, tso4: false, tso6: false, max_slots: 1, ..all }] {
        fetch::<D>(SPEC, capabilities, |world| {
            let counts = world.appliance.net().counts();
            for link in [counts.rx, counts.tx] {
                assert!(link.lost > 0 && link.duplicated > 0 && link.corrupted > 0 && link.reordered > 0, "{counts:?}");
                let gone = link.lost + link.tail_dropped + link.cleared;
                assert_eq!(link.delivered, link.sent + link.duplicated - gone, "{counts:?}");
            }
            assert_eq!(counts.malformed, 0);
            assert!(counts.tx.cleared > 0, "the device went down with frames on their way: {counts:?}");
            assert!(world.stats.rx_bad_checksum.get() > 0 && world.stats.tcp_retransmitted_bytes.get() > 0);
        });
    }
}

#[test]
fn bodies_arrive_whole_through_everything_at_once() {
    fetch_through_everything::<InMemory>();
}

#[test]
fn bodies_arrive_whole_through_everything_at_once_on_xen() {
    fetch_through_everything::<OnXen>();
}

#[test]
fn a_constant_delay_leaves_super_frames_whole_and_loses_nothing() {
    fetch::<InMemory>("delay=20ms", MemoryNetConfig::default().capabilities, |world| {
        let counts = world.appliance.net().counts();
        assert_eq!((counts.tx.lost, counts.tx.tail_dropped, counts.malformed), (0, 0, 0));
        assert!(counts.tx.sent < world.stats.http_body_bytes.get() / 1448, "segments were sent: {counts:?}");
    });
}
