//! Stacks, the global descriptor table and the task state segment.
//!
//! Long mode wants little of segments: one for code, and a task state segment that names a stack for each kind of interruption.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::mem::size_of;

use super::paging::PAGE_BYTES;

/// A stack above a page that will not be mapped, so that what overruns it stops there.
#[repr(C, align(4096))]
pub struct Stack<const BYTES: usize> {
    guard: UnsafeCell<[u8; PAGE_BYTES]>,
    bytes: UnsafeCell<[u8; BYTES]>,
}

// SAFETY: only the processor uses a stack's bytes, through its stack pointer.
unsafe impl<const BYTES: usize> Sync for Stack<BYTES> {}

impl<const BYTES: usize> Stack<BYTES> {
    const fn new() -> Self {
        Self { guard: UnsafeCell::new([0; PAGE_BYTES]), bytes: UnsafeCell::new([0; BYTES]) }
    }

    /// Address of the guard page.
    pub fn guard(&self) -> u64 {
        self.guard.get().addr() as u64
    }

    fn top(&self) -> u64 {
        self.bytes.get().addr() as u64 + BYTES as u64
    }
}

/// The stack of everything but interruptions.
pub type MainStack = Stack<{ 128 << 10 }>;

/// The stack of everything but interruptions.
pub static MAIN_STACK: MainStack = Stack::new();

/// An interruption's stack: a report is formatted on it.
pub type InterruptionStack = Stack<{ 16 << 10 }>;

/// Which interruptions share a stack; the numbers are those of the task state segment's interrupt stack table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptStack {
    /// Devices and timers.
    Interrupts = 1,
    /// Faults of our own.
    Exceptions = 2,
    /// Non-maskable interrupts, which come at any time.
    NonMaskable = 3,
    /// Double faults.
    DoubleFault = 4,
    /// Machine checks.
    MachineCheck = 5,
}

/// In the order of [`InterruptStack`].
pub static INTERRUPTION_STACKS: [InterruptionStack; 5] = [const { Stack::new() }; 5];

/// The segment selector of code: the first descriptor after the null one.
pub const CODE_SELECTOR: u16 = 8;
const TASK_SELECTOR: u16 = 16;

/// A 64-bit code segment (Intel SDM volume 3, 3.4.5): present, code, readable, accessed, long.
const CODE_SEGMENT: u64 = 0x0020_9b00_0000_0000;

/// What `lgdt` and `lidt` read.
#[repr(C, packed)]
pub struct TablePointer {
    /// Bytes of the table, less one.
    pub limit: u16,
    /// Where it is.
    pub base: u64,
}

/// A pointer to a table whose address the linker knows.
#[repr(C, packed)]
pub struct BootPointer {
    limit: u16,
    base: &'static [u64; 2],
}

static BOOT_SEGMENTS: [u64; 2] = [0, CODE_SEGMENT];

/// For the way to long mode, whose `lgdt` reads the base's lower half alone.
pub static BOOT_GDT: BootPointer = BootPointer { limit: size_of::<[u64; 2]>() as u16 - 1, base: &BOOT_SEGMENTS };

/// The task state segment (Intel SDM volume 3, 8.7).
#[repr(C, packed)]
struct TaskState {
    reserved_0: u32,
    privilege_stacks: [u64; 3],
    reserved_1: u64,
    interrupt_stacks: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    io_map_base: u16,
}

struct Tables {
    descriptors: UnsafeCell<[u64; 4]>,
    task: UnsafeCell<TaskState>,
}

// SAFETY: `initialise` alone writes them, before the processor reads them, and nobody else touches them.
unsafe impl Sync for Tables {}

static TABLES: Tables = Tables {
    descriptors: UnsafeCell::new([0, CODE_SEGMENT, 0, 0]),
    task: UnsafeCell::new(TaskState {
        reserved_0: 0,
        privilege_stacks: [0; 3],
        reserved_1: 0,
        interrupt_stacks: [0; 7],
        reserved_2: 0,
        reserved_3: 0,
        io_map_base: size_of::<TaskState>() as u16,
    }),
};

/// Gives the processor its final segments and the interruptions' stacks. To be called once.
pub fn initialise() {
    let mut stacks = [0; 7];
    for (entry, stack) in stacks.iter_mut().zip(&INTERRUPTION_STACKS) {
        *entry = stack.top();
    }
    let task = TABLES.task.get();
    let base = task.addr() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    const AVAILABLE_TASK: u64 = 0x89 << 40;
    let low = limit | (base & 0xff_ffff) << 16 | AVAILABLE_TASK | (base >> 24 & 0xff) << 56;
    // SAFETY: nothing else refers to the tables, and the processor does not read them before `lgdt` and `ltr`.
    unsafe {
        (*task).interrupt_stacks = stacks;
        *TABLES.descriptors.get() = [0, CODE_SEGMENT, low, base >> 32];
    }
    let pointer =
        TablePointer { limit: size_of::<[u64; 4]>() as u16 - 1, base: TABLES.descriptors.get().addr() as u64 };
    // SAFETY: the code segment stays where and what it was; the task state segment is complete.
    unsafe { asm!("lgdt [{}]", "ltr {:x}", in(reg) &pointer, in(reg) TASK_SELECTOR, options(nostack)) };
}
