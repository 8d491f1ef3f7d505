//! `cargo xtask test`: everything that must hold, cheapest first.

use crate::cargo::{cargo, step, target};
use crate::{product, tidy, tools, wasm};

pub fn run(quick: bool) -> anyhow::Result<()> {
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    tidy::run()?;
    let worker = wasm::build(false)?;
    let with_worker = |args: &[&str]| {
        let mut command = cargo(args);
        command.env("SKERRY_WORKER", &worker);
        command
    };
    // One profile for the binary, the tests and the lints: dependencies are compiled once.
    step(
        "build the binary",
        &mut with_worker(&["build", "--release", "--package", "skerry"]),
    )?;
    let lints = [
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--exclude",
        "skerry-edge-guest",
    ];
    step(
        "lints",
        &mut with_worker(&[&lints[..], &["--", "-D", "warnings"]].concat()),
    )?;
    let not_here = [
        "--exclude",
        "skerry-edge-guest",
        "--exclude",
        "skerry-scenarios",
    ];
    let unit = [&["test", "--release", "--workspace"][..], &not_here].concat();
    step(
        "tests",
        with_worker(&unit).env("SKERRY_DATA_DIR", product::data()),
    )?;
    // Real processes, real time: one at a time.
    let scenarios = [
        "test",
        "--release",
        "--package",
        "skerry-scenarios",
        "--",
        "--test-threads=1",
        "--nocapture",
    ];
    let mut command = with_worker(&scenarios);
    command
        .env("SKERRY_BIN", target().join("release/skerry"))
        .env("SKERRY_DATA_DIR", product::data());
    step("scenarios with real processes", &mut command)?;
    if quick {
        eprintln!("== left out by --quick: dependency checks, fuzzing");
        return Ok(());
    }
    tools::deny()?;
    tools::fuzz(60)
}
