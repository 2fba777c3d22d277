//! Where a PC may have virtio devices.

use alloc::vec::Vec;

use super::cpu::{in32, out32};
use super::paging::{PageTables, Rights};
use super::pc::Pc;
use crate::boot::acpi::PciConfigFact;
use crate::boot::console::say;
use crate::boot::memory_map::Region;
use crate::params::VirtioMmio;
use crate::rings::virtio::{
    Ecam, Found, MsiMessage, PciConfig, PciFunction, PciMemory, PortConfig, PortIo, probe_mmio, probe_pci,
};

/// Where QEMU's microvm has its slots, and how many bytes each has.
const SLOTS: u64 = 0xfeb0_0000;
const SLOT_BYTES: u64 = 512;
/// Most slots that it can have.
const MAX_SLOTS: u32 = 24;
/// The line of its first slot, where it has one I/O APIC, and where it has two.
const FIRST_LINE: u32 = 5;
const FIRST_LINE_OF_SECOND: u32 = 24;

/// Addresses that no PC or microvm of QEMU gives to memory, and where PCI devices may be.
const PCI_HOLE: Region = Region { start: 0x8000_0000, end: 0xfec0_0000 };
/// Where BARs without an address go: the hole's part that QEMU's machines leave to PCI whatever their memory.
const PCI_WINDOW: Region = Region { start: 0xd000_0000, end: 0xe000_0000 };

/// The ports of PCI's first configuration mechanism.
#[derive(Debug)]
struct Ports;

impl PortIo for Ports {
    fn read32(&mut self, port: u16) -> u32 {
        // SAFETY: only configuration space lies behind the ports that this is used for, and its user owns it.
        unsafe { in32(port) }
    }

    fn write32(&mut self, port: u16, value: u32) {
        // SAFETY: as above.
        unsafe { out32(port, value) };
    }
}

/// Looks for all devices, in an order that stays. What can't be used is said on the console.
pub fn find(pc: &Pc, tables: &mut PageTables, named: &[VirtioMmio]) -> Vec<Found> {
    let mut found = Vec::new();
    for device in named {
        if let Some(region) = Region::new(device.address, device.size_bytes) {
            found.extend(probe_slot(pc, tables, region, device.irq));
        }
    }
    let mut ports = PortConfig(Ports);
    let root = PciFunction { bus: 0, device: 0, function: 0 };
    let is_pc = ports.read32(root, 0) != u32::MAX;
    if is_pc {
        find_pci(pc, tables, &mut ports, &mut found);
        return found;
    }
    if named.is_empty() {
        let has_second = pc.lines().any(|lines| lines.start == FIRST_LINE_OF_SECOND);
        let first_line = if has_second { FIRST_LINE_OF_SECOND } else { FIRST_LINE };
        // QEMU fills them from the last one down; so devices are numbered as on its command line.
        for slot in (0..MAX_SLOTS).rev() {
            let start = SLOTS + u64::from(slot) * SLOT_BYTES;
            let region = Region { start, end: start + SLOT_BYTES };
            found.extend(probe_slot(pc, tables, region, first_line + slot));
        }
    }
    if let Some(PciConfigFact { address, first_bus, last_bus }) = pc.acpi.pci_config {
        const BUS_BYTES: u64 = 1 << 20;
        let buses = u64::from(last_bus).saturating_sub(first_bus.into()) + 1;
        let region = Region::new(address, buses * BUS_BYTES);
        if region.is_some_and(|region| tables.map(region, Rights::Device).is_ok()) {
            // SAFETY: mapped just now, and ACPI says that it is configuration space.
            if let Some(mut ecam) = unsafe { Ecam::new(address as usize, first_bus, last_bus) } {
                find_pci(pc, tables, &mut ecam, &mut found);
            }
        }
    }
    found
}

/// Looks into a slot; what is there may interrupt by this line.
fn probe_slot(pc: &Pc, tables: &mut PageTables, region: Region, line: u32) -> Option<Found> {
    tables.map(region, Rights::Device).ok()?;
    // SAFETY: mapped just now, and a virtio slot, as the command line says or where only microvm has something.
    let found = unsafe { probe_mmio(region.start as usize) }?;
    if !pc.route_line(line) {
        say!("{}: left alone, since no interrupt controller has its line {line}", found.place);
        return None;
    }
    Some(found)
}

fn find_pci(pc: &Pc, tables: &mut PageTables, config: &mut dyn PciConfig, found: &mut Vec<Found>) {
    if tables.map(PCI_HOLE, Rights::Device).is_err() {
        return;
    }
    let memory = PciMemory { window: PCI_WINDOW.start..PCI_WINDOW.end, mapped: PCI_HOLE.start..PCI_HOLE.end };
    let (address, data) = pc.interrupt_message();
    // SAFETY: the hole is mapped, and nobody else drives virtio functions. Memory that lies in the hole is mapped as such, and no
    // BAR is there then.
    for device in unsafe { probe_pci(config, &memory, MsiMessage { address, data }) } {
        match device {
            Ok(device) => found.push(device),
            Err((function, error)) => say!("pci {function}: left alone: {error}"),
        }
    }
}
