//! What was answered and what was shown, for explanations: kept for a day, bounded in bytes, never
//! worth a sync or a wait. Records go to the end of a segment file, questions as they came over the
//! wire, decisions without the metadata of their items, which the catalogue has; the index is in memory and rebuilt from the segments' heads at start. A torn tail is ignored.

use crate::Error;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use skerry_types::{Decision, Millis, TenantId, Uid};
use skerry_wire::CodecError;
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::frame::{AskFrame, Stage};
use skerry_wire::packed::BareDecision;
use skerry_wire::value::schema::ANSWERED;
use skerry_wire::value::{Exposure, ExposureBytes, StoredDecision, exposure};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Kept for this long, in milliseconds.
pub const KEPT_MS: Millis = 24 * 3600 * 1000;
const SEGMENT_BYTES_MAX: u64 = 32 << 20;
/// Beyond this many segments the oldest goes, before its day is over.
const SEGMENTS_MAX: usize = 16;
/// Records that may wait for the writer; beyond it they are dropped and counted.
const QUEUE_RECORDS_MAX: usize = 4_096;
/// Records in one write.
const GROUP_RECORDS_MAX: usize = 1_024;
/// Records gather for this long before they are written, in milliseconds.
const GATHER_MS: u64 = 10;
const RECORD_BYTES_MAX: usize = 4 << 20;
/// Length, kind, request, decision, time.
const HEAD_BYTES: usize = 4 + 1 + 16 + 16 + 8;
const ANSWER: u8 = 1;
const EXPOSURE: u8 = 2;

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
#[derive(Debug)]
pub struct Kept {
    request: Uid,
    decision: Uid,
    at_ms: Millis,
    /// An encoded [`AskFrame`].
    ask: bytes::Bytes,
    /// A decision without metadata, its stages and its inputs, encoded.
    made: Vec<u8>,
}

impl Kept {
    /// Of a question's frame, as it came, and what was made of it.
    pub fn new(
        request: Uid,
        ask: bytes::Bytes,
        decision: &Decision,
        stages: &[(Stage, u32)],
        inputs: &[InputNote],
        at_ms: Millis,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            request,
            decision: decision.id,
            at_ms,
            ask,
            made: encode_as(ANSWERED, &(BareDecision(decision), stages, inputs))?,
        })
    }
}

enum Record {
    Answer(Kept),
    Exposure(exposure::Head, ExposureBytes),
}

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u64,
    at: u64,
    bytes: u32,
}

#[derive(Default)]
struct Index {
    answers: HashMap<Uid, Place>,
    decisions: HashMap<Uid, Place>,
    exposures: HashMap<Uid, Place>,
    segments: VecDeque<Segment>,
}

struct Segment {
    number: u64,
    file: Arc<File>,
    newest_ms: Millis,
    /// (kind, request, decision) of what it holds.
    holds: Vec<(u8, Uid, Uid)>,
}

impl Index {
    fn add(&mut self, kind: u8, request: Uid, decision: Uid, at_ms: Millis, place: Place) {
        if kind == ANSWER {
            self.answers.insert(request, place);
            self.decisions.insert(decision, place);
        } else {
            self.exposures.insert(request, place);
        }
        if let Some(segment) = self
            .segments
            .iter_mut()
            .rfind(|segment| segment.number == place.segment)
        {
            segment.newest_ms = segment.newest_ms.max(at_ms);
            segment.holds.push((kind, request, decision));
        }
    }

