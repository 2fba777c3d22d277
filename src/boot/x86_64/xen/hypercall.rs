//! Hypercalls: the instruction that asks Xen.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU8, Ordering};

use xen_sys::{__HYPERVISOR_sched_op, SCHEDOP_yield};

use crate::rings::xen::HypercallError;

/// We are no guest of Xen's, or it is not known yet.
const NONE: u8 = 0;
const VMCALL: u8 = 1;
const VMMCALL: u8 = 2;

/// The processor's instruction: the wrong one of the two is an invalid one.
static INSTRUCTION: AtomicU8 = AtomicU8::new(NONE);

/// Says that Xen runs us: from now on it may be asked.
pub fn initialise() {
    let said = __cpuid(0);
    let is_amd = matches!(
        [said.ebx, said.edx, said.ecx].map(u32::to_le_bytes),
        [[b'A', b'u', b't', b'h'], [b'e', b'n', b't', b'i'], [b'c', b'A', b'M', b'D']]
            | [[b'H', b'y', b'g', b'o'], [b'n', b'G', b'e', b'n'], [b'u', b'i', b'n', b'e']]
    );
    INSTRUCTION.store(if is_amd { VMMCALL } else { VMCALL }, Ordering::Relaxed);
}

/// True if Xen runs us.
pub fn is_xen() -> bool {
    INSTRUCTION.load(Ordering::Relaxed) != NONE
}

/// Asks Xen; what it answers that is negative is an error's number.
///
/// # Safety
/// Xen must run us, and what the call reads, writes and changes must be ours to have read, written and changed.
unsafe fn ask(number: u32, arguments: [u64; 2]) -> Result<u64, HypercallError> {
    let [first, second] = arguments;
    let answer: i64;
    // SAFETY: as the caller promises; the arguments' registers may come back changed, and the flags too.
    unsafe {
        match INSTRUCTION.load(Ordering::Relaxed) {
            VMMCALL => asm!(
                "vmmcall",
                inlateout("rax") u64::from(number) => answer,
                inlateout("rdi") first => _,
                inlateout("rsi") second => _,
                options(nostack)
            ),
            _ => asm!(
                "vmcall",
                inlateout("rax") u64::from(number) => answer,
                inlateout("rdi") first => _,
                inlateout("rsi") second => _,
                options(nostack)
            ),
        }
    }
    u64::try_from(answer).map_err(|_| HypercallError(answer.unsigned_abs() as u32))
}

/// Asks by a command and the structure that it is about.
///
/// # Safety
/// Xen must run us. The structure must be the command's, and what the command changes ours to change.
pub unsafe fn call<T>(number: u32, command: u32, about: &mut T) -> Result<u64, HypercallError> {
    // SAFETY: as the caller promises; what Xen reads and writes is the structure.
    unsafe { ask(number, [command.into(), (&raw mut *about).expose_provenance() as u64]) }
}

/// Lets others run, if there are any.
pub fn yield_now() {
    // SAFETY: called where Xen runs us, and the command touches nothing. It can't fail.
    let _ = unsafe { ask(__HYPERVISOR_sched_op, [SCHEDOP_yield.into(), 0]) };
}
