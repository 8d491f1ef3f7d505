//! The spool's disk side: recovery, group commit by one thread, and removal of acknowledged files.

use super::segment::{self, Scan};
use super::{Index, Job, Limits, Pending, Recovered, Shared, SpoolError};
use serde::{Deserialize, Serialize};
use skerry_types::Event;
use skerry_wire::codec::Schema;
use skerry_wire::{decode, encode};
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

/// Bytes of one group commit, at most.
const GROUP_BYTES_MAX: u64 = 4 << 20;
/// Holds the last acknowledged sequence.
const ACKED_FILE: &str = "acked";

/// A record's payload.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    subject: Box<str>,
    event: std::borrow::Cow<'a, Event>,
}
impl Schema for Stored<'_> {
    const SCHEMA: u16 = skerry_wire::value::schema::SPOOLED_EVENT;
}

/// The encoded record; `None` where it is too large.
pub(super) fn payload(pending: &Pending) -> Option<Vec<u8>> {
    let stored = Stored {
        subject: pending.subject.as_ref().into(),
        event: std::borrow::Cow::Borrowed(pending.event.as_ref()),
    };
    encode(&stored)
        .ok()
        .filter(|bytes| bytes.len() <= segment::PAYLOAD_BYTES_MAX)
}

/// The segment that is being written.
pub(super) struct Active {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Sequence of the next record.
    next: u64,
}

/// Reads all segments, cuts a torn tail and opens the last one for writing.
pub(super) fn recover(dir: &Path) -> io::Result<(Index, Recovered, Active)> {
    let remembered = read_acked(dir);
    let mut recovered = Recovered::default();
    let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
    let segments = segment::list(dir)?;
    let mut active = None;
    let mut next = remembered + 1;
    for (at, (first, path)) in segments.iter().enumerate() {
        let newest = at + 1 == segments.len();
        let scan = segment::scan(path)?;
        next = next
            .max(*first)
            .max(scan.records.last().map_or(0, |(seq, _)| seq + 1));
        if scan.intact_bytes < scan.file_bytes {
            repair(path, newest, &scan, &mut recovered)?;
        }
        records.extend(scan.records);
        if newest && scan.intact_bytes >= segment::MAGIC.len() as u64 {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.set_len(scan.intact_bytes)?;
            file.seek(SeekFrom::End(0))?;
            active = Some(Active {
                path: path.clone(),
                file,
                bytes: scan.intact_bytes,
                next,
            });
        }
    }
    let active = match active {
        // A sequence must never be used twice, and a segment is dense: after a gap a new one begins.
        Some(active) if dense(&segments, &active, &records) => active,
        _ => new_segment(dir, next)?,
    };
    let mut index = Index {
        waiting: VecDeque::new(),
        by_subject: HashMap::new(),
        acked: remembered,
        events: 0,
        bytes: 0,
    };
    for (seq, payload) in records.into_iter().filter(|(seq, _)| *seq > remembered) {
        let Ok(stored) = decode::<Stored<'_>>(&payload) else {
            recovered.corrupt_files += 1;
            continue;
        };
        let pending = Pending {
            subject: stored.subject.into(),
            event: Arc::new(stored.event.into_owned()),
        };
        index.events += 1;
        index.bytes += payload.len() as u64;
        index.push(seq, pending, payload.len());
    }
    recovered.events = index.waiting.len();
    Ok((index, recovered, active))
}

/// Whether the active segment goes on where its last record ended.
fn dense(segments: &[(u64, PathBuf)], active: &Active, records: &[(u64, Vec<u8>)]) -> bool {
    let first = segments.last().map_or(0, |(first, _)| *first);
    let last = records.last().map_or(0, |(seq, _)| *seq);
    active.next == first.max(last + 1)
}

