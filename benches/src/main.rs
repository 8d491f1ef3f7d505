//! `cargo xtask bench edge`: the product and its peers, alternating, in one run.
//!
//! Invariant: with `--json` stdout carries one JSON array and nothing else; names of rows are stable.

#![forbid(unsafe_code)]

mod edge;
mod load;
mod peer;
mod replay;
mod subject;

use clap::{Parser, Subcommand};
use skerry_bench_report as report;

/// Measures speed and size against peers and limits.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The edge: hits, misses, ranking, events, a day of sessions, memory, size.
    Edge {
        /// One JSON array on stdout.
        #[arg(long)]
        json: bool,
        /// Shorter rounds: at most a minute.
        #[arg(long)]
        quick: bool,
    },
    /// A plain hyper server that answers everything with the bytes of a file (used by `edge`).
    #[command(hide = true)]
    Peer { file: std::path::PathBuf },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Peer { file } => peer::run(&file),
        What::Edge { json, quick } => {
            // One thread: the load must not take the server's second core.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let rows = runtime.block_on(edge::run(quick))?;
            report::print(&rows, json);
            Ok(())
        }
    }
}
