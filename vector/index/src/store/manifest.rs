//! `MANIFEST`: which sealed segments there are, and up to where they hold the log.
//!
//! Invariants: it is replaced whole; a segment, its tombstones and the log that follows are on disk
//! before it names them, and are removed only after it no longer does. All writes up to `checkpoint`
//! are in the segments and tombstones; those after it are in the log.

use super::codec::{self, Bytes, Decoded};
use super::error::StoreError;
use super::{SEQ_MAX, files};
use crate::{ROWS_MAX, Spec};
use std::path::Path;

const MAGIC: &[u8; 8] = b"SKVMANIF";
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub spec: Spec,
    /// All writes up to this sequence number are in the segments.
    pub checkpoint: u64,
    /// The number that the next segment gets.
    pub next_segment: u64,
    pub segments: Vec<Entry>,
}

/// A sealed segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    pub number: u64,
    pub rows: u64,
    /// Length of the file.
    pub bytes: u64,
    /// CRC32C in the file's header: another segment under this name is found out.
    pub header_crc: u32,
    /// The sequence number in the name of the file of its tombstones, if it has any.
    pub dead: Option<u64>,
}

impl Manifest {
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            checkpoint: 0,
            next_segment: 1,
            segments: Vec::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        codec::put_spec(&mut out, &self.spec);
        out.extend_from_slice(&self.checkpoint.to_le_bytes());
        out.extend_from_slice(&self.next_segment.to_le_bytes());
        codec::put_u32(&mut out, self.segments.len());
        for entry in &self.segments {
            out.extend_from_slice(&entry.number.to_le_bytes());
            out.extend_from_slice(&entry.rows.to_le_bytes());
            out.extend_from_slice(&entry.bytes.to_le_bytes());
            out.extend_from_slice(&entry.header_crc.to_le_bytes());
            out.push(u8::from(entry.dead.is_some()));
            out.extend_from_slice(&entry.dead.unwrap_or(0).to_le_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        files::write_whole(&dir.join(files::MANIFEST_FILE), &self.encode())
    }

    pub fn read(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(files::MANIFEST_FILE);
        let Some(bytes) = files::read_small(&path)? else {
            return Err(StoreError::corrupt(&path, 0, "it is missing"));
        };
        Self::decode(&path, &bytes)
    }

    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let body = checked(path, bytes, MAGIC, VERSION)?;
        let manifest =
            Self::body(&mut Bytes(body)).map_err(|what| StoreError::corrupt(path, 12, what))?;
        Ok(manifest)
    }

    fn body(bytes: &mut Bytes<'_>) -> Decoded<Self> {
        let spec = codec::spec(bytes)?;
        let checkpoint = bytes.u64()?;
        let next_segment = bytes.u64()?;
        let count = bytes.u32()?;
        if checkpoint > SEQ_MAX || next_segment > SEQ_MAX {
            return Err("a number that cannot be");
        }
        let mut segments: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let number = bytes.u64()?;
            let rows = bytes.u64()?;
            let length = bytes.u64()?;
            let header_crc = bytes.u32()?;
            let has_dead = bytes.u8()?;
            let dead = bytes.u64()?;
            let again = segments.iter().any(|one| one.number == number);
            if rows == 0
                || rows > ROWS_MAX as u64
                || number >= next_segment
                || again
                || has_dead > 1
            {
                return Err("a segment that cannot be");
            }
            segments.push(Entry {
                number,
                rows,
                bytes: length,
                header_crc,
                dead: (has_dead == 1).then_some(dead),
            });
        }
        bytes.end()?;
        Ok(Self {
            spec,
            checkpoint,
            next_segment,
            segments,
        })
    }
}

/// What lies between the magic number with the version and the CRC32C of all before it.
pub fn checked<'a>(
    path: &Path,
    bytes: &'a [u8],
    magic: &[u8; 8],
    version: u32,
) -> Result<&'a [u8], StoreError> {
    let bad = |at: usize, what: &str| StoreError::corrupt(path, at as u64, what);
    let (all, crc) = bytes
        .split_last_chunk::<4>()
        .ok_or_else(|| bad(0, "it is too short"))?;
    let rest = all
        .strip_prefix(magic)
        .ok_or_else(|| bad(0, "it begins with something else"))?;
    let (found, body) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| bad(8, "it is too short"))?;
    if crc32c::crc32c(all) != u32::from_le_bytes(*crc) {
        return Err(bad(all.len(), "its checksum is wrong"));
    }
    let found = u32::from_le_bytes(*found);
    if found > version {
        return Err(StoreError::Newer {
            file: path.to_owned(),
            found,
            known: version,
        });
    }
    if found != version {
        return Err(bad(8, "an unknown version"));
    }
    Ok(body)
}
