//! What comes on unidirectional streams: a header, then the bytes that it announces.

use super::frames::{self, FrameError};
use crate::clock::Clock;
use crate::held::Refused;
use crate::shared::Shared;
use sha2::{Digest, Sha256};
use skerry_types::{Millis, UserContext, context_key};
use skerry_wire::frame::{ContextPush, FRAME_MS_MAX, PUSH_BYTES_MAX, PushHeader, PushKind};
use skerry_wire::value::StoredContext;
use skerry_wire::{CodecError, decode, encode};
use std::sync::Arc;
use std::time::Duration;

/// A push that takes longer is given up, in milliseconds.
const PUSH_MS_MAX: u64 = 60_000;
/// A pushed context serves without a warning this long, in milliseconds.
pub const CONTEXT_FRESH_MS: u64 = 60 * 60 * 1_000;

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("a push of {0} bytes, at most {PUSH_BYTES_MAX} are taken")]
    Large(u64),
    #[error("a push of kind {kind} is refused: {refused}")]
    Refused {
        kind: &'static str,
        refused: Refused,
    },
}

impl PushError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Frame(error) => error.code(),
            Self::Codec(error) => error.code(),
            Self::Large(_) => "push_large",
            Self::Refused { refused, .. } => refused.code(),
        }
    }
}

/// Receives one push and puts it to use.
pub async fn receive(
    shared: &Arc<Shared>,
    mut stream: quinn::RecvStream,
) -> Result<PushHeader, PushError> {
    let first = Duration::from_millis(FRAME_MS_MAX);
    let header = tokio::time::timeout(first, frames::read(&mut stream))
        .await
        .map_err(|_| FrameError::Slow)??;
    let header: PushHeader = decode(&header)?;
    if header.bytes > PUSH_BYTES_MAX {
        return Err(PushError::Large(header.bytes));
    }
    let wanted = usize::try_from(header.bytes).unwrap_or(usize::MAX);
    let all = frames::read_bytes(&mut stream, wanted);
    let body = tokio::time::timeout(Duration::from_millis(PUSH_MS_MAX), all)
        .await
        .map_err(|_| FrameError::Slow)??;
    let (shared, task_header) = (shared.clone(), header.clone());
    // Hashing, decoding and syncing are not for the runtime's threads.
    let used = tokio::task::spawn_blocking(move || put_to_use(&shared, &task_header, body)).await;
    let refused = |refused| PushError::Refused {
        kind: header.kind.as_str(),
        refused,
    };
    used.unwrap_or(Err(Refused::Decode)).map_err(refused)?;
    Ok(header)
}

fn put_to_use(shared: &Shared, header: &PushHeader, body: Vec<u8>) -> Result<(), Refused> {
    let now = Clock::now_ms();
    if header.kind != PushKind::Contexts {
        return shared.held.push(header, body.into(), now);
    }
    if header.tenant != skerry_types::TenantId::default() {
        return Err(Refused::Tenant);
    }
    let hash: [u8; 32] = Sha256::digest(&body).into();
    if hash != header.sha256 {
        return Err(Refused::Hash);
    }
    let push: ContextPush = decode(&body).map_err(|_| Refused::Decode)?;
    if push
        .contexts
        .iter()
        .any(|(_, context)| context.vector.iter().any(|x| !x.is_finite()))
    {
        return Err(Refused::NotFinite);
    }
    for user in push.erased {
        let key = context_key(&header.tenant, &format!("u:{user}"));
        shared.kv.remove(&key);
        shared.cache.purge(&format!("user:{key}"));
    }
    for (user, context) in push.contexts {
        merge(
            shared,
            &context_key(&header.tenant, &format!("u:{user}")),
            context,
            now,
        );
    }
    Ok(())
}

/// The newer context wins; what the origin has not acknowledged yet is applied to it again.
fn merge(shared: &Shared, key: &str, mut context: UserContext, now: Millis) {
    let pending = shared.spool.pending(key);
    shared.kv.update(key, |held| {
        for event in &pending {
            context.apply(event);
        }
        let held = held.and_then(|held| decode::<StoredContext>(&held.bytes).ok());
        if held.is_some_and(|held| held.context.as_of_ms > context.as_of_ms) {
            return None;
        }
        let stored = StoredContext {
            written_ms: now,
            expires_ms: now + CONTEXT_FRESH_MS,
            mark: if pending.is_empty() {
                context.mark()
            } else {
                0
            },
            context,
        };
        encode(&stored).ok().map(Into::into)
    });
}
