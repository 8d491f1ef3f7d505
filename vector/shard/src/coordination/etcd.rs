//! Coordination by etcd: revisions are epochs and fencing tokens, leases hold leads and addresses.
//!
//! Keys, below a prefix: `table`, `leader/SHARD`, `sync/SHARD`, `node/NODE`. A table's epoch is the
//! revision of its key's last change, a leader's token the revision in which its key was made.
//!
//! Invariants: each change is one transaction that compares all it depends on; a call that gets no
//! answer in time counts as not known (its transaction may still happen). Where etcd does not answer,
//! the last view stays and leases run out by this side's clock.

use super::{
    Answer, CALL_MS_MAX, Coordination, CoordinationError, Directory, Fence, InSync, LEASE_MS_MAX,
    LEASE_MS_MIN, Leader, Lease, LeaseState, Registration, View, Views,
};
use crate::clock;
use crate::table::{Draft, NodeId, ShardId, ShardTable};
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, KeyValue, PutOptions, Txn,
    TxnOp, WatchOptions,
};
use skerry_wire::{codec, value::schema};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

mod access;

pub use access::Access;

/// How long after a failure it is tried again, in milliseconds.
const RETRY_MS: u64 = 200;
/// How long after a failed login the next one begins, in milliseconds.
const LOGIN_MS: u64 = 1_000;
/// A silent connection is asked after so long, in milliseconds.
const KEEPALIVE_MS: u64 = 1_000;

pub struct Etcd {
    client: Client,
    keys: Keys,
    views: watch::Receiver<Option<Arc<View>>>,
    _watching: DropGuard,
}

#[derive(Clone)]
struct Keys(Arc<str>);

impl Keys {
    fn table(&self) -> String {
        format!("{}table", self.0)
    }

    fn leader(&self, shard: ShardId) -> String {
        format!("{}leader/{shard}", self.0)
    }

    fn sync(&self, shard: ShardId) -> String {
        format!("{}sync/{shard}", self.0)
    }

    fn node(&self, node: &NodeId) -> String {
        format!("{}node/{node}", self.0)
    }
}

fn unavailable(error: impl std::fmt::Display) -> CoordinationError {
    CoordinationError::Unavailable(error.to_string())
}

/// What etcd says no to will not be otherwise when it is asked again.
fn failed(error: etcd_client::Error) -> CoordinationError {
    match &error {
        etcd_client::Error::GRpcStatus(status) => match status.code() {
            // A user without rights, a wrong password, users that are not switched on, or no user where
            // they are.
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition => CoordinationError::Denied(status.message().to_owned()),
            _ => unavailable(error),
        },
        _ => unavailable(error),
    }
}

fn corrupt(error: impl std::fmt::Display) -> CoordinationError {
    CoordinationError::Corrupt(error.to_string())
}

