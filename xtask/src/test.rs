//! The full test run: what has to pass before anything is merged.

use std::process::Command;

use anyhow::Result;

use crate::probe;
use crate::run::{cargo, root, step};
use crate::tools::{self, TOOLS};

/// Runs everything, cheapest first; stops at the first failure. The tests come last, so that their own summary ends the
/// output.
pub fn run() -> Result<()> {
    tools::provide(TOOLS);
    step(cargo().args(["fmt", "--all", "--check"]))?;
    step(Command::new("rustfmt").current_dir(root()).args(["--edition", "2024", "--check", "xtask/probe/lib.rs"]))?;
    step(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    probe::run()?;
    match tools::is_installed("cargo-nextest") {
        true => step(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"])),
        false => step(cargo().args(["test", "--workspace", "--no-fail-fast"])),
    }
}
