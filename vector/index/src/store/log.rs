//! The write-ahead log: files `wal-FIRST.log`, one record for each group of batches that were made
//! durable together.
//!
//! Invariants: an append returns after the record is on disk (`fdatasync`), or the log takes nothing
//! more; sequence numbers have no gap, within a file and from file to file; a record counts as a
//! whole or not at all, which makes every batch atomic. What is invalid at the very end of the last
//! file was never acknowledged and is cut; anything invalid before a valid record was acknowledged
//! once, and is refused by file and place.

use super::error::StoreError;
use super::files::{self, Kind};
use super::record::{self, FILE_HEADER_BYTES, Found, RECORD_HEADER_BYTES};
use super::{SEQ_MAX, codec};
use crate::Write;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A log file is read as a whole when a collection opens; none is longer, in bytes.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

/// Makes an empty log file that begins with `first`.
pub fn create(dir: &Path, first: u64) -> Result<(), StoreError> {
    files::write_whole(&dir.join(files::log_name(first)), &record::header(first))
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
            let scanned = record::scan(&path, &bytes, file.first, at + 1 == count, &mut each)?;
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
        let encoded = record::encode_record(first, count, body);
        self.file
            .write_all_at(&encoded, self.at)
            .and_then(|()| self.sync())
            .map_err(StoreError::io(&self.path))?;
        let begin = self.at;
        self.at += encoded.len() as u64;
        if let Some(file) = self.files.files.lock().last_mut() {
            record::mark(&mut file.marks, first, begin);
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
        let covered = covered
            .take_while(|next| next.first <= checkpoint + 1)
            .count();
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
                let head = head
                    .first_chunk()
                    .ok_or_else(|| bad("a record is cut off"))?;
                let (length, first, count) = record::claims(head).map_err(bad)?;
                let whole = RECORD_HEADER_BYTES + length;
                if whole > left {
                    return Err(bad("a record is cut off"));
                }
                if first + u64::from(count) > seq + 1 {
                    let bytes = files::read_at(&file, &path, at, whole)?;
                    let found = record::record_at(&bytes, 0).map_err(bad)?;
                    if !each(&path, at, found)? {
                        return Ok(());
                    }
                }
                at += record::aligned(whole) as u64;
            }
        }
        Ok(())
    }
}

fn is_name(name: &str, first: u64) -> bool {
    (1..=SEQ_MAX).contains(&first) && name == files::log_name(first)
}

/// The log files of a folder, oldest first.
pub fn found(dir: &Path) -> Result<Vec<LogFile>, StoreError> {
    let mut all: Vec<LogFile> = files::list(dir)?
        .into_iter()
        .filter_map(|(name, bytes)| match files::kind(&name) {
            Kind::Log(first) if is_name(&name, first) => Some(LogFile {
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
