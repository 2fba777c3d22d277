//! What the command line asks for, from the outside: addresses that the network gives, and objects that are read ahead of all
//! requests.

use std::thread::sleep;
use std::time::Duration;

use testbed::qemu::{Disk, Guest, Machine, Transport};

use crate::site::Site;
use crate::world::{SERVES, World, kernel};

#[test]
fn without_an_address_the_network_is_asked() {
    let Some(kernel) = kernel() else { return };
    let site = Site::new(false);
    let image = site.image();
    let places = [(Machine::MicrovmWithoutAcpi, Transport::MmioLegacy), (Machine::Q35Qboot, Transport::Pci)];
    for (machine, transport) in places {
        let mut guest = Guest::new(&kernel);
        (guest.machine, guest.transport) = (machine, transport);
        guest.disks = vec![Disk::read_only(&image)];
        let mut world = World::boot_as_told(guest, "");
        // QEMU's own network has a DHCP server and a router that advertises.
        world.wait_for("address: 10.0.2.15/24");
        world.check(world.compare(&site, &world.url(), 4));
        // It takes a second to find out whether somebody else has it.
        world.wait_for("address: fec0::5054:");
        let said = world.check(world.shell().and_then(|mut shell| shell.run("ifconfig")));
        for part in ["dhcp:10.0.2.15/24 from 10.0.2.2", "gateway:10.0.2.2", "dns:10.0.2.3", "inet addr:fec0::5054:"] {
            world.assert(said.contains(part), &said);
        }
        world.assert(world.check(world.counter("interrupts")) > 0, "something must have woken it");
        world.halt();
    }
}

#[test]
fn everything_can_be_read_before_anybody_asks() {
    let Some(kernel) = kernel() else { return };
    let site = Site::new(true);
    let mut guest = Guest::new(&kernel);
    guest.disks = vec![Disk::read_only(site.image())];
    guest.memory_mib = 256;
    let mut world = World::boot(guest, None, "-P");
    world.wait_for(SERVES);
    let reads = || world.check(world.counter("cache_reads"));
    let (mut before, mut now) = (0, reads());
    while now == 0 || now != before {
        sleep(Duration::from_millis(200));
        (before, now) = (now, reads());
    }
    world.check(world.compare(&site, &world.url(), 8));
    world.assert(reads() == now, "all was there");
    world.halt();
}
