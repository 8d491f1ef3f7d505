//! A store in memory, exact and slow: what a [`Store`] must do, for tests. Stores outlive what opens
//! them, as files would, until their [`MemoryStores`] goes.

use crate::store::{Committed, Figures, Keep, LogRecord, Page, Store, StoreError, Stores};
use crate::wire;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use skerry_vector_index::{Found, IndexError, Merge, Metric, Query, Record, Spec, Write};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SNAPSHOT: &str = "records";

/// Records by id, and the last writes.
struct Inner {
    live: BTreeMap<Box<str>, (Record, u64)>,
    log: Vec<LogRecord>,
    seq: u64,
}

pub struct Memory {
    spec: Spec,
    /// Writes that the log keeps.
    log_max: usize,
    inner: RwLock<Inner>,
}

/// Stores by folder.
pub struct MemoryStores {
    spec: Spec,
    log_max: usize,
    open: Mutex<HashMap<PathBuf, Arc<Memory>>>,
}

impl MemoryStores {
    #[must_use]
    pub fn new(spec: Spec, log_max: usize) -> Self {
        Self {
            spec,
            log_max,
            open: Mutex::default(),
        }
    }
}

impl Stores for MemoryStores {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Store>, StoreError> {
        let mut open = self.open.lock();
        let store = open
            .entry(dir.to_path_buf())
            .or_insert_with(|| Arc::new(Memory::new(self.spec.clone(), self.log_max)));
        Ok(Arc::clone(store) as Arc<dyn Store>)
    }

    fn restore(&self, snapshot: &Path, dir: &Path) -> Result<(), StoreError> {
        let failed = |reason: String| StoreError::Failed {
            code: "memory",
            reason,
        };
        let bytes = std::fs::read(snapshot.join(SNAPSHOT)).map_err(|e| failed(e.to_string()))?;
        let records = wire::grpc::LogRecords::decode(bytes.as_slice());
        let records = records.map_err(|e| failed(e.to_string()))?.records;
        let store = Memory::new(self.spec.clone(), self.log_max);
        {
            let mut inner = store.inner.write();
            for record in records {
                let record = wire::log_record_in(record).map_err(|e| failed(e.to_string()))?;
                inner.seq = inner.seq.max(record.seq);
                if let Write::Upsert(upsert) = record.write {
                    inner.live.insert(upsert.id.clone(), (upsert, record.seq));
                }
            }
        }
        self.open.lock().insert(dir.to_path_buf(), Arc::new(store));
        Ok(())
    }
}

impl Memory {
    #[must_use]
    pub fn new(spec: Spec, log_max: usize) -> Self {
        Self {
            spec,
            log_max,
            inner: RwLock::new(Inner {
                live: BTreeMap::new(),
                log: Vec::new(),
                seq: 0,
            }),
        }
    }

    fn check(&self, writes: &[Write]) -> Result<(), IndexError> {
        let mut ids = std::collections::HashSet::new();
        for write in writes {
            let id = match write {
                Write::Upsert(record) => &record.id,
                Write::Delete(id) => id,
            };
            if !ids.insert(id) {
                return Err(IndexError::DuplicateId { id: id.clone() });
            }
            let Write::Upsert(record) = write else {
                continue;
            };
            if record.vector.len() != self.spec.dim {
                return Err(IndexError::RecordDim {
                    id: id.clone(),
                    got: record.vector.len(),
                    dim: self.spec.dim,
                });
            }
            if let Some(component) = record.vector.iter().position(|value| !value.is_finite()) {
                return Err(IndexError::RecordNotFinite {
                    id: id.clone(),
                    component,
                });
            }
        }
        Ok(())
    }

    fn score(&self, a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        match self.spec.metric {
            Metric::Dot => dot(a, b),
            Metric::Cosine => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE),
            Metric::L2 => -a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>(),
        }
    }

    fn search(&self, inner: &Inner, query: &Query) -> Result<Vec<Found>, IndexError> {
        for vector in &query.vectors {
            if vector.len() != self.spec.dim {
                return Err(IndexError::QueryDim {
                    query: vector.len(),
                    index: self.spec.dim,
                });
            }
        }
        let mut found: Vec<Found> = inner
            .live
            .values()
            .map(|(record, seq)| {
                let scores = query.vectors.iter().map(|q| self.score(q, &record.vector));
                let score = match query.merge {
                    Merge::Best => scores.fold(f32::MIN, f32::max),
                    Merge::Mean => scores.sum::<f32>() / query.vectors.len() as f32,
                };
                Found {
                    id: record.id.clone(),
                    score,
                    seq: *seq,
                }
            })
            .collect();
        found.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        found.truncate(query.k);
        Ok(found)
    }
}

