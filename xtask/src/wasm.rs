//! Builds the worker: `edge/guest` as a finished component, on a machine with rustup or with
//! Debian's packages alone.
//!
//! Invariant: what is returned is one component of at most [`WORKER_BYTES_MAX`] bytes that imports
//! nothing but `skerry:edge`; no tool beside cargo, rustc and their linker is needed. Where the std for
//! WASM comes from, `sysroot` says.

use crate::sysroot::{Target, run, rustc_sysroot};
use anyhow::{Context as _, ensure};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Largest finished component, in bytes: what edge platforms take as a small worker.
pub const WORKER_BYTES_MAX: u64 = 1_500_000;
/// File name of the finished component in the target folder.
pub const WORKER_FILE: &str = "skerry-edge.component.wasm";

const TARGET: &str = "wasm32-unknown-unknown";
const PACKAGE: &str = "skerry-edge-guest";
const ARTIFACT: &str = "skerry_edge_guest.wasm";
const PROFILE: &str = "worker";
/// The guest's own stack, in bytes; the pages below it trap on overflow.
const GUEST_STACK_BYTES: u32 = 256 << 10;
const STD: Target = Target {
    triple: TARGET,
    name: "wasm",
    crates: "std,panic_abort",
    // Without embedded bitcode, LTO of what uses this std fails.
    rustflags: "-Cembed-bitcode=yes",
    linker: None,
    forced_by: "SKERRY_WASM_STD",
};

/// Builds the component where anything changed, and returns its path.
pub fn build(verbose: bool) -> anyhow::Result<PathBuf> {
    let root = crate::cargo::root();
    let target_dir = std::path::absolute(crate::cargo::target())?;
    let sysroot = rustc_sysroot(&root)?;
    let std = STD.find_std(&root, verbose)?;
    let linker = find_linker(&sysroot)?;

    let build_dir = target_dir.join("wasm");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&root)
        .args([
            "build",
            "--package",
            PACKAGE,
            "--profile",
            PROFILE,
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&build_dir)
        // The caller's flags are for the native build; encoded flags win over every other source.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags())
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &linker)
        .env(
            "PATH",
            path_with(linker.parent().map(|bin| bin.join("gcc-ld"))),
        );
    std.apply(&mut cargo);
    if !verbose {
        cargo.arg("--quiet");
    }
    run(&mut cargo, verbose).context("the worker does not build")?;

    let built = build_dir.join(TARGET).join(PROFILE).join(ARTIFACT);
    let bytes = fs::read(&built).with_context(|| format!("no component at {}", built.display()))?;
    check_component(&bytes)?;
    let finished = target_dir.join(WORKER_FILE);
    // An unchanged file keeps its time, so that what embeds it is not rebuilt.
    if fs::read(&finished).ok().as_deref() != Some(bytes.as_slice()) {
        write_atomically(&finished, &bytes)?;
    }
    Ok(finished)
}

fn check_component(bytes: &[u8]) -> anyhow::Result<()> {
    // Preamble of a component: magic, version 13, layer 1.
    const COMPONENT: [u8; 8] = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];
    ensure!(
        bytes.starts_with(&COMPONENT),
        "the linker made something that is not a component: it must be the toolchain's wasm-component-ld"
    );
    let size = bytes.len() as u64;
    ensure!(
        size <= WORKER_BYTES_MAX,
        "the worker has {size} bytes, more than the {WORKER_BYTES_MAX} allowed"
    );
    Ok(())
}

fn rustflags() -> String {
    let flags = [
        "-Ctarget-feature=+simd128".to_owned(),
        format!("-Clink-arg=-zstack-size={GUEST_STACK_BYTES}"),
    ];
    flags.join("\u{1f}")
}

/// The toolchain's own component linker: it turns the module into a finished component.
fn find_linker(sysroot: &Path) -> anyhow::Result<PathBuf> {
    let rustlib = sysroot.join("lib/rustlib");
    let folders =
        fs::read_dir(&rustlib).with_context(|| format!("cannot read {}", rustlib.display()))?;
    folders
        .flatten()
        .map(|entry| entry.path().join("bin/wasm-component-ld"))
        .find(|linker| linker.is_file())
        .with_context(|| {
            format!(
                "no wasm-component-ld below {}: install the toolchain by rustup",
                rustlib.display()
            )
        })
}

fn path_with(first: Option<PathBuf>) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = first.into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(all).unwrap_or(path)
}

fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))
}
