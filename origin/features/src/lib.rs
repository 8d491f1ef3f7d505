//! The online feature store: the context of each user and session, complete and in order.
//!
//! Invariants: what an event changes is visible to the next read before the event is acknowledged;
//! on disk a context never runs ahead of, or behind, the cursor written with it in one batch, so
//! that a start replays exactly what is missing; applying an event twice changes nothing. Memory
//! holds at most [`HOT_CONTEXTS_MAX`] contexts, of which at most [`DIRTY_CONTEXTS_MAX`] are unwritten.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use fjall::{Database, Keyspace};
use parking_lot::RwLock;
use skerry_origin_events::{Consumer, Reader, Stored};
use skerry_types::{Event, TenantId, UserContext, context_key};
use skerry_wire::value::StoredContext;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Contexts in memory, at most (about 10 KB each when full).
pub const HOT_CONTEXTS_MAX: usize = 20_000;
/// Contexts that wait to be written, at most.
pub const DIRTY_CONTEXTS_MAX: usize = 8_000;
const SHARDS: usize = 16;
/// Events read at once when catching up.
const REPLAY_EVENTS_MAX: usize = 10_000;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the feature store failed: {0}")]
    Store(String),
    #[error("the stored context {key} does not decode: {reason}")]
    Corrupt { key: String, reason: String },
    #[error(transparent)]
    Events(#[from] skerry_origin_events::Error),
}

impl Error {
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "feature_store",
            Self::Corrupt { .. } => "feature_corrupt",
            Self::Events(error) => error.code(),
        }
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        Self::Store(error.to_string())
    }
}

struct Slot {
    context: Arc<UserContext>,
    dirty: bool,
    used: AtomicBool,
}

/// The store. Written by the event log's thread alone, read by everybody.
pub struct Store {
    db: Database,
    contexts: Keyspace,
    meta: Keyspace,
    shards: [RwLock<HashMap<String, Slot>>; SHARDS],
    hot: AtomicUsize,
    dirty: AtomicUsize,
    /// Position up to which contexts have the log's events.
    applied: AtomicU64,
    healthy: AtomicBool,
}

impl Store {
    /// Opens the store and brings it up to the end of the log.
    pub fn open(db: &Database, log: &Reader) -> Result<Self, Error> {
        let open = |name| skerry_origin_events::keyspace(db, name);
        let store = Self {
            db: db.clone(),
            contexts: open("contexts")?,
            meta: open("context_meta")?,
            shards: std::array::from_fn(|_| RwLock::default()),
            hot: AtomicUsize::new(0),
            dirty: AtomicUsize::new(0),
            applied: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        };
        store.catch_up(log)?;
        Ok(store)
    }

    /// The context of `u:USER` or `s:SESSION`; `None` where nothing is known.
    pub fn context(
        &self,
        tenant: &TenantId,
        subject: &str,
    ) -> Result<Option<Arc<UserContext>>, Error> {
        let key = context_key(tenant, subject);
        if let Some(slot) = self.shard(&key).read().get(&key) {
            slot.used.store(true, Ordering::Relaxed);
            return Ok(Some(Arc::clone(&slot.context)));
        }
        let Some(context) = self.load(&key)? else {
            return Ok(None);
        };
        let context = Arc::new(context);
        let mut shard = self.shard(&key).write();
        // The log's thread may have been faster; what it wrote is newer.
        if let Some(slot) = shard.get(&key) {
            return Ok(Some(Arc::clone(&slot.context)));
        }
        self.make_room(&mut shard);
        let slot = Slot {
            context: Arc::clone(&context),
            dirty: false,
            used: AtomicBool::new(true),
        };
        shard.insert(key, slot);
        self.hot.fetch_add(1, Ordering::Relaxed);
        Ok(Some(context))
    }

