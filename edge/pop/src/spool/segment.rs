//! Segment files of the spool: append-only records, each with its length and CRC32C.
//!
//! Invariant: reading stops at the first record that is not whole; what stands before it is intact.
//! A record is `u32` length of the payload, `u32` CRC32C of sequence and payload, `u64` sequence, then
//! the payload; all little endian. A file begins with [`MAGIC`] and is named by its first sequence.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub const MAGIC: [u8; 8] = *b"SKSPOOL\x01";
const HEAD_BYTES: usize = 16;
/// Largest payload, in bytes: an event is far smaller.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Appends a record to a buffer.
pub fn put(out: &mut Vec<u8>, seq: u64, payload: &[u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&seq.to_le_bytes()), payload);
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(payload);
}

/// The records of a segment, and how many of its bytes are intact.
pub struct Scan {
    pub records: Vec<(u64, Vec<u8>)>,
    pub intact_bytes: u64,
    pub file_bytes: u64,
}

/// Reads a segment up to the first record that is not whole or not in order.
pub fn scan(path: &Path) -> io::Result<Scan> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut intact = 0;
    if let Some(mut rest) = bytes.strip_prefix(&MAGIC[..]) {
        intact = MAGIC.len();
        while let Some((seq, payload, after)) = take(rest) {
            if records.last().is_some_and(|(last, _)| seq != last + 1) {
                break;
            }
            records.push((seq, payload.to_vec()));
            intact += rest.len() - after.len();
            rest = after;
        }
    }
    Ok(Scan {
        records,
        intact_bytes: intact as u64,
        file_bytes: bytes.len() as u64,
    })
}

fn take(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (length, head) = head.split_first_chunk::<4>()?;
    let (crc, seq) = head.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(length)?;
    if crc32c::crc32c_append(crc32c::crc32c(seq), payload) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((u64::from_le_bytes(seq.try_into().ok()?), payload, rest))
}

/// Segments of a folder by their first sequence, in order.
pub fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let first = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".seg"));
        if let Some(first) = first.and_then(|first| first.parse().ok()) {
            found.push((first, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A new, durable segment.
pub fn create(dir: &Path, first: u64) -> io::Result<(PathBuf, File)> {
    use std::io::Write as _;
    let path = dir.join(format!("{first:020}.seg"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    file.write_all(&MAGIC)?;
    file.sync_all()?;
    crate::files::sync_dir(dir)?;
    Ok((path, file))
}