/// A call that ends in time, one way or the other.
async fn call<T>(
    work: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, CoordinationError> {
    match clock::within(CALL_MS_MAX, work).await {
        Some(done) => done.map_err(failed),
        None => Err(unavailable(format!("no answer in {CALL_MS_MAX} ms"))),
    }
}

fn revision(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Etcd {
    /// Speaks to `endpoints` (`host:port`), under `prefix` (a path, such as `/skerry/items/`). Does
    /// not wait for an answer: a node starts without etcd.
    pub async fn connect(endpoints: &[String], prefix: &str) -> Result<Self, CoordinationError> {
        Self::connect_with(endpoints, prefix, &Access::default()).await
    }

    /// The same, by TLS or as a user. Fails where etcd answers and says no to the user.
    pub async fn connect_with(
        endpoints: &[String],
        prefix: &str,
        access: &Access,
    ) -> Result<Self, CoordinationError> {
        let (tls, login) = (access.tls()?, access.login()?);
        let options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_millis(CALL_MS_MAX))
            .with_keep_alive(
                Duration::from_millis(KEEPALIVE_MS),
                Duration::from_millis(KEEPALIVE_MS),
            )
            .with_keep_alive_while_idle(true)
            .with_auto_token_refresh(true);
        let options = match tls {
            Some(tls) => options.with_tls(tls),
            None => options,
        };
        let client = Client::connect(endpoints, Some(options)).await;
        let client = client.map_err(|error| CoordinationError::Access(error.to_string()))?;
        if let Some(login) = login {
            access::log_in(&client, login).await?;
        }
        let keys = Keys(format!("{}/", prefix.trim_end_matches('/')).into());
        let (sender, views) = watch::channel(None);
        let stop = CancellationToken::new();
        let watching = keep_watching(client.clone(), keys.clone(), sender);
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = watching => {}
            }
        });
        Ok(Self {
            client,
            keys,
            views,
            _watching: stop.drop_guard(),
        })
    }

    async fn get(&self, key: String) -> Result<Option<KeyValue>, CoordinationError> {
        let mut client = self.client.clone();
        let mut found = call(client.get(key, None)).await?;
        Ok(found.take_kvs().into_iter().next())
    }

    /// A lease of etcd's, kept up until it is let go.
    async fn grant(&self, ttl_ms: u64) -> Result<(i64, Arc<LeaseState>), CoordinationError> {
        let ttl_s = ttl_ms.clamp(LEASE_MS_MIN, LEASE_MS_MAX).div_ceil(1_000);
        let mut client = self.client.clone();
        let before = clock::now();
        let lease = call(client.lease_grant(signed(ttl_s), None)).await?;
        // etcd may give more, never less.
        let state = LeaseState::until(before.plus_ms(ttl_s * 1_000));
        tokio::spawn(keep_alive(
            client,
            lease.id(),
            ttl_s * 1_000,
            Arc::clone(&state),
        ));
        Ok((lease.id(), state))
    }

    async fn put_led(
        &self,
        fence: Fence,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), CoordinationError> {
        let txn = Txn::new()
            .when(vec![self.leads(fence)])
            .and_then(vec![TxnOp::put(key, value, None)]);
        let mut client = self.client.clone();
        if call(client.txn(txn)).await?.succeeded() {
            Ok(())
        } else {
            Err(CoordinationError::Lost(fence.shard))
        }
    }

    fn leads(&self, fence: Fence) -> Compare {
        let key = self.keys.leader(fence.shard);
        Compare::create_revision(key, CompareOp::Equal, signed(fence.token))
    }
}

/// Prolongs a lease until its holder lets go or etcd says that it is gone.
async fn keep_alive(mut client: Client, id: i64, ttl_ms: u64, state: Arc<LeaseState>) {
    let kept = async {
        loop {
            let Ok((mut keeper, mut replies)) = call(client.lease_keep_alive(id)).await else {
                clock::sleep_ms(RETRY_MS).await;
                continue;
            };
            loop {
                let before = clock::now();
                let asked = async {
                    keeper.keep_alive().await?;
                    replies.message().await
                };
                match call(asked).await {
                    Ok(Some(reply)) if reply.ttl() > 0 => {
                        let ttl_ms = revision(reply.ttl()).saturating_mul(1_000);
                        state.prolong(before.plus_ms(ttl_ms));
                    }
                    Ok(Some(_)) => return,
                    Ok(None) | Err(_) => break,
                }
                clock::sleep_ms(ttl_ms / 4).await;
            }
            clock::sleep_ms(RETRY_MS).await;
        }
    };
    tokio::select! {
        () = kept => {}
        () = state.dropped().cancelled() => {
            state.lose();
            // If this fails the lease ends by itself.
            let _ = call(client.lease_revoke(id)).await;
        }
    }
    state.lose();
}

/// What the keys say.
#[derive(Default)]
struct Seen {
    table: Option<Arc<ShardTable>>,
    leaders: BTreeMap<ShardId, Leader>,
    nodes: BTreeMap<NodeId, String>,
}

