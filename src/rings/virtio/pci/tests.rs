//! Configuration spaces as hypervisors make them, and as nobody should.

use super::*;
use crate::rings::virtio::Transport;
use crate::rings::virtio::transport::QueueAddresses;
use alloc::alloc::{Layout, alloc_zeroed};
use alloc::collections::BTreeMap;
use alloc::vec;
use core::cell::Cell;
use proptest::prelude::*;

const MESSAGE: MsiMessage = MsiMessage { address: 0x1_fee0_0000, data: 0x31 };

/// Memory that stands in for the BARs: never given back, since transports outlive the test's functions.
struct Bars {
    start: u64,
}

const BARS_BYTES: u64 = 256 << 10;

impl Bars {
    fn new() -> Self {
        let layout = Layout::from_size_align(BARS_BYTES as usize, 64 << 10).unwrap();
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        Self { start: memory.expose_provenance() as u64 }
    }

    fn memory(&self) -> PciMemory {
        let all = self.start..self.start + BARS_BYTES;
        PciMemory { window: all.clone(), mapped: all }
    }

    fn read16(&self, at: u64) -> u16 {
        let place = core::ptr::with_exposed_provenance::<u16>((self.start + at) as usize);
        // SAFETY: it lies within the memory, which is never given back.
        unsafe { place.read_volatile() }
    }

    fn read32(&self, at: u64) -> u32 {
        u32::from(self.read16(at)) | u32::from(self.read16(at + 2)) << 16
    }

    fn write16(&self, at: u64, value: u16) {
        let place = core::ptr::with_exposed_provenance_mut::<u16>((self.start + at) as usize);
        // SAFETY: as above.
        unsafe { place.write_volatile(value) }
    }
}

/// A function: its configuration space, and the sizes of its BARs (two 32-bit halves for a 64-bit one).
#[derive(Clone)]
struct FakeFunction {
    words: [u32; 64],
    masks: [u32; 6],
}

impl FakeFunction {
    fn new(vendor: u16, device: u16) -> Self {
        let mut words = [0; 64];
        words[0] = u32::from(vendor) | u32::from(device) << 16;
        Self { words, masks: [0; 6] }
    }

    /// Adds a 64-bit BAR of `bytes` bytes at `bar`, without an address.
    fn bar(mut self, bar: usize, bytes: u64) -> Self {
        self.masks[bar] = !(bytes as u32 - 1);
        self.masks[bar + 1] = u32::MAX;
        self.words[4 + bar] = 4;
        self
    }

    /// Puts a capability of these words at `place`, the next one at `next`.
    fn capability(mut self, place: u8, next: u8, words: &[u32]) -> Self {
        let place = usize::from(place) / 4;
        self.words[place..place + words.len()].copy_from_slice(words);
        self.words[place] = self.words[place] & !0xff00 | u32::from(next) << 8;
        self.words[1] |= 1 << 20;
        self
    }

    /// A virtio function as QEMU makes it: MSI-X in BAR 0, the rest in BAR 4.
    fn virtio(device: u16) -> Self {
        let block = |kind: u32, offset| [0x09 | 16 << 16 | kind << 24, 4, offset, 0x1000];
        let mut notify = block(2, 0x3000).to_vec();
        notify[0] = 0x09 | 20 << 16 | 2 << 24;
        notify.push(4);
        let mut function = Self::new(0x1af4, device)
            .bar(0, 0x1000)
            .bar(4, 0x4000)
            .capability(0x98, 0x84, &[0x11 | 2 << 16, 0x800, 0])
            .capability(0x84, 0x70, &[0x09 | 20 << 16 | 5 << 24, 0, 0, 0, 0])
            .capability(0x70, 0x60, &notify[..4])
            .capability(0x60, 0x50, &block(4, 0x2000))
            .capability(0x50, 0x40, &block(3, 0x1000))
            .capability(0x40, 0, &block(1, 0));
        // The notify capability is longer than the others: it moves to where there is room.
        function = function.capability(0x84, 0xb0, &[0x09 | 20 << 16 | 5 << 24, 0, 0, 0, 0]);
        function = function.capability(0xb0, 0x60, &notify);
        function.words[13] = 0x98;
        function
    }
}

/// A machine's configuration spaces.
#[derive(Default)]
struct Machine(BTreeMap<(u8, u8, u8), FakeFunction>);

impl Machine {
    fn with(mut self, at: (u8, u8, u8), function: FakeFunction) -> Self {
        self.0.insert(at, function);
        self
    }

