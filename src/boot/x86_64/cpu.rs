//! Single instructions: ports, model-specific registers, what the processor can do, halting.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _xsetbv};

use super::memory_functions;

/// Reads a byte from a port.
///
/// # Safety
/// Reading may change the device behind the port; the caller must own that.
pub unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the instruction touches no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to a port.
///
/// # Safety
/// The caller must own the device behind the port, and what it does must not break memory safety.
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: as the caller promises.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Reads 16 bits from a port.
///
/// # Safety
/// As [`in8`].
pub unsafe fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: the instruction touches no memory.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes 16 bits to a port.
///
/// # Safety
/// As [`out8`].
pub unsafe fn out16(port: u16, value: u16) {
    // SAFETY: as the caller promises.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// Reads 32 bits from a port.
///
/// # Safety
/// As [`in8`].
pub unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: the instruction touches no memory.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes 32 bits to a port.
///
/// # Safety
/// As [`out8`].
pub unsafe fn out32(port: u16, value: u32) {
    // SAFETY: as the caller promises.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor must have it.
pub unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the register exists, as the caller promises; reading touches no memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor must have it, and what the value means must not break memory safety.
pub unsafe fn write_msr(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: as the caller promises.
    unsafe { asm!("wrmsr", in("ecx") register, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
}

/// The address that the latest page fault was about.
pub fn fault_address() -> u64 {
    let address;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// Switches to the page tables whose root is at this physical address.
///
/// # Safety
/// They must map all memory that is in use, at the addresses where it is in use.
pub unsafe fn set_page_tables(root: u64) {
    // SAFETY: as the caller promises.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// What we ask of the processor and its emulator.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// AVX registers are there and enabled.
    pub avx: bool,
    /// RDRAND.
    pub rdrand: bool,
    /// RDSEED.
    pub rdseed: bool,
    /// Pages that can't be executed.
    pub no_execute: bool,
    /// Pages of 1 GiB.
    pub huge_pages: bool,
    /// The local APIC's timer takes a time stamp as its deadline.
    pub tsc_deadline: bool,
    /// A hypervisor says that it is one.
    pub hypervisor: bool,
}

impl Features {
    /// Asks the processor, and enables the AVX (and AVX-512) registers where it has them.
    pub fn enable() -> Self {
        const XSAVE: u32 = 1 << 26;
        const OSXSAVE: u64 = 1 << 18;
        let basic = __cpuid(1);
        let mut avx = false;
        if basic.ecx & XSAVE != 0 {
            // SAFETY: the processor has XSAVE, so the bit may be set; nothing depends on its being clear.
            unsafe {
                asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", out(reg) _, in(reg) OSXSAVE, options(nostack))
            };
            const BASE: u64 = 0b11;
            const AVX: u64 = 0b100;
            const AVX512: u64 = 0b1110_0000;
            let possible = u64::from(__cpuid_count(0xd, 0).eax);
            let mut wanted = BASE | possible & AVX;
            if wanted & AVX != 0 && possible & AVX512 == AVX512 {
                wanted |= AVX512;
            }
            // SAFETY: XSAVE is enabled, and the processor says that it has these states; AVX-512 comes with AVX only.
            unsafe { enable_states(wanted) };
            avx = wanted & AVX != 0 && basic.ecx & 1 << 28 != 0;
            if avx {
                // SAFETY: it is there and enabled.
                unsafe { memory_functions::use_avx() };
            }
        }
        let max_basic = __cpuid(0).eax;
        let max_extended = __cpuid(0x8000_0000).eax;
        let structured = if max_basic >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
        let extended = if max_extended >= 0x8000_0001 { __cpuid(0x8000_0001).edx } else { 0 };
        Self {
            avx,
            rdrand: basic.ecx & 1 << 30 != 0,
            rdseed: structured & 1 << 18 != 0,
            no_execute: extended & 1 << 20 != 0,
            huge_pages: extended & 1 << 26 != 0,
            tsc_deadline: basic.ecx & 1 << 24 != 0,
            hypervisor: basic.ecx & 1 << 31 != 0,
        }
    }
}

/// Enables processor states (Intel SDM volume 1, chapter 13).
///
/// # Safety
/// XSAVE must be enabled and the processor must support them together.
#[target_feature(enable = "xsave")]
unsafe fn enable_states(states: u64) {
    // SAFETY: as the caller promises.
    unsafe { _xsetbv(0, states) };
}

/// The processor's name, padded with zeros or blanks; all zeros where it says none.
pub fn name() -> [u8; 48] {
    const FIRST: u32 = 0x8000_0002;
    let mut name = [0; 48];
    if __cpuid(0x8000_0000).eax >= FIRST + 2 {
        for (part, leaf) in name.chunks_exact_mut(16).zip(FIRST..) {
            let said = __cpuid(leaf);
            for (word, register) in part.chunks_exact_mut(4).zip([said.eax, said.ebx, said.ecx, said.edx]) {
                word.copy_from_slice(&register.to_le_bytes());
            }
        }
    }
    name
}

/// The time stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and nothing forbids it to us.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sleeps until an interrupt has been handled; one that is pending already counts.
pub fn halt() {
    // SAFETY: the gates and their stacks are set up before anything calls this, and handlers leave all registers as they were.
    // `sti` takes effect after the next instruction, so no interrupt comes between the two.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Stops for good.
pub fn stop() -> ! {
    loop {
        // SAFETY: with interrupts off nothing runs any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
