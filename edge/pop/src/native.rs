//! The last resort: the same core, run natively, on the popular rung. It serves when the worker has
//! trapped, run out of time, or has no instance free.
//!
//! Invariant: it grants nothing that the worker would refuse (keys, rights, limits are the core's
//! own), ranks nothing and asks nobody; whatever happens in it, the user gets a response.

use crate::held::check::encode_items;
use crate::shared::Shared;
use crate::spool::Pending;
use crate::world::NONE;
use crate::world::skerry::edge::types::{Method, Note, Request};
use bytes::Bytes;
use futures::FutureExt as _;
use skerry_edge_core::ports::{
    self, AskFailure, Body, CacheEntry, CacheState, Epochs, Found, Header, Host, KvValue, LogLevel,
    NO_ROW, Plan, RouteLabel,
};
use skerry_edge_core::{Response, WorkerState, serve};
use skerry_types::{Cause, Event, ItemHash, Millis, Rung, Tick, Uid};
use skerry_wire::json::{self, Problem};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// A response of the host's own.
pub struct Native {
    pub status: u16,
    pub headers: Vec<(Header, String)>,
    pub body: Bytes,
    pub note: Note,
}

/// Answers in the worker's place.
pub async fn answer(shared: &Arc<Shared>, request: Request) -> Native {
    let host = Fallback { shared };
    let request = convert(request);
    let request_id = Uid::v7(request.now, request.entropy);
    let mut state = WorkerState::default();
    // What made the worker trap may make the core panic here too.
    let served = AssertUnwindSafe(serve(&host, &mut state, request))
        .catch_unwind()
        .await;
    match served {
        Ok(mut response) => {
            shared.origin.expose(std::mem::take(&mut response.exposure));
            native(response)
        }
        Err(_) => problem(
            &Problem::unavailable(json::codes::INTERNAL, "the request could not be served", 1),
            request_id,
        ),
    }
}

/// A problem that the host itself finds, before any worker.
pub fn problem(problem: &Problem, request_id: Uid) -> Native {
    let mut headers = vec![
        (Header::ContentType, json::CONTENT_TYPE_PROBLEM.to_owned()),
        (Header::CacheControl, "no-store".to_owned()),
    ];
    if let Some(seconds) = problem.retry_after_s {
        headers.push((Header::RetryAfter, seconds.to_string()));
    }
    let note = Note {
        route: 5,
        rung: NONE,
        cause: NONE,
        cache: NONE,
        surface_known: true,
    };
    Native {
        status: problem.status,
        headers,
        body: problem.render(request_id).into(),
        note,
    }
}

fn native(response: Response) -> Native {
    let body = match response.body {
        Body::Inline(bytes) => bytes,
        Body::Keep(keep) => keep.bytes,
        // The fallback finds nothing rendered, so the core cannot refer to it.
        Body::Stored(_) => Vec::new(),
    };
    let note = response.note;
    let note = Note {
        route: position(&RouteLabel::ALL, Some(note.route)),
        rung: note.rung.map_or(NONE, |rung| rung as u8),
        cause: note.cause.map_or(NONE, |cause| cause as u8),
        cache: position(&CacheState::ALL, note.cache),
        surface_known: note.surface_known,
    };
    Native {
        status: response.status,
        headers: response.headers,
        body: body.into(),
        note,
    }
}

fn position<T: PartialEq>(all: &[T], value: Option<T>) -> u8 {
    let at = value.and_then(|value| all.iter().position(|one| *one == value));
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(NONE)
}

fn convert(request: Request) -> ports::Request {
    let (high, low) = request.entropy;
    let epochs = request.epochs;
    ports::Request {
        method: match request.method {
            Method::Get => ports::Method::Get,
            Method::Head => ports::Method::Head,
            Method::Post => ports::Method::Post,
            Method::Put => ports::Method::Put,
            Method::Patch => ports::Method::Patch,
            Method::Delete => ports::Method::Delete,
            Method::Options => ports::Method::Options,
            Method::Other => ports::Method::Other,
        },
        target: request.target,
        headers: request.headers,
        body: request.body,
        now: request.now_ms,
        tick: Tick(request.tick_us),
        entropy: u128::from(high) << 64 | u128::from(low),
        loopback: request.loopback,
        revalidate: request.revalidate,
        epochs: Epochs {
            config: epochs.config,
            // Without a pool the core does not rank.
            pool: 0,
            pool_as_of: 0,
            mask: epochs.mask,
            mask_until: epochs.mask_until_ms,
            popular: epochs.popular,
            bandit: 0,
        },
    }
}

