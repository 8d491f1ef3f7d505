//! `cargo xtask bench vector`: our vector index and its peers, alternating, on one thread each.
//!
//! The driver starts one worker process an engine and speaks a line protocol with it, so that CPU time
//! and memory are an engine's own. Invariant: with `--json` stdout carries one JSON array and nothing
//! else; names of rows are stable.

#![forbid(unsafe_code)]

mod cases;
mod compare;
mod dataset;
mod engine;
mod ours;
mod prepare;
mod protocol;
mod sweep;
mod worker;

use anyhow::Context;
use clap::{Parser, Subcommand};
use dataset::DataSet;
use skerry_bench_report as report;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures the vector index against hnswlib, faiss, usearch and hnsw_rs.
///
/// Peers and data are made once in the cache folder (some minutes). A ratio above 1 means that ours is
/// better; CPU time on one thread, speed interpolated at a fixed recall of the ten nearest.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench vector")]
struct Cli {
    /// One JSON array on stdout.
    #[arg(long)]
    json: bool,
    /// Only `ml` and hnswlib, fewer queries and rounds: about a minute once the cache is there.
    #[arg(long)]
    quick: bool,
    /// Where the peers and the data are kept.
    #[arg(long, env = "SKERRY_CACHE", value_name = "DIR", hide_env_values = true)]
    cache: Option<PathBuf>,
    /// Where `ml-latest-small` may be.
    #[arg(
        long,
        env = "SKERRY_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    data: Option<PathBuf>,
    /// The scripts: `benches/vector` of the checkout.
    #[arg(
        long,
        env = "SKERRY_BENCH_SCRIPTS",
        default_value = "benches/vector",
        hide = true
    )]
    scripts: PathBuf,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One engine behind the line protocol (started by the driver).
    #[command(hide = true)]
    Worker { engine: String },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(What::Worker { engine }) = cli.what {
        return worker::run(&engine);
    }
    let (plan, sets): (_, &[&str]) = if cli.quick {
        (compare::QUICK, &["ml"])
    } else {
        (compare::FULL, &["ml", "s1"])
    };
    let cache = cli
        .cache
        .context("no cache folder: run it as `cargo xtask bench vector`, or set SKERRY_CACHE")?;
    let prepared = prepare::prepare(&cache, &cli.scripts, cli.data.as_deref(), sets)?;
    let mut rows = vec![compare::kernel()];
    for name in ["ml", "s1"] {
        if !sets.contains(&name) {
            continue;
        }
        let set = DataSet::read(&prepared.folder, name)?;
        rows.extend(compare::run(&set, &prepared, plan)?);
        if name == "ml" && !cli.quick {
            rows.extend(cases::orders(&set, plan.queries)?);
            rows.extend(cases::filters(&set, plan.queries)?);
            rows.extend(cases::churn(&set, plan.queries)?);
        }
    }
    report::print(&rows, cli.json);
    Ok(())
}
