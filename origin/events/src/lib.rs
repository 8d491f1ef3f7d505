//! The origin's event log: durable before it is acknowledged, each event applied once.
//!
//! Invariants: an append returns only after one fsync that covers it (many appends share one); an
//! id is applied once per tenant for at least [`DEDUPE_MS`] (for ever where an import brought it);
//! consumers see every new event exactly once while the process lives, in sequence order, before
//! the append returns, and a consumer that was behind is replayed from its own cursor at start.
//! What an erased user did is gone from the log and does not come back.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod answers;
mod commit;
mod handle;
mod keys;
mod lag;
mod log;

pub use answers::{Answered, Answers, Explained, InputNote, Made};
pub use commit::{Appended, Consumer, Mode, Stored};
pub use handle::Log;
pub use lag::Lag;
pub use log::{Reader, Record};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use skerry_types::Millis;

/// An id is remembered for this long after it was stored, in milliseconds.
pub const DEDUPE_MS: Millis = 7 * 24 * 3600 * 1000;
/// `Event::pop` of what an import brought: its ids are remembered for ever, so that importing the
/// same data again changes nothing.
pub const IMPORTED: &str = "import";

/// What a keyspace holds in memory before it writes a file, at most, in bytes: an origin has a dozen.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// A keyspace of the origin's database; made where it is missing.
pub fn keyspace(db: &Database, name: &str) -> fjall::Result<Keyspace> {
    db.keyspace(name, || {
        KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
    })
}

/// Why the log did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the event store failed: {0}")]
    Store(String),
    #[error("a stored event does not decode ({key}): {reason}")]
    Corrupt { key: String, reason: String },
    #[error("the event queue is full")]
    Busy,
    #[error("the event log is closed")]
    Closed,
}

impl Error {
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "event_store",
            Self::Corrupt { .. } => "event_corrupt",
            Self::Busy => "event_queue_full",
            Self::Closed => "event_log_closed",
        }
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        Self::Store(error.to_string())
    }
}
