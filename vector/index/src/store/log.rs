//! The write-ahead log: files `wal-FIRST.log`, one record for each group of batches that were made
//! durable together.
//!
//! Invariants: an append returns after the record is on disk (`fdatasync`), or the log takes nothing
//! more; sequence numbers have no gap, within a file and from file to file; a record counts as a
//! whole or not at all, which makes every batch atomic. What is invalid at the very end of the last
//! file was never acknowledged and is cut; anything invalid before a valid record was acknowledged
//! once, and is refused by file and place.

use super::codec;
use super::error::StoreError;
use super::files::{self, Kind};
use crate::Write;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"SKVLOG\0\0";
const VERSION: u32 = 1;
pub const FILE_HEADER_BYTES: usize = 32;
pub const RECORD_HEADER_BYTES: usize = 24;
const KIND_WRITES: u8 = 1;
/// A log file is read as a whole when a collection opens; none is longer, in bytes.
pub const FILE_BYTES_MAX: u64 = 512 << 20;
/// Followers find their place in a file by marks, one about every so many bytes.
const MARK_BYTES: u64 = 1 << 20;
/// What the search for a valid record after an invalid one may checksum, in bytes; a file that needs
/// more is refused as damaged.
const SEARCH_BYTES_MAX: usize = 1 << 30;

/// A record, where it lies.
#[derive(Debug, PartialEq)]
pub struct Found<'a> {
    pub first: u64,
    pub count: u32,
    pub body: &'a [u8],
    /// Where the next one begins.
    pub end: usize,
}

impl Found<'_> {
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}

fn record_crc(header: &[u8; RECORD_HEADER_BYTES], body: &[u8]) -> u32 {
    let (length, rest) = header.split_at(4);
    let (_, rest) = rest.split_at(4);
    let crc = crc32c::crc32c(length);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, rest), body)
}

/// Whole records begin at multiples of 8.
fn aligned(at: usize) -> usize {
    at.next_multiple_of(8)
}

pub fn encode_record(first: u64, count: u32, body: &[u8]) -> Vec<u8> {
    let mut header = [0u8; RECORD_HEADER_BYTES];
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(part) = header.get_mut(at..at + bytes.len()) {
            part.copy_from_slice(bytes);
        }
    };
    put(0, &length);
    put(8, &first.to_le_bytes());
    put(16, &[KIND_WRITES]);
    put(20, &count.to_le_bytes());
    let crc = record_crc(&header, body).to_le_bytes();
    let mut out = Vec::with_capacity(RECORD_HEADER_BYTES + body.len() + 8);
    out.extend_from_slice(&header);
    if let Some(part) = out.get_mut(4..8) {
        part.copy_from_slice(&crc);
    }
    out.extend_from_slice(body);
    out.resize(aligned(out.len()), 0);
    out
}

/// Length of the body, first sequence number and count, as a header claims.
fn claims(header: &[u8; RECORD_HEADER_BYTES]) -> Result<(usize, u64, u32), &'static str> {
    let mut bytes = codec::Bytes(header);
    let length = bytes.u32()? as usize;
    bytes.u32()?;
    let first = bytes.u64()?;
    let kind = bytes.u32()?;
    let count = bytes.u32()?;
    if kind != u32::from(KIND_WRITES) {
        return Err("a record of an unknown kind");
    }
    if count == 0 || first == 0 || first.checked_add(u64::from(count)).is_none() {
        return Err("a record without writes");
    }
    Ok((length, first, count))
}

/// The record at a place of a file.
pub fn record_at(bytes: &[u8], at: usize) -> Result<Found<'_>, &'static str> {
    const CUT: &str = "a record is cut off";
    let rest = bytes.get(at..).ok_or(CUT)?;
    let (header, rest) = rest.split_first_chunk().ok_or(CUT)?;
    let (length, first, count) = claims(header)?;
    let body = rest.get(..length).ok_or(CUT)?;
    if header.get(4..8) != Some(record_crc(header, body).to_le_bytes().as_slice()) {
        return Err("a record's checksum is wrong");
    }
    Ok(Found {
        first,
        count,
        body,
        end: aligned(at + RECORD_HEADER_BYTES + length),
    })
}

