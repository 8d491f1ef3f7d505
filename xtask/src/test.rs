//! `cargo xtask test`: everything that must hold, cheapest first.

use crate::cargo::{cargo, step, target};
use crate::product::NATIVE;
use crate::{product, s3, tidy, tools, wasm};
use std::path::PathBuf;
use std::process::Command;

pub fn run(quick: bool) -> anyhow::Result<()> {
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    tidy::run()?;
    let mut all = Selection {
        worker: wasm::build(false)?,
        features: Vec::new(),
        s3: None,
    };
    if !quick {
        all.add_what_can_be_built()?;
    }
    step(
        "build the binary",
        &mut all.cargo("build", &["--bin", "skerry"]),
    )?;
    let lints = ["--all-targets", "--", "-D", "warnings"];
    step("lints", &mut all.cargo("clippy", &lints))?;
    step("tests", &mut all.cargo("test", &[]))?;
    // Real processes, real time: one at a time.
    let alone = [
        "--test",
        "scenarios",
        "--",
        "--test-threads=1",
        "--nocapture",
        "--include-ignored",
    ];
    let mut scenarios = all.cargo("test", &alone);
    scenarios.env("SKERRY_BIN", target().join("release/skerry"));
    step("scenarios with real processes", &mut scenarios)?;
    if quick {
        eprintln!(
            "== left out by --quick: optional features (etcd and S3 among them), dependency checks, sanitizer, fuzzing"
        );
        return Ok(());
    }
    // What `cargo xtask up` builds has none of the optional features.
    all.features.clear();
    let mut check = all.cargo("check", &["--lib", "--bins"]);
    step("without optional features", &mut check)?;
    tools::deny()?;
    tools::asan()?;
    tools::fuzz(60)
}

/// One profile and one selection of packages and features for the binary, the tests and the lints:
/// dependencies are compiled once.
struct Selection {
    worker: PathBuf,
    features: Vec<&'static str>,
    s3: Option<s3::Server>,
}

impl Selection {
    fn cargo(&self, what: &str, args: &[&str]) -> Command {
        let features: Vec<&str> = self
            .features
            .iter()
            .flat_map(|feature| ["--features", *feature])
            .collect();
        let mut command = cargo(&[&[what], NATIVE, &features, args].concat());
        command
            .env("SKERRY_WORKER", &self.worker)
            .env("SKERRY_DATA_DIR", product::data());
        if let Some(server) = &self.s3 {
            server.told(&mut command);
        }
        command
    }
    fn add_what_can_be_built(&mut self) -> anyhow::Result<()> {
        self.features.push("skerry/parquet");
        if tools::etcd() {
            self.features
                .extend(["skerry/etcd", "skerry-scenarios/etcd"]);
        } else {
            eprintln!("== shards with etcd were NOT tested");
        }
        self.s3 = s3::Server::start()?;
        if self.s3.is_some() {
            self.features.push("skerry/s3");
        } else {
            eprintln!("== snapshots in S3 were NOT tested");
        }
        Ok(())
    }
}
