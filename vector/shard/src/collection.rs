//! The port on a durable collection.

use crate::store::{Capture, Committed, Figures, Keep, LogRecord, Page, Store, StoreError, Stores};
use skerry_vector_index::store::{self as durable, Collection, Options};
use skerry_vector_index::{Found, Query, Record, Spec, Write};
use std::path::Path;
use std::sync::Arc;

/// Collections of one kind, in folders.
pub struct Collections {
    pub spec: Spec,
    pub options: Options,
}

impl Stores for Collections {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
        let spec = self.spec.clone();
        let collection = Collection::open_or_create(dir, spec, self.options.clone())?;
        Ok(Arc::new(Durable(collection)))
    }

    fn restore(&self, snapshot: &Path, dir: &Path) -> Result<(), StoreError> {
        Collection::restore(snapshot, dir, self.options.clone())?.close();
        Ok(())
    }
}

struct Durable(Collection);

impl From<durable::StoreError> for StoreError {
    fn from(error: durable::StoreError) -> Self {
        use durable::StoreError as E;
        match error {
            E::Index(error) => Self::Invalid(error),
            E::LogGone { wanted, .. } => Self::LogGone(wanted),
            E::Gap { last, got } => Self::Gap { got, seq: last },
            E::Full { .. } => Self::Full,
            // The writer's own: the store is well.
            error @ (E::BatchBytes { .. } | E::NestedList { .. }) => Self::Refused {
                code: error.code(),
                reason: error.to_string(),
            },
            error => Self::Failed {
                code: error.code(),
                reason: error.to_string(),
            },
        }
    }
}

impl Store for Durable {
    fn write(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        Ok(self.0.write(writes)?)
    }

    fn copy(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        Ok(self.0.write_copy(writes)?)
    }

    fn apply(&self, records: Vec<LogRecord>) -> Result<u64, StoreError> {
        Ok(self.0.apply(records)?)
    }

    fn log_since(&self, seq: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        Ok(self.0.log_since(seq, bytes_max)?.records)
    }

    fn search_batch(&self, queries: &[Query]) -> Result<Vec<Vec<Found>>, StoreError> {
        Ok(self.0.search_batch(queries)?)
    }

    fn get(&self, id: &str) -> Result<Option<(Record, u64)>, StoreError> {
        Ok(self.0.get(id)?)
    }

    fn scan(&self, after: Option<&str>, max: usize, keep: Keep<'_>) -> Result<Page, StoreError> {
        let page = self.0.scan(after, max, keep)?;
        Ok(Page {
            records: page.records.into_iter().map(|(record, _)| record).collect(),
            next: page.next,
        })
    }

    fn seq(&self) -> u64 {
        self.0.seq()
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn figures(&self) -> Figures {
        let stats = self.0.stats();
        Figures {
            segments: stats.segments as u64,
            frozen: stats.frozen as u64,
            rows: stats.rows as u64,
            dead: stats.dead as u64,
            log_bytes: stats.log_bytes,
            hot_bytes: stats.hot_bytes,
            disk_bytes: stats.disk_bytes,
            checkpoint: stats.checkpoint,
            sealing_fails: stats.sealing_fails,
            compaction_fails: stats.compaction_fails,
        }
    }

    fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError> {
        self.0.snapshot_to(folder)?;
        Ok(())
    }

    fn capture(&self) -> Result<Capture, StoreError> {
        Ok(self.0.capture()?)
    }
}
