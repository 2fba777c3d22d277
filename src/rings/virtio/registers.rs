//! The one door to device registers: checked offsets, volatile accesses of the width that is asked for.
//!
//! Transports stand on [`Registers`], so that they run on the host against a register block in a test.

use core::ptr::NonNull;

/// A block of device registers, little-endian. What lies outside reads as ones and can't be written, as on a bus where
/// nobody answers.
pub trait Registers {
    /// Length of the block in bytes.
    fn bytes(&self) -> usize;

    /// Reads a byte.
    fn read8(&mut self, offset: usize) -> u8;

    /// Reads an aligned 16-bit register.
    fn read16(&mut self, offset: usize) -> u16;

    /// Reads an aligned 32-bit register.
    fn read32(&mut self, offset: usize) -> u32;

    /// Writes a byte.
    fn write8(&mut self, offset: usize, value: u8);

    /// Writes an aligned 16-bit register.
    fn write16(&mut self, offset: usize, value: u16);

    /// Writes an aligned 32-bit register.
    fn write32(&mut self, offset: usize, value: u32);
}

/// Registers in the machine's address space.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// The `bytes` bytes of registers at `address`. `None` at address 0, where none are, and for what wraps around.
    ///
    /// # Safety
    /// For as long as the region exists the range is mapped, reading and writing it can't harm this program's memory, and
    /// nobody else uses it.
    pub unsafe fn new(address: usize, bytes: usize) -> Option<Self> {
        address.checked_add(bytes)?;
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(address))?;
        Some(Self { base, bytes })
    }

    /// Where a register of type `T` lies; `None` outside the region and where it would not be aligned.
    fn register<T>(&self, offset: usize) -> Option<*mut T> {
        if offset.checked_add(size_of::<T>())? > self.bytes {
            return None;
        }
        // SAFETY: the offset lies within the region.
        let register = unsafe { self.base.as_ptr().add(offset) }.cast::<T>();
        register.is_aligned().then_some(register)
    }
}

macro_rules! accesses {
    ($($read:ident $write:ident $type:ty),*) => {$(
        fn $read(&mut self, offset: usize) -> $type {
            match self.register::<$type>(offset) {
                // SAFETY: a mapped, aligned register, as `Region::new` was promised.
                Some(register) => <$type>::from_le(unsafe { register.read_volatile() }),
                None => <$type>::MAX,
            }
        }

        fn $write(&mut self, offset: usize, value: $type) {
            if let Some(register) = self.register::<$type>(offset) {
                // SAFETY: a mapped, aligned register, as `Region::new` was promised.
                unsafe { register.write_volatile(value.to_le()) };
            }
        }
    )*};
}

impl Registers for Region {
    fn bytes(&self) -> usize {
        self.bytes
    }

    accesses!(read8 write8 u8, read16 write16 u16, read32 write32 u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_reads_as_ones() {
        let mut memory = [0_u64, u64::MAX, 7];
        let address = (&raw mut memory).expose_provenance();
        // SAFETY: the memory outlives the region and nobody else looks at it meanwhile.
        let mut region = unsafe { Region::new(address, 16) }.unwrap();
        region.write32(4, 0x0102_0304);
        assert_eq!((region.read8(7), region.read16(4), region.read32(4)), (1, 0x0304, 0x0102_0304));
        region.write32(16, 0);
        region.write32(14, 0);
        region.write8(usize::MAX, 0);
        assert_eq!((region.read32(16), region.read16(15), region.read32(14)), (u32::MAX, u16::MAX, u32::MAX));
        assert_eq!(memory[1..], [u64::MAX, 7]);
    }
}
