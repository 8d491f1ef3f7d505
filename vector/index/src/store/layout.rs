//! The header of a segment file: what it holds, and where. `docs/formats/vector.md` has the bytes.
//!
//! Invariants: a header that passes describes sections that lie in the file, in order, aligned,
//! without overlap, each as long as the rows make it; nothing is allocated before that is known.

use super::codec::{self, Bytes};
use super::error::StoreError;
use super::score::width;
use super::{blocks::BLOCK_BYTES, manifest};
use crate::{Metric, ROWS_MAX, Spec, Stored, graph};
use std::path::Path;

const MAGIC: &[u8; 8] = b"SKVSEGM\0";
/// Of files whose nodes have bytes, and bits, which programs that know only the first refuse.
const VERSION_BYTES: u32 = 1;
const VERSION_BITS: u32 = 2;
pub const HEADER_BYTES: usize = 4096;
pub const ALIGNMENT_BYTES: usize = 64;
const SECTIONS_MAX: usize = 128;

/// Kinds of sections. Those of the packed graph have their own kind added to [`PACKED`].
pub const VECTORS: u32 = 1;
pub const IDS: u32 = 2;
pub const ID_ENDS: u32 = 3;
pub const ID_HASHES: u32 = 4;
pub const ID_ROWS: u32 = 5;
pub const SEQS: u32 = 6;
pub const PAYLOADS: u32 = 7;
pub const PAYLOAD_ENDS: u32 = 8;
pub const PAYLOAD_INDEX: u32 = 9;
pub const PACKED: u32 = 0x1_0000;

/// The kind of a piece of the packed graph.
pub const fn packed(section: graph::Section) -> u32 {
    PACKED + section as u32
}

