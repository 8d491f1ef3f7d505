//! Snapshots: a copy of a collection at one sequence number, and the way back.
//!
//! Invariants: the list of files, with their lengths and checksums, is written last: a folder without
//! it is no snapshot; what is restored is checked while it is copied, and is a collection only when
//! all of it is there.

use super::capture::{self, CapturedReader};
use super::codec::{self, Bytes, Decoded};
use super::error::StoreError;
use super::files;
use super::manifest::checked;
use super::restore::{Restore, is_content};
use super::shared::Shared;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
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
            if !is_content(name) {
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
    let capture = capture::take(shared)?;
    let copied = capture.files().iter().map(|file| {
        let (bytes, crc32c) = copy(file.reader(), &folder.join(file.name()))?;
        Ok(SnapshotFile {
            name: file.name().into(),
            bytes,
            crc32c,
        })
    });
    let info = SnapshotInfo {
        seq: capture.seq(),
        files: copied.collect::<Result<_, StoreError>>()?,
    };
    files::sync_dir(folder)?;
    files::write_whole(&folder.join(files::SNAPSHOT_FILE), &info.encode())?;
    Ok(info)
}

/// Writes a file to disk; its length and checksum.
fn copy(mut from: CapturedReader, path: &Path) -> Result<(u64, u32), StoreError> {
    let io = |error| StoreError::io(path)(error);
    let mut file = File::create(path).map_err(io)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut bytes, mut crc) = (0, 0);
    loop {
        let count = from.read(&mut chunk)?;
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
    let restore = Restore::begin(dir)?;
    for file in &info.files {
        restore_file(folder, &restore, file)?;
    }
    if !info
        .files
        .iter()
        .any(|file| *file.name == *files::MANIFEST_FILE)
    {
        let path = folder.join(files::SNAPSHOT_FILE);
        return Err(StoreError::corrupt(&path, 12, "it names no manifest"));
    }
    restore.finish()
}

fn restore_file(folder: &Path, restore: &Restore, file: &SnapshotFile) -> Result<(), StoreError> {
    let path = folder.join(&*file.name);
    let mut from = File::open(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => StoreError::corrupt(&path, 0, "it is missing"),
        _ => StoreError::Io {
            path: path.clone(),
            source: Arc::new(error),
        },
    })?;
    let mut to = restore.file(&file.name)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).map_err(StoreError::io(&path))?;
        if count == 0 {
            break;
        }
        to.write(chunk.get(..count).unwrap_or_default())?;
    }
    if to.end()? != (file.bytes, file.crc32c) {
        let what = "its length or checksum is not what the snapshot says";
        return Err(StoreError::corrupt(&path, 0, what));
    }
    Ok(())
}
