//! The worker's imports: what one request may ask of this PoP. Plain calls, except the two that wait
//! (`origin.ask`, `events.append`), where the guest's fiber is suspended.

use crate::cache::{PurgeMark, Rendered};
use crate::held::check::encode_items;
use crate::origin::Line;
use crate::shared::Shared;
use crate::spool::Pending;
use bytes::Bytes;
use std::sync::Arc;
use wasmtime::StoreLimits;

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "edge",
    imports: {
        "skerry:edge/origin.ask": async,
        "skerry:edge/events.append": async,
    },
    exports: { default: async },
});

use skerry::edge::{cache, clock, events, held, kv, log, origin, types};

/// A position that stands for none.
pub const NONE: u8 = 255;
/// [`held::Host::rows`]: not in the pool.
const NO_ROW: u32 = u32::MAX;

/// What an instance's store carries.
pub struct HostState {
    pub shared: Arc<Shared>,
    /// The serving thread's.
    pub line: Line,
    pub limits: StoreLimits,
    /// The body that the request's last lookup found: what `stored` in the response refers to.
    pub found: Option<Rendered>,
    /// Where the order of purges stood when the request began.
    pub began: PurgeMark,
    /// Epochs that the guest has run through since the host last had a say.
    pub epochs: u32,
}

impl types::Host for HostState {}

impl cache::Host for HostState {
    fn lookup(&mut self, key: Vec<u8>, subject: String, render: u64, now_ms: u64) -> cache::Found {
        let context_version = if subject.is_empty() {
            0
        } else {
            self.shared.kv.version(&subject)
        };
        let mut found = cache::Found {
            context_version,
            rendered: None,
            entry: None,
        };
        let Some((entry, stale)) = self.shared.cache.get(&key) else {
            return found;
        };
        if !stale && let Some(rendered) = entry.rendered(render, context_version, now_ms) {
            found.rendered = Some(rendered.head.to_vec());
            self.found = Some(rendered.clone());
        } else {
            found.entry = Some(cache::Entry {
                decision: entry.decision.to_vec(),
                expires_ms: if stale { 0 } else { entry.expires },
                stale_until_ms: entry.stale_until,
            });
        }
        found
    }

    fn store(&mut self, key: Vec<u8>, tags: Vec<String>, entry: cache::Entry) {
        let times = (entry.expires_ms, entry.stale_until_ms);
        self.shared
            .cache
            .store(&key, &tags, entry.decision.into(), times, self.began);
    }

    fn purge(&mut self, tag: String) {
        self.shared.cache.purge(&tag);
    }
}

impl kv::Host for HostState {
    fn get(&mut self, key: String) -> Option<kv::Value> {
        let held = self.shared.kv.get(&key)?;
        Some(kv::Value {
            bytes: held.bytes.to_vec(),
            version: held.version,
        })
    }

    fn put(&mut self, key: String, bytes: Vec<u8>, expected: u64) -> Option<u64> {
        self.shared.kv.put(&key, bytes.into(), expected)
    }
}

impl held::Host for HostState {
    fn config(&mut self) -> Vec<u8> {
        self.shared.held.now().config.to_vec()
    }

    fn pool(&mut self) -> Vec<u8> {
        self.shared
            .held
            .now()
            .pool
            .as_ref()
            .map_or_else(Vec::new, |pool| pool.arrays.to_vec())
    }

    fn rows(&mut self, ids: Vec<String>) -> Vec<u32> {
        let now = self.shared.held.now();
        let row = |id: &String| {
            now.pool
                .as_ref()
                .and_then(|pool| pool.row(id))
                .unwrap_or(NO_ROW)
        };
        ids.iter().map(row).collect()
    }

    fn items(&mut self, rows: Vec<u32>) -> Vec<u8> {
        self.shared
            .held
            .now()
            .pool
            .as_ref()
            .map_or_else(Vec::new, |pool| encode_items(pool, &rows))
    }

    fn popular(&mut self, surface: String, locale: String) -> Option<Vec<u8>> {
        let now = self.shared.held.now();
        now.popular
            .as_ref()
            .and_then(|popular| popular.list(&surface, &locale))
            .map(|list| list.to_vec())
    }

    fn bandit(&mut self, surface: String) -> Option<Vec<u8>> {
        self.shared
            .held
            .now()
            .bandit
            .get(surface.as_str())
            .map(|snapshot| snapshot.to_vec())
    }

    fn forbidden(&mut self, hashes: Vec<u64>, now_ms: u64, country: String) -> Vec<u8> {
        self.shared.held.now().forbidden(&hashes, now_ms, &country)
    }
}

impl origin::Host for HostState {
    fn make_plan(&mut self, subject_hash: u64, left_ms: u32) -> origin::Plan {
        let plan = self
            .shared
            .origin
            .plan(subject_hash, left_ms, self.shared.held.has_pool());
        origin::Plan {
            ask: plan.ask_origin,
            best: plan.best as u8,
            cause: plan.cause.map_or(NONE, |cause| cause as u8),
        }
    }

    async fn ask(
        &mut self,
        key: Vec<u8>,
        question: Vec<u8>,
        left_ms: u32,
    ) -> Result<Vec<u8>, origin::Failure> {
        use crate::origin::AskError;
        let origin = &self.shared.origin;
        let answer = origin.ask(&self.line, key, question.into(), left_ms).await;
        self.epochs = 0;
        answer
            .map(|bytes: Bytes| bytes.to_vec())
            .map_err(|error| match error {
                AskError::Down => origin::Failure::Down,
                AskError::Timeout => origin::Failure::Timeout,
                AskError::Overloaded => origin::Failure::Overloaded,
                AskError::Failed => origin::Failure::Error,
                AskError::Refused => origin::Failure::Refused,
            })
    }
}

impl events::Host for HostState {
    async fn append(&mut self, batch: Vec<u8>, subjects: Vec<String>) -> Result<(), String> {
        let batch: skerry_wire::value::EventBatch =
            skerry_wire::decode(&batch).map_err(|error| error.code().to_owned())?;
        if batch.events.len() != subjects.len() {
            return Err("events_subjects".to_owned());
        }
        let pending = batch.events.into_iter().zip(subjects);
        let pending = pending.map(|(event, subject)| Pending {
            subject: subject.into(),
            event: Arc::new(event),
        });
        let appended = self.shared.append(pending.collect()).await;
        self.epochs = 0;
        appended.map_err(|error| error.code().to_owned())
    }

    fn pending(&mut self, subject: String) -> Vec<u8> {
        let events = self.shared.spool.pending(&subject);
        let events = events.iter().map(|event| event.as_ref().clone()).collect();
        skerry_wire::encode(&skerry_wire::value::EventBatch { events }).unwrap_or_default()
    }
}

impl clock::Host for HostState {
    fn tick_us(&mut self) -> u64 {
        self.shared.clock.tick().0
    }
}

impl log::Host for HostState {
    fn write(&mut self, level: log::Level, message: String) {
        match level {
            log::Level::Debug => tracing::debug!(target: "skerry::worker", "{message}"),
            log::Level::Info => tracing::info!(target: "skerry::worker", "{message}"),
            log::Level::Warn => tracing::warn!(target: "skerry::worker", "{message}"),
            log::Level::Error => tracing::error!(target: "skerry::worker", "{message}"),
        }
    }
}