impl Inner {
    fn put(&mut self, record: LogRecord, log_max: usize) {
        self.seq = record.seq;
        match &record.write {
            Write::Upsert(upsert) => {
                let entry = (upsert.clone(), record.seq);
                self.live.insert(upsert.id.clone(), entry);
            }
            Write::Delete(id) => {
                self.live.remove(id);
            }
        }
        self.log.push(record);
        if self.log.len() > log_max {
            let gone = self.log.len() - log_max;
            self.log.drain(..gone);
        }
    }
}

impl Store for Memory {
    fn write(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        self.check(&writes)?;
        let mut inner = self.inner.write();
        let first_seq = inner.seq + 1;
        for write in writes {
            let seq = inner.seq + 1;
            inner.put(LogRecord { seq, write }, self.log_max);
        }
        Ok(Committed {
            first_seq,
            last_seq: inner.seq,
        })
    }

    fn copy(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        self.write(writes)
    }

    fn apply(&self, records: Vec<LogRecord>) -> Result<u64, StoreError> {
        let mut inner = self.inner.write();
        for record in records {
            if record.seq <= inner.seq {
                continue;
            }
            if record.seq != inner.seq + 1 {
                let (got, seq) = (record.seq, inner.seq);
                return Err(StoreError::Gap { got, seq });
            }
            inner.put(record, self.log_max);
        }
        Ok(inner.seq)
    }

    fn log_since(&self, seq: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        let inner = self.inner.read();
        let first = inner.log.first().map_or(inner.seq + 1, |record| record.seq);
        if seq + 1 < first {
            return Err(StoreError::LogGone(seq));
        }
        let skip = inner.log.partition_point(|record| record.seq <= seq);
        let each = self.spec.dim * 4 + 64;
        let count = (bytes_max / each).max(1);
        Ok(inner.log.iter().skip(skip).take(count).cloned().collect())
    }

    fn search_batch(&self, queries: &[Query]) -> Result<Vec<Vec<Found>>, StoreError> {
        let inner = self.inner.read();
        let lists = queries.iter().map(|query| self.search(&inner, query));
        Ok(lists.collect::<Result<_, _>>()?)
    }

    fn get(&self, id: &str) -> Result<Option<(Record, u64)>, StoreError> {
        Ok(self.inner.read().live.get(id).cloned())
    }

    fn scan(&self, after: Option<&str>, max: usize, keep: Keep<'_>) -> Result<Page, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.inner.read();
        let range = inner.live.range::<str, _>((from, Bound::Unbounded));
        let kept = range.filter(|(id, _)| keep(id));
        let records: Vec<Record> = kept.take(max).map(|(_, (r, _))| r.clone()).collect();
        let next = records.last().map(|record| record.id.clone());
        let next = next.filter(|_| records.len() == max);
        Ok(Page { records, next })
    }

    fn seq(&self) -> u64 {
        self.inner.read().seq
    }

    fn len(&self) -> u64 {
        self.inner.read().live.len() as u64
    }

    fn figures(&self) -> Figures {
        let inner = self.inner.read();
        Figures {
            rows: inner.live.len() as u64,
            ..Figures::default()
        }
    }

    fn snapshot_to(&self, folder: &Path) -> Result<(), StoreError> {
        let inner = self.inner.read();
        let mut records: Vec<LogRecord> = inner
            .live
            .values()
            .map(|(record, seq)| LogRecord {
                seq: *seq,
                write: Write::Upsert(record.clone()),
            })
            .collect();
        // The number of the last write, be it a delete.
        records.push(LogRecord {
            seq: inner.seq,
            write: Write::Delete("-".into()),
        });
        let records = records.into_iter().map(wire::log_record_out).collect();
        let bytes = wire::grpc::LogRecords { records }.encode_to_vec();
        let failed = |error: std::io::Error| StoreError::Failed {
            code: "memory",
            reason: error.to_string(),
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::write(folder.join(SNAPSHOT), bytes).map_err(failed)
    }
}
