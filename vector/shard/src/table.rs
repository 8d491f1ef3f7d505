//! The table: which shard has which slots, and which nodes hold the shard. Pure: transitions make a
//! [`Draft`], and a draft becomes a table when coordination has given it an epoch.
//!
//! Invariants: every slot has exactly one shard; an epoch is greater than the one before; slots change
//! their shard only in [`ShardTable::flip`]; at most one migration is under way; the id of a shard is
//! never used again.

use crate::slots::SlotSet;
use serde::{Deserialize, Serialize};
use skerry_types::Slot;
use skerry_types::ids::SLOTS;
use skerry_wire::{CodecError, codec, value::schema};
use std::fmt;
use std::sync::Arc;

mod placing;

pub use placing::Placing;

/// Most shards of a table, and replicas of a shard.
pub const SHARDS_MAX: usize = 1_024;
pub const REPLICAS_MAX: usize = 7;
/// Most bytes of a node's name.
pub const NODE_BYTES_MAX: usize = 64;

/// A shard's number; never used again.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct ShardId(pub u32);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a process that holds replicas: 1 to 64 characters of `a-z`, `0-9`, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

impl NodeId {
    pub fn new(text: &str) -> Result<Self, TableError> {
        let known =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if (1..=NODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(known) {
            Ok(Self(text.into()))
        } else {
            Err(TableError::Node)
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeId {
    type Error = TableError;
    fn try_from(text: String) -> Result<Self, TableError> {
        Self::new(&text)
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> Self {
        node.0.as_ref().to_owned()
    }
}

impl std::str::FromStr for NodeId {
    type Err = TableError;
    fn from_str(text: &str) -> Result<Self, TableError> {
        Self::new(text)
    }
}

/// Why a table or a change of it is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("a node's name is 1 to {NODE_BYTES_MAX} characters of a-z, 0-9, '-', '_' and '.'")]
    Node,
    #[error("slot {0} has no shard, or two")]
    Slot(u16),
    #[error("shard {0} is not in the table")]
    NoShard(ShardId),
    #[error("{0} shards: a table has 1 to {SHARDS_MAX}")]
    Shards(usize),
    #[error(
        "shard {0}: 1 to {REPLICAS_MAX} different nodes, not those of now, at most {REPLICAS_MAX} with them"
    )]
    Replicas(ShardId),
    #[error("shards are not in order, or a number is used twice")]
    Order,
    #[error("migration {0} is under way; wait for it, or abort it")]
    Busy(u64),
    #[error("migration {0} is not under way")]
    NoMigration(u64),
    #[error("shard {0} does not have these slots, or they are none")]
    NotOwned(ShardId),
    #[error("shard {0} has a single slot: it cannot be split")]
    Single(ShardId),
    #[error("slots of shard {0} cannot move to itself")]
    Same(ShardId),
    #[error("the replicas of shard {0} are being changed; wait for it, or give it up")]
    Placing(ShardId),
    #[error("no change of the replicas of shard {0} is under way")]
    NoPlacing(ShardId),
    #[error("epoch {got} does not follow {after}")]
    Epoch { got: u64, after: u64 },
}

impl TableError {
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Node => "shard_node",
            Self::Slot(_) | Self::Order | Self::Shards(_) => "shard_table",
            Self::NoShard(_) => "shard_unknown",
            Self::Replicas(_) => "shard_replicas",
            Self::Busy(_) => "shard_migration_busy",
            Self::NoMigration(_) => "shard_migration_unknown",
            Self::NotOwned(_) | Self::Single(_) | Self::Same(_) => "shard_slots",
            Self::Placing(_) => "shard_replicas_busy",
            Self::NoPlacing(_) => "shard_replicas_unknown",
            Self::Epoch { .. } => "shard_epoch",
        }
    }
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    pub id: ShardId,
    pub slots: SlotSet,
    /// The nodes that hold it.
    pub replicas: Vec<NodeId>,
    /// The epoch since which it has these slots: a request with this epoch or a later one means the
    /// same slots. 0 in a draft: the epoch that the draft will get.
    pub since: u64,
    /// A replica that has not applied the log up to here lacks records that moved here.
    pub base_seq: u64,
}

/// Slots on their way. They belong to `from` until the flip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// The epoch in which it began. 0 in a draft.
    pub id: u64,
    pub from: ShardId,
    pub to: ShardId,
    pub slots: SlotSet,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    shards: Vec<Shard>,
    migration: Option<Migration>,
    next: u32,
    /// In a form of their own, which only a table that has some takes.
    #[serde(skip)]
    placings: Vec<Placing>,
}

