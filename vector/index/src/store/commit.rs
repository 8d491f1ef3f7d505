//! The way of a write: checked and encoded by its caller, logged with all that wait by one thread,
//! applied, acknowledged.
//!
//! Invariants: nothing is logged that was not checked whole; nothing is visible or acknowledged
//! before it is on disk; sequence numbers follow the log; whoever waits gets an answer, whatever ends
//! the thread.

use super::error::StoreError;
use super::log::Log;
use super::memory::{Memory, Places};
use super::shared::Shared;
use super::{BATCH_BYTES_MAX, Committed, LogRecord, SEQ_MAX, codec, score};
use crate::{BATCH_MAX, ID_BYTES_MAX, IndexError, Spec, Write};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Batches that may wait to be logged, and their bytes.
const QUEUE_BATCHES_MAX: usize = 1_024;
const QUEUE_BYTES_MAX: usize = 128 << 20;
/// Batches are logged together until they have so many bytes.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A batch that has been checked.
pub struct Batch {
    writes: Vec<Write>,
    body: Vec<u8>,
    /// Where the bytes of each write end in the body.
    ends: Vec<usize>,
    /// The sequence number that the leader gave the first write; ours to give where there is none.
    first: Option<u64>,
}

struct Job {
    batch: Batch,
    reply: SyncSender<Result<Committed, StoreError>>,
}

#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub fn push(
        &self,
        batch: Batch,
    ) -> Result<Receiver<Result<Committed, StoreError>>, StoreError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(StoreError::Stopped);
        }
        let bytes = waiting.bytes + batch.body.len();
        let batches = waiting.jobs.len();
        // One batch always fits into an empty queue.
        if batches >= QUEUE_BATCHES_MAX || (batches > 0 && bytes > QUEUE_BYTES_MAX) {
            return Err(StoreError::Full {
                batches,
                bytes: waiting.bytes,
            });
        }
        let (reply, answer) = sync_channel(1);
        waiting.bytes = bytes;
        waiting.jobs.push_back(Job { batch, reply });
        drop(waiting);
        self.filled.notify_one();
        Ok(answer)
    }

    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_all();
    }

    /// What is logged together next; nothing once the queue is closed and empty.
    fn take(&self) -> Option<Vec<Job>> {
        let mut waiting = self.waiting.lock();
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return None;
            }
            self.filled.wait(&mut waiting);
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(job) = waiting.jobs.front() {
            bytes += job.batch.body.len();
            if bytes > GROUP_BYTES_MAX && !group.is_empty() {
                break;
            }
            group.extend(waiting.jobs.pop_front());
        }
        let taken: usize = group.iter().map(|job| job.batch.body.len()).sum();
        waiting.bytes -= taken;
        Some(group)
    }
}

/// Checks a batch of a client: nothing of it is logged unless all of it is right.
pub fn check(spec: &Spec, writes: Vec<Write>) -> Result<Batch, StoreError> {
    check_as(spec, writes, score::prepare)
}

/// [`check`] for what another collection holds: its vectors are taken as they are.
pub fn check_copy(spec: &Spec, writes: Vec<Write>) -> Result<Batch, StoreError> {
    check_as(spec, writes, score::round)
}

fn check_as(
    spec: &Spec,
    mut writes: Vec<Write>,
    prepare: fn(&Spec, &mut [f32]),
) -> Result<Batch, StoreError> {
    if writes.len() > BATCH_MAX {
        return Err(IndexError::TooManyWrites { got: writes.len() }.into());
    }
    let mut ids = HashSet::with_capacity(writes.len());
    for write in &writes {
        check_write(spec, write)?;
        if !ids.insert(id_of(write)) {
            let id = id_of(write).into();
            return Err(IndexError::DuplicateId { id }.into());
        }
    }
    for write in &mut writes {
        if let Write::Upsert(record) = write {
            prepare(spec, &mut record.vector);
        }
    }
    encode(writes, None)
}

/// Checks what a leader has logged: its vectors are taken as they are.
pub fn check_records(spec: &Spec, records: Vec<LogRecord>) -> Result<Option<Batch>, StoreError> {
    let Some(first) = records.first().map(|record| record.seq) else {
        return Ok(None);
    };
    if first > SEQ_MAX - records.len() as u64 {
        return Err(StoreError::Gap {
            last: 0,
            got: first,
        });
    }
    let mut writes = Vec::with_capacity(records.len());
    for (place, record) in (first..).zip(records) {
        if record.seq != place || place == 0 {
            return Err(StoreError::Gap {
                last: place.saturating_sub(1),
                got: record.seq,
            });
        }
        check_write(spec, &record.write)?;
        writes.push(record.write);
    }
    for write in &mut writes {
        if let Write::Upsert(record) = write {
            score::round(spec, &mut record.vector);
        }
    }
    encode(writes, Some(first)).map(Some)
}

fn id_of(write: &Write) -> &str {
    match write {
        Write::Upsert(record) => &record.id,
        Write::Delete(id) => id,
    }
}

