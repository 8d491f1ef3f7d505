//! `skerry bench`: points to where speed is measured, which needs the sources and their peers.

#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_: &Args) -> anyhow::Result<()> {
    anyhow::bail!(
        "speed is measured against peers from a checkout of the sources: `cargo xtask bench edge` \
         (a table; `--json` for programs, `--quick` for at most a minute)"
    )
}
