//! The port to what all nodes must agree on: the table, each shard's leader and in-sync set, and the
//! addresses of nodes.
//!
//! Invariants: a table is replaced only where its epoch is the expected one *and* every named leader
//! still leads; a shard has at most one leader, and a later leader has a greater token; an in-sync set
//! is changed only under the leader's token. A lease counts as held only until a margin before
//! the moment at which coordination may give it to another: this side's clock is read before the lease
//! is asked for or prolonged.

use crate::table::{Draft, NodeId, ShardId, ShardTable, TableError};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use skerry_types::Tick;
use skerry_wire::{codec, value::schema};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use crate::clock::now;

pub mod embedded;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod nodes;

/// How long before its end a lease no longer counts, in milliseconds: for what happens between the
/// last look at the clock and the acknowledgement.
pub const LEASE_MARGIN_MS: u64 = 300;
/// Bounds of a lease, in milliseconds.
pub const LEASE_MS_MIN: u64 = 1_000;
pub const LEASE_MS_MAX: u64 = 60_000;
/// Longest call, in milliseconds.
pub const CALL_MS_MAX: u64 = 2_000;

#[derive(Debug, thiserror::Error)]
pub enum CoordinationError {
    #[error("the table has epoch {current}, {expected} was expected, or a leader has changed")]
    Conflict { expected: u64, current: u64 },
    #[error("shard {0} is led by another node")]
    Taken(ShardId),
    #[error("the lease of shard {0} has ended")]
    Lost(ShardId),
    #[error("there is no table yet")]
    NoTable,
    #[error("coordination does not answer: {0}")]
    Unavailable(String),
    /// It answers, and says no.
    #[error("coordination refuses this node: {0}")]
    Denied(String),
    /// What is set for speaking to it.
    #[error("etcd cannot be spoken to: {0}")]
    Access(String),
    #[error("what coordination keeps is damaged: {0}")]
    Corrupt(String),
    #[error(transparent)]
    Table(#[from] TableError),
}

impl CoordinationError {
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "shard_conflict",
            Self::Taken(_) => "shard_lease_taken",
            Self::Lost(_) => "shard_lease_lost",
            Self::NoTable => "shard_no_table",
            Self::Unavailable(_) => "coordination_unavailable",
            Self::Denied(_) => "coordination_denied",
            Self::Access(_) => "coordination_access",
            Self::Corrupt(_) => "coordination_corrupt",
            Self::Table(error) => error.code(),
        }
    }
}

/// Who leads a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    pub node: NodeId,
    /// Greater than that of every leader before.
    pub token: u64,
}

/// All that nodes and routers follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub table: Arc<ShardTable>,
    pub leaders: BTreeMap<ShardId, Leader>,
    /// Where nodes listen: `host:port`.
    pub nodes: BTreeMap<NodeId, String>,
}

#[derive(Serialize, Deserialize)]
struct StoredView {
    table: Vec<u8>,
    epoch: u64,
    leaders: Vec<(ShardId, Leader)>,
    nodes: Vec<(NodeId, String)>,
}

impl View {
    /// For a file, or a peer.
    pub fn encode(&self) -> Result<Vec<u8>, codec::CodecError> {
        let leaders = self.leaders.iter().map(|(id, l)| (*id, l.clone()));
        let nodes = self.nodes.iter().map(|(id, a)| (id.clone(), a.clone()));
        let stored = StoredView {
            table: self.table.encode()?,
            epoch: self.table.epoch(),
            leaders: leaders.collect(),
            nodes: nodes.collect(),
        };
        codec::encode_as(schema::SHARD_VIEW, &stored)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let stored: StoredView = codec::decode_as(schema::SHARD_VIEW, bytes)
            .map_err(|error: codec::CodecError| error.to_string())?;
        Ok(Self {
            table: Arc::new(ShardTable::decode(&stored.table, stored.epoch)?),
            leaders: stored.leaders.into_iter().collect(),
            nodes: stored.nodes.into_iter().collect(),
        })
    }

    #[must_use]
    pub fn leader(&self, shard: ShardId) -> Option<&Leader> {
        self.leaders.get(&shard)
    }

