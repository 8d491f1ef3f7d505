//! What can keep an origin from starting or running. Requests never see these: what one of them
//! meets is a refusal frame or a problem body.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the origin does not start, or stopped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("{path}: {reason}")]
    Io { path: PathBuf, reason: String },
    #[error(
        "the state at {path} is damaged: {reason}; restore it from a backup, or start with --repair, which sets it aside as *.corrupt and goes on without it"
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error("{path} is in use by another process")]
    Locked { path: PathBuf },
    #[error(
        "{path} has format {found}, this version reads up to {known}: use a newer version, or another --state"
    )]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("{path}: {reason}; `skerry keys new DIR` makes a set of keys")]
    Keys { path: PathBuf, reason: String },
    #[error(
        "{addr} is not a loopback address and no secret key is configured: bind to 127.0.0.1, or give --keys DIR with api-secret.key"
    )]
    Open { addr: SocketAddr },
    #[error("{name}: {reason}")]
    Setting { name: String, reason: String },
    #[error("cannot listen on {addr}: {reason}")]
    Listen { addr: SocketAddr, reason: String },
    #[error("the data at {path} was not imported: {reason}")]
    Import { path: PathBuf, reason: String },
    #[error(
        "the data at {path} was not imported: {what} is not built in: build with `cargo xtask build --features {feature}`, or convert it to .jsonl or .csv"
    )]
    NotBuiltIn {
        path: PathBuf,
        what: &'static str,
        feature: &'static str,
    },
    #[error("training failed: {0}")]
    Train(String),
    #[error("a model is being trained already")]
    Training,
    #[error("there is nothing to learn from yet: no item has an event")]
    NoData,
    #[error("the store failed: {0}")]
    Store(String),
    #[error("the origin is stopped")]
    Stopped,
}

impl Error {
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "state_io",
            Self::Corrupt { .. } => "state_corrupt",
            Self::Locked { .. } => "state_locked",
            Self::Newer { .. } => "state_newer",
            Self::Keys { .. } => "keys_invalid",
            Self::Open { .. } => "keys_missing",
            Self::Setting { .. } => "setting_invalid",
            Self::Listen { .. } => "listen",
            Self::Import { .. } => "import",
            Self::NotBuiltIn { .. } => "not_built_in",
            Self::Train(_) => "training",
            Self::Training => "training_running",
            Self::NoData => "no_data",
            Self::Store(_) => "origin_store",
            Self::Stopped => "stopped",
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io {
            path: path.into(),
            reason: error.to_string(),
        }
    }
}

macro_rules! from_store {
    ($($error:ty),+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Store(error.to_string())
            }
        })+
    };
}
from_store!(
    fjall::Error,
    skerry_origin_events::Error,
    skerry_origin_features::Error,
    skerry_wire::CodecError
);
