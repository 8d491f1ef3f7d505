//! Records in memory and how writes change them.
//!
//! Invariants: one thread at a time writes (whoever holds the collection's `state`, or opens it);
//! readers take no lock; what replaces a record is there before the record is marked dead.

use super::error::StoreError;
use super::view::{RecentRef, View};
use crate::Write;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// The mutable segment ends after so many times as many writes as it has rows: deletes fill none,
/// but their log must be covered some time.
const WRITES_PER_ROW: usize = 4;

pub struct Memory {
    pub view: ArcSwap<View>,
    mutable_rows: usize,
    /// The last sequence number that readers see; all up to it are on disk.
    applied: AtomicU64,
    /// Odd while it is written to.
    epoch: AtomicU64,
    live: AtomicI64,
}

/// Where sealed segments have the id of a write: index of the segment and row.
pub type Places = Vec<(usize, u32)>;

impl Memory {
    pub fn new(mut view: View, mutable_rows: usize, applied: u64) -> Self {
        let live = i64::try_from(view.rows() - view.dead()).unwrap_or(i64::MAX);
        view.recent.push(RecentRef::new(mutable_rows));
        Self {
            view: ArcSwap::from_pointee(view),
            mutable_rows,
            applied: AtomicU64::new(applied),
            epoch: AtomicU64::new(0),
            live: AtomicI64::new(live),
        }
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    pub fn live(&self) -> usize {
        usize::try_from(self.live.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Finds where a write's id is alive in sealed segments. May meet damage, and so comes before the
    /// write is logged.
    pub fn places(view: &View, id: &str) -> Result<Places, StoreError> {
        let hash = xxh3_64(id.as_bytes());
        let mut places = Places::new();
        for (at, one) in view.sealed.iter().enumerate() {
            if let Some(row) = one.live_row(hash, id)? {
                places.push((at, row));
            }
        }
        Ok(places)
    }

    /// Applies a write that is in the log. `places` were found since the sealed segments changed last.
    pub fn apply(&self, seq: u64, write: Write, places: &Places) {
        let mut view = self.view.load_full();
        let ends = view.mutable().is_none_or(|one| {
            let is_long = one.rows.writes() >= self.mutable_rows.saturating_mul(WRITES_PER_ROW);
            is_long || (matches!(write, Write::Upsert(_)) && one.rows.is_full())
        });
        if ends {
            view = self.freeze();
        }
        let Some(mutable) = view.mutable() else {
            return;
        };
        let (id, put) = match write {
            Write::Upsert(record) => (record.id.clone(), Some(record)),
            Write::Delete(id) => (id, None),
        };
        let added = i64::from(put.is_some());
        let mut removed = match put {
            Some(record) => mutable.rows.put(record, seq, &mutable.dead),
            None => mutable.mark(&id),
        };
        for one in view.frozen() {
            removed |= one.mark(&id);
        }
        for (at, row) in places {
            removed |= view.sealed.get(*at).is_some_and(|one| one.dead.mark(*row));
        }
        self.live
            .fetch_add(added - i64::from(removed), Ordering::AcqRel);
        mutable.rows.note(seq);
    }

    /// All up to `seq` has been applied.
    pub fn reach(&self, seq: u64) {
        self.applied.store(seq, Ordering::Release);
    }

    /// Ends the mutable segment and begins another one.
    pub fn freeze(&self) -> Arc<View> {
        let mut view = self.view.load().forked();
        view.recent.push(RecentRef::new(self.mutable_rows));
        let view = Arc::new(view);
        self.view.store(Arc::clone(&view));
        view
    }

    /// Runs `write` while readers know that memory is written to.
    pub fn writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let result = write();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// Gives `read` the view, and whether nothing was written since it began.
    pub fn reading<T>(&self, read: impl FnOnce(&View, &dyn Fn() -> bool) -> T) -> T {
        let began = self.epoch.load(Ordering::SeqCst);
        let view = self.view.load_full();
        let is_still = || began.is_multiple_of(2) && self.epoch.load(Ordering::SeqCst) == began;
        read(&view, &is_still)
    }
}
