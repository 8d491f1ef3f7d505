//! What was answered and what was shown, for explanations: kept for a day, bounded in bytes, never
//! worth a sync or a wait. Records go to the end of a segment file: questions as they came over the
//! wire, decisions without the metadata of their items, which the catalogue has. The index is in memory
//! and rebuilt from the heads of the records at start. A torn tail is ignored.

mod segment;
mod writer;

use crate::Error;
use parking_lot::RwLock;
use segment::{BODY_BYTES_MAX, Head, Index, Kind, Place};
use serde::{Deserialize, Serialize};
use skerry_types::{Decision, Millis, TenantId, Uid};
use skerry_wire::CodecError;
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::frame::{AskFrame, Stage};
use skerry_wire::packed::BareDecision;
use skerry_wire::value::schema::ANSWERED;
use skerry_wire::value::{Exposure, ExposureBytes, StoredDecision, exposure};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use writer::{Record, Writer};

/// Kept for this long, in milliseconds.
pub const KEPT_MS: Millis = 24 * 3600 * 1000;
/// Records that may wait for the writer; beyond it they are dropped and counted.
const QUEUE_RECORDS_MAX: usize = 4_096;

/// How good one input of a decision was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputNote {
    pub name: Box<str>,
    /// `PRESENT`, `STALE` or `UNAVAILABLE`.
    pub status: Box<str>,
    pub as_of: Option<Millis>,
    pub detail: Box<str>,
}

/// An answer of this origin, with the question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    pub ask: AskFrame,
    /// Without metadata.
    pub decision: Decision,
    /// Time of each step, in microseconds.
    pub stages: Vec<(Stage, u32)>,
    pub inputs: Vec<InputNote>,
    pub at_ms: Millis,
}

/// All that is known of one request.
#[derive(Debug, Clone, Default)]
pub struct Explained {
    pub answered: Option<Answered>,
    pub exposure: Option<Exposure>,
}

/// An answer to keep.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    pub request: Uid,
    /// The question's encoded [`AskFrame`], as it came.
    pub ask: &'a [u8],
    pub decision: &'a Decision,
    pub stages: &'a [(Stage, u32)],
    pub inputs: &'a [InputNote],
    pub at_ms: Millis,
}

/// The store.
pub struct Answers {
    index: Arc<RwLock<Index>>,
    queue: SyncSender<Record>,
    dropped: AtomicU64,
}

impl Answers {
    /// Opens the segments in a folder, which is made where it is missing.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let store = |error: std::io::Error| Error::Store(format!("{}: {error}", dir.display()));
        std::fs::create_dir_all(dir).map_err(store)?;
        let numbers = segment::numbers(dir).map_err(store)?;
        let mut index = Index::default();
        for number in &numbers {
            index.scan(dir, *number).map_err(store)?;
        }
        let index = Arc::new(RwLock::new(index));
        let (queue, records) = sync_channel(QUEUE_RECORDS_MAX);
        let next = numbers.last().map_or(1, |last| last + 1);
        let mut writer = Writer::new(dir.to_owned(), Arc::clone(&index), next);
        std::thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || writer.run(&records))
            .map_err(store)?;
        Ok(Self {
            index,
            queue,
            dropped: AtomicU64::new(0),
        })
    }

    /// Keeps an answer. Never waits, and never fails: an answer that cannot be kept is dropped.
    pub fn answered(&self, made: &Made<'_>) {
        let head = Head {
            kind: Kind::Answer,
            request: made.request,
            decision: made.decision.id,
            at_ms: made.at_ms,
        };
        self.push(head, write_answer(made));
    }

    /// Keeps what a PoP says it showed; drops what does not say which answer it is of, since a PoP may
    /// run a worker of somebody else's. Never waits.
    pub fn exposed(&self, exposure: ExposureBytes) {
        match exposure::read_head(&exposure.0) {
            Ok(read) => {
                let head = Head {
                    kind: Kind::Exposure,
                    request: read.request_id,
                    decision: read.decision_id,
                    at_ms: read.at_ms,
                };
                self.push(head, Ok(exposure.0));
            }
            Err(error) => self.drop_one(&error),
        }
    }

    /// Records that were dropped because the writer was behind, or because they could not be read.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What was shown for a request.
    pub fn exposure(&self, tenant: &TenantId, request: Uid) -> Option<Exposure> {
        let bytes = self.read(|index| index.exposures.get(&request).copied())?;
        exposure::read(&bytes)
            .ok()
            .filter(|exposure| exposure.shown.tenant == *tenant)
    }

    /// All that is known of a request: what it showed, and the decision that it was made from.
    pub fn explain(&self, tenant: &TenantId, request: Uid) -> Explained {
        let exposure = self.exposure(tenant, request);
        let decision = exposure.as_ref().map(|exposure| exposure.shown.decision_id);
        let bytes = self.read(|index| {
            let answer = index.answers.get(&request);
            answer.or_else(|| index.decisions.get(&decision?)).copied()
        });
        let answered = bytes
            .and_then(|bytes| read_answer(&bytes))
            .filter(|answered| answered.ask.ask.tenant == *tenant);
        Explained { answered, exposure }
    }

    fn read(&self, find: impl FnOnce(&Index) -> Option<Place>) -> Option<Vec<u8>> {
        let (place, file) = {
            let index = self.index.read();
            let place = find(&index)?;
            (place, index.file(place.segment)?)
        };
        let mut bytes = vec![0; place.bytes as usize];
        file.read_exact_at(&mut bytes, place.at).ok()?;
        Some(bytes)
    }

    fn push(&self, head: Head, body: Result<Vec<u8>, CodecError>) {
        match body {
            Ok(body) if body.len() > BODY_BYTES_MAX => {
                self.drop_one(&CodecError::Large(body.len()))
            }
            Ok(body) => {
                if self.queue.try_send(Record { head, body }).is_err() {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => self.drop_one(&error),
        }
    }

    fn drop_one(&self, error: &CodecError) {
        tracing::debug!(%error, "not kept for explanation");
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Time, question (behind its length), and what was made of it, without metadata.
fn write_answer(made: &Made<'_>) -> Result<Vec<u8>, CodecError> {
    let decision = BareDecision(made.decision);
    let outcome = encode_as(ANSWERED, &(decision, made.stages, made.inputs))?;
    let ask = u32::try_from(made.ask.len()).map_err(|_| CodecError::Large(made.ask.len()))?;
    Ok([
        &made.at_ms.to_le_bytes(),
        ask.to_le_bytes().as_slice(),
        made.ask,
        &outcome,
    ]
    .concat())
}

fn read_answer(bytes: &[u8]) -> Option<Answered> {
    let (at, rest) = bytes.split_first_chunk::<8>()?;
    let (ask, made) = part(rest)?;
    let (StoredDecision { decision }, stages, inputs) = decode_as(ANSWERED, made).ok()?;
    Some(Answered {
        ask: skerry_wire::decode(ask).ok()?,
        decision,
        stages,
        inputs,
        at_ms: Millis::from_le_bytes(*at),
    })
}

/// Bytes behind their length, and the rest.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests;
