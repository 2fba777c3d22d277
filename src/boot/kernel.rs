//! The kernel's main: the command line, the devices, the appliance, and the event loop for as long as the machine runs.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt::Display;
use smoltcp::wire::IpCidr;

use super::console::say;
use super::devices::{Disk, Net};
use super::machine::{self, Beginning, FrequencyOrigin, Hypervisor, Machine, SecretOrigin};
use super::plan::Plan;
use super::timeline::Timeline;
use super::world::World;
use super::{heap, logger};
use crate::appliance::{Appliance, ApplianceConfig, Pools};
use crate::params::Params;
use crate::platform::Power;
use crate::rings::virtio::{DeviceKind, Found, VirtioBlk, VirtioNet};
use crate::rings::{BlockDevice, NetQueue, PagePool};
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
    let found = find(&mut machine, &params);
    timeline.mark("device detection");
    let (net, disks) = open(found, receive, &stats, &mut timeline);
    let secret = machine.seed(line);
    if secret.origin == SecretOrigin::Jitter {
        say!(
            "entropy: the processor has no generator (RDRAND, RDSEED), so secrets are made of timing alone and are weak: who knows \
             this machine well may guess sequence numbers. Give it a processor that has one"
        );
    }
    let boot_disks: Vec<usize> = params.disks.iter().map(|disk| *disk as usize).collect();
    if let Some(missing) = boot_disks.iter().find(|disk| **disk >= disks.len()) {
        stop(&format_args!("-b {missing}: there are {} disks, counted from 0", disks.len()));
    }
    let has_disks = !disks.is_empty();
    let mut world = World::new(machine, beginning.settle(), stats.clone());
    say_time(&world);
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
        mount(&mut appliance, &mut world);
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

/// Finds the devices of whoever runs us.
fn find(machine: &mut Machine, params: &Params) -> Vec<Found> {
    match machine.hypervisor {
        Hypervisor::Xen => {
            say!("Xen's own devices are not supported: there is no network interface and no disk");
            Vec::new()
        }
        _ => machine.find_virtio(&params.virtio_mmio),
    }
}

/// Starts the drivers. The first network interface is ours, and all disks are.
fn open(found: Vec<Found>, receive: PagePool, stats: &Rc<Stats>, timeline: &mut Timeline) -> (Net, Vec<Disk>) {
    let (mut net, mut disks) = (Net::Absent, Vec::new());
    let (nets, blocks): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|device| device.kind == DeviceKind::Network);
    for Found { place, transport, .. } in nets {
        if matches!(net, Net::Virtio(_)) {
            say!("network: another interface ({place}) is left alone");
            continue;
        }
        match VirtioNet::new(transport, 0, receive.clone(), stats.clone()) {
            Ok(interface) => {
                let capabilities = interface.capabilities();
                let m = capabilities.hardware_address;
                say!(
                    "network: virtio-net ({place}) {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}, mtu {}{}{}",
                    m[0],
                    m[1],
                    m[2],
                    m[3],
                    m[4],
                    m[5],
                    capabilities.mtu_bytes,
                    if capabilities.checksum { ", checksums" } else { "" },
                    if capabilities.tso4 || capabilities.tso6 { ", segmentation" } else { "" }
                );
                info!("network: virtio-net ({}) is found", place);
                net = Net::Virtio(interface);
            }
            Err(error) => say!("network: virtio-net ({place}) can't be used: {error}"),
        }
    }
    if matches!(net, Net::Absent) {
        say!("network: there is no interface, so nobody can be served: give the machine a virtio-net device");
    }
    timeline.mark("vif addition");
    for Found { place, transport, .. } in blocks {
        match VirtioBlk::new(transport, 0, stats.clone()) {
            Ok(disk) => {
                let geometry = disk.geometry();
                say!(
                    "disk {}: virtio-blk ({place}) {} KiB{}",
                    disks.len(),
                    geometry.bytes() >> 10,
                    if geometry.read_only { ", read-only" } else { "" }
                );
                info!("disk {}: virtio-blk ({}) is found, {} KiB", disks.len(), place, geometry.bytes() >> 10);
                disks.push(Disk::Virtio(disk));
            }
            Err(error) => say!("disk: virtio-blk ({place}) can't be used: {error}"),
        }
    }
    if disks.is_empty() {
        say!("disk: there is none, so there is nothing to serve: give the machine a virtio-blk device");
    }
    timeline.mark("vbd open");
    (net, disks)
}

/// Waits for the first mount, and says what came of it.
fn mount(appliance: &mut Appliance<Net, Disk>, world: &mut World) {
    loop {
        turn(appliance, world);
        match appliance.mount_result() {
            None => {}
            Some(Ok(())) => {
                if let Some(volume) = appliance.volume() {
                    say!("volume: {:?}, {} objects", volume.name, volume.directory.len());
                    for skipped in &volume.skipped_disks {
                        say!("disk {}: left out: {}", skipped.disk, skipped.reason);
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
