//! Snapshots: a copy of a collection at one sequence number, and the way back.
//!
//! Invariants: the list of files, with their lengths and checksums, is written last: a folder without
//! it is no snapshot; what is restored is checked while it is copied, and is a collection only when
//! all of it is there. Files are copied from handles that were opened together, so that a compaction
//! may remove them meanwhile.

use super::codec::{self, Bytes, Decoded};
use super::dead::Dead;
use super::error::StoreError;
use super::files::{self, Kind, Lock};
use super::log;
use super::manifest::{Manifest, checked};
use super::shared::Shared;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"SKVSNAP\0";
const VERSION: u32 = 1;
/// Copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What a snapshot is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// It holds all writes up to this one, and none after.
    pub seq: u64,
    /// In the order in which they are copied.
    pub files: Vec<SnapshotFile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    pub name: Box<str>,
    pub bytes: u64,
    pub crc32c: u32,
}

impl SnapshotInfo {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        codec::put_u32(&mut out, self.files.len());
        for file in &self.files {
            codec::put_text(&mut out, &file.name);
            out.extend_from_slice(&file.bytes.to_le_bytes());
            out.extend_from_slice(&file.crc32c.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the list of a snapshot. The files themselves are not looked at.
    pub fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(files::SNAPSHOT_FILE);
        let Some(bytes) = files::read_small(&path)? else {
            return Err(StoreError::Missing {
                dir: folder.to_owned(),
            });
        };
        let body = checked(&path, &bytes, MAGIC, VERSION)?;
        Self::body(&mut Bytes(body)).map_err(|what| StoreError::corrupt(&path, 12, what))
    }

    fn body(bytes: &mut Bytes<'_>) -> Decoded<Self> {
        let seq = bytes.u64()?;
        let count = bytes.u32()?;
        let mut all = Vec::new();
        for _ in 0..count {
            let length = bytes.u32()? as usize;
            let name = bytes.text(length)?;
            let named = match files::kind(name) {
                Kind::Log(_) | Kind::Segment(_) | Kind::Dead(..) => true,
                _ => name == files::FORMAT_FILE || name == files::MANIFEST_FILE,
            };
            // A name becomes a path: only those that a collection has.
            if !named || name.contains('/') {
                return Err("a file that no collection has");
            }
            all.push(SnapshotFile {
                name: name.into(),
                bytes: bytes.u64()?,
                crc32c: bytes.u32()?,
            });
        }
        bytes.end()?;
        Ok(Self { seq, files: all })
    }
}

pub fn take(shared: &Shared, folder: &Path) -> Result<SnapshotInfo, StoreError> {
    std::fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
    if !files::list(folder)?.is_empty() {
        return Err(StoreError::Exists {
            dir: folder.to_owned(),
        });
    }
    // All of one moment: no manifest and no write in between.
    let (mut manifest, view, logs, seq) = {
        let kept = shared.manifest.lock();
        let _state = shared.state.lock();
        let logs = shared.log_files.after(kept.manifest.checkpoint)?;
        let view = shared.memory.view.load().pinned();
        (kept.manifest.clone(), view, logs, shared.memory.applied())
    };
    let mut copy = Copy {
        folder,
        files: Vec::new(),
    };
    for one in &view.sealed {
        let name = files::segment_name(one.segment.number());
        copy.file(
            &name,
            &one.segment.path,
            &one.segment.file,
            one.segment.file_bytes() as u64,
        )?;
        let dead = one.dead.rows();
        let entries = manifest.segments.iter_mut();
        for entry in entries.filter(|entry| entry.number == one.segment.number()) {
            entry.dead = (!dead.is_empty()).then_some(seq);
            if entry.dead.is_some() {
                let bytes = Dead::encode(&dead, entry.number, seq);
                copy.bytes(&files::dead_name(entry.number, seq), &bytes)?;
            }
        }
    }
    for (known, file) in &logs {
        let name = files::log_name(known.first);
        copy.file(&name, &shared.dir.join(&name), file, known.bytes)?;
    }
    copy.bytes(
        files::FORMAT_FILE,
        format!("{} {}\n", files::FORMAT_NAME, files::FORMAT).as_bytes(),
    )?;
    copy.bytes(files::MANIFEST_FILE, &manifest.encode())?;
    let info = SnapshotInfo {
        seq,
        files: copy.files,
    };
    files::sync_dir(folder)?;
    files::write_whole(&folder.join(files::SNAPSHOT_FILE), &info.encode())?;
    Ok(info)
}

/// Writes the files of a snapshot, and notes them.
struct Copy<'a> {
    folder: &'a Path,
    files: Vec<SnapshotFile>,
}

