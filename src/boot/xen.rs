//! The devices of a Xen guest, found through the store.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::console::say;
use super::control::Control;
use super::devices::{Awaited, Connecting, Devices, Disk, Net, describe_disk, describe_net};
use super::machine::Platform;
use super::timeline::Timeline;
use super::vbd_name::VbdName;
use super::world::World;
use crate::rings::xen::{DeviceKind, Found, Store, Xen, XenBlk, XenError, XenNet, devices};
use crate::rings::{BlockDevice, BlockEvent, NetEvent, NetQueue, PagePool};
use crate::stats::Stats;

/// How long back ends are waited for in silence, in microseconds, and how long at all: what comes later still works.
const SILENCE_US: u64 = 2_000_000;
const LIMIT_US: u64 = 30_000_000;

/// Finds the devices and starts the drivers. The first network interface is ours, and all disks are. Received frames land in pages
/// of `receive`.
pub fn open(world: &mut World, receive: PagePool, stats: &Rc<Stats>, timeline: &mut Timeline) -> Devices {
    let Some(xen) = meet(world, stats) else {
        say!("xenstore: there is none, so there are no devices: have a toolstack such as xl create the domain");
        return Devices::default();
    };
    // The toolstack is heard whatever becomes of the devices.
    world.set_control(Control::new(xen.store().clone()));
    let found = talk(world, xen.store(), list(xen.store()));
    timeline.mark("device detection");
    let (nets, blocks) = match found {
        Some(Ok(found)) => found,
        Some(Err(error)) => {
            say!("{error}; so there are no devices");
            return Devices::default();
        }
        None => {
            say!("xenstore: no answer within {} s, so there are no devices", LIMIT_US / 1_000_000);
            return Devices::default();
        }
    };
    let net = begin_net(&xen, nets, receive, stats);
    let disks = begin_disks(&xen, blocks, stats);
    connect(world, &xen, net, disks, timeline)
}

/// Xen, if there is a store.
fn meet(world: &mut World, stats: &Rc<Stats>) -> Option<Xen> {
    let Platform::Xen(guest) = &mut world.machine.platform else { return None };
    let store = guest.take_store()?;
    // SAFETY: drivers give up what they have made part of the grant table.
    let calls = Rc::new(unsafe { guest.calls() });
    // SAFETY: the page is the store's, mapped for ever, and was taken, so nobody else has it. All memory lies at its physical address.
    Some(unsafe { Xen::new(calls, store.page, store.port, stats.clone()) })
}

/// The interfaces and the disks.
async fn list(store: &Store) -> Result<(Vec<Found>, Vec<Found>), XenError> {
    Ok((devices(store, DeviceKind::Network).await?, devices(store, DeviceKind::Block).await?))
}

/// Waits for the end of a conversation with the store. `None` if it does not come.
fn talk<T>(world: &mut World, store: &Store, conversation: impl Future<Output = T>) -> Option<T> {
    let mut conversation = pin!(conversation);
    let limit_us = world.now_us() + LIMIT_US;
    loop {
        store.poll();
        if let Poll::Ready(end) = conversation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(end);
        }
        if store.arm() {
            continue;
        }
        if world.now_us() >= limit_us {
            return None;
        }
        world.sleep_until_us(limit_us);
    }
}

type Interface = (Found, Awaited<XenNet, NetEvent>);
type Block = (Found, Awaited<XenBlk, BlockEvent>);

/// Begins to connect the first interface.
fn begin_net(xen: &Xen, found: Vec<Found>, receive: PagePool, stats: &Rc<Stats>) -> Option<Interface> {
    let mut found = found.into_iter();
    let Some(first) = found.next() else {
        say!("network: there is no interface, so nobody can be served: give the domain a vif");
        return None;
    };
    for other in found {
        say!("network: another interface ({}) is left alone", other.path);
    }
    match XenNet::new(xen, &first.path, receive, stats.clone()) {
        Ok(net) => Some((first, Awaited::new(net))),
        Err(error) => {
            say!("network: xen-netfront ({}) can't be used: {error}", first.path);
            None
        }
    }
}

