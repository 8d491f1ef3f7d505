//! The port to what holds a shard's records: a durable collection, or memory in tests.
//!
//! Invariants that an implementation keeps: a write is all or nothing and durable on return; its
//! sequence numbers follow each other without a gap; two stores that applied the same log up to the
//! same number answer alike, and have equal fingerprints. Calls block: nothing here is called on a
//! thread that drives others.

use skerry_vector_index::{Found, IndexError, Query, Record, Write};
use std::path::Path;
use std::sync::Arc;

/// Why a store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Invalid(#[from] IndexError),
    /// The log begins after the wanted number.
    #[error("the log no longer reaches back to {0}")]
    LogGone(u64),
    #[error("record {got} does not follow {seq}")]
    Gap { got: u64, seq: u64 },
    #[error("{reason}")]
    Failed { code: &'static str, reason: String },
}

impl StoreError {
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(error) => error.code(),
            Self::LogGone(_) => "shard_log_gone",
            Self::Gap { .. } => "shard_log_gap",
            Self::Failed { code, .. } => code,
        }
    }
}

/// The numbers that a batch of writes got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub first_seq: u64,
    pub last_seq: u64,
}

/// A write with its number.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    pub seq: u64,
    pub write: Write,
}

/// Some records, in the order of their ids.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub records: Vec<Record>,
    /// Where the next page begins: after this id. None where this is the last page.
    pub next: Option<Box<str>>,
}

/// A sum over records (ids, vectors, payloads; not their numbers) that does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint {
    pub count: u64,
    pub hash: u64,
}

/// Which ids are meant.
pub type Keep<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// One replica's records.
pub trait Store: Send + Sync + 'static {
    /// As the leader.
    fn write(&self, writes: Vec<Write>) -> Result<Committed, StoreError>;
    /// As a follower: the leader's records. Those that are there already are skipped. The number of
    /// the last one.
    fn apply(&self, records: Vec<LogRecord>) -> Result<u64, StoreError>;
    /// What comes after `seq`, up to about so many bytes, at least one record where there is one.
    fn log_since(&self, seq: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError>;
    fn search_batch(&self, queries: &[Query]) -> Result<Vec<Vec<Found>>, StoreError>;
    fn get(&self, id: &str) -> Result<Option<(Record, u64)>, StoreError>;
    /// Live records whose ids are kept, in the order of their ids, after an id. What is written while
    /// pages are read is in them or not.
    fn scan(&self, after: Option<&str>, max: usize, keep: Keep<'_>) -> Result<Page, StoreError>;
    fn fingerprint(&self, keep: Keep<'_>) -> Result<Fingerprint, StoreError>;
    /// The number of the last write; 0 before the first.
    fn seq(&self) -> u64;
    /// Live records.
    fn len(&self) -> u64;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Writes all of it into an empty folder.
    fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError>;
    fn close(&self);
}

/// Where stores come from.
pub trait Stores: Send + Sync + 'static {
    /// Opens what a folder holds, or makes it.
    fn open(&self, dir: &Path) -> Result<Arc<dyn Store>, StoreError>;
    /// Makes in an empty folder what a snapshot holds.
    fn restore(&self, snapshot: &Path, dir: &Path) -> Result<(), StoreError>;
}