    #[must_use]
    pub fn addr(&self, node: &NodeId) -> Option<&str> {
        self.nodes.get(node).map(String::as_str)
    }
}

/// What a watcher sees; nothing before there is a table.
pub type Views = watch::Receiver<Option<Arc<View>>>;

/// The replicas that have every acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSync {
    /// Of the leader that wrote it.
    pub token: u64,
    pub members: Vec<NodeId>,
}

/// A leader that must still lead for a table to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub shard: ShardId,
    pub token: u64,
}

/// What an adapter keeps of a lease, and what its holder reads.
#[derive(Debug)]
pub struct LeaseState {
    /// Held until then, by this side's clock; in microseconds of [`Tick`].
    until: AtomicU64,
    /// Cancelled when the lease is gone for good.
    lost: CancellationToken,
    /// Cancelled when the holder lets go.
    dropped: CancellationToken,
}

impl LeaseState {
    #[must_use]
    pub fn until(tick: Tick) -> Arc<Self> {
        Arc::new(Self {
            until: AtomicU64::new(tick.0),
            lost: CancellationToken::new(),
            dropped: CancellationToken::new(),
        })
    }

    pub fn prolong(&self, until: Tick) {
        self.until.store(until.0, Ordering::SeqCst);
    }

    pub fn lose(&self) {
        self.until.store(0, Ordering::SeqCst);
        self.lost.cancel();
    }

    #[must_use]
    pub const fn dropped(&self) -> &CancellationToken {
        &self.dropped
    }
}

/// Leadership of a shard, for as long as the adapter prolongs it. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    pub shard: ShardId,
    pub node: NodeId,
    pub token: u64,
    state: Arc<LeaseState>,
}

impl Lease {
    #[must_use]
    pub const fn new(shard: ShardId, node: NodeId, token: u64, state: Arc<LeaseState>) -> Self {
        Self {
            shard,
            node,
            token,
            state,
        }
    }

    /// Whether nobody else can lead at `now`.
    #[must_use]
    pub fn holds(&self, now: Tick) -> bool {
        now.plus_ms(LEASE_MARGIN_MS).0 < self.state.until.load(Ordering::SeqCst)
    }

    /// Ends when the lease is gone for good. A lease that cannot be prolonged for a while is not gone:
    /// it may be held again.
    pub async fn lost(&self) {
        self.state.lost.cancelled().await;
    }

    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state.lost.is_cancelled()
    }

    /// Gives the lead back at once.
    pub fn release(&self) {
        self.state.lose();
        self.state.dropped.cancel();
    }

    #[must_use]
    pub const fn fence(&self) -> Fence {
        Fence {
            shard: self.shard,
            token: self.token,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state.dropped.cancel();
    }
}

/// An address that others can see, for as long as this lives.
#[derive(Debug)]
pub struct Registration(pub Arc<LeaseState>);

impl Registration {
    /// Ends when others no longer see the address.
    pub async fn lost(&self) {
        self.0.lost.cancelled().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.dropped.cancel();
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, CoordinationError>>;

/// Where shards are: all that a router needs. Calls end within [`CALL_MS_MAX`].
pub trait Directory: Send + Sync + 'static {
    /// The table as it is now, not as it was seen last.
    fn table(&self) -> Answer<'_, Arc<ShardTable>>;
    /// Follows everything. Where coordination does not answer, the last view stays.
    fn watch(&self) -> Views;
}

/// The port of nodes. Calls end within [`CALL_MS_MAX`].
pub trait Coordination: Directory {
    /// Replaces the table that the draft changes, or makes the first one. The epoch is the store's.
    fn compare_and_swap(&self, draft: Draft, fences: Vec<Fence>) -> Answer<'_, Arc<ShardTable>>;
    /// Takes the lead of a shard that nobody leads.
    fn lead(&self, shard: ShardId, node: NodeId, ttl_ms: u64) -> Answer<'_, Lease>;
    fn in_sync(&self, shard: ShardId) -> Answer<'_, Option<InSync>>;
    /// Under the lease: refused where another leads.
    fn set_in_sync(&self, fence: Fence, members: Vec<NodeId>) -> Answer<'_, ()>;
    fn register(&self, node: NodeId, addr: String, ttl_ms: u64) -> Answer<'_, Registration>;
}
