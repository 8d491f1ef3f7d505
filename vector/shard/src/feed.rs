//! What a leader gives to others: its log to followers and to the shard that slots move to, whole
//! snapshots, and the records of moving slots.
//!
//! Invariants: a follower whose log is not the beginning of this one gets an error, never records; a
//! message carries the token and an epoch that is not older than its records; each stream holds a
//! place of [`crate::node::Limits::streams_max`] and ends with the lead.

use crate::clock;
use crate::error::Error;
use crate::lead::{Leading, Receiver};
use crate::node::Shared;
use crate::replica::{Replica, blocking};
use crate::slots::slot_of;
use crate::store::LogRecord;
use crate::table::{Migration, NodeId, ShardId};
use crate::wire::{self, grpc as g};
use prost::Message;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// A follower hears something at least so often, in milliseconds.
pub const HEARTBEAT_MS: u64 = 250;
/// Log in one message, in bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Messages on their way to one follower.
const MESSAGES_MAX: usize = 4;
/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Records of moving slots in one message.
const SCAN_RECORDS: usize = 500;
/// A receiver that lacks no more records than this has caught up: writes wait for it.
const DUAL_LAG_MAX: u64 = 512;

pub type Out<T> = ReceiverStream<Result<T, Status>>;

type Sender<T> = mpsc::Sender<Result<T, Status>>;

/// A place among the streams.
pub fn place(shared: &Shared) -> Result<OwnedSemaphorePermit, Error> {
    let place = Arc::clone(&shared.streams).try_acquire_owned();
    place.map_err(|_| Error::Overloaded("streams"))
}

/// The leader of a shard, here. A caller that knows of a later one is told that this one is deposed.
fn leader(
    shared: &Shared,
    shard: u32,
    token: Option<u64>,
) -> Result<(Arc<Replica>, Arc<Leading>), Error> {
    let replica = shared.replica(ShardId(shard))?;
    if let Some(token) = token {
        // Never lowers what is known; an older token of the caller's is the caller's to renew.
        let _ = replica.hear(token);
    }
    let leading = replica.leading().ok_or(Error::NotLeader(replica.shard))?;
    let (mine, known) = (leading.lease.token, replica.token());
    if mine < known {
        return Err(Error::Fenced { got: mine, known });
    }
    Ok((replica, leading))
}

fn under_way(shared: &Shared, shard: ShardId, migration: u64) -> Result<Migration, Error> {
    let view = shared.view();
    let found = view.as_ref().and_then(|view| view.table.migration());
    found
        .filter(|found| found.id == migration && found.from == shard)
        .cloned()
        .ok_or_else(|| Error::Request(format!("migration {migration} is not under way here")))
}

/// Whether it gets something that is not the caller's any more.
fn moves(slots: &Migration, id: &str) -> bool {
    slots.slots.contains(slot_of(id))
}

/// Serves one follower, or one receiver of moving slots.
pub async fn follow(
    shared: &Arc<Shared>,
    mut incoming: Streaming<g::FollowRequest>,
) -> Result<Out<g::FollowReply>, Error> {
    let place = place(shared)?;
    let first = crate::follow::next(&mut incoming).await?;
    let open = first.and_then(|first| first.open);
    let open = open.ok_or_else(|| Error::Request("the first message does not open".to_owned()))?;
    shared.table_since(open.epoch).await?;
    let token = (open.migration == 0).then_some(open.token);
    let (replica, leading) = leader(shared, open.shard, token)?;
    let node = NodeId::new(&open.node)?;
    let migration = match open.migration {
        0 => {
            let table = shared.table_since(open.epoch).await?;
            let entry = table
                .shard(replica.shard)
                .ok_or(Error::NotHere(replica.shard))?;
            if !entry.replicas.contains(&node) {
                return Err(Error::Request(format!(
                    "{node} is no replica of this shard"
                )));
            }
            let head = replica.store().seq();
            if !replica.terms().begins_with(open.last_token, open.seq, head) {
                return Err(Error::LogGone(replica.shard));
            }
            // Before it hears of this term: from then on it could lead.
            let lost = leading.tracker.lock().has_lost(&node, open.seq);
            if lost {
                leading.expel(shared.coordination(), &node).await?;
            }
            None
        }
        id => Some(under_way(shared, replica.shard, id)?),
    };
    // Refused here, not in the middle of the stream, where the log is gone.
    let store = replica.store();
    let seq = open.seq;
    blocking(move || Ok(store.log_since(seq, 1)?)).await?;
    let (sender, out) = mpsc::channel(MESSAGES_MAX);
    let feed = Feed {
        shared: Arc::clone(shared),
        replica,
        leading,
        node,
        migration,
    };
    let first = g::FollowReply {
        token: feed.leading.lease.token,
        epoch: shared.epoch(),
        terms: feed.replica.terms().to_wire(),
        records: Vec::new(),
        through_seq: feed.replica.seq(),
    };
    shared.meter.stream();
    tokio::spawn(async move {
        let _place = place;
        feed.begin(open.token, seq);
        let end = tokio::select! {
            end = feed.read_acks(incoming) => end,
            end = feed.send_log(first, seq, &sender) => end,
            () = feed.leading.lease.lost() => Err(Error::NotLeader(feed.replica.shard)),
            () = feed.shared.stop.cancelled() => Err(Error::NotLeader(feed.replica.shard)),
        };
        feed.end();
        if let Err(error) = end {
            let _ = sender.send(Err(error.status(feed.shared.epoch()))).await;
        }
    });
    Ok(ReceiverStream::new(out))
}

