//! Replicas on their way to other nodes. While they are, the table lists those that go and those that
//! come; which of them may leave when is the leader's to know ([`crate::placing`]).
//!
//! Invariants: a shard's slots do not change, and neither does its `since`; a shard that takes part in
//! a migration keeps its replicas; at most one change of each shard's replicas is under way, and a
//! later list takes the place of an earlier one.

use super::{Draft, NodeId, REPLICAS_MAX, Shard, ShardId, ShardTable, TableError};
use serde::{Deserialize, Serialize};

/// A change of one shard's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placing {
    /// The epoch in which its list was given. 0 in a draft.
    pub id: u64,
    pub shard: ShardId,
    pub from: Vec<NodeId>,
    pub to: Vec<NodeId>,
    /// In-sync members when it began: there are never fewer until it is over.
    pub held: u32,
}

impl Placing {
    /// Members that must be there before others leave.
    #[must_use]
    pub fn need(&self) -> usize {
        (self.held as usize).min(self.to.len())
    }

    /// Nodes that had no replica before.
    pub fn fresh(&self) -> impl Iterator<Item = &NodeId> {
        self.to.iter().filter(|node| !self.from.contains(node))
    }

    /// How many replicas the shard is meant to have as long as it is under way: a single one confirms
    /// its writes alone until there is a second.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.from.len().min(self.to.len())
    }

    pub(super) fn check(&self, shard: &Shard) -> Result<(), TableError> {
        let wrong = Err(TableError::Replicas(shard.id));
        for list in [&self.from, &self.to] {
            if !is_list(list) || !list.iter().all(|node| shard.replicas.contains(node)) {
                return wrong;
            }
        }
        Ok(())
    }
}

/// Whether these can be a shard's replicas.
pub(super) fn is_list(nodes: &[NodeId]) -> bool {
    let mut names: Vec<&NodeId> = nodes.iter().collect();
    names.sort_unstable();
    names.dedup();
    names.len() == nodes.len() && (1..=REPLICAS_MAX).contains(&nodes.len())
}

fn same(a: &[NodeId], b: &[NodeId]) -> bool {
    a.len() == b.len() && a.iter().all(|node| b.contains(node))
}

impl ShardTable {
    #[must_use]
    pub fn placings(&self) -> &[Placing] {
        &self.body.placings
    }

    /// The change of a shard's replicas that is under way.
    #[must_use]
    pub fn placing(&self, shard: ShardId) -> Option<&Placing> {
        self.body.placings.iter().find(|one| one.shard == shard)
    }

    /// Refuses where the shard's replicas are being changed.
    pub(super) fn placed(&self, shard: ShardId) -> Result<(), TableError> {
        match self.placing(shard) {
            Some(_) => Err(TableError::Placing(shard)),
            None => Ok(()),
        }
    }

    /// Begins to put a shard on other nodes, of which `held` replicas are in sync now; where that is
    /// under way, gives it another list. The nodes of before and after together are at most
    /// [`REPLICAS_MAX`].
    pub fn replace(&self, id: ShardId, to: &[NodeId], held: u32) -> Result<Draft, TableError> {
        let shard = self.shard(id).ok_or(TableError::NoShard(id))?;
        if let Some(migration) = self.migration()
            && (migration.from == id || migration.to == id)
        {
            return Err(TableError::Busy(migration.id));
        }
        let before = self.placing(id);
        if !is_list(to) || before.is_none() && same(&shard.replicas, to) {
            return Err(TableError::Replicas(id));
        }
        let placing = Placing {
            id: 0,
            shard: id,
            from: before.map_or_else(|| shard.replicas.clone(), |one| one.from.clone()),
            to: to.to_vec(),
            held: before.map_or(held, |one| one.held),
        };
        self.change(|body| {
            for shard in body.shards.iter_mut().filter(|shard| shard.id == id) {
                let more = to.iter().filter(|node| !shard.replicas.contains(node));
                let more: Vec<NodeId> = more.cloned().collect();
                shard.replicas.extend(more);
            }
            body.placings.retain(|one| one.shard != id);
            body.placings.push(placing);
        })
    }

    /// Gives a change of replicas up: it goes back to the nodes of before.
    pub fn put_back(&self, id: ShardId) -> Result<Draft, TableError> {
        let placing = self.placing(id).ok_or(TableError::NoPlacing(id))?;
        let from = placing.from.clone();
        self.replace(id, &from, placing.held)
    }

    /// The end of a change of replicas: those that go are gone. For the leader, who knows that those
    /// that stay have everything.
    pub fn placed_as(&self, id: ShardId, placing: u64) -> Result<Draft, TableError> {
        let done = self.placing(id).filter(|one| one.id == placing);
        let done = done.ok_or(TableError::NoPlacing(id))?.clone();
        self.change(|body| {
            body.placings.retain(|one| one.shard != id);
            for shard in body.shards.iter_mut().filter(|shard| shard.id == id) {
                shard.replicas.clone_from(&done.to);
            }
        })
    }
}
