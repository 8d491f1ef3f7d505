//! A durable collection of vectors: a log, recent records in memory, sealed segments on disk.
//!
//! Invariants: an acknowledged write is on disk, and comes back after any end of the process, a
//! deleted record never; a search sees every write that was acknowledged before it began; what is
//! damaged is refused by file and place, and never answered from. `docs/formats/vector.md` has the
//! files.

mod blocks;
mod build;
mod capture;
mod codec;
mod commit;
mod dead;
mod error;
mod files;
mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod layout;
mod log;
mod manifest;
mod memory;
mod open;
mod options;
mod query;
mod read;
mod recent;
mod record;
mod restore;
mod score;
mod sealed;
mod shared;
mod snapshot;
mod upkeep;
mod verify;
mod view;

pub use capture::{Capture, CapturedFile, CapturedReader};
pub use error::StoreError;
pub use options::Options;
pub use read::{Fingerprint, LogSlice, Page, Stats};
pub use restore::{Restore, RestoredFile};
pub use snapshot::{SnapshotFile, SnapshotInfo};
pub use verify::{Progress, VerifyReport, verify};

use crate::pace::Pace;
use crate::{Found, Query, Record, Spec, Write};
use shared::Shared;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the writes of one batch may take in the log, in bytes.
pub const BATCH_BYTES_MAX: usize = 64 << 20;

/// The greatest sequence number; what claims a greater one is damaged.
const SEQ_MAX: u64 = u64::MAX >> 1;

/// The sequence numbers that a batch got. A batch without writes has `last_seq < first_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub first_seq: u64,
    pub last_seq: u64,
}

/// A write as the log has it: of length 1 for the cosine, rounded to what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    pub seq: u64,
    pub write: Write,
}

/// An open collection. Any number of threads may use it; all calls block.
pub struct Collection {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Collection {
    /// Makes an empty collection in a folder, which may be missing.
    pub fn create(dir: &Path, spec: Spec, options: Options) -> Result<Self, StoreError> {
        Self::start(open::create(dir, spec, options)?)
    }

    /// Opens a collection as its last process left it.
    pub fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        Self::start(open::open(dir, options)?)
    }

    /// Opens the collection, or makes it where there is none. One with another spec is refused.
    pub fn open_or_create(dir: &Path, spec: Spec, options: Options) -> Result<Self, StoreError> {
        Self::start(open::open_or_create(dir, spec, options)?)
    }

    fn start(shared: Shared) -> Result<Self, StoreError> {
        let shared = Arc::new(shared);
        let mut collection = Self {
            threads: Vec::new(),
            shared,
        };
        collection.spawn("vector-commit", commit::run)?;
        if collection.shared.options.background {
            collection.spawn("vector-seal", upkeep::run_sealing)?;
            collection.spawn("vector-compact", upkeep::run_compacting)?;
        }
        Ok(collection)
    }

