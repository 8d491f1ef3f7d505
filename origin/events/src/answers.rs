//! What was answered and what was shown, for explanations: kept for a day, bounded in bytes, never
//! worth a sync or a wait. Answers are stored as the bytes that went over the wire.

use crate::{Error, keys};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use serde::{Deserialize, Serialize};
use skerry_types::{Millis, TenantId, Uid};
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::frame::{AnswerFrame, AskFrame};
use skerry_wire::value::Exposure;
use skerry_wire::value::exposure::join;
use skerry_wire::value::schema::ANSWERED;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Kept for this long, in milliseconds.
pub const KEPT_MS: Millis = 24 * 3600 * 1000;
/// Answers kept, at most; beyond it the oldest go first.
pub const KEPT_ANSWERS_MAX: u64 = 200_000;
/// Records that may wait for the writer; beyond it they are dropped and counted.
const QUEUE_RECORDS_MAX: usize = 4_096;
/// Records in one write.
const GROUP_RECORDS_MAX: usize = 512;
const IDLE_MS: u64 = 1_000;

/// An answer of this origin, with the question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    pub ask: AskFrame,
    pub answer: AnswerFrame,
    pub at_ms: Millis,
}

/// All that is known of one request.
#[derive(Debug, Clone, Default)]
pub struct Explained {
    pub answered: Option<Answered>,
    pub exposure: Option<Exposure>,
}

enum Write {
    Answer {
        tenant: TenantId,
        request: Uid,
        decision: Uid,
        at: Millis,
        ask: Vec<u8>,
        answer: bytes::Bytes,
    },
    Exposure(Box<Exposure>),
}

/// The store.
pub struct Answers {
    answers: Keyspace,
    decisions: Keyspace,
    exposures: Keyspace,
    queue: SyncSender<Write>,
    dropped: AtomicU64,
}

