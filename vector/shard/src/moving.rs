//! Slots on their way from one shard to another, while both serve.
//!
//! The leader of the shard that they move *to* pulls: it takes out what an earlier attempt left, copies
//! the records page by page, follows the log from before the copy, and is waited for by writes once it
//! has caught up (dual write). The leader of the shard that they move *from* ends it: both sides read what
//! they hold, it shuts its gate, so that no write is under way, waits until the receiver has the whole log,
//! compares counts and hashes, and flips the table. Then each side sweeps what is no longer its own.
//!
//! Invariants: slots change hands in one compare-and-swap, which fails where either leader has changed
//! or the table has; the gate stays shut until the outcome of that swap is known. A kill at any step
//! leaves the old table, and the copy begins afresh, or the new one, and the sweep goes on. One task
//! sweeps and receives, in turns: a sweep never meets a copy.

use crate::clock;
use crate::coordination::CoordinationError;
use crate::error::Error;
use crate::follow::next;
use crate::lead::{Leading, MoveStats, Writes, commit};
use crate::node::Shared;
use crate::peers::Client;
use crate::replica::{Replica, blocking};
use crate::slots::slot_of;
use crate::table::{Migration, ShardId, ShardTable};
use crate::wire::{self, grpc as g, log_record_in, record_in};
use skerry_vector_index::Write;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

mod giving;
pub mod verify;

/// Records that one sweep of a page takes out.
const SWEEP_RECORDS: usize = 1_000;
/// How long after a failed attempt the next one begins, in milliseconds.
const RETRY_MS: u64 = 500;
/// Acknowledgements on their way.
const ACKS_MAX: usize = 64;

/// Lives as long as the lead: sweeps, receives, gives.
pub async fn run(
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    leading: Arc<Leading>,
    ended: CancellationToken,
) {
    let work = Work {
        shared,
        replica,
        leading,
    };
    tokio::join!(work.receive_and_sweep(&ended), work.give(&ended));
}

struct Work {
    shared: Arc<Shared>,
    replica: Arc<Replica>,
    leading: Arc<Leading>,
}

/// A migration of the table that concerns this shard, on one side or the other.
fn concerning(
    table: &ShardTable,
    id: impl Fn(&Migration) -> ShardId,
    shard: ShardId,
) -> Option<Migration> {
    table
        .migration()
        .filter(|migration| id(migration) == shard)
        .cloned()
}

impl Work {
    fn table(&self) -> Option<Arc<ShardTable>> {
        self.shared.view().map(|view| Arc::clone(&view.table))
    }

    fn receiving(&self) -> Option<Migration> {
        concerning(self.table()?.as_ref(), |m| m.to, self.replica.shard)
    }

    fn giving(&self) -> Option<Migration> {
        concerning(self.table()?.as_ref(), |m| m.from, self.replica.shard)
    }

    fn note(&self, change: impl FnOnce(&mut MoveStats)) {
        change(&mut self.leading.moved.lock());
    }

    async fn receive_and_sweep(&self, ended: &CancellationToken) {
        let mut views = self.shared.views.subscribe();
        let mut swept = None;
        while !ended.is_cancelled() {
            let slots = |table: &ShardTable| {
                let entry = table.shard(self.replica.shard);
                entry.map(|shard| shard.slots.clone())
            };
            views.borrow_and_update();
            let table = self.table();
            let done = match (&table, self.receiving()) {
                (Some(_), Some(migration)) => {
                    swept = None;
                    self.attempt(&migration, ended).await
                }
                (Some(table), None) if swept != slots(table) => {
                    let done = self.sweep(table, None, ended).await;
                    if done.is_ok() {
                        swept = slots(table);
                        self.note(|stats| *stats = MoveStats::default());
                    }
                    done
                }
                _ => {
                    tokio::select! {
                        () = ended.cancelled() => {}
                        _ = views.changed() => {}
                    }
                    continue;
                }
            };
            if let Err(error) = done {
                tracing::warn!(shard = %self.replica.shard, code = error.code(), %error, "moving slots: begins again");
                clock::sleep_ms(RETRY_MS).await;
            }
        }
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), Error> {
        let open = Arc::clone(&self.leading.gate).read_owned().await;
        let coordination = &self.shared.options.coordination;
        commit(
            &self.replica,
            &self.leading,
            coordination,
            Writes::Copied(writes),
            open,
        )
        .await?;
        Ok(())
    }

