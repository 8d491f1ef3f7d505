//! Puts the worker into the binary where `SKERRY_WORKER` names one (as `cargo xtask` does); a plain
//! build carries none and needs `--worker PATH` at run time.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../wit/edge.wit");
    println!("cargo::rerun-if-env-changed=SKERRY_WORKER");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("worker.rs");
    let code = match env::var("SKERRY_WORKER")
        .ok()
        .filter(|path| !path.is_empty())
    {
        Some(path) => {
            println!("cargo::rerun-if-changed={path}");
            format!("Some(include_bytes!({path:?}))")
        }
        None => "None".to_owned(),
    };
    if let Err(error) = fs::write(&out, code) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}
