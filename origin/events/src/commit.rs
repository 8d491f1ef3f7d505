//! The one writer of the log. Appends queue up; the writer takes all that wait, writes them in one
//! atomic batch, syncs once, tells the consumers, then the callers.

use crate::log::{self, Reader, Record};
use crate::{DEDUPE_MS, Error, IMPORTED, keys};
use fjall::{Database, OwnedWriteBatch as WriteBatch, PersistMode};
use skerry_types::{Event, Millis, TenantId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Events that share one sync, at most (one append may exceed it).
const GROUP_EVENTS_MAX: usize = 8_192;
/// Consumers write what they derived at least this often, in milliseconds.
const FLUSH_MS: u64 = 2_000;
/// Ids that one round of pruning forgets, at most.
const PRUNE_IDS_MAX: usize = 10_000;
const PRUNE_EVERY_MS: u64 = 60_000;

/// What happens to an id that the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is a duplicate: nothing happens.
    Once,
    /// A different content takes its place (imports).
    Upsert,
}

/// What an append did. `seq` is the last position given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    pub seq: u64,
    pub new: usize,
    pub replaced: usize,
    pub duplicate: usize,
    /// Older than the erasure of their user.
    pub erased: usize,
}

/// An event as it was stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub seq: u64,
    pub event: Event,
    /// What stood at this position before an upsert.
    pub replaced: Option<Box<Event>>,
}

/// What follows the log. Called by the writer's thread: quick, and never blocking on the log.
pub trait Consumer: Send + Sync {
    fn apply(&self, reader: &Reader, batch: &[Stored]);
    /// Writes what was derived up to `seq`, the cursor with it.
    fn flush(&self, seq: u64);
}

pub(crate) type Done = Box<dyn FnOnce(Result<Appended, Error>) + Send>;

pub(crate) enum Command {
    Append {
        events: Vec<Event>,
        mode: Mode,
        now: Millis,
        done: Done,
    },
    Erase {
        tenant: TenantId,
        subject: Box<str>,
        now: Millis,
        done: Done,
    },
    Flush {
        done: Done,
    },
}

impl Command {
    pub(crate) fn into_events(self) -> Vec<Event> {
        match self {
            Self::Append { events, .. } => events,
            Self::Erase { .. } | Self::Flush { .. } => Vec::new(),
        }
    }
}

pub(crate) struct Writer {
    db: Database,
    reader: Reader,
    consumers: Vec<Arc<dyn Consumer>>,
    seq: u64,
    counts: HashMap<TenantId, u64>,
    /// Erased users and when, by the key of their name.
    erased: HashMap<Vec<u8>, Millis>,
    flushed_seq: u64,
    flushed_ms: Millis,
    pruned_ms: Millis,
}

/// What one group writes.
struct Group {
    batch: WriteBatch,
    stored: Vec<Stored>,
    /// Ids of this group, which the store does not show yet.
    ids: HashMap<Vec<u8>, u64>,
}

impl Writer {
    pub(crate) fn open(
        db: Database,
        reader: Reader,
        consumers: Vec<Arc<dyn Consumer>>,
    ) -> Result<Self, Error> {
        let mut erased = HashMap::new();
        let seq = reader.last_seq()?;
        let mut counts = HashMap::new();
        for tenant in reader.tenants()? {
            let count = reader.count(&tenant)?;
            for entry in reader.tenants.prefix(log::erased_prefix(&tenant)) {
                let (key, value) = entry.into_inner()?;
                erased.insert(key.to_vec(), log::number(&value));
            }
            counts.insert(tenant, count);
        }
        Ok(Self {
            db,
            reader,
            consumers,
            seq,
            counts,
            erased,
            flushed_seq: seq,
            flushed_ms: 0,
            pruned_ms: 0,
        })
    }

