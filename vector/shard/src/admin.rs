//! What operators do to a cluster, by way of any of its nodes: look, split, move, put replicas elsewhere,
//! give up.
//!
//! Invariant: a call ends within [`CALL_MS_MAX`]; a node that does not answer is named, and the others
//! are shown all the same.

use crate::clock;
use crate::coordination::View;
use crate::error::Error;
use crate::peers::Peers;
use crate::slots::SlotSet;
use crate::table::{Migration, NodeId, Placing, ShardId};
use crate::wire::grpc as g;
use futures::future::join_all;
use g::migrate_request::Verb;
use serde_json::{Value, json};
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
    /// The change of replicas that is under way.
    pub placing: Option<Placing>,
}

impl ShardState {
    /// What the leader says.
    #[must_use]
    pub fn leading(&self) -> Option<&g::ShardStats> {
        let stats = self.replicas.iter().filter_map(|one| one.stats.as_ref());
        stats.into_iter().find(|stats| stats.role == "leading")
    }

    /// Where replicas change, how many of the nodes that they go to are in sync.
    #[must_use]
    pub fn arrived(&self) -> usize {
        let (Some(placing), Some(leading)) = (&self.placing, self.leading()) else {
            return 0;
        };
        let in_sync = |node: &&NodeId| leading.in_sync.iter().any(|one| one == node.as_str());
        placing.to.iter().filter(in_sync).count()
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

impl Overview {
    /// Of one shard, in the process that asks, with so many records and writes.
    pub(crate) fn of_one(records: u64, seq: u64) -> Result<Self, Error> {
        let here = NodeId::new("here")?;
        let stats = g::ShardStats {
            role: "leading".to_owned(),
            records,
            seq,
            in_sync: vec![here.to_string()],
            ..g::ShardStats::default()
        };
        Ok(Self {
            epoch: 0,
            migration: None,
            moved: None,
            shards: vec![ShardState {
                shard: ShardId(0),
                slots: SlotSet::all(),
                leader: Some(here.clone()),
                placing: None,
                replicas: vec![ReplicaState {
                    node: here,
                    stats: Some(stats),
                }],
            }],
        })
    }

    /// For programs: `epoch`, `migration`, `shards`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let shards = self.shards.iter().map(|shard| {
            let replicas = shard.replicas.iter().map(|one| {
                let stats = one.stats.as_ref();
                json!({"node": one.node.as_str(), "role": stats.map(|s| &s.role),
                    "seq": stats.map(|s| s.seq), "records": stats.map(|s| s.records)})
            });
            json!({"shard": shard.shard.0, "slots": shard.slots.to_string(), "slot_count": shard.slots.len(),
                "leader": shard.leader.as_ref().map(NodeId::as_str),
                "in_sync": shard.leading().map(|s| &s.in_sync), "replicas": replicas.collect::<Vec<_>>(),
                "change": shard.placing.as_ref().map(|one| json!({"change": one.id,
                    "from": one.from.iter().map(NodeId::as_str).collect::<Vec<_>>(),
                    "to": one.to.iter().map(NodeId::as_str).collect::<Vec<_>>(), "arrived": shard.arrived()}))})
        });
        let migration = self.migration.as_ref().map(|one| {
            let moved = self.moved.as_ref();
            json!({"migration": one.id, "from": one.from.0, "to": one.to.0, "slots": one.slots.len(),
                "step": moved.map(|m| &m.step), "copied": moved.map(|m| m.copied),
                "copy_total": moved.map(|m| m.copy_total), "attempts": moved.map(|m| m.attempts)})
        });
        json!({"epoch": self.epoch, "migration": migration, "shards": shards.collect::<Vec<_>>()})
    }
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
            placing: view.table.placing(shard.id).cloned(),
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

    /// Begins to put a shard's replicas on these nodes, or gives a change that is under way another
    /// list.
    pub async fn replace(
        &self,
        shard: ShardId,
        replicas: &[NodeId],
    ) -> Result<g::MigrateReply, Error> {
        let replicas = replicas.iter().map(ToString::to_string).collect();
        let shard = shard.0;
        self.migrate(Verb::Replace(g::Replace { shard, replicas }))
            .await
    }

    /// Gives a change of replicas up: the shard goes back to the nodes of before.
    pub async fn put_back(&self, shard: ShardId) -> Result<g::MigrateReply, Error> {
        self.migrate(Verb::PutBack(g::PutBack { shard: shard.0 }))
            .await
    }
}