impl Answers {
    pub fn open(db: &Database, now: Millis) -> Result<Self, Error> {
        let open = |name| db.keyspace(name, KeyspaceCreateOptions::default);
        let (answers, decisions, exposures) = (
            open("answers")?,
            open("answer_decisions")?,
            open("exposures")?,
        );
        let (queue, writes) = sync_channel(QUEUE_RECORDS_MAX);
        let mut writer = Writer {
            db: db.clone(),
            answers: answers.clone(),
            decisions: decisions.clone(),
            exposures: exposures.clone(),
            kept: answers.len()? as u64,
            now,
            swept_ms: 0,
        };
        std::thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || writer.run(&writes))
            .map_err(|error| Error::Store(error.to_string()))?;
        Ok(Self {
            answers,
            decisions,
            exposures,
            queue,
            dropped: AtomicU64::new(0),
        })
    }

    /// Keeps an answer: `ask` and `answer` are encoded frames, without their length. Never waits.
    pub fn answered(
        &self,
        tenant: &TenantId,
        request: Uid,
        decision: Uid,
        at: Millis,
        ask: Vec<u8>,
        answer: bytes::Bytes,
    ) {
        self.push(Write::Answer {
            tenant: tenant.clone(),
            request,
            decision,
            at,
            ask,
            answer,
        });
    }

    /// Keeps what a PoP says it showed. Never waits.
    pub fn exposed(&self, exposure: Exposure) {
        self.push(Write::Exposure(Box::new(exposure)));
    }

    /// Records that were dropped because the writer was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What was shown for a request.
    pub fn exposure(&self, tenant: &TenantId, request: Uid) -> Result<Option<Exposure>, Error> {
        let bytes = self.exposures.get(key(tenant, request))?;
        Ok(bytes.and_then(|bytes| skerry_wire::value::exposure::read(&bytes).ok()))
    }

    /// All that is known of a request: what it showed, and the decision that it was made from.
    pub fn explain(&self, tenant: &TenantId, request: Uid) -> Result<Explained, Error> {
        let exposure = self.exposure(tenant, request)?;
        let mut bytes = self.answers.get(key(tenant, request))?;
        if bytes.is_none()
            && let Some(exposure) = &exposure
            && let Some(original) = self
                .decisions
                .get(key(tenant, exposure.shown.decision_id))?
            && let Ok(original) = <[u8; 16]>::try_from(&*original)
        {
            bytes = self
                .answers
                .get(key(tenant, Uid(u128::from_be_bytes(original))))?;
        }
        let answered = match bytes {
            Some(bytes) => Some(read(&bytes)?),
            None => None,
        };
        Ok(Explained { answered, exposure })
    }

    fn push(&self, write: Write) {
        if self.queue.try_send(write).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn key(tenant: &TenantId, id: Uid) -> Vec<u8> {
    let mut key = keys::tenant_prefix(tenant);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// Time, encoded ask, encoded answer: as they came, so that keeping an answer costs a copy.
fn read(bytes: &[u8]) -> Result<Answered, Error> {
    let corrupt = |reason: String| Error::Corrupt {
        key: "answers".to_owned(),
        reason,
    };
    let (at_ms, ask, answer): (Millis, Vec<u8>, Vec<u8>) =
        decode_as(ANSWERED, bytes).map_err(|error| corrupt(error.to_string()))?;
    Ok(Answered {
        ask: skerry_wire::decode(&ask).map_err(|error| corrupt(error.to_string()))?,
        answer: skerry_wire::decode(&answer).map_err(|error| corrupt(error.to_string()))?,
        at_ms,
    })
}

struct Writer {
    db: Database,
    answers: Keyspace,
    decisions: Keyspace,
    exposures: Keyspace,
    kept: u64,
    now: Millis,
    swept_ms: Millis,
}

impl Writer {
    fn run(&mut self, writes: &Receiver<Write>) {
        loop {
            match writes.recv_timeout(Duration::from_millis(IDLE_MS)) {
                Ok(first) => {
                    let rest = writes.try_iter().take(GROUP_RECORDS_MAX - 1);
                    let group: Vec<Write> = std::iter::once(first).chain(rest).collect();
                    if let Err(error) = self.write(group) {
                        tracing::warn!(%error, "answers were not kept for explanation");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    fn write(&mut self, group: Vec<Write>) -> Result<(), Error> {
        let mut batch = self.db.batch();
        for write in group {
            match write {
                Write::Answer {
                    tenant,
                    request,
                    decision,
                    at,
                    ask,
                    answer,
                } => {
                    self.now = self.now.max(at);
                    let Ok(bytes) = encode_as(ANSWERED, &(at, ask, answer.as_ref())) else {
                        continue;
                    };
                    batch.insert(&self.answers, key(&tenant, request), bytes);
                    batch.insert(
                        &self.decisions,
                        key(&tenant, decision),
                        request.0.to_be_bytes(),
                    );
                    self.kept += 1;
                }
                Write::Exposure(exposure) => {
                    self.now = self.now.max(exposure.at_ms);
                    let Ok(shown) = skerry_wire::encode(&exposure.shown) else {
                        continue;
                    };
                    let bytes = join(
                        exposure.request_id,
                        exposure.at_ms,
                        exposure.from_cache,
                        &shown,
                    );
                    batch.insert(
                        &self.exposures,
                        key(&exposure.shown.tenant, exposure.request_id),
                        bytes,
                    );
                }
            }
        }
        batch.commit()?;
        if self.now.saturating_sub(self.swept_ms) >= 60_000 || self.kept > KEPT_ANSWERS_MAX {
            self.swept_ms = self.now;
            self.sweep()?;
        }
        Ok(())
    }

    /// Removes what is older than a day, and the oldest beyond the bound. Ids are UUIDv7: within a
    /// tenant their order is the order of time.
    fn sweep(&mut self) -> Result<(), Error> {
        let old = |key: &[u8]| {
            let millis = key
                .len()
                .checked_sub(16)
                .and_then(|at| key.get(at..))
                .and_then(|id| id.try_into().ok());
            millis.is_some_and(|id| {
                Uid(u128::from_be_bytes(id))
                    .millis()
                    .saturating_add(KEPT_MS)
                    < self.now
            })
        };
        let mut excess = self.kept.saturating_sub(KEPT_ANSWERS_MAX * 9 / 10);
        if self.kept <= KEPT_ANSWERS_MAX {
            excess = 0;
        }
        let mut batch = self.db.batch();
        let mut removed = 0;
        for keyspace in [&self.answers, &self.decisions, &self.exposures] {
            let mut excess = excess;
            for entry in keyspace.iter() {
                let key = entry.key()?;
                if excess == 0 && !old(&key) {
                    break;
                }
                excess = excess.saturating_sub(1);
                removed += u64::from(std::ptr::eq(keyspace, &self.answers));
                batch.remove(keyspace, key);
            }
        }
        self.kept = self.kept.saturating_sub(removed);
        Ok(batch.commit()?)
    }
}