    fn drop_oldest(&mut self) -> Option<u64> {
        let segment = self.segments.pop_front()?;
        let forget = |map: &mut HashMap<Uid, Place>, id: &Uid| {
            if map
                .get(id)
                .is_some_and(|place| place.segment == segment.number)
            {
                map.remove(id);
            }
        };
        for (kind, request, decision) in &segment.holds {
            if *kind == ANSWER {
                forget(&mut self.answers, request);
                forget(&mut self.decisions, decision);
            } else {
                forget(&mut self.exposures, request);
            }
        }
        Some(segment.number)
    }
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
        let mut numbers: Vec<u64> = std::fs::read_dir(dir)
            .map_err(store)?
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".seg")?
                    .parse()
                    .ok()
            })
            .collect();
        numbers.sort_unstable();
        let mut index = Index::default();
        for number in &numbers {
            scan(dir, *number, &mut index).map_err(store)?;
        }
        let index = Arc::new(RwLock::new(index));
        let (queue, records) = sync_channel(QUEUE_RECORDS_MAX);
        // A new segment at each start: nothing is ever appended behind a torn tail.
        let next = numbers.last().map_or(1, |last| last + 1);
        let mut writer = Writer {
            dir: dir.to_owned(),
            index: Arc::clone(&index),
            file: None,
            number: next,
            at: 0,
            newest_ms: 0,
        };
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

    /// Keeps an answer. Never waits.
    pub fn answered(&self, kept: Kept) {
        self.push(Record::Answer(kept));
    }

    /// Keeps what a PoP says it showed; drops what does not say which answer it is of, since a PoP may
    /// run a worker of somebody else's. Never waits.
    pub fn exposed(&self, exposure: ExposureBytes) {
        match exposure::read_head(&exposure.0) {
            Ok(head) => self.push(Record::Exposure(head, exposure)),
            Err(error) => {
                tracing::debug!(%error, "an exposure does not decode");
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
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
            let segment = index
                .segments
                .iter()
                .find(|segment| segment.number == place.segment)?;
            (place, Arc::clone(&segment.file))
        };
        let mut bytes = vec![0; place.bytes as usize];
        file.read_exact_at(&mut bytes, place.at).ok()?;
        Some(bytes)
    }

    fn push(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Time, question (behind its length), and what was made of it.
fn write_answer(kept: &Kept) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(12 + kept.ask.len() + kept.made.len());
    body.extend_from_slice(&kept.at_ms.to_le_bytes());
    body.extend_from_slice(&u32::try_from(kept.ask.len()).ok()?.to_le_bytes());
    body.extend_from_slice(&kept.ask);
    body.extend_from_slice(&kept.made);
    Some(body)
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

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// Reads the heads of a segment's records; stops at the first that is not whole.
fn scan(dir: &Path, number: u64, index: &mut Index) -> std::io::Result<()> {
    let file = File::open(path(dir, number))?;
    let length = file.metadata()?.len();
    index.segments.push_back(Segment {
        number,
        file: Arc::new(file.try_clone()?),
        newest_ms: 0,
        holds: Vec::new(),
    });
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut at = 0;
    let mut head = [0; HEAD_BYTES];
    while at + HEAD_BYTES as u64 <= length {
        reader.read_exact(&mut head)?;
        let Some((bytes, kind, request, decision, at_ms)) = read_head(&head) else {
            break;
        };
        at += HEAD_BYTES as u64;
        if at + u64::from(bytes) > length {
            break;
        }
        index.add(
            kind,
            request,
            decision,
            at_ms,
            Place {
                segment: number,
                at,
                bytes,
            },
        );
        reader.seek_relative(i64::from(bytes))?;
        at += u64::from(bytes);
    }
    Ok(())
}

fn read_head(head: &[u8; HEAD_BYTES]) -> Option<(u32, u8, Uid, Uid, Millis)> {
    let (bytes, rest) = head.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let (request, rest) = rest.split_first_chunk::<16>()?;
    let (decision, rest) = rest.split_first_chunk::<16>()?;
    let at = rest.first_chunk::<8>()?;
    let bytes = u32::from_le_bytes(*bytes);
    let known = matches!(*kind, ANSWER | EXPOSURE) && bytes as usize <= RECORD_BYTES_MAX;
    let id = |bytes: &[u8; 16]| Uid(u128::from_le_bytes(*bytes));
    known.then(|| {
        (
            bytes,
            *kind,
            id(request),
            id(decision),
            u64::from_le_bytes(*at),
        )
    })
}

struct Writer {
    dir: PathBuf,
    index: Arc<RwLock<Index>>,
    file: Option<File>,
    number: u64,
    at: u64,
    newest_ms: Millis,
}

impl Writer {
    #[expect(
        clippy::disallowed_methods,
        reason = "this thread has nothing else to wait for"
    )]
    fn run(&mut self, records: &Receiver<Record>) {
        while let Ok(first) = records.recv() {
            // Whoever hands over a record does not have to wake this thread while it waits here.
            std::thread::sleep(Duration::from_millis(GATHER_MS));
            let rest = records.try_iter().take(GROUP_RECORDS_MAX - 1);
            let group: Vec<Record> = std::iter::once(first).chain(rest).collect();
            if let Err(error) = self.write(group) {
                tracing::warn!(%error, "answers were not kept for explanation");
                self.file = None;
                self.number += 1;
            }
        }
    }

    fn write(&mut self, group: Vec<Record>) -> std::io::Result<()> {
        if self.at >= SEGMENT_BYTES_MAX {
            self.file = None;
            self.number += 1;
        }
        if self.file.is_none() {
            self.open()?;
        }
        let mut out = Vec::new();
        let mut added = Vec::with_capacity(group.len());
        for record in group {
            let (kind, request, decision, at_ms, body) = match record {
                Record::Answer(kept) => {
                    let body = write_answer(&kept);
                    (ANSWER, kept.request, kept.decision, kept.at_ms, body)
                }
                Record::Exposure(head, exposure) => (
                    EXPOSURE,
                    head.request_id,
                    head.decision_id,
                    head.at_ms,
                    Some(exposure.0),
                ),
            };
            let Some(body) = body else { continue };
            let Ok(bytes) = u32::try_from(body.len()) else {
                continue;
            };
            if body.len() > RECORD_BYTES_MAX {
                continue;
            }
            out.extend_from_slice(&bytes.to_le_bytes());
            out.push(kind);
            out.extend_from_slice(&request.0.to_le_bytes());
            out.extend_from_slice(&decision.0.to_le_bytes());
            out.extend_from_slice(&at_ms.to_le_bytes());
            let place = Place {
                segment: self.number,
                at: self.at + out.len() as u64,
                bytes,
            };
            out.extend_from_slice(&body);
            added.push((kind, request, decision, at_ms, place));
            self.newest_ms = self.newest_ms.max(at_ms);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&out)?;
        }
        self.at += out.len() as u64;
        let mut index = self.index.write();
        for (kind, request, decision, at_ms, place) in added {
            index.add(kind, request, decision, at_ms, place);
        }
        Ok(())
    }

    /// Starts a segment, and drops those that are past their day or beyond the bound.
    fn open(&mut self) -> std::io::Result<()> {
        let path_new = path(&self.dir, self.number);
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path_new)?;
        self.at = file.seek(SeekFrom::Start(0))?;
        let mut gone = Vec::new();
        {
            let mut index = self.index.write();
            let holds = Vec::new();
            index.segments.push_back(Segment {
                number: self.number,
                file: Arc::new(file.try_clone()?),
                newest_ms: 0,
                holds,
            });
            let is_old =
                |segment: &Segment| segment.newest_ms.saturating_add(KEPT_MS) < self.newest_ms;
            while index.segments.len() > SEGMENTS_MAX
                || (index.segments.len() > 1 && index.segments.front().is_some_and(is_old))
            {
                gone.extend(index.drop_oldest());
            }
        }
        for number in gone {
            std::fs::remove_file(path(&self.dir, number))?;
        }
        self.file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
