//! The bytes of a log file: its header, its records, and how they are told from a torn end.
//!
//! Invariants: what is claimed is checked against the bytes that are there before it is used; an
//! invalid record is the end of the last file only where no valid one follows.

use super::error::StoreError;
use super::{SEQ_MAX, codec};
use std::path::Path;

const MAGIC: &[u8; 8] = b"SKVLOG\0\0";
const VERSION: u32 = 1;
pub const FILE_HEADER_BYTES: usize = 32;
pub const RECORD_HEADER_BYTES: usize = 24;
const KIND_WRITES: u8 = 1;
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

/// The checksum that a whole record should have.
pub fn crc_of(record: &[u8]) -> Option<u32> {
    let (header, body) = record.split_first_chunk()?;
    Some(record_crc(header, body))
}

/// Whole records begin at multiples of 8.
pub fn aligned(at: usize) -> usize {
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
pub fn claims(header: &[u8; RECORD_HEADER_BYTES]) -> Result<(usize, u64, u32), &'static str> {
    let mut bytes = codec::Bytes(header);
    let length = bytes.u32()? as usize;
    bytes.u32()?;
    let first = bytes.u64()?;
    let kind = bytes.u32()?;
    let count = bytes.u32()?;
    if kind != u32::from(KIND_WRITES) {
        return Err("a record of an unknown kind");
    }
    let last = first.checked_add(u64::from(count));
    if count == 0 || first == 0 || last.is_none_or(|last| last > SEQ_MAX) {
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
    pub marks: Vec<(u64, u64)>,
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

pub fn mark(marks: &mut Vec<(u64, u64)>, first: u64, at: u64) {
    if marks.last().is_none_or(|(_, last)| at - last >= MARK_BYTES) {
        marks.push((first, at));
    }
}

pub fn header(first: u64) -> [u8; FILE_HEADER_BYTES] {
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
