//! Builds the worker: `edge/guest` as a finished component, on a machine with rustup or with
//! Debian's packages alone.
//!
//! Invariant: what is returned is one component of at most [`WORKER_BYTES_MAX`] bytes that imports
//! nothing but `skerry:edge`; no tool beside cargo, rustc and their linker is needed. The std for
//! WASM comes from, in this order: the toolchain's own target folder, `rustup target add`, or a
//! build of Debian's `rust-web-src` that is made once into a cache folder.
//! `SKERRY_WASM_STD=rustup|debian` forces one of the two.

use anyhow::{Context as _, bail, ensure};
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
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Builds the component where anything changed, and returns its path.
pub fn build(verbose: bool) -> anyhow::Result<PathBuf> {
    let root = crate::cargo::root();
    let target_dir = std::path::absolute(crate::cargo::target())?;
    let sysroot = rustc_sysroot(&root)?;
    let std = find_std(&root, &sysroot, verbose)?;
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
    match &std {
        Std::Rustup => {}
        Std::Debian { rustc } => {
            cargo.env("RUSTC", rustc);
        }
    }
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

/// Where the std for the target comes from.
enum Std {
    Rustup,
    Debian { rustc: PathBuf },
}

fn find_std(root: &Path, sysroot: &Path, verbose: bool) -> anyhow::Result<Std> {
    let forced = std::env::var("SKERRY_WASM_STD").unwrap_or_default();
    let installed = || {
        sysroot
            .join("lib/rustlib")
            .join(TARGET)
            .join("lib")
            .is_dir()
    };
    match forced.as_str() {
        "debian" => return debian_std(root, verbose),
        "" | "rustup" => {}
        other => bail!("SKERRY_WASM_STD={other}: rustup or debian"),
    }
    if installed() {
        return Ok(Std::Rustup);
    }
    // A std that was already built is there at once; asking rustup again would need the network.
    if forced.is_empty()
        && let Some(rustc) = cached_debian_rustc()
    {
        return Ok(Std::Debian { rustc });
    }
    eprintln!("installing the std of {TARGET} (rustup target add {TARGET})");
    let added = Command::new("rustup")
        .current_dir(root)
        .args(["target", "add", TARGET])
        .output();
    if added.is_ok_and(|output| output.status.success()) && installed() {
        return Ok(Std::Rustup);
    }
    if forced == "rustup" {
        bail!(
            "rustup could not add {TARGET}; run `rustup target add {TARGET}` and read what it says"
        );
    }
    debian_std(root, verbose).with_context(|| {
        format!("no std for {TARGET}: run `rustup target add {TARGET}`, or on Debian install {DEBIAN_PACKAGES:?} as root")
    })
}

/// The wrapper around Debian's rustc, where its std has been built before.
fn cached_debian_rustc() -> Option<PathBuf> {
    let rustc = debian_sysroot().ok()?.join("rustc");
    rustc.is_file().then_some(rustc)
}

fn debian_std(root: &Path, verbose: bool) -> anyhow::Result<Std> {
    if !Path::new(DEBIAN_STD).is_file()
        || !Path::new(DEBIAN_CARGO).is_file()
        || !Path::new(DEBIAN_RUSTC).is_file()
    {
        install_debian()?;
    }
    let home = debian_sysroot()?;
    let rustc = home.join("rustc");
    if !rustc.is_file() {
        eprintln!("building the std of {TARGET} once, into {}", home.display());
        build_debian_std(root, &home, verbose)?;
    }
    Ok(Std::Debian { rustc })
}

fn install_debian() -> anyhow::Result<()> {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    ensure!(
        root && Path::new("/usr/bin/apt-get").is_file(),
        "run `rustup target add {TARGET}` where rustup is, or as root `apt-get install {}`",
        DEBIAN_PACKAGES.join(" ")
    );
    eprintln!("installing {}", DEBIAN_PACKAGES.join(" "));
    let install = || {
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(DEBIAN_PACKAGES)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
    };
    let mut done = install()?;
    if !done.status.success() {
        run(Command::new("apt-get").arg("update"), false).context("apt-get update fails")?;
        done = install()?;
    }
    ensure!(
        done.status.success(),
        "apt-get install {} fails: {}",
        DEBIAN_PACKAGES.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

/// One folder for each version of Debian's compiler.
fn debian_sysroot() -> anyhow::Result<PathBuf> {
    let version = output(Command::new(DEBIAN_RUSTC).arg("--version"))?;
    let version: String = version
        .trim_start_matches("rustc ")
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    Ok(crate::cargo::cache()?.join(format!("wasm-sysroot-{}", version.trim_matches('-'))))
}

/// Builds std into a scratch folder beside `home` and renames it into place, so that an interrupted
/// build leaves nothing that looks finished.
fn build_debian_std(root: &Path, home: &Path, verbose: bool) -> anyhow::Result<()> {
    let parent = home.parent().context("the cache folder has no parent")?;
    let scratch = parent.join(format!("wasm-sysroot-new-{}", std::process::id()));
    let source = scratch.join("scratch");
    fs::create_dir_all(source.join("src"))?;
    fs::write(source.join("src/lib.rs"), "")?;
    fs::write(
        source.join("Cargo.toml"),
        "[package]\nname = \"scratch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n",
    )?;
    let built = scratch.join("target");
    let mut cargo = Command::new(DEBIAN_CARGO);
    cargo
        .current_dir(&source)
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "-Zbuild-std=std,panic_abort",
            "--target-dir",
        ])
        .arg(&built)
        .env("RUSTC", DEBIAN_RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        // Without embedded bitcode, LTO of what uses this std fails.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cembed-bitcode=yes")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    run(&mut cargo, verbose).context("Debian's std does not build")?;

    let rustlib = scratch.join("sysroot/lib/rustlib");
    let libs = rustlib.join(TARGET).join("lib");
    fs::create_dir_all(&libs)?;
    for entry in fs::read_dir(built.join(TARGET).join("release/deps"))? {
        let path = entry?.path();
        if let Some(name) = path
            .file_name()
            .filter(|_| path.extension().is_some_and(|e| e == "rlib"))
        {
            fs::copy(&path, libs.join(name))?;
        }
    }
    let host = host_triple(Path::new(DEBIAN_RUSTC), root)?;
    let host_lib = Path::new("/usr/lib/rustlib").join(&host);
    symlink(&host_lib, &rustlib.join(&host))?;
    fs::remove_dir_all(&source)?;
    fs::remove_dir_all(&built)?;
    // The wrapper names the folder's final place.
    let wrapper = scratch.join("rustc");
    let sysroot = home.join("sysroot");
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nexec {DEBIAN_RUSTC} --sysroot '{}' \"$@\"\n",
            sysroot.display()
        ),
    )?;
    make_executable(&wrapper)?;
    match fs::rename(&scratch, home) {
        Ok(()) => Ok(()),
        // Another build was faster.
        Err(_) if home.join("rustc").is_file() => Ok(fs::remove_dir_all(&scratch)?),
        Err(error) => {
            Err(error).with_context(|| format!("cannot move the std to {}", home.display()))
        }
    }
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

fn rustc_sysroot(root: &Path) -> anyhow::Result<PathBuf> {
    let sysroot = output(
        Command::new("rustc")
            .current_dir(root)
            .args(["--print", "sysroot"]),
    )
    .context("rustc does not run: install Rust from https://rustup.rs")?;
    Ok(PathBuf::from(sysroot.trim()))
}

fn host_triple(rustc: &Path, root: &Path) -> anyhow::Result<String> {
    let version = output(Command::new(rustc).current_dir(root).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
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

#[cfg(unix)]
fn make_executable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> anyhow::Result<()> {
    Ok(std::os::unix::fs::symlink(to, at)?)
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs to the end; what it says goes to stderr at once where `verbose`, else only when it fails.
fn run(command: &mut Command, verbose: bool) -> anyhow::Result<()> {
    if verbose {
        command.stdout(std::io::stderr());
        let status = command
            .status()
            .with_context(|| format!("cannot run {command:?}"))?;
        ensure!(
            status.success(),
            "{:?} ends with {status}",
            command.get_program()
        );
        return Ok(());
    }
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("{:?} ends with {}", command.get_program(), output.status);
    }
    Ok(())
}
