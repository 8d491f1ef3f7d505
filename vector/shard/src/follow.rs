//! Following a leader: its log as it grows, or a whole snapshot where the log does not reach back.
//!
//! Invariants: what is acknowledged is on this disk; what comes with an older token than one that was
//! heard of is refused; a table that the leader already has is known here before records that were
//! written under it are applied (else a search could miss records that have moved away).

use crate::clock;
use crate::coordination::Leader;
use crate::error::Error;
use crate::insync::LAG_RECORDS_MAX;
use crate::node::Shared;
use crate::peers::Client;
use crate::replica::{Replica, blocking};
use crate::terms::Terms;
use crate::wire::{grpc as g, log_record_in};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A leader that says nothing for so long is not there, in milliseconds. It sends at least every
/// [`crate::feed::HEARTBEAT_MS`].
pub const SILENCE_MS_MAX: u64 = 3_000;
/// Acknowledgements on their way.
const ACKS_MAX: usize = 64;
/// Files and bytes of one snapshot, at most.
const SNAPSHOT_FILES_MAX: usize = 100_000;
const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;

fn silent() -> Error {
    Error::Unreachable(format!("silent for {SILENCE_MS_MAX} ms"))
}

/// The next message, or an error where there is none in time.
pub async fn next<T>(replies: &mut tonic::Streaming<T>) -> Result<Option<T>, Error> {
    let message = clock::within(SILENCE_MS_MAX, replies.message()).await;
    Ok(message.ok_or_else(silent)??)
}

/// Applies the leader's log until something ends it.
pub async fn follow(
    shared: &Arc<Shared>,
    replica: &Arc<Replica>,
    leader: &Leader,
    mut client: Client,
) -> Result<(), Error> {
    let (acks, outgoing) = mpsc::channel(ACKS_MAX);
    // What the last leader sent is applied or never will be: only then is it known where the log ends.
    drop(replica.turn().await);
    let store = replica.store();
    let seq = store.seq();
    let open = g::FollowOpen {
        shard: replica.shard.0,
        node: replica.me.to_string(),
        epoch: shared.epoch(),
        token: leader.token,
        last_token: replica.terms().token_at(seq),
        seq,
        migration: 0,
    };
    let open = g::FollowRequest {
        open: Some(open),
        acked_seq: seq,
    };
    let gone = |_| Error::Unreachable("the stream has ended".to_owned());
    acks.send(open).await.map_err(gone)?;
    let replies = client.follow(ReceiverStream::new(outgoing));
    let replies = clock::within(SILENCE_MS_MAX, replies).await;
    let mut replies = replies.ok_or_else(silent)??.into_inner();
    let mut first = true;
    // Where the leader's log ended when the stream began.
    let mut goal = u64::MAX;
    while let Some(reply) = next(&mut replies).await? {
        replica.hear(reply.token)?;
        if reply.epoch > shared.epoch() {
            shared.refresh().await?;
        }
        let head = reply.through_seq;
        replica.on_leader_head(head);
        let terms = if first {
            goal = head;
            Some(Terms::of_wire(&reply.terms)?)
        } else {
            None
        };
        first = false;
        let records = reply.records.into_iter().map(log_record_in);
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let (mine, store) = (Arc::clone(replica), Arc::clone(&store));
        let turn = replica.turn().await;
        let seq = blocking(move || {
            let _turn = turn;
            if let Some(terms) = terms {
                mine.set_terms(terms)?;
            }
            if records.is_empty() {
                Ok(store.seq())
            } else {
                Ok(store.apply(records)?)
            }
        })
        .await?;
        replica.on_head(seq);
        // One that never had all answers nobody, however little it lacks.
        let near = head.saturating_sub(seq) <= LAG_RECORDS_MAX;
        replica.set_caught_up(near && (seq >= goal || replica.is_caught_up()));
        let ack = g::FollowRequest {
            open: None,
            acked_seq: seq,
        };
        acks.send(ack).await.map_err(gone)?;
    }
    Err(Error::Unreachable("the leader ended the stream".to_owned()))
}

