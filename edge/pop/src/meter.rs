//! What this PoP counts. Names are the public contract; labels are enums, never ids.

use crate::origin::AskError;
use crate::spool::SpoolError;
use crate::world::skerry::edge::types::Note;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use skerry_edge_core::ports::{CacheState, RouteLabel};
use skerry_resilience::BreakerState;
use skerry_types::{Cause, Rung};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Counts. Cheap to clone.
#[derive(Clone)]
pub struct Meter {
    connections: Gauge,
    breaker: Gauge,
    exposures_dropped: Counter,
    /// Questions that were answered, and those that ended in each [`AskError`].
    answered: Histogram,
    failed: Arc<[(AskError, Histogram)]>,
}

/// Handles of one kind of answer, found by its packed labels.
struct Answered {
    requests: Counter,
    seconds: Histogram,
    cause: Option<Counter>,
    cache: Option<Counter>,
}

thread_local! {
    static ANSWERED: RefCell<HashMap<u64, Answered>> = RefCell::default();
}

impl Meter {
    #[must_use]
    pub fn new(region: &str) -> Self {
        let connections = gauge!("skerry_connections");
        let breaker = gauge!("skerry_breaker_state", "target" => "origin");
        let asked = |outcome: &'static str| histogram!("skerry_origin_seconds", "region" => region.to_owned(), "outcome" => outcome);
        let failed = AskError::ALL.map(|error| (error, asked(error.as_str())));
        Self {
            connections,
            breaker,
            exposures_dropped: counter!("skerry_exposures_dropped_total"),
            answered: asked("ok"),
            failed: failed.into(),
        }
    }

    /// One answer to a user.
    pub fn answered(&self, note: &Note, status: u16, took_us: u64) {
        let bytes = [
            note.route,
            note.rung,
            note.cause,
            note.cache,
            u8::from(note.surface_known),
            0,
            0,
            0,
        ];
        let key = u64::from_le_bytes(bytes) | u64::from(status) << 40;
        ANSWERED.with_borrow_mut(|handles| {
            let one = handles
                .entry(key)
                .or_insert_with(|| Answered::register(note, status));
            one.requests.increment(1);
            one.seconds.record(took_us as f64 / 1e6);
            if let Some(cause) = &one.cause {
                cause.increment(1);
            }
            if let Some(cache) = &one.cache {
                cache.increment(1);
            }
        });
    }

    /// The worker failed and the host answered.
    pub fn worker_failed(&self, why: &'static str) {
        counter!("skerry_worker_failures_total", "why" => why).increment(1);
    }

    /// One list made anew after its last answer went out past its freshness.
    pub fn revalidated(&self, done: bool) {
        let outcome = if done { "done" } else { "failed" };
        counter!("skerry_revalidations_total", "outcome" => outcome).increment(1);
    }

    /// One question to the origin, and how it failed where it did.
    pub fn asked(&self, took_us: u64, error: Option<AskError>) {
        let failed = self.failed.iter().find(|(known, _)| Some(*known) == error);
        let seconds = failed.map_or(&self.answered, |(_, seconds)| seconds);
        seconds.record(took_us as f64 / 1e6);
    }

    pub fn breaker(&self, state: BreakerState) {
        self.breaker.set(match state {
            BreakerState::Closed => 0.0,
            BreakerState::Ramping => 1.0,
            BreakerState::HalfOpen => 2.0,
            BreakerState::Open => 3.0,
        });
    }

    pub fn protocol_error(&self, code: &'static str) {
        counter!("skerry_protocol_errors_total", "code" => code).increment(1);
    }

    pub fn pushed(&self, kind: &'static str, result: &'static str) {
        counter!("skerry_pushes_total", "kind" => kind, "result" => result).increment(1);
    }

    pub fn exposure_dropped(&self) {
        self.exposures_dropped.increment(1);
    }

    pub fn events(&self, count: u64, result: Result<(), SpoolError>) {
        let result = result.err().map_or("accepted", SpoolError::code);
        counter!("skerry_events_total", "result" => result).increment(count);
    }

    /// What is held, now and then.
    pub fn held(&self, backlog: usize, contexts: u64, (cache_bytes, cache_entries): (u64, u64)) {
        gauge!("skerry_spool_events").set(backlog as f64);
        gauge!("skerry_contexts").set(contexts as f64);
        gauge!("skerry_cache_bytes").set(cache_bytes as f64);
        gauge!("skerry_cache_entries").set(cache_entries as f64);
    }

    /// Files that were set aside at start.
    pub fn corrupt_files(&self, count: u64) {
        counter!("skerry_corrupt_files_total").increment(count);
    }

    pub fn connections(&self, count: usize) {
        self.connections.set(count as f64);
    }
}

impl Answered {
    fn register(note: &Note, status: u16) -> Self {
        let at = |position: u8| usize::from(position);
        let route = RouteLabel::ALL
            .get(at(note.route))
            .map_or("unknown", |route| route.as_str());
        let rung = Rung::ALL
            .get(at(note.rung))
            .map_or("none", |rung| rung.as_str());
        let class = if note.surface_known { "known" } else { "other" };
        let status = status.to_string();
        let cause = Cause::ALL.get(at(note.cause)).map(|cause| cause.as_str());
        let cache = CacheState::ALL
            .get(at(note.cache))
            .map(|state| state.as_str());
        Self {
            requests: counter!("skerry_requests_total", "route" => route, "surface_class" => class, "rung" => rung, "status" => status),
            seconds: histogram!("skerry_request_seconds", "route" => route, "rung" => rung),
            cause: cause
                .map(|cause| counter!("skerry_rung_cause_total", "rung" => rung, "cause" => cause)),
            cache: cache.map(
                |result| counter!("skerry_cache_total", "cache" => "response", "result" => result),
            ),
        }
    }
}
