//! Leading a shard: taking the lead, confirming writes, keeping the in-sync set.
//!
//! Invariants: a write is acknowledged only when it is on this node's disk and on that of every member
//! of the in-sync set (at least one other, where the shard has several replicas), *and* the lease is
//! still held then. A member is counted before coordination hears of it, and still counted until
//! coordination has heard that it goes: whoever is in the set can lead. The gate is open while a
//! write is between its check of the table and its acknowledgement: who has it shut knows that none
//! is.

use crate::clock;
use crate::coordination::{Coordination, CoordinationError, Lease};
use crate::digest::Digest;
use crate::error::Error;
use crate::insync::Tracker;
use crate::replica::{Replica, blocking};
use crate::store::Committed;
use crate::table::NodeId;
use parking_lot::Mutex;
use skerry_types::Budget;
use skerry_vector_index::Write;
use std::sync::Arc;
use tokio::sync::{Notify, RwLock, watch};

/// How long a write waits for a member before the set goes on without it, in milliseconds.
pub const SYNC_WAIT_MS: u64 = 700;
/// How long a write waits for the shard that its slots move to, before that has to catch up again.
pub const RECEIVER_WAIT_MS: u64 = 500;
/// How long a write waits for a first in-sync replica, in milliseconds.
const JOIN_WAIT_MS: u64 = 1_000;

/// The shard that slots move to, as their leader sees it.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub migration: u64,
    pub node: NodeId,
    /// The fencing token under which it leads its shard.
    pub token: u64,
    pub acked: u64,
    /// Writes wait for it.
    pub dual: bool,
}

/// How far a migration is, on the side that receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MoveStats {
    pub migration: u64,
    pub step: &'static str,
    pub copied: u64,
    pub copy_total: u64,
    pub attempts: u32,
}

pub struct Leading {
    pub lease: Lease,
    pub tracker: Mutex<Tracker>,
    /// Rises with [`Tracker::confirmed`]; also stirred when the set changes.
    pub stirred: watch::Sender<u64>,
    pub gate: Arc<RwLock<()>>,
    /// One change of the in-sync set at a time.
    membership: tokio::sync::Mutex<()>,
    /// A follower may join, or the table has changed.
    pub wake: Notify,
    pub receiver: Mutex<Option<Receiver>>,
    pub moved: Mutex<MoveStats>,
    /// Of the migration under way, on either side: what the moving slots hold here.
    /// Held while it is taken, by a thread for it.
    pub digest: tokio::sync::Mutex<Option<(u64, Digest)>>,
}

impl Leading {
    #[must_use]
    pub fn new(lease: Lease, tracker: Tracker) -> Self {
        Self {
            lease,
            tracker: Mutex::new(tracker),
            stirred: watch::Sender::new(0),
            gate: Arc::new(RwLock::new(())),
            membership: tokio::sync::Mutex::new(()),
            wake: Notify::new(),
            receiver: Mutex::new(None),
            moved: Mutex::new(MoveStats::default()),
            digest: tokio::sync::Mutex::new(None),
        }
    }

    pub fn stir(&self) {
        let confirmed = self.tracker.lock().confirmed();
        self.stirred.send_replace(confirmed);
    }

    pub fn on_ack(&self, node: &NodeId, seq: u64) {
        let joins = {
            let mut tracker = self.tracker.lock();
            tracker.on_ack(node, seq);
            !tracker.joiners().is_empty()
        };
        self.stir();
        if joins {
            self.wake.notify_one();
        }
    }

    pub fn on_gone(&self, node: &NodeId) {
        self.tracker.lock().on_gone(node);
        self.stir();
    }

