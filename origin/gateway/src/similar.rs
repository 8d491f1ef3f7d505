//! The user index: the vector of each user in the space of the model in service, searched for users
//! like one. It lies in a shard of this process, or in a cluster of `skerry vector` nodes.
//!
//! Invariants: a vector is found only by the model whose space it is in; what cannot be asked costs a
//! question at most [`SEARCH_MS_MAX`], and nothing while the breaker is open; an erased user is out of
//! the index before the erasure is acknowledged. What the index holds can be made again from the events
//! at any time: [`keep`] does it.

pub mod keep;

use crate::Error;
use crate::counters::Reading;
use crate::options::VectorsAt;
use crate::state::set_aside;
use keep::Changed;
use parking_lot::Mutex;
use skerry_decide::score::DIM;
use skerry_origin_core::{PortError, SimilarUsers};
use skerry_resilience::{Admit, Breaker, BreakerConfig, Outcome};
use skerry_telemetry::exposition::Histogram;
use skerry_types::{Attributes, Filter, TenantId, Test, Tick, UserId, Value};
use skerry_vector_index::{Merge, Metric, Query, Record, Spec, Stored, Write, store};
use skerry_vector_shard::slots::TENANT_END;
use skerry_vector_shard::{Collections, Error as ShardError, Vectors};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest search and longest write, in milliseconds.
const SEARCH_MS_MAX: u32 = 25;
/// From here on an answer counts as none for the breaker, in milliseconds.
const SLOW_MS: u64 = 20;
const WRITE_MS_MAX: u32 = 10_000;
/// The one field of a record's payload: the number of the model.
const MODEL: &str = "model";
/// Folder of the shard in this process.
const FOLDER: &str = "user-vectors";

/// What a node must hold to be asked: `skerry vector --dim 64 --metric cosine --fields model`.
#[must_use]
pub fn spec() -> Spec {
    Spec {
        dim: DIM,
        metric: Metric::Cosine,
        stored: Stored::F32,
        fields: vec![MODEL.into()],
    }
}

/// The index.
pub struct UserIndex {
    vectors: Vectors,
    /// Of a cluster; a shard in this process needs none.
    breaker: Option<Mutex<Breaker>>,
    /// Held from the reading of a context until what is made of it is written.
    writing: Mutex<()>,
    pub changed: Changed,
    pub searches: Histogram,
    pub counts: Counts,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub failed: AtomicU64,
    pub partial: AtomicU64,
    /// Not asked: the breaker was open.
    pub skipped: AtomicU64,
    pub written: AtomicU64,
    pub write_failed: AtomicU64,
}

impl UserIndex {
    /// Opens the shard in the state folder, or follows the cluster. Called on a runtime.
    pub fn open(dir: &Path, at: &VectorsAt, repair: bool) -> Result<Self, Error> {
        let (vectors, breaker) = match at {
            VectorsAt::Here => (open_here(&dir.join(FOLDER), repair)?, None),
            VectorsAt::Nodes { nodes, tls } => {
                let breaker = Breaker::new(BreakerConfig::ORIGIN, 0);
                let vectors = Vectors::cluster(nodes.clone(), tls.clone());
                (vectors, Some(Mutex::new(breaker)))
            }
        };
        let changed = Changed::default();
        if vectors
            .here_stats()
            .is_some_and(|(records, _)| records == 0)
        {
            // New, or set aside: whatever was written before is not there.
            changed.add_all();
        }
        Ok(Self {
            vectors,
            breaker,
            writing: Mutex::default(),
            changed,
            searches: Histogram::default(),
            counts: Counts::default(),
        })
    }

    #[must_use]
    pub const fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// The `k` users whose vectors are nearest to `query`, `but` one.
    pub fn near(
        &self,
        tenant: &TenantId,
        model: u64,
        query: &[f32],
        k: usize,
        but: Option<&str>,
        clock: &dyn Fn() -> Tick,
    ) -> Result<SimilarUsers, PortError> {
        let own = but.and_then(|subject| subject.strip_prefix("u:"));
        let own = own.map(|user| record_id(tenant, user));
        let query = Query {
            vectors: vec![query.to_vec()],
            merge: Merge::Best,
            k: k + usize::from(own.is_some()),
            ef: None,
            filter: Some(of_model(model)),
        };
        let began = clock();
        let searched = self.guarded("similar users", clock, || {
            self.vectors.search(&[query], SEARCH_MS_MAX)
        })?;
        self.searches.record_us(clock().since_us(began));
        let missing = searched.missing.len();
        if missing > 0 {
            self.counts.partial.fetch_add(1, Ordering::Relaxed);
        }
        let prefix = format!("{tenant}{TENANT_END}");
        let found = searched.lists.into_iter().flatten();
        let users = found
            .filter(|found| Some(&*found.id) != own.as_deref())
            .filter_map(|found| {
                let user = found.id.strip_prefix(&prefix)?;
                Some((format!("u:{user}").into(), found.score))
            });
        Ok(SimilarUsers {
            users: users.take(k).collect(),
            missing,
        })
    }

