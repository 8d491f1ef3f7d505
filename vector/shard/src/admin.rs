//! What operators do to a cluster, by way of any of its nodes: look, split, move, give up.
//!
//! Invariant: a call ends within [`CALL_MS_MAX`]; a node that does not answer is named, and the others
//! are shown all the same.

use crate::clock;
use crate::coordination::View;
use crate::error::Error;
use crate::peers::Peers;
use crate::slots::SlotSet;
use crate::table::{Migration, NodeId, ShardId};
use crate::wire::grpc as g;
use futures::future::join_all;
use g::migrate_request::Verb;
use std::sync::Arc;
use tonic::transport::ClientTlsConfig;

/// Longest call, in milliseconds.
const CALL_MS_MAX: u64 = 5_000;

/// Speaks to one node, and through its view to all.
pub struct Admin {
    peers: Peers,
    addr: String,
}

/// One replica, as its node says.
#[derive(Debug, Clone)]
pub struct ReplicaState {
    pub node: NodeId,
    /// What the node says; nothing where it does not answer.
    pub stats: Option<g::ShardStats>,
}

#[derive(Debug, Clone)]
pub struct ShardState {
    pub shard: ShardId,
    pub slots: SlotSet,
    pub leader: Option<NodeId>,
    pub replicas: Vec<ReplicaState>,
}

impl ShardState {
    /// What the leader says.
    #[must_use]
    pub fn leading(&self) -> Option<&g::ShardStats> {
        let stats = self.replicas.iter().filter_map(|one| one.stats.as_ref());
        stats.into_iter().find(|stats| stats.role == "leading")
    }
}

/// A cluster at a glance.
#[derive(Debug, Clone)]
pub struct Overview {
    pub epoch: u64,
    pub migration: Option<Migration>,
    /// How far the migration is, as the receiving leader says.
    pub moved: Option<g::MoveStats>,
    pub shards: Vec<ShardState>,
}

impl Admin {
    /// `addr`: `host:port` of any node.
    #[must_use]
    pub fn new(addr: &str, tls: Option<ClientTlsConfig>) -> Self {
        Self {
            peers: Peers::new(tls),
            addr: addr.to_owned(),
        }
    }

    async fn stats(&self, addr: &str) -> Result<g::StatsReply, Error> {
        let mut client = self.peers.client(addr)?;
        let reply = clock::within(CALL_MS_MAX, client.stats(g::StatsRequest {})).await;
        Ok(reply.ok_or(Error::Deadline)??.into_inner())
    }

    pub async fn overview(&self) -> Result<Overview, Error> {
        let view = View::decode(&self.stats(&self.addr).await?.view).map_err(Error::Peer)?;
        let view = Arc::new(view);
        let asked = view.nodes.iter().map(|(node, addr)| async move {
            let stats = self.stats(addr).await.ok()?;
            Some((node.clone(), stats.shards))
        });
        let told: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        let stats_of = |node: &NodeId, shard: ShardId| {
            let (_, shards) = told.iter().find(|(name, _)| name == node)?;
            shards.iter().find(|stats| stats.shard == shard.0).cloned()
        };
        let shards = view.table.shards().iter().map(|shard| ShardState {
            shard: shard.id,
            slots: shard.slots.clone(),
            leader: view.leader(shard.id).map(|leader| leader.node.clone()),
            replicas: shard
                .replicas
                .iter()
                .map(|node| ReplicaState {
                    node: node.clone(),
                    stats: stats_of(node, shard.id),
                })
                .collect(),
        });
        let shards: Vec<ShardState> = shards.collect();
        let migration = view.table.migration().cloned();
        let moved = migration.as_ref().and_then(|migration| {
            let to = shards.iter().find(|state| state.shard == migration.to)?;
            to.leading()?.moved.clone()
        });
        Ok(Overview {
            epoch: view.table.epoch(),
            migration,
            moved,
            shards,
        })
    }

    async fn migrate(&self, verb: Verb) -> Result<g::MigrateReply, Error> {
        let request = g::MigrateRequest { verb: Some(verb) };
        let mut client = self.peers.client(&self.addr)?;
        let reply = clock::within(CALL_MS_MAX, client.migrate(request)).await;
        Ok(reply.ok_or(Error::Deadline)??.into_inner())
    }

    /// Begins to move the upper half of a shard's slots to a new shard, on `replicas` (those of the
    /// old one where none is named).
    pub async fn split(
        &self,
        shard: ShardId,
        replicas: &[NodeId],
    ) -> Result<g::MigrateReply, Error> {
        let replicas = replicas.iter().map(ToString::to_string).collect();
        let shard = shard.0;
        self.migrate(Verb::Split(g::Split { shard, replicas }))
            .await
    }

    /// Begins to move slots between shards.
    pub async fn move_slots(
        &self,
        from: ShardId,
        to: ShardId,
        slots: &SlotSet,
    ) -> Result<g::MigrateReply, Error> {
        let slots = slots.iter().map(u32::from).collect();
        let (from, to) = (from.0, to.0);
        self.migrate(Verb::Move(g::Move { from, to, slots })).await
    }

    /// Takes a snapshot of the asked node's shards, at a place that the node reaches, and keeps the
    /// last `keep` of them where it is not 0. `progress` is told how far it is.
    pub async fn backup(
        &self,
        url: &str,
        keep: u32,
        progress: &mut dyn FnMut(&g::BackupReply),
    ) -> Result<g::BackupDone, Error> {
        let url = url.to_owned();
        let mut client = self.peers.client(&self.addr)?;
        let asked = client.backup(g::BackupRequest { url, keep });
        let replies = clock::within(CALL_MS_MAX, asked).await;
        let mut replies = replies.ok_or(Error::Deadline)??.into_inner();
        while let Some(reply) = crate::follow::next(&mut replies).await? {
            progress(&reply);
            if let Some(done) = reply.done {
                return Ok(done);
            }
        }
        Err(Error::Peer("a snapshot without an end".to_owned()))
    }

    /// Gives a migration up.
    pub async fn abort(&self, migration: u64) -> Result<g::MigrateReply, Error> {
        self.migrate(Verb::Abort(g::Abort { migration })).await
    }
}
