//! The cache folder: a venv with the pinned peers, and the data sets; both made once.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What usearch and numpy need at these pins.
const PYTHON_MINOR_MIN: u32 = 11;

pub struct Prepared {
    pub folder: PathBuf,
    pub python: PathBuf,
    pub worker: PathBuf,
}

/// `scripts` is `benches/vector` of the checkout, `data` where MovieLens may lie.
pub fn prepare(
    cache: &Path,
    scripts: &Path,
    data: Option<&Path>,
    sets: &[&str],
) -> anyhow::Result<Prepared> {
    let prepared = peers(cache, scripts)?;
    let mut make = Command::new(&prepared.python);
    // -B: the checkout stays as it is.
    make.arg("-B")
        .arg(scripts.join("data/make.py"))
        .arg(&prepared.folder)
        .args(["--sets", &sets.join(",")]);
    if let Some(data) = data {
        make.arg("--movielens").arg(data.join("ml-latest-small"));
    }
    run("make the data", &mut make)?;
    Ok(prepared)
}

/// The cache folder of this benchmark.
pub fn folder(cache: &Path) -> anyhow::Result<PathBuf> {
    let folder = cache.join("bench-vector");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The peers alone.
pub fn peers(cache: &Path, scripts: &Path) -> anyhow::Result<Prepared> {
    let folder = folder(cache)?;
    Ok(Prepared {
        python: venv(&folder, &scripts.join("requirements.txt"))?,
        folder,
        worker: scripts.join("peers/worker.py"),
    })
}

/// The venv's Python, everything in `requirements` installed.
fn venv(folder: &Path, requirements: &Path) -> anyhow::Result<PathBuf> {
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    let wanted = std::fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let stamp = venv.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    check_machine()?;
    eprintln!("== install the peers into {} (once)", venv.display());
    let mut make = Command::new("python3");
    run("make the venv", make.args(["-m", "venv"]).arg(&venv))?;
    let mut install = Command::new(&python);
    install
        .args(["-m", "pip", "install", "--quiet", "--no-deps"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(requirements);
    run("install the peers", &mut install)?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

/// What cannot be installed from here is named before anything is downloaded.
fn check_machine() -> anyhow::Result<()> {
    let says = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let minor = says("python3", &["-c", "import sys; print(sys.version_info[1])"]);
    let minor: Option<u32> = minor.and_then(|text| text.parse().ok());
    if minor.is_none_or(|minor| minor < PYTHON_MINOR_MIN) {
        bail!(
            "the peers need python3 of version 3.{PYTHON_MINOR_MIN} or later: install it (Debian: \
             python3)"
        );
    }
    if says("python3", &["-c", "import ensurepip, venv"]).is_none() {
        bail!("python3 cannot make a venv: install it (Debian: python3-venv)");
    }
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if says(&compiler, &["--version"]).is_none() {
        bail!("hnswlib is built from its source: install a C++ compiler (Debian: g++)");
    }
    let header = "import os, sysconfig; \
                  assert os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'))";
    if says("python3", &["-c", header]).is_none() {
        bail!("hnswlib needs Python.h to be built: install it (Debian: python3-dev)");
    }
    Ok(())
}

/// Its stdout goes to our stderr: stdout is for the result alone.
fn run(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("{what}: cannot start {command:?}"))?;
    if !status.success() {
        bail!("{what} failed ({status}); what it said is above");
    }
    Ok(())
}
