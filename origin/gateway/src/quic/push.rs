//! Pushing to one PoP: what it does not hold, when it connects and when it changes; the contexts of
//! users whom it served; who was erased.

use super::frames;
use crate::artifacts::{ORDER, Published};
use crate::counters::Counters;
use crate::hub::{Hub, News};
use bytes::Bytes;
use quinn::{Connection, WriteError};
use sha2::{Digest, Sha256};
use skerry_types::UserId;
use skerry_wire::frame::{ContextPush, Hello, PushHeader, PushKind};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

/// Contexts in one push.
const CONTEXTS_MAX: usize = 200;
/// Erased users named to a PoP that connects, at most; the latest.
const ERASED_MAX: usize = 10_000;
/// Bytes handed to a stream at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Artifacts go before contexts on one connection.
const CONTEXTS_PRIORITY: i32 = -2;
const POOL_PRIORITY: i32 = -1;

/// Pushes to one connection.
pub struct Pusher {
    hub: Arc<Hub>,
    connection: Connection,
    pop: Arc<str>,
    /// What the PoP holds or was sent, by kind.
    sent: HashMap<PushKind, [u8; 32]>,
    changed: watch::Receiver<u64>,
    news: broadcast::Receiver<News>,
}

impl Pusher {
    pub fn new(hub: &Arc<Hub>, connection: &Connection, hello: &Hello) -> Self {
        let mut sent = HashMap::new();
        for (kind, epoch, sha256) in &hello.held {
            // Only the newest epoch counts: a PoP that holds the right content under an old one is
            // sent it again, or it would refuse the next.
            if hub
                .artifacts
                .get(*kind)
                .is_some_and(|current| current.epoch == *epoch && current.sha256 == *sha256)
            {
                sent.insert(*kind, *sha256);
            }
        }
        Self {
            hub: Arc::clone(hub),
            connection: connection.clone(),
            pop: Arc::clone(&hello.pop),
            sent,
            changed: hub.artifacts.changed(),
            news: hub.news.subscribe(),
        }
    }

    /// Until the connection is gone.
    pub async fn run(mut self) {
        if self.artifacts().await.is_err() {
            return;
        }
        let (hub, connection, pop) = (
            Arc::clone(&self.hub),
            self.connection.clone(),
            Arc::clone(&self.pop),
        );
        let mut contexts = Box::pin(first_contexts(hub, connection, pop));
        let mut contexts_done = false;
        loop {
            tokio::select! {
                sent = &mut contexts, if !contexts_done => {
                    contexts_done = true;
                    if sent.is_err() { return; }
                }
                changed = self.changed.changed() => {
                    if changed.is_err() || self.artifacts().await.is_err() { return; }
                }
                news = self.news.recv() => {
                    let push = match news {
                        Ok(News::Erased(users)) => ContextPush { contexts: Vec::new(), erased: users.to_vec() },
                        Ok(News::Contexts { users }) => self.changed_contexts(&users),
                        Ok(_) | Err(RecvError::Lagged(_)) => continue,
                        Err(RecvError::Closed) => return,
                    };
                    if push == ContextPush::default() { continue; }
                    if send_contexts(&self.hub, &self.connection, &push).await.is_err() { return; }
                }
            }
        }
    }

    /// Sends what is current and not yet there, in order.
    async fn artifacts(&mut self) -> Result<(), WriteError> {
        self.changed.mark_unchanged();
        for kind in ORDER {
            let Some(current) = self.hub.artifacts.get(kind) else {
                continue;
            };
            if self.sent.get(&kind) == Some(&current.sha256) {
                continue;
            }
            self.sent.insert(kind, current.sha256);
            if kind == PushKind::Pool {
                // Large: what is urgent must not wait behind it. A newer one has a higher epoch.
                let (hub, connection) = (Arc::clone(&self.hub), self.connection.clone());
                tokio::spawn(async move { send(&hub, &connection, &current, POOL_PRIORITY).await });
            } else {
                send(&self.hub, &self.connection, &current, 0).await?;
            }
        }
        Ok(())
    }

