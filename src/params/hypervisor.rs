//! Words that are not the administrator's: those that hypervisors, boot loaders and virtualization tools add to every kernel's
//! command line, Linux in mind.

/// Words of Linux that are no `key=value`, and that tools add unasked (Firecracker's defaults, Xen's tools, boot loaders).
const KERNEL_WORDS: &[&str] = &[
    "debug",
    "earlycon",
    "earlyprintk",
    "ignore_loglevel",
    "no_timer_check",
    "noacpi",
    "noapic",
    "nokaslr",
    "nolapic",
    "nomodeset",
    "nomodule",
    "nomodules",
    "nopti",
    "noreplace-smp",
    "nosmp",
    "quiet",
    "ro",
    "rw",
    "splash",
];

/// The drivers of Linux whose flags (`i8042.noaux`) Firecracker adds.
const MODULE_PREFIXES: &[&str] = &["i8042.", "8250."];

const VIRTIO_MMIO: &str = "virtio_mmio.device=";

/// Where a virtio-mmio device is, as `virtio_mmio.device=<size>@<address>:<irq>` says (Linux, Documentation/admin-guide:
/// kernel-parameters). Nobody has looked there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Guest-physical address of its registers. `address` + `size_bytes` does not overflow.
    pub address: u64,
    /// Size of its register window in bytes, at least 1.
    pub size_bytes: u64,
    /// Its interrupt line.
    pub irq: u32,
}

/// The device that the word names; `None` if it names none, or one that can't be.
pub(super) fn virtio_mmio(word: &str) -> Option<VirtioMmio> {
    let (size, place) = word.strip_prefix(VIRTIO_MMIO)?.split_once('@')?;
    let mut parts = place.split(':');
    let (address, irq) = (number(parts.next()?)?, parts.next()?);
    // Linux takes a device's number behind that; the order says as much.
    let id = parts.next().is_none_or(|id| super::number(id).is_some());
    let device = VirtioMmio { address, size_bytes: size_bytes(size)?, irq: super::number(irq)? };
    let possible = id && parts.next().is_none() && device.size_bytes > 0;
    (possible && address.checked_add(device.size_bytes).is_some()).then_some(device)
}

/// True for a word that no administrator of ours writes, but others do.
pub(super) fn is_kernel_word(word: &str) -> bool {
    let is_setting = word.split_once('=').is_some_and(|(key, _)| !key.is_empty());
    is_setting || KERNEL_WORDS.contains(&word) || MODULE_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

/// A number in decimal, or in hexadecimal behind `0x`.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The library's parser takes a sign as well.
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// A number that may end in a unit (Linux's `memparse`).
fn size_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_where_the_hypervisor_says() {
        let device = |text| virtio_mmio(text).map(|device| (device.size_bytes, device.address, device.irq));
        assert_eq!(device("virtio_mmio.device=512@0xfeb00e00:12"), Some((512, 0xfeb0_0e00, 12)));
        assert_eq!(device("virtio_mmio.device=4K@0xd0000000:5"), Some((4096, 0xd000_0000, 5)));
        assert_eq!(device("virtio_mmio.device=0x200@4096:7:3"), Some((512, 4096, 7)));
        for bad in [
            "virtio_mmio.device=",
            "virtio_mmio.device=512",
            "virtio_mmio.device=512@0xfeb00e00",
            "virtio_mmio.device=512@:12",
            "virtio_mmio.device=512@0x:12",
            "virtio_mmio.device=@0xfeb00e00:12",
            "virtio_mmio.device=K@0xfeb00e00:12",
            "virtio_mmio.device=0@0xfeb00e00:12",
            "virtio_mmio.device=512@0xfeb00e00:12:x",
            "virtio_mmio.device=512@0xfeb00e00:12:1:1",
            "virtio_mmio.device=512@0xfeb00e00:-1",
            "virtio_mmio.device=512@+4096:1",
            "virtio_mmio.device=512@0xffffffffffffff00:1",
            "virtio_mmio.device=99999999999G@0x1000:1",
            "virtio_blk.device=512@0xfeb00e00:12",
        ] {
            assert_eq!(device(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_of_other_kernels_are_known() {
        for word in
            ["console=ttyS0", "quiet", "i8042.noaux", "8250.nr_uarts=0", "reboot=k", "virtio_mmio.device=rubbish"]
        {
            assert!(is_kernel_word(word), "{word}");
        }
        for word in ["10.0.0.1/24", "Quiet", "", "=", "=x", "51712"] {
            assert!(!is_kernel_word(word), "{word}");
        }
    }
}