/// The ports without cache, origin and pool.
struct Fallback<'a> {
    shared: &'a Arc<Shared>,
}

impl Host for Fallback<'_> {
    async fn lookup(&self, _: &[u8], subject: &str, _: u64, _: Millis) -> Found {
        Found {
            context_version: self.shared.kv.version(subject),
            ..Found::default()
        }
    }

    async fn store(&self, _: &[u8], _: &[String], _: CacheEntry) {}

    async fn purge(&self, tag: &str) {
        self.shared.cache.purge(tag);
    }

    async fn kv_get(&self, key: &str) -> Option<KvValue> {
        self.shared.kv.get(key).map(|held| KvValue {
            bytes: held.bytes.to_vec(),
            version: held.version,
        })
    }

    async fn kv_put(&self, key: &str, bytes: Vec<u8>, expected: u64) -> Option<u64> {
        self.shared.kv.put(key, bytes.into(), expected)
    }

    async fn config(&self) -> Vec<u8> {
        self.shared.held.now().config.to_vec()
    }

    async fn pool(&self) -> Vec<u8> {
        Vec::new()
    }

    async fn rows(&self, ids: &[&str]) -> Vec<u32> {
        let now = self.shared.held.now();
        ids.iter()
            .map(|id| {
                now.pool
                    .as_ref()
                    .and_then(|pool| pool.row(id))
                    .unwrap_or(NO_ROW)
            })
            .collect()
    }

    async fn items(&self, rows: &[u32]) -> Vec<u8> {
        self.shared
            .held
            .now()
            .pool
            .as_ref()
            .map_or_else(Vec::new, |pool| encode_items(pool, rows))
    }

    async fn popular(&self, surface: &str, locale: &str) -> Option<Vec<u8>> {
        let now = self.shared.held.now();
        now.popular
            .as_ref()
            .and_then(|popular| popular.list(surface, locale))
            .map(|list| list.to_vec())
    }

    async fn bandit(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    async fn forbidden(&self, hashes: &[ItemHash], now: Millis, country: &str) -> Vec<bool> {
        let hashes: Vec<u64> = hashes.iter().map(|hash| hash.0).collect();
        self.shared
            .held
            .now()
            .forbidden(&hashes, now, country)
            .into_iter()
            .map(|byte| byte != 0)
            .collect()
    }

    fn plan(&self, _: u64, _: u32) -> Plan {
        Plan {
            ask: false,
            best: Rung::Popular,
            cause: Some(Cause::WorkerFailed),
        }
    }

    async fn ask(&self, _: &[u8], _: Vec<u8>, _: u32) -> Result<Vec<u8>, AskFailure> {
        Err(AskFailure::Down)
    }

    async fn append(&self, events: &[Event], subjects: &[String]) -> Result<(), String> {
        let pending = events.iter().zip(subjects);
        let pending = pending.map(|(event, subject)| Pending {
            subject: subject.as_str().into(),
            event: Arc::new(event.clone()),
        });
        self.shared
            .append(pending.collect())
            .await
            .map_err(|error| error.code().to_owned())
    }

    async fn pending(&self, subject: &str) -> Vec<u8> {
        let events = self.shared.spool.pending(subject);
        let events = events.iter().map(|event| event.as_ref().clone()).collect();
        skerry_wire::encode(&skerry_wire::value::EventBatch { events }).unwrap_or_default()
    }

    fn tick(&self) -> Tick {
        self.shared.clock.tick()
    }

    fn log(&self, level: LogLevel, message: &str) {
        tracing::info!(target: "skerry::native", ?level, "{message}");
    }
}
