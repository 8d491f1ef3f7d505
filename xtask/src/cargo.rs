//! Where things lie, and running commands: one place that knows the checkout, the target folder
//! and the cache folder.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The root of the checkout. Read when it runs: checkouts that share a target folder share this
/// binary too.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    manifest
        .as_deref()
        .and_then(Path::parent)
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || root().join("target"),
        |dir| root().join(PathBuf::from(dir)),
    )
}

/// `${SKERRY_CACHE:-${XDG_CACHE_HOME:-~/.cache}/skerry}`: tools and peers, made where it is missing.
pub fn cache() -> anyhow::Result<PathBuf> {
    let var = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let dir = match (var("SKERRY_CACHE"), var("XDG_CACHE_HOME"), var("HOME")) {
        (Some(dir), ..) => dir,
        (None, Some(dir), _) => dir.join("skerry"),
        (None, None, Some(home)) => home.join(".cache/skerry"),
        (None, None, None) => bail!("no cache folder: set SKERRY_CACHE or HOME"),
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// `cargo` with arguments, in the root of the checkout.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    // Those of the `cargo run` that started us: they describe xtask, and would make build scripts
    // of the inner cargo believe that something changed.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "CARGO_CRATE_NAME"
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a step to its end with its stdout on our stderr; says what it does and how long it took.
pub fn step(what: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("== {what}");
    let started = Instant::now();
    let status = command
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{what}: cannot start {command:?}"))?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    eprintln!(
        "== {what}: done in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Whether a command runs and succeeds, silently.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
