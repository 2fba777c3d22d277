//! The kernel's main: the command line, the devices, the appliance, and the event loop for as long as the machine runs.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt::Display;
use smoltcp::wire::IpCidr;

use super::console::say;
use super::devices::{Devices, Disk, Net};
use super::machine::{self, Beginning, FrequencyOrigin, Machine, Platform, SecretOrigin};
use super::plan::Plan;
use super::timeline::Timeline;
use super::world::World;
use super::{heap, logger, virtio, xen};
use crate::appliance::{Appliance, ApplianceConfig, Pools};
use crate::params::Params;
use crate::platform::Power;
use crate::shell::Machine as _;
use crate::stats::Stats;

/// Runs the machine until somebody switches it off.
pub fn run(mut machine: Machine, beginning: Beginning, line: &[u8]) -> ! {
    let mut timeline = Timeline::new();
    logger::initialise();
    say!("MiniCache {}", env!("CARGO_PKG_VERSION"));
    let plan = Plan::new(machine.free_bytes()).unwrap_or_else(|error| stop(&error));
    let cache = machine.take(plan.cache_bytes);
    let packet = machine.take(plan.packet_bytes);
    let receive = machine.take(plan.receive_bytes);
    machine.give_rest_to_heap();
    describe(&machine, plan.cache_bytes);
    let params = Params::parse(line).unwrap_or_else(|error| stop(&error));
    for word in &params.ignored {
        say!("command line: {word:?} is left unread");
    }
    tell_unheeded(&params);

    let mut config = ApplianceConfig::default();
    plan.configure(&mut config, params.max_connections);
    config.network = params.network().unwrap_or_else(|error| stop(&error));
    let (dhcp, slaac) = (config.network.dhcp, config.network.slaac);
    let (Some(cache), Some(packet), Some(receive)) = (cache, packet, receive) else {
        stop(&"the memory is in too many pieces");
    };
    let pools = Pools { packet: machine.pool(packet), cache: machine.pool(cache) };
    let receive = machine.pool(receive);
    timeline.mark("memory");

    let stats = Rc::new(Stats::default());
    let secret = machine.seed(line);
    if secret.origin == SecretOrigin::Jitter {
        say!(
            "entropy: the processor has no generator (RDRAND, RDSEED), so secrets are made of timing alone and are weak: who knows \
             this machine well may guess sequence numbers. Give it a processor that has one"
        );
    }
    let (mut world, devices) = match machine.platform {
        Platform::Pc(_) => {
            // The more work lies between beginning and end, the more exact is the clock.
            let devices = virtio::open(&mut machine, &params.virtio_mmio, receive, &stats, &mut timeline);
            (World::new(machine, beginning.settle(), stats.clone()), devices)
        }
        Platform::Xen(_) => {
            let mut world = World::new(machine, beginning.settle(), stats.clone());
            let devices = xen::open(&mut world, receive, &stats, &mut timeline);
            (world, devices)
        }
    };
    say_time(&world);
    let Devices { net, disks, numbers } = devices;
    let boot_disks = boot_disks(&params.disks, &numbers);
    let has_disks = !disks.is_empty();
    let appliance = Appliance::with_pools(config, pools, net, disks, secret.bytes, stats);
    let mut appliance = appliance.unwrap_or_else(|error| stop(&error));
    let total_bytes = world.machine.total_bytes();
    appliance.set_memory_source(Box::new(move || heap::memory_use(total_bytes)));
    appliance.allow_reboot();
    timeline.mark("appliance");
    let mut addresses = Addresses::default();
    addresses.tell(&appliance);
    let asked: Vec<&str> = [(dhcp, "DHCP for IPv4"), (slaac, "router advertisements for IPv6")]
        .into_iter()
        .filter_map(|(is_asked, what)| is_asked.then_some(what))
        .collect();
    if !asked.is_empty() {
        say!("network: more addresses come from {}", asked.join(" and "));
    }
    if params.delay_s > 0 {
        say!("start-up delay: {} s", params.delay_s);
        world.pause(params.delay_s);
        timeline.mark("start-up delay");
    }
    if has_disks {
        appliance.mount_from(&boot_disks);
        mount(&mut appliance, &mut world, &numbers);
        timeline.mark("file system mount time");
    }
    info!("MiniCache {} is up and running", env!("CARGO_PKG_VERSION"));
    say!("*** MiniCache is up and running ***");
    timeline.print(world.timer());
    if params.prefetch {
        appliance.prefetch();
    }
    serve(&mut appliance, &mut world, addresses)
}

