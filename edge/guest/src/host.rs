//! The core's ports over the world's imports.

use crate::bindings::skerry::edge as wit;
use crate::convert;
use serde::Serialize;
use skerry_edge_core::ports::{AskFailure, CacheEntry, Found, Host, KvValue, LogLevel, Plan};
use skerry_types::{Cause, Event, ItemHash, Millis, Rung, Tick};
use skerry_wire::codec::{Schema, encode_as};
use skerry_wire::value::EventBatch;

/// The platform, as the component sees it.
pub struct Imports;

/// `EventBatch` without owning the events.
#[derive(Serialize)]
struct BatchRef<'a> {
    events: &'a [Event],
}

impl Host for Imports {
    async fn lookup(&self, key: &[u8], subject: &str, render: u64, now: Millis) -> Found {
        let found = wit::cache::lookup(key, subject, render, now);
        Found {
            context_version: found.context_version,
            rendered: found.rendered,
            entry: found.entry.map(|entry| CacheEntry {
                decision: entry.decision,
                expires: entry.expires_ms,
                stale_until: entry.stale_until_ms,
            }),
        }
    }

    async fn store(&self, key: &[u8], tags: &[String], entry: CacheEntry) {
        let entry = wit::cache::Entry {
            decision: entry.decision,
            expires_ms: entry.expires,
            stale_until_ms: entry.stale_until,
        };
        wit::cache::store(key, tags, &entry);
    }

    async fn purge(&self, tag: &str) {
        wit::cache::purge(tag);
    }

    async fn kv_get(&self, key: &str) -> Option<KvValue> {
        wit::kv::get(key).map(|value| KvValue {
            bytes: value.bytes,
            version: value.version,
        })
    }

    async fn kv_put(&self, key: &str, bytes: Vec<u8>, expected: u64) -> Option<u64> {
        wit::kv::put(key, &bytes, expected)
    }

    async fn config(&self) -> Vec<u8> {
        wit::held::config()
    }

    async fn pool(&self) -> Vec<u8> {
        wit::held::pool()
    }

    async fn rows(&self, ids: &[&str]) -> Vec<u32> {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        wit::held::rows(&ids)
    }

    async fn items(&self, rows: &[u32]) -> Vec<u8> {
        wit::held::items(rows)
    }

    async fn popular(&self, surface: &str, locale: &str) -> Option<Vec<u8>> {
        wit::held::popular(surface, locale)
    }

    async fn bandit(&self, surface: &str) -> Option<Vec<u8>> {
        wit::held::bandit(surface)
    }

    async fn forbidden(&self, hashes: &[ItemHash], now: Millis, country: &str) -> Vec<bool> {
        let hashes: Vec<u64> = hashes.iter().map(|hash| hash.0).collect();
        wit::held::forbidden(&hashes, now, country)
            .into_iter()
            .map(|byte| byte != 0)
            .collect()
    }

    fn plan(&self, subject_hash: u64, left_ms: u32) -> Plan {
        let plan = wit::origin::make_plan(subject_hash, left_ms);
        Plan {
            ask: plan.ask,
            best: convert::at(Rung::ALL, plan.best).unwrap_or(Rung::Popular),
            cause: convert::at(Cause::ALL, plan.cause),
        }
    }

    async fn ask(
        &self,
        key: &[u8],
        question: Vec<u8>,
        left_ms: u32,
    ) -> Result<Vec<u8>, AskFailure> {
        wit::origin::ask(key, &question, left_ms).map_err(|failure| match failure {
            wit::origin::Failure::Down => AskFailure::Down,
            wit::origin::Failure::Timeout => AskFailure::Timeout,
            wit::origin::Failure::Overloaded => AskFailure::Overloaded,
            wit::origin::Failure::Error => AskFailure::Error,
            wit::origin::Failure::Refused => AskFailure::Refused,
        })
    }

    async fn append(&self, events: &[Event], subjects: &[String]) -> Result<(), String> {
        let batch = encode_as(EventBatch::SCHEMA, &BatchRef { events })
            .map_err(|error| error.code().to_owned())?;
        wit::events::append(&batch, subjects)
    }

    async fn pending(&self, subject: &str) -> Vec<u8> {
        wit::events::pending(subject)
    }

    fn tick(&self) -> Tick {
        Tick(wit::clock::tick_us())
    }

    fn log(&self, level: LogLevel, message: &str) {
        let level = match level {
            LogLevel::Debug => wit::log::Level::Debug,
            LogLevel::Info => wit::log::Level::Info,
            LogLevel::Warn => wit::log::Level::Warn,
            LogLevel::Error => wit::log::Level::Error,
        };
        wit::log::write(level, message);
    }
}

/// A panic's message, before the trap that follows it.
pub fn log_panic(message: &str) {
    wit::log::write(wit::log::Level::Error, message);
}
