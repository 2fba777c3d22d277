//! Who runs us: what the hypervisor says in the leaves of `cpuid` that processors leave to it.

use core::arch::x86_64::__cpuid;

/// Who runs us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// Xen: devices are its own, found through its store.
    Xen,
    /// Another one, by its signature: devices are virtio's.
    Other([u8; 12]),
    /// None that says so.
    None,
}

impl Hypervisor {
    /// Asks. Xen's leaves may lie above another's that it imitates.
    pub fn find() -> Self {
        const FIRST: u32 = 0x4000_0000;
        const STEP: u32 = 0x100;
        const PLACES: u32 = 4;
        const IS_THERE: u32 = 1 << 31;
        if __cpuid(1).ecx & IS_THERE == 0 {
            return Self::None;
        }
        let mut signatures = (0..PLACES).map(|place| signature(FIRST + place * STEP));
        if signatures.any(|signature| signature == *b"XenVMMXenVMM") {
            return Self::Xen;
        }
        Self::Other(signature(FIRST))
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        match self {
            Self::Xen => "Xen",
            Self::Other(signature) => match signature {
                b"KVMKVMKVM\0\0\0" => "KVM",
                b"TCGTCGTCGTCG" => "QEMU's TCG",
                b"Microsoft Hv" => "Hyper-V",
                _ => "an unknown hypervisor",
            },
            Self::None => "no hypervisor",
        }
    }
}

fn signature(leaf: u32) -> [u8; 12] {
    let said = __cpuid(leaf);
    let mut signature = [0; 12];
    for (part, register) in signature.chunks_exact_mut(4).zip([said.ebx, said.ecx, said.edx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    signature
}
