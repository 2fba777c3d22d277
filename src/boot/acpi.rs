//! The few facts that we take from ACPI's tables: interrupt controllers, PCI's configuration space, the power timer, and how
//! the machine is switched off and reset (ACPI 6.5, chapters 5 and 16).
//!
//! Nothing of ACPI's language is run: where it holds something that we want (the value for switching off), its bytes are searched.

use arrayvec::ArrayVec;

use super::start_info::Physical;

/// Most tables that are looked at.
const MAX_TABLES: usize = 64;
/// Longest table that is read, in bytes.
const MAX_TABLE_BYTES: u32 = 1 << 20;
/// Bytes of every table's header.
const HEADER_BYTES: usize = 36;

/// A register, wherever it is (a "generic address").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// At an address of memory.
    Memory(u64),
    /// At a port.
    Port(u16),
}

/// A controller that turns interrupt lines into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicFact {
    /// Address of its registers.
    pub address: u32,
    /// Number of its first line among all.
    pub first_line: u32,
}

/// PCI's configuration space in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciConfigFact {
    /// Where the first bus's is.
    pub address: u64,
    /// The first bus.
    pub first_bus: u8,
    /// The last one.
    pub last_bus: u8,
}

/// The timer of 3.579545 MHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// Its port, 32 bits wide.
    pub port: u16,
    /// It counts with 32 bits, else 24.
    pub is_wide: bool,
}

/// What is written where to switch the machine off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchOff {
    /// A PC: the value in the sleep type field of these 16-bit ports.
    Pm1 {
        /// The first control register's port.
        port_a: u16,
        /// The second one's; 0 if there is none.
        port_b: u16,
        /// The sleep type.
        sleep_type: u8,
    },
    /// A machine without PC hardware: the sleep control register, 8 bits wide.
    SleepControl {
        /// The register.
        register: Register,
        /// The sleep type.
        sleep_type: u8,
    },
}

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acpi {
    /// Interrupt controllers.
    pub io_apics: ArrayVec<IoApicFact, 8>,
    /// PCI's configuration space.
    pub pci_config: Option<PciConfigFact>,
    /// The power timer.
    pub pm_timer: Option<PmTimer>,
    /// How to switch off.
    pub switch_off: Option<SwitchOff>,
    /// How to reset: the register, 8 bits wide, and what to write.
    pub reset: Option<(Register, u8)>,
}

impl Acpi {
    /// Reads the tables behind the root pointer. What is not there or makes no sense is left out.
    pub fn read(memory: &impl Physical, root: u64) -> Self {
        let mut acpi = Self::default();
        let Some(tables) = tables(memory, root) else { return acpi };
        for table in tables {
            match table.get(..4) {
                Some(b"APIC") => acpi.read_interrupt_controllers(table),
                Some(b"MCFG") => acpi.read_pci_config(table),
                Some(b"FACP") => acpi.read_fixed(memory, table),
                _ => {}
            }
        }
        acpi
    }

    fn read_interrupt_controllers(&mut self, table: &[u8]) {
        const FIRST_ENTRY: usize = 44;
        const IO_APIC: u8 = 1;
        let mut rest = table.get(FIRST_ENTRY..).unwrap_or_default();
        while let [kind, bytes, ..] = *rest {
            let Some(entry) = rest.get(..bytes.into()).filter(|entry| entry.len() >= 2) else { return };
            if kind == IO_APIC
                && let (Some(address), Some(first_line)) = (field32(entry, 4), field32(entry, 8))
            {
                // More than there is room for are not needed.
                let _ = self.io_apics.try_push(IoApicFact { address, first_line });
            }
            rest = &rest[entry.len()..];
        }
    }

    fn read_pci_config(&mut self, table: &[u8]) {
        const FIRST_ENTRY: usize = 44;
        let entry = table.get(FIRST_ENTRY..).unwrap_or_default();
        if let (Some(base), Some(&[first_bus, last_bus])) = (field64(entry, 0), entry.get(10..12)) {
            // The base is that of bus 0, whether it is among them or not.
            let address = base.checked_add(u64::from(first_bus) << 20);
            self.pci_config = address.map(|address| PciConfigFact { address, first_bus, last_bus });
        }
    }

