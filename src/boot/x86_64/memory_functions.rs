//! `memcpy` and its kin, which compiled code expects and the compiler's own library lacks for this target.
//!
//! In assembly, since LLVM would turn a loop that copies into a call of the function that it is the body of. SSE moves rather
//! than `rep movsb`: an emulator counts and runs that byte by byte. Only registers that the calling convention leaves to the
//! callee are used.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// AVX may be used.
static HAS_AVX: AtomicBool = AtomicBool::new(false);

/// From now on AVX may be used: the processor has it, and its registers are enabled.
///
/// # Safety
/// That must be so.
pub unsafe fn use_avx() {
    HAS_AVX.store(true, Ordering::Relaxed);
}

/// Copies `count` bytes from `source` to `target`, which don't overlap. Returns `target`.
///
/// # Safety
/// As C's `memcpy`.
#[cfg_attr(feature = "kernel", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, count: usize) -> *mut u8 {
    // Each length class loads all its bytes before it stores any, and the long one its last 64 before the loop: so moving
    // towards lower addresses works too.
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 5f",
        "cmp rdx, 32",
        "ja 2f",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        "2:",
        "movups xmm4, [rsi + rdx - 32]",
        "movups xmm5, [rsi + rdx - 16]",
        "cmp rdx, 64",
        "ja 3f",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + rdx - 32], xmm4",
        "movups [rdi + rdx - 16], xmm5",
        "ret",
        "3:",
        "movups xmm6, [rsi + rdx - 64]",
        "movups xmm7, [rsi + rdx - 48]",
        "lea r8, [rdi + rdx - 64]",
        "4:",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + 32]",
        "movups xmm3, [rsi + 48]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + 32], xmm2",
        "movups [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "cmp rdi, r8",
        "jb 4b",
        "movups [r8], xmm6",
        "movups [r8 + 16], xmm7",
        "movups [r8 + 32], xmm4",
        "movups [r8 + 48], xmm5",
        "ret",
        "5:",
        "cmp edx, 8",
        "jb 6f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "6:",
        "cmp edx, 4",
        "jb 7f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "7:",
        "test edx, edx",
        "jz 8f",
        "mov r9, rdx",
        "shr r9, 1",
        "mov cl, [rsi]",
        "mov r10b, [rsi + r9]",
        "mov r8b, [rsi + rdx - 1]",
        "mov [rdi], cl",
        "mov [rdi + r9], r10b",
        "mov [rdi + rdx - 1], r8b",
        "8:",
        "ret",
    )
}

/// Copies `count` bytes from `source` to `target`, which may overlap. Returns `target`.
///
/// # Safety
/// As C's `memmove`.
#[cfg_attr(feature = "kernel", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, count: usize) -> *mut u8 {
    naked_asm!(
        // Only a long move to a higher address within the source has to begin at the end.
        "mov rax, rdi",
        "sub rax, rsi",
        "cmp rax, rdx",
        "jae {memcpy}",
        "cmp rdx, 64",
        "jbe {memcpy}",
        "mov rax, rdi",
        "movups xmm4, [rsi]",
        "movups xmm5, [rsi + 16]",
        "movups xmm6, [rsi + 32]",
        "movups xmm7, [rsi + 48]",
        "lea r8, [rdi + 64]",
        "add rsi, rdx",
        "add rdi, rdx",
        "2:",
        "sub rsi, 64",
        "sub rdi, 64",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + 32]",
        "movups xmm3, [rsi + 48]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + 32], xmm2",
        "movups [rdi + 48], xmm3",
        "cmp rdi, r8",
        "ja 2b",
        "movups [rax], xmm4",
        "movups [rax + 16], xmm5",
        "movups [rax + 32], xmm6",
        "movups [rax + 48], xmm7",
        "ret",
        memcpy = sym memcpy,
    )
}

