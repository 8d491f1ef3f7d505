//! Builds a sealed segment from the live records of others, and writes its file.
//!
//! Invariants: rows ascend by sequence number; the file has its name only when it is whole and on
//! disk; what was written is opened again, with all its checks, before anything relies on it.

use super::blocks::BLOCK_BYTES;
use super::dead::Dead;
use super::error::StoreError;
use super::files;
use super::filter::IndexBuilder;
use super::layout::{self, ALIGNMENT_BYTES, HEADER_BYTES, Layout, Section};
use super::score::{FromDisk, to_disk};
use super::sealed::Sealed;
use super::view::{RecentRef, SealedRef};
use super::{codec, manifest};
use crate::packed::Packed;
use crate::{ROWS_MAX, Spec};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// A segment that records are taken from.
#[derive(Clone)]
pub enum Source {
    Sealed(SealedRef),
    Recent(RecentRef),
}

impl Source {
    pub fn dead(&self) -> &Dead {
        match self {
            Self::Sealed(one) => &one.dead,
            Self::Recent(one) => &one.dead,
        }
    }

    /// Sequence numbers and rows of what is alive.
    fn live(&self) -> Result<Vec<(u64, u32)>, StoreError> {
        match self {
            Self::Sealed(one) => (0..one.segment.rows() as u32)
                .filter(|row| !one.dead.contains(*row))
                .map(|row| Ok((one.segment.seq(row)?, row)))
                .collect(),
            Self::Recent(one) => Ok(one
                .rows
                .iter(one.length)
                .filter(|(row, _)| !one.dead.contains(*row))
                .map(|(row, there)| (there.seq, row))
                .collect()),
        }
    }

    fn id(&self, row: u32) -> Result<&str, StoreError> {
        match self {
            Self::Sealed(one) => one.segment.id(row),
            Self::Recent(one) => Ok(one.rows.get(row).map_or("", |row| &row.record.id)),
        }
    }

    fn vector<'a>(&'a self, row: u32, from: &'a mut FromDisk) -> Result<&'a [f32], StoreError> {
        match self {
            Self::Sealed(one) => one.segment.vector(row, from),
            Self::Recent(one) => {
                let row = one.rows.get(row);
                Ok(row
                    .map(|row| row.record.vector.as_slice())
                    .unwrap_or_default())
            }
        }
    }
}

/// A segment, and where its rows came from.
pub struct Built {
    pub segment: Arc<Sealed>,
    /// For each row its source and the row there.
    origin: Vec<(u32, u32)>,
}

impl Built {
    pub fn entry(&self) -> manifest::Entry {
        manifest::Entry {
            number: self.segment.number(),
            rows: self.segment.rows() as u64,
            bytes: self.segment.file_bytes() as u64,
            header_crc: self.segment.header_crc,
            dead: None,
        }
    }

    /// The tombstones that the rows have where they came from: what was written during the build.
    pub fn dead(&self, sources: &[Source]) -> Dead {
        let dead = Dead::none(self.origin.len());
        for (row, (source, old)) in (0u32..).zip(&self.origin) {
            let source = sources.get(*source as usize);
            if source.is_some_and(|source| source.dead().contains(*old)) {
                dead.mark(row);
            }
        }
        dead
    }
}

/// Nothing, where nothing is alive.
pub fn build(
    dir: &Path,
    spec: &Spec,
    number: u64,
    sources: &[Source],
) -> Result<Option<Built>, StoreError> {
    let mut rows: Vec<(u64, u32, u32)> = Vec::new();
    for (at, source) in (0u32..).zip(sources) {
        rows.extend(source.live()?.iter().map(|(seq, row)| (*seq, at, *row)));
    }
    if rows.is_empty() {
        return Ok(None);
    }
    if rows.len() > ROWS_MAX {
        return Err(crate::IndexError::TooMany(rows.len()).into());
    }
    rows.sort_unstable();
    let path = dir.join(files::segment_name(number));
    let temporary = files::unfinished(&path);
    write(&temporary, spec, number, sources, &rows).inspect_err(|_| files::remove(&temporary))?;
    files::finish(&temporary, &path)?;
    Ok(Some(Built {
        segment: Arc::new(Sealed::open(&path, spec)?),
        origin: rows
            .iter()
            .map(|(_, source, row)| (*source, *row))
            .collect(),
    }))
}

