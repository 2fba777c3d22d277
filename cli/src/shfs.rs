//! Looks into SHFS images.

/// Arguments of `minicache shfs`.
#[derive(clap::Args)]
pub struct Arguments {}

/// Runs `minicache shfs`.
pub fn run(_arguments: Arguments) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
