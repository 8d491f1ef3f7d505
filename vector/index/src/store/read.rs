//! Reading a collection other than by one id: searches, the log, pages, fingerprints, figures.

use super::error::StoreError;
use super::query::{self, Prepared};
use super::score::to_disk;
use super::shared::Shared;
use super::view::View;
use super::{LogRecord, codec};
use crate::{Found, IndexError, Query, Record, Stored};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A page of records has about so many bytes at most.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// A part of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSlice {
    pub records: Vec<LogRecord>,
    /// The last sequence number of the whole log: what a follower still lacks is up to here.
    pub last_seq: u64,
}

/// Some records, in the order of pages.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// With their sequence numbers.
    pub records: Vec<(Record, u64)>,
    /// What to ask for next; nothing at the end. Not always the id of a record of the page.
    pub next: Option<Box<str>>,
}

/// What identifies a set of records: equal for equal records with equal sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    pub count: u64,
    pub hash: u64,
    /// Of the state after this sequence number.
    pub seq: u64,
}

/// Figures for operators.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Sealed segments, and those that wait to be sealed.
    pub segments: usize,
    pub frozen: usize,
    /// Rows of all segments, and how many of them are dead.
    pub rows: usize,
    pub dead: usize,
    pub log_bytes: u64,
    /// Memory that searches need: graphs, and recent records.
    pub hot_bytes: u64,
    /// Sealed segments and the log.
    pub disk_bytes: u64,
    pub seq: u64,
    /// Up to here segments have the log.
    pub checkpoint: u64,
    /// What the background fails at, until it succeeds: codes and texts.
    pub faults: Vec<String>,
    pub sealing_fails: bool,
    pub compaction_fails: bool,
}

fn prepare<'a>(shared: &Shared, ask: &'a Query) -> Result<Prepared<'a>, IndexError> {
    query::prepare(&shared.spec, ask, shared.options.ef)
}

pub fn search(shared: &Shared, ask: &Query) -> Result<Vec<Found>, StoreError> {
    let ask = prepare(shared, ask)?;
    let read = |view: &View, is_still: &dyn Fn() -> bool| query::search(view, &ask, is_still);
    shared.memory.reading(read)
}

pub fn search_batch(shared: &Shared, asks: &[Query]) -> Result<Vec<Vec<Found>>, StoreError> {
    let asks: Result<Vec<Prepared<'_>>, IndexError> =
        asks.iter().map(|ask| prepare(shared, ask)).collect();
    let asks = asks?;
    shared.memory.reading(|view, is_still| {
        let each = asks.iter();
        each.map(|ask| query::search(view, ask, is_still)).collect()
    })
}

pub fn log_since(shared: &Shared, seq: u64, bytes_max: usize) -> Result<LogSlice, StoreError> {
    // Read first: what is on disk by then is what is given, at least.
    let last_seq = shared.memory.applied();
    if seq > last_seq {
        return Err(StoreError::Gap {
            last: last_seq,
            got: seq,
        });
    }
    let mut records = Vec::new();
    let mut bytes = 0;
    let dim = shared.spec.dim;
    let mut each = |path: &std::path::Path, at: u64, found: super::record::Found<'_>| {
        // What is on disk and not yet visible is not given: a leader shows it first.
        if found.last() > last_seq {
            return Ok(false);
        }
        let writes = codec::writes(found.body, found.count as usize, dim)
            .map_err(|what| StoreError::corrupt(path, at, what))?;
        let numbered = (found.first..).zip(writes);
        let new = numbered.filter(|(number, _)| *number > seq);
        records.extend(new.map(|(seq, write)| LogRecord { seq, write }));
        bytes += found.body.len();
        Ok(bytes < bytes_max)
    };
    shared.log_files.read(seq, &mut each)?;
    Ok(LogSlice { records, last_seq })
}