fn write(
    path: &Path,
    spec: &Spec,
    number: u64,
    sources: &[Source],
    rows: &[(u64, u32, u32)],
) -> Result<(), StoreError> {
    // Every row has a source: the list was made of them.
    let each = || {
        let placed = |(seq, at, row): &(u64, u32, u32)| {
            let source = sources.get(*at as usize)?;
            Some((*seq, source, *row))
        };
        rows.iter().filter_map(placed)
    };
    let mut from = FromDisk::default();
    let mut vectors: Vec<f32> = Vec::with_capacity(rows.len() * spec.dim);
    for (_, source, row) in each() {
        vectors.extend_from_slice(source.vector(row, &mut from)?);
    }
    let mut out = Writer::new(path)?;
    let packed = Packed::build(spec.dim, spec.metric, &vectors);
    for (kind, bytes) in packed.sections() {
        out.section(layout::PACKED + kind)?;
        out.write(&bytes)?;
    }
    drop(packed);
    out.section(layout::VECTORS)?;
    let mut bytes = Vec::new();
    for vector in vectors.chunks_exact(spec.dim) {
        bytes.clear();
        to_disk(spec.stored, vector, &mut bytes);
        out.write(&bytes)?;
    }
    drop(vectors);
    out.section(layout::SEQS)?;
    for (seq, ..) in rows {
        out.write(&seq.to_le_bytes())?;
    }
    let mut ends = Ends::default();
    let mut table: Vec<(u64, &str, u32)> = Vec::with_capacity(rows.len());
    out.section(layout::IDS)?;
    for (at, (_, source, row)) in (0u32..).zip(each()) {
        let id = source.id(row)?;
        out.write(id.as_bytes())?;
        ends.push(id.len());
        table.push((xxh3_64(id.as_bytes()), id, at));
    }
    ends.write(&mut out, layout::ID_ENDS)?;
    table.sort_unstable();
    out.section(layout::ID_HASHES)?;
    for (hash, ..) in &table {
        out.write(&hash.to_le_bytes())?;
    }
    out.section(layout::ID_ROWS)?;
    for (.., row) in &table {
        out.write(&row.to_le_bytes())?;
    }
    drop(table);
    let mut index = IndexBuilder::new();
    out.section(layout::PAYLOADS)?;
    for (at, (_, source, row)) in (0u32..).zip(each()) {
        let bytes = match source {
            Source::Sealed(one) => {
                index.add(at, &one.segment.payload(row)?);
                one.segment.payload_bytes(row)?.to_vec()
            }
            Source::Recent(one) => match one.rows.get(row) {
                Some(row) => {
                    index.add(at, &row.record.payload);
                    codec::encode_payload(&row.record.id, &row.record.payload)?
                }
                None => Vec::new(),
            },
        };
        out.write(&bytes)?;
        ends.push(bytes.len());
    }
    ends.write(&mut out, layout::PAYLOAD_ENDS)?;
    let index = index.to_bytes();
    if !index.is_empty() {
        out.section(layout::PAYLOAD_INDEX)?;
        out.write(&index)?;
    }
    out.finish(Layout {
        number,
        dim: spec.dim,
        metric: spec.metric,
        stored: spec.stored,
        rows: rows.len(),
        seq_min: rows.first().map_or(0, |(seq, ..)| *seq),
        seq_max: rows.last().map_or(0, |(seq, ..)| *seq),
        body_end: 0,
        table_crc: 0,
        sections: Vec::new(),
    })
}

/// Where each row's bytes end.
#[derive(Default)]
struct Ends(Vec<u64>, u64);

impl Ends {
    fn push(&mut self, length: usize) {
        self.1 += length as u64;
        self.0.push(self.1);
    }

    fn write(&mut self, out: &mut Writer, kind: u32) -> Result<(), StoreError> {
        out.section(kind)?;
        for end in std::mem::take(self).0 {
            out.write(&end.to_le_bytes())?;
        }
        Ok(())
    }
}

struct Writer {
    path: PathBuf,
    out: BufWriter<File>,
    at: usize,
    sections: Vec<Section>,
    crc: u32,
    crcs: Vec<u32>,
}

impl Writer {
    fn new(path: &Path) -> Result<Self, StoreError> {
        let open = || -> std::io::Result<File> {
            let mut file = File::create(path)?;
            file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
            Ok(file)
        };
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::with_capacity(1 << 20, open().map_err(StoreError::io(path))?),
            at: HEADER_BYTES,
            sections: Vec::new(),
            crc: 0,
            crcs: Vec::new(),
        })
    }

    /// Ends the section before, and begins one.
    fn section(&mut self, kind: u32) -> Result<(), StoreError> {
        let padding = self.at.next_multiple_of(ALIGNMENT_BYTES) - self.at;
        self.bytes([0; ALIGNMENT_BYTES].get(..padding).unwrap_or_default())?;
        self.sections.push(Section {
            kind,
            at: self.at,
            bytes: 0,
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(section) = self.sections.last_mut() {
            section.bytes += bytes.len();
        }
        self.bytes(bytes)
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - (self.at - HEADER_BYTES) % BLOCK_BYTES;
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            self.out
                .write_all(head)
                .map_err(StoreError::io(&self.path))?;
            self.crc = crc32c::crc32c_append(self.crc, head);
            self.at += head.len();
            if head.len() == room {
                self.crcs.push(std::mem::take(&mut self.crc));
            }
            bytes = rest;
        }
        Ok(())
    }

    fn finish(mut self, mut layout: Layout) -> Result<(), StoreError> {
        if !(self.at - HEADER_BYTES).is_multiple_of(BLOCK_BYTES) {
            self.crcs.push(self.crc);
        }
        let table: Vec<u8> = self.crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        layout.body_end = self.at;
        layout.table_crc = crc32c::crc32c(&table);
        layout.sections = self.sections;
        let (header, _) = layout.encode();
        let write = || -> std::io::Result<()> {
            self.out.write_all(&table)?;
            let file = self.out.into_inner()?;
            file.write_all_at(&header, 0)?;
            file.sync_all()
        };
        write().map_err(StoreError::io(&self.path))
    }
}
