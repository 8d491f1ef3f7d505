//! What a replica does with its time: it leads, it follows, or it waits for one or the other.
//!
//! Invariant: a replica takes the lead only as a member of the in-sync set, looked at *after* it has
//! the lease (nobody else can change the set then), and with a log that it did not lose.

use crate::clock;
use crate::coordination::{CoordinationError, Leader, Lease, View};
use crate::error::Error;
use crate::follow;
use crate::insync::Tracker;
use crate::lead::Leading;
use crate::moving;
use crate::node::Shared;
use crate::placing;
use crate::replica::{Replica, blocking};
use crate::table::{NodeId, Placing, ShardId, ShardTable};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How long after a failure it is tried again, in milliseconds.
const RETRY_MS: u64 = 100;
/// How often a leader looks after its set without being woken, in milliseconds.
const HOUSEKEEPING_MS: u64 = 500;

/// Until `stop`, or until the store fails.
pub async fn run(shared: &Arc<Shared>, replica: &Arc<Replica>, stop: &CancellationToken) {
    let shard = replica.shard;
    let mut views = shared.views.subscribe();
    let mut needs_snapshot = false;
    let mut leaves_until = clock::now();
    while !stop.is_cancelled() && !replica.is_broken() {
        let view = views.borrow_and_update().clone();
        let leader = view.as_ref().and_then(|view| view.leader(shard).cloned());
        match (view, leader) {
            (Some(view), Some(leader)) if leader.node != replica.me => {
                let changed = leader_changes(shared, replica, &leader);
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    () = changed => Ok(()),
                    ended = turn(shared, replica, &view, &leader, needs_snapshot) => ended,
                };
                match ended {
                    Ok(()) => needs_snapshot = false,
                    Err(error) => {
                        replica.on_error(&error);
                        needs_snapshot |= error.code() == "shard_log_gone";
                        tracing::debug!(%shard, leader = %leader.node, code = error.code(), %error, "following ended");
                        clock::sleep_ms(RETRY_MS).await;
                    }
                }
            }
            (Some(_), None) if clock::now() < leaves_until => wait(&mut views, stop).await,
            (Some(_), None) => {
                match take(shared, replica).await {
                    Ok(Some(leading)) => {
                        if hold(shared, replica, leading, stop).await {
                            leaves_until = placing::leave_until();
                        }
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(%shard, code = error.code(), %error, "the lead was not taken");
                    }
                }
                wait(&mut views, stop).await;
            }
            // No table, or a lease of this node's former life: it ends.
            _ => wait(&mut views, stop).await,
        }
    }
}

async fn wait(
    views: &mut tokio::sync::watch::Receiver<Option<Arc<View>>>,
    stop: &CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => {}
        _ = views.changed() => {}
        () = clock::sleep_ms(RETRY_MS) => {}
    }
}

/// Follows, after a snapshot where one is needed.
async fn turn(
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    view: &View,
    leader: &Leader,
    needs_snapshot: bool,
) -> Result<(), Error> {
    let addr = view.addr(&leader.node);
    let addr = addr.ok_or_else(|| Error::Unreachable(format!("{} has no address", leader.node)))?;
    replica.hear(leader.token)?;
    let client = shared.peers.client(addr)?;
    if needs_snapshot {
        follow::snapshot(replica, leader, client.clone()).await?;
    }
    follow::follow(shared, replica, leader, client).await
}

async fn leader_changes(shared: &Shared, replica: &Replica, leader: &Leader) {
    let mut views = shared.views.subscribe();
    let other = |view: &Option<Arc<View>>| {
        let now = view.as_ref().and_then(|view| view.leader(replica.shard));
        now != Some(leader)
    };
    // The sender lives in `shared`.
    let _ = views.wait_for(other).await;
}