    /// Adds followers that have caught up. Counted first: a write that is confirmed from now on is on
    /// them too.
    pub async fn admit(
        &self,
        coordination: &dyn Coordination,
        replicas: &[NodeId],
    ) -> Result<(), Error> {
        let _one = self.membership.lock().await;
        let (before, after) = {
            let mut tracker = self.tracker.lock();
            let before = tracker.members();
            let joiners = tracker.joiners().into_iter();
            let joiners: Vec<NodeId> = joiners.filter(|node| replicas.contains(node)).collect();
            if joiners.is_empty() {
                return Ok(());
            }
            let after: Vec<NodeId> = before.iter().cloned().chain(joiners).collect();
            tracker.set_members(after.clone());
            (before, after)
        };
        let set = coordination
            .set_in_sync(self.lease.fence(), after.clone())
            .await;
        match set {
            Ok(()) => {
                tracing::info!(shard = %self.lease.shard, ?after, "in-sync set grew");
                self.stir();
                Ok(())
            }
            Err(error) => {
                // Whether coordination heard of it is not known: they stay counted unless it surely
                // did not.
                if matches!(
                    error,
                    CoordinationError::Lost(_) | CoordinationError::Conflict { .. }
                ) {
                    self.tracker.lock().set_members(before);
                }
                Err(error.into())
            }
        }
    }

    /// Goes on without members that lack `seq`; where `gone`, without those only that are not
    /// connected. Coordination hears of it first.
    async fn dismiss(
        &self,
        coordination: &dyn Coordination,
        seq: u64,
        gone: bool,
    ) -> Result<bool, Error> {
        let _one = self.membership.lock().await;
        let left = {
            let tracker = self.tracker.lock();
            if tracker.confirmed() >= seq {
                return Ok(true);
            }
            tracker.without_laggards(seq, gone)
        };
        let Some(left) = left else {
            return Ok(false);
        };
        coordination
            .set_in_sync(self.lease.fence(), left.clone())
            .await?;
        tracing::info!(shard = %self.lease.shard, ?left, "in-sync set shrank");
        self.tracker.lock().set_members(left);
        self.stir();
        Ok(true)
    }

    /// Takes a member out that has lost what it confirmed. The leader may be left alone: then nothing is
    /// written until another has everything.
    pub async fn expel(&self, coordination: &dyn Coordination, node: &NodeId) -> Result<(), Error> {
        let _one = self.membership.lock().await;
        let members = self.tracker.lock().members();
        let left: Vec<NodeId> = members.into_iter().filter(|one| one != node).collect();
        coordination
            .set_in_sync(self.lease.fence(), left.clone())
            .await?;
        tracing::warn!(shard = %self.lease.shard, %node, "a replica has lost its log: it leaves the in-sync set");
        self.tracker.lock().set_members(left);
        self.stir();
        Ok(())
    }

    /// Leaves those members that are none of `nodes` out, this node aside, if at least `need` of `nodes`
    /// are members and connected. Coordination hears of it first.
    pub async fn keep_only(
        &self,
        coordination: &dyn Coordination,
        nodes: &[NodeId],
        need: usize,
    ) -> Result<bool, Error> {
        let _one = self.membership.lock().await;
        let (before, after) = {
            let tracker = self.tracker.lock();
            if tracker.present(nodes) < need {
                return Ok(false);
            }
            let me = &self.lease.node;
            let stays = |node: &NodeId| node == me || nodes.contains(node);
            let before = tracker.members();
            let after: Vec<NodeId> = before.iter().filter(|node| stays(node)).cloned().collect();
            (before, after)
        };
        if before != after {
            coordination
                .set_in_sync(self.lease.fence(), after.clone())
                .await?;
            tracing::info!(shard = %self.lease.shard, ?after, "the in-sync set is that of the new replicas");
            self.tracker.lock().set_members(after);
            self.stir();
        }
        Ok(true)
    }