/// The first valid record after an invalid one, with a sequence number that may follow `next`. Fails
/// where looking takes too long.
fn valid_after(bytes: &[u8], at: usize, next: u64) -> Result<Option<usize>, ()> {
    let mut left = SEARCH_BYTES_MAX;
    let mut place = aligned(at + 1);
    while let Some(header) = bytes.get(place..).and_then(|rest| rest.first_chunk()) {
        // What is claimed is looked at first: a checksum is taken of little that is none.
        if let Ok((length, first, _)) = claims(header)
            && first >= next
            && length <= bytes.len() - place
        {
            left = left.checked_sub(length).ok_or(())?;
            if record_at(bytes, place).is_ok() {
                return Ok(Some(place));
            }
        }
        place += 8;
    }
    Ok(None)
}

/// What a file held.
#[derive(Debug, PartialEq)]
pub struct Scanned {
    /// The sequence number after its last record.
    pub next: u64,
    /// Where its valid records end.
    pub end: usize,
    pub records: u64,
    /// Sequence numbers and where their records begin.
    marks: Vec<(u64, u64)>,
}

/// Gives every record of a file to `each`, with its place.
pub fn scan(
    path: &Path,
    bytes: &[u8],
    first: u64,
    is_last: bool,
    each: &mut dyn FnMut(usize, Found<'_>) -> Result<(), StoreError>,
) -> Result<Scanned, StoreError> {
    check_header(path, bytes, first)?;
    let mut done = Scanned {
        next: first,
        end: FILE_HEADER_BYTES,
        records: 0,
        marks: Vec::new(),
    };
    while done.end < bytes.len() {
        let at = done.end;
        let bad = |what: &str| StoreError::corrupt(path, at as u64, what);
        match record_at(bytes, at) {
            Ok(found) if found.first != done.next => {
                return Err(bad(&format!(
                    "sequence number {} where {} should be",
                    found.first, done.next
                )));
            }
            Ok(found) => {
                done.next = found.last() + 1;
                done.end = found.end;
                done.records += 1;
                mark(&mut done.marks, found.first, at as u64);
                each(at, found)?;
            }
            Err(what) if !is_last => return Err(bad(what)),
            Err(what) => match valid_after(bytes, at, done.next) {
                Ok(None) => break,
                Ok(Some(place)) => {
                    return Err(bad(&format!("{what}, and a valid one follows at {place}")));
                }
                Err(()) => return Err(bad(what)),
            },
        }
    }
    Ok(done)
}

fn mark(marks: &mut Vec<(u64, u64)>, first: u64, at: u64) {
    if marks.last().is_none_or(|(_, last)| at - last >= MARK_BYTES) {
        marks.push((first, at));
    }
}

fn header(first: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut all = Vec::from(MAGIC);
    all.extend_from_slice(&VERSION.to_le_bytes());
    all.extend_from_slice(&[0; 4]);
    all.extend_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&all);
    all.extend_from_slice(&crc.to_le_bytes());
    let mut out = [0; FILE_HEADER_BYTES];
    out.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    out
}

fn check_header(path: &Path, bytes: &[u8], first: u64) -> Result<(), StoreError> {
    let bad = |what: &str| StoreError::corrupt(path, 0, what);
    let found: &[u8; FILE_HEADER_BYTES] = bytes
        .first_chunk()
        .ok_or_else(|| bad("its header is cut off"))?;
    if *found == header(first) {
        return Ok(());
    }
    let (head, rest) = found.split_at(24);
    let whole = rest.get(..4) == Some(crc32c::crc32c(head).to_le_bytes().as_slice());
    let version = head.get(8..).and_then(|rest| rest.first_chunk());
    match version.map(|four| u32::from_le_bytes(*four)) {
        Some(version) if whole && head.starts_with(MAGIC) && version > VERSION => {
            Err(StoreError::Newer {
                file: path.to_owned(),
                found: version,
                known: VERSION,
            })
        }
        _ => Err(bad("its header is not that of this log")),
    }
}

/// Makes an empty log file that begins with `first`.
pub fn create(dir: &Path, first: u64) -> Result<(), StoreError> {
    files::write_whole(&dir.join(files::log_name(first)), &header(first))
}

/// A log file that is known to be there.
#[derive(Debug, Clone)]
pub struct LogFile {
    pub first: u64,
    /// Bytes that are on disk for certain.
    pub bytes: u64,
    marks: Vec<(u64, u64)>,
}

/// The files, for those who read while the log is written.
#[derive(Clone)]
pub struct LogFiles {
    dir: PathBuf,
    files: Arc<Mutex<Vec<LogFile>>>,
}

/// The end of the log, for the one who writes.
pub struct Log {
    files: LogFiles,
    file: File,
    path: PathBuf,
    at: u64,
    file_bytes: u64,
    poisoned: Option<Box<str>>,
    /// Tests: the next sync fails.
    #[cfg(test)]
    pub fail_next: bool,
}