impl Body {
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        if self.placings.is_empty() {
            return codec::encode_as(schema::SHARD_TABLE, self);
        }
        codec::encode_as(schema::SHARD_TABLE_PLACING, &(self, &self.placings))
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if codec::schema_of(bytes)? != schema::SHARD_TABLE_PLACING {
            return codec::decode_as(schema::SHARD_TABLE, bytes);
        }
        let (body, placings): (Self, Vec<Placing>) =
            codec::decode_as(schema::SHARD_TABLE_PLACING, bytes)?;
        Ok(Self { placings, ..body })
    }
}

/// Who has what, under one epoch. Checked when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardTable {
    epoch: u64,
    body: Body,
    /// For each slot, the place of its shard in `body.shards`.
    owners: Box<[u16]>,
}

/// A table that has no epoch yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    after: u64,
    body: Body,
}

impl Draft {
    /// The first table: the slots in equal parts, one for each list of replicas.
    pub fn first(replicas: &[Vec<NodeId>]) -> Result<Self, TableError> {
        let count = replicas.len();
        if !(1..=SHARDS_MAX).contains(&count) {
            return Err(TableError::Shards(count));
        }
        let bound = |part: usize| (part * usize::from(SLOTS) / count) as u16;
        let shards = replicas.iter().enumerate().map(|(at, replicas)| Shard {
            id: ShardId(at as u32),
            slots: (bound(at)..bound(at + 1)).collect(),
            replicas: replicas.clone(),
            since: 0,
            base_seq: 0,
        });
        let draft = Self {
            after: 0,
            body: Body {
                shards: shards.collect(),
                migration: None,
                next: count as u32,
                placings: Vec::new(),
            },
        };
        draft.clone().settle(1)?;
        Ok(draft)
    }

    /// The epoch of the table that it changes; 0 for the first.
    #[must_use]
    pub const fn after(&self) -> u64 {
        self.after
    }

    /// What is stored: the table without its epoch, which is the store's to give.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.body.encode()
    }

    /// The table with its epoch.
    pub fn settle(self, epoch: u64) -> Result<ShardTable, TableError> {
        if epoch <= self.after {
            let after = self.after;
            return Err(TableError::Epoch { got: epoch, after });
        }
        ShardTable::checked(self.body, epoch)
    }
}

impl ShardTable {
    /// What a draft's `encode` gave, and the epoch under which it was stored.
    pub fn decode(bytes: &[u8], epoch: u64) -> Result<Self, String> {
        let body = Body::decode(bytes).map_err(|error| error.to_string())?;
        Self::checked(body, epoch).map_err(|error| error.to_string())
    }

