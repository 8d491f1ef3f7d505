//! Why a collection did not do what was asked. Each code has a page under `docs/errors/`.

use crate::IndexError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One error may be told to all writers of a group: it can be cloned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: Arc<io::Error>,
    },
    #[error("{} is damaged at byte {at}: {what}", file.display())]
    Corrupt {
        file: PathBuf,
        at: u64,
        what: Box<str>,
    },
    #[error("{} has format {found}, this version knows {known} at most", file.display())]
    Newer {
        file: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("{} is open in another process, or twice in this one", dir.display())]
    Locked { dir: PathBuf },
    #[error("there is no collection in {}", dir.display())]
    Missing { dir: PathBuf },
    #[error("there is something in {} already", dir.display())]
    Exists { dir: PathBuf },
    #[error("{} holds another kind of collection: {has}, not {wanted}", dir.display())]
    SpecDiffers {
        dir: PathBuf,
        has: Box<str>,
        wanted: Box<str>,
    },
    #[error("the log begins after sequence number {first}: {wanted} is gone, take a snapshot")]
    LogGone { wanted: u64, first: u64 },
    #[error("sequence number {got} follows {last}: records between them are missing")]
    Gap { last: u64, got: u64 },
    #[error("the log failed, nothing more is written until a restart: {cause}")]
    Poisoned { cause: Box<str> },
    #[error("the collection is closed")]
    Stopped,
    #[error("{batches} batches with {bytes} bytes wait to be written, try again later")]
    Full { batches: usize, bytes: usize },
    #[error("a batch of {bytes} bytes, at most {}", super::BATCH_BYTES_MAX)]
    BatchBytes { bytes: usize },
    #[error("{field:?} of {id:?} is a list with a list in it, which is no value")]
    NestedList { id: Box<str>, field: Box<str> },
}

impl From<crate::pace::Stopped> for StoreError {
    fn from(_: crate::pace::Stopped) -> Self {
        Self::Stopped
    }
}

impl StoreError {
    /// Every code of this enum's own; [`IndexError`] has more.
    pub const CODES: &'static [&'static str] = &[
        "vector_io",
        "vector_corrupt",
        "vector_newer",
        "vector_locked",
        "vector_missing",
        "vector_exists",
        "vector_spec",
        "vector_log_gone",
        "vector_gap",
        "vector_poisoned",
        "vector_stopped",
        "vector_full",
        "vector_batch_bytes",
        "vector_value",
    ];

    /// The stable code; its page is `docs/errors/CODE.md`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Index(error) => error.code(),
            Self::Io { .. } => "vector_io",
            Self::Corrupt { .. } => "vector_corrupt",
            Self::Newer { .. } => "vector_newer",
            Self::Locked { .. } => "vector_locked",
            Self::Missing { .. } => "vector_missing",
            Self::Exists { .. } => "vector_exists",
            Self::SpecDiffers { .. } => "vector_spec",
            Self::LogGone { .. } => "vector_log_gone",
            Self::Gap { .. } => "vector_gap",
            Self::Poisoned { .. } => "vector_poisoned",
            Self::Stopped => "vector_stopped",
            Self::Full { .. } => "vector_full",
            Self::BatchBytes { .. } => "vector_batch_bytes",
            Self::NestedList { .. } => "vector_value",
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn corrupt(file: &Path, at: u64, what: impl Into<Box<str>>) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            at,
            what: what.into(),
        }
    }
}