impl Seen {
    fn put(&mut self, keys: &Keys, kv: &KeyValue) {
        let Some(key) = std::str::from_utf8(kv.key()).ok() else {
            return;
        };
        let value = String::from_utf8_lossy(kv.value());
        match key
            .strip_prefix(keys.0.as_ref())
            .map(|key| key.split_once('/'))
        {
            Some(None) => match ShardTable::decode(kv.value(), revision(kv.mod_revision())) {
                Ok(table) => self.table = Some(Arc::new(table)),
                Err(error) => tracing::error!(%key, %error, "the table cannot be read"),
            },
            Some(Some(("leader", shard))) => {
                if let (Ok(shard), Ok(node)) = (shard.parse(), NodeId::new(&value)) {
                    let token = revision(kv.create_revision());
                    self.leaders.insert(ShardId(shard), Leader { node, token });
                }
            }
            Some(Some(("node", node))) => {
                if let Ok(node) = NodeId::new(node) {
                    self.nodes.insert(node, value.into_owned());
                }
            }
            _ => {}
        }
    }

    fn delete(&mut self, keys: &Keys, kv: &KeyValue) {
        let key = std::str::from_utf8(kv.key()).ok();
        match key.and_then(|key| key.strip_prefix(keys.0.as_ref())?.split_once('/')) {
            Some(("leader", shard)) => {
                if let Ok(shard) = shard.parse() {
                    self.leaders.remove(&ShardId(shard));
                }
            }
            Some(("node", node)) => {
                if let Ok(node) = NodeId::new(node) {
                    self.nodes.remove(&node);
                }
            }
            _ => {}
        }
    }

    fn view(&self) -> Option<Arc<View>> {
        Some(Arc::new(View {
            table: Arc::clone(self.table.as_ref()?),
            leaders: self.leaders.clone(),
            nodes: self.nodes.clone(),
        }))
    }
}

/// Reads all keys, then every change of them; again from the beginning after each failure.
async fn keep_watching(client: Client, keys: Keys, views: watch::Sender<Option<Arc<View>>>) {
    let mut said = None;
    loop {
        if let Err(error) = Box::pin(watch_once(client.clone(), &keys, &views)).await {
            // Once for each kind of trouble, not at every attempt.
            if said.replace(error.code()) != Some(error.code()) {
                tracing::warn!(code = error.code(), %error, "etcd is not followed; tried again");
            }
        }
        clock::sleep_ms(RETRY_MS).await;
    }
}

async fn watch_once(
    mut client: Client,
    keys: &Keys,
    views: &watch::Sender<Option<Arc<View>>>,
) -> Result<(), CoordinationError> {
    let all = GetOptions::new().with_prefix();
    let found = call(client.get(keys.0.as_ref(), Some(all))).await?;
    let at = found
        .header()
        .map_or(0, etcd_client::ResponseHeader::revision);
    let mut seen = Seen::default();
    found.kvs().iter().for_each(|kv| seen.put(keys, kv));
    let publish = |seen: &Seen| {
        if let Some(view) = seen.view() {
            views.send_if_modified(|known| {
                let changed = known.as_ref() != Some(&view);
                *known = Some(view);
                changed
            });
        }
    };
    publish(&seen);
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(at + 1);
    let mut changes = call(client.watch(keys.0.as_ref(), Some(options))).await?;
    while let Some(change) = changes.message().await.map_err(unavailable)? {
        if change.canceled() {
            return Err(unavailable(change.cancel_reason()));
        }
        for event in change.events() {
            match (event.event_type(), event.kv()) {
                (EventType::Put, Some(kv)) => seen.put(keys, kv),
                (EventType::Delete, Some(kv)) => seen.delete(keys, kv),
                (_, None) => {}
            }
        }
        publish(&seen);
    }
    Err(unavailable("the stream has ended"))
}