    fn command(&self, at: (u8, u8, u8)) -> u32 {
        self.0[&at].words[1] & 0xffff
    }
}

impl PciConfig for Machine {
    fn read32(&mut self, function: PciFunction, offset: u8) -> u32 {
        let at = (function.bus, function.device, function.function);
        self.0.get(&at).map_or(u32::MAX, |function| function.words[usize::from(offset) / 4])
    }

    fn write32(&mut self, function: PciFunction, offset: u8, value: u32) {
        let at = (function.bus, function.device, function.function);
        let Some(function) = self.0.get_mut(&at) else { return };
        match usize::from(offset) / 4 {
            1 => function.words[1] = function.words[1] & !0xffff | value & 0xffff,
            word @ 4..10 => {
                assert_eq!(function.words[1] & 2, 0, "BARs change while the function answers at them");
                let flags = if function.words[word] & 1 != 0 { 3 } else { 15 };
                let is_high = word > 4 && function.words[word - 1] & 7 == 4 && function.masks[word - 5] != 0;
                let fixed = if is_high { 0 } else { function.words[word] & flags };
                function.words[word] = value & function.masks[word - 4] | fixed;
            }
            word => function.words[word] = value,
        }
    }
}

fn probe(machine: &mut Machine, memory: &PciMemory) -> Vec<Result<Found, (PciFunction, PciError)>> {
    // SAFETY: `mapped` is memory of the test's own, or empty.
    unsafe { probe_pci(machine, memory, MESSAGE) }
}

#[test]
fn a_function_without_addresses_gets_some_and_works() {
    let bars = Bars::new();
    let mut machine = Machine::default()
        .with((0, 0, 0), FakeFunction::new(0x8086, 0x1234))
        .with((0, 2, 0), FakeFunction::virtio(0x1041))
        .with((0, 3, 0), FakeFunction::virtio(0x1044))
        .with((0, 4, 0), FakeFunction::virtio(0x1042));
    bars.write16(0x4000 + 0x18, 256);
    bars.write16(0x4000 + 0x1e, 3);
    let mut found = probe(&mut machine, &bars.memory());
    let kinds: Vec<_> = found.iter().flatten().map(|found| (found.kind, found.place)).collect();
    let place = |device| Place::Pci(PciFunction { bus: 0, device, function: 0 });
    assert_eq!(kinds, [(DeviceKind::Network, place(2)), (DeviceKind::Block, place(4))]);
    // BAR 0 (MSI-X) at the window's start, BAR 4 at the next multiple of its size.
    let function = &machine.0[&(0, 2, 0)];
    assert_eq!(function.words[4] & !15, bars.start as u32);
    assert_eq!(u64::from(function.words[9]) << 32 | u64::from(function.words[8] & !15), bars.start + 0x4000);
    assert_eq!(machine.command((0, 2, 0)), 6, "answers at its memory BARs and is bus master");
    assert_eq!(machine.command((0, 0, 0)), 0, "others are left alone");
    assert_eq!(function.words[0x98 / 4] >> 30, 2, "MSI-X enabled and not masked");
    let entry = [0, 4, 8, 12].map(|at| bars.read32(0x800 + at));
    assert_eq!(entry, [0xfee0_0000, 1, 0x31, 0]);

    let Ok(Found { transport, .. }) = &mut found[0] else { panic!() };
    assert_eq!((transport.device_id(), transport.is_legacy(), transport.max_entries(0)), (1, false, 256));
    transport.set_status(11);
    assert_eq!((transport.status(), bars.read16(0x4000 + 0x14) & 0xff), (11, 11));
    let addresses = QueueAddresses { entries: 64, descriptors: 1 << 33, available: 2 << 33, used: 3 << 33 };
    transport.set_queue(0, &addresses).unwrap();
    let words = [0x18, 0x1a, 0x1c].map(|at| bars.read16(0x4000 + at));
    assert_eq!(words, [64, 0, 1]);
    assert_eq!([0x24, 0x2c, 0x34].map(|at| bars.read32(0x4000 + at)), [2, 4, 6]);
    transport.notify(0);
    transport.set_queue(1, &addresses).unwrap();
    transport.notify(1);
    assert_eq!(bars.read16(0x7000 + 12), 1, "the offset times the multiplier");
    transport.notify(2);
    bars.write16(0x6000 + 10, 1500);
    assert_eq!((transport.config16(10), transport.config8(0x1000).is_err()), (Ok(1500), true));
    assert!(transport.config32(0xffe).is_err() && transport.config32(usize::MAX).is_err());
    bars.write16(0x4000 + 0x1e, 0x400);
    assert_eq!(
        transport.set_queue(1, &addresses),
        Err(crate::rings::virtio::VirtioError::BadConfiguration("queue_notify_off"))
    );
}

