//! Accepted events, on disk before the client hears of it, until the origin has them.
//!
//! Invariants: [`Spool::append`] returns `Ok` only after the events are synced; sequences are dense
//! and never used twice; what is not acknowledged is there again after a crash, in order, whatever
//! became of the tail that was being written. Bounded by count and bytes: beyond them `append`
//! refuses and nothing is lost.

mod segment;
mod writer;

use parking_lot::Mutex;
use skerry_types::Event;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::{Notify, oneshot};

/// Appends that may wait for the writer, at most.
const WAITING_MAX: usize = 1_024;

/// Bounds of a spool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Unacknowledged events, at most. They are held in memory too.
    pub events_max: usize,
    /// Their encoded bytes, at most.
    pub bytes_max: u64,
    /// A segment file is closed beyond this many bytes.
    pub segment_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            events_max: 1_000_000,
            bytes_max: 256 << 20,
            segment_bytes: 16 << 20,
        }
    }
}

/// Why events were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    #[error("the spool is full: the origin has been away for too long")]
    Full,
    #[error("the disk is too slow or gone")]
    Busy,
    #[error("the event does not fit into the spool")]
    Large,
    #[error("the disk refuses the write")]
    Disk,
}

impl SpoolError {
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Full => "spool_full",
            Self::Busy => "spool_busy",
            Self::Large => "spool_event_large",
            Self::Disk => "spool_disk",
        }
    }
}

/// An event with the key of the context that it belongs to.
#[derive(Debug, Clone)]
pub struct Pending {
    pub subject: Arc<str>,
    pub event: Arc<Event>,
}

/// What opening a spool found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Events that wait for the origin.
    pub events: usize,
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    /// Files with damage in their middle, kept as `*.corrupt`; their intact records are used.
    pub corrupt_files: usize,
}

/// The spool. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

struct Shared {
    index: Mutex<Index>,
    writer: Mutex<Option<(SyncSender<Job>, JoinHandle<()>)>>,
    changed: Notify,
    limits: Limits,
    dir: PathBuf,
}

/// What waits for the origin, in memory.
struct Index {
    /// Ascending by sequence; with gaps only where a file was damaged.
    waiting: VecDeque<Waiting>,
    by_subject: HashMap<Arc<str>, VecDeque<u64>>,
    acked: u64,
    /// Of the waiting events and of those that the writer has in hand.
    events: usize,
    bytes: u64,
}

struct Waiting {
    seq: u64,
    pending: Pending,
    bytes: u32,
}

/// One append on its way to the disk.
struct Job {
    events: Vec<Pending>,
    payloads: Vec<Vec<u8>>,
    bytes: u64,
    done: oneshot::Sender<Result<(), SpoolError>>,
}

impl Spool {
    /// Opens the folder, recovers what it holds and starts the writer.
    pub fn open(dir: &Path, limits: Limits) -> io::Result<(Self, Recovered)> {
        std::fs::create_dir_all(dir)?;
        let (index, recovered, segments) = writer::recover(dir)?;
        let shared = Arc::new(Shared {
            index: Mutex::new(index),
            writer: Mutex::new(None),
            changed: Notify::new(),
            limits,
            dir: dir.to_owned(),
        });
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let weak = Arc::downgrade(&shared);
        let dir = dir.to_owned();
        let thread = std::thread::Builder::new()
            .name("skerry-spool".into())
            .spawn(move || writer::run(&dir, limits, segments, &queue, &weak))?;
        *shared.writer.lock() = Some((jobs, thread));
        Ok((Self { shared }, recovered))
    }

    /// Durable when it returns `Ok`.
    pub async fn append(&self, events: Vec<Pending>) -> Result<(), SpoolError> {
        if events.is_empty() {
            return Ok(());
        }
        let payloads = events
            .iter()
            .map(writer::payload)
            .collect::<Option<Vec<_>>>()
            .ok_or(SpoolError::Large)?;
        let bytes: u64 = payloads.iter().map(|payload| payload.len() as u64).sum();
        let count = events.len();
        self.reserve(count, bytes)?;
        let (done, answer) = oneshot::channel();
        let sent = match &*self.shared.writer.lock() {
            Some((jobs, _)) => jobs.try_send(Job {
                events,
                payloads,
                bytes,
                done,
            }),
            None => Err(TrySendError::Disconnected(Job {
                events,
                payloads,
                bytes,
                done,
            })),
        };
        if sent.is_err() {
            self.shared.index.lock().release(count, bytes);
            return Err(SpoolError::Busy);
        }
        // The writer gives the reservation back where it fails.
        answer.await.unwrap_or(Err(SpoolError::Disk))
    }

