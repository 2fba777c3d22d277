//! Serves a folder or an SHFS volume over HTTP from this process.

/// Arguments of `minicache serve`.
#[derive(clap::Args)]
pub struct Arguments {}

/// Runs `minicache serve`.
pub fn run(_arguments: Arguments) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