/// Puts the leader's snapshot in place of what is here.
pub async fn snapshot(
    replica: &Arc<Replica>,
    leader: &Leader,
    mut client: Client,
) -> Result<(), Error> {
    let request = g::SnapshotRequest {
        shard: replica.shard.0,
        node: replica.me.to_string(),
        token: leader.token,
    };
    let mut replies = client.snapshot(request).await?.into_inner();
    let folder = replica.scratch("in")?;
    let mut files = Incoming::new(folder.clone());
    let mut terms = None;
    // A large snapshot is made before its first byte is sent: the first message says that it begins.
    while let Some(reply) = next(&mut replies).await? {
        replica.hear(reply.token)?;
        if terms.is_none() {
            terms = Some(Terms::of_wire(&reply.terms)?);
        }
        if reply.path.is_empty() && reply.total_bytes == 0 {
            continue;
        }
        let ends = reply.path.is_empty();
        files = blocking(move || {
            if ends {
                files.finish(reply.total_bytes)?;
            } else {
                files.put(&reply)?;
            }
            Ok(files)
        })
        .await?;
        if ends {
            let terms = terms.unwrap_or_default();
            let mine = Arc::clone(replica);
            let turn = replica.turn().await;
            return blocking(move || {
                let _turn = turn;
                mine.replace(&folder, terms)?;
                crate::files::remove_dir(&folder).map_err(Error::io(&folder))
            })
            .await;
        }
    }
    Err(Error::Peer("a snapshot without an end".to_owned()))
}

/// Files of a snapshot as they come.
struct Incoming {
    folder: PathBuf,
    open: Option<(String, File)>,
    files: usize,
    total_bytes: u64,
    offset: u64,
}

impl Incoming {
    const fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: None,
            files: 0,
            total_bytes: 0,
            offset: 0,
        }
    }

    fn put(&mut self, reply: &g::SnapshotReply) -> Result<(), Error> {
        let peer = |what: &str| Error::Peer(format!("a snapshot with {what}"));
        if crc32c::crc32c(&reply.bytes) != reply.crc {
            return Err(peer("a wrong checksum"));
        }
        self.total_bytes += reply.bytes.len() as u64;
        if self.total_bytes > SNAPSHOT_BYTES_MAX {
            return Err(peer("too many bytes"));
        }
        let is_open = self
            .open
            .as_ref()
            .is_some_and(|(path, _)| *path == reply.path);
        if !is_open {
            self.close()?;
            self.files += 1;
            if self.files > SNAPSHOT_FILES_MAX {
                return Err(peer("too many files"));
            }
            let relative = Path::new(&reply.path);
            let inside = relative
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            if !inside {
                return Err(peer("a path that leads out of it"));
            }
            let path = self.folder.join(relative);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(Error::io(parent))?;
            }
            let file = File::create_new(&path).map_err(Error::io(&path))?;
            self.open = Some((reply.path.clone(), file));
            self.offset = 0;
        }
        if reply.offset != self.offset {
            return Err(peer("a gap"));
        }
        self.offset += reply.bytes.len() as u64;
        match &mut self.open {
            Some((path, file)) => file
                .write_all(&reply.bytes)
                .map_err(Error::io(Path::new(path))),
            None => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), Error> {
        match self.open.take() {
            Some((path, file)) => file.sync_all().map_err(Error::io(Path::new(&path))),
            None => Ok(()),
        }
    }

    fn finish(&mut self, total_bytes: u64) -> Result<(), Error> {
        self.close()?;
        if total_bytes != self.total_bytes {
            return Err(Error::Peer("a snapshot that was cut short".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(path: &str, offset: u64, bytes: &[u8]) -> g::SnapshotReply {
        g::SnapshotReply {
            path: path.to_owned(),
            offset,
            bytes: bytes.to_vec(),
            crc: crc32c::crc32c(bytes),
            ..Default::default()
        }
    }

    #[test]
    fn a_snapshot_arrives_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let put = |chunks: &[g::SnapshotReply], total| {
            let folder = tempfile::tempdir_in(dir.path()).unwrap().keep();
            let mut files = Incoming::new(folder.clone());
            chunks.iter().try_for_each(|chunk| files.put(chunk))?;
            files.finish(total)?;
            Ok::<_, Error>(folder)
        };
        let good = [
            chunk("a", 0, b"one"),
            chunk("a", 3, b"two"),
            chunk("sub/b", 0, b"three"),
        ];
        let folder = put(&good, 11).unwrap();
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"onetwo");
        assert_eq!(fs::read(folder.join("sub/b")).unwrap(), b"three");

        let mut wrong = chunk("a", 0, b"one");
        wrong.crc ^= 1;
        let cases = [
            (vec![wrong], 3, "checksum"),
            (vec![chunk("../a", 0, b"one")], 3, "leads out"),
            (vec![chunk("/a", 0, b"one")], 3, "leads out"),
            (vec![chunk("a", 1, b"one")], 3, "gap"),
            (vec![chunk("a", 0, b"one")], 4, "cut short"),
        ];
        for (chunks, total, want) in cases {
            let error = put(&chunks, total).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let twice = [
            chunk("a", 0, b"one"),
            chunk("b", 0, b"x"),
            chunk("a", 0, b"y"),
        ];
        assert_eq!(put(&twice, 5).unwrap_err().code(), "shard_io");
    }
}