struct Feed {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    leading: Arc<Leading>,
    node: NodeId,
    migration: Option<Migration>,
}

impl Feed {
    fn begin(&self, token: u64, seq: u64) {
        match &self.migration {
            Some(migration) => {
                *self.leading.receiver.lock() = Some(Receiver {
                    migration: migration.id,
                    node: self.node.clone(),
                    token,
                    acked: seq,
                    dual: false,
                });
            }
            None => self.leading.on_ack(&self.node, seq),
        }
    }

    fn end(&self) {
        match &self.migration {
            Some(migration) => {
                let mut receiver = self.leading.receiver.lock();
                if receiver
                    .as_ref()
                    .is_some_and(|r| r.migration == migration.id && r.node == self.node)
                {
                    *receiver = None;
                }
            }
            None => self.leading.on_gone(&self.node),
        }
        self.leading.stir();
    }

    async fn read_acks(&self, mut incoming: Streaming<g::FollowRequest>) -> Result<(), Error> {
        while let Some(ack) = crate::follow::next(&mut incoming).await? {
            if self.migration.is_none() {
                self.leading.on_ack(&self.node, ack.acked_seq);
                continue;
            }
            if let Some(receiver) = self.leading.receiver.lock().as_mut() {
                receiver.acked = receiver.acked.max(ack.acked_seq);
                let lag = self.replica.seq().saturating_sub(receiver.acked);
                receiver.dual |= lag <= DUAL_LAG_MAX;
            }
            self.leading.stir();
        }
        Ok(())
    }

    async fn send_log(
        &self,
        first: g::FollowReply,
        mut seq: u64,
        sender: &Sender<g::FollowReply>,
    ) -> Result<(), Error> {
        let gone = |_| Error::Unreachable("the follower has gone".to_owned());
        sender.send(Ok(first)).await.map_err(gone)?;
        let mut heads = self.replica.heads();
        loop {
            let head = *heads.borrow_and_update();
            let mut records = Vec::new();
            if head > seq {
                let store = self.replica.store();
                let from = seq;
                records = blocking(move || Ok(store.log_since(from, BATCH_BYTES_MAX)?)).await?;
                seq = records.last().map_or(seq, |record| record.seq);
            }
            if records.is_empty() {
                let _ = clock::within(HEARTBEAT_MS, heads.changed()).await;
                if *heads.borrow() > seq {
                    continue;
                }
            }
            if let Some(migration) = &self.migration {
                // The end of a migration ends the stream.
                under_way(&self.shared, self.replica.shard, migration.id)?;
                records.retain(|record| moves(migration, wire::id_of(&record.write)));
            }
            for message in self.messages(records, seq) {
                sender.send(Ok(message)).await.map_err(gone)?;
            }
        }
    }

    /// The log gives whole groups of writes: a large one goes in pieces.
    fn messages(&self, records: Vec<LogRecord>, seq: u64) -> Vec<g::FollowReply> {
        let message = |through_seq| g::FollowReply {
            token: self.leading.lease.token,
            epoch: self.shared.epoch(),
            terms: Vec::new(),
            records: Vec::new(),
            through_seq,
        };
        let mut pieces = vec![message(0)];
        let mut bytes = 0;
        for record in records {
            let seq = record.seq;
            let record = wire::log_record_out(record);
            bytes += record.encoded_len();
            if bytes > BATCH_BYTES_MAX {
                pieces.push(message(0));
                bytes = 0;
            }
            if let Some(piece) = pieces.last_mut() {
                piece.records.push(record);
                piece.through_seq = seq;
            }
        }
        // A receiver applies up to here; a follower sees how far the leader is.
        let receives = self.migration.is_some();
        let head = self.replica.seq();
        if let Some(last) = pieces.last_mut() {
            last.through_seq = seq;
        }
        if !receives {
            pieces.iter_mut().for_each(|piece| piece.through_seq = head);
        }
        pieces
    }
}

