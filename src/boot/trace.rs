//! The trace: the kernel's log messages as defmt frames in a ring in memory, and how one who has a copy of that memory reads it.
//!
//! The ring lies in the kernel's zeroed memory at the symbol [`SYMBOL`]. It is written byte by byte, the oldest bytes are
//! overwritten, and a counter tells how many there have ever been. Frames end with a zero byte and contain none (rzCOBS), so a
//! reader that finds the first one cut off goes on behind the next zero. All numbers are little-endian.

use alloc::vec::Vec;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The ring's symbol in the kernel's ELF. Memory is mapped at its physical address, so its value is that.
pub const SYMBOL: &str = "MINICACHE_TRACE";

/// Bytes of messages that the kernel keeps.
pub const KERNEL_BYTES: usize = 64 << 10;

/// Bytes of the number that the linker gives a build (SHA-1).
pub const BUILD_ID_BYTES: usize = 20;

/// Bytes before those of the messages.
pub const HEADER_BYTES: usize = size_of::<Header>();

/// Most bytes of messages that a ring is believed to have.
pub const MAX_CAPACITY: u32 = 16 << 20;

const MAGIC: u64 = u64::from_le_bytes(*b"MC trace");
const VERSION: u32 = 1;

/// The ring, `BYTES` long: a power of two. Made of atomics since others read it while it is written; there is one writer.
#[repr(C)]
pub struct Ring<const BYTES: usize> {
    magic: AtomicU64,
    version: AtomicU32,
    capacity: AtomicU32,
    written: AtomicU64,
    build_id: [AtomicU8; BUILD_ID_BYTES],
    start: AtomicU32,
    bytes: [AtomicU8; BYTES],
}

/// The same before the messages, as somebody else reads it.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U64,
    version: U32,
    capacity: U32,
    written: U64,
    build_id: [u8; BUILD_ID_BYTES],
    start: U32,
}

const _: () = assert!(HEADER_BYTES == offset_of!(Ring<1>, bytes));

impl<const BYTES: usize> Ring<BYTES> {
    /// A ring that is all zero, and is none until [`Ring::begin`].
    #[expect(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        assert!(BYTES.is_power_of_two() && BYTES <= MAX_CAPACITY as usize);
        Self {
            magic: AtomicU64::new(0),
            version: AtomicU32::new(0),
            capacity: AtomicU32::new(0),
            written: AtomicU64::new(0),
            build_id: [const { AtomicU8::new(0) }; BUILD_ID_BYTES],
            start: AtomicU32::new(0),
            bytes: [const { AtomicU8::new(0) }; BYTES],
        }
    }

    /// Makes it one that can be read, of this build. `start` tells it from those of earlier and later starts.
    pub fn begin(&self, build_id: &[u8; BUILD_ID_BYTES], start: u32) {
        for (byte, value) in self.build_id.iter().zip(build_id) {
            byte.store(*value, Ordering::Relaxed);
        }
        self.start.store(start.to_le(), Ordering::Relaxed);
        self.capacity.store((BYTES as u32).to_le(), Ordering::Relaxed);
        self.version.store(VERSION.to_le(), Ordering::Relaxed);
        self.magic.store(MAGIC.to_le(), Ordering::Release);
    }

    /// Appends bytes.
    pub fn write(&self, bytes: &[u8]) {
        let mut written = u64::from_le(self.written.load(Ordering::Relaxed));
        for byte in bytes {
            self.bytes[written as usize % BYTES].store(*byte, Ordering::Relaxed);
            written = written.wrapping_add(1);
            // Never before the byte is there.
            self.written.store(written.to_le(), Ordering::Release);
        }
    }
}

/// Why memory is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpError {
    /// It ends too early.
    Short {
        /// Its bytes.
        bytes: usize,
        /// The bytes that a ring of this capacity has.
        needed: usize,
    },
    /// It does not begin as a ring does.
    NoTrace,
    /// It is written in another way.
    Version(u32),
    /// No ring has so many bytes.
    Capacity(u32),
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes, needed } => {
                write!(f, "the trace is cut off: there are {bytes} bytes of {needed}; copy all of it")
            }
            Self::NoTrace => f.write_str(
                "there is no trace: either the kernel has not begun yet, or this is not the memory of a kernel of this build",
            ),
            Self::Version(version) => write!(
                f,
                "the trace's format is {version}, and only {VERSION} is known: use the `minicache` that belongs to the kernel"
            ),
            Self::Capacity(bytes) => write!(f, "the trace is damaged: it claims to keep {bytes} bytes of messages"),
        }
    }
}

impl core::error::Error for DumpError {}

/// A copy of a ring, checked.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a> {
    header: Header,
    bytes: &'a [u8],
}

impl<'a> Dump<'a> {
    /// Reads a copy of the memory from the ring's address on; what is behind the ring is left alone.
    ///
    /// # Errors
    /// If it is no ring, or not all of one.
    pub fn parse(memory: &'a [u8]) -> Result<Self, DumpError> {
        let short = |needed| DumpError::Short { bytes: memory.len(), needed };
        let (header, rest) = Header::read_from_prefix(memory).map_err(|_| short(HEADER_BYTES))?;
        if header.magic.get() != MAGIC {
            return Err(DumpError::NoTrace);
        }
        if header.version.get() != VERSION {
            return Err(DumpError::Version(header.version.get()));
        }
        let capacity = header.capacity.get();
        if !capacity.is_power_of_two() || capacity > MAX_CAPACITY {
            return Err(DumpError::Capacity(capacity));
        }
        let bytes = rest.get(..capacity as usize).ok_or(short(HEADER_BYTES + capacity as usize))?;
        Ok(Self { header, bytes })
    }

