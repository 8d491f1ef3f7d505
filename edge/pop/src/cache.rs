//! The response cache: one decision for a key, and the bodies rendered from it.
//!
//! Invariants: bounded by bytes; a purge by tag holds for every entry stored before it *and* for
//! every entry whose making began before it (a slow answer cannot bring back what an event has
//! outdated); a body is given back only for the context version that it was rendered for.

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use skerry_types::Millis;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64, xxh3_128};

/// Bodies kept beside one decision, at most: the same question with other `n` or `fields`.
const RENDERED_MAX: usize = 4;
/// Purged tags remembered, at most; beyond it everything older is dropped at once.
const PURGES_MAX: usize = 200_000;
const PURGE_SHARDS: usize = 16;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 256;
/// Bytes of an entry, about: an answer of ten items and the sixty candidates it was made from. What the
/// cache sizes its tables by.
const ENTRY_BYTES: u64 = 16 << 10;

/// A body, and where the fixed-width fields in it are.
#[derive(Debug, Clone)]
pub struct Rendered {
    pub render: u64,
    pub context_version: u64,
    pub until: Millis,
    pub bytes: Bytes,
    /// Offset and length of each.
    pub slots: Arc<[(u32, u32)]>,
    pub head: Bytes,
}

#[derive(Debug, Clone)]
pub struct Entry {
    key: Box<[u8]>,
    pub decision: Bytes,
    pub expires: Millis,
    pub stale_until: Millis,
    tags: Box<[u64]>,
    /// Number of purges when the making of the decision began.
    made_at: u64,
    rendered: Vec<Rendered>,
}

impl Entry {
    fn weight(&self) -> u64 {
        let bodies: usize = self
            .rendered
            .iter()
            .map(|r| r.bytes.len() + r.head.len() + 128)
            .sum();
        (self.key.len() + self.decision.len() + bodies + ENTRY_OVERHEAD_BYTES) as u64
    }

    /// The body for exactly this, inside its time.
    #[must_use]
    pub fn rendered(&self, render: u64, context_version: u64, now: Millis) -> Option<&Rendered> {
        let fits = |r: &&Rendered| {
            r.render == render && r.context_version == context_version && now < r.until
        };
        self.rendered.iter().find(fits)
    }
}

#[derive(Debug, Clone, Copy)]
struct InBytes;

impl Weighter<u128, Arc<Entry>> for InBytes {
    fn weight(&self, _: &u128, entry: &Arc<Entry>) -> u64 {
        entry.weight()
    }
}

type Entries = Cache<u128, Arc<Entry>, InBytes, BuildHasherDefault<Xxh3Default>>;

/// What is looked up or stored where. Cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct ResponseCache {
    entries: Arc<Entries>,
    purges: Arc<Purges>,
}

/// When each tag was last purged, counted in purges.
struct Purges {
    count: AtomicU64,
    /// Entries made before this are dropped whole.
    floor: AtomicU64,
    /// Entries made before this have expired, but may serve as stale.
    soft_floor: AtomicU64,
    tags: [Mutex<HashMap<u64, u64>>; PURGE_SHARDS],
}

/// A point in the order of purges: taken when a request begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PurgeMark(u64);

impl ResponseCache {
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let items = usize::try_from(bytes_max / ENTRY_BYTES).unwrap_or(usize::MAX);
        let entries = Entries::with(
            items,
            bytes_max,
            InBytes,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        );
        let purges = Purges {
            count: AtomicU64::new(1),
            floor: AtomicU64::new(0),
            soft_floor: AtomicU64::new(0),
            tags: std::array::from_fn(|_| Mutex::new(HashMap::new())),
        };
        Self {
            entries: Arc::new(entries),
            purges: Arc::new(purges),
        }
    }

    #[must_use]
    pub fn mark(&self) -> PurgeMark {
        PurgeMark(self.purges.count.load(Ordering::Acquire))
    }

    /// The entry under `key`, and whether a purge has made it stale before its time.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<(Arc<Entry>, bool)> {
        let entry = self.entries.get(&xxh3_128(key))?;
        if *entry.key != *key || self.purges.hit(&entry.tags, entry.made_at) {
            return None;
        }
        let stale = entry.made_at < self.purges.soft_floor.load(Ordering::Acquire);
        Some((entry, stale))
    }

    pub fn store(
        &self,
        key: &[u8],
        tags: &[impl AsRef<str>],
        decision: Bytes,
        (expires, stale_until): (Millis, Millis),
        began: PurgeMark,
    ) {
        let tags: Box<[u64]> = tags
            .iter()
            .map(|tag| xxh3_64(tag.as_ref().as_bytes()))
            .collect();
        if self.purges.hit(&tags, began.0) {
            return;
        }
        let entry = Entry {
            key: key.into(),
            decision,
            expires,
            stale_until,
            tags,
            made_at: began.0,
            rendered: Vec::new(),
        };
        self.entries.insert(xxh3_128(key), Arc::new(entry));
    }

    /// Keeps a body beside the decision that it was rendered from; where that has gone, nothing.
    pub fn keep(&self, key: &[u8], body: &Rendered) {
        let place = xxh3_128(key);
        let held = self.entries.peek(&place).filter(|held| *held.key == *key);
        let Some(mut entry) = held.map(Arc::unwrap_or_clone) else {
            return;
        };
        entry.rendered.retain(|other| other.render != body.render);
        if entry.rendered.len() == RENDERED_MAX {
            entry.rendered.remove(0);
        }
        entry.rendered.push(body.clone());
        // A decision stored meanwhile gives way to this one, which is as valid as it was.
        let _ = self.entries.replace(place, Arc::new(entry), true);
    }

    /// Everything under the tag that was made, or begun, before now is gone.
    pub fn purge(&self, tag: &str) {
        self.purges.add(xxh3_64(tag.as_bytes()));
    }

    /// After a gap in the invalidation log: everything has expired, but may still serve as stale.
    pub fn soft_purge_all(&self) {
        let count = self.purges.count.fetch_add(1, Ordering::AcqRel) + 1;
        self.purges.soft_floor.fetch_max(count, Ordering::AcqRel);
    }

    /// Bytes and entries held.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        (self.entries.weight(), self.entries.len() as u64)
    }
}

