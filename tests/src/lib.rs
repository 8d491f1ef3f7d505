//! Drives the product as its users do: real processes, real sockets, real time.
//!
//! Invariants: every wait has an end; every process started here is killed when its handle is
//! dropped; every port is chosen by the system.

#![forbid(unsafe_code)]

pub mod http;
pub mod load;
pub mod made;
pub mod process;
pub mod quality;
pub mod ratings;

use std::path::PathBuf;

/// The binary under test: `SKERRY_BIN`, or what lies beside this test's own folder.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("SKERRY_BIN") {
        return Ok(PathBuf::from(path));
    }
    let here = std::env::current_exe()?;
    let found = here
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("skerry"))
        .find(|path| path.is_file());
    found.ok_or_else(|| anyhow::anyhow!("no binary: run `cargo xtask test`, or set SKERRY_BIN"))
}

/// A folder of real data, where there is one: `SKERRY_DATA_DIR`, or beside the checkout.
pub fn real_data(name: &str) -> Option<PathBuf> {
    let beside =
        || Some(PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?).join("../../shared/data"));
    let root = std::env::var_os("SKERRY_DATA_DIR")
        .map(PathBuf::from)
        .or_else(beside)?;
    Some(root.join(name)).filter(|dir| dir.is_dir())
}
