//! Makes an SHFS image of a folder.

/// Arguments of `minicache pack`.
#[derive(clap::Args)]
pub struct Arguments {}

/// Runs `minicache pack`.
pub fn run(_arguments: Arguments) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
