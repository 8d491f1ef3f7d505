//! The folder of a collection: which files it has, its format, its lock.
//!
//! Invariants: small files are replaced whole (write, sync, rename, sync of the folder), never in
//! place; the format is read before anything else, and a newer one is refused.

use super::error::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Format written here; newer ones are refused.
pub const FORMAT: u32 = 1;
pub const FORMAT_NAME: &str = "skerry-vector";
pub const FORMAT_FILE: &str = "FORMAT";
pub const LOCK_FILE: &str = "LOCK";
pub const MANIFEST_FILE: &str = "MANIFEST";
pub const SNAPSHOT_FILE: &str = "SNAPSHOT";
/// The ending of what is not whole yet.
pub const UNFINISHED: &str = ".tmp";
/// `FORMAT`, `MANIFEST` and `SNAPSHOT` are small, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 20;

pub fn log_name(first: u64) -> String {
    format!("wal-{first:020}.log")
}

pub fn segment_name(number: u64) -> String {
    format!("segment-{number}.skv")
}

pub fn dead_name(segment: u64, seq: u64) -> String {
    format!("dead-{segment}-{seq}.rbm")
}

/// What a file of the folder is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Log(u64),
    Segment(u64),
    Dead(u64, u64),
    Unfinished,
    /// `FORMAT`, `LOCK`, `MANIFEST`, `SNAPSHOT`.
    Own,
    Other,
}

pub fn kind(name: &str) -> Kind {
    let inner = |prefix, suffix| name.strip_prefix(prefix)?.strip_suffix(suffix);
    let number = |text: &str| text.parse::<u64>().ok();
    let known = || -> Option<Kind> {
        if let Some(first) = inner("wal-", ".log") {
            return number(first).map(Kind::Log);
        }
        if let Some(text) = inner("segment-", ".skv") {
            return number(text).map(Kind::Segment);
        }
        let (segment, seq) = inner("dead-", ".rbm")?.split_once('-')?;
        Some(Kind::Dead(number(segment)?, number(seq)?))
    };
    match name {
        FORMAT_FILE | LOCK_FILE | MANIFEST_FILE | SNAPSHOT_FILE => Kind::Own,
        _ if name.ends_with(UNFINISHED) => Kind::Unfinished,
        _ => known().unwrap_or(Kind::Other),
    }
}

/// Names and lengths of the files, in the order of their names.
pub fn list(dir: &Path) -> Result<Vec<(String, u64)>, StoreError> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(StoreError::io(dir))? {
        let entry = entry.map_err(StoreError::io(dir))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let length = entry.metadata().map_err(StoreError::io(dir))?.len();
        all.push((name, length));
    }
    all.sort();
    Ok(all)
}

pub fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(StoreError::io(dir))
}

/// The name under which a file is written before it is whole.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Replaces a file's content so that a crash leaves the old or the new one, never a mixture.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = unfinished(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StoreError::io(&temporary))?;
    finish(&temporary, path)
}

/// Gives a file that is whole and synced its name.
pub fn finish(temporary: &Path, path: &Path) -> Result<(), StoreError> {
    std::fs::rename(temporary, path).map_err(StoreError::io(path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Reads a small file; `None` where it is not there.
pub fn read_small(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let io = |error| StoreError::io(path)(error);
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > SMALL_BYTES_MAX => {
            Err(StoreError::corrupt(path, 0, "it is far too long"))
        }
        Ok(_) => std::fs::read(path).map(Some).map_err(io),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

/// Reads exactly `length` bytes, which the caller has bounded by what is there.
pub fn read_at(file: &File, path: &Path, at: u64, length: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err(StoreError::corrupt(path, at, "it ends too early"))
        }
        Err(error) => Err(StoreError::io(path)(error)),
    }
}

/// Removes a file that nothing needs; a failure costs room and is tried again at the next start.
pub fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file that is not needed stays");
    }
}

pub fn write_format(dir: &Path) -> Result<(), StoreError> {
    let text = format!("{FORMAT_NAME} {FORMAT}\n");
    write_whole(&dir.join(FORMAT_FILE), text.as_bytes())
}

pub fn check_format(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(FORMAT_FILE);
    let Some(bytes) = read_small(&path)? else {
        return Err(StoreError::Missing {
            dir: dir.to_owned(),
        });
    };
    let found = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .and_then(|text| text.strip_prefix(FORMAT_NAME))
        .and_then(|text| text.strip_prefix(' '))
        .and_then(|text| text.parse::<u32>().ok());
    match found {
        Some(found) if found > FORMAT => Err(StoreError::Newer {
            file: path,
            found,
            known: FORMAT,
        }),
        Some(FORMAT) => Ok(()),
        _ => Err(StoreError::corrupt(
            &path,
            0,
            format!("it does not say `{FORMAT_NAME} {FORMAT}`"),
        )),
    }
}

/// Held while a collection is open. The system lets go of it when the process ends, however it does.
pub struct Lock(File);

/// Let go of at once, and not when the last copy of the handle is closed: a process that this one
/// starts has one for a moment.
impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "a lock is kept until the process ends");
        }
    }
}

impl Lock {
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::io(&path))?;
        held(dir, &path, file.try_lock())?;
        Ok(Self(file))
    }

    /// For one who only reads: together with others of its kind. Makes no file where none is.
    pub fn share(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(LOCK_FILE);
        match File::open(&path) {
            Ok(file) => {
                held(dir, &path, file.try_lock_shared())?;
                Ok(Some(Self(file)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io(&path)(error)),
        }
    }
}

fn held(dir: &Path, path: &Path, locked: Result<(), TryLockError>) -> Result<(), StoreError> {
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => StoreError::Locked {
            dir: dir.to_owned(),
        },
        TryLockError::Error(error) => StoreError::io(path)(error),
    })
}