    /// Subjects of a tenant whose contexts are on disk, in the order of their keys, after one of them.
    pub fn subjects(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        let prefix = context_key(tenant, "");
        let mut from = context_key(tenant, after.unwrap_or_default()).into_bytes();
        if after.is_some() {
            from.push(0);
        }
        let mut subjects = Vec::new();
        for entry in self.contexts.range(from..) {
            let key = entry.key()?;
            let Some(subject) = key.strip_prefix(prefix.as_bytes()) else {
                break;
            };
            if subjects.len() == most {
                break;
            }
            subjects.push(String::from_utf8_lossy(subject).into_owned());
        }
        Ok(subjects)
    }

    /// Forgets a subject. The log must have erased it first, or a restart brings it back.
    pub fn erase(&self, tenant: &TenantId, subject: &str) -> Result<(), Error> {
        let key = context_key(tenant, subject);
        let mut shard = self.shard(&key).write();
        if let Some(slot) = shard.remove(&key) {
            self.hot.fetch_sub(1, Ordering::Relaxed);
            self.dirty
                .fetch_sub(usize::from(slot.dirty), Ordering::Relaxed);
        }
        self.contexts.remove(key)?;
        Ok(())
    }

    /// Contexts in memory.
    #[must_use]
    pub fn hot(&self) -> usize {
        self.hot.load(Ordering::Relaxed)
    }

