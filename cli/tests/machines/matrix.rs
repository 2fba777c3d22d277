//! Machines × transports × networks × disks × offloads: every pair that can be, and every offload switched off alone.

use std::sync::OnceLock;
use std::time::Duration;

use testbed::qemu::{Disk, Guest, Machine, Offload, Transport};

use crate::pairwise::{Row, cover};
use crate::site::Site;
use crate::world::{World, kernel, namespace};

/// Factors before the offloads: machine, transport, network, disks.
const OFFLOADS_AT: usize = 4;

/// A combination.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Combination {
    machine: Machine,
    transport: Transport,
    /// A TAP interface, or QEMU's own network.
    tap: bool,
    /// A volume of three disks, or of one.
    three_disks: bool,
    switched_off: Vec<Offload>,
}

impl Combination {
    fn of(row: &Row) -> Self {
        let off = Offload::ALL.into_iter().zip(&row[OFFLOADS_AT..]).filter(|(_, value)| **value == 1);
        Self {
            machine: Machine::ALL[row[0]],
            transport: Transport::ALL[row[1]],
            tap: row[2] == 1,
            three_disks: row[3] == 1,
            switched_off: off.map(|(offload, _)| offload).collect(),
        }
    }

    fn has(&self, offload: Offload) -> bool {
        !self.switched_off.contains(&offload)
    }

    /// The device does all that would else be done with the bytes of bodies.
    fn copies_nothing(&self) -> bool {
        self.tap
            && [Offload::Checksum, Offload::HostTso4, Offload::HostTso6].into_iter().all(|offload| self.has(offload))
    }
}

/// The combinations to boot.
fn combinations() -> &'static [Combination] {
    static ALL: OnceLock<Vec<Combination>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut sizes = vec![Machine::ALL.len(), Transport::ALL.len(), 2, 2];
        sizes.extend(Offload::ALL.map(|_| 2));
        // On a TAP interface, which has them all: every offload off alone, and none.
        let mut given = vec![vec![None, None, Some(1), None]; Offload::ALL.len() + 1];
        for (number, row) in given.iter_mut().enumerate() {
            row.extend((0..Offload::ALL.len()).map(|offload| Some(usize::from(offload == number))));
        }
        let is_valid = |row: &[Option<usize>]| match (row[0], row[1]) {
            (Some(machine), Some(transport)) => Machine::ALL[machine].takes(Transport::ALL[transport]),
            _ => true,
        };
        cover(&sizes, &given, is_valid).iter().map(Combination::of).collect()
    })
}

fn boot(number: usize) {
    let (Some(kernel), Some(combination)) = (kernel(), combinations().get(number)) else { return };
    println!("{combination:?}");
    let namespace = if combination.tap { namespace() } else { None };
    if combination.tap && namespace.is_none() {
        return;
    }
    let site = Site::new(true);
    let images = if combination.three_disks { site.members() } else { vec![site.image()] };
    let mut guest = Guest::new(&kernel);
    guest.machine = combination.machine;
    guest.transport = combination.transport;
    guest.switched_off = combination.switched_off.clone();
    guest.disks = images.iter().map(Disk::read_only).collect();
    guest.limit = Duration::from_secs(120);

    let world = World::serve(guest, namespace.as_ref());
    world.check(world.ping());
    // From the disk, one at a time; then from the cache, some at once.
    world.check(world.compare(&site, &world.url(), 1));
    world.check(world.compare(&site, &world.url_v6().unwrap_or(world.url()), 8));
    let copied_bytes = world.check(world.counter("copied_bytes"));
    world.assert(!combination.copies_nothing() || copied_bytes == 0, &format!("{copied_bytes} bytes were copied"));
    world.halt();
}

macro_rules! boots {
    ($($name:ident $number:literal)*) => {
        /// How many of the functions below there are.
        const BOOTS: usize = [$($number),*].len();

        $(
            #[test]
            fn $name() {
                boot($number);
            }
        )*
    };
}

boots! {
    boot_00 0 boot_01 1 boot_02 2 boot_03 3 boot_04 4 boot_05 5 boot_06 6 boot_07 7 boot_08 8 boot_09 9
    boot_10 10 boot_11 11 boot_12 12 boot_13 13 boot_14 14 boot_15 15

}

#[test]
fn every_combination_is_booted() {
    let combinations = combinations();
    assert_eq!(combinations.len(), BOOTS, "add or remove functions above: {combinations:#?}");
    const { assert!(BOOTS <= 30, "they take their time") };
    for offload in Offload::ALL {
        let alone = |combination: &&Combination| combination.tap && combination.switched_off == [offload];
        assert!(combinations.iter().any(|combination| alone(&combination)), "{offload:?}");
    }
    for machine in Machine::ALL {
        for transport in Transport::ALL {
            let met = combinations.iter().any(|c| c.machine == machine && c.transport == transport);
            assert_eq!(met, machine.takes(transport), "{machine:?} {transport:?}");
        }
    }
}