    /// The "fixed" table (FADT).
    fn read_fixed(&mut self, memory: &impl Physical, table: &[u8]) {
        const TIMER_IS_WIDE: u32 = 1 << 8;
        const HAS_RESET: u32 = 1 << 10;
        const NO_PC_HARDWARE: u32 = 1 << 20;
        let flags = field32(table, 112).unwrap_or(0);
        if flags & HAS_RESET != 0
            && let (Some(register), Some(value)) = (register(table, 116), table.get(128))
        {
            self.reset = Some((register, *value));
        }
        let description = field64(table, 140).filter(|address| *address != 0);
        let description = description.or_else(|| field32(table, 40).map(u64::from)).unwrap_or(0);
        let description = self::table(memory, description).unwrap_or_default();
        let sleep_type = off_sleep_type(description);
        self.pci_config = self.pci_config.or_else(|| described_pci_config(description));
        if flags & NO_PC_HARDWARE != 0 {
            self.switch_off = register(table, 244)
                .zip(sleep_type)
                .map(|(register, sleep_type)| SwitchOff::SleepControl { register, sleep_type });
            return;
        }
        let port = |offset| field32(table, offset).and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let (port_a, port_b, timer) = (port(64), port(68), port(76));
        self.switch_off =
            sleep_type.filter(|_| port_a != 0).map(|sleep_type| SwitchOff::Pm1 { port_a, port_b, sleep_type });
        self.pm_timer = (timer != 0).then_some(PmTimer { port: timer, is_wide: flags & TIMER_IS_WIDE != 0 });
    }
}

fn field32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn field64(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

/// A generic address (ACPI 6.5, 5.2.3.2); `None` for none and for kinds of registers that we don't reach.
fn register(table: &[u8], offset: usize) -> Option<Register> {
    const MEMORY: u8 = 0;
    const PORT: u8 = 1;
    let address = field64(table, offset + 4).filter(|address| *address != 0)?;
    match *table.get(offset)? {
        MEMORY => Some(Register::Memory(address)),
        PORT => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    }
}

fn is_sound(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) == 0
}

/// The table at this address with its header, if its length and checksum are right.
fn table<M: Physical>(memory: &M, address: u64) -> Option<&[u8]> {
    let header = memory.bytes(address, HEADER_BYTES)?;
    let bytes = field32(header, 4).filter(|bytes| (HEADER_BYTES as u32..=MAX_TABLE_BYTES).contains(bytes))?;
    memory.bytes(address, bytes as usize).filter(|table| is_sound(table))
}

/// All tables that the root pointer leads to.
fn tables<M: Physical>(memory: &M, root: u64) -> Option<impl Iterator<Item = &[u8]>> {
    const POINTER_BYTES: usize = 20;
    const EXTENDED_POINTER_BYTES: usize = 36;
    let pointer = memory.bytes(root, POINTER_BYTES).filter(|pointer| root != 0 && pointer.starts_with(b"RSD PTR "))?;
    if !is_sound(pointer) {
        return None;
    }
    let extended = (pointer[15] >= 2).then(|| memory.bytes(root, EXTENDED_POINTER_BYTES)).flatten();
    let extended = extended.and_then(|pointer| field64(pointer, 24)).filter(|address| *address != 0);
    let (list, entry_bytes) = match extended {
        Some(address) => (table(memory, address)?, 8),
        None => (table(memory, field32(pointer, 16)?.into())?, 4),
    };
    let entries = list[HEADER_BYTES..].chunks_exact(entry_bytes).take(MAX_TABLES);
    Some(entries.filter_map(|entry| {
        let address = entry.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        table(memory, address)
    }))
}

/// The sleep type that means "off": the first element of the package `_S5` in the machine's description (ACPI 6.5, 7.4.2 and
/// 20.2).
fn off_sleep_type(description: &[u8]) -> Option<u8> {
    const NAME_OP: u8 = 0x08;
    const PACKAGE_OP: u8 = 0x12;
    const BYTE_PREFIX: u8 = 0x0a;
    const ROOT: u8 = b'\\';
    for place in memchr::memmem::find_iter(description, b"_S5_") {
        let before = &description[..place];
        let before = before.strip_suffix(&[ROOT]).unwrap_or(before);
        let Some([PACKAGE_OP, rest @ ..]) = description.get(place + 4..).filter(|_| before.ends_with(&[NAME_OP]))
        else {
            continue;
        };
        // The package's length says in its two upper bits how many more bytes it has itself; then the number of elements.
        let length_bytes = 1 + usize::from(rest.first()? >> 6);
        return match *rest.get(length_bytes + 1..)? {
            [BYTE_PREFIX, value, ..] => Some(value),
            [value @ (0 | 1), ..] => Some(value),
            _ => None,
        };
    }
    None
}