fn check_write(spec: &Spec, write: &Write) -> Result<(), StoreError> {
    let id = id_of(write);
    if !(1..=ID_BYTES_MAX).contains(&id.len()) {
        return Err(IndexError::IdLength(id.len()).into());
    }
    if let Write::Upsert(record) = write {
        score::check(spec, id, &record.vector)?;
    }
    Ok(())
}

fn encode(writes: Vec<Write>, first: Option<u64>) -> Result<Batch, StoreError> {
    let mut body = Vec::new();
    let mut ends = Vec::with_capacity(writes.len());
    for write in &writes {
        codec::put_write(&mut body, write)?;
        ends.push(body.len());
        if body.len() > BATCH_BYTES_MAX {
            return Err(StoreError::BatchBytes { bytes: body.len() });
        }
    }
    Ok(Batch {
        writes,
        body,
        ends,
        first,
    })
}

/// Lets go of all who wait, should the thread end before its time.
struct Release<'a>(&'a Queue);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.waiting.lock().jobs.clear();
    }
}

/// Takes groups until the queue is closed and empty.
pub fn run(shared: &Shared) {
    let _release = Release(&shared.queue);
    while let Some(group) = shared.queue.take() {
        match wait_for_room(shared) {
            Ok(()) => commit(shared, group),
            Err(error) => group.iter().for_each(|job| answer(job, Err(error.clone()))),
        }
    }
}

/// Waits while too much waits to be sealed. Fails where sealing fails: memory would fill.
fn wait_for_room(shared: &Shared) -> Result<(), StoreError> {
    if !shared.options.background {
        return Ok(());
    }
    let mut bell = shared.bell.lock();
    while shared.memory.view.load().frozen().len() > shared.options.frozen_max
        && !shared.is_stopping()
    {
        if let Some(error) = shared.faults.lock().sealing.clone() {
            return Err(error);
        }
        shared.changed.wait(&mut bell);
    }
    Ok(())
}

/// A batch that has its sequence numbers and places.
struct Accepted {
    job: Job,
    /// Writes at its front that were applied before.
    repeats: usize,
    places: Vec<Places>,
}

impl Accepted {
    fn body(&self) -> &[u8] {
        let batch = &self.job.batch;
        let from = self.repeats.checked_sub(1);
        let from = from.and_then(|at| batch.ends.get(at)).copied();
        batch.body.get(from.unwrap_or(0)..).unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.job.batch.writes.len() - self.repeats
    }
}

fn commit(shared: &Shared, group: Vec<Job>) {
    let mut log = shared.state.lock();
    let mut last = shared.memory.applied();
    let first = last + 1;
    let mut accepted = Vec::with_capacity(group.len());
    for job in group {
        match accept(shared, &log, &job.batch, last) {
            Ok((repeats, places)) => {
                let one = Accepted {
                    job,
                    repeats,
                    places,
                };
                last += one.count() as u64;
                accepted.push(one);
            }
            Err(error) => answer(&job, Err(error)),
        }
    }
    if last >= first {
        let bodies: Vec<&[u8]> = accepted.iter().map(Accepted::body).collect();
        let count = u32::try_from(last + 1 - first).unwrap_or(u32::MAX);
        if let Err(error) = log.append(first, count, &bodies.concat()) {
            drop(log);
            for one in accepted {
                answer(&one.job, Err(error.clone()));
            }
            return;
        }
    }
    let answers = shared.memory.writing(|| apply(&shared.memory, accepted));
    drop(log);
    shared.ring();
    for (job, committed) in answers {
        answer(&job, Ok(committed));
    }
}

/// How many writes are repeats, and where the others' ids are.
fn accept(
    shared: &Shared,
    log: &Log,
    batch: &Batch,
    last: u64,
) -> Result<(usize, Vec<Places>), StoreError> {
    log.check()?;
    let mut repeats = 0;
    if let Some(first) = batch.first {
        if first > last + 1 {
            return Err(StoreError::Gap { last, got: first });
        }
        repeats = usize::try_from(last + 1 - first).unwrap_or(usize::MAX);
        repeats = repeats.min(batch.writes.len());
    }
    let view = shared.memory.view.load();
    let news = batch.writes.iter().skip(repeats);
    let places: Result<Vec<Places>, StoreError> = news
        .map(|write| Memory::places(&view, id_of(write)))
        .collect();
    Ok((repeats, places?))
}

fn apply(memory: &Memory, accepted: Vec<Accepted>) -> Vec<(Job, Committed)> {
    let mut answers = Vec::with_capacity(accepted.len());
    for mut one in accepted {
        let first_seq = memory.applied() + 1;
        let mut seq = first_seq - 1;
        let writes = std::mem::take(&mut one.job.batch.writes);
        for (write, places) in writes.into_iter().skip(one.repeats).zip(&one.places) {
            seq += 1;
            memory.apply(seq, write, places);
        }
        memory.reach(seq);
        let committed = Committed {
            first_seq,
            last_seq: seq,
        };
        answers.push((one.job, committed));
    }
    answers
}

fn answer(job: &Job, result: Result<Committed, StoreError>) {
    // Whoever asked may have gone: the write stays what it is.
    let _ = job.reply.send(result);
}