    /// False once a write failed: contexts are then current in memory only.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn shard(&self, key: &str) -> &RwLock<HashMap<String, Slot>> {
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let [first, rest @ ..] = &self.shards;
        match (hash >> 32) as usize % SHARDS {
            0 => first,
            at => rest.get(at - 1).unwrap_or(first),
        }
    }

    fn load(&self, key: &str) -> Result<Option<UserContext>, Error> {
        let Some(bytes) = self.contexts.get(key)? else {
            return Ok(None);
        };
        match skerry_wire::decode::<StoredContext>(&bytes) {
            Ok(stored) => Ok(Some(stored.context)),
            Err(error) => Err(Error::Corrupt {
                key: key.replace('\u{1f}', "/"),
                reason: error.to_string(),
            }),
        }
    }

    /// Takes clean, unused contexts out of a shard that is full (second chance).
    fn make_room(&self, shard: &mut HashMap<String, Slot>) {
        if shard.len() < HOT_CONTEXTS_MAX / SHARDS {
            return;
        }
        let before = shard.len();
        let mut spare = before / 8;
        shard.retain(|_, slot| {
            let keep = slot.dirty || slot.used.swap(false, Ordering::Relaxed) || spare == 0;
            spare -= usize::from(!keep);
            keep
        });
        if shard.len() == before {
            // All were in use: the marks are gone now, so any clean one may leave.
            let mut spare = before / 8;
            shard.retain(|_, slot| {
                let keep = slot.dirty || spare == 0;
                spare -= usize::from(!keep);
                keep
            });
        }
        self.hot.fetch_sub(before - shard.len(), Ordering::Relaxed);
    }

    /// Changes one context; only the log's thread calls this.
    fn change(&self, key: &str, change: impl FnOnce(&mut UserContext)) -> Result<(), Error> {
        let cold = if self.shard(key).read().contains_key(key) {
            None
        } else {
            self.load(key)?
        };
        let mut shard = self.shard(key).write();
        if !shard.contains_key(key) {
            self.make_room(&mut shard);
            self.hot.fetch_add(1, Ordering::Relaxed);
        }
        let slot = shard.entry(key.to_owned()).or_insert_with(|| Slot {
            context: Arc::new(cold.unwrap_or_default()),
            dirty: false,
            used: AtomicBool::new(true),
        });
        change(Arc::make_mut(&mut slot.context));
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn apply_all(&self, log: &Reader, batch: &[Stored]) -> Result<(), Error> {
        for stored in batch {
            let tenant = &stored.event.tenant;
            let subject = stored.event.subject();
            let Some(old) = &stored.replaced else {
                if let Some(subject) = subject {
                    self.change(&context_key(tenant, &subject), |context| {
                        context.apply(&stored.event);
                    })?;
                }
                continue;
            };
            let before = old
                .subject()
                .filter(|before| Some(before) != subject.as_ref());
            for subject in subject.iter().chain(&before) {
                let history = log.by_user(tenant, subject, 0, usize::MAX)?;
                self.change(&context_key(tenant, subject), |context| {
                    *context = UserContext::default();
                    for (_, event) in &history {
                        context.apply(event);
                    }
                })?;
            }
        }
        if let Some(last) = batch.iter().map(|stored| stored.seq).max() {
            self.applied.fetch_max(last, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes what is unwritten, and the cursor, in one batch.
    fn write(&self, seq: u64) -> Result<(), Error> {
        let mut batch = self.db.batch();
        for shard in &self.shards {
            // Contexts are cloned as pointers, so that readers wait for no encoding.
            let dirty: Vec<(String, Arc<UserContext>)> = {
                let shard = shard.read();
                let dirty = shard.iter().filter(|(_, slot)| slot.dirty);
                dirty
                    .map(|(key, slot)| (key.clone(), Arc::clone(&slot.context)))
                    .collect()
            };
            for (key, context) in dirty {
                let stored = StoredContext {
                    written_ms: context.as_of_ms,
                    expires_ms: 0,
                    mark: 0,
                    context: (*context).clone(),
                };
                let bytes = skerry_wire::encode(&stored)
                    .map_err(|error| Error::Store(error.to_string()))?;
                batch.insert(&self.contexts, key, bytes);
            }
        }
        batch.insert(&self.meta, "applied", seq.to_be_bytes());
        batch.commit()?;
        for shard in &self.shards {
            for slot in shard.write().values_mut() {
                slot.dirty = false;
            }
        }
        self.dirty.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn catch_up(&self, log: &Reader) -> Result<(), Error> {
        let last = log.last_seq()?;
        let applied = self
            .meta
            .get("applied")?
            .and_then(|bytes| bytes.as_ref().try_into().ok())
            .map_or(0, u64::from_be_bytes);
        self.applied.store(applied, Ordering::Relaxed);
        if applied >= last {
            return Ok(());
        }
        for tenant in log.tenants()? {
            let mut after = applied;
            loop {
                let mut batch = Vec::new();
                let mut each = |seq, event: Event| {
                    batch.push(Stored {
                        seq,
                        event,
                        replaced: None,
                    })
                };
                let (_, read) = log.replay(&tenant, after, REPLAY_EVENTS_MAX, &mut each)?;
                self.apply_all(log, &batch)?;
                if self.dirty.load(Ordering::Relaxed) >= DIRTY_CONTEXTS_MAX {
                    // The old cursor: with several tenants the others are still behind.
                    self.write(applied)?;
                }
                if read == after {
                    break;
                }
                after = read;
            }
        }
        self.write(last)
    }
}

impl Consumer for Store {
    fn apply(&self, log: &Reader, batch: &[Stored]) {
        if let Err(error) = self.apply_all(log, batch) {
            self.healthy.store(false, Ordering::Relaxed);
            tracing::error!(%error, code = error.code(), "events were not applied to contexts");
        }
        let last = self.applied.load(Ordering::Relaxed);
        if self.dirty.load(Ordering::Relaxed) >= DIRTY_CONTEXTS_MAX {
            self.flush(last);
        }
    }

    fn flush(&self, seq: u64) {
        // A cursor past an event that was not applied would lose it for ever.
        if self.is_healthy()
            && let Err(error) = self.write(seq)
        {
            self.healthy.store(false, Ordering::Relaxed);
            tracing::error!(%error, code = error.code(), "contexts were not written");
        }
    }
}

/// A context with events applied that have not reached the store, each once.
#[must_use]
pub fn merge_pending(context: &UserContext, pending: &[Event]) -> UserContext {
    let mut merged = context.clone();
    for event in pending {
        merged.apply(event);
    }
    merged
}

#[cfg(test)]
mod tests;
