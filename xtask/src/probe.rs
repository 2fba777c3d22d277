//! The proof that the appliance needs no std: a freestanding program that contains it links with nothing.
//!
//! That the library compiles without its feature `std` proves little, since a dependency may bring std in. Here the
//! compiler refuses a second panic handler where std has one, and the linker shows every symbol that an operating
//! system's libraries would have to supply.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{cargo, quiet_step, root, target};

/// What precompiled core and alloc expect of the program around them, and the kernel will supply: the memory functions that
/// compiler_builtins lacks for this target, and the unwinder's two entries, which `panic = "abort"` never calls.
const SUPPLIED: &[&str] =
    &["memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen", "_Unwind_Resume", "rust_eh_personality"];

/// A name whose presence in the program shows that the linker saw the appliance's code.
const EVIDENCE: &[u8] = b"Appliance";

/// Links the appliance without std.
pub fn run() -> Result<()> {
    let program = link("default-features = false", "freestanding")?;
    eprintln!("xtask: {} is whole without std", program.display());
    Ok(())
}

/// Generates the probe's package in a directory of this name, with these features of the appliance, builds and links it.
fn link(features: &str, name: &str) -> Result<PathBuf> {
    let root = root();
    let probes = target().join("probe");
    let directory = &probes.join(name);
    fs::create_dir_all(directory).with_context(|| format!("{} can't be made", directory.display()))?;
    let path = directory.join("Cargo.toml");
    fs::write(&path, manifest(&root, features)).with_context(|| format!("{} can't be written", path.display()))?;
    fs::copy(root.join("Cargo.lock"), directory.join("Cargo.lock")).context("Cargo.lock can't be copied")?;
    // One for all of them, so that what they depend on is built once.
    let built = probes.join("target");
    quiet_step(cargo().current_dir(directory).args(["build", "--quiet", "--target-dir"]).arg(&built))?;

    let program = directory.join("probe.elf");
    let mut linker = Command::new("cc");
    linker.args(["-nostdlib", "-static", "-no-pie", "-Wl,--entry=0", "-Wl,--whole-archive"]);
    linker.args(SUPPLIED.iter().map(|symbol| format!("-Wl,--defsym={symbol}=0")));
    quiet_step(linker.arg("-o").arg(&program).arg(built.join("debug/libprobe.a")))?;

    let bytes = fs::read(&program).with_context(|| format!("{} can't be read", program.display()))?;
    let present = bytes.windows(EVIDENCE.len()).any(|window| window == EVIDENCE);
    ensure!(present, "{} does not contain the probe's code, so it proves nothing", program.display());
    Ok(program)
}

fn manifest(root: &Path, features: &str) -> String {
    // As TOML basic strings, which Rust's escapes fit for any path that is UTF-8.
    let appliance = format!("{:?}", root.display().to_string());
    let source = format!("{:?}", root.join("xtask/probe/lib.rs").display().to_string());
    format!(
        "[workspace]\n\n[package]\nname = \"probe\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [lib]\npath = {source}\ncrate-type = [\"staticlib\"]\n\n\
         [dependencies]\nminicache = {{ path = {appliance}, {features} }}\n\
         smoltcp = {{ version = \"*\", default-features = false }}\n\n\
         [profile.dev]\npanic = \"abort\"\ndebug = false\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn std_is_found_where_it_is() {
        let error = link("features = [\"std\"]", "with-std").unwrap_err();
        assert!(error.to_string().contains("`panic_impl`"), "a second panic handler must be what fails: {error}");
    }
}
