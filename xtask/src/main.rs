//! Everything that a contributor types: `cargo xtask up | build | test | bench | ...`.
//!
//! Invariant: stdout carries what the command was asked for (the `ready` line of `up`, the rows of
//! `bench --json`, the path of `wasm`); everything else goes to stderr.

#![forbid(unsafe_code)]

mod cargo;
mod neon;
mod paths;
mod product;
mod s3;
mod sysroot;
mod test;
mod tidy;
mod tools;
mod wasm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Builds, runs, tests and measures Skerry.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything and run `skerry up` with the arguments after `--`.
    #[command(after_help = "Example:\n  cargo xtask up -- --data ../shared/data/ml-latest-small")]
    Up {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the one binary, the worker inside it.
    #[command(after_help = "Example:\n  cargo xtask build --features parquet,s3")]
    Build {
        /// Optional parts of the binary, by comma: `parquet`, `etcd`, `s3`.
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Format check, lints, every test, tidy, and the process-level scenarios.
    Test {
        /// Leave out fuzzing and the dependency checks.
        #[arg(long)]
        quick: bool,
    },
    /// Build the worker component and print its path.
    Wasm {
        #[arg(long)]
        verbose: bool,
    },
    /// Test the vector kernels as a machine with NEON runs them, in an emulator where this is none.
    Neon {
        /// Every test of the index, not those of the kernels alone: minutes in the emulator.
        #[arg(long)]
        all: bool,
        #[arg(long)]
        verbose: bool,
    },
    /// Dependency direction, path pages, ADR numbers, file lengths.
    Tidy,
    /// Licences, bans and sources of the dependencies (`cargo deny`).
    Deny,
    /// Fuzz every target for a minute in all (`cargo fuzz`, where a nightly toolchain is).
    Fuzz {
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Measure: `bench edge|vector [--json] [--quick]`, `bench vector --scale [ROWS]`.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Score the answers of a running system over HTTP, as a client sees them.
    Quality {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Up { args } => product::up(&args),
        Command::Build { features } => {
            product::build(&features).map(|binary| eprintln!("built {}", binary.display()))
        }
        Command::Test { quick } => test::run(quick),
        Command::Wasm { verbose } => {
            wasm::build(verbose).map(|path| println!("{}", path.display()))
        }
        Command::Neon { all, verbose } => neon::run(all, verbose),
        Command::Tidy => tidy::run(),
        Command::Deny => tools::deny(),
        Command::Fuzz { seconds } => tools::fuzz(seconds),
        Command::Bench { args } => match args.split_first() {
            Some((what, args)) if what == "vector" => product::bench_vector(args),
            _ => product::run_tool("skerry-bench", &args),
        },
        Command::Quality { args } => product::run_tool("skerry-quality", &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