    /// The vector of a subject, as it was last written for this model.
    pub fn vector(
        &self,
        tenant: &TenantId,
        model: u64,
        subject: &str,
        clock: &dyn Fn() -> Tick,
    ) -> Result<Option<Vec<f32>>, PortError> {
        let Some(user) = subject.strip_prefix("u:") else {
            return Ok(None);
        };
        let id = record_id(tenant, user);
        let found = self.guarded("user vector", clock, || {
            self.vectors.get(&[&id], SEARCH_MS_MAX)
        })?;
        let of_model = |record: &Record| record.payload.get(MODEL) == Some(&number(model));
        Ok(found.into_iter().find(of_model).map(|record| record.vector))
    }

    /// Takes a user out, durably. The context is gone before.
    pub fn erase(&self, tenant: &TenantId, user: &UserId) -> Result<(), Error> {
        let _one_at_a_time = self.writing.lock();
        let id = record_id(tenant, user.as_str());
        self.write(vec![Write::Delete(id.into())])
    }

    /// For `/metrics`.
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub fn readings(&self) -> Vec<Reading> {
        let reading = |name, help, result: Option<&str>, value: u64| Reading {
            name,
            help,
            label: result.map(|result| ("result", result.to_owned())),
            value: value as f64,
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let searches = |result: &str, counter| {
            reading(
                "skerry_user_index_searches_total",
                "Searches of the user index that did not see all of it, by what became of them.",
                Some(result),
                count(counter),
            )
        };
        let writes = |result: &str, counter| {
            reading(
                "skerry_user_index_writes_total",
                "Users written to the user index, by what became of them.",
                Some(result),
                count(counter),
            )
        };
        let counts = &self.counts;
        let mut readings = vec![
            searches("partial", &counts.partial),
            searches("failed", &counts.failed),
            searches("skipped", &counts.skipped),
            writes("ok", &counts.written),
            writes("failed", &counts.write_failed),
            reading(
                "skerry_user_index_waiting",
                "Users whose events changed and whose vectors are not written yet.",
                None,
                self.changed.len() as u64,
            ),
        ];
        if let Some((records, _)) = self.vectors.here_stats() {
            let help = "Users in the index, where it is in this process.";
            readings.push(reading("skerry_user_index_records", help, None, records));
        }
        readings
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), Error> {
        let count = writes.len() as u64;
        let result = self.vectors.write(writes, WRITE_MS_MAX);
        let counter = match &result {
            Ok(()) => &self.counts.written,
            Err(_) => &self.counts.write_failed,
        };
        counter.fetch_add(count, Ordering::Relaxed);
        result.map_err(|error| Error::Store(format!("the user index: {error}")))
    }

    /// Asks where the breaker lets it, and tells the breaker what came of it: what takes nearly all of
    /// the time that it may take is as bad as nothing.
    fn guarded<T>(
        &self,
        what: &'static str,
        clock: &dyn Fn() -> Tick,
        ask: impl FnOnce() -> Result<T, ShardError>,
    ) -> Result<T, PortError> {
        let began = clock();
        let admit = match &self.breaker {
            Some(breaker) => breaker.lock().admits(began, began.0),
            None => Admit::Go,
        };
        if admit == Admit::No {
            self.counts.skipped.fetch_add(1, Ordering::Relaxed);
            let detail = "its breaker is open".to_owned();
            return Err(PortError { what, detail });
        }
        let result = ask();
        let now = clock();
        let well = result.is_ok() && now.since_ms(began) < SLOW_MS;
        if let Some(breaker) = &self.breaker {
            let mut breaker = breaker.lock();
            match admit {
                Admit::Probe => breaker.probe_done(well, now),
                _ if well => breaker.on(Outcome::Ok, now),
                _ => breaker.on(Outcome::Failure, now),
            };
        }
        result.map_err(|error| {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            let detail = error.to_string();
            PortError { what, detail }
        })
    }
}

fn open_here(dir: &Path, repair: bool) -> Result<Vectors, Error> {
    let collections = Collections {
        spec: spec(),
        options: store::Options::default(),
    };
    let corrupt = |error: &dyn std::fmt::Display| Error::Corrupt {
        path: dir.to_owned(),
        reason: error.to_string(),
    };
    match Vectors::here(dir, &collections) {
        Err(error) if repair && dir.exists() => {
            let aside = set_aside(dir)?;
            tracing::warn!(%error, aside = %aside.display(), "the damaged user index was set aside");
            Vectors::here(dir, &collections).map_err(|error| corrupt(&error))
        }
        opened => opened.map_err(|error| corrupt(&error)),
    }
}

/// `TENANT 0x1f USER`: the slot is that of the tenant and the user.
fn record_id(tenant: &TenantId, user: &str) -> String {
    format!("{tenant}{TENANT_END}{user}")
}

fn number(model: u64) -> Value {
    Value::Int(i64::try_from(model).unwrap_or(i64::MAX))
}

fn of_model(model: u64) -> Filter {
    Filter::Field {
        field: MODEL.into(),
        test: Test::Eq(number(model)),
    }
}

fn record(tenant: &TenantId, user: &str, model: u64, vector: &[f32]) -> Write {
    Write::Upsert(Record {
        id: record_id(tenant, user).into(),
        vector: vector.to_vec(),
        payload: Attributes::from([(MODEL.into(), number(model))]),
    })
}
