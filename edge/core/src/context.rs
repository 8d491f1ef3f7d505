//! User contexts in the PoP's KV: read, changed by events, and replaced by what the origin knows.
//! Every change is compare-and-swap: of two events at once none is lost.

use crate::ports::{Host, LogLevel};
use skerry_types::{Event, Millis, UserContext};
use skerry_wire::value::{EventBatch, StoredContext};
use skerry_wire::{decode, encode};

/// A context serves without a remark for this long, in milliseconds.
const FRESH_MS: Millis = 60 * 60 * 1000;
/// `edge` does not rank on one that is older, in milliseconds.
const USABLE_MS: Millis = 24 * 60 * 60 * 1000;
/// Attempts to write against others who write the same context.
const SWAPS_MAX: usize = 16;

/// A context as it lies in the KV.
#[derive(Debug, Clone)]
pub struct Held {
    pub stored: StoredContext,
    pub version: u64,
}

/// The subject's context, unless it is too old to be used.
pub async fn load<H: Host>(host: &H, key: &str, now: Millis) -> Option<Held> {
    let value = host.kv_get(key).await?;
    match decode::<StoredContext>(&value.bytes) {
        Ok(stored) if now.saturating_sub(stored.written_ms) <= USABLE_MS => Some(Held {
            stored,
            version: value.version,
        }),
        Ok(_) => None,
        Err(error) => {
            host.log(
                LogLevel::Warn,
                &format!("a stored context does not decode: {error}"),
            );
            None
        }
    }
}

/// Applies accepted events to their subject's context. Returns the version written, `None` where
/// nothing changed or the others never let it.
pub async fn apply<H: Host>(host: &H, key: &str, events: &[&Event], now: Millis) -> Option<u64> {
    for _ in 0..SWAPS_MAX {
        let held = host.kv_get(key).await;
        let expected = held.as_ref().map_or(0, |value| value.version);
        let mut stored = held
            .and_then(|value| decode::<StoredContext>(&value.bytes).ok())
            .unwrap_or_else(|| new(UserContext::default(), now));
        let mut changed = false;
        for event in events {
            changed |= stored.context.apply(event);
        }
        if !changed {
            return None;
        }
        let bytes = encode(&stored).ok()?;
        if let Some(version) = host.kv_put(key, bytes, expected).await {
            return Some(version);
        }
    }
    host.log(
        LogLevel::Warn,
        "a context was written by others each time; its next answer from the origin mends it",
    );
    None
}

/// Keeps the context that came with an origin's answer, with what the origin has not seen yet
/// applied. Returns the version written; `None` where the context is no longer what it was when the
/// question was asked: an event came in between, and nothing made from the older state may be kept.
pub async fn replace<H: Host>(
    host: &H,
    key: &str,
    context: UserContext,
    asked_version: u64,
    now: Millis,
) -> Option<u64> {
    let mut stored = new(context, now);
    if let Ok(batch) = decode::<EventBatch>(&host.pending(key).await) {
        for event in &batch.events {
            stored.context.apply(event);
        }
    }
    host.kv_put(key, encode(&stored).ok()?, asked_version).await
}

fn new(context: UserContext, now: Millis) -> StoredContext {
    StoredContext {
        written_ms: now,
        expires_ms: now + FRESH_MS,
        context,
    }
}
