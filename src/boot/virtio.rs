//! The devices of a PC: virtio's.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::console::say;
use super::devices::{Devices, Disk, Net, describe_disk, describe_net};
use super::machine::Machine;
use super::timeline::Timeline;
use crate::params::VirtioMmio;
use crate::rings::virtio::{DeviceKind, Found, VirtioBlk, VirtioNet};
use crate::rings::{BlockDevice, NetQueue, PagePool};
use crate::stats::Stats;

/// Finds the devices and starts the drivers. The first network interface is ours, and all disks are. `named` are the devices that
/// the command line knows of; received frames land in pages of `receive`.
pub fn open(
    machine: &mut Machine,
    named: &[VirtioMmio],
    receive: PagePool,
    stats: &Rc<Stats>,
    timeline: &mut Timeline,
) -> Devices {
    let found = machine.find_virtio(named);
    timeline.mark("device detection");
    let mut devices = Devices::default();
    let (nets, blocks): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|device| device.kind == DeviceKind::Network);
    for Found { place, transport, .. } in nets {
        if matches!(devices.net, Net::Virtio(_)) {
            say!("network: another interface ({place}) is left alone");
            continue;
        }
        match VirtioNet::new(transport, 0, receive.clone(), stats.clone()) {
            Ok(interface) => {
                describe_net(format_args!("virtio-net ({place})"), &interface.capabilities());
                devices.net = Net::Virtio(interface);
            }
            Err(error) => say!("network: virtio-net ({place}) can't be used: {error}"),
        }
    }
    if matches!(devices.net, Net::Absent) {
        say!("network: there is no interface, so nobody can be served: give the machine a virtio-net device");
    }
    timeline.mark("vif addition");
    for Found { place, transport, .. } in blocks {
        match VirtioBlk::new(transport, 0, stats.clone()) {
            Ok(disk) => {
                let number = devices.disks.len() as u32;
                describe_disk(number, format_args!("virtio-blk ({place})"), &disk.geometry());
                devices.disks.push(Disk::Virtio(disk));
                devices.numbers.push(number);
            }
            Err(error) => say!("disk: virtio-blk ({place}) can't be used: {error}"),
        }
    }
    if devices.disks.is_empty() {
        say!("disk: there is none, so there is nothing to serve: give the machine a virtio-blk device");
    }
    timeline.mark("vbd open");
    devices
}
