//! `cargo xtask quality`: the quality of the answers that a client gets over HTTP, held against
//! `skerry eval`.

use anyhow::Context;
use clap::Parser;
use skerry_scenarios::{quality, real_data};
use std::path::PathBuf;

/// Quality over HTTP, as a client sees it (protocol: each user's last positive left out).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask quality")]
struct Args {
    /// A MovieLens folder.
    #[arg(long)]
    data: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let data = args.data.or_else(|| real_data("ml-latest-small"));
    let data = data.context("no MovieLens folder: give one with --data")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(quality::measure(&data))?;
    if args.json {
        println!("{}", figures.to_json());
    } else {
        println!("{figures}");
    }
    Ok(())
}
