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
mod scale;
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
    /// Only these data sets, by comma: `ml`, `s1`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    sets: Vec<String>,
    /// Only these peers, by comma: `hnswlib`, `faiss`, `usearch`, `hnsw_rs`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    peers: Vec<String>,
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
    /// Measure one large collection and hnswlib on as many made vectors, 1,000,000 unless said, instead
    /// of the data sets: about 45 minutes on two cores, 9 GB of disk and 8 GB of memory at a million.
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "1000000")]
    scale: Option<usize>,
    /// Dimension of the made vectors.
    #[arg(long, requires = "scale", default_value_t = 512)]
    dim: usize,
    /// Threads that both build with, and that the rows of several threads search with.
    #[arg(long, requires = "scale", default_value_t = 2)]
    threads: usize,
    /// Leave hnswlib out, and with it the need for Python.
    #[arg(long, requires = "scale")]
    no_peer: bool,
    /// Build a second collection whose vectors have a bit a component in memory, and compare both.
    #[arg(long, requires = "scale")]
    bits: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One engine behind the line protocol (started by the driver).
    #[command(hide = true)]
    Worker { engine: String },
}

const NO_CACHE: &str = "no cache folder: run it as `cargo xtask bench vector`, or set SKERRY_CACHE";

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
    if let Some(rows) = cli.scale {
        let cache = cli.cache.context(NO_CACHE)?;
        let peer = match cli.no_peer {
            true => None,
            false => Some(prepare::peers(&cache, &cli.scripts)?),
        };
        let plan = scale::Plan::new(rows, cli.dim, cli.threads, cli.bits)?;
        let mut all = vec![compare::kernel()];
        all.extend(scale::run(&prepare::folder(&cache)?, &plan, peer.as_ref())?);
        report::print(&all, cli.json);
        return Ok(());
    }
    let plan = if cli.quick {
        compare::QUICK
    } else {
        compare::FULL
    };
    let sets = chosen(plan.sets, &cli.sets, &["ml", "s1"])?;
    let peers = chosen(plan.peers, &cli.peers, compare::FULL.peers)?;
    let cache = cli.cache.context(NO_CACHE)?;
    let prepared = prepare::prepare(&cache, &cli.scripts, cli.data.as_deref(), &sets)?;
    let mut rows = vec![compare::kernel()];
    for name in sets {
        let set = DataSet::read(&prepared.folder, name)?;
        rows.extend(compare::run(&set, &prepared, plan, &peers)?);
        if name == "ml" && !cli.quick {
            rows.extend(cases::orders(&set, plan.queries)?);
            rows.extend(cases::filters(&set, plan.queries)?);
            rows.extend(cases::churn(&set, plan.queries)?);
        }
    }
    report::print(&rows, cli.json);
    Ok(())
}

/// What the plan has, or what was asked for of all there are.
fn chosen(
    plan: &[&'static str],
    asked: &[String],
    all: &[&'static str],
) -> anyhow::Result<Vec<&'static str>> {
    if asked.is_empty() {
        return Ok(plan.to_vec());
    }
    asked
        .iter()
        .map(|name| {
            all.iter()
                .copied()
                .find(|known| known == name)
                .with_context(|| format!("no {name:?}: there are {}", all.join(", ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_plan_unless_asked_for() {
        let all = ["a", "b", "c"];
        assert_eq!(chosen(&["a"], &[], &all).unwrap(), ["a"]);
        let asked = ["c".to_owned(), "b".to_owned()];
        assert_eq!(chosen(&["a"], &asked, &all).unwrap(), ["c", "b"]);
        let error = chosen(&["a"], &["d".to_owned()], &all).unwrap_err();
        assert_eq!(error.to_string(), "no \"d\": there are a, b, c");
    }
}