    /// Waits until every member has the log up to `seq`.
    async fn confirmed(&self, coordination: &dyn Coordination, seq: u64) -> Result<(), Error> {
        let shard = self.lease.shard;
        let unconfirmed = |reason| Error::Unconfirmed { shard, reason };
        let mut stirred = self.stirred.subscribe();
        let deadline = clock::now().plus_ms(SYNC_WAIT_MS);
        loop {
            let (confirmed, some_gone) = {
                let tracker = self.tracker.lock();
                let gone = tracker.without_laggards(seq, true).is_some();
                (tracker.confirmed(), gone)
            };
            if confirmed >= seq {
                return Ok(());
            }
            if self.lease.is_lost() {
                return Err(unconfirmed("another node leads now"));
            }
            let left_ms = deadline.since_ms(clock::now());
            if some_gone || left_ms == 0 {
                match self.dismiss(coordination, seq, some_gone).await {
                    Ok(true) => continue,
                    Ok(false) if left_ms == 0 => {
                        return Err(unconfirmed("no in-sync replica has confirmed"));
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%shard, %error, "the in-sync set could not be changed");
                        return Err(unconfirmed("the in-sync set could not be changed"));
                    }
                }
            }
            let _ = clock::within(left_ms.max(1), stirred.changed()).await;
        }
    }

    /// Waits until the receiver of moving slots has what was written, if it is that far.
    async fn received(&self, seq: u64) {
        let waits = |receiver: &Option<Receiver>| {
            receiver
                .as_ref()
                .is_some_and(|receiver| receiver.dual && receiver.acked < seq)
        };
        let mut stirred = self.stirred.subscribe();
        let deadline = clock::now().plus_ms(RECEIVER_WAIT_MS);
        while waits(&self.receiver.lock()) {
            let left_ms = deadline.since_ms(clock::now());
            if left_ms == 0 {
                if let Some(receiver) = self.receiver.lock().as_mut() {
                    receiver.dual = false;
                }
                tracing::warn!(shard = %self.lease.shard, "the receiver of a migration has fallen behind");
                return;
            }
            let _ = clock::within(left_ms, stirred.changed()).await;
        }
    }
}

/// What is written.
pub enum Writes {
    /// A client's.
    Of(Vec<Write>),
    /// Records of another shard, as they are there.
    Copied(Vec<Write>),
}

/// Writes as the leader: on disk here, on the members, and on the receiver of moving slots. The caller
/// has the gate open. Runs to its end even where the caller goes away.
pub async fn commit(
    replica: &Arc<Replica>,
    leading: &Arc<Leading>,
    coordination: &Arc<dyn Coordination>,
    writes: Writes,
    held: impl Send + 'static,
) -> Result<Committed, Error> {
    let (replica, leading) = (Arc::clone(replica), Arc::clone(leading));
    let coordination = Arc::clone(coordination);
    let work = async move {
        let _held = held;
        let shard = replica.shard;
        if !leading.lease.holds(clock::now()) {
            return Err(Error::LeaseLost(shard));
        }
        let store = replica.store();
        let work = blocking(move || {
            Ok(match writes {
                Writes::Of(writes) => store.write(writes)?,
                Writes::Copied(writes) => store.copy(writes)?,
            })
        });
        let committed = work.await.inspect_err(|error| {
            if replica.on_error(error) {
                leading.lease.release();
            }
        })?;
        leading.tracker.lock().on_head(committed.last_seq);
        replica.on_head(committed.last_seq);
        leading.stir();
        leading
            .confirmed(coordination.as_ref(), committed.last_seq)
            .await?;
        leading.received(committed.last_seq).await;
        if !leading.lease.holds(clock::now()) {
            return Err(Error::Unconfirmed {
                shard,
                reason: "the lease has ended",
            });
        }
        Ok(committed)
    };
    tokio::spawn(work)
        .await
        .map_err(|error| Error::Worker(error.to_string()))?
}

/// Before a write: the lease is held, and there is somebody to confirm it.
pub async fn ready(leading: &Leading, budget: Budget) -> Result<(), Error> {
    let shard = leading.lease.shard;
    let now = clock::now();
    if !leading.lease.holds(now) {
        return Err(Error::LeaseLost(shard));
    }
    let mut stirred = leading.stirred.subscribe();
    let deadline = now.plus_ms(u64::from(budget.left_ms(now)).min(JOIN_WAIT_MS));
    while !leading.tracker.lock().is_enough() {
        let left_ms = deadline.since_ms(clock::now());
        if left_ms == 0 {
            return Err(Error::NoInSync(shard));
        }
        let _ = clock::within(left_ms, stirred.changed()).await;
    }
    Ok(())
}