pub fn scan(
    view: &View,
    after: Option<&str>,
    records_max: usize,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Page, StoreError> {
    let mut cursor: Option<(u64, Box<str>)> = after.map(|id| (xxh3_64(id.as_bytes()), id.into()));
    let mut page = Page {
        records: Vec::new(),
        next: None,
    };
    let mut bytes = 0;
    let step = records_max.clamp(1, 10_000);
    loop {
        let ids = next_ids(view, cursor.as_ref(), step)?;
        let Some((hash, last)) = ids.last() else {
            return Ok(page);
        };
        cursor = Some((*hash, last.clone()));
        for (_, id) in ids {
            if !keep(&id) {
                continue;
            }
            // Looked up again: it may have been replaced since, in a segment that was read before.
            if let Some((record, seq)) = view.get(&id)? {
                bytes += record.vector.len() * 4 + 64 * record.payload.len() + id.len();
                page.records.push((record, seq));
            }
            if page.records.len() >= records_max.max(1) || bytes >= PAGE_BYTES_MAX {
                page.next = Some(id);
                return Ok(page);
            }
        }
    }
}

/// The next ids in the order of pages, dead or alive; all that lie between the first and the last.
fn next_ids(
    view: &View,
    after: Option<&(u64, Box<str>)>,
    most: usize,
) -> Result<BTreeSet<(u64, Box<str>)>, StoreError> {
    let mut ids = BTreeSet::new();
    for one in &view.sealed {
        let segment = &one.segment;
        let mut place = match after {
            Some((hash, id)) => segment.place(*hash, id)?,
            None => 0,
        };
        let mut taken = 0;
        while place < segment.rows() && taken < most {
            let (hash, row) = segment.entry(place)?;
            let key = (hash, segment.id(row)?.into());
            place += 1;
            if Some(&key) != after {
                ids.insert(key);
                taken += 1;
            }
        }
    }
    for one in &view.recent {
        let rows = one.rows.iter(one.length);
        let keys = rows.map(|(_, row)| {
            let id = &row.record.id;
            (xxh3_64(id.as_bytes()), id.clone())
        });
        ids.extend(keys.filter(|key| Some(key) > after));
    }
    while ids.len() > most {
        ids.pop_last();
    }
    Ok(ids)
}

pub fn fingerprint(
    shared: &Shared,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Fingerprint, StoreError> {
    let (view, seq) = shared.pinned();
    let mut total = Fingerprint {
        count: 0,
        hash: 0,
        seq,
    };
    let stored = shared.spec.stored;
    for one in &view.sealed {
        let segment = &one.segment;
        for row in (0..segment.rows() as u32).filter(|row| !one.dead.contains(*row)) {
            let id = segment.id(row)?;
            if keep(id) {
                let vector = segment.vector_bytes(row)?;
                total.add(id, segment.seq(row)?, vector, segment.payload_bytes(row)?);
            }
        }
    }
    for one in &view.recent {
        let rows = one.rows.iter(one.length);
        for (_, row) in rows.filter(|(row, _)| !one.dead.contains(*row)) {
            let record = &row.record;
            if keep(&record.id) {
                let payload = codec::encode_payload(&record.id, &record.payload)?;
                total.add(&record.id, row.seq, &disk(stored, &record.vector), &payload);
            }
        }
    }
    Ok(total)
}

fn disk(stored: Stored, vector: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    to_disk(stored, vector, &mut bytes);
    bytes
}

impl Fingerprint {
    fn add(&mut self, id: &str, seq: u64, vector: &[u8], payload: &[u8]) {
        let mut hash = Xxh3::new();
        hash.update(&(id.len() as u64).to_le_bytes());
        hash.update(id.as_bytes());
        hash.update(&seq.to_le_bytes());
        hash.update(vector);
        hash.update(payload);
        self.count += 1;
        // A sum: the order of the records does not matter, and none cancels its like out.
        self.hash = self.hash.wrapping_add(hash.digest());
    }
}

pub fn stats(shared: &Shared) -> Stats {
    let view = shared.memory.view.load();
    let sealed = || view.sealed.iter().map(|one| &one.segment);
    let graphs: usize = sealed()
        .map(|one| one.packed.hot_bytes() + one.payload_index.bytes())
        .sum();
    let recent: usize = view.recent.iter().map(|one| one.rows.bytes()).sum();
    let files: usize = sealed().map(|one| one.file_bytes()).sum();
    let log_bytes = shared.log_files.bytes();
    let checkpoint = shared.manifest.lock().manifest.checkpoint;
    let held = shared.faults.lock();
    let faults = [&held.sealing, &held.compacting].into_iter().flatten();
    Stats {
        segments: view.sealed.len(),
        frozen: view.frozen().len(),
        rows: view.rows(),
        dead: view.dead(),
        log_bytes,
        hot_bytes: (graphs + recent) as u64,
        disk_bytes: files as u64 + log_bytes,
        seq: shared.memory.applied(),
        checkpoint,
        faults: faults
            .map(|error| format!("{}: {error}", error.code()))
            .collect(),
        sealing_fails: held.sealing.is_some(),
        compaction_fails: held.compacting.is_some(),
    }
}
