//! `cargo xtask test`: everything that must hold, cheapest first.

use crate::cargo::{cargo, step, target};
use crate::product::NATIVE;
use crate::{product, s3, tidy, tools, wasm};

pub fn run(quick: bool) -> anyhow::Result<()> {
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    tidy::run()?;
    let worker = wasm::build(false)?;
    // One profile and one selection for the binary, the tests and the lints: dependencies are
    // compiled once.
    let with_worker = |args: &[&[&str]]| {
        let mut command = cargo(&args.concat());
        command
            .env("SKERRY_WORKER", &worker)
            .env("SKERRY_DATA_DIR", product::data());
        command
    };
    step(
        "build the binary",
        &mut with_worker(&[&["build"], NATIVE, &["--bin", "skerry"]]),
    )?;
    step(
        "lints",
        &mut with_worker(&[
            &["clippy"],
            NATIVE,
            &["--all-targets", "--", "-D", "warnings"],
        ]),
    )?;
    step("tests", &mut with_worker(&[&["test"], NATIVE]))?;
    // Real processes, real time: one at a time.
    let alone = [
        "--test",
        "scenarios",
        "--",
        "--test-threads=1",
        "--nocapture",
        "--include-ignored",
    ];
    let mut scenarios = with_worker(&[&["test"], NATIVE, &alone]);
    scenarios.env("SKERRY_BIN", target().join("release/skerry"));
    step("scenarios with real processes", &mut scenarios)?;
    if quick {
        eprintln!(
            "== left out by --quick: optional features (etcd and S3 among them), dependency checks, sanitizer, fuzzing"
        );
        return Ok(());
    }
    // By itself: the whole selection with one more feature would compile wasmtime again.
    let imports = ["test", "--release", "--lib", "imports"];
    let parquet = [
        "--package",
        "skerry-origin-gateway",
        "--features",
        "parquet",
    ];
    step("feature parquet", &mut with_worker(&[&imports, &parquet]))?;
    shards()?;
    snapshots()?;
    tools::deny()?;
    tools::asan()?;
    tools::fuzz(60)
}

/// Snapshots in a real S3 server.
fn snapshots() -> anyhow::Result<()> {
    let Some(server) = s3::Server::start()? else {
        eprintln!("== snapshots in S3 were NOT tested");
        return Ok(());
    };
    let all = ["test", "--release", "--package", "skerry-vector-backup"];
    let mut command = cargo(&[all.as_slice(), &["--features", "s3"]].concat());
    step("snapshots in S3", server.told(&mut command))
}

/// Coordination by a real etcd, and shard processes that are killed.
fn shards() -> anyhow::Result<()> {
    if !tools::etcd() {
        eprintln!("== shards with etcd were NOT tested");
        return Ok(());
    }
    let all = ["test", "--release", "--package", "skerry-vector-shard"];
    let etcd = ["--features", "etcd"];
    step(
        "shards with etcd",
        &mut cargo(&[all.as_slice(), &etcd].concat()),
    )?;
    // The operators' commands need the whole binary, with etcd in it.
    let binary = product::build(&["etcd".to_owned()])?;
    let scenario = ["test", "--release", "--package", "skerry-scenarios"];
    let alone = [
        "--test",
        "scenarios",
        "--",
        "--nocapture",
        "--include-ignored",
        "shards::",
    ];
    let mut scenario = cargo(&[scenario.as_slice(), &etcd, &alone].concat());
    scenario.env("SKERRY_BIN", binary);
    step("shard processes and their operators", &mut scenario)
}
