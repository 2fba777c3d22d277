//! The interrupt descriptor table: interrupts wake, exceptions report and stop.
//!
//! Interrupts only happen while the processor is halted ([`super::cpu::halt`]), and all that one does is to be counted and
//! acknowledged. An exception is a fault of ours; its report names it, and the machine stops with a failing status.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use super::apic::LOCAL_APIC_END_OF_INTERRUPT;
use super::cpu;
use super::power::fail;
use super::segments::{CODE_SELECTOR, INTERRUPTION_STACKS, InterruptStack, MAIN_STACK, TablePointer};
use crate::boot::console;

/// The first vector that an interrupt may use.
pub const FIRST_VECTOR: u8 = 32;
/// The vector behind the last one for devices.
pub const END_VECTOR: u8 = 128;
/// The vector of interrupts that were withdrawn (Intel SDM volume 3, 11.9).
pub const SPURIOUS_VECTOR: u8 = 0xff;

const VECTORS: usize = 256;

/// A gate (Intel SDM volume 3, 6.14.1).
type Gate = [u64; 2];

#[repr(C, align(16))]
struct Table(UnsafeCell<[Gate; VECTORS]>);

// SAFETY: `initialise` alone writes it, before the processor reads it.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; VECTORS]));

/// How many interrupts came in.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

/// Counts an end of sleep that was no interrupt, where none are needed for it.
pub fn count_one() {
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
}

/// How many interrupts came in since the start.
pub fn count() -> u64 {
    INTERRUPTS.load(Ordering::Relaxed)
}

fn gate(handler: unsafe extern "C" fn(), stack: InterruptStack) -> Gate {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    let address = (handler as *const ()).addr() as u64;
    let low = address & 0xffff | u64::from(CODE_SELECTOR) << 16 | (stack as u64) << 32;
    [low | PRESENT_INTERRUPT_GATE | (address >> 16 & 0xffff) << 48, address >> 32]
}

/// Fills the table and gives it to the processor. To be called once, after [`super::segments::initialise`].
pub fn initialise() {
    let mut gates = [[0; 2]; VECTORS];
    for (vector, handler) in EXCEPTIONS.iter().enumerate() {
        let stack = match vector {
            2 => InterruptStack::NonMaskable,
            8 => InterruptStack::DoubleFault,
            18 => InterruptStack::MachineCheck,
            _ => InterruptStack::Exceptions,
        };
        gates[vector] = gate(*handler, stack);
    }
    let interrupts = gate(interrupt, InterruptStack::Interrupts);
    gates[usize::from(FIRST_VECTOR)..usize::from(END_VECTOR)].fill(interrupts);
    gates[usize::from(SPURIOUS_VECTOR)] = gate(spurious, InterruptStack::Interrupts);
    // SAFETY: nobody else refers to the table.
    unsafe { TABLE.0.get().write(gates) };
    let pointer = TablePointer { limit: size_of::<Table>() as u16 - 1, base: TABLE.0.get().addr() as u64 };
    // SAFETY: the table is complete and stays.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack)) };
}

/// Any device's or the timer's interrupt: counted, and told to the local APIC that it is over.
#[unsafe(naked)]
unsafe extern "C" fn interrupt() {
    naked_asm!(
        "inc qword ptr [{count}]",
        "push rax",
        "mov eax, {end_of_interrupt}",
        "mov dword ptr [rax], 0",
        "pop rax",
        "iretq",
        count = sym INTERRUPTS,
        end_of_interrupt = const LOCAL_APIC_END_OF_INTERRUPT,
    )
}

/// An interrupt that was withdrawn: nothing is to be acknowledged.
#[unsafe(naked)]
unsafe extern "C" fn spurious() {
    naked_asm!("iretq")
}

/// An exception's way to its report. The stack is its own, so nothing has to be left as it was.
#[unsafe(naked)]
unsafe extern "C" fn exception<const VECTOR: u8, const HAS_CODE: u8>() {
    naked_asm!(
        ".if {has_code} == 0",
        "push 0",
        ".endif",
        "push {vector}",
        "push r15",
        "push r14",
        "push r13",
        "push r12",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "push rbp",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push rbx",
        "push rax",
        "cld",
        "mov rdi, rsp",
        "call {report}",
        "ud2",
        has_code = const HAS_CODE,
        vector = const VECTOR,
        report = sym report,
    )
}

macro_rules! exceptions {
    ($($vector:literal $has_code:literal),*) => { [$(exception::<$vector, $has_code>),*] };
}

/// The exceptions' handlers; 1 marks those with an error code.
static EXCEPTIONS: [unsafe extern "C" fn(); FIRST_VECTOR as usize] = exceptions![
    0 0, 1 0, 2 0, 3 0, 4 0, 5 0, 6 0, 7 0, 8 1, 9 0, 10 1, 11 1, 12 1, 13 1, 14 1, 15 0,
    16 0, 17 1, 18 0, 19 0, 20 0, 21 1, 22 0, 23 0, 24 0, 25 0, 26 0, 27 0, 28 0, 29 1, 30 1, 31 0
];

/// What an exception leaves on its stack, lowest address first.
#[repr(C)]
struct Registers {
    rax: u64,
    rbx: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    rbp: u64,
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

extern "C" fn report(registers: &Registers) -> ! {
    console::report(format_args!("\n*** {registers}"));
    fail()
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "division error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid instruction",
        7 => "no floating-point unit",
        8 => "double fault",
        10 => "invalid task state segment",
        11 => "segment not present",
        12 => "stack segment fault",
        13 => "general protection fault",
        14 => "page fault",
        16 => "floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point error",
        20 => "virtualization exception",
        21 => "control protection exception",
        _ => "reserved exception",
    }
}

const PAGE_FAULT: u64 = 14;

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (exception {}, error code {:#x})", name(self.vector), self.vector, self.error_code)?;
        if self.vector == PAGE_FAULT {
            let address = cpu::fault_address();
            let access = match self.error_code {
                code if code & 1 << 4 != 0 => "executing",
                code if code & 1 << 1 != 0 => "writing",
                _ => "reading",
            };
            let why = if self.error_code & 1 != 0 { "which is protected" } else { "where nothing is mapped" };
            write!(f, " {access} {address:#x}, {why}")?;
            let guards = INTERRUPTION_STACKS.iter().map(|stack| stack.guard()).chain([MAIN_STACK.guard()]);
            if guards.into_iter().any(|guard| address & !0xfff == guard) {
                f.write_str(": a stack has overflowed")?;
            }
        }
        let rows = [
            [("rip", self.rip), ("rflags", self.rflags), ("rsp", self.rsp), ("cs/ss", self.cs << 32 | self.ss)],
            [("rax", self.rax), ("rbx", self.rbx), ("rcx", self.rcx), ("rdx", self.rdx)],
            [("rsi", self.rsi), ("rdi", self.rdi), ("rbp", self.rbp), ("r8", self.r8)],
            [("r9", self.r9), ("r10", self.r10), ("r11", self.r11), ("r12", self.r12)],
            [("r13", self.r13), ("r14", self.r14), ("r15", self.r15), ("cr2", cpu::fault_address())],
        ];
        for row in rows {
            f.write_str("\n   ")?;
            for (register, value) in row {
                write!(f, " {register:>6} {value:016x}")?;
            }
        }
        Ok(())
    }
}
