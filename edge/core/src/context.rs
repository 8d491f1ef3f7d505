//! User contexts in the PoP's KV: read, changed by events, and replaced by what the origin knows.
//! Every change is compare-and-swap: of two events at once none is lost.

use crate::ports::{Host, LogLevel};
use skerry_types::{Event, ItemHash, Millis, UserContext};
use skerry_wire::codec::CodecError;
use skerry_wire::frame::AnswerContext;
use skerry_wire::value::{ContextHead, ContextSeen, EventBatch, StoredContext};
use skerry_wire::{decode, encode};
use std::cell::OnceCell;

/// A context serves without a remark for this long, in milliseconds.
const FRESH_MS: Millis = 60 * 60 * 1000;
/// `edge` does not rank on one that is older, in milliseconds.
const USABLE_MS: Millis = 24 * 60 * 60 * 1000;
/// Attempts to write against others who write the same context.
const SWAPS_MAX: usize = 16;

/// A context as it lies in the KV. Its content is decoded when it is first looked at: an answer of
/// the origin needs only to know which one it is.
#[derive(Debug)]
pub struct Held {
    first: ContextSeen,
    bytes: Vec<u8>,
    pub version: u64,
    content: OnceCell<Option<UserContext>>,
}

impl Held {
    fn new(bytes: Vec<u8>, version: u64) -> Result<Self, CodecError> {
        Ok(Self {
            first: ContextSeen::of(&bytes)?,
            bytes,
            version,
            content: OnceCell::new(),
        })
    }

    /// Hashes of items not to be shown again, ascending.
    #[must_use]
    pub fn seen(&self) -> &[ItemHash] {
        &self.first.seen
    }

    /// `None` where the bytes are no context.
    #[must_use]
    pub fn context(&self) -> Option<&UserContext> {
        let decoded = || decode::<StoredContext>(&self.bytes).ok();
        self.content
            .get_or_init(|| decoded().map(|stored| stored.context))
            .as_ref()
    }

    #[must_use]
    pub fn written_ms(&self) -> Millis {
        self.first.head.written_ms
    }

    /// Whether it is young enough to rank on.
    #[must_use]
    pub fn is_usable(&self, now: Millis) -> bool {
        now.saturating_sub(self.written_ms()) <= USABLE_MS
    }

    /// What to tell the origin that is known here; 0 for nothing, so that it sends its own.
    #[must_use]
    pub fn mark(&self, now: Millis) -> u64 {
        let head = &self.first.head;
        if now < head.expires_ms { head.mark } else { 0 }
    }
}

/// The subject's context, of whatever age: what was seen stays seen, and its version is what the
/// origin's next one replaces.
pub async fn load<H: Host>(host: &H, key: &str) -> Option<Held> {
    let value = host.kv_get(key).await?;
    match Held::new(value.bytes, value.version) {
        Ok(held) => Some(held),
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
        stored.mark = 0;
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
/// applied. Its version is 0 where the context is no longer what it was when the question was asked:
/// an event came in between, and nothing made from the older state may be kept.
pub async fn replace<H: Host>(
    host: &H,
    key: &str,
    fresh: &AnswerContext,
    asked_version: u64,
    now: Millis,
) -> Option<Held> {
    let head = ContextHead {
        written_ms: now,
        expires_ms: now + FRESH_MS,
        mark: fresh.mark,
    };
    let mut bytes = head.with(&fresh.context).ok()?;
    let pending = decode::<EventBatch>(&host.pending(key).await).unwrap_or_default();
    if !pending.events.is_empty() {
        let mut stored = decode::<StoredContext>(&bytes).ok()?;
        for event in &pending.events {
            if stored.context.apply(event) {
                stored.mark = 0;
            }
        }
        bytes = encode(&stored).ok()?;
    }
    let version = host.kv_put(key, bytes.clone(), asked_version).await;
    Held::new(bytes, version.unwrap_or(0)).ok()
}

fn new(context: UserContext, now: Millis) -> StoredContext {
    StoredContext {
        written_ms: now,
        expires_ms: now + FRESH_MS,
        mark: 0,
        context,
    }
}