impl Directory for Etcd {
    fn table(&self) -> Answer<'_, Arc<ShardTable>> {
        Box::pin(async move {
            let found = self.get(self.keys.table()).await?;
            let kv = found.ok_or(CoordinationError::NoTable)?;
            let table = ShardTable::decode(kv.value(), revision(kv.mod_revision()));
            Ok(Arc::new(table.map_err(corrupt)?))
        })
    }

    fn watch(&self) -> Views {
        self.views.clone()
    }
}

impl Coordination for Etcd {
    fn compare_and_swap(&self, draft: Draft, fences: Vec<Fence>) -> Answer<'_, Arc<ShardTable>> {
        Box::pin(async move {
            let (key, expected) = (self.keys.table(), draft.after());
            let same = Compare::mod_revision(key.clone(), CompareOp::Equal, signed(expected));
            let lead = fences.iter().map(|fence| self.leads(*fence));
            let bytes = draft.encode().map_err(corrupt)?;
            let txn = Txn::new()
                .when(std::iter::once(same).chain(lead).collect::<Vec<_>>())
                .and_then(vec![TxnOp::put(key, bytes, None)]);
            let mut client = self.client.clone();
            let done = call(client.txn(txn)).await?;
            if !done.succeeded() {
                let current = match self.table().await {
                    Ok(table) => table.epoch(),
                    Err(_) => 0,
                };
                return Err(CoordinationError::Conflict { expected, current });
            }
            let epoch = done
                .header()
                .map_or(0, etcd_client::ResponseHeader::revision);
            Ok(Arc::new(draft.settle(revision(epoch))?))
        })
    }

    fn lead(&self, shard: ShardId, node: NodeId, ttl_ms: u64) -> Answer<'_, Lease> {
        Box::pin(async move {
            let key = self.keys.leader(shard);
            // A look first: a lease is not made in vain.
            if self.get(key.clone()).await?.is_some() {
                return Err(CoordinationError::Taken(shard));
            }
            let (id, state) = self.grant(ttl_ms).await?;
            let let_go = state.dropped().clone().drop_guard();
            let options = PutOptions::new().with_lease(id);
            let txn = Txn::new()
                .when(vec![Compare::create_revision(
                    key.clone(),
                    CompareOp::Equal,
                    0,
                )])
                .and_then(vec![TxnOp::put(key, node.as_str(), Some(options))]);
            let mut client = self.client.clone();
            let done = call(client.txn(txn)).await?;
            if !done.succeeded() {
                return Err(CoordinationError::Taken(shard));
            }
            let token = done
                .header()
                .map_or(0, etcd_client::ResponseHeader::revision);
            let_go.disarm();
            Ok(Lease::new(shard, node, revision(token), state))
        })
    }

    fn in_sync(&self, shard: ShardId) -> Answer<'_, Option<InSync>> {
        Box::pin(async move {
            let found = self.get(self.keys.sync(shard)).await?;
            let set = found.map(|kv| codec::decode_as(schema::SHARD_SYNC, kv.value()));
            set.transpose()
                .map_err(|error: codec::CodecError| corrupt(error))
        })
    }

    fn set_in_sync(&self, fence: Fence, members: Vec<NodeId>) -> Answer<'_, ()> {
        Box::pin(async move {
            let token = fence.token;
            let set = InSync { token, members };
            let bytes = codec::encode_as(schema::SHARD_SYNC, &set).map_err(corrupt)?;
            self.put_led(fence, self.keys.sync(fence.shard), bytes)
                .await
        })
    }

    fn register(&self, node: NodeId, addr: String, ttl_ms: u64) -> Answer<'_, Registration> {
        Box::pin(async move {
            let (id, state) = self.grant(ttl_ms).await?;
            let held = Registration(state);
            let options = PutOptions::new().with_lease(id);
            let mut client = self.client.clone();
            call(client.put(self.keys.node(&node), addr, Some(options))).await?;
            Ok(held)
        })
    }
}
