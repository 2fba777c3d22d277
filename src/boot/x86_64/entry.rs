//! From the hypervisor's jump to Rust: PVH's 32-bit entry, the first page tables, long mode.

use core::arch::naked_asm;
use core::mem::size_of;

use super::paging::{BOOT_TABLES, LARGE, NO_EXECUTE, PRESENT, WRITABLE};
use super::segments::{BOOT_GDT, CODE_SELECTOR, MAIN_STACK, MainStack};

/// The ELF note that names the entry: PHYS32_ENTRY of Xen's `elfnote.h`. QEMU reads the descriptor as 8 bytes.
#[repr(C, packed(4))]
struct Note {
    name_bytes: u32,
    descriptor_bytes: u32,
    kind: u32,
    name: [u8; 4],
    entry: unsafe extern "C" fn(),
}

const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

#[used]
#[unsafe(link_section = ".note.Xen")]
static NOTE: Note =
    Note { name_bytes: 4, descriptor_bytes: 8, kind: XEN_ELFNOTE_PHYS32_ENTRY, name: *b"Xen\0", entry: pvh_entry };

/// The PVH entry: 32-bit protected mode without paging, interrupts off, `ebx` the physical address of the start information
/// (Xen's `hvm/start_info.h`). Maps the first GiB, of which only the first 4 MiB, with our code, may be executed, and goes on
/// in long mode. All other registers and the stack are free.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.entry")]
unsafe extern "C" fn pvh_entry() {
    naked_asm!(
        ".code32",
        "cld",
        "mov esp, offset {stack} + {stack_bytes}",
        // The directory: 512 pages of 2 MiB.
        "mov edi, offset {tables} + 8192",
        "mov eax, {page}",
        "mov edx, {no_execute}",
        "2:",
        "mov [edi], eax",
        "mov [edi + 4], edx",
        "add edi, 8",
        "add eax, 0x200000",
        "cmp eax, {end}",
        "jne 2b",
        "xor edx, edx",
        "mov [{tables} + 8192 + 4], edx",
        "mov [{tables} + 8192 + 12], edx",
        // The two levels above it.
        "mov eax, offset {tables} + 4096 + {table}",
        "mov [{tables}], eax",
        "add eax, 4096",
        "mov [{tables} + 4096], eax",
        "mov eax, offset {tables}",
        "mov cr3, eax",
        "mov eax, {cr4}",
        "mov cr4, eax",
        // EFER's no-execute bit, where the processor has it: elsewhere it must not be set.
        "mov esi, ebx",
        "mov eax, {extended_features}",
        "cpuid",
        "mov ebx, esi",
        "mov esi, edx",
        "and esi, {feature_no_execute}",
        "shr esi, {feature_to_efer}",
        "mov ecx, {efer}",
        "rdmsr",
        "or eax, esi",
        "or eax, {efer_long_mode}",
        "wrmsr",
        "mov eax, {cr0}",
        "mov cr0, eax",
        "lgdt [{gdt}]",
        "push {code}",
        "mov eax, offset {long}",
        "push eax",
        "retf",
        ".code64",
        stack = sym MAIN_STACK,
        stack_bytes = const size_of::<MainStack>(),
        tables = sym BOOT_TABLES,
        page = const PRESENT | WRITABLE | LARGE,
        end = const (1_u64 << 30) + (PRESENT | WRITABLE | LARGE),
        no_execute = const NO_EXECUTE >> 32,
        table = const PRESENT | WRITABLE,
        cr4 = const CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
        efer = const EFER,
        efer_long_mode = const EFER_LONG_MODE,
        extended_features = const EXTENDED_FEATURES,
        feature_no_execute = const FEATURE_NO_EXECUTE,
        feature_to_efer = const FEATURE_NO_EXECUTE.trailing_zeros() - EFER_NO_EXECUTE.trailing_zeros(),
        cr0 = const CR0_PAGING | CR0_WRITE_PROTECT | CR0_NUMERIC_ERROR | CR0_MONITOR | CR0_PROTECTED,
        gdt = sym BOOT_GDT,
        code = const CODE_SELECTOR,
        long = sym long_mode,
    )
}

const CR0_PROTECTED: u32 = 1 << 0;
const CR0_MONITOR: u32 = 1 << 1;
const CR0_NUMERIC_ERROR: u32 = 1 << 5;
const CR0_WRITE_PROTECT: u32 = 1 << 16;
const CR0_PAGING: u32 = 1 << 31;
const CR4_PAE: u32 = 1 << 5;
const CR4_OSFXSR: u32 = 1 << 9;
const CR4_OSXMMEXCPT: u32 = 1 << 10;
const EFER: u32 = 0xc000_0080;
const EFER_LONG_MODE: u32 = 1 << 8;
const EFER_NO_EXECUTE: u32 = 1 << 11;
/// CPUID leaf, and its bit in `edx`.
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const FEATURE_NO_EXECUTE: u32 = 1 << 20;

/// The first 64-bit code: no data segments, a stack, and on to Rust.
#[unsafe(naked)]
unsafe extern "C" fn long_mode() {
    naked_asm!(
        "xor eax, eax",
        "mov ds, eax",
        "mov es, eax",
        "mov fs, eax",
        "mov gs, eax",
        "mov ss, eax",
        "mov rsp, offset {stack} + {stack_bytes}",
        "xor ebp, ebp",
        "mov edi, ebx",
        "call {start}",
        "ud2",
        stack = sym MAIN_STACK,
        stack_bytes = const size_of::<MainStack>(),
        start = sym super::start::start,
    )
}