/// PCI's configuration space where only the host bridge tells its address: the method `_CBA`, if it does no more than to return
/// a number (PCI firmware specification 3.2, 4.1.3; QEMU's microvm has no MCFG).
fn described_pci_config(description: &[u8]) -> Option<PciConfigFact> {
    const RETURN_OP: u8 = 0xa4;
    const DWORD_PREFIX: u8 = 0x0c;
    const QWORD_PREFIX: u8 = 0x0e;
    memchr::memmem::find_iter(description, b"_CBA").find_map(|place| {
        // Behind the name come the method's flags.
        let code = description.get(place + 5..)?;
        let address = match *code.get(..2)? {
            [RETURN_OP, DWORD_PREFIX] => field32(code, 2)?.into(),
            [RETURN_OP, QWORD_PREFIX] => field64(code, 2)?,
            _ => return None,
        };
        Some(PciConfigFact { address, first_bus: 0, last_bus: u8::MAX })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Pieces of memory by their addresses.
    #[derive(Clone, Default)]
    struct Memory(BTreeMap<u64, Vec<u8>>);

    impl Physical for Memory {
        fn bytes(&self, address: u64, count: usize) -> Option<&[u8]> {
            let (start, piece) = self.0.range(..=address).next_back()?;
            let offset = (address - start) as usize;
            piece.get(offset..offset.checked_add(count)?)
        }
    }

    fn with_sum(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
        bytes
    }

    impl Memory {
        fn add_table(&mut self, address: u64, signature: &[u8; 4], body: &[u8]) {
            let mut table = vec![0; HEADER_BYTES];
            table[..4].copy_from_slice(signature);
            table.extend_from_slice(body);
            let bytes = table.len() as u32;
            table[4..8].copy_from_slice(&bytes.to_le_bytes());
            self.0.insert(address, with_sum(table, 9));
        }
    }

    const ROOT: u64 = 0xf_0000;

    /// A table's body with these bytes at these offsets of the table.
    fn body(bytes: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut body = vec![0; bytes - HEADER_BYTES];
        for (offset, field) in fields {
            body[offset - HEADER_BYTES..offset - HEADER_BYTES + field.len()].copy_from_slice(field);
        }
        body
    }

    fn machine(fixed: &[u8], description: &[u8]) -> Memory {
        let mut memory = Memory::default();
        let mut pointer = b"RSD PTR \0......\x02".to_vec();
        pointer[9..15].fill(0);
        pointer.truncate(16);
        pointer[15] = 2;
        pointer.extend_from_slice(&[0; 20]);
        pointer[24..32].copy_from_slice(&0x1000_u64.to_le_bytes());
        let first = with_sum(pointer[..20].to_vec(), 8);
        pointer[..20].copy_from_slice(&first);
        memory.0.insert(ROOT, pointer);
        let list: Vec<u8> = [0x2000_u64, 0x3000, 0x4000, 0xdead_beef].iter().flat_map(|a| a.to_le_bytes()).collect();
        memory.add_table(0x1000, b"XSDT", &list);
        let mut controllers = vec![0; 8];
        controllers.extend_from_slice(&[0, 8, 0, 0, 1, 0, 0, 0]);
        controllers.extend_from_slice(&[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        controllers.extend_from_slice(&[1, 12, 1, 0, 0, 0, 0xc1, 0xfe, 24, 0, 0, 0]);
        memory.add_table(0x2000, b"APIC", &controllers);
        memory.add_table(0x3000, b"MCFG", &body(60, &[(44, &0xb000_0000_u64.to_le_bytes()), (54, &[2, 255])]));
        memory.add_table(0x4000, b"FACP", fixed);
        memory.add_table(0x5000, b"DSDT", description);
        memory
    }

    /// `Name (_S5, Package (4) {5, 5, 0, 0})` after something that looks like it.
    const DESCRIPTION: &[u8] = b"x_S5_\x12\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00";

    #[test]
    fn a_pc_tells_its_ports() {
        let fixed = body(
            276,
            &[
                (40, &0x5000_u32.to_le_bytes()),
                (64, &0x604_u32.to_le_bytes()),
                (76, &0x608_u32.to_le_bytes()),
                (112, &(1_u32 << 10).to_le_bytes()),
                (116, &[1, 8, 0, 1, 0xf9, 0x0c]),
                (128, &[15]),
            ],
        );
        let acpi = Acpi::read(&machine(&fixed, DESCRIPTION), ROOT);
        let controllers = [(0xfec0_0000, 0), (0xfec1_0000, 24)];
        let controllers = controllers.map(|(address, first_line)| IoApicFact { address, first_line });
        assert_eq!(acpi.io_apics.as_slice(), controllers);
        let config = PciConfigFact { address: 0xb020_0000, first_bus: 2, last_bus: 255 };
        assert_eq!(acpi.pci_config, Some(config));
        assert_eq!(acpi.pm_timer, Some(PmTimer { port: 0x608, is_wide: false }));
        assert_eq!(acpi.switch_off, Some(SwitchOff::Pm1 { port_a: 0x604, port_b: 0, sleep_type: 5 }));
        assert_eq!(acpi.reset, Some((Register::Port(0xcf9), 15)));
    }

    #[test]
    fn a_machine_without_pc_hardware_tells_its_registers() {
        let fixed = body(
            276,
            &[
                (40, &0x5000_u32.to_le_bytes()),
                (112, &(1_u32 << 10 | 1 << 20).to_le_bytes()),
                (116, &[0, 8, 0, 1, 0x00, 0x10, 0xe0, 0xfe]),
                (128, &[0x42]),
                (244, &[0, 8, 0, 1, 0x00, 0x20, 0xe0, 0xfe]),
            ],
        );
        let acpi = Acpi::read(&machine(&fixed, b"\x08\\_S5_\x12\x06\x04\x01\x00\x00\x00"), ROOT);
        assert_eq!(acpi.pm_timer, None);
        let off = SwitchOff::SleepControl { register: Register::Memory(0xfee0_2000), sleep_type: 1 };
        assert_eq!(acpi.switch_off, Some(off));
        assert_eq!(acpi.reset, Some((Register::Memory(0xfee0_1000), 0x42)));
    }

    #[test]
    fn a_host_bridge_may_tell_where_configuration_space_is() {
        let mut description = b"\x08_CBA\x00.\x14\x0b_CBA\x00\xa4\x0c\x00\x00\x00\xe0".to_vec();
        let expected = PciConfigFact { address: 0xe000_0000, first_bus: 0, last_bus: 255 };
        assert_eq!(described_pci_config(&description), Some(expected));
        description.pop();
        assert_eq!(described_pci_config(&description), None);
    }

    #[test]
    fn nothing_is_taken_from_damaged_tables() {
        let mut memory = machine(&body(276, &[(64, &[4, 6])]), DESCRIPTION);
        memory.0.get_mut(&0x2000).unwrap()[50] ^= 1;
        assert!(Acpi::read(&memory, ROOT).io_apics.is_empty());
        memory.0.get_mut(&ROOT).unwrap()[3] ^= 1;
        assert_eq!(Acpi::read(&memory, ROOT), Acpi::default());
        assert_eq!(Acpi::read(&memory, 0), Acpi::default());
    }

    proptest! {
        /// Whatever the bytes are, reading ends, and does not panic.
        #[test]
        fn any_bytes_are_read(
            fixed in proptest::collection::vec(any::<u8>(), 0..300),
            mut controllers in proptest::collection::vec(any::<u8>(), 0..60),
            description in proptest::collection::vec(any::<u8>(), 0..12),
            cut in 0_usize..60,
        ) {
            let mut memory = machine(&fixed, &[b"\x08_S5_\x12".as_slice(), &description].concat());
            memory.add_table(0x2000, b"APIC", &controllers);
            controllers.truncate(cut);
            memory.add_table(0x3000, b"MCFG", &controllers);
            Acpi::read(&memory, ROOT);
        }
    }
}
