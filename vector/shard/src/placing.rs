//! A change of a shard's replicas, as its leader makes it happen: those that come join the in-sync set,
//! those that go leave it, the lead goes to one that stays, the table lists who is left.
//!
//! Invariants: nobody leaves the in-sync set before those that come are in it, and as many are there
//! and connected as were in it at the beginning; the table drops a node only after the set has. Each
//! step looks at what is there now: whoever leads, wherever the last leader was killed, goes on.

use crate::clock;
use crate::coordination::CoordinationError;
use crate::error::Error;
use crate::lead::Leading;
use crate::node::Shared;
use crate::table::{NodeId, Placing, Shard};
use std::sync::Arc;

/// For so long a leader that goes leaves the lead to the others, in milliseconds; if none of them takes
/// it, it leads on.
pub const HANDOVER_MS: u64 = 1_500;

/// Who may join the in-sync set now.
#[must_use]
pub fn candidates(leading: &Leading, entry: &Shard, placing: Option<&Placing>) -> Vec<NodeId> {
    match placing {
        // Who goes does not come back in.
        Some(placing) if is_there(leading, placing) => placing.to.clone(),
        _ => entry.replicas.clone(),
    }
}

/// Whether all that come are in sync, and enough are left without those that go.
fn is_there(leading: &Leading, placing: &Placing) -> bool {
    let tracker = leading.tracker.lock();
    let fresh = placing.fresh().count();
    tracker.present(placing.fresh()) == fresh && tracker.present(&placing.to) >= placing.need()
}

/// One step. True where the lead must go to another now.
pub async fn step(
    shared: &Arc<Shared>,
    leading: &Leading,
    placing: &Placing,
) -> Result<bool, Error> {
    let coordination = shared.coordination();
    if !is_there(leading, placing) {
        return Ok(false);
    }
    let kept = leading.keep_only(coordination, &placing.to, placing.need());
    if !kept.await? {
        return Ok(false);
    }
    if !placing.to.contains(&leading.lease.node) {
        tracing::info!(shard = %placing.shard, "the lead goes to a new replica");
        return Ok(true);
    }
    let view = shared.view().ok_or(CoordinationError::NoTable)?;
    let draft = view.table.placed_as(placing.shard, placing.id)?;
    let fence = leading.lease.fence();
    match coordination.compare_and_swap(draft, vec![fence]).await {
        Ok(table) => {
            tracing::info!(shard = %placing.shard, epoch = table.epoch(), "replicas have changed");
            shared.adopt(&table);
            Ok(false)
        }
        Err(error) => {
            // Something else changed the table: looked at again with what is there now.
            let _ = shared.refresh().await;
            Err(error.into())
        }
    }
}

/// Until when the lead is left to others.
#[must_use]
pub fn leave_until() -> skerry_types::Tick {
    clock::now().plus_ms(HANDOVER_MS)
}