    /// Takes out records in slots that are not this shard's: those of `of` where it is given, else all.
    async fn sweep(
        &self,
        table: &Arc<ShardTable>,
        of: Option<&Migration>,
        ended: &CancellationToken,
    ) -> Result<(), Error> {
        let shard = self.replica.shard;
        let (table, of) = (Arc::clone(table), of.cloned());
        let foreign = Arc::new(move |id: &str| {
            let slot = slot_of(id);
            let mine = table
                .shard(shard)
                .is_none_or(|shard| shard.slots.contains(slot));
            let meant = of
                .as_ref()
                .is_none_or(|migration| migration.slots.contains(slot));
            !mine && meant
        });
        let mut total = 0;
        let mut after: Option<Box<str>> = None;
        loop {
            if ended.is_cancelled() {
                return Err(Error::NotLeader(shard));
            }
            let (store, foreign) = (self.replica.store(), Arc::clone(&foreign));
            let page = blocking(move || {
                let keep = |id: &str| foreign(id);
                Ok(store.scan(after.as_deref(), SWEEP_RECORDS, &keep)?)
            })
            .await?;
            total += page.records.len();
            let deletes = page.records.into_iter();
            let deletes: Vec<Write> = deletes.map(|record| Write::Delete(record.id)).collect();
            if !deletes.is_empty() {
                self.write(deletes).await?;
            }
            if page.next.is_none() {
                if total > 0 {
                    tracing::info!(%shard, records = total, "swept what is not this shard's");
                }
                return Ok(());
            }
            after = page.next;
        }
    }

    fn stands(&self, migration: &Migration, ended: &CancellationToken) -> bool {
        !ended.is_cancelled() && self.receiving().is_some_and(|now| now.id == migration.id)
    }

    /// One attempt, from the beginning; ends well when the migration is over.
    async fn attempt(&self, migration: &Migration, ended: &CancellationToken) -> Result<(), Error> {
        let id = migration.id;
        self.note(|stats| {
            let attempts = if stats.migration == id {
                stats.attempts
            } else {
                0
            };
            *stats = MoveStats {
                migration: id,
                step: "sweep",
                attempts: attempts + 1,
                ..MoveStats::default()
            };
        });
        *self.leading.digest.lock().await = None;
        // Fresh: a flip that was under way when this node took the lead has failed since, or is seen
        // here. What is swept is not this shard's.
        let table = self.shared.refresh().await?;
        if !self.stands(migration, ended) {
            return Ok(());
        }
        self.sweep(&table, Some(migration), ended).await?;
        let view = self.shared.view().ok_or(CoordinationError::NoTable)?;
        let giver = view
            .leader(migration.from)
            .ok_or(Error::NotLeader(migration.from))?;
        let addr = view.addr(&giver.node);
        let addr =
            addr.ok_or_else(|| Error::Unreachable(format!("{} has no address", giver.node)))?;
        let client = self.shared.peers.client(addr)?;
        self.note(|stats| stats.step = "copy");
        let Some(from_seq) = self.copy(migration, client.clone(), ended).await? else {
            return Ok(());
        };
        self.note(|stats| stats.step = "tail");
        let tailed = self.tail(migration, client, from_seq, ended).await;
        // The end of the migration ends the stream: that is no error.
        if tailed.is_err() {
            let _ = self.shared.refresh().await;
        }
        if self.stands(migration, ended) {
            tailed
        } else {
            Ok(())
        }
    }

