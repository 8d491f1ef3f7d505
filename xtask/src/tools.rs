//! Tools that are installed once: cargo-deny and cargo-fuzz into the cache folder, etcd by the system.

use crate::cargo::{cache, cargo, root, step, succeeds};
use std::path::PathBuf;
use std::process::Command;

/// Pinned, so that a new release never breaks an old commit.
const DENY: (&str, &str) = ("cargo-deny", "0.20.2");
const FUZZ: (&str, &str) = ("cargo-fuzz", "0.13.2");

/// The tool's binary, installed where it is missing.
fn installed((name, version): (&str, &str)) -> anyhow::Result<PathBuf> {
    let home = cache()?.join("tools").join(format!("{name}-{version}"));
    let binary = home.join("bin").join(name);
    if !binary.exists() {
        let mut command = cargo(&["install", "--locked", "--root"]);
        command
            .arg(&home)
            .args([name, "--version", version, "--target-dir"]);
        step(
            &format!("install {name} {version} (once)"),
            command.arg(home.join("target")),
        )?;
        // What it was built from is not needed again.
        std::fs::remove_dir_all(home.join("target")).ok();
    }
    Ok(binary)
}

/// Licences, bans and sources must hold; advisories are checked where their database can be had.
pub fn deny() -> anyhow::Result<()> {
    let deny = installed(DENY)?;
    let mut command = Command::new(&deny);
    step(
        "deny",
        command.current_dir(root()).args([
            "--all-features",
            "check",
            "bans",
            "licenses",
            "sources",
        ]),
    )?;
    if succeeds(Command::new(&deny).current_dir(root()).arg("fetch")) {
        return step(
            "advisories",
            Command::new(&deny)
                .current_dir(root())
                .args(["--all-features", "check", "advisories"]),
        );
    }
    eprintln!("== advisories were NOT checked: their database cannot be fetched from here");
    Ok(())
}

/// Runs the tests of everything `unsafe` with an address sanitizer.
pub fn asan() -> anyhow::Result<()> {
    let Some(mut command) = nightly()? else {
        eprintln!("== the address sanitizer was NOT run: no nightly toolchain");
        return Ok(());
    };
    // A target of its own: without one, build scripts would be sanitized too.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    command
        .env("CARGO_TARGET_DIR", cache()?.join("asan-target"))
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .args(["+nightly", "test", "--release", "--lib", "--target", &host])
        .args(["--package", "skerry-vector-index", "--"])
        .args(["kernels", "memory", "graph", "exact", "codes", "bits"]);
    step("address sanitizer on kernels and graphs", &mut command)
}

/// `cargo` as the nightly toolchain has it; `None` where there is none.
fn nightly() -> anyhow::Result<Option<Command>> {
    if !succeeds(Command::new("cargo").args(["+nightly", "--version"])) {
        return Ok(None);
    }
    let mut command = Command::new("cargo");
    command
        .current_dir(root())
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    Ok(Some(command))
}

/// Whether etcd and `protoc` are here; where they can be installed (Debian, as root), they are.
pub fn etcd() -> bool {
    let has = |name: &str| succeeds(Command::new(name).arg("--version"));
    let both = || has("etcd") && has("protoc");
    if both() {
        return true;
    }
    let install = ["install", "--yes", "etcd-server", "protobuf-compiler"];
    let installed = succeeds(Command::new("apt-get").args(["update", "--quiet"]))
        && succeeds(Command::new("apt-get").args(install));
    if installed && both() {
        return true;
    }
    eprintln!("== etcd is missing: apt-get install etcd-server protobuf-compiler");
    false
}

/// Runs every target of `fuzz/` for its share of `seconds`.
pub fn fuzz(seconds: u64) -> anyhow::Result<()> {
    let dir = root().join("fuzz");
    let mut targets: Vec<String> = std::fs::read_dir(dir.join("fuzz_targets"))
        .map(|files| {
            files
                .flatten()
                .filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned()))
                .collect()
        })
        .unwrap_or_default();
    targets.sort();
    if targets.is_empty() {
        anyhow::bail!("no targets in {}", dir.display());
    }
    let fuzz = installed(FUZZ)?;
    let each = (seconds / targets.len() as u64).max(5);
    let target_dir = cache()?.join("fuzz-target");
    for target in &targets {
        let Some(mut command) = nightly()? else {
            eprintln!("== fuzzing was NOT done: no nightly toolchain");
            return Ok(());
        };
        command.env("CARGO_TARGET_DIR", &target_dir);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = vec![fuzz.parent().map(PathBuf::from).unwrap_or_default()];
        folders.extend(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?);
        command.args(["+nightly", "fuzz", "run", target, "--"]);
        command.args([
            &format!("-max_total_time={each}"),
            "-verbosity=0",
            "-rss_limit_mb=2048",
            "-max_len=65536",
        ]);
        step(&format!("fuzz {target} for {each} s"), &mut command)?;
    }
    Ok(())
}