impl Log {
    /// Opens what is there and gives all writes after `checkpoint` to `replay`. Cuts a torn tail.
    /// Returns the log and the last sequence number.
    pub fn open(
        dir: &Path,
        checkpoint: u64,
        file_bytes: u64,
        dim: usize,
        replay: &mut dyn FnMut(u64, Write) -> Result<(), StoreError>,
    ) -> Result<(Self, u64), StoreError> {
        let mut files = found(dir)?;
        let begin = files.iter().rposition(|file| file.first <= checkpoint + 1);
        let Some(begin) = begin else {
            let missing = dir.join(files::log_name(checkpoint + 1));
            return Err(StoreError::corrupt(&missing, 0, "it is missing"));
        };
        let count = files.len();
        let mut next = None;
        for (at, file) in files.iter_mut().enumerate().skip(begin) {
            let path = dir.join(files::log_name(file.first));
            if next.is_some_and(|next| next != file.first) {
                let what = format!("the log before it ends before {}", file.first);
                return Err(StoreError::corrupt(&path, 0, what));
            }
            let bytes = read_log(&path, file.bytes)?;
            let mut each = |place: usize, record: Found<'_>| {
                if record.last() <= checkpoint {
                    return Ok(());
                }
                let writes = codec::writes(record.body, record.count as usize, dim)
                    .map_err(|what| StoreError::corrupt(&path, place as u64, what))?;
                (record.first..)
                    .zip(writes)
                    .filter(|(seq, _)| *seq > checkpoint)
                    .try_for_each(|(seq, write)| replay(seq, write))
            };
            let scanned = scan(&path, &bytes, file.first, at + 1 == count, &mut each)?;
            if scanned.end != bytes.len() {
                tracing::info!(
                    path = %path.display(), at = scanned.end, bytes = bytes.len() - scanned.end,
                    "the torn end of the log is cut: it was never acknowledged"
                );
                let cut = || -> std::io::Result<()> {
                    let file = OpenOptions::new().write(true).open(&path)?;
                    file.set_len(scanned.end as u64)?;
                    file.sync_all()
                };
                cut().map_err(StoreError::io(&path))?;
            }
            file.bytes = scanned.end as u64;
            file.marks = scanned.marks;
            next = Some(scanned.next);
        }
        let next = next.unwrap_or(checkpoint + 1);
        let last = files.last().map_or(1, |file| file.first);
        let path = dir.join(files::log_name(last));
        if next <= checkpoint {
            let what = format!("it ends at {}, before {checkpoint}", next - 1);
            return Err(StoreError::corrupt(&path, 0, what));
        }
        let log = Self {
            file: open_log(&path)?,
            at: files.last().map_or(0, |file| file.bytes),
            path,
            files: LogFiles {
                dir: dir.to_owned(),
                files: Arc::new(Mutex::new(files)),
            },
            file_bytes,
            poisoned: None,
            #[cfg(test)]
            fail_next: false,
        };
        Ok((log, next - 1))
    }

    pub fn files(&self) -> LogFiles {
        self.files.clone()
    }

    pub fn check(&self) -> Result<(), StoreError> {
        match &self.poisoned {
            Some(cause) => Err(StoreError::Poisoned {
                cause: cause.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Durable when it returns. After an error nothing more is taken: what a failed sync has left on
    /// disk is not known, and a second sync would not tell.
    pub fn append(&mut self, first: u64, count: u32, body: &[u8]) -> Result<(), StoreError> {
        self.check()?;
        let result = self.try_append(first, count, body);
        if let Err(error) = &result {
            tracing::error!(%error, code = error.code(), "the log failed: writes stop");
            self.poisoned = Some(error.to_string().into());
        }
        result
    }

    fn try_append(&mut self, first: u64, count: u32, body: &[u8]) -> Result<(), StoreError> {
        if self.at >= self.file_bytes {
            self.rotate(first)?;
        }
        let record = encode_record(first, count, body);
        self.file
            .write_all_at(&record, self.at)
            .and_then(|()| self.sync())
            .map_err(StoreError::io(&self.path))?;
        let begin = self.at;
        self.at += record.len() as u64;
        if let Some(file) = self.files.files.lock().last_mut() {
            mark(&mut file.marks, first, begin);
            file.bytes = self.at;
        }
        Ok(())
    }

    fn sync(&mut self) -> std::io::Result<()> {
        #[cfg(test)]
        if std::mem::take(&mut self.fail_next) {
            return Err(std::io::Error::other("on cue"));
        }
        self.file.sync_data()
    }

    fn rotate(&mut self, first: u64) -> Result<(), StoreError> {
        create(&self.files.dir, first)?;
        self.path = self.files.dir.join(files::log_name(first));
        self.file = open_log(&self.path)?;
        self.at = FILE_HEADER_BYTES as u64;
        self.files.files.lock().push(LogFile {
            first,
            bytes: self.at,
            marks: Vec::new(),
        });
        Ok(())
    }
}

impl LogFiles {
    pub fn bytes(&self) -> u64 {
        self.files.lock().iter().map(|file| file.bytes).sum()
    }

    /// Removes files that the checkpoint covers, oldest first, as long as those that it covers have
    /// more than `tail_bytes`.
    pub fn trim(&self, checkpoint: u64, tail_bytes: u64) {
        let mut files = self.files.lock();
        let covered = files.iter().skip(1);
        let covered = covered.take_while(|next| next.first <= checkpoint + 1).count();
        let mut bytes: u64 = files.iter().take(covered).map(|file| file.bytes).sum();
        let mut gone = 0;
        for file in files.iter().take(covered) {
            if bytes <= tail_bytes {
                break;
            }
            bytes -= file.bytes;
            gone += 1;
        }
        for file in files.drain(..gone) {
            files::remove(&self.dir.join(files::log_name(file.first)));
        }
    }

    /// The files that hold everything after `seq`, as far as they are on disk, opened: they can be
    /// read even when they are removed meanwhile.
    pub fn after(&self, seq: u64) -> Result<Vec<(LogFile, File)>, StoreError> {
        let files = self.files.lock();
        let gone = || StoreError::LogGone {
            wanted: seq + 1,
            first: files.first().map_or(0, |file| file.first - 1),
        };
        let begin = files
            .iter()
            .rposition(|file| file.first <= seq.saturating_add(1))
            .ok_or_else(gone)?;
        files
            .iter()
            .skip(begin)
            .map(|file| {
                let path = self.dir.join(files::log_name(file.first));
                let open = File::open(&path).map_err(StoreError::io(&path))?;
                Ok((file.clone(), open))
            })
            .collect()
    }

    /// Gives the records after `seq` to `each` until it returns false.
    pub fn read(
        &self,
        seq: u64,
        each: &mut dyn FnMut(&Path, u64, Found<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for (known, file) in self.after(seq)? {
            let path = self.dir.join(files::log_name(known.first));
            let marks = known.marks.iter().rev();
            let mut at = marks
                .map(|(first, at)| (*first, *at))
                .find(|(first, _)| *first <= seq + 1)
                .map_or(FILE_HEADER_BYTES as u64, |(_, at)| at);
            while at < known.bytes {
                let bad = |what| StoreError::corrupt(&path, at, what);
                let left = usize::try_from(known.bytes - at).unwrap_or(usize::MAX);
                let head = files::read_at(&file, &path, at, RECORD_HEADER_BYTES.min(left))?;
                let head = head.first_chunk().ok_or_else(|| bad("a record is cut off"))?;
                let (length, first, count) = claims(head).map_err(bad)?;
                let whole = RECORD_HEADER_BYTES + length;
                if whole > left {
                    return Err(bad("a record is cut off"));
                }
                if first + u64::from(count) > seq + 1 {
                    let bytes = files::read_at(&file, &path, at, whole)?;
                    let found = record_at(&bytes, 0).map_err(bad)?;
                    if !each(&path, at, found)? {
                        return Ok(());
                    }
                }
                at += aligned(whole) as u64;
            }
        }
        Ok(())
    }
}

/// The log files of a folder, oldest first.
pub fn found(dir: &Path) -> Result<Vec<LogFile>, StoreError> {
    let mut all: Vec<LogFile> = files::list(dir)?
        .into_iter()
        .filter_map(|(name, bytes)| match files::kind(&name) {
            Kind::Log(first) if name == files::log_name(first) => Some(LogFile {
                first,
                bytes,
                marks: Vec::new(),
            }),
            _ => None,
        })
        .collect();
    all.sort_by_key(|file| file.first);
    Ok(all)
}

pub fn read_log(path: &Path, bytes: u64) -> Result<Vec<u8>, StoreError> {
    if bytes > FILE_BYTES_MAX {
        return Err(StoreError::corrupt(path, 0, "it is longer than a log gets"));
    }
    std::fs::read(path).map_err(StoreError::io(path))
}

fn open_log(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(StoreError::io(path))
}
