//! Why a PoP does not start or does not go on. Faults behind a running PoP are not here: they lower
//! an answer's rung.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no worker in this build: build with `cargo xtask build`, or name a component with --worker PATH"
    )]
    NoWorker,
    #[error("the worker at {path} cannot be read")]
    WorkerFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the worker does not start: {0:#}")]
    Worker(#[from] wasmtime::Error),
    #[error(
        "{addr} is not a loopback address and there is no API key: set --keys DIR (SKERRY_KEYS) to a folder made by `skerry keys new DIR`, or listen on 127.0.0.1"
    )]
    Unprotected { addr: SocketAddr },
    #[error("cannot listen on {addr}")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "an origin is named but no keys: set --keys DIR (SKERRY_KEYS) to a folder made by `skerry keys new DIR`"
    )]
    NoKeys,
    #[error("the key file {path} is not usable: {detail}")]
    Keys { path: PathBuf, detail: String },
    #[error(
        "the state at {path} has format {found}, this program knows {known}: use a newer program, or another --state"
    )]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("the state at {path} cannot be used")]
    State {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the context store at {path} cannot be opened: {detail}")]
    Store { path: PathBuf, detail: String },
    #[error("QUIC cannot be set up: {0}")]
    Quic(String),
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
}

impl Error {
    /// The stable code, with a page under `docs/errors/`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoWorker => "pop_no_worker",
            Self::WorkerFile { .. } => "pop_worker_file",
            Self::Worker(_) => "pop_worker",
            Self::Unprotected { .. } => "pop_unprotected",
            Self::Listen { .. } => "pop_listen",
            Self::NoKeys => "pop_no_keys",
            Self::Keys { .. } => "pop_keys",
            Self::Newer { .. } => "pop_state_newer",
            Self::State { .. } => "pop_state",
            Self::Store { .. } => "pop_store",
            Self::Quic(_) => "pop_quic",
            Self::Thread(_) => "pop_thread",
        }
    }
}