    fn reserve(&self, count: usize, bytes: u64) -> Result<(), SpoolError> {
        let mut index = self.shared.index.lock();
        let limits = &self.shared.limits;
        if index.events + count > limits.events_max || index.bytes + bytes > limits.bytes_max {
            return Err(SpoolError::Full);
        }
        index.events += count;
        index.bytes += bytes;
        Ok(())
    }

    /// The subject's events that the origin has not acknowledged, in order.
    #[must_use]
    pub fn pending(&self, subject: &str) -> Vec<Arc<Event>> {
        let index = self.shared.index.lock();
        let Some(seqs) = index.by_subject.get(subject) else {
            return Vec::new();
        };
        seqs.iter()
            .filter_map(|seq| index.get(*seq))
            .map(|pending| pending.event.clone())
            .collect()
    }

    /// Subjects with events that the origin has not acknowledged.
    #[must_use]
    pub fn subjects(&self) -> Vec<Arc<str>> {
        self.shared
            .index
            .lock()
            .by_subject
            .keys()
            .cloned()
            .collect()
    }

    /// Up to `events_max` events after sequence `after`, and the sequence of the last of them.
    #[must_use]
    pub fn after(
        &self,
        after: u64,
        events_max: usize,
        bytes_max: u64,
    ) -> Option<(u64, Vec<Arc<Event>>)> {
        let index = self.shared.index.lock();
        let skip = index
            .waiting
            .partition_point(|waiting| waiting.seq <= after);
        let (mut last, mut bytes, mut events) = (after, 0, Vec::new());
        for waiting in index.waiting.iter().skip(skip).take(events_max) {
            bytes += u64::from(waiting.bytes);
            if bytes > bytes_max && !events.is_empty() {
                break;
            }
            events.push(waiting.pending.event.clone());
            last = waiting.seq;
        }
        (!events.is_empty()).then_some((last, events))
    }

    /// The origin has everything up to `seq`.
    pub fn ack(&self, seq: u64) {
        self.shared.index.lock().ack(seq);
        // Room for what waits to be sent.
        self.shared.changed.notify_one();
    }

    /// Sequence of the last acknowledged event.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.shared.index.lock().acked
    }

    /// Events that wait for the origin.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.shared.index.lock().waiting.len()
    }

    /// Waits until something is appended or acknowledged. For one waiter.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Remembers what is acknowledged and removes files that hold nothing else. Blocks.
    pub fn tidy(&self) -> io::Result<()> {
        writer::tidy(&self.shared.dir, self.acked())
    }

    /// Ends the writer after what it has in hand. Blocks.
    pub fn close(&self) {
        let writer = self.shared.writer.lock().take();
        if let Some((jobs, thread)) = writer {
            drop(jobs);
            let _ = thread.join();
        }
        let _ = self.tidy();
    }
}

impl Index {
    fn get(&self, seq: u64) -> Option<&Pending> {
        let at = self
            .waiting
            .binary_search_by_key(&seq, |waiting| waiting.seq)
            .ok()?;
        self.waiting.get(at).map(|waiting| &waiting.pending)
    }

    fn push(&mut self, seq: u64, pending: Pending, bytes: usize) {
        self.by_subject
            .entry(pending.subject.clone())
            .or_default()
            .push_back(seq);
        self.waiting.push_back(Waiting {
            seq,
            pending,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        });
    }

    fn release(&mut self, count: usize, bytes: u64) {
        self.events = self.events.saturating_sub(count);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn ack(&mut self, seq: u64) {
        while let Some(first) = self.waiting.pop_front_if(|first| first.seq <= seq) {
            self.acked = first.seq;
            self.release(1, u64::from(first.bytes));
            if let Some(seqs) = self.by_subject.get_mut(&first.pending.subject) {
                seqs.pop_front();
                if seqs.is_empty() {
                    self.by_subject.remove(&first.pending.subject);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
