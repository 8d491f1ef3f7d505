//! What fuzz targets and tests of damaged files call: decoders of whole files, and checksums made
//! right again so that what lies behind them is met.

use super::error::StoreError;
use super::files;
use super::layout::{HEADER_BYTES, Layout};
use super::sealed::Sealed;
use super::{blocks, codec, record};
use crate::Spec;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Reads a log file as opening and verifying do. What decodes must encode to the same bytes.
pub fn log(bytes: &[u8], first: u64, dim: usize) -> Result<u64, StoreError> {
    let path = Path::new("fuzzed.log");
    let scanned = record::scan(path, bytes, first, true, &mut |at, record| {
        let bad = |what| StoreError::corrupt(path, at as u64, what);
        let writes = codec::writes(record.body, record.count as usize, dim).map_err(bad)?;
        let mut body = Vec::new();
        for write in &writes {
            codec::put_write(&mut body, write)?;
        }
        if body == record.body {
            Ok(())
        } else {
            Err(bad(
                "it encodes to other bytes: this is a mistake of the codec",
            ))
        }
    })?;
    Ok(scanned.records)
}

/// Opens a segment file and reads all of it in every way there is.
pub fn segment(path: &Path, spec: &Spec) -> Result<(), StoreError> {
    let sealed = Sealed::open(path, spec)?;
    let query = vec![0.5; spec.dim];
    let found = sealed.packed.search(&query, 10, 64, &|row| row % 7 == 3);
    for (row, _) in found {
        sealed.record(row)?;
    }
    let rows = sealed.rows().min(1_000) as u32;
    for row in 0..rows {
        let _ = (
            sealed.record(row),
            sealed.seq(row),
            sealed.entry(row as usize),
        );
    }
    let _ = sealed.row_of(xxh3_64(b"id-1"), "id-1");
    sealed.verify(&mut |_| {})
}

/// Makes the checksums of a file right, as far as it has the shape for it.
pub fn reseal(name: &str, bytes: &mut [u8]) {
    match files::kind(name) {
        files::Kind::Segment(_) => {
            let _ = reseal_segment(bytes);
        }
        files::Kind::Log(_) => {
            let _ = reseal_log(bytes);
        }
        files::Kind::Dead(..) | files::Kind::Own => {
            put_crc(bytes, bytes.len().saturating_sub(4));
        }
        _ => {}
    }
}

/// Puts the checksum of what lies before it.
fn put_crc(bytes: &mut [u8], at: usize) {
    if let Some((head, rest)) = bytes.split_at_mut_checked(at)
        && let Some(four) = rest.first_chunk_mut()
    {
        *four = crc32c::crc32c(head).to_le_bytes();
    }
}

fn reseal_segment(bytes: &mut [u8]) -> Option<()> {
    put_crc(bytes.get_mut(..HEADER_BYTES)?, HEADER_BYTES - 4);
    let length = bytes.len() as u64;
    let header = bytes.get(..HEADER_BYTES)?;
    let (layout, _) = Layout::decode(Path::new("fuzzed.skv"), header, length).ok()?;
    let (body, table) = bytes.split_at_mut_checked(layout.body_end)?;
    let blocks = body.get(HEADER_BYTES..)?.chunks(blocks::BLOCK_BYTES);
    for (four, block) in table.as_chunks_mut::<4>().0.iter_mut().zip(blocks) {
        *four = crc32c::crc32c(block).to_le_bytes();
    }
    let table_crc = crc32c::crc32c(table);
    let (header, _) = Layout {
        table_crc,
        ..layout
    }
    .encode();
    bytes.get_mut(..HEADER_BYTES)?.copy_from_slice(&header);
    Some(())
}

fn reseal_log(bytes: &mut [u8]) -> Option<()> {
    put_crc(bytes.get_mut(..28)?, 24);
    let mut at = record::FILE_HEADER_BYTES;
    while at < bytes.len() {
        let rest = bytes.get_mut(at..)?;
        let length = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        let end = record::RECORD_HEADER_BYTES.checked_add(length)?;
        let record = rest.get_mut(..end)?;
        let crc = record::crc_of(record)?;
        record.get_mut(4..8)?.copy_from_slice(&crc.to_le_bytes());
        at += end.next_multiple_of(8);
    }
    Some(())
}