/// Begins to connect the disks.
fn begin_disks(xen: &Xen, found: Vec<Found>, stats: &Rc<Stats>) -> Vec<Block> {
    if found.is_empty() {
        say!("disk: there is none, so there is nothing to serve: give the domain a disk");
    }
    let begin = |found: Found| match XenBlk::new(xen, &found.path, stats.clone()) {
        Ok(disk) => Some((found, Awaited::new(disk))),
        Err(error) => {
            say!("disk {} ({}): can't be used: {error}", found.number, VbdName(found.number));
            None
        }
    };
    found.into_iter().filter_map(begin).collect()
}

/// Waits until all devices work, or as long as anybody may wait, and says what they are.
fn connect(
    world: &mut World,
    xen: &Xen,
    mut net: Option<Interface>,
    mut disks: Vec<Block>,
    timeline: &mut Timeline,
) -> Devices {
    let interfaces = net.iter_mut().map(|(_, device)| device as &mut dyn Connecting);
    let mut all: Vec<&mut dyn Connecting> = interfaces.collect();
    let first = all.len();
    all.extend(disks.iter_mut().map(|(_, device)| device as &mut dyn Connecting));
    let mut patience = Patience::new(world.now_us());
    wait(world, xen.store(), &mut all, first, &mut patience);
    timeline.mark("vif addition");
    let every = all.len();
    wait(world, xen.store(), &mut all, every, &mut patience);
    timeline.mark("vbd open");

    let mut devices = Devices::default();
    if let Some((found, mut device)) = net {
        device.step();
        let (is_up, is_on_its_way) = (device.is_up(), device.is_on_its_way());
        devices.net = Net::Xen(device);
        let name = format_args!("xen-netfront ({})", found.path);
        match is_up {
            true => describe_net(name, &devices.net.capabilities()),
            false => say!("network: {name} {}", lack(is_on_its_way)),
        }
    }
    for (Found { number, .. }, mut device) in disks {
        device.step();
        let (is_up, is_on_its_way) = (device.is_up(), device.is_on_its_way());
        let disk = Disk::Xen(device);
        let name = VbdName(number);
        match is_up {
            true => describe_disk(format_args!("{number} ({name})"), "xen-blkfront", &disk.geometry()),
            false => say!("disk {number} ({name}): xen-blkfront {}", lack(is_on_its_way)),
        }
        devices.disks.push(disk);
        devices.numbers.push(number);
    }
    devices
}

/// What a device that does not work lacks.
fn lack(is_on_its_way: bool) -> &'static str {
    if is_on_its_way { "does not work yet: its back end is not ready" } else { "can't be used" }
}

/// How long back ends are waited for still.
struct Patience {
    limit_us: u64,
    /// Then it is said that they are waited for; once.
    tell_at_us: Option<u64>,
}

impl Patience {
    fn new(now_us: u64) -> Self {
        Self { limit_us: now_us + LIMIT_US, tell_at_us: Some(now_us + SILENCE_US) }
    }

    /// Until when somebody may sleep. `None`: it is over.
    fn next_us(&mut self, now_us: u64) -> Option<u64> {
        if self.tell_at_us.is_some_and(|tell_at_us| tell_at_us <= now_us) {
            self.tell_at_us = None;
            say!("devices: not all back ends are ready; they are waited for, at most {} s", LIMIT_US / 1_000_000);
        }
        (now_us < self.limit_us).then(|| self.tell_at_us.unwrap_or(self.limit_us))
    }
}

/// Waits until the first so many of all devices are not on their way any more.
fn wait(world: &mut World, store: &Store, all: &mut [&mut dyn Connecting], count: usize, patience: &mut Patience) {
    loop {
        store.poll();
        all.iter_mut().for_each(|device| device.step());
        if !all[..count].iter().any(|device| device.is_on_its_way()) {
            return;
        }
        // None takes a step from here on: what one takes from the store may be another's. Those that work would ask not to sleep until
        // somebody takes what they say.
        let waiting = all.iter_mut().filter(|device| device.is_on_its_way());
        if waiting.fold(store.arm(), |is_awake, device| device.arm() || is_awake) {
            continue;
        }
        let Some(until_us) = patience.next_us(world.now_us()) else { return };
        world.sleep_until_us(until_us);
    }
}
