//! The port to what holds a shard's records: a durable collection, or memory in tests.
//!
//! Invariants that an implementation keeps: a write is all or nothing and durable on return; its
//! sequence numbers follow each other without a gap; two stores that applied the same log up to the
//! same number answer alike. Calls block: nothing here is called on a
//! thread that drives others.

pub use skerry_vector_index::store::{Capture, Committed, LogRecord};
use skerry_vector_index::{Found, IndexError, Query, Record, Write};
use skerry_wire::value::metadata;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

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
    #[error("too much waits to be written")]
    Full,
    /// The caller's fault.
    #[error("{reason}")]
    Refused { code: &'static str, reason: String },
    /// It does nothing more until it is opened again.
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
            Self::Full => "vector_full",
            Self::Refused { code, .. } | Self::Failed { code, .. } => code,
        }
    }
}

/// Some records, in an order of the store's own that does not change.
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

impl Fingerprint {
    pub fn add(&mut self, hash: u64) {
        self.count += 1;
        self.hash = self.hash.wrapping_add(hash);
    }

    /// What was added before.
    pub fn take_out(&mut self, hash: u64) {
        self.count = self.count.saturating_sub(1);
        self.hash = self.hash.wrapping_sub(hash);
    }
}

/// What a store takes, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Sealed segments, and those that wait to be sealed.
    pub segments: u64,
    pub frozen: u64,
    /// Rows of all segments, and how many of them are dead.
    pub rows: u64,
    pub dead: u64,
    pub log_bytes: u64,
    /// Memory that searches need.
    pub hot_bytes: u64,
    pub disk_bytes: u64,
    /// Up to here segments have the log.
    pub checkpoint: u64,
    /// What the background fails at, until it succeeds.
    pub sealing_fails: bool,
    pub compaction_fails: bool,
}

/// Which ids are meant.
pub type Keep<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// One replica's records.
pub trait Store: Send + Sync + 'static {
    /// As the leader.
    fn write(&self, writes: Vec<Write>) -> Result<Committed, StoreError>;
    /// What another store holds, to its last bit.
    fn copy(&self, writes: Vec<Write>) -> Result<Committed, StoreError>;
    /// As a follower: the leader's records. Those that are there already are skipped. The number of
    /// the last one.
    fn apply(&self, records: Vec<LogRecord>) -> Result<u64, StoreError>;
    /// What comes after `seq`, up to about so many bytes, at least one record where there is one.
    fn log_since(&self, seq: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError>;
    fn search_batch(&self, queries: &[Query]) -> Result<Vec<Vec<Found>>, StoreError>;
    fn get(&self, id: &str) -> Result<Option<(Record, u64)>, StoreError>;
    /// Live records whose ids are kept, after an id. What is written while pages are read is in them or
    /// not.
    fn scan(&self, after: Option<&str>, max: usize, keep: Keep<'_>) -> Result<Page, StoreError>;
    /// The number of the last write; 0 before the first.
    fn seq(&self) -> u64;
    /// Live records.
    fn len(&self) -> u64;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn figures(&self) -> Figures;
    /// Writes all of it into an empty folder.
    fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError>;
    /// All of it as it is now, to be copied away. Only what lies on disk can be.
    fn capture(&self) -> Result<Capture, StoreError> {
        Err(StoreError::Refused {
            code: "shard_request",
            reason: "this store keeps nothing on disk".to_owned(),
        })
    }
}

/// Of the id, the bits of the vector, and the payload.
pub fn hash_of(record: &Record) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(record.id.len() as u64).to_le_bytes());
    hash.update(record.id.as_bytes());
    for value in &record.vector {
        hash.update(&value.to_le_bytes());
    }
    hash.update(metadata::of(&record.payload).as_bytes());
    hash.digest()
}

/// Where stores come from.
pub trait Stores: Send + Sync + 'static {
    /// Opens what a folder holds, or makes it.
    fn open(&self, dir: &Path) -> Result<Arc<dyn Store>, StoreError>;
    /// Makes in an empty folder what a snapshot holds.
    fn restore(&self, snapshot: &Path, dir: &Path) -> Result<(), StoreError>;
}