/// Sets `count` bytes at `target` to the low byte of `value`. Returns `target`.
///
/// # Safety
/// As C's `memset`.
#[cfg_attr(feature = "kernel", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memset(target: *mut u8, value: i32, count: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx esi, sil",
        "mov rcx, 0x0101010101010101",
        "imul rsi, rcx",
        "cmp rdx, 16",
        "jb 4f",
        "movq xmm0, rsi",
        "punpcklqdq xmm0, xmm0",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm0",
        "cmp rdx, 32",
        "jbe 3f",
        "movups [rdi + 16], xmm0",
        "movups [rdi + rdx - 32], xmm0",
        "cmp rdx, 64",
        "jbe 3f",
        "cmp rdx, 512",
        "jb 8f",
        "cmp byte ptr [rip + {has_avx}], 0",
        "jne 9f",
        "8:",
        "lea r8, [rdi + rdx - 64]",
        "2:",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "movups [rdi + 32], xmm0",
        "movups [rdi + 48], xmm0",
        "add rdi, 64",
        "cmp rdi, r8",
        "jb 2b",
        "movups [r8], xmm0",
        "movups [r8 + 16], xmm0",
        "3:",
        "ret",
        "4:",
        "cmp edx, 8",
        "jb 5f",
        "mov [rdi], rsi",
        "mov [rdi + rdx - 8], rsi",
        "ret",
        "5:",
        "cmp edx, 4",
        "jb 6f",
        "mov [rdi], esi",
        "mov [rdi + rdx - 4], esi",
        "ret",
        "6:",
        "test edx, edx",
        "jz 7f",
        "mov rcx, rdx",
        "shr rcx, 1",
        "mov [rdi], sil",
        "mov [rdi + rcx], sil",
        "mov [rdi + rdx - 1], sil",
        "7:",
        "ret",
        "9:",
        "vinsertf128 ymm0, ymm0, xmm0, 1",
        "lea r8, [rdi + rdx - 256]",
        "2:",
        "vmovups [rdi], ymm0",
        "vmovups [rdi + 32], ymm0",
        "vmovups [rdi + 64], ymm0",
        "vmovups [rdi + 96], ymm0",
        "vmovups [rdi + 128], ymm0",
        "vmovups [rdi + 160], ymm0",
        "vmovups [rdi + 192], ymm0",
        "vmovups [rdi + 224], ymm0",
        "add rdi, 256",
        "cmp rdi, r8",
        "jb 2b",
        "vmovups [r8], ymm0",
        "vmovups [r8 + 32], ymm0",
        "vmovups [r8 + 64], ymm0",
        "vmovups [r8 + 96], ymm0",
        "vmovups [r8 + 128], ymm0",
        "vmovups [r8 + 160], ymm0",
        "vmovups [r8 + 192], ymm0",
        "vmovups [r8 + 224], ymm0",
        "vzeroupper",
        "ret",
        has_avx = sym HAS_AVX,
    )
}

/// Compares `count` bytes as unsigned numbers: negative, 0 or positive, as the first difference says.
///
/// # Safety
/// As C's `memcmp`.
#[cfg_attr(feature = "kernel", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    naked_asm!(
        "cmp rdx, 8",
        "jb 5f",
        // The last eight bytes are compared on their own: where the eights before them overlap them, these were equal.
        "lea r8, [rdx - 8]",
        "xor ecx, ecx",
        "2:",
        "mov rax, [rdi + rcx]",
        "mov r9, [rsi + rcx]",
        "cmp rax, r9",
        "jne 4f",
        "add rcx, 8",
        "cmp rcx, r8",
        "jb 2b",
        "mov rax, [rdi + r8]",
        "mov r9, [rsi + r8]",
        "cmp rax, r9",
        "jne 4f",
        "3:",
        "xor eax, eax",
        "ret",
        "4:",
        "bswap rax",
        "bswap r9",
        "cmp rax, r9",
        "sbb eax, eax",
        "or eax, 1",
        "ret",
        "5:",
        "xor ecx, ecx",
        "6:",
        "cmp rcx, rdx",
        "je 3b",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r9d, byte ptr [rsi + rcx]",
        "inc rcx",
        "sub eax, r9d",
        "jz 6b",
        "ret",
    )
}