    /// The records as they are, and the number from which the log has the rest.
    async fn copy(
        &self,
        migration: &Migration,
        mut client: Client,
        ended: &CancellationToken,
    ) -> Result<Option<u64>, Error> {
        let request = g::ScanRequest {
            shard: migration.from.0,
            epoch: self.shared.epoch(),
            token: self.leading.lease.token,
            migration: migration.id,
        };
        let mut replies = client.scan(request).await?.into_inner();
        let mut from_seq = None;
        while let Some(reply) = next(&mut replies).await? {
            if !self.stands(migration, ended) {
                return Ok(None);
            }
            let from = *from_seq.get_or_insert(reply.from_seq);
            let records = reply.records.into_iter();
            let writes = records.map(|record| Ok(Write::Upsert(record_in(record)?)));
            let writes = writes.collect::<Result<Vec<_>, Error>>()?;
            let count = writes.len() as u64;
            if count > 0 {
                self.write(writes).await?;
            }
            self.note(|stats| {
                stats.copied += count;
                stats.copy_total = reply.records_total.max(stats.copied);
            });
            if reply.last {
                self.note(|stats| stats.copy_total = stats.copied);
                return Ok(Some(from));
            }
        }
        Err(Error::Peer("a scan without an end".to_owned()))
    }

    async fn tail(
        &self,
        migration: &Migration,
        mut client: Client,
        from_seq: u64,
        ended: &CancellationToken,
    ) -> Result<(), Error> {
        let (acks, outgoing) = mpsc::channel(ACKS_MAX);
        let open = g::FollowOpen {
            shard: migration.from.0,
            node: self.replica.me.to_string(),
            epoch: self.shared.epoch(),
            token: self.leading.lease.token,
            last_token: 0,
            seq: from_seq,
            migration: migration.id,
        };
        let open = g::FollowRequest {
            open: Some(open),
            acked_seq: from_seq,
        };
        let gone = |_| Error::Unreachable("the stream has ended".to_owned());
        acks.send(open).await.map_err(gone)?;
        let replies = client.follow(ReceiverStream::new(outgoing)).await?;
        let mut replies = replies.into_inner();
        let mut token = None;
        while let Some(reply) = next(&mut replies).await? {
            if !self.stands(migration, ended) {
                return Ok(());
            }
            // Another leader's log may differ from the one that was copied.
            if *token.get_or_insert(reply.token) != reply.token {
                return Err(Error::NotLeader(migration.from));
            }
            if reply.terms.is_empty() {
                let writes = last_of_each(reply.records)?;
                if !writes.is_empty() {
                    self.write(writes).await?;
                }
                let ack = g::FollowRequest {
                    open: None,
                    acked_seq: reply.through_seq,
                };
                acks.send(ack).await.map_err(gone)?;
            }
        }
        Err(Error::Unreachable(
            "the giving leader ended the stream".to_owned(),
        ))
    }
}

/// The last write of each id, in order: a batch has no id twice.
fn last_of_each(records: Vec<g::LogRecord>) -> Result<Vec<Write>, Error> {
    let records = records.into_iter().map(log_record_in);
    let records = records.collect::<Result<Vec<_>, _>>()?;
    let last: HashMap<Box<str>, u64> = records
        .iter()
        .map(|record| (wire::id_of(&record.write).into(), record.seq))
        .collect();
    let kept = records
        .into_iter()
        .filter(|record| last.get(wire::id_of(&record.write)) == Some(&record.seq));
    Ok(kept.map(|record| record.write).collect())
}

/// Gives a migration up.
pub async fn abort(shared: &Shared, migration: u64) -> Result<Arc<ShardTable>, Error> {
    let table = shared.refresh().await?;
    let draft = table.abort(migration)?;
    let table = shared
        .coordination()
        .compare_and_swap(draft, Vec::new())
        .await?;
    shared.adopt(&table);
    Ok(table)
}
