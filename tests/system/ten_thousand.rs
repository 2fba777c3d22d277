//! Ten thousand objects through everything that can go wrong at once.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use fastrand::Rng;
use minicache::appliance::ApplianceConfig;
use minicache::rings::Capabilities;
use minicache::rings::impair::Impairment;
use minicache::rings::memory::MemoryNetConfig;
use smoltcp::time::{Duration, Instant};

use crate::sim::devices::Devices;
use crate::sim::in_memory::InMemory;
use crate::sim::link;
use crate::sim::on_xen::OnXen;
use crate::sim::population::{Behaviour, Population};
use crate::sim::site::{Site, Striping};
use crate::sim::world::{Event, World, WorldConfig};

/// Objects that each world moves; all of them together far more than the test is named for.
const OBJECTS_EACH: u64 = 2500;
/// Longest time without a verified object: some retransmission timeouts in a row.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);
/// How long the devices are disturbed; no world takes as long.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// The variable that replays one world.
const SEED_VARIABLE: &str = "MINICACHE_SEED";

/// Runs `world` with `seed`, or with the one that the environment names. A failure says which it was; the test `name` replays it.
fn with_seed<R>(name: &str, seed: u64, world: impl Fn(u64) -> R) -> R {
    let given = env::var(SEED_VARIABLE).ok().map(|seed| seed.parse().expect("the seed is a number"));
    let seed = given.unwrap_or(seed);
    panic::catch_unwind(AssertUnwindSafe(|| world(seed))).unwrap_or_else(|cause| {
        eprintln!(
            "seed {seed} fails; to replay it: {SEED_VARIABLE}={seed} cargo test -p minicache --test system {name}"
        );
        panic::resume_unwind(cause)
    })
}

/// What a backend may offer: everything, or less in one way.
fn some_capabilities(rng: &mut Rng) -> Capabilities {
    let all = MemoryNetConfig::default().capabilities;
    match rng.u8(..5) {
        0 => Capabilities { tso4: false, tso6: false, ..all },
        1 => Capabilities { tso6: false, ..all },
        2 => Capabilities { checksum: false, tso4: false, tso6: false, ..all },
        3 => Capabilities { checksum: false, tso4: false, tso6: false, max_slots: 1, ..all },
        _ => all,
    }
}

/// Devices that go away and come back, as somebody else, and reads that fail.
fn disturb<D: Devices>(world: &mut World<D>, rng: &mut Rng, until: Duration) {
    let mut at = Instant::ZERO;
    while at < Instant::ZERO + until {
        at += Duration::from_millis(rng.u64(100..1500));
        match rng.u8(..4) {
            0 => {
                world.schedule(at, Event::NetDown);
                at += Duration::from_millis(rng.u64(1..400));
                world.schedule(at, Event::NetUp(some_capabilities(rng)));
            }
            1 => world.schedule(at, Event::FailNext(rng.u32(1..20))),
            2 => {
                world.schedule(at, Event::FailOneIn(rng.u32(2..20)));
                at += Duration::from_millis(rng.u64(50..500));
                world.schedule(at, Event::FailOneIn(0));
            }
            _ => world.schedule(at, Event::DiskBlip),
        }
    }
}

/// Lengths of objects: most are small, every length near a border is there, some are of several MiB.
fn lengths(rng: &mut Rng) -> Vec<usize> {
    let borders = [0, 1, 2, 1447, 1448, 1449, 4095, 4096, 4097, 16_383, 16_384, 16_385, 65_535, 65_536, 131_072];
    let small = (0..300).map(|_| rng.usize(..20_000)).collect::<Vec<_>>();
    let large = (0..6).map(|_| rng.usize(100_000..3 << 20)).collect::<Vec<_>>();
    [&borders[..], &small, &large].concat()
}

/// A world in which objects are moved. Everything that can differ between worlds is decided by the seed.
fn move_objects<D: Devices>(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let site = Rc::new(Site::new(lengths(&mut rng), rng.u64(..)));
    let striping = match rng.u8(..3) {
        0 => Striping { members: 1, combined: false, stripe_bytes: 4096 },
        1 => Striping { members: 2, combined: false, stripe_bytes: 8192 },
        _ => Striping { members: 3, combined: true, stripe_bytes: 4096 },
    };
    let config = WorldConfig {
        seed: rng.u64(..),
        capabilities: some_capabilities(&mut rng),
        appliance: ApplianceConfig {
            cache_bytes: 1 << rng.u32(20..=22),
            packet_bytes: 1 << rng.u32(18..=22),
            ..Default::default()
        },
        impairment: Impairment {
            delay: Duration::from_micros(rng.u64(50..20_000)),
            rate_bits_per_s: Some(rng.u64(5..200) * 1_000_000),
            queue_bytes: Some(rng.u64(50..1000) * 1000),
            ..link::of_all_kinds(0.01)
        },
        hosts: vec![1500, 1500, 1280, 1500, 1400, 9000],
        striping,
        step_delay: Duration::from_micros(rng.u64(50..5000)),
        ..WorldConfig::default()
    };
    let machines = config.hosts.len();
    let mut world = World::<D>::new(config, &site);
    let behaviour = Behaviour { requests: OBJECTS_EACH, connections_each: 6, mixed: true };
    let mut population = Population::new(site, machines, behaviour, rng.u64(..));
    disturb(&mut world, &mut rng, LIMIT);
    let mut progress = (0, world.now);
    while !population.is_done() {
        world.run(&mut population, Duration::from_secs(1), |_| false);
        if population.tally.verified > progress.0 {
            progress = (population.tally.verified, world.now);
        }
        let quiet = world.now - progress.1;
        assert!(quiet < LONGEST_SILENCE, "nothing has moved since {}: {:?}", progress.1, population.tally);
    }
    let (tally, stats) = (population.tally, world.stats.clone());
    println!("seed {seed}: {tally:?} at {}, {:?}", world.now, world.counts());
    let ours = [
        &stats.http_aborted,
        &stats.http_timeouts,
        &stats.connections_reset_slowest,
        &stats.connections_reset_stalled,
        &stats.connections_refused,
    ];
    let reset_by_us = ours.iter().map(|counter| counter.get()).sum::<u64>();
    assert!(tally.resets <= reset_by_us, "{} resets that nothing explains: {tally:?}", tally.resets - reset_by_us);
    assert!(tally.timed_out <= stats.http_timeouts.get(), "connections ended too early: {tally:?}");
    assert!(tally.refused + tally.reset_within > 0, "no failing read was in anybody's way: {tally:?}");
    assert!(stats.tcp_retransmitted_bytes.get() > 0 && stats.tcp_timeouts.get() > 0 && stats.rx_bad_checksum.get() > 0);

    world.calm(MemoryNetConfig::default().capabilities);
    world.run(&mut (), Duration::from_secs(600), |_| false);
    world.check_that_all_came_back();
}

/// The worlds are tests of their own, so that they run side by side.
macro_rules! worlds {
    ($($name:ident: $devices:ty, $seed:literal;)*) => {
        $(#[test]
        fn $name() {
            with_seed(stringify!($name), $seed, move_objects::<$devices>);
        })*
    };
}

worlds! {
    world_1: InMemory, 1;
    world_2: InMemory, 2;
    world_3: InMemory, 3;
    world_4: InMemory, 4;
    world_5: InMemory, 5;
    world_6: InMemory, 6;
    world_7: InMemory, 7;
    world_8: InMemory, 8;
    xen_world_1: OnXen, 1;
    xen_world_2: OnXen, 2;
    xen_world_3: OnXen, 3;
    xen_world_4: OnXen, 4;
}
