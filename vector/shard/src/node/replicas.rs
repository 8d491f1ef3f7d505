//! The replicas of a node: opened where the table lists this node, tended while it does, and put away
//! when it no longer does.

use super::{RETRY_MS, Shared, shard_dir, wanted};
use crate::clock;
use crate::error::Error;
use crate::files;
use crate::replica::{Replica, blocking};
use crate::table::ShardId;
use crate::tend;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Tended {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Opens the replicas that the table lists here, and closes those that it no longer lists.
pub(super) async fn keep_replicas(shared: Arc<Shared>) {
    let mut views = shared.views.subscribe();
    let mut tended: BTreeMap<ShardId, Tended> = BTreeMap::new();
    loop {
        let view = views.borrow_and_update().clone();
        if let Some(view) = view {
            let wanted = wanted(&view, &shared.options.id);
            let gone: Vec<ShardId> = tended
                .keys()
                .filter(|shard| !wanted.contains(shard))
                .copied()
                .collect();
            for shard in gone {
                if let Some(old) = tended.remove(&shard) {
                    old.stop.cancel();
                    let _ = old.task.await;
                }
                retire(&shared, shard).await;
            }
            for shard in wanted {
                tended.entry(shard).or_insert_with(|| {
                    let stop = shared.stop.child_token();
                    let task =
                        tokio::spawn(open_and_tend(Arc::clone(&shared), shard, stop.clone()));
                    Tended { stop, task }
                });
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => break,
            changed = views.changed() => if changed.is_err() { break },
        }
    }
    for (_, old) in tended {
        let _ = old.task.await;
    }
}

async fn open_and_tend(shared: Arc<Shared>, shard: ShardId, stop: CancellationToken) {
    let dir = shard_dir(&shared.options.dir, shard);
    while !stop.is_cancelled() {
        let (me, dir) = (shared.options.id.clone(), dir.clone());
        let stores = Arc::clone(&shared.options.stores);
        match blocking(move || Replica::open(shard, me, &dir, stores)).await {
            Ok(replica) => {
                let replica = Arc::new(replica);
                shared.replicas.write().insert(shard, Arc::clone(&replica));
                tend::run(&shared, &replica, &stop).await;
                if stop.is_cancelled() {
                    return;
                }
                // It failed: what is on disk is looked at again.
                shared.replicas.write().remove(&shard);
                drop(replica);
            }
            Err(error) => {
                tracing::error!(%shard, code = error.code(), %error, "a shard could not be opened");
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = clock::sleep_ms(RETRY_MS) => {}
        }
    }
}

/// Closes a replica that is no longer this node's. Old files must not answer when the shard comes back
/// here: they are set aside, and go where the shard itself is gone (the target of a migration that was
/// given up). Either only by the table of now, not by one that was seen.
async fn retire(shared: &Arc<Shared>, shard: ShardId) {
    let Some(replica) = shared.replicas.write().remove(&shard) else {
        return;
    };
    let me = &shared.options.id;
    let table = shared.refresh().await.ok();
    let entry = table.as_ref().map(|table| table.shard(shard));
    let gone = matches!(entry, Some(None));
    let left = entry.is_some_and(|entry| entry.is_none_or(|one| !one.replicas.contains(me)));
    let dir = shard_dir(&shared.options.dir, shard);
    let aside = shared.options.dir.join(format!("left-{:04}", shard.0));
    let done = blocking(move || {
        drop(replica);
        if gone {
            files::remove_dir(&dir).map_err(Error::io(&dir))?;
        } else if left {
            // Of what left before, the last is kept.
            files::remove_dir(&aside).map_err(Error::io(&aside))?;
            std::fs::rename(&dir, &aside).map_err(Error::io(&dir))?;
        }
        Ok(())
    });
    match done.await {
        Ok(()) => tracing::info!(%shard, gone, left, "a shard left this node"),
        Err(error) => tracing::warn!(%shard, %error, "a shard could not be put away"),
    }
}