pub fn name(kind: u32) -> &'static str {
    match kind {
        VECTORS => "vectors",
        IDS => "ids",
        ID_ENDS => "id ends",
        ID_HASHES => "id hashes",
        ID_ROWS => "id rows",
        SEQS => "sequence numbers",
        PAYLOADS => "payloads",
        PAYLOAD_ENDS => "payload ends",
        PAYLOAD_INDEX => "payload index",
        PACKED.. => match kind - PACKED {
            1 => "graph codes",
            2 => "graph scales",
            3 => "graph biases",
            4 => "graph links",
            5 => "graph entries",
            6 => "graph first rows",
            7 => "graph bits",
            8 => "graph centres",
            _ => "unknown",
        },
        _ => "unknown",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Section {
    pub kind: u32,
    /// Where it begins in the file.
    pub at: usize,
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    pub number: u64,
    pub dim: usize,
    pub metric: Metric,
    pub stored: Stored,
    pub rows: usize,
    pub seq_min: u64,
    pub seq_max: u64,
    /// Where the blocks end and their checksums begin.
    pub body_end: usize,
    /// CRC32C of the checksums.
    pub table_crc: u32,
    pub sections: Vec<Section>,
}

impl Layout {
    pub fn blocks(&self) -> usize {
        self.body_end
            .saturating_sub(HEADER_BYTES)
            .div_ceil(BLOCK_BYTES)
    }

    pub fn file_bytes(&self) -> usize {
        self.body_end.saturating_add(self.blocks() * 4)
    }

    fn version(&self) -> u32 {
        match self.section(packed(graph::Section::Bits)) {
            Some(_) => VERSION_BITS,
            None => VERSION_BYTES,
        }
    }

    pub fn section(&self, kind: u32) -> Option<Section> {
        self.sections.iter().find(|one| one.kind == kind).copied()
    }

    /// The header and its own checksum, which the manifest repeats.
    pub fn encode(&self) -> (Vec<u8>, u32) {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.version().to_le_bytes());
        codec::put_u32(&mut out, self.dim);
        out.push(codec::metric_number(self.metric));
        out.push(codec::stored_number(self.stored));
        out.extend_from_slice(&[0; 2]);
        codec::put_u32(&mut out, self.sections.len());
        for number in [
            self.number,
            self.rows as u64,
            self.seq_min,
            self.seq_max,
            self.body_end as u64,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.table_crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for section in &self.sections {
            out.extend_from_slice(&section.kind.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&(section.at as u64).to_le_bytes());
            out.extend_from_slice(&(section.bytes as u64).to_le_bytes());
        }
        out.resize(HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Reads the header of a file of `file_bytes`. Its checksum comes along.
    pub fn decode(path: &Path, header: &[u8], file_bytes: u64) -> Result<(Self, u32), StoreError> {
        let is_first = header.get(8..12) == Some(&VERSION_BYTES.to_le_bytes());
        let version = if is_first {
            VERSION_BYTES
        } else {
            VERSION_BITS
        };
        let body = manifest::checked(path, header, MAGIC, version)?;
        let bad = |what: &str| StoreError::corrupt(path, 0, what);
        let crc = header.last_chunk().map(|four| u32::from_le_bytes(*four));
        let layout = Self::body(&mut Bytes(body)).map_err(bad)?;
        layout.check(file_bytes).map_err(bad)?;
        if layout.version() != version {
            return Err(bad("its version is not that of its sections"));
        }
        Ok((layout, crc.unwrap_or_default()))
    }

    fn body(bytes: &mut Bytes<'_>) -> Result<Self, &'static str> {
        let whole = |value: u64| usize::try_from(value).map_err(|_| "a number that cannot be");
        let dim = bytes.u32()? as usize;
        let metric = codec::metric(bytes.u8()?)?;
        let stored = codec::stored(bytes.u8()?)?;
        bytes.take(2)?;
        let count = bytes.u32()? as usize;
        let number = bytes.u64()?;
        let rows = whole(bytes.u64()?)?;
        let seq_min = bytes.u64()?;
        let seq_max = bytes.u64()?;
        let body_end = whole(bytes.u64()?)?;
        let table_crc = bytes.u32()?;
        bytes.take(4)?;
        if count > SECTIONS_MAX {
            return Err("too many sections");
        }
        let mut sections = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = bytes.u32()?;
            bytes.take(4)?;
            sections.push(Section {
                kind,
                at: whole(bytes.u64()?)?,
                bytes: whole(bytes.u64()?)?,
            });
        }
        Ok(Self {
            number,
            dim,
            metric,
            stored,
            rows,
            seq_min,
            seq_max,
            body_end,
            table_crc,
            sections,
        })
    }

    fn check(&self, file_bytes: u64) -> Result<(), &'static str> {
        if self.rows == 0 || self.rows > ROWS_MAX || self.seq_min > self.seq_max {
            return Err("rows that cannot be");
        }
        if self.body_end < HEADER_BYTES
            || self.body_end as u64 > file_bytes
            || self.file_bytes() as u64 != file_bytes
        {
            return Err("its length is not what its header says");
        }
        let mut end = HEADER_BYTES;
        for section in &self.sections {
            let again = self
                .sections
                .iter()
                .filter(|one| one.kind == section.kind)
                .count()
                > 1;
            let next = section.at.checked_add(section.bytes);
            let next = next.filter(|next| *next <= self.body_end);
            let fits = section.at >= end && section.at.is_multiple_of(ALIGNMENT_BYTES);
            match next {
                Some(next) if fits && !again => end = next,
                _ => return Err("a section that does not fit"),
            }
        }
        let vector = self.dim.saturating_mul(width(self.stored));
        for (kind, bytes_each) in [
            (VECTORS, vector),
            (ID_ENDS, 8),
            (ID_HASHES, 8),
            (ID_ROWS, 4),
            (SEQS, 8),
            (PAYLOAD_ENDS, 8),
        ] {
            let bytes = self.section(kind).map(|section| section.bytes);
            if bytes.is_none() || bytes != self.rows.checked_mul(bytes_each) {
                return Err("a section has a wrong length, or is missing");
            }
        }
        let whole = [IDS, PAYLOADS, PAYLOAD_INDEX];
        if whole.iter().any(|kind| self.section(*kind).is_none()) {
            return Err("a section is missing");
        }
        Ok(())
    }

    pub fn fits(&self, spec: &Spec) -> bool {
        (self.dim, self.metric, self.stored) == (spec.dim, spec.metric, spec.stored)
    }
}
