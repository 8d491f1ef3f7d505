//! `cargo xtask neon`: the tests of the inner loops as a machine with NEON runs them.
//!
//! Invariant: success means that they ran. On aarch64 they run as they are; elsewhere they are built
//! for it, with Debian's cross linker and a std of `sysroot`, and run in an emulator. An emulator shows
//! results, not speed, and keeps the host's order of memory.

use crate::cargo::{cargo, root, step, succeeds};
use crate::sysroot::{Target, install, linker_variable};
use anyhow::Context as _;
use std::process::Command;

const STD: Target = Target {
    triple: "aarch64-unknown-linux-gnu",
    name: "aarch64",
    crates: "std,panic_unwind,test",
    rustflags: "",
    linker: Some(LINKER),
    forced_by: "SKERRY_NEON_STD",
};
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64";
/// Where Debian keeps the C library of the target.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
const PACKAGES: [&str; 3] = [
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user",
];
/// Tests by the modules that they name: all that reaches a kernel and takes seconds.
const MODULES: [&str; 4] = ["kernels", "memory", "codes", "exact"];
/// It starts itself as another process, which an emulator of one process cannot.
const NOT_EMULATED: &str = "survives_kill_9";

/// Builds and runs the tests of the inner loops, or of the whole index.
pub fn run(all: bool, verbose: bool) -> anyhow::Result<()> {
    let mut command = cargo(&["test", "--release", "--lib"]);
    command.args(["--package", "skerry-vector-index"]);
    let native = cfg!(target_arch = "aarch64");
    if !native {
        emulate(&mut command, verbose).context("NEON was NOT checked")?;
    }
    command.arg("--");
    match (all, native) {
        (false, _) => command.args(MODULES),
        (true, true) => &mut command,
        (true, false) => {
            eprintln!("== not run, since it cannot be emulated: {NOT_EMULATED}");
            command.args(["--skip", NOT_EMULATED])
        }
    };
    step("NEON gives the bits of plain Rust", &mut command)
}

/// Makes `cargo test` build for the target and run in the emulator.
fn emulate(command: &mut Command, verbose: bool) -> anyhow::Result<()> {
    let there = |tool: &str| succeeds(Command::new(tool).arg("--version"));
    if !there(LINKER) || !there(EMULATOR) {
        install(&PACKAGES).with_context(|| format!("{LINKER} and {EMULATOR} are needed"))?;
    }
    STD.find_std(&root(), verbose)?.apply(command);
    let linker = linker_variable(STD.triple);
    let runner = linker.replace("_LINKER", "_RUNNER");
    command
        .args(["--target", STD.triple])
        // The caller's flags are for the machine's own builds.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        .env(linker, LINKER)
        .env(runner, format!("{EMULATOR} -L {LIBRARIES}"));
    Ok(())
}
