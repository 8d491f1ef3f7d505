//! A snapshot that an operator asks a running node for.
//!
//! Invariant: one is taken at a time; the caller hears how far it is at least every
//! [`HEARTBEAT_MS`], and when the caller goes away, or the node stops, it is called off.

use super::{Taken, capture, taken};
use crate::clock;
use crate::error::Error;
use crate::feed::{HEARTBEAT_MS, Out};
use crate::node::Shared;
use crate::replica::blocking;
use crate::wire::grpc as g;
use parking_lot::Mutex;
use skerry_vector_backup::{Progress, Snapshots};
use std::num::NonZeroUsize;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub async fn serve(
    shared: &Arc<Shared>,
    request: g::BackupRequest,
) -> Result<Out<g::BackupReply>, Error> {
    let place = Arc::clone(&shared.backups).try_acquire_owned();
    let place = place.map_err(|_| Error::Overloaded("snapshots"))?;
    let snapshots = blocking(move || Ok(Snapshots::open_or_make(&request.url)?)).await?;
    let take = capture(shared).await?;
    let keep = NonZeroUsize::new(request.keep as usize);
    let stop = shared.stop.child_token();
    let epoch = shared.epoch();
    let (sender, out) = mpsc::channel(1);
    tokio::spawn(async move {
        let _place = place;
        let now = Arc::new(Mutex::new(Progress::default()));
        let told = Arc::clone(&now);
        let progress = move |progress: &Progress| *told.lock() = progress.clone();
        let ended = tokio::select! {
            ended = taken(&snapshots, take, keep, &stop, &progress) => ended,
            () = tell(sender.clone(), Arc::clone(&now), stop.clone()) => return,
        };
        let last = match ended {
            Ok(taken) => {
                tracing::info!(snapshot = %taken.id, url = snapshots.url(), "a snapshot was taken");
                Ok(reply(&now.lock().clone(), Some(done(taken))))
            }
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "a snapshot was not taken");
                Err(error.status(epoch))
            }
        };
        let _ = sender.send(last).await;
    });
    Ok(ReceiverStream::new(out))
}

/// Tells the caller how far it is, for ever; calls it off when there is no caller any more.
async fn tell(
    sender: mpsc::Sender<Result<g::BackupReply, Status>>,
    now: Arc<Mutex<Progress>>,
    stop: CancellationToken,
) {
    loop {
        let reply = reply(&now.lock().clone(), None);
        if sender.send(Ok(reply)).await.is_err() {
            stop.cancel();
            std::future::pending::<()>().await;
        }
        clock::sleep_ms(HEARTBEAT_MS).await;
    }
}

fn reply(progress: &Progress, done: Option<g::BackupDone>) -> g::BackupReply {
    g::BackupReply {
        bytes_done: progress.bytes_done,
        bytes_total: progress.bytes_total,
        bytes_moved: progress.bytes_moved,
        done,
    }
}

fn done(taken: Taken) -> g::BackupDone {
    let shards = taken.manifest.parts.iter().map(|part| g::BackupShard {
        shard: part
            .name
            .rsplit('-')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or_default(),
        seq: part.seq,
        records: part.rows,
        bytes: part.bytes(),
    });
    g::BackupDone {
        snapshot: taken.id.to_string(),
        shards: shards.collect(),
        node: taken.manifest.node.into(),
        pruned: taken
            .pruned
            .snapshots
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}
