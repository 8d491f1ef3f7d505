//! `cargo xtask tidy`: the architecture is what the pages say it is.

use crate::cargo::{cargo, root};
use crate::paths;
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lines of a source file above which `tidy` says so.
const FILE_LINES_MAX: usize = 600;

/// Which folders a crate of a folder may depend on. Longest prefix first.
const MAY_USE: &[(&str, &[&str])] = &[
    ("shared/types", &[]),
    ("shared/resilience", &["shared/types"]),
    ("shared/decide", &["shared/types"]),
    ("shared/wire", &["shared/types", "shared/decide"]),
    ("shared/telemetry", &["shared/types", "shared/resilience"]),
    ("shared/testkit", &["shared/types"]),
    ("shared/", &["shared/types"]),
    ("edge/core", &["shared/"]),
    ("edge/", &["shared/", "edge/core"]),
    ("vector/", &["shared/", "vector/"]),
    ("origin/core", &["shared/"]),
    ("origin/", &["shared/", "origin/", "vector/"]),
    ("cli", &["shared/", "edge/", "origin/", "vector/"]),
    // Tools and tests stand outside: they drive the product as a user does.
    ("tests", &["shared/"]),
    ("benches/report", &[]),
    (
        "benches/vector",
        &["shared/types", "benches/report", "vector/"],
    ),
    ("benches", &["benches/report", "shared/", "tests", "edge/"]),
    ("xtask", &[]),
];

pub fn run() -> anyhow::Result<()> {
    let root = root();
    let mut errors = Vec::new();
    directions(&mut errors)?;
    pages(&root, &mut errors)?;
    numbers(&root, &mut errors)?;
    lengths(&root)?;
    for error in &errors {
        eprintln!("tidy: {error}");
    }
    if !errors.is_empty() {
        bail!("tidy found {} thing(s)", errors.len());
    }
    eprintln!("== tidy: clean");
    Ok(())
}

/// Dependencies point one way; `edge/*` and `origin/*` meet in `shared/` alone.
fn directions(errors: &mut Vec<String>) -> anyhow::Result<()> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let workspace = PathBuf::from(metadata["workspace_root"].as_str().unwrap_or_default());
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let folder = |path: &str| {
        let path = Path::new(path);
        let dir = if path.ends_with("Cargo.toml") {
            path.parent().unwrap_or(path)
        } else {
            path
        };
        dir.strip_prefix(&workspace)
            .unwrap_or(dir)
            .to_string_lossy()
            .into_owned()
    };
    for package in &packages {
        let here = folder(package["manifest_path"].as_str().unwrap_or_default());
        let Some((_, allowed)) = MAY_USE.iter().find(|(prefix, _)| here.starts_with(prefix)) else {
            errors.push(format!(
                "{here}: no rule for this folder in xtask/src/tidy.rs"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            // Tests may compose what the code itself must not know.
            let Some(path) = dependency["path"]
                .as_str()
                .filter(|_| dependency["kind"].as_str() != Some("dev"))
            else {
                continue;
            };
            let there = folder(path);
            if !allowed.iter().any(|prefix| there.starts_with(prefix)) {
                errors.push(format!(
                    "{here} must not depend on {there}: see ARCHITECTURE.md"
                ));
            }
        }
    }
    Ok(())
}

fn pages(root: &Path, errors: &mut Vec<String>) -> anyhow::Result<()> {
    let mut pages = vec![PathBuf::from("README.md"), PathBuf::from("ARCHITECTURE.md")];
    for folder in ["docs/paths", "docs/adr"] {
        pages.extend(
            files(&root.join(folder), "md")?
                .iter()
                .filter_map(|path| Some(path.strip_prefix(root).ok()?.to_path_buf())),
        );
    }
    for page in pages {
        match std::fs::read_to_string(root.join(&page)) {
            Ok(text) => paths::check(root, &page.to_string_lossy(), &text, errors),
            Err(error) => errors.push(format!("{}: {error}", page.display())),
        }
    }
    Ok(())
}

/// ADRs are numbered without gaps or repeats, and carry their number in the title.
fn numbers(root: &Path, errors: &mut Vec<String>) -> anyhow::Result<()> {
    let mut seen: BTreeMap<usize, String> = BTreeMap::new();
    for path in files(&root.join("docs/adr"), "md")? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let number = name
            .get(..4)
            .and_then(|digits| digits.parse::<usize>().ok());
        let Some(number) = number.filter(|_| name.as_bytes().get(4) == Some(&b'-')) else {
            errors.push(format!("docs/adr/{name}: not named NNNN-title.md"));
            continue;
        };
        if !std::fs::read_to_string(&path)?.starts_with(&format!("# {number}. ")) {
            errors.push(format!(
                "docs/adr/{name}: does not begin with `# {number}. `"
            ));
        }
        if let Some(other) = seen.insert(number, name.clone()) {
            errors.push(format!("docs/adr/{name}: has the number of {other}"));
        }
    }
    for (expected, number) in (1..).zip(seen.keys()) {
        if expected != *number {
            errors.push(format!("docs/adr: {expected:04} is missing"));
            break;
        }
    }
    Ok(())
}

/// Long files are named, not refused: sometimes one file is the better code.
fn lengths(root: &Path) -> anyhow::Result<()> {
    for folder in [
        "shared", "edge", "origin", "vector", "cli", "xtask", "tests", "benches",
    ] {
        for path in files(&root.join(folder), "rs")? {
            let lines = std::fs::read_to_string(&path)?.lines().count();
            if lines > FILE_LINES_MAX {
                let path = path.strip_prefix(root).unwrap_or(&path);
                eprintln!(
                    "tidy: warning: {} has {lines} lines, more than {FILE_LINES_MAX}",
                    path.display()
                );
            }
        }
    }
    Ok(())
}

/// Files with an ending, in a folder and below, in order; build outputs aside.
fn files(dir: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(found);
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                found.extend(files(&path, ending)?);
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