    /// Contexts of users whom this PoP served and another PoP reported.
    fn changed_contexts(&self, users: &[(UserId, Arc<str>)]) -> ContextPush {
        let mut push = ContextPush::default();
        for (user, reporter) in users {
            if **reporter != *self.pop
                && self.hub.pops.has(&self.pop, user)
                && let Ok(Some(context)) = self
                    .hub
                    .features
                    .context(&self.hub.tenant, &format!("u:{user}"))
            {
                push.contexts.push((user.clone(), (*context).clone()));
            }
        }
        push
    }
}

/// Who was erased, then the contexts of those whom the PoP served.
async fn first_contexts(
    hub: Arc<Hub>,
    connection: Connection,
    pop: Arc<str>,
) -> Result<(), WriteError> {
    let reader = hub.log.reader();
    let mut erased = reader.erased(&hub.tenant).unwrap_or_default();
    erased.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
    let names = erased
        .iter()
        .take(ERASED_MAX)
        .filter_map(|(subject, _)| UserId::new(subject.strip_prefix("u:")?).ok());
    let erased: Vec<UserId> = names.collect();
    if !erased.is_empty() {
        send_contexts(
            &hub,
            &connection,
            &ContextPush {
                contexts: Vec::new(),
                erased,
            },
        )
        .await?;
    }
    let users = hub.pops.users(&pop, hub.now());
    for chunk in users.chunks(CONTEXTS_MAX) {
        let mut push = ContextPush::default();
        for user in chunk {
            if let Ok(Some(context)) = hub.features.context(&hub.tenant, &format!("u:{user}")) {
                push.contexts.push((user.clone(), (*context).clone()));
            }
        }
        send_contexts(&hub, &connection, &push).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn send_contexts(
    hub: &Hub,
    connection: &Connection,
    push: &ContextPush,
) -> Result<(), WriteError> {
    let Ok(bytes) = skerry_wire::encode(push) else {
        return Ok(());
    };
    let now = hub.now();
    let sha256 = Sha256::digest(&bytes).into();
    let published = Published {
        kind: PushKind::Contexts,
        epoch: now,
        sha256,
        bytes: Bytes::from(bytes),
        made_ms: now,
    };
    send(hub, connection, &published, CONTEXTS_PRIORITY).await
}

/// One push on a stream of its own.
async fn send(
    hub: &Hub,
    connection: &Connection,
    published: &Published,
    priority: i32,
) -> Result<(), WriteError> {
    let mut stream = connection
        .open_uni()
        .await
        .map_err(WriteError::ConnectionLost)?;
    let _ = stream.set_priority(priority);
    let header = PushHeader {
        tenant: hub.tenant.clone(),
        kind: published.kind,
        epoch: published.epoch,
        sha256: published.sha256,
        bytes: published.bytes.len() as u64,
        made_ms: published.made_ms,
    };
    if frames::write(&mut stream, &header).await.is_err() {
        return Ok(());
    }
    let patience = Duration::from_millis(hub.options.limits.push_ms);
    let body = async {
        let mut rest = published.bytes.clone();
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            stream.write_chunk(chunk).await?;
        }
        let _ = stream.finish();
        Ok(())
    };
    match tokio::time::timeout(patience, body).await {
        Ok(Err(WriteError::ConnectionLost(lost))) => return Err(WriteError::ConnectionLost(lost)),
        // A peer that stops one push, or takes too long over it, still gets the next.
        Ok(Err(error)) => {
            tracing::warn!(kind = published.kind.as_str(), %error, "a push was not taken")
        }
        Err(_) => {
            tracing::warn!(kind = published.kind.as_str(), "a push took too long");
            let _ = stream.reset(super::Close::TooSlow.code());
        }
        Ok(Ok(())) => {
            Counters::add(&hub.counters.pushes, 1);
            Counters::add(&hub.counters.push_bytes, published.bytes.len());
        }
    }
    Ok(())
}
