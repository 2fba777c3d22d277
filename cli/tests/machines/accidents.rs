//! What a machine can lack, or be told: too little memory, no interface, no disk, disks that fail, nonsense for parameters. It
//! serves what can be served, or says what is wrong and stops; it never hangs.

use std::fs;

use testbed::qemu::{Disk, Guest, Machine, Transport};

use crate::site::Site;
use crate::volumes;
use crate::world::{FAILED, SERVES, World, kernel};

#[test]
fn demofs_is_served_in_16_mib() {
    let Some(kernel) = kernel() else { return };
    let site = Site::new(false);
    let mut guest = Guest::new(&kernel);
    guest.disks = vec![Disk::read_only(site.image())];
    guest.memory_mib = 16;
    let world = World::serve(guest, None);
    world.check(world.compare(&site, &world.url(), 1));
    world.check(world.compare(&site, &world.url(), 8));
    world.halt();
}

#[test]
fn too_little_memory_is_said() {
    let Some(kernel) = kernel() else { return };
    let site = Site::new(false);
    let image = site.image();
    for memory_mib in [4, 6, 8] {
        let mut guest = Guest::new(&kernel);
        guest.disks = vec![Disk::read_only(&image)];
        guest.memory_mib = memory_mib;
        let mut world = World::boot(guest, None, "");
        let status = world.running.wait_for_end();
        let status = world.check(status);
        world.assert(status == FAILED, &format!("{memory_mib} MiB: QEMU's status is {status}"));
        world.assert(world.running.console().contains("MiB"), "it says how much it takes");
    }
}

#[test]
fn a_processor_that_may_execute_data_is_refused() {
    let Some(kernel) = kernel() else { return };
    let mut guest = Guest::new(&kernel);
    guest.processor = "max,-nx".to_owned();
    let mut world = World::boot(guest, None, "");
    world.wait_for("the processor can't forbid to execute data (NX)");
    let status = world.running.wait_for_end();
    let status = world.check(status);
    world.assert(status == FAILED, &format!("QEMU's status is {status}"));
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    let Some(kernel) = kernel() else { return };
    for (parameters, message) in [
        ("-c 0", "invalid number of http connections"),
        ("-Z", "unknown option -Z"),
        ("'", "a quote (') is not closed"),
        ("-i 10.0.2.16/24", "only one IPv4 address"),
        ("-a 1", "invalid static ARP entry"),
        ("\u{1b}[31m", "belongs to no option"),
    ] {
        let mut world = World::boot(Guest::new(&kernel), None, parameters);
        world.wait_for(message);
        let status = world.running.wait_for_end();
        let status = world.check(status);
        world.assert(status == FAILED, &format!("{parameters:?}: QEMU's status is {status}"));
        world.assert(!world.running.console().contains('\u{1b}'), "terminals are spared");
    }
}

#[test]
fn without_an_interface_it_says_so() {
    let Some(kernel) = kernel() else { return };
    let places = [(Machine::MicrovmWithoutAcpi, Transport::MmioModern), (Machine::Q35Qboot, Transport::Pci)];
    for (machine, transport) in places {
        let mut guest = Guest::new(&kernel);
        (guest.machine, guest.transport) = (machine, transport);
        guest.parameters = "-i 10.0.2.15/24".to_owned();
        let mut running = guest.boot().unwrap();
        running.wait_for("there is no interface").unwrap();
        running.wait_for(SERVES).unwrap();
    }
}

/// A machine that has nothing to serve, but can be asked why.
fn serves_nothing(guest: Guest<'_>) {
    let world = World::serve(guest, None);
    let (status, _) = world.get("/");
    world.assert(status == 404 || status == 503, &format!("status {status}"));
    let said = world.check(world.shell().and_then(|mut shell| shell.run("lsbd")));
    world.assert(!said.contains("in use"), &said);
    world.halt();
}

#[test]
fn without_a_disk_there_is_nothing_to_serve() {
    let Some(kernel) = kernel() else { return };
    serves_nothing(Guest::new(&kernel));
}

#[test]
fn disks_without_a_volume_are_not_served() {
    let Some(kernel) = kernel() else { return };
    let site = Site::of(Vec::new());
    let image = |name: &str, bytes: &[u8]| {
        let path = site.path(name);
        fs::write(&path, bytes).unwrap();
        Disk::writable(path)
    };
    let mut guest = Guest::new(&kernel);
    let noise = image("noise", &volumes::noise(1, 1 << 20));
    guest.disks = vec![noise, image("short", &[0; 512]), image("zero", &[0; 1 << 20])];
    serves_nothing(guest);
}

/// A configuration for a disk that fails to read, everywhere or at a sector.
fn faults(site: &Site, sector: Option<usize>) -> std::path::PathBuf {
    let path = site.path("faults");
    let at = sector.map_or(String::new(), |sector| format!("sector = \"{sector}\"\n"));
    fs::write(&path, format!("[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\nonce = \"off\"\n{at}")).unwrap();
    path
}

#[test]
fn a_disk_that_fails_is_not_served() {
    let Some(kernel) = kernel() else { return };
    let site = Site::new(false);
    let mut guest = Guest::new(&kernel);
    guest.disks = vec![Disk::failing(site.image(), faults(&site, None))];
    serves_nothing(guest);
}

#[test]
fn an_object_that_can_not_be_read_is_an_error_and_the_others_are_served() {
    let Some(kernel) = kernel() else { return };
    let mut site = Site::new(false);
    let image = site.image();
    let bytes = fs::read(&image).unwrap();
    let lost = site.objects.remove(site.objects.iter().position(|(name, _)| name == "style.css").unwrap()).1;
    let at = bytes.windows(lost.len()).position(|window| window == lost).expect("the object is in the image");
    for (machine, transport) in
        [(Machine::MicrovmWithoutAcpi, Transport::MmioLegacy), (Machine::Q35Qboot, Transport::Pci)]
    {
        let mut guest = Guest::new(&kernel);
        (guest.machine, guest.transport) = (machine, transport);
        guest.disks = vec![Disk::failing(&image, faults(&site, Some(at / 512)))];
        let world = World::serve(guest, None);
        for _ in 0..2 {
            let (status, _) = world.get("/style.css");
            world.assert(status == 500 || status == 503, &format!("status {status}"));
        }
        world.check(world.compare(&site, &world.url(), 4));
        world.halt();
    }
}

#[test]
fn disks_are_numbered_as_they_were_given() {
    let Some(kernel) = kernel() else { return };
    let [near, far] = ["near", "far"].map(|text| {
        let site = Site::of(vec![("index.html".to_owned(), text.as_bytes().to_vec())]);
        let image = site.image();
        (site, image)
    });
    for (machine, transport) in [
        (Machine::MicrovmWithoutAcpi, Transport::MmioModern),
        (Machine::Microvm, Transport::MmioModern),
        (Machine::MicrovmPcie, Transport::Pci),
        (Machine::Q35Qboot, Transport::Pci),
    ] {
        let mut guest = Guest::new(&kernel);
        (guest.machine, guest.transport) = (machine, transport);
        guest.disks = [&near.1, &far.1].map(Disk::read_only).to_vec();
        let mut world = World::boot(guest, None, "-b 1");
        world.wait_for(SERVES);
        let (status, body) = world.get("/");
        world.assert((status, body.as_slice()) == (200, b"far"), &format!("{machine:?}: {status}"));
        world.halt();
    }
}