impl Copy<'_> {
    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let mut left = bytes;
        self.write(name, &mut |chunk| {
            let count = left.read(chunk);
            count.map_err(StoreError::io(self.folder))
        })
    }

    fn file(
        &mut self,
        name: &str,
        path: &Path,
        from: &File,
        length: u64,
    ) -> Result<(), StoreError> {
        let mut at = 0;
        self.write(name, &mut |chunk| {
            let left = usize::try_from(length - at).unwrap_or(usize::MAX);
            let most = chunk.len().min(left);
            let chunk = chunk.get_mut(..most).unwrap_or_default();
            let count = from.read_at(chunk, at).map_err(StoreError::io(path))?;
            at += count as u64;
            Ok(count)
        })
    }

    fn write(&mut self, name: &str, read: Next<'_>) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        let (bytes, crc32c) = write_file(&path, read)?;
        self.files.push(SnapshotFile {
            name: name.into(),
            bytes,
            crc32c,
        });
        Ok(())
    }
}

/// Fills a chunk and says how much of it; 0 at the end.
type Next<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<usize, StoreError>;

/// Writes a file to disk; its length and checksum.
fn write_file(path: &Path, read: Next<'_>) -> Result<(u64, u32), StoreError> {
    let io = |error| StoreError::io(path)(error);
    let mut file = File::create(path).map_err(io)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut bytes, mut crc) = (0, 0);
    loop {
        let count = read(&mut chunk)?;
        if count == 0 {
            break;
        }
        let part = chunk.get(..count).unwrap_or_default();
        file.write_all(part).map_err(io)?;
        crc = crc32c::crc32c_append(crc, part);
        bytes += count as u64;
    }
    file.sync_all().map_err(io)?;
    Ok((bytes, crc))
}

/// Makes a folder that can be opened of a snapshot. Ended in the middle, it can be done again.
pub fn restore(folder: &Path, dir: &Path) -> Result<(), StoreError> {
    let info = SnapshotInfo::read(folder)?;
    std::fs::create_dir_all(dir).map_err(StoreError::io(dir))?;
    let _lock = Lock::take(dir)?;
    if dir.join(files::MANIFEST_FILE).exists() {
        return Err(StoreError::Exists {
            dir: dir.to_owned(),
        });
    }
    // A log that an earlier attempt left would be read.
    for first in log::found(dir)? {
        files::remove(&dir.join(files::log_name(first.first)));
    }
    let manifest = |file: &&SnapshotFile| *file.name == *files::MANIFEST_FILE;
    for file in info.files.iter().filter(|file| !manifest(file)) {
        restore_file(folder, dir, file, &file.name)?;
    }
    files::sync_dir(dir)?;
    let Some(last) = info.files.iter().find(manifest) else {
        let path = folder.join(files::SNAPSHOT_FILE);
        return Err(StoreError::corrupt(&path, 12, "it names no manifest"));
    };
    let temporary = format!("{}{}", files::MANIFEST_FILE, files::UNFINISHED);
    restore_file(folder, dir, last, &temporary)?;
    let path = dir.join(&temporary);
    let bytes = files::read_small(&path)?.unwrap_or_default();
    Manifest::decode(&path, &bytes)?;
    files::finish(&path, &dir.join(files::MANIFEST_FILE))
}

fn restore_file(
    folder: &Path,
    dir: &Path,
    file: &SnapshotFile,
    name: &str,
) -> Result<(), StoreError> {
    let path = folder.join(&*file.name);
    let mut from = File::open(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => StoreError::corrupt(&path, 0, "it is missing"),
        _ => StoreError::Io {
            path: path.clone(),
            source: Arc::new(error),
        },
    })?;
    let mut read = |chunk: &mut [u8]| from.read(chunk).map_err(StoreError::io(&path));
    let (bytes, crc) = write_file(&dir.join(name), &mut read)?;
    if (bytes, crc) != (file.bytes, file.crc32c) {
        let what = "its length or checksum is not what the snapshot says";
        return Err(StoreError::corrupt(&path, 0, what));
    }
    Ok(())
}
