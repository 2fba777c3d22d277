//! What Linux packs: its kernel and its modules, unpacked by the programs that do it everywhere.

use std::fs::File;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// What a packed file begins with, the program that unpacks it, and the Debian package that brings that.
const FORMATS: [(&[u8], &str, &str); 3] =
    [(b"\xfd7zXZ\0", "xz", "xz-utils"), (b"\x1f\x8b", "gzip", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd", "zstd")];

/// Unpacks what is packed in a known way, and leaves the rest as it is.
pub fn unpack(bytes: Vec<u8>) -> Result<Vec<u8>> {
    let format = FORMATS.iter().find(|(magic, ..)| bytes.starts_with(magic));
    let Some((_, program, package)) = format else { return Ok(bytes) };
    let mut packed: File = tempfile::tempfile().context("no temporary file")?;
    packed.write_all(&bytes)?;
    packed.rewind()?;
    let mut command = Command::new(program);
    let command = command.args(["--decompress", "--stdout"]).stdin(packed).stderr(Stdio::piped());
    let output = command.output().with_context(|| format!("can't start {program} (Debian package {package})"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

/// What is needed for it and is not there, if so.
pub fn obstacle() -> Option<String> {
    // What Debian packs its kernel and its modules with.
    crate::qemu::missing("xz", "xz-utils").or_else(|| crate::qemu::missing("gzip", "gzip"))
}

/// The ELF inside a kernel for x86 as distributions ship it (Linux, Documentation/x86/boot.rst: `payload_offset`).
pub fn vmlinux(kernel: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(kernel).context("the kernel is not what Linux for x86 looks like")?;
    let elf = unpack(payload.to_vec())?;
    ensure!(elf.starts_with(b"\x7fELF"), "the kernel is packed in an unknown way");
    Ok(elf)
}

fn payload(kernel: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(kernel.get(at..at + 4)?.try_into().ok()?) as usize);
    if kernel.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match *kernel.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    let payload = kernel.get(start..start.checked_add(word(0x24c)?)?)?;
    // Its length stands behind it, which gzip has as part of its format and the others do not know.
    if payload.starts_with(b"\x1f\x8b") { Some(payload) } else { payload.get(..payload.len().checked_sub(4)?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        Command::new(program).arg("--stdout").stdin(file).output().ok().map(|output| output.stdout)
    }

    #[test]
    fn what_is_packed_is_unpacked_and_a_kernel_is_found_inside() {
        assert_eq!(unpack(b"plain".to_vec()).unwrap(), b"plain");
        for program in ["gzip", "xz", "zstd"] {
            let Some(packed) = packed(program, b"\x7fELF and so on") else { continue };
            assert_eq!(unpack(packed.clone()).unwrap(), b"\x7fELF and so on");
            assert!(unpack(packed[..packed.len() - 5].to_vec()).is_err());
            let mut kernel = vec![0; 0x1000];
            kernel[0x1f1] = 3;
            kernel[0x202..0x206].copy_from_slice(b"HdrS");
            kernel[0x248] = 16;
            kernel.truncate(4 * 512 + 16);
            kernel.extend_from_slice(&packed);
            if program != "gzip" {
                kernel.extend_from_slice(&[14, 0, 0, 0]);
            }
            let length = u32::try_from(kernel.len() - 4 * 512 - 16).unwrap();
            kernel[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
            assert_eq!(vmlinux(&kernel).unwrap(), b"\x7fELF and so on");
            kernel.pop();
            assert!(vmlinux(&kernel).is_err());
        }
    }
}
