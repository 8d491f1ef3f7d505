//! User contexts in memory, by key and version, and a copy on disk that is written behind.
//!
//! Invariants: memory is the truth, bounded by bytes; a version is used once in a process, so that
//! compare-and-swap has no ABA and a rendered body never fits another context; the disk copy holds
//! what memory holds, at most [`FLUSH_MS`] late, and is only read at start.

use crate::error::Error;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use lru::LruCache;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// How long a change may wait for the disk, in milliseconds.
pub const FLUSH_MS: u64 = 1_000;
/// Largest context, in bytes: a full seen set is 20,000 hashes of up to 9 bytes.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 160;
/// Keys lie in so many parts, each with a lock; fewer where memory is small, so that each holds a few of
/// the largest contexts.
const PARTS_MAX: u64 = 64;
const PART_BYTES_MIN: u64 = 4 * VALUE_BYTES_MAX as u64;
const BLOCK_CACHE_BYTES: u64 = 1 << 20;
/// What waits in memory for its file, at most, in bytes.
const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// A context and its version.
#[derive(Debug, Clone)]
pub struct Versioned {
    pub bytes: Bytes,
    pub version: u64,
}

/// Contexts by key. Cheap to clone.
#[derive(Clone)]
pub struct Kv {
    parts: Arc<[Mutex<Part>]>,
    version: Arc<AtomicU64>,
    /// Keys whose copy on disk is behind.
    dirty: Arc<Mutex<HashSet<Arc<str>>>>,
    disk: Option<Arc<Disk>>,
}

/// Some of the keys. The one used longest ago goes first.
struct Part {
    values: LruCache<Arc<str>, Versioned, BuildHasherDefault<Xxh3Default>>,
    bytes: usize,
    bytes_max: usize,
}

impl Part {
    /// Keeps a value; returns the keys that had to go for it.
    fn put(&mut self, key: Arc<str>, value: Versioned) -> Vec<Arc<str>> {
        self.bytes += weight(&key, &value);
        if let Some(old) = self.values.put(key.clone(), value) {
            self.bytes -= weight(&key, &old);
        }
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max
            && let Some((key, value)) = self.values.pop_lru()
        {
            self.bytes -= weight(&key, &value);
            gone.push(key);
        }
        gone
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, value)) = self.values.pop_entry(key) {
            self.bytes -= weight(&key, &value);
        }
    }
}

fn weight(key: &str, value: &Versioned) -> usize {
    key.len() + value.bytes.len() + ENTRY_OVERHEAD_BYTES
}

struct Disk {
    database: Database,
    contexts: Keyspace,
}

impl Kv {
    /// Contexts in memory only.
    #[must_use]
    pub fn in_memory(bytes_max: u64) -> Self {
        let count = (bytes_max / PART_BYTES_MIN).clamp(1, PARTS_MAX);
        let bytes_max = usize::try_from(bytes_max / count).unwrap_or(usize::MAX);
        let part = |_| {
            Mutex::new(Part {
                values: LruCache::unbounded_with_hasher(BuildHasherDefault::default()),
                bytes: 0,
                bytes_max,
            })
        };
        Self {
            parts: (0..count).map(part).collect(),
            version: Arc::new(AtomicU64::new(1)),
            dirty: Arc::default(),
            disk: None,
        }
    }