impl Purges {
    fn shard(&self, tag: u64) -> &Mutex<HashMap<u64, u64>> {
        &self.tags[(tag >> 60) as usize % PURGE_SHARDS]
    }

    fn add(&self, tag: u64) {
        let mut shard = self.shard(tag).lock();
        // Counted under the lock, so that a tag's number never goes down.
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if shard.len() >= PURGES_MAX / PURGE_SHARDS && !shard.contains_key(&tag) {
            shard.clear();
            self.floor.fetch_max(count, Ordering::AcqRel);
        }
        shard.insert(tag, count);
    }

    fn hit(&self, tags: &[u64], made_at: u64) -> bool {
        made_at < self.floor.load(Ordering::Acquire)
            || tags.iter().any(|tag| {
                self.shard(*tag)
                    .lock()
                    .get(tag)
                    .is_some_and(|purged| made_at < *purged)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = 1_000;

    fn stored(cache: &ResponseCache, key: &[u8], tags: &[&str]) {
        cache.store(
            key,
            tags,
            Bytes::from_static(b"decision"),
            (2_000, 3_000),
            cache.mark(),
        );
    }

    fn body(render: u64, context_version: u64) -> Rendered {
        Rendered {
            render,
            context_version,
            until: 2_000,
            bytes: Bytes::from_static(b"body"),
            slots: Arc::from([(0, 1)]),
            head: Bytes::new(),
        }
    }

    #[test]
    fn a_purged_tag_takes_its_entries_and_no_others() {
        let cache = ResponseCache::new(1 << 20);
        stored(&cache, b"a", &["user:1"]);
        stored(&cache, b"b", &["user:2"]);
        cache.purge("user:1");
        assert!(cache.get(b"a").is_none() && cache.get(b"b").is_some());
        stored(&cache, b"a", &["user:1"]);
        assert!(cache.get(b"a").is_some(), "made after the purge");
    }

    #[test]
    fn an_answer_begun_before_a_purge_is_not_stored() {
        let cache = ResponseCache::new(1 << 20);
        let began = cache.mark();
        cache.purge("user:1");
        cache.store(b"a", &["user:1"], Bytes::new(), (2_000, 3_000), began);
        assert!(cache.get(b"a").is_none());
    }

    #[test]
    fn bodies_fit_their_question_context_and_time() {
        let cache = ResponseCache::new(1 << 20);
        cache.keep(b"a", &body(1, 1));
        assert!(cache.get(b"a").is_none(), "no body without its decision");
        stored(&cache, b"a", &["user:1"]);
        cache.keep(b"a", &body(1, 1));
        let (entry, stale) = cache.get(b"a").unwrap();
        let cases = [
            (1, 1, NOW, true),
            (2, 1, NOW, false),
            (1, 2, NOW, false),
            (1, 1, 2_000, false),
        ];
        for (render, version, now, want) in cases {
            assert_eq!(
                entry.rendered(render, version, now).is_some(),
                want,
                "{render} {version} {now}"
            );
        }
        assert!(!stale);
        for render in 0..10 {
            cache.keep(b"a", &body(render, 1));
        }
        assert_eq!(cache.get(b"a").unwrap().0.rendered.len(), RENDERED_MAX);
    }

    #[test]
    fn a_gap_makes_everything_stale_but_keeps_it() {
        let cache = ResponseCache::new(1 << 20);
        stored(&cache, b"a", &[]);
        cache.soft_purge_all();
        assert!(cache.get(b"a").unwrap().1);
        stored(&cache, b"a", &[]);
        assert!(!cache.get(b"a").unwrap().1);
    }

    #[test]
    fn the_memory_of_purges_is_bounded() {
        let cache = ResponseCache::new(1 << 20);
        stored(&cache, b"a", &["user:kept"]);
        for n in 0..PURGES_MAX + PURGES_MAX / 4 {
            cache.purge(&format!("user:{n}"));
        }
        let held: usize = cache
            .purges
            .tags
            .iter()
            .map(|shard| shard.lock().len())
            .sum();
        assert!(held <= PURGES_MAX);
        assert!(
            cache.get(b"a").is_none(),
            "what cannot be told apart any more is dropped"
        );
    }

    #[test]
    fn bytes_are_bounded() {
        let cache = ResponseCache::new(64 << 10);
        for n in 0u32..1_000 {
            cache.store(
                &n.to_le_bytes(),
                &[""; 0],
                Bytes::from(vec![0; 1_000]),
                (2_000, 3_000),
                cache.mark(),
            );
        }
        assert!(cache.size().0 <= 64 << 10);
    }
}
