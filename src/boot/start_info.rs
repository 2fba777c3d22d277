//! What the hypervisor says at the start: PVH's start information (Xen's `hvm/start_info.h`).

use core::fmt;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::memory_map::Region;

/// Longest command line that is read, in bytes.
pub const MAX_COMMAND_LINE_BYTES: usize = 4096;
/// Most entries of a memory map that are read.
pub const MAX_ENTRIES: u32 = 256;
/// Most modules that are looked at.
const MAX_MODULES: u32 = 16;

const MAGIC: u32 = 0x336e_c578;

/// `struct hvm_start_info`. The last two fields are there from version 1 on.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    /// Physical address of ACPI's root pointer; 0 if there is none.
    pub acpi_root: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryMapEntry {
    start: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// `struct hvm_modlist_entry`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Module {
    start: u64,
    bytes: u64,
    command_line: u64,
    reserved: u64,
}

/// Why there is no starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartInfoError {
    /// It is not PVH's.
    Magic(u32),
    /// It has no memory map.
    NoMemoryMap {
        /// Its version.
        version: u32,
    },
    /// It names memory that can't be read.
    Unreadable(u64),
}

impl fmt::Display for StartInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic(magic) => {
                write!(f, "what started us is not PVH (its magic number is {magic:#x}): boot this ELF as a PVH kernel")
            }
            Self::NoMemoryMap { version } => write!(
                f,
                "the PVH start information (version {version}) has no memory map: use a hypervisor that gives version 1"
            ),
            Self::Unreadable(address) => {
                write!(f, "the PVH start information names memory at {address:#x}, which can't be read")
            }
        }
    }
}

impl core::error::Error for StartInfoError {}

/// Reads physical memory: that many bytes from that address on, or `None` if they are not there.
pub trait Physical {
    /// The bytes.
    fn bytes(&self, address: u64, count: usize) -> Option<&[u8]>;

    /// A structure, copied.
    fn read<T: FromBytes>(&self, address: u64) -> Option<T> {
        T::read_from_bytes(self.bytes(address, size_of::<T>())?).ok()
    }
}

impl StartInfo {
    /// Reads and checks it.
    ///
    /// # Errors
    /// If it is not what it should be, or has no memory map.
    pub fn read(memory: &impl Physical, address: u64) -> Result<Self, StartInfoError> {
        let info: Self = memory.read(address).ok_or(StartInfoError::Unreadable(address))?;
        if info.magic != MAGIC {
            return Err(StartInfoError::Magic(info.magic));
        }
        if info.version < 1 || info.memory_map == 0 || info.memory_map_entries == 0 {
            return Err(StartInfoError::NoMemoryMap { version: info.version });
        }
        Ok(info)
    }

    /// Calls `sink` with each piece of memory and whether it is usable as RAM. Entries without size are skipped.
    ///
    /// # Errors
    /// If the map can't be read.
    pub fn memory_map(&self, memory: &impl Physical, mut sink: impl FnMut(Region, bool)) -> Result<(), StartInfoError> {
        const RAM: u32 = 1;
        for number in 0..self.memory_map_entries.min(MAX_ENTRIES) {
            let address = self.memory_map.saturating_add(u64::from(number) * size_of::<MemoryMapEntry>() as u64);
            let entry: MemoryMapEntry = memory.read(address).ok_or(StartInfoError::Unreadable(address))?;
            if let Some(region) = Region::new(entry.start, entry.bytes) {
                sink(region, entry.kind == RAM);
            }
        }
        Ok(())
    }

    /// Calls `sink` with everything that must not be overwritten while it is needed: the start information itself, what it names, and modules.
    pub fn occupied(&self, memory: &impl Physical, address: u64, mut sink: impl FnMut(Region)) {
        let mut tell = |start, bytes| Region::new(start, bytes).into_iter().for_each(&mut sink);
        tell(address, size_of::<Self>() as u64);
        tell(self.memory_map, u64::from(self.memory_map_entries) * size_of::<MemoryMapEntry>() as u64);
        let modules = if self.modules == 0 { 0 } else { self.module_count.min(MAX_MODULES) };
        tell(self.modules, u64::from(modules) * size_of::<Module>() as u64);
        for number in 0..modules {
            let at = self.modules.saturating_add(u64::from(number) * size_of::<Module>() as u64);
            if let Some(module) = memory.read::<Module>(at) {
                tell(module.start, module.bytes);
            }
        }
    }