    fn spawn(&mut self, name: &str, run: fn(&Shared)) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let builder = std::thread::Builder::new().name(name.to_owned());
        let thread = builder
            .spawn(move || run(&shared))
            .map_err(StoreError::io(&self.shared.dir))?;
        self.threads.push(thread);
        Ok(())
    }

    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.shared.spec
    }

    /// Writes a batch, all of it or nothing. Durable and visible when it returns.
    pub fn write(&self, batch: Vec<Write>) -> Result<Committed, StoreError> {
        self.commit(commit::check(&self.shared.spec, batch)?)
    }

    /// Writes a batch of what another collection holds: as [`Collection::write`], but vectors are taken
    /// as they are there. Scaled again, they could differ in their last bits.
    pub fn write_copy(&self, batch: Vec<Write>) -> Result<Committed, StoreError> {
        self.commit(commit::check_copy(&self.shared.spec, batch)?)
    }

    /// Writes what a leader has logged, under its sequence numbers. What was applied before is
    /// skipped; a gap is refused. Returns the last sequence number.
    pub fn apply(&self, records: Vec<LogRecord>) -> Result<u64, StoreError> {
        match commit::check_records(&self.shared.spec, records)? {
            Some(batch) => Ok(self.commit(batch)?.last_seq),
            None => Ok(self.seq()),
        }
    }

    fn commit(&self, batch: commit::Batch) -> Result<Committed, StoreError> {
        let answer = self.shared.queue.push(batch)?;
        answer.recv().unwrap_or(Err(StoreError::Stopped))
    }

    /// The log after a sequence number: whole groups of batches, at least one where there is one,
    /// about `bytes_max` bytes of them.
    pub fn log_since(&self, seq: u64, bytes_max: usize) -> Result<LogSlice, StoreError> {
        read::log_since(&self.shared, seq, bytes_max)
    }

    /// Waits until a sequence number is visible, at most so long. Returns the last visible one.
    #[must_use]
    pub fn wait_for(&self, seq: u64, at_most: Duration) -> u64 {
        let until = Instant::now() + at_most;
        let mut bell = self.shared.bell.lock();
        while self.seq() < seq && !self.shared.is_stopping() {
            if self.shared.changed.wait_until(&mut bell, until).timed_out() {
                break;
            }
        }
        self.seq()
    }

    /// The nearest records, best first.
    pub fn search(&self, ask: &Query) -> Result<Vec<Found>, StoreError> {
        read::search(&self.shared, ask)
    }

    /// Answers several queries, each as [`Collection::search`] would. One that is refused refuses
    /// all, before any is answered.
    pub fn search_batch(&self, asks: &[Query]) -> Result<Vec<Vec<Found>>, StoreError> {
        read::search_batch(&self.shared, asks)
    }

    /// A record and its sequence number.
    pub fn get(&self, id: &str) -> Result<Option<(Record, u64)>, StoreError> {
        self.shared.memory.view.load().get(id)
    }

    /// A page of the records whose ids `keep` takes, after that of `after`. Pages follow an order of
    /// their own (by a hash of the id) that does not change: a record that is there all the time comes
    /// exactly once. Ends before `records_max` where a page gets long.
    pub fn scan(
        &self,
        after: Option<&str>,
        records_max: usize,
        keep: &dyn Fn(&str) -> bool,
    ) -> Result<Page, StoreError> {
        read::scan(&self.shared.memory.view.load(), after, records_max, keep)
    }

    /// The number of records whose ids `keep` takes, and a hash of them that does not depend on where
    /// they lie: of the state after one sequence number.
    pub fn fingerprint(&self, keep: impl Fn(&str) -> bool) -> Result<Fingerprint, StoreError> {
        read::fingerprint(&self.shared, &keep)
    }

    /// The last sequence number that is visible. All up to it are durable.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.shared.memory.applied()
    }

    /// Records that are alive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.memory.live()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        read::stats(&self.shared)
    }

    /// Seals everything that is in memory. For tools and tests.
    pub fn seal(&self) -> Result<(), StoreError> {
        {
            let _state = self.shared.state.lock();
            let memory = &self.shared.memory;
            let view = memory.view.load_full();
            if view.mutable().is_some_and(|one| one.rows.writes() > 0) {
                memory.freeze();
            }
        }
        upkeep::seal(&self.shared, Pace::free())
    }

    /// Makes one segment of all sealed ones. For tools and tests.
    pub fn compact(&self) -> Result<(), StoreError> {
        let view = self.shared.memory.view.load_full();
        let numbers: Vec<u64> = view.sealed.iter().map(|one| one.segment.number()).collect();
        if let [one] = view.sealed.as_slice()
            && one.dead.count() == 0
        {
            return Ok(());
        }
        upkeep::compact(&self.shared, &numbers, Pace::free())
    }

    /// The collection as it is now, to be copied away while writes and searches go on.
    pub fn capture(&self) -> Result<Capture, StoreError> {
        capture::take(&self.shared)
    }

    /// Writes a copy of the collection into an empty folder: a folder that can be opened. Writes and
    /// searches go on meanwhile.
    pub fn snapshot_to(&self, folder: &Path) -> Result<SnapshotInfo, StoreError> {
        snapshot::take(&self.shared, folder)
    }

    /// Copies a snapshot to a folder, checking it, and opens that.
    pub fn restore(folder: &Path, dir: &Path, options: Options) -> Result<Self, StoreError> {
        snapshot::restore(folder, dir)?;
        Self::open(dir, options)
    }

    /// Ends the threads, soon: what was queued is written first, a running build is given up. The log
    /// has what it would have sealed.
    pub fn close(self) {
        drop(self);
    }

    #[cfg(test)]
    fn fail_next_sync(&self) {
        self.shared.state.lock().fail_next = true;
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.shared.queue.close();
        let stop = std::sync::atomic::Ordering::Release;
        self.shared.stopping.store(true, stop);
        self.shared.ring();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