/// Sends a whole replica.
pub async fn snapshot(
    shared: &Arc<Shared>,
    request: g::SnapshotRequest,
) -> Result<Out<g::SnapshotReply>, Error> {
    let place = place(shared)?;
    let (replica, leading) = leader(shared, request.shard, Some(request.token))?;
    let node = NodeId::new(&request.node)?;
    let (sender, out) = mpsc::channel(MESSAGES_MAX);
    let epoch = shared.epoch();
    shared.meter.snapshot();
    tokio::spawn(async move {
        let _place = place;
        let begin = || g::SnapshotReply {
            token: leading.lease.token,
            terms: replica.terms().to_wire(),
            ..Default::default()
        };
        // Says that it begins, and again while it is made.
        let waiting = async {
            while sender.send(Ok(begin())).await.is_ok() {
                clock::sleep_ms(HEARTBEAT_MS).await;
            }
            std::future::pending().await
        };
        let name = format!("out-{node}");
        let made = {
            let replica = Arc::clone(&replica);
            let name = name.clone();
            blocking(move || {
                let folder = replica.scratch(&name)?;
                let inner = folder.join("snapshot");
                std::fs::create_dir_all(&inner).map_err(Error::io(&inner))?;
                replica.store().snapshot_to(&inner)?;
                Ok((folder, inner))
            })
        };
        let made = tokio::select! {
            made = made => made,
            () = waiting => return,
        };
        let sent = match made {
            Ok((folder, inner)) => {
                let (sender, token) = (sender.clone(), leading.lease.token);
                blocking(move || {
                    let sent = send_files(&inner, token, &sender);
                    crate::files::remove_dir(&folder).map_err(Error::io(&folder))?;
                    sent
                })
                .await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(shard = %replica.shard, %node, %error, "a snapshot was not sent");
            let _ = sender.send(Err(error.status(epoch))).await;
        }
    });
    Ok(ReceiverStream::new(out))
}

fn files_of(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() {
            files_of(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Blocks while the receiver takes it.
fn send_files(folder: &Path, token: u64, sender: &Sender<g::SnapshotReply>) -> Result<(), Error> {
    let gone = |_| Error::Unreachable("the follower has gone".to_owned());
    let mut files = Vec::new();
    files_of(folder, &mut files)?;
    files.sort();
    let mut total_bytes = 0;
    for path in files {
        let relative = path.strip_prefix(folder).unwrap_or(&path);
        let name = relative.to_string_lossy().into_owned();
        let mut file = File::open(&path).map_err(Error::io(&path))?;
        let mut offset = 0u64;
        loop {
            let mut bytes = Vec::with_capacity(CHUNK_BYTES);
            let chunk = (&mut file).take(CHUNK_BYTES as u64);
            { chunk }
                .read_to_end(&mut bytes)
                .map_err(Error::io(&path))?;
            let count = bytes.len();
            // An empty file is a file too.
            if count == 0 && offset > 0 {
                break;
            }
            let reply = g::SnapshotReply {
                token,
                path: name.clone(),
                offset,
                crc: crc32c::crc32c(&bytes),
                bytes,
                ..Default::default()
            };
            sender.blocking_send(Ok(reply)).map_err(gone)?;
            offset += count as u64;
            total_bytes += count as u64;
            if count < CHUNK_BYTES {
                break;
            }
        }
    }
    let end = g::SnapshotReply {
        token,
        total_bytes,
        ..Default::default()
    };
    sender.blocking_send(Ok(end)).map_err(gone)
}

/// Sends the records of moving slots, page by page; what changes meanwhile is in the log after
/// `from_seq`.
pub async fn scan(
    shared: &Arc<Shared>,
    request: g::ScanRequest,
) -> Result<Out<g::ScanReply>, Error> {
    let place = place(shared)?;
    let table = shared.table_since(request.epoch).await?;
    let (replica, leading) = leader(shared, request.shard, None)?;
    let migration = under_way(shared, replica.shard, request.migration)?;
    let slots = table
        .shard(replica.shard)
        .map_or(1, |shard| shard.slots.len().max(1));
    let (sender, out) = mpsc::channel(MESSAGES_MAX);
    let epoch = shared.epoch();
    let work = blocking(move || {
        let _place = place;
        let sent = scan_pages(&replica, &leading, &migration, slots, &sender);
        if let Err(error) = &sent {
            let _ = sender.blocking_send(Err(error.status(epoch)));
        }
        sent
    });
    tokio::spawn(work);
    Ok(ReceiverStream::new(out))
}

fn scan_pages(
    replica: &Replica,
    leading: &Leading,
    migration: &Migration,
    slots: u32,
    sender: &Sender<g::ScanReply>,
) -> Result<(), Error> {
    let gone = |_| Error::Unreachable("the receiver has gone".to_owned());
    let store = replica.store();
    let from_seq = store.seq();
    let share = f64::from(migration.slots.len()) / f64::from(slots);
    let records_total = (store.len() as f64 * share.min(1.0)) as u64;
    let keep = |id: &str| moves(migration, id);
    let mut after: Option<Box<str>> = None;
    loop {
        if leading.lease.is_lost() {
            return Err(Error::NotLeader(replica.shard));
        }
        let page = store.scan(after.as_deref(), SCAN_RECORDS, &keep)?;
        let last = page.next.is_none();
        let reply = g::ScanReply {
            from_seq,
            records: page.records.into_iter().map(wire::record_out).collect(),
            records_total,
            last,
        };
        sender.blocking_send(Ok(reply)).map_err(gone)?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