    /// The command line without its zero, at most [`MAX_COMMAND_LINE_BYTES`] of it; empty if there is none.
    pub fn command_line<'a>(&self, memory: &'a impl Physical) -> &'a [u8] {
        if self.command_line == 0 {
            return &[];
        }
        let whole = memory.bytes(self.command_line, MAX_COMMAND_LINE_BYTES).unwrap_or(&[]);
        &whole[..memchr::memchr(0, whole).unwrap_or(whole.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Memory that begins at 4096.
    struct Memory(Vec<u8>);

    impl Physical for Memory {
        fn bytes(&self, address: u64, count: usize) -> Option<&[u8]> {
            let start = (address as usize).checked_sub(4096)?;
            self.0.get(start..start.checked_add(count)?)
        }
    }

    impl Memory {
        fn put(&mut self, address: u64, bytes: &[u8]) {
            let start = address as usize - 4096;
            self.0[start..start + bytes.len()].copy_from_slice(bytes);
        }

        /// Numbers of 4 and 8 bytes: (bytes, value).
        fn put_numbers(&mut self, mut address: u64, numbers: &[(usize, u64)]) {
            for (size, value) in numbers {
                self.put(address, &value.to_le_bytes()[..*size]);
                address += *size as u64;
            }
        }
    }

    fn example() -> Memory {
        let mut memory = Memory(vec![0; 16384]);
        memory.put_numbers(
            4096,
            &[(4, MAGIC.into()), (4, 1), (4, 0), (4, 1), (8, 5000), (8, 6000), (8, 0xf0000), (8, 7000), (4, 3), (4, 0)],
        );
        memory.put_numbers(5000, &[(8, 0x100_0000), (8, 0x2000), (8, 0), (8, 0)]);
        memory.put(6000, b"-i 10.0.2.15/24\0rest");
        memory.put_numbers(7000, &[(8, 0), (8, 0x9fc00), (4, 1), (4, 0)]);
        memory.put_numbers(7024, &[(8, 0xb000_0000), (8, 0x1000_0000), (4, 2), (4, 0)]);
        memory
    }

    #[test]
    fn everything_is_found() {
        let memory = example();
        let info = StartInfo::read(&memory, 4096).unwrap();
        assert_eq!(info.acpi_root, 0xf0000);
        assert_eq!(info.command_line(&memory), b"-i 10.0.2.15/24");
        let mut map = Vec::new();
        info.memory_map(&memory, |region, is_ram| map.push((region.start, region.end, is_ram))).unwrap();
        assert_eq!(map, [(0, 0x9fc00, true), (0xb000_0000, 0xc000_0000, false)], "the entry of zeros is skipped");
        let mut occupied = Vec::new();
        info.occupied(&memory, 4096, |region| occupied.push((region.start, region.bytes())));
        assert_eq!(occupied, [(4096, 56), (7000, 72), (5000, 32), (0x100_0000, 0x2000)]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut memory = example();
        memory.put_numbers(4100, &[(4, 0)]);
        let error = StartInfo::read(&memory, 4096).unwrap_err();
        assert_eq!(error, StartInfoError::NoMemoryMap { version: 0 });
        memory.put_numbers(4096, &[(4, 7)]);
        assert!(StartInfo::read(&memory, 4096).unwrap_err().to_string().contains("0x7"));
        assert_eq!(StartInfo::read(&memory, 0).unwrap_err(), StartInfoError::Unreadable(0));
    }

    #[test]
    fn addresses_that_lie_are_errors_or_nothing() {
        let mut memory = example();
        let far = u64::MAX - 8;
        memory.put_numbers(4112, &[(8, far), (8, far), (8, 0), (8, far), (4, u64::MAX), (4, 0)]);
        let info = StartInfo::read(&memory, 4096).unwrap();
        assert!(info.command_line(&memory).is_empty());
        assert_eq!(info.memory_map(&memory, |_, _| {}), Err(StartInfoError::Unreadable(far)));
        info.occupied(&memory, 4096, |_| {});
    }
}
