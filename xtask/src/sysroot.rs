//! A std for a target that is not the machine's own, with rustup or with Debian's packages alone.
//!
//! It comes from, in this order: the toolchain's own target folder, a std that was built before,
//! `rustup target add`, or a build of Debian's `rust-web-src` that is made once into the cache folder.
//! The variable that [`Target::forced_by`] names, `rustup` or `debian`, forces one of the two.
//!
//! Invariant: an interrupted build leaves nothing that looks finished.

use anyhow::{Context as _, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// What to build a std for.
pub struct Target {
    pub triple: &'static str,
    /// Begins the name of its folder in the cache.
    pub name: &'static str,
    /// Crates of the std, by comma.
    pub crates: &'static str,
    pub rustflags: &'static str,
    /// What links for it, where the compiler's own linker does not.
    pub linker: Option<&'static str>,
    pub forced_by: &'static str,
}

/// Where the std for the target comes from.
pub enum Std {
    Rustup,
    Debian { rustc: PathBuf },
}

impl Std {
    /// Makes `cargo` use it.
    pub fn apply(&self, cargo: &mut Command) {
        if let Self::Debian { rustc } = self {
            cargo.env("RUSTC", rustc);
        }
    }
}

impl Target {
    pub fn find_std(&self, root: &Path, verbose: bool) -> anyhow::Result<Std> {
        let triple = self.triple;
        let sysroot = rustc_sysroot(root)?;
        let forced = std::env::var(self.forced_by).unwrap_or_default();
        let installed = || {
            sysroot
                .join("lib/rustlib")
                .join(triple)
                .join("lib")
                .is_dir()
        };
        match forced.as_str() {
            "debian" => return self.debian_std(root, verbose),
            "" | "rustup" => {}
            other => bail!("{}={other}: rustup or debian", self.forced_by),
        }
        if installed() {
            return Ok(Std::Rustup);
        }
        // A std that was already built is there at once; asking rustup again would need the network.
        if forced.is_empty()
            && let Some(rustc) = self.cached_debian_rustc()
        {
            return Ok(Std::Debian { rustc });
        }
        eprintln!("installing the std of {triple} (rustup target add {triple})");
        let added = Command::new("rustup")
            .current_dir(root)
            .args(["target", "add", triple])
            .output();
        if added.is_ok_and(|output| output.status.success()) && installed() {
            return Ok(Std::Rustup);
        }
        if forced == "rustup" {
            bail!(
                "rustup could not add {triple}; run `rustup target add {triple}` and read what it says"
            );
        }
        self.debian_std(root, verbose).with_context(|| {
        format!("no std for {triple}: run `rustup target add {triple}`, or on Debian install {DEBIAN_PACKAGES:?} as root")
    })
    }

    /// The wrapper around Debian's rustc, where its std has been built before.
    fn cached_debian_rustc(&self) -> Option<PathBuf> {
        let rustc = self.debian_sysroot().ok()?.join("rustc");
        rustc.is_file().then_some(rustc)
    }

    fn debian_std(&self, root: &Path, verbose: bool) -> anyhow::Result<Std> {
        if !Path::new(DEBIAN_STD).is_file()
            || !Path::new(DEBIAN_CARGO).is_file()
            || !Path::new(DEBIAN_RUSTC).is_file()
        {
            install(&DEBIAN_PACKAGES)?;
        }
        let home = self.debian_sysroot()?;
        let rustc = home.join("rustc");
        if !rustc.is_file() {
            eprintln!(
                "building the std of {} once, into {}",
                self.triple,
                home.display()
            );
            self.build_debian_std(root, &home, verbose)?;
        }
        Ok(Std::Debian { rustc })
    }

    /// One folder for each version of Debian's compiler.
    fn debian_sysroot(&self) -> anyhow::Result<PathBuf> {
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
        Ok(crate::cargo::cache()?.join(format!(
            "{}-sysroot-{}",
            self.name,
            version.trim_matches('-')
        )))
    }

    /// Builds std into a scratch folder beside `home` and renames it into place, so that an interrupted
    /// build leaves nothing that looks finished.
    fn build_debian_std(&self, root: &Path, home: &Path, verbose: bool) -> anyhow::Result<()> {
        let parent = home.parent().context("the cache folder has no parent")?;
        let scratch = parent.join(format!("{}-sysroot-new-{}", self.name, std::process::id()));
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
                self.triple,
                &format!("-Zbuild-std={}", self.crates),
                "--target-dir",
            ])
            .arg(&built)
            .env("RUSTC", DEBIAN_RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags)
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO");
        if let Some(linker) = self.linker {
            cargo.env(linker_variable(self.triple), linker);
        }
        run(&mut cargo, verbose).context("Debian's std does not build")?;

        let rustlib = scratch.join("sysroot/lib/rustlib");
        let libs = rustlib.join(self.triple).join("lib");
        fs::create_dir_all(&libs)?;
        for entry in fs::read_dir(built.join(self.triple).join("release/deps"))? {
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
}

/// Installs packages of Debian, where that can be done without asking.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let names = packages.join(" ");
    ensure!(
        root && Path::new("/usr/bin/apt-get").is_file(),
        "missing; as root on Debian: `apt-get install {names}`"
    );
    eprintln!("installing {names}");
    let install = || {
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
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
        "apt-get install {names} fails: {}",
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

/// The variable by which cargo is told a target's linker.
pub fn linker_variable(triple: &str) -> String {
    let triple = triple.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{triple}_LINKER")
}

pub fn rustc_sysroot(root: &Path) -> anyhow::Result<PathBuf> {
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

pub fn output(command: &mut Command) -> anyhow::Result<String> {
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
pub fn run(command: &mut Command, verbose: bool) -> anyhow::Result<()> {
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