/// Compares `count` bytes: 0 if they are equal.
///
/// # Safety
/// As BSD's `bcmp`.
#[cfg_attr(feature = "kernel", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

/// The number of bytes before the first zero.
///
/// # Safety
/// As C's `strlen`.
#[cfg_attr(feature = "kernel", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    naked_asm!("mov rax, rdi", "2:", "cmp byte ptr [rax], 0", "je 3f", "inc rax", "jmp 2b", "3:", "sub rax, rdi", "ret")
}

/// What precompiled code names to unwind with; with `panic = "abort"` nobody calls it.
#[cfg(feature = "kernel")]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    unreachable!("nothing unwinds")
}

/// As [`rust_eh_personality`].
#[cfg(feature = "kernel")]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    unreachable!("nothing unwinds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Every length of every class, and some beyond the loops' steps.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..200).chain([255, 256, 257, 1000, 4096, 5000])
    }

    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        core::iter::repeat_with(|| random.u8(..)).take(count).collect()
    }

    #[test]
    fn copies_are_exact_and_touch_nothing_else() {
        for count in lengths() {
            let from = bytes(count + 7, count as u64);
            let mut to = bytes(count + 40, 1);
            let mut expected = to.clone();
            expected[19..19 + count].copy_from_slice(&from[3..3 + count]);
            let target = to[19..].as_mut_ptr();
            // SAFETY: both pieces lie in their vectors.
            let returned = unsafe { memcpy(target, from[3..].as_ptr(), count) };
            assert_eq!(returned, target);
            assert!(to == expected, "{count} bytes");
        }
    }

    #[test]
    fn moves_within_a_buffer_keep_what_they_move() {
        for count in lengths() {
            for (from, to) in [(0, 1), (1, 0), (0, 8), (8, 0), (0, 63), (63, 0), (0, 64), (65, 0), (0, 150), (150, 0)] {
                let mut buffer = bytes(count + 200, count as u64);
                let mut expected = buffer.clone();
                expected.copy_within(from..from + count, to);
                let base = buffer.as_mut_ptr();
                // SAFETY: both pieces lie in the buffer.
                unsafe { memmove(base.add(to), base.add(from), count) };
                assert!(buffer == expected, "{count} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn memory_is_set_within_its_bounds() {
        check_memset();
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: just asked.
            unsafe { use_avx() };
            check_memset();
        }
    }

    fn check_memset() {
        for count in lengths().chain(500..530) {
            let mut buffer = bytes(count + 40, 2);
            let mut expected = buffer.clone();
            expected[17..17 + count].fill(0xa5);
            // SAFETY: the piece lies in the buffer.
            unsafe { memset(buffer[17..].as_mut_ptr(), 0x7fa5, count) };
            assert!(buffer == expected, "{count} bytes");
        }
    }

    #[test]
    fn comparisons_agree_with_those_of_slices() {
        for count in lengths() {
            let one = bytes(count, 3);
            for differing in 0..=count.min(300) {
                let mut other = one.clone();
                if let Some(byte) = other.get_mut(differing) {
                    *byte = byte.wrapping_add(0x61);
                }
                // SAFETY: both have so many bytes.
                let (order, equal) =
                    unsafe { (memcmp(one.as_ptr(), other.as_ptr(), count), bcmp(one.as_ptr(), other.as_ptr(), count)) };
                assert_eq!(order.cmp(&0), one.cmp(&other), "{count} bytes, different at {differing}");
                assert_eq!(equal == 0, one == other);
            }
        }
    }

    #[test]
    fn texts_end_at_their_first_zero() {
        // SAFETY: both end in a zero.
        let lengths = unsafe { (strlen(c"".as_ptr().cast()), strlen(c"boot".as_ptr().cast())) };
        assert_eq!(lengths, (0, 4));
    }
}
