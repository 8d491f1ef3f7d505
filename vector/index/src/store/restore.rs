//! Making a folder a collection, file by file.
//!
//! Invariants: it is a collection only when all of it is there: its manifest gets its name last; only
//! files that a collection has are written. Ended in the middle, it can be done again.

use super::error::StoreError;
use super::files::{self, Kind, Lock};
use super::log;
use super::manifest::Manifest;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A folder that is to be a collection.
pub struct Restore {
    dir: PathBuf,
    _lock: Lock,
}

/// One of its files, as it comes.
pub struct RestoredFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    crc32c: u32,
}

/// Whether a collection, or a snapshot of one, has a file of this name to copy.
pub(super) fn is_content(name: &str) -> bool {
    let named = match files::kind(name) {
        Kind::Log(_) | Kind::Segment(_) | Kind::Dead(..) => true,
        _ => name == files::FORMAT_FILE || name == files::MANIFEST_FILE,
    };
    // A name becomes a path.
    named && !name.contains('/')
}

impl Restore {
    /// Takes a folder, which may be missing. One that is a collection is refused.
    pub fn begin(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(StoreError::io(dir))?;
        let lock = Lock::take(dir)?;
        if dir.join(files::MANIFEST_FILE).exists() {
            return Err(StoreError::Exists {
                dir: dir.to_owned(),
            });
        }
        // A log that an earlier attempt left would be read.
        for first in log::found(dir)? {
            files::remove(&dir.join(files::log_name(first.first)));
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    fn unfinished_manifest(&self) -> PathBuf {
        files::unfinished(&self.dir.join(files::MANIFEST_FILE))
    }

    /// Begins a file of the collection. Several may be written at once.
    pub fn file(&self, name: &str) -> Result<RestoredFile, StoreError> {
        let path = self.dir.join(name);
        if !is_content(name) {
            return Err(StoreError::corrupt(
                &path,
                0,
                "a file that no collection has",
            ));
        }
        let path = match name {
            files::MANIFEST_FILE => self.unfinished_manifest(),
            _ => path,
        };
        Ok(RestoredFile {
            file: File::create(&path).map_err(StoreError::io(&path))?,
            path,
            bytes: 0,
            crc32c: 0,
        })
    }

    /// Makes the folder a collection of what was written.
    pub fn finish(&self) -> Result<(), StoreError> {
        files::sync_dir(&self.dir)?;
        let path = self.unfinished_manifest();
        let Some(bytes) = files::read_small(&path)? else {
            let path = self.dir.join(files::MANIFEST_FILE);
            return Err(StoreError::corrupt(&path, 0, "it is missing"));
        };
        for entry in Manifest::decode(&path, &bytes)?.segments {
            let segment = self.dir.join(files::segment_name(entry.number));
            let length = std::fs::metadata(&segment).map(|meta| meta.len());
            if length.ok() != Some(entry.bytes) {
                return Err(StoreError::corrupt(&segment, 0, "it is missing or cut"));
            }
        }
        files::finish(&path, &self.dir.join(files::MANIFEST_FILE))
    }
}

impl RestoredFile {
    pub fn write(&mut self, part: &[u8]) -> Result<(), StoreError> {
        self.file
            .write_all(part)
            .map_err(StoreError::io(&self.path))?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, part);
        self.bytes += part.len() as u64;
        Ok(())
    }

    /// Ends it, on disk. Its length and its checksum, for the one who knows what they must be.
    pub fn end(self) -> Result<(u64, u32), StoreError> {
        self.file.sync_all().map_err(StoreError::io(&self.path))?;
        Ok((self.bytes, self.crc32c))
    }
}
