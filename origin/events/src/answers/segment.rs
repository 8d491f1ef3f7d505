//! Segment files of records, and the index of what they hold. A record is a head and a body.

use super::KEPT_MS;
use skerry_types::{Millis, Uid};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Beyond this many segments the oldest goes, before its day is over.
pub(super) const SEGMENTS_MAX: usize = 16;
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;
/// Length of the body, kind, request, decision, time.
pub(super) const HEAD_BYTES: usize = 4 + 1 + 16 + 16 + 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Answer = 1,
    Exposure = 2,
}

/// What a record is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub kind: Kind,
    pub request: Uid,
    pub decision: Uid,
    pub at_ms: Millis,
}

impl Head {
    pub(super) fn write(&self, body_bytes: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&body_bytes.to_le_bytes());
        out.push(self.kind as u8);
        out.extend_from_slice(&self.request.0.to_le_bytes());
        out.extend_from_slice(&self.decision.0.to_le_bytes());
        out.extend_from_slice(&self.at_ms.to_le_bytes());
    }

    /// The head, and how long its body is; nothing where it is none of ours.
    fn read(bytes: &[u8; HEAD_BYTES]) -> Option<(Self, u32)> {
        let (body_bytes, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first()?;
        let (request, rest) = rest.split_first_chunk::<16>()?;
        let (decision, rest) = rest.split_first_chunk::<16>()?;
        let at_ms = rest.first_chunk::<8>()?;
        let kinds = [Kind::Answer, Kind::Exposure];
        let head = Self {
            kind: kinds.into_iter().find(|known| *known as u8 == *kind)?,
            request: Uid(u128::from_le_bytes(*request)),
            decision: Uid(u128::from_le_bytes(*decision)),
            at_ms: Millis::from_le_bytes(*at_ms),
        };
        let body_bytes = u32::from_le_bytes(*body_bytes);
        (body_bytes as usize <= BODY_BYTES_MAX).then_some((head, body_bytes))
    }
}

/// Where a record's body lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub segment: u64,
    pub at: u64,
    pub bytes: u32,
}

#[derive(Default)]
pub(super) struct Index {
    /// By request.
    pub answers: HashMap<Uid, Place>,
    /// The same answers by decision.
    pub decisions: HashMap<Uid, Place>,
    /// By request.
    pub exposures: HashMap<Uid, Place>,
    segments: VecDeque<Segment>,
}

struct Segment {
    number: u64,
    file: Arc<File>,
    newest_ms: Millis,
    holds: Vec<Head>,
}

impl Index {
    pub(super) fn file(&self, number: u64) -> Option<Arc<File>> {
        let mut segments = self.segments.iter();
        let segment = segments.find(|segment| segment.number == number)?;
        Some(Arc::clone(&segment.file))
    }

    pub(super) fn add(&mut self, head: Head, place: Place) {
        match head.kind {
            Kind::Answer => {
                self.answers.insert(head.request, place);
                self.decisions.insert(head.decision, place);
            }
            Kind::Exposure => {
                self.exposures.insert(head.request, place);
            }
        }
        let mut newest_first = self.segments.iter_mut().rev();
        if let Some(segment) = newest_first.find(|segment| segment.number == place.segment) {
            segment.newest_ms = segment.newest_ms.max(head.at_ms);
            segment.holds.push(head);
        }
    }

    pub(super) fn start_segment(&mut self, number: u64, file: File) {
        self.segments.push_back(Segment {
            number,
            file: Arc::new(file),
            newest_ms: 0,
            holds: Vec::new(),
        });
    }

    /// Forgets the segments that are past their day, or beyond the bound, when it is `now`.
    pub(super) fn drop_old(&mut self, now: Millis) -> Vec<u64> {
        let mut dropped = Vec::new();
        while self.segments.len() > 1 {
            let is_old = |segment: &Segment| segment.newest_ms.saturating_add(KEPT_MS) < now;
            if self.segments.len() <= SEGMENTS_MAX && !self.segments.front().is_some_and(is_old) {
                break;
            }
            dropped.extend(self.drop_oldest());
        }
        dropped
    }

    fn drop_oldest(&mut self) -> Option<u64> {
        let segment = self.segments.pop_front()?;
        let forget = |map: &mut HashMap<Uid, Place>, id: &Uid| {
            let place = map.get(id);
            if place.is_some_and(|place| place.segment == segment.number) {
                map.remove(id);
            }
        };
        for head in &segment.holds {
            match head.kind {
                Kind::Answer => {
                    forget(&mut self.answers, &head.request);
                    forget(&mut self.decisions, &head.decision);
                }
                Kind::Exposure => forget(&mut self.exposures, &head.request),
            }
        }
        Some(segment.number)
    }

    /// Adds what a segment's file holds, up to the first record that is not whole.
    pub(super) fn scan(&mut self, dir: &Path, number: u64) -> std::io::Result<()> {
        let file = File::open(path(dir, number))?;
        let length = file.metadata()?.len();
        self.start_segment(number, file.try_clone()?);
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut at = 0;
        let mut bytes = [0; HEAD_BYTES];
        while at + HEAD_BYTES as u64 <= length {
            reader.read_exact(&mut bytes)?;
            let Some((head, bytes)) = Head::read(&bytes) else {
                break;
            };
            at += HEAD_BYTES as u64;
            if at + u64::from(bytes) > length {
                break;
            }
            let segment = number;
            self.add(head, Place { segment, at, bytes });
            reader.seek_relative(i64::from(bytes))?;
            at += u64::from(bytes);
        }
        Ok(())
    }
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

/// Numbers of the segments in a folder, oldest first.
pub(super) fn numbers(dir: &Path) -> std::io::Result<Vec<u64>> {
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".seg")?.parse().ok()
    };
    let mut numbers: Vec<u64> = std::fs::read_dir(dir)?.filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
