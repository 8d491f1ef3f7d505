//! What a reader sees: the segments and their tombstones at one time.
//!
//! Invariants: an id is alive in one segment at most, but for the moment in which a write replaces
//! it: then the new one is there before the old one is marked. Sealed segments are read before recent
//! ones and those from the oldest to the mutable one, so that a reader who missed the old one finds
//! the new one. Tombstones are forked when the mutable segment changes: a view whose mutable segment
//! no longer takes writes never changes again, and nothing disappears from it.

use super::dead::Dead;
use super::error::StoreError;
use super::recent::Recent;
use super::sealed::Sealed;
use crate::Record;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Clone)]
pub struct SealedRef {
    pub segment: Arc<Sealed>,
    pub dead: Arc<Dead>,
}

#[derive(Clone)]
pub struct RecentRef {
    pub rows: Arc<Recent>,
    pub dead: Arc<Dead>,
    /// Rows that count; all that are there where none is given.
    pub length: Option<usize>,
}

#[derive(Clone, Default)]
pub struct View {
    pub sealed: Vec<SealedRef>,
    /// Oldest first; the last one takes writes.
    pub recent: Vec<RecentRef>,
}

impl SealedRef {
    /// The row of an id, if it is alive.
    pub fn live_row(&self, hash: u64, id: &str) -> Result<Option<u32>, StoreError> {
        let row = self.segment.row_of(hash, id)?;
        Ok(row.filter(|row| !self.dead.contains(*row)))
    }
}

impl RecentRef {
    pub fn new(rows_max: usize) -> Self {
        Self {
            rows: Arc::new(Recent::new(rows_max)),
            dead: Arc::new(Dead::none(rows_max)),
            length: None,
        }
    }

    fn live_row(&self, id: &str) -> Option<u32> {
        let mut row = self.rows.row_of(id)?;
        loop {
            if self.length.is_some_and(|length| row as usize >= length) {
                // Put after this view was pinned: look where it was before.
                return self.live_before(id);
            }
            if !self.dead.contains(row) {
                return Some(row);
            }
            // Dead: deleted, or replaced between the two looks.
            let again = self.rows.row_of(id)?;
            if again == row {
                return None;
            }
            row = again;
        }
    }

    fn live_before(&self, id: &str) -> Option<u32> {
        let mut rows = self.rows.iter(self.length);
        rows.find(|(row, one)| *one.record.id == *id && !self.dead.contains(*row))
            .map(|(row, _)| row)
    }

    /// Marks the row of an id; whether it was alive. For the one who writes.
    pub fn mark(&self, id: &str) -> bool {
        self.rows.row_of(id).is_some_and(|row| self.dead.mark(row))
    }
}

impl View {
    pub fn mutable(&self) -> Option<&RecentRef> {
        self.recent.last()
    }

    pub fn frozen(&self) -> &[RecentRef] {
        self.recent.split_last().map_or(&[], |(_, frozen)| frozen)
    }

    /// The same with tombstones of its own. Only while nothing is written.
    pub fn forked(&self) -> Self {
        let fork = |dead: &Arc<Dead>| Arc::new(dead.fork());
        let sealed = self.sealed.iter().map(|one| SealedRef {
            segment: Arc::clone(&one.segment),
            dead: fork(&one.dead),
        });
        let recent = self.recent.iter().map(|one| RecentRef {
            rows: Arc::clone(&one.rows),
            dead: fork(&one.dead),
            length: one.length,
        });
        Self {
            sealed: sealed.collect(),
            recent: recent.collect(),
        }
    }

    /// A view that never changes. Only while nothing is written.
    pub fn pinned(&self) -> Self {
        let mut view = self.forked();
        for one in &mut view.recent {
            one.length = Some(one.rows.len());
        }
        view
    }

    pub fn rows(&self) -> usize {
        let sealed: usize = self.sealed.iter().map(|one| one.segment.rows()).sum();
        let recent: usize = self.recent.iter().map(|one| one.rows.len()).sum();
        sealed + recent
    }

    pub fn dead(&self) -> usize {
        let sealed: usize = self.sealed.iter().map(|one| one.dead.count()).sum();
        let recent: usize = self.recent.iter().map(|one| one.dead.count()).sum();
        sealed + recent
    }

    pub fn get(&self, id: &str) -> Result<Option<(Record, u64)>, StoreError> {
        let hash = xxh3_64(id.as_bytes());
        let mut found: Option<(Record, u64)> = None;
        for one in &self.sealed {
            if let Some(row) = one.live_row(hash, id)? {
                let seq = one.segment.seq(row)?;
                if found.as_ref().is_none_or(|(_, newest)| *newest < seq) {
                    found = Some((one.segment.record(row)?, seq));
                }
            }
        }
        for one in &self.recent {
            if let Some(row) = one.live_row(id).and_then(|row| one.rows.get(row)) {
                found = Some((row.record.clone(), row.seq));
            }
        }
        Ok(found)
    }
}