/// Takes the lead, if this replica may.
async fn take(shared: &Arc<Shared>, replica: &Arc<Replica>) -> Result<Option<Arc<Leading>>, Error> {
    let (shard, me) = (replica.shard, replica.me.clone());
    let coordination = shared.coordination();
    // A look without the lease first: who may not lead does not stand in the way of who may.
    let before = coordination.in_sync(shard).await?;
    let may = |members: Option<&[NodeId]>| match members {
        None => true,
        Some(members) => members.contains(&me) && !replica.terms().is_empty(),
    };
    if !may(before.as_ref().map(|set| set.members.as_slice())) {
        return Ok(None);
    }
    let lease = match coordination
        .lead(shard, me.clone(), shared.options.lease_ms)
        .await
    {
        Ok(lease) => lease,
        Err(CoordinationError::Taken(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let set = coordination.in_sync(shard).await?;
    let table = shared.refresh().await?;
    let Some(entry) = table
        .shard(shard)
        .filter(|shard| shard.replicas.contains(&me))
    else {
        return Ok(None);
    };
    if !may(set.as_ref().map(|set| set.members.as_slice())) {
        return Ok(None);
    }
    replica.hear(lease.token)?;
    let members: Vec<NodeId> = set.map_or_else(|| vec![me.clone()], |set| set.members);
    let members: Vec<NodeId> = members
        .into_iter()
        .filter(|node| entry.replicas.contains(node))
        .collect();
    // The term first: a set that names a replica without terms would name one that lost its log.
    let seq = begin_term(replica, &lease).await?;
    coordination
        .set_in_sync(lease.fence(), members.clone())
        .await?;
    let mut tracker = Tracker::new(me, members, entry.replicas.len(), seq);
    note_replicas(&mut tracker, &table, shard);
    tracing::info!(%shard, token = lease.token, seq, "leading");
    Ok(Some(Arc::new(Leading::new(lease, tracker))))
}

async fn begin_term(replica: &Arc<Replica>, lease: &Lease) -> Result<u64, Error> {
    let (turn, token) = (replica.turn().await, lease.token);
    let replica = Arc::clone(replica);
    blocking(move || {
        let _turn = turn;
        let seq = replica.store().seq();
        replica.set_terms(replica.terms().begin(token, seq))?;
        replica.on_head(seq);
        replica.set_caught_up(true);
        Ok(seq)
    })
    .await
}

/// Leads until the lease is gone, the node stops, or the lead must go to another: true then.
async fn hold(
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    leading: Arc<Leading>,
    stop: &CancellationToken,
) -> bool {
    replica.set_leading(Some(Arc::clone(&leading)));
    let ended = CancellationToken::new();
    let mover = tokio::spawn(moving::run(
        Arc::clone(shared),
        Arc::clone(replica),
        Arc::clone(&leading),
        ended.clone(),
    ));
    let goes = loop {
        if look_after(shared, &leading).await {
            break true;
        }
        tokio::select! {
            () = stop.cancelled() => break false,
            () = leading.lease.lost() => break false,
            () = leading.wake.notified() => {}
            () = clock::sleep_ms(HOUSEKEEPING_MS) => {}
        }
    };
    replica.set_leading(None);
    ended.cancel();
    let _ = mover.await;
    // What is in flight ends before another leads, or before this replica follows: a write that
    // landed later would send its log another way unseen.
    let shut = Arc::clone(&leading.gate).write_owned().await;
    leading.lease.release();
    drop(shut);
    tracing::info!(shard = %replica.shard, token = leading.lease.token, "no longer leading");
    goes
}

/// Brings the in-sync set up to the table; true where the lead must go to another.
async fn look_after(shared: &Arc<Shared>, leading: &Leading) -> bool {
    let shard = leading.lease.shard;
    let Some(view) = shared.view() else {
        return false;
    };
    let Some(entry) = view.table.shard(shard) else {
        return false;
    };
    note_replicas(&mut leading.tracker.lock(), &view.table, shard);
    let placing = view.table.placing(shard);
    let candidates = placing::candidates(leading, entry, placing);
    if let Err(error) = leading.admit(shared.coordination(), &candidates).await {
        tracing::warn!(%shard, code = error.code(), %error, "a follower could not join the in-sync set");
    }
    let Some(placing) = placing else {
        return false;
    };
    match placing::step(shared, leading, placing).await {
        Ok(goes) => goes,
        Err(error) => {
            tracing::warn!(%shard, code = error.code(), %error, "the change of replicas waits");
            false
        }
    }
}

fn note_replicas(tracker: &mut Tracker, table: &ShardTable, shard: ShardId) {
    let placing = table.placing(shard);
    let listed = table.shard(shard).map_or(0, |entry| entry.replicas.len());
    let copies = placing.map_or(listed, Placing::copies);
    tracker.on_replicas(copies, placing.is_some());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Draft;

    /// While a single replica moves to another node the table lists both, and the one that leads goes on
    /// confirming alone until the other has caught up.
    #[test]
    fn copies_on_their_way_are_not_waited_for() {
        let names = |text: &str| -> Vec<NodeId> {
            let each = text.split(' ').map(|name| NodeId::new(name).unwrap());
            each.collect()
        };
        for (from, to, alone) in [
            ("a", "b", true),
            ("a", "b c", true),
            ("a b", "c", true),
            ("a b", "b c", false),
        ] {
            let shard = ShardId(0);
            let table = Draft::first(&[names(from)]).unwrap().settle(1).unwrap();
            let moving = table.replace(shard, &names(to), 1).unwrap();
            let moving = moving.settle(2).unwrap();
            let me = NodeId::new("a").unwrap();
            let mut tracker = Tracker::new(me.clone(), [me], 2, 7);
            assert!(!tracker.is_enough());
            note_replicas(&mut tracker, &moving, shard);
            assert_eq!(tracker.is_enough(), alone, "{from} to {to}");
        }
    }
}