    /// The build that has written it.
    pub fn build_id(&self) -> [u8; BUILD_ID_BYTES] {
        self.header.build_id
    }

    /// What tells this start of the machine from others.
    pub fn start(&self) -> u32 {
        self.header.start.get()
    }

    /// Bytes that have ever been written: the position behind the latest.
    pub fn written(&self) -> u64 {
        self.header.written.get()
    }

    /// The position of the oldest byte that had not been overwritten when so many were written.
    pub fn oldest(&self, written: u64) -> u64 {
        written.saturating_sub(self.bytes.len() as u64)
    }

    /// The bytes from this position on, which is none that has been overwritten; none if it lies beyond the end.
    pub fn from(&self, position: u64) -> Vec<u8> {
        let first = position.max(self.oldest(self.written()));
        let count = self.written().saturating_sub(first) as usize;
        let (new, old) = self.bytes.split_at((first % self.bytes.len() as u64) as usize);
        old.iter().chain(new).take(count).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    const BUILD: [u8; BUILD_ID_BYTES] = *b"twenty bytes of hash";

    /// The memory of a ring.
    fn image<const BYTES: usize>(ring: &Ring<BYTES>) -> Vec<u8> {
        let mut image = ring.magic.load(Ordering::Relaxed).to_ne_bytes().to_vec();
        image.extend(ring.version.load(Ordering::Relaxed).to_ne_bytes());
        image.extend(ring.capacity.load(Ordering::Relaxed).to_ne_bytes());
        image.extend(ring.written.load(Ordering::Relaxed).to_ne_bytes());
        image.extend(ring.build_id.iter().map(|byte| byte.load(Ordering::Relaxed)));
        image.extend(ring.start.load(Ordering::Relaxed).to_ne_bytes());
        image.extend(ring.bytes.iter().map(|byte| byte.load(Ordering::Relaxed)));
        image
    }

    #[test]
    fn what_is_written_is_read_until_it_is_overwritten() {
        let ring = Box::new(Ring::<16>::new());
        assert_eq!(Dump::parse(&image(&ring)).unwrap_err(), DumpError::NoTrace);
        ring.begin(&BUILD, 7);
        let mut all = Vec::new();
        for round in 0..20_u8 {
            let memory = image(&ring);
            let dump = Dump::parse(&memory).unwrap();
            assert_eq!((dump.build_id(), dump.start(), dump.written()), (BUILD, 7, all.len() as u64));
            let oldest = dump.oldest(dump.written());
            assert_eq!(oldest, all.len().saturating_sub(16) as u64);
            for position in 0..=all.len() {
                let expected = &all[position.max(oldest as usize)..];
                assert_eq!(dump.from(position as u64), expected, "from {position} of {}", all.len());
            }
            assert!(dump.from(dump.written() + 1).is_empty());
            let more: Vec<u8> = (0..round % 7).map(|byte| round * 7 + byte).collect();
            ring.write(&more);
            all.extend(more);
        }
    }

    #[test]
    fn what_is_no_ring_is_refused() {
        let ring = Box::new(Ring::<16>::new());
        ring.begin(&BUILD, 7);
        let whole = image(&ring);
        let with = |at: usize, value: u8| {
            let mut memory = whole.clone();
            memory[at] = value;
            Dump::parse(&memory).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 0), DumpError::NoTrace);
        assert_eq!(with(8, 2), DumpError::Version(2));
        assert_eq!(with(12, 17), DumpError::Capacity(17));
        assert_eq!(with(15, 0x80), DumpError::Capacity(0x8000_0010));
        assert_eq!(with(12, 32), DumpError::Short { bytes: 64, needed: 80 });
        let cut = Dump::parse(&whole[..HEADER_BYTES - 1]).unwrap_err();
        assert!(cut.to_string().contains("47 bytes of 48"), "{cut}");
    }

    proptest! {
        #[test]
        fn any_memory_is_a_ring_or_none(
            mut memory in proptest::collection::vec(any::<u8>(), 0..200),
            is_close in any::<bool>(),
            exponent in 0_u32..9,
            written in any::<u64>(),
            position in any::<u64>(),
        ) {
            if is_close && memory.len() >= HEADER_BYTES {
                memory[..8].copy_from_slice(&MAGIC.to_le_bytes());
                memory[8..12].copy_from_slice(&VERSION.to_le_bytes());
                memory[12..16].copy_from_slice(&(1_u32 << exponent).to_le_bytes());
                memory[16..24].copy_from_slice(&written.to_le_bytes());
            }
            if let Ok(dump) = Dump::parse(&memory) {
                for position in [position, 0, written, written.wrapping_sub(position % 300)] {
                    let bytes = dump.from(position);
                    prop_assert!(bytes.len() as u64 <= written.min(1 << exponent));
                }
            }
        }
    }

    #[test]
    fn a_counter_at_its_end_is_only_a_number() {
        let ring = Box::new(Ring::<16>::new());
        ring.begin(&BUILD, 7);
        ring.written.store(u64::MAX.to_le(), Ordering::Relaxed);
        let memory = image(&ring);
        assert_eq!(Dump::parse(&memory).unwrap().from(0), vec![0; 16]);
        ring.write(b"ab");
        let memory = image(&ring);
        assert_eq!(Dump::parse(&memory).unwrap().from(0), b"b");
    }
}