/// The newest file's tail was being written when the process died: it was never acknowledged to
/// anybody. Damage elsewhere is kept for whoever wants to look at it.
fn repair(path: &Path, newest: bool, scan: &Scan, recovered: &mut Recovered) -> io::Result<()> {
    let damaged_head = scan.intact_bytes == 0 && scan.file_bytes >= segment::MAGIC.len() as u64;
    if newest && !damaged_head {
        recovered.torn_bytes += scan.file_bytes - scan.intact_bytes;
    } else {
        recovered.corrupt_files += 1;
        let mut name = path.as_os_str().to_owned();
        name.push(".corrupt");
        fs::copy(path, name)?;
    }
    OpenOptions::new()
        .write(true)
        .open(path)?
        .set_len(scan.intact_bytes)
}

fn new_segment(dir: &Path, next: u64) -> io::Result<Active> {
    let (path, file) = segment::create(dir, next)?;
    Ok(Active {
        path,
        file,
        bytes: segment::MAGIC.len() as u64,
        next,
    })
}

/// Takes appends, many at once, and answers them after one sync.
pub(super) fn run(
    dir: &Path,
    limits: Limits,
    mut active: Active,
    queue: &Receiver<Job>,
    shared: &Weak<Shared>,
) {
    let mut buffer = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while bytes < GROUP_BYTES_MAX
            && let Ok(job) = queue.try_recv()
        {
            bytes += job.bytes;
            group.push(job);
        }
        buffer.clear();
        let first_seq = active.next;
        let mut seq = first_seq;
        for payload in group.iter().flat_map(|job| &job.payloads) {
            segment::put(&mut buffer, seq, payload);
            seq += 1;
        }
        let written = active.write(&buffer, seq);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let result = written.map_err(|error| {
            tracing::error!(code = SpoolError::Disk.code(), %error, "events refused");
            SpoolError::Disk
        });
        {
            let mut seq = first_seq;
            let mut index = shared.index.lock();
            for job in &mut group {
                match result {
                    Ok(()) => {
                        for (pending, payload) in job.events.drain(..).zip(&job.payloads) {
                            index.push(seq, pending, payload.len());
                            seq += 1;
                        }
                    }
                    Err(_) => index.release(job.events.len(), job.bytes),
                }
            }
        }
        for job in group {
            let _ = job.done.send(result);
        }
        shared.changed.notify_one();
        if active.bytes > limits.segment_bytes {
            match new_segment(dir, active.next) {
                Ok(fresh) => active = fresh,
                Err(error) => tracing::error!(%error, "no new spool segment, the old one goes on"),
            }
        }
    }
}

impl Active {
    fn write(&mut self, buffer: &[u8], next: u64) -> io::Result<()> {
        let result = self
            .file
            .write_all(buffer)
            .and_then(|()| self.file.sync_data());
        match result {
            Ok(()) => {
                self.bytes += buffer.len() as u64;
                self.next = next;
                Ok(())
            }
            Err(error) => {
                // Nobody was told that these are safe: the file must not bring them back half.
                let undone = self
                    .file
                    .set_len(self.bytes)
                    .and_then(|()| self.file.seek(SeekFrom::End(0)).map(drop));
                if let Err(error) = undone {
                    tracing::error!(%error, path = %self.path.display(), "a failed write cannot be undone");
                }
                Err(error)
            }
        }
    }
}

/// Writes down how far the origin has acknowledged and removes the files before it; the newest file
/// stays, because its name carries the sequence.
pub(super) fn tidy(dir: &Path, acked: u64) -> io::Result<()> {
    if read_acked(dir) != acked {
        crate::files::write_whole(&dir.join(ACKED_FILE), &[acked.to_string().as_bytes()])?;
    }
    let segments = segment::list(dir)?;
    for pair in segments.windows(2) {
        let [(_, path), (next_first, _)] = pair else {
            continue;
        };
        if *next_first <= acked + 1 {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// An unreadable note only means that more is sent again, which the origin recognises.
fn read_acked(dir: &Path) -> u64 {
    fs::read_to_string(dir.join(ACKED_FILE))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}
