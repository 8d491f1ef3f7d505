//! The product: the worker first, then the one binary that carries it, and running either.

use crate::cargo::{cache, cargo, root, step, target};
use crate::wasm;
use anyhow::Context;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// The native part of the workspace, always selected whole: features, and with them what
/// dependencies are compiled, are then the same for the binary, the tests and the tools.
pub const NATIVE: &[&str] = &["--release", "--workspace", "--exclude", "skerry-edge-guest"];

/// Builds the worker and the binary with these of its features; its path.
pub fn build(features: &[String]) -> anyhow::Result<PathBuf> {
    let worker = wasm::build(false)?;
    let mut command = cargo(&[&["build"], NATIVE, &["--bin", "skerry"]].concat());
    for feature in features {
        command.args(["--features", &format!("skerry/{feature}")]);
    }
    step("build the binary", command.env("SKERRY_WORKER", &worker))?;
    Ok(target().join("release/skerry"))
}

/// Builds, then becomes `skerry up`: signals and stdout are its own.
pub fn up(args: &[String]) -> anyhow::Result<()> {
    let binary = build(&[])?;
    let error = Command::new(&binary).arg("up").args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

/// Builds the product and a tool of this workspace, then becomes that tool.
pub fn run_tool(tool: &str, args: &[String]) -> anyhow::Result<()> {
    let worker = wasm::build(false)?;
    let mut command = cargo(&[&["build"], NATIVE, &["--bin", "skerry", "--bin", tool]].concat());
    step(
        &format!("build skerry and {tool}"),
        command.env("SKERRY_WORKER", &worker),
    )?;
    let path = target().join("release").join(tool);
    let error = Command::new(&path)
        .args(args)
        .env("SKERRY_BIN", target().join("release/skerry"))
        .env("SKERRY_WORKER", &worker)
        .env("SKERRY_DATA_DIR", data())
        .exec();
    Err(error).with_context(|| format!("cannot start {}", path.display()))
}

/// Builds the vector benchmark alone (it needs neither the product nor the worker), then becomes it.
pub fn bench_vector(args: &[String]) -> anyhow::Result<()> {
    let tool = "skerry-bench-vector";
    step(
        &format!("build {tool}"),
        &mut cargo(&["build", "--release", "--package", tool]),
    )?;
    let path = target().join("release").join(tool);
    let error = Command::new(&path)
        .args(args)
        .env("SKERRY_CACHE", cache()?)
        .env("SKERRY_DATA_DIR", data())
        .env("SKERRY_BENCH_SCRIPTS", root().join("benches/vector"))
        .exec();
    Err(error).with_context(|| format!("cannot start {}", path.display()))
}

/// Where real data lies when there is any: beside the checkout.
pub fn data() -> PathBuf {
    root().join("../shared/data")
}