    /// The stored form of this very table.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.body.encode()
    }

    fn checked(mut body: Body, epoch: u64) -> Result<Self, TableError> {
        if !(1..=SHARDS_MAX).contains(&body.shards.len()) {
            return Err(TableError::Shards(body.shards.len()));
        }
        let mut owners = vec![u16::MAX; usize::from(SLOTS)];
        let mut below = 0;
        for (at, shard) in body.shards.iter_mut().enumerate() {
            if shard.since == 0 {
                shard.since = epoch;
            }
            if shard.id.0 < below || shard.id.0 >= body.next || shard.since > epoch {
                return Err(TableError::Order);
            }
            below = shard.id.0 + 1;
            if !placing::is_list(&shard.replicas) {
                return Err(TableError::Replicas(shard.id));
            }
            for slot in shard.slots.iter() {
                match owners.get_mut(usize::from(slot)) {
                    Some(owner) if *owner == u16::MAX => *owner = at as u16,
                    _ => return Err(TableError::Slot(slot)),
                }
            }
        }
        if let Some(slot) = owners.iter().position(|owner| *owner == u16::MAX) {
            return Err(TableError::Slot(slot as u16));
        }
        if let Some(migration) = &mut body.migration {
            if migration.id == 0 {
                migration.id = epoch;
            }
            let shard = |id: ShardId| body.shards.iter().find(|shard| shard.id == id);
            let from = shard(migration.from).ok_or(TableError::NoShard(migration.from))?;
            shard(migration.to).ok_or(TableError::NoShard(migration.to))?;
            if migration.from == migration.to {
                return Err(TableError::Same(migration.from));
            }
            if migration.slots.is_empty() || !from.slots.covers(&migration.slots) {
                return Err(TableError::NotOwned(migration.from));
            }
        }
        let mut placed = Vec::new();
        for placing in &mut body.placings {
            if placing.id == 0 {
                placing.id = epoch;
            }
            let id = placing.shard;
            let shard = body.shards.iter().find(|shard| shard.id == id);
            placing.check(shard.ok_or(TableError::NoShard(id))?)?;
            if placed.contains(&id) || placing.id > epoch {
                return Err(TableError::Order);
            }
            placed.push(id);
        }
        Ok(Self {
            epoch,
            body,
            owners: owners.into(),
        })
    }

    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// In ascending order of their ids.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.body.shards
    }

    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        let at = self.body.shards.partition_point(|shard| shard.id < id);
        self.body.shards.get(at).filter(|shard| shard.id == id)
    }

    #[must_use]
    pub const fn migration(&self) -> Option<&Migration> {
        self.body.migration.as_ref()
    }

    /// Whose a slot is.
    #[must_use]
    pub fn owner(&self, slot: Slot) -> Option<&Shard> {
        let at = self.owners.get(usize::from(slot.0))?;
        self.body.shards.get(usize::from(*at))
    }

    fn change(&self, change: impl FnOnce(&mut Body)) -> Result<Draft, TableError> {
        let mut body = self.body.clone();
        change(&mut body);
        let draft = Draft {
            after: self.epoch,
            body,
        };
        // What is refused is refused here, not when it has been stored.
        draft.clone().settle(self.epoch + 1)?;
        Ok(draft)
    }

    /// The same slots, all on one node: shards without slots and a migration fall away.
    pub fn alone(&self, node: &NodeId) -> Result<Self, TableError> {
        let mut body = self.body.clone();
        body.migration = None;
        body.shards.retain(|shard| !shard.slots.is_empty());
        for shard in &mut body.shards {
            shard.replicas = vec![node.clone()];
        }
        Self::checked(body, self.epoch)
    }

    fn idle(&self) -> Result<(), TableError> {
        match &self.body.migration {
            Some(migration) => Err(TableError::Busy(migration.id)),
            None => Ok(()),
        }
    }

    /// Begins to move the upper half of a shard's slots to a new shard on `replicas` (those of the
    /// old one where none is named).
    pub fn split(&self, id: ShardId, replicas: &[NodeId]) -> Result<Draft, TableError> {
        self.idle()?;
        let shard = self.shard(id).ok_or(TableError::NoShard(id))?;
        self.placed(id)?;
        if shard.slots.len() < 2 {
            return Err(TableError::Single(id));
        }
        let slots = shard.slots.last(shard.slots.len() / 2);
        let replicas = if replicas.is_empty() {
            shard.replicas.clone()
        } else {
            replicas.to_vec()
        };
        self.change(|body| {
            let to = ShardId(body.next);
            body.next = body.next.saturating_add(1);
            body.shards.push(Shard {
                id: to,
                slots: SlotSet::default(),
                replicas,
                since: 0,
                base_seq: 0,
            });
            body.migration = Some(Migration {
                id: 0,
                from: id,
                to,
                slots,
            });
        })
    }

    /// Begins to move slots from one shard to another.
    pub fn move_slots(
        &self,
        from: ShardId,
        to: ShardId,
        slots: SlotSet,
    ) -> Result<Draft, TableError> {
        self.idle()?;
        self.shard(from).ok_or(TableError::NoShard(from))?;
        self.placed(from)?;
        self.placed(to)?;
        self.change(|body| {
            body.migration = Some(Migration {
                id: 0,
                from,
                to,
                slots,
            });
        })
    }

    fn under_way(&self, id: u64) -> Result<&Migration, TableError> {
        self.migration()
            .filter(|migration| migration.id == id)
            .ok_or(TableError::NoMigration(id))
    }

    /// The end of a migration: the slots are the other shard's, whose log has all of them at
    /// `base_seq`. The one transition in which slots change hands.
    pub fn flip(&self, id: u64, base_seq: u64) -> Result<Draft, TableError> {
        let migration = self.under_way(id)?.clone();
        self.change(|body| {
            for shard in &mut body.shards {
                if shard.id == migration.from {
                    shard.slots = shard.slots.minus(&migration.slots);
                    shard.since = 0;
                }
                if shard.id == migration.to {
                    shard.slots = shard.slots.plus(&migration.slots);
                    shard.since = 0;
                    shard.base_seq = shard.base_seq.max(base_seq);
                }
            }
            body.migration = None;
        })
    }

    /// Gives a migration up: the slots stay where they are, and a shard that has none goes.
    pub fn abort(&self, id: u64) -> Result<Draft, TableError> {
        let migration = self.under_way(id)?.clone();
        self.change(|body| {
            body.migration = None;
            body.shards
                .retain(|shard| shard.id != migration.to || !shard.slots.is_empty());
        })
    }

    /// What each shard gives to one more shard, so that all have equally many slots: the moves to
    /// make, one after the other.
    #[must_use]
    pub fn shares_for_one_more(&self) -> Vec<(ShardId, SlotSet)> {
        let fair = u32::from(SLOTS) / (self.body.shards.len() as u32 + 1);
        let mut wanted = fair;
        let mut moves = Vec::new();
        let mut left = self.body.shards.len() as u32;
        for shard in &self.body.shards {
            let share = wanted.div_ceil(left.max(1));
            let spare = shard.slots.len().saturating_sub(fair).min(share);
            if spare > 0 {
                moves.push((shard.id, shard.slots.last(spare)));
            }
            wanted -= spare;
            left -= 1;
        }
        moves
    }
}

#[cfg(test)]
mod tests;