#[test]
fn addresses_that_the_firmware_gave_stay() {
    let bars = Bars::new();
    let mut function = FakeFunction::virtio(0x1041);
    let address = bars.start + 0x2_0000;
    function.words[8] = address as u32 | 4;
    function.words[9] = (address >> 32) as u32;
    function.words[4] = (bars.start + 0x1000) as u32 | 4;
    function.words[5] = (bars.start >> 32) as u32;
    let mut machine = Machine::default().with((0, 5, 0), function.clone());
    let memory = PciMemory { window: 0..0, ..bars.memory() };
    assert!(matches!(probe(&mut machine, &memory)[..], [Ok(_)]));
    let after = &machine.0[&(0, 5, 0)];
    assert_eq!((after.words[4..10].to_vec(), bars.read32(0x1808)), (function.words[4..10].to_vec(), 0x31));
}

#[test]
fn transitional_functions_and_those_behind_bridges_are_found() {
    let bars = Bars::new();
    let mut transitional = FakeFunction::virtio(0x1000);
    transitional.words[11] = 1 << 16;
    let mut balloon = FakeFunction::virtio(0x1002);
    balloon.words[11] = 5 << 16;
    let mut bridge = FakeFunction::new(0x1b36, 1);
    bridge.words[3] = 0x81 << 16;
    bridge.words[6] = 3 << 8;
    let mut disk = FakeFunction::virtio(0x1042);
    disk.words[4] |= bars.start as u32;
    disk.words[5] = (bars.start >> 32) as u32;
    disk.words[8] |= bars.start as u32 + 0x4000;
    disk.words[9] = (bars.start >> 32) as u32;
    let mut machine = Machine::default()
        .with((0, 1, 0), bridge)
        .with((0, 1, 3), transitional)
        .with((0, 6, 0), balloon)
        .with((0, 7, 2), FakeFunction::virtio(0x1041))
        .with((3, 0, 0), disk)
        .with((4, 0, 0), FakeFunction::virtio(0x1042));
    let memory = PciMemory { window: bars.start + 0x1_0000..bars.start + BARS_BYTES, ..bars.memory() };
    let found: Vec<_> = probe(&mut machine, &memory).into_iter().map(|found| found.map(|found| found.place)).collect();
    let place = |bus, device, function| Ok(Place::Pci(PciFunction { bus, device, function }));
    assert_eq!(found, [place(0, 1, 3), place(3, 0, 0)], "function 2 of a device without function 0 is not there");
    // Behind a bridge no address is made up.
    machine.0.get_mut(&(3, 0, 0)).unwrap().words[4] = 4;
    machine.0.get_mut(&(3, 0, 0)).unwrap().words[5] = 0;
    let at = PciFunction { bus: 3, device: 0, function: 0 };
    let found = probe(&mut machine, &memory);
    assert_eq!(found[1].as_ref().err(), Some(&(at, PciError::NoAddress { bar: 0, bytes: 0x1000 })));
}

