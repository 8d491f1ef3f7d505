//! The binary `skerry`: one file per command. This file is the table of contents: parse, set up
//! the log, run one command, turn what it says into an exit code (0 done, 1 failed, 2 usage).
//!
//! Invariant: stdout carries answers only; logs, progress and errors go to stderr.

#![forbid(unsafe_code)]

mod client;
mod commands;
mod data;
mod etcd;
mod output;
mod roles;
mod settings;

use clap::{Parser, Subcommand};
use commands::{
    bench, config, doctor, eval, explain, get, import, keys, origin, pop, shard, train, up, vector,
};
use settings::Settings;
use std::process::ExitCode;

/// Answers are made of many small allocations that cross threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Recommendations at the edge, with and without their origin.
#[derive(Debug, Parser)]
#[command(name = "skerry", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Configuration file; `skerry.toml` in the current folder where there is one.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Log level, or a filter such as `info,skerry_edge_pop=debug`.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  skerry up                                       a seeded catalogue, everything on this machine
  skerry up --data ml-latest-small                a folder of MovieLens files
  skerry get recommend 1                          a table with titles and reasons
  skerry eval --data ml-latest-small --protocol loo --json";

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole system on one machine.
    Up(up::Args),
    /// An origin: trains, ranks, and pushes to its PoPs.
    Origin(origin::Args),
    /// A point of presence: answers users.
    Pop(pop::Args),
    /// A node that holds shards of the vector index.
    Vector(Box<vector::Args>),
    /// Look at shards, split one, move slots, put replicas elsewhere.
    Shard(shard::Args),
    /// Bring items and events into a running origin.
    Import(import::Args),
    /// Train embeddings and the default ranker on a folder, and say what came out.
    Train(train::Args),
    /// Measure the quality of the serving pipeline, rung by rung.
    Eval(eval::Args),
    /// Ask a PoP.
    Get(get::Args),
    /// Show the whole decision behind an answer.
    Explain(explain::Args),
    /// Make certificates and API keys.
    Keys(keys::Args),
    /// Say what is wrong with this installation.
    Doctor(doctor::Args),
    /// Show each setting and where it came from.
    Config(config::Args),
    /// Say how to measure speed.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<settings::UsageError>() {
                ExitCode::from(2)
            } else {
                ExitCode::from(1)
            }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(cli.config.as_deref(), std::env::vars())?;
    let format = settings.parsed("node.log_format", None)?;
    skerry_telemetry::init_log(format, &settings.text("node.log", cli.log)?)
        .map_err(|error| settings::usage(error.to_string()))?;
    match cli.command {
        Command::Up(args) => up::run(args, &settings)?,
        Command::Origin(args) => origin::run(args, &settings)?,
        Command::Pop(args) => pop::run(args, &settings)?,
        Command::Vector(args) => return vector::run(*args, &settings),
        Command::Shard(args) => shard::run(&args, &settings)?,
        Command::Import(args) => return import::run(&args, &settings),
        Command::Train(args) => train::run(&args, &settings)?,
        Command::Eval(args) => eval::run(&args, &settings)?,
        Command::Get(args) => get::run(&args, &settings)?,
        Command::Explain(args) => explain::run(&args, &settings)?,
        Command::Keys(args) => keys::run(&args)?,
        Command::Doctor(args) => return doctor::run(&args, &settings),
        Command::Config(args) => config::run(&args, &settings)?,
        Command::Bench(args) => bench::run(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
