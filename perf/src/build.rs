//! What is measured, built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where what is built goes.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn cargo(arguments: &[&str], what: &str) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).current_dir(root()).args(arguments).status().context("can't start cargo")?;
    ensure!(built.success(), "{what} does not build");
    Ok(())
}

/// Builds the command, and returns its path.
pub fn command() -> Result<PathBuf> {
    cargo(&["build", "--quiet", "--release", "--package", "minicache-cli"], "minicache")?;
    Ok(target().join("release/minicache"))
}

/// Builds the kernel, and returns its path.
pub fn kernel() -> Result<PathBuf> {
    cargo(&["xtask", "kernel"], "the kernel")?;
    Ok(target().join("minicache.elf"))
}

/// Packs a folder into an image, and returns its path.
pub fn pack(minicache: &Path, folder: &Path, image: &Path) -> Result<PathBuf> {
    let output = Command::new(minicache).arg("pack").arg(folder).arg(image).output()?;
    ensure!(output.status.success(), "minicache pack: {}", String::from_utf8_lossy(&output.stderr));
    Ok(image.to_owned())
}