/// Nothing can be done with what we were given: says why, and stops.
fn stop(why: &dyn Display) -> ! {
    panic!("{why}")
}

fn describe(machine: &Machine, cache_bytes: u64) {
    let processor = machine::processor_name();
    let features = machine.features;
    say!(
        "processor: {} on {}{}{}",
        core::str::from_utf8(&processor).unwrap_or_default().trim_matches(['\0', ' ']),
        machine.hypervisor.name(),
        if features.avx { ", AVX" } else { "" },
        if features.rdrand || features.rdseed { ", random generator" } else { "" }
    );
    say!("memory: {} KiB, of which the cache has {}", machine.total_bytes() >> 10, cache_bytes >> 10);
}

/// Names what is understood, but heeded by nothing here.
fn tell_unheeded(params: &Params) {
    if params.stats_disk.is_some() {
        say!("command line: this kernel exports no statistics, so -x is not heeded");
    }
}

fn say_time(world: &World) {
    let origin = match world.timer().origin() {
        FrequencyOrigin::Said => "says the hypervisor",
        FrequencyOrigin::Measured => "as measured so far",
        FrequencyOrigin::Assumed => "which is a guess: no timer is there to compare with",
    };
    say!("clock: {} MHz, {origin}", world.timer().frequency_hz() / 1_000_000);
}

/// The places among all disks of those with these numbers.
fn boot_disks(wanted: &[u32], numbers: &[u32]) -> Vec<usize> {
    let place = |wanted: &u32| match numbers.iter().position(|number| number == wanted) {
        Some(place) => place,
        None => {
            stop(&format_args!("-b {wanted}: there is no such disk; those that there are have the numbers {numbers:?}"))
        }
    };
    wanted.iter().map(place).collect()
}

/// Waits for the first mount, and says what came of it. The disks have these numbers.
fn mount(appliance: &mut Appliance<Net, Disk>, world: &mut World, numbers: &[u32]) {
    while !appliance.is_stopped() {
        turn(appliance, world);
        match appliance.mount_result() {
            None => {}
            Some(Ok(())) => {
                if let Some(volume) = appliance.volume() {
                    say!("volume: {:?}, {} objects", volume.name, volume.directory.len());
                    for skipped in &volume.skipped_disks {
                        say!("disk {}: left out: {}", numbers[skipped.disk], skipped.reason);
                    }
                }
                return;
            }
            Some(Err(error)) => {
                say!("volume: nothing is served: {error}");
                return;
            }
        }
    }
}

fn turn(appliance: &mut Appliance<Net, Disk>, world: &mut World) {
    let Ok(()) = appliance.turn(world);
    if let Some(power) = world.take_wanted() {
        info!("the toolstack wants the machine to end");
        // A machine of its own can do both.
        let _ = appliance.power(power);
    }
}

/// The addresses that the console knows of.
#[derive(Default)]
struct Addresses(Vec<IpCidr>);

impl Addresses {
    /// Tells what has come and what has gone.
    fn tell(&mut self, appliance: &Appliance<Net, Disk>) {
        let now = appliance.network().addresses();
        if now == self.0 {
            return;
        }
        for gone in self.0.iter().filter(|address| !now.contains(address)) {
            say!("address: {gone} is not ours any more");
        }
        for new in now.iter().filter(|address| !self.0.contains(address)) {
            say!("address: {new}");
        }
        self.0.clear();
        self.0.extend_from_slice(now);
    }
}

/// Serves until somebody has the machine halt or start anew.
fn serve(appliance: &mut Appliance<Net, Disk>, world: &mut World, mut addresses: Addresses) -> ! {
    while !appliance.is_stopped() {
        turn(appliance, world);
        addresses.tell(appliance);
        match appliance.mount_result() {
            Some(Ok(())) => say!("volume: mounted anew"),
            Some(Err(error)) => say!("volume: can't be mounted anew: {error}"),
            None => {}
        }
    }
    match appliance.power_request() {
        Some(Power::Reboot) => {
            say!("*** MiniCache starts anew ***");
            world.machine.reboot()
        }
        _ => {
            say!("*** MiniCache halts ***");
            world.machine.off()
        }
    }
}