    pub(crate) fn run(&mut self, commands: &Receiver<Command>) {
        let mut waiting = Vec::new();
        loop {
            match commands.recv_timeout(Duration::from_millis(FLUSH_MS)) {
                Ok(Command::Append {
                    events,
                    mode,
                    now,
                    done,
                }) => {
                    let mut size = events.len();
                    waiting.push((events, mode, now, done));
                    let mut other = None;
                    while size < GROUP_EVENTS_MAX {
                        match commands.try_recv() {
                            Ok(Command::Append {
                                events,
                                mode,
                                now,
                                done,
                            }) => {
                                size += events.len();
                                waiting.push((events, mode, now, done));
                            }
                            Ok(command) => {
                                other = Some(command);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.commit(&mut waiting);
                    if let Some(command) = other {
                        self.other(command);
                    }
                }
                Ok(command) => self.other(command),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break self.flush(),
            }
        }
    }

    fn other(&mut self, command: Command) {
        match command {
            Command::Append {
                events,
                mode,
                now,
                done,
            } => self.commit(&mut vec![(events, mode, now, done)]),
            Command::Erase {
                tenant,
                subject,
                now,
                done,
            } => done(self.erase(&tenant, &subject, now)),
            Command::Flush { done } => {
                self.flushed_seq = u64::MAX;
                self.flush();
                done(Ok(Appended {
                    seq: self.seq,
                    ..Appended::default()
                }));
            }
        }
    }

    fn commit(&mut self, waiting: &mut Vec<(Vec<Event>, Mode, Millis, Done)>) {
        let (seq, counts) = (self.seq, self.counts.clone());
        let mut newest = 0;
        let mut answers = Vec::with_capacity(waiting.len());
        let mut group = Group {
            batch: self.db.batch(),
            stored: Vec::new(),
            ids: HashMap::new(),
        };
        let mut failed = None;
        for (events, mode, now, done) in waiting.drain(..) {
            newest = newest.max(now);
            let mut appended = Appended::default();
            if failed.is_none() {
                failed = events
                    .into_iter()
                    .try_for_each(|event| self.stage(event, mode, now, &mut group, &mut appended))
                    .err();
            }
            appended.seq = self.seq;
            answers.push((appended, done));
        }
        let result = match failed {
            Some(error) => Err(error),
            None => self.write(group.batch, !group.stored.is_empty()),
        };
        match result {
            Ok(()) => {
                if !group.stored.is_empty() {
                    for consumer in &self.consumers {
                        consumer.apply(&self.reader, &group.stored);
                    }
                }
                for (appended, done) in answers {
                    done(Ok(appended));
                }
            }
            Err(error) => {
                tracing::error!(%error, "events were not stored");
                (self.seq, self.counts) = (seq, counts);
                for (_, done) in answers {
                    done(Err(error.clone()));
                }
            }
        }
        if newest.saturating_sub(self.flushed_ms) >= FLUSH_MS {
            self.flush();
            self.flushed_ms = newest;
        }
        if newest.saturating_sub(self.pruned_ms) >= PRUNE_EVERY_MS {
            self.pruned_ms = newest;
            if let Err(error) = self.prune(newest) {
                tracing::warn!(%error, "event ids were not pruned");
            }
        }
    }

    /// Adds one event to a group, or finds that there is nothing to do.
    fn stage(
        &mut self,
        event: Event,
        mode: Mode,
        now: Millis,
        group: &mut Group,
        appended: &mut Appended,
    ) -> Result<(), Error> {
        if let Some(subject) = event.subject()
            && !self.erased.is_empty()
            && self
                .erased
                .get(&log::erased_key(&event.tenant, &subject))
                .is_some_and(|erased| event.accepted_ms <= *erased)
        {
            appended.erased += 1;
            return Ok(());
        }
        let id = keys::id(&event.tenant, event.id.as_str());
        let known = match group.ids.get(&id) {
            Some(seq) => Some((*seq, true)),
            None => self
                .reader
                .ids
                .get(&id)?
                .map(|bytes| (log::number(&bytes), false)),
        };
        let (seq, replaced) = match known {
            None => {
                self.seq += 1;
                *self.counts.entry(event.tenant.clone()).or_default() += 1;
                (self.seq, None)
            }
            // Within one group the first of two counts, as it would in two groups without upsert.
            Some((_, true)) => {
                appended.duplicate += 1;
                return Ok(());
            }
            Some((seq, false)) => {
                let old = self.reader.event(&event.tenant, seq)?;
                match old {
                    Some(old) if mode == Mode::Upsert && differs(&old, &event) => {
                        if let Some(key) = keys::by_subject(&old, seq) {
                            group.batch.remove(&self.reader.subjects, key);
                        }
                        (seq, Some(Box::new(old)))
                    }
                    _ => {
                        appended.duplicate += 1;
                        return Ok(());
                    }
                }
            }
        };
        let record = Record {
            stored_ms: now,
            id: event.id.as_str().into(),
            imported: &*event.pop == IMPORTED,
            event: Some(event),
        };
        let bytes = log::encode(&record)?;
        let Some(event) = record.event else {
            return Ok(());
        };
        group
            .batch
            .insert(&self.reader.events, keys::event(&event.tenant, seq), bytes);
        if let Some(key) = keys::by_subject(&event, seq) {
            group.batch.insert(&self.reader.subjects, key, Vec::new());
        }
        group
            .batch
            .insert(&self.reader.ids, id.clone(), seq.to_be_bytes());
        group.ids.insert(id, seq);
        if replaced.is_some() {
            appended.replaced += 1;
        } else {
            appended.new += 1;
        }
        group.stored.push(Stored {
            seq,
            event,
            replaced,
        });
        Ok(())
    }

    fn write(&self, mut batch: WriteBatch, changed: bool) -> Result<(), Error> {
        if !changed {
            return Ok(());
        }
        batch.insert(&self.reader.meta, "seq", self.seq.to_be_bytes());
        for (tenant, count) in &self.counts {
            batch.insert(
                &self.reader.tenants,
                log::count_key(tenant),
                count.to_be_bytes(),
            );
        }
        batch.durability(Some(PersistMode::SyncData)).commit()?;
        Ok(())
    }

    fn erase(&mut self, tenant: &TenantId, subject: &str, now: Millis) -> Result<Appended, Error> {
        let mut batch = self.db.batch();
        let mut erased = 0u64;
        let mut after = 0;
        loop {
            let page = self
                .reader
                .by_user(tenant, subject, after, GROUP_EVENTS_MAX)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (seq, event) in &page {
                let imported = &*event.pop == IMPORTED;
                let stub = Record {
                    stored_ms: now,
                    id: event.id.as_str().into(),
                    imported,
                    event: None,
                };
                batch.insert(
                    &self.reader.events,
                    keys::event(tenant, *seq),
                    log::encode(&stub)?,
                );
                if let Some(key) = keys::by_subject(event, *seq) {
                    batch.remove(&self.reader.subjects, key);
                }
                erased += 1;
            }
        }
        let key = log::erased_key(tenant, subject);
        batch.insert(&self.reader.tenants, key.clone(), now.to_be_bytes());
        let before = self.counts.get(tenant).copied().unwrap_or(0);
        self.counts
            .insert(tenant.clone(), before.saturating_sub(erased));
        self.write(batch, true)?;
        self.erased.insert(key, now);
        Ok(Appended {
            seq: self.seq,
            erased: usize::try_from(erased).unwrap_or(usize::MAX),
            ..Appended::default()
        })
    }

    fn flush(&mut self) {
        if self.flushed_seq != self.seq {
            self.flushed_seq = self.seq;
            for consumer in &self.consumers {
                consumer.flush(self.seq);
            }
        }
    }

    /// Forgets ids that are past [`DEDUPE_MS`], in log order from where the last round ended.
    fn prune(&self, now: Millis) -> Result<(), Error> {
        let mut batch = self.db.batch();
        for tenant in self.counts.keys() {
            let cursor = log::pruned_key(tenant);
            let after = self
                .reader
                .tenants
                .get(&cursor)?
                .map_or(0, |bytes| log::number(&bytes));
            let from = keys::event(tenant, after.saturating_add(1));
            let mut last = after;
            for entry in self
                .reader
                .events
                .range(from..=keys::event(tenant, u64::MAX))
                .take(PRUNE_IDS_MAX)
            {
                let (key, bytes) = entry.into_inner()?;
                let record = log::decode(&key, &bytes)?;
                if !record.imported && record.stored_ms.saturating_add(DEDUPE_MS) > now {
                    break;
                }
                last = keys::seq_of(&key).unwrap_or(last);
                if !record.imported {
                    batch.remove(&self.reader.ids, keys::id(tenant, &record.id));
                }
            }
            if last != after {
                batch.insert(&self.reader.tenants, cursor, last.to_be_bytes());
            }
        }
        Ok(batch.commit()?)
    }
}

/// Whether an upsert has anything to write: acceptance and origin of the record do not count.
fn differs(old: &Event, new: &Event) -> bool {
    (
        &old.kind,
        &old.user,
        &old.session,
        &old.item,
        old.value,
        old.at_ms,
    ) != (
        &new.kind,
        &new.user,
        &new.session,
        &new.item,
        new.value,
        new.at_ms,
    )
}

#[cfg(test)]
mod tests;