#[test]
fn what_cannot_be_used_is_reported() {
    let report = |change: fn(&mut FakeFunction)| {
        let bars = Bars::new();
        let mut function = FakeFunction::virtio(0x1042);
        change(&mut function);
        let mut machine = Machine::default().with((0, 9, 0), function);
        probe(&mut machine, &bars.memory()).remove(0).map(|found| found.kind).map_err(|(_, error)| error)
    };
    assert_eq!(report(|_| {}), Ok(DeviceKind::Block));
    assert_eq!(report(|function| function.words[1] = 0), Err(PciError::NoModernInterface));
    assert_eq!(report(|function| function.words[13] = 0x84), Err(PciError::NoMsiX));
    // A list in a circle, and one that leads into the header.
    assert_eq!(report(|function| function.words[0x10] |= 0x9800), Err(PciError::BadCapabilities));
    assert_eq!(report(|function| function.words[0x10] |= 0x3c00), Err(PciError::BadCapabilities));
    // Blocks outside their BAR, in one that is not there, too short.
    assert_eq!(report(|function| function.words[0x10 + 2] = 0x3001), Err(PciError::BadCapabilities));
    assert_eq!(report(|function| function.words[0x10 + 3] = u32::MAX), Err(PciError::BadCapabilities));
    assert_eq!(report(|function| function.words[0x10 + 1] = 2), Err(PciError::BadCapabilities));
    assert_eq!(report(|function| function.words[0x10 + 3] = 0x37), Err(PciError::BadCapabilities));
    assert_eq!(report(|function| function.words[0x10 + 1] = 6), Err(PciError::NoModernInterface));
    // An MSI-X table that does not fit its BAR.
    assert_eq!(report(|function| function.words[0x98 / 4] |= 0x7ff << 16), Err(PciError::BadCapabilities));
    // More than the window has, and a 32-bit BAR in a window of large addresses.
    let huge = report(|function| function.masks[4] = !(0x20_0000 - 1));
    assert_eq!(huge, Err(PciError::NoAddress { bar: 4, bytes: 0x20_0000 }));
    assert_eq!(report(|function| function.words[4] = 0), Err(PciError::NoAddress { bar: 0, bytes: 0x1000 }));
}

/// The ports' side of [`PortConfig`].
struct Ports<'a> {
    machine: &'a mut Machine,
    address: u32,
    reads: &'a Cell<usize>,
}

impl PortIo for Ports<'_> {
    fn read32(&mut self, port: u16) -> u32 {
        assert_eq!((port, self.address >> 31), (0xcfc, 1));
        self.reads.set(self.reads.get() + 1);
        let (at, offset) = self.decode();
        self.machine.read32(at, offset)
    }

    fn write32(&mut self, port: u16, value: u32) {
        if port == 0xcf8 {
            self.address = value;
            return;
        }
        let (at, offset) = self.decode();
        self.machine.write32(at, offset, value);
    }
}

impl Ports<'_> {
    fn decode(&self) -> (PciFunction, u8) {
        let [offset, function, bus, _] = self.address.to_le_bytes();
        (PciFunction { bus, device: function >> 3, function: function & 7 }, offset)
    }
}

#[test]
fn both_ways_to_configuration_space_lead_to_the_same_words() {
    let bars = Bars::new();
    let mut machine = Machine::default().with((0, 30, 0), FakeFunction::virtio(0x1041));
    let reads = Cell::new(0);
    let mut ports = PortConfig(Ports { machine: &mut machine, address: 0, reads: &reads });
    // SAFETY: as in `probe`.
    let found = unsafe { probe_pci(&mut ports, &bars.memory(), MESSAGE) };
    assert!(matches!(found[..], [Ok(_)]) && reads.get() > 32);

    let mut space = vec![0_u32; (2 << 20) / 4];
    space[(1 << 20 | 3 << 15 | 5 << 12 | 0x40) / 4] = 77;
    // SAFETY: the memory outlives the accesses.
    let mut ecam = unsafe { Ecam::new((&raw mut space[0]).expose_provenance(), 4, 5) }.unwrap();
    let at = PciFunction { bus: 5, device: 3, function: 5 };
    assert_eq!(ecam.read32(at, 0x40), 77);
    ecam.write32(at, 0x44, 78);
    assert_eq!((ecam.read32(at, 0x44), ecam.read32(PciFunction { bus: 3, ..at }, 0)), (78, u32::MAX));
    assert_eq!(ecam.read32(PciFunction { bus: 6, ..at }, 0), u32::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_configuration_space_harms(
        changes in prop::collection::vec((0..64_usize, prop_oneof![any::<u32>(), 0..0x200_u32, 0..8_u32]), 0..40),
        masks: [u32; 6],
    ) {
        let bars = Bars::new();
        let mut function = FakeFunction::virtio(0x1041);
        function.masks = masks;
        for (word, value) in changes {
            // What stays makes it interesting: it is virtio.
            if word > 0 {
                function.words[word] = value;
            }
        }
        let mut machine = Machine::default().with((0, 1, 0), function);
        for found in probe(&mut machine, &bars.memory()).iter_mut().flatten() {
            let transport = &mut found.transport;
            transport.set_status(1);
            transport.notify(0);
            let addresses = QueueAddresses { entries: 4, descriptors: 0, available: 0, used: 0 };
            let _ = transport.set_queue(1, &addresses);
            transport.notify(1);
            let _ = (transport.config32(0), transport.acknowledge(), transport.device_features());
        }
    }
}
