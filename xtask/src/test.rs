//! The full test run: what has to pass before anything is merged.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, root, step, target};
use crate::tools::{self, TOOLS};
use crate::{kernel, probe};

/// Runs everything, cheapest first; stops at the first failure. The tests come last, so that their own summary ends the
/// output.
pub fn run() -> Result<()> {
    tools::provide(TOOLS);
    step(cargo().args(["fmt", "--all", "--check"]))?;
    step(Command::new("rustfmt").current_dir(root()).args(["--edition", "2024", "--check", "xtask/probe/lib.rs"]))?;
    step(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    let mut lint = cargo();
    lint.args(["clippy", "--quiet", "--package", "minicache", "--bin", "minicache-kernel"]).args(kernel::FEATURES);
    step(lint.arg("--target-dir").arg(target().join("kernel")).args(["--", "--deny", "warnings"]))?;
    kernel::run()?;
    probe::run()?;
    match tools::is_installed("cargo-nextest") {
        true => step(cargo().args(["nextest", "run", "--workspace", "--no-fail-fast"])),
        false => step(cargo().args(["test", "--workspace", "--no-fail-fast"])),
    }
}
