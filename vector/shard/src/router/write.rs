//! Writes, each to the leader of its slot.

use super::{ReadToken, Router, later_epoch, pieces};
use crate::clock;
use crate::coordination::View;
use crate::error::Error;
use crate::slots::slot_of;
use crate::table::ShardId;
use crate::wire::{self, grpc as g};
use futures::future::join_all;
use skerry_types::Budget;
use skerry_vector_index::Write;
use std::collections::BTreeMap;

/// Bytes of writes in one request, about.
pub const PIECE_BYTES_MAX: usize = 8 << 20;
/// How long a write waits for a shard to have a leader before it asks again, in milliseconds.
const LEADER_WAIT_MS: u64 = 50;

/// Writes that were not acknowledged.
#[derive(Debug)]
pub struct Failure {
    pub shard: ShardId,
    pub error: Error,
    /// Where the error is not safe, they may have been done all the same.
    pub writes: Vec<Write>,
}

/// What became of a batch. A batch is all or nothing within one shard and one piece, not over shards.
#[derive(Debug, Default)]
pub struct Written {
    /// Searches with it see what was acknowledged.
    pub token: ReadToken,
    pub failed: Vec<Failure>,
}

impl Written {
    /// The token, or the first error.
    pub fn all(self) -> Result<ReadToken, Error> {
        match self.failed.into_iter().next() {
            Some(failure) => Err(failure.error),
            None => Ok(self.token),
        }
    }
}

/// With less time than this a write is not sent again, in milliseconds.
const LEFT_MS_MIN: u32 = 100;

type Sent = (ShardId, Vec<(u64, u64)>, Option<(Error, Vec<Write>)>);

impl Router {
    /// Writes until all is acknowledged, the budget is spent, or something fails that is not safe to
    /// send again. Writes of one id keep their order.
    pub async fn write(&self, writes: Vec<Write>, budget_ms: u32) -> Result<Written, Error> {
        let budget = Budget::starting(clock::now(), budget_ms);
        let mut written = Written::default();
        let mut left = writes;
        let mut epoch = 0;
        loop {
            let view = self.0.view_since(epoch, budget).await?;
            let mut by_shard: BTreeMap<ShardId, Vec<Write>> = BTreeMap::new();
            for write in left.drain(..) {
                // Every slot has a shard.
                if let Some(shard) = view.table.owner(slot_of(wire::id_of(&write))) {
                    by_shard.entry(shard.id).or_default().push(write);
                }
            }
            let sent = by_shard
                .into_iter()
                .map(|(shard, writes)| self.write_shard(&view, shard, writes, budget));
            let mut wait = false;
            for (shard, acked, failed) in join_all(sent).await {
                for (at_epoch, seq) in acked {
                    written.token.merge(&ReadToken {
                        epoch: at_epoch,
                        seqs: BTreeMap::from([(shard, seq)]),
                    });
                }
                let Some((error, writes)) = failed else {
                    continue;
                };
                let later = later_epoch(&error, view.table.epoch());
                // One more attempt in the last moments would end in doubt, where this error says that
                // nothing was done.
                let late = budget.left_ms(clock::now()) < LEFT_MS_MIN;
                if !error.is_safe() || error.is_callers() || late {
                    written.failed.push(Failure {
                        shard,
                        error,
                        writes,
                    });
                    continue;
                }
                match later {
                    Some(later) => epoch = epoch.max(later),
                    None => wait = true,
                }
                left.extend(writes);
            }
            if left.is_empty() {
                return Ok(written);
            }
            if wait {
                let mut views = self.0.views.clone();
                views.borrow_and_update();
                let left_ms = u64::from(budget.left_ms(clock::now()));
                let _ = clock::within(left_ms.min(LEADER_WAIT_MS), views.changed()).await;
            }
        }
    }

    async fn write_shard(
        &self,
        view: &View,
        shard: ShardId,
        writes: Vec<Write>,
        budget: Budget,
    ) -> Sent {
        let mut acked = Vec::new();
        let mut pieces = pieces(writes).into_iter();
        while let Some(piece) = pieces.next() {
            match self.write_piece(view, shard, &piece, budget).await {
                Ok(seq) => acked.push((view.table.epoch(), seq)),
                Err(error) => {
                    let rest = std::iter::once(piece).chain(pieces).flatten();
                    return (shard, acked, Some((error, rest.collect())));
                }
            }
        }
        (shard, acked, None)
    }

    async fn write_piece(
        &self,
        view: &View,
        shard: ShardId,
        writes: &[Write],
        budget: Budget,
    ) -> Result<u64, Error> {
        let leader = view.leader(shard).ok_or(Error::NotLeader(shard))?;
        let addr = view.addr(&leader.node).ok_or(Error::NotLeader(shard))?;
        let left_ms = budget.left_ms(clock::now());
        let request = g::WriteRequest {
            shard: shard.0,
            epoch: view.table.epoch(),
            left_ms,
            writes: writes.iter().cloned().map(wire::write_out).collect(),
        };
        let mut client = self.0.peers.client(addr)?;
        let reply = clock::within(u64::from(left_ms), client.write(request)).await;
        Ok(reply.ok_or(Error::Deadline)??.into_inner().last_seq)
    }
}
