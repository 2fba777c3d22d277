//! The kernel: one ELF that hypervisors boot, made with the installed compiler for its own target.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::run::{cargo, step, target};

/// What of the kernel is loaded into memory may not take more, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The features that make a kernel of the appliance.
pub const FEATURES: [&str; 3] = ["--no-default-features", "--features", "kernel"];

/// How the kernel is optimized, by the workspace's Cargo.toml.
const PROFILE: &str = "kernel";

/// Builds `target/minicache.elf` and says how large it is.
pub fn run() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--profile", PROFILE, "--package", "minicache", "--bin", "minicache-kernel"]);
    // Its features differ from those of the programs of this host, so it must not share their artefacts.
    let built = target().join("kernel");
    step(build.args(FEATURES).arg("--target-dir").arg(&built))?;
    let elf = target().join("minicache.elf");
    let from = built.join(PROFILE).join("minicache-kernel");
    fs::copy(&from, &elf).with_context(|| format!("{} can't be copied to {}", from.display(), elf.display()))?;
    let bytes = loaded_bytes(&elf)?;
    eprintln!("xtask: {}: {} KiB without debug information", elf.display(), bytes.div_ceil(1024));
    ensure!(bytes <= MAX_BYTES, "{bytes} bytes are more than the {MAX_BYTES} that a kernel may have");
    Ok(())
}

/// The size of what a stripped ELF64 would hold: where the last loadable segment ends in the file.
fn loaded_bytes(elf: &Path) -> Result<u64> {
    let bytes = fs::read(elf).with_context(|| format!("{} can't be read", elf.display()))?;
    loaded(&bytes).with_context(|| format!("{} is no ELF64 program", elf.display()))
}

fn loaded(elf: &[u8]) -> Option<u64> {
    let field = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (field(32, 8)? as usize, field(54, 2)? as usize, field(56, 2)? as usize);
    let mut end = None;
    for header in (0..count).map(|number| table + number * size) {
        const PT_LOAD: u64 = 1;
        if field(header, 4)? == PT_LOAD {
            end = end.max(Some(field(header + 8, 8)?.checked_add(field(header + 32, 8)?)?));
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    #[test]
    fn this_program_has_a_size_and_other_files_have_none() {
        let own = fs::read(env::current_exe().unwrap()).unwrap();
        let bytes = loaded(&own).unwrap();
        assert!(bytes > 4096 && bytes <= own.len() as u64);
        assert_eq!(loaded(b"\x7fELF\x02\x01"), None);
        assert_eq!(loaded(b"something else"), None);
    }
}