    /// Opens the copy on disk and loads what it has. A copy that cannot be read is set aside; the
    /// second value says so.
    pub fn open(dir: &Path, bytes_max: u64) -> Result<(Self, bool), Error> {
        let (disk, corrupt) = match open_disk(dir) {
            Ok(disk) => (disk, false),
            Err(_) if dir.exists() => {
                let state = |source| Error::State {
                    path: dir.to_owned(),
                    source,
                };
                crate::files::set_aside(dir).map_err(state)?;
                (
                    open_disk(dir).map_err(|error| store_error(dir, &error))?,
                    true,
                )
            }
            Err(error) => return Err(store_error(dir, &error)),
        };
        let mut kv = Self::in_memory(bytes_max);
        for row in disk.contexts.iter() {
            let Ok((key, value)) = row.into_inner() else {
                continue;
            };
            if let Ok(key) = std::str::from_utf8(&key) {
                let value = Versioned {
                    bytes: Bytes::copy_from_slice(&value),
                    version: kv.next_version(),
                };
                // What does not fit goes from the disk with the next flush.
                let gone = kv.part(key).lock().put(Arc::from(key), value);
                kv.dirty.lock().extend(gone);
            }
        }
        kv.disk = Some(Arc::new(disk));
        Ok((kv, corrupt))
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<Versioned> {
        self.part(key).lock().values.get(key).cloned()
    }

    /// The version of the context, 0 for none.
    #[must_use]
    pub fn version(&self, key: &str) -> u64 {
        let mut part = self.part(key).lock();
        part.values.get(key).map_or(0, |held| held.version)
    }

    /// Writes where the version is still `expected` (0: none).
    pub fn put(&self, key: &str, bytes: Bytes, expected: u64) -> Option<u64> {
        if bytes.len() > VALUE_BYTES_MAX {
            return None;
        }
        self.update(key, |held| {
            (held.map_or(0, |held| held.version) == expected).then_some(bytes)
        })
    }

    /// Writes what `change` makes of the value held, where it makes anything. One key's changes are
    /// serialised.
    pub fn update(
        &self,
        key: &str,
        change: impl FnOnce(Option<&Versioned>) -> Option<Bytes>,
    ) -> Option<u64> {
        let mut part = self.part(key).lock();
        let bytes = change(part.values.peek(key))?;
        let version = self.next_version();
        let key: Arc<str> = Arc::from(key);
        let mut changed = part.put(Arc::clone(&key), Versioned { bytes, version });
        changed.push(key);
        self.dirty.lock().extend(changed);
        Some(version)
    }

    pub fn remove(&self, key: &str) {
        let mut part = self.part(key).lock();
        part.remove(key);
        self.dirty.lock().insert(Arc::from(key));
    }

    #[expect(clippy::cast_possible_truncation, reason = "a few bits of a hash")]
    fn part(&self, key: &str) -> &Mutex<Part> {
        &self.parts[xxh3_64(key.as_bytes()) as usize % self.parts.len()]
    }

    /// Keys held, for the origin's push of contexts.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.parts
            .iter()
            .map(|part| part.lock().values.len() as u64)
            .sum()
    }

    /// Brings the disk copy up to date. Blocks: call it off the request path.
    pub fn flush(&self) -> Result<usize, String> {
        let Some(disk) = &self.disk else { return Ok(0) };
        let keys = std::mem::take(&mut *self.dirty.lock());
        let count = keys.len();
        let mut batch = disk.database.batch();
        for key in &keys {
            match self.part(key).lock().values.peek(key) {
                Some(held) => batch.insert(&disk.contexts, key.as_bytes(), held.bytes.as_ref()),
                None => batch.remove(&disk.contexts, key.as_bytes()),
            }
        }
        let written = batch
            .commit()
            .and_then(|()| disk.database.persist(fjall::PersistMode::Buffer));
        if let Err(error) = written {
            self.dirty.lock().extend(keys);
            return Err(error.to_string());
        }
        Ok(count)
    }

    fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::Relaxed)
    }
}

fn open_disk(dir: &Path) -> fjall::Result<Disk> {
    let database = Database::builder(dir)
        .cache_size(BLOCK_CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(1)
        .open()?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
    let contexts = database.keyspace("contexts", options)?;
    Ok(Disk { database, contexts })
}

fn store_error(dir: &Path, error: &fjall::Error) -> Error {
    Error::Store {
        path: dir.to_owned(),
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compare_and_swap_by_version() {
        let kv = Kv::in_memory(1 << 20);
        let first = kv.put("a", Bytes::from_static(b"1"), 0).unwrap();
        assert_eq!(
            kv.put("a", Bytes::from_static(b"2"), 0),
            None,
            "there is one already"
        );
        let second = kv.put("a", Bytes::from_static(b"2"), first).unwrap();
        assert!(second > first && kv.put("a", Bytes::new(), first).is_none());
        kv.remove("a");
        assert_eq!(kv.version("a"), 0);
        let third = kv.put("a", Bytes::from_static(b"3"), 0).unwrap();
        assert!(third > second, "versions are never used twice");
        assert_eq!(
            kv.put("b", Bytes::from(vec![0; VALUE_BYTES_MAX + 1]), 0),
            None
        );
    }

    #[test]
    fn what_was_flushed_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv");
        {
            let (kv, _) = Kv::open(&path, 1 << 20).unwrap();
            kv.put("a", Bytes::from_static(b"1"), 0).unwrap();
            kv.put("gone", Bytes::from_static(b"1"), 0).unwrap();
            kv.flush().unwrap();
            kv.remove("gone");
            kv.flush().unwrap();
        }
        let (kv, corrupt) = Kv::open(&path, 1 << 20).unwrap();
        assert!(!corrupt);
        assert_eq!(kv.get("a").unwrap().bytes, Bytes::from_static(b"1"));
        assert_eq!(kv.version("gone"), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let kv = Kv::in_memory(64 << 10);
        for n in 0..1_000 {
            kv.put(&format!("u{n}"), Bytes::from(vec![0; 1_000]), 0);
        }
        assert!(kv.parts.iter().map(|part| part.lock().bytes).sum::<usize>() <= 64 << 10);
        assert!(kv.version("u999") > 0 && kv.version("u0") == 0);
    }
}
