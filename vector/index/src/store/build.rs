//! Builds a sealed segment from the live records of others, and writes its file.
//!
//! Invariants: rows lie in the order of the graph; the file has its name only when it is whole and on
//! disk; what was written is opened again, with all its checks, before anything relies on it; a build
//! that is stopped leaves nothing. Vectors are read from where they lie, in the order in which they
//! lie there, twice for the graph and once for the file: a build needs the memory of its graph (see
//! `graph::build`) and some 60 bytes a row.

use super::blocks::BLOCK_BYTES;
use super::dead::Dead;
use super::error::StoreError;
use super::files;
use super::layout::{self, ALIGNMENT_BYTES, HEADER_BYTES, Layout, Section};
use super::score::{FromDisk, to_disk};
use super::sealed::Sealed;
use super::view::{RecentRef, SealedRef};
use super::{codec, manifest};
use crate::graph::{BuildOptions, CodeKind, Input, Packed};
use crate::pace::{Pace, Steps};
use crate::{Moved, NewRow, PayloadIndex, ROWS_MAX, Spec};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Written bytes are brought to the disk when there are so many of them: the last sync is short then,
/// and the log's do not wait for all of a segment.
const SYNC_BYTES: usize = 16 << 20;

/// How a segment is built.
#[derive(Clone, Copy)]
pub struct How<'a> {
    pub codes: CodeKind,
    pub threads: usize,
    pub pace: Pace<'a>,
}

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

    /// For what has no payload index yet: that of all rows, dead ones too.
    fn new_payload_index(&self, spec: &Spec) -> Option<PayloadIndex> {
        let Self::Recent(one) = self else {
            return None;
        };
        let mut index = PayloadIndex::new(&spec.fields);
        for (row, there) in one.rows.iter(one.length) {
            index.add(row, &there.record.payload);
        }
        Some(index)
    }

    fn rows(&self) -> usize {
        match self {
            Self::Sealed(one) => one.segment.rows(),
            Self::Recent(one) => one.rows.len(),
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
    how: How<'_>,
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
    // The same records make the same file.
    rows.sort_unstable();
    let path = dir.join(files::segment_name(number));
    let temporary = files::unfinished(&path);
    write(&temporary, spec, number, sources, &mut rows, how)
        .inspect_err(|_| files::remove(&temporary))?;
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
    rows: &mut Vec<(u64, u32, u32)>,
    how: How<'_>,
) -> Result<(), StoreError> {
    let packed = graph_of(spec, sources, rows, how)?;
    let mut steps = how.pace.steps();
    // Every row has a source: the list was made of them.
    let each = || {
        let placed = |(seq, at, row): &(u64, u32, u32)| {
            let source = sources.get(*at as usize)?;
            Some((*seq, source, *row))
        };
        rows.iter().filter_map(placed)
    };
    let mut out = Writer::new(path)?;
    for kind in packed.sections() {
        out.section(layout::packed(*kind))?;
        for part in packed.section(*kind).chunks(BLOCK_BYTES) {
            steps.step()?;
            out.write(part)?;
        }
    }
    drop(packed);
    out.section(layout::VECTORS)?;
    let (mut from, mut bytes) = (FromDisk::default(), Vec::new());
    for (_, source, row) in each() {
        steps.step()?;
        bytes.clear();
        to_disk(spec.stored, source.vector(row, &mut from)?, &mut bytes);
        out.write(&bytes)?;
    }
    out.section(layout::SEQS)?;
    for (seq, ..) in rows.iter() {
        out.write(&seq.to_le_bytes())?;
    }
    let mut ends = Ends::default();
    let mut table: Vec<(u64, &str, u32)> = Vec::with_capacity(rows.len());
    out.section(layout::IDS)?;
    for (at, (_, source, row)) in (0u32..).zip(each()) {
        steps.step()?;
        let id = source.id(row)?;
        out.write(id.as_bytes())?;
        ends.push(id.len());
        table.push((xxh3_64(id.as_bytes()), id, at));
    }
    ends.write(&mut out, layout::ID_ENDS)?;
    steps.step()?;
    table.sort_unstable();
    steps.step()?;
    out.section(layout::ID_HASHES)?;
    for (hash, ..) in &table {
        out.write(&hash.to_le_bytes())?;
    }
    out.section(layout::ID_ROWS)?;
    for (.., row) in &table {
        out.write(&row.to_le_bytes())?;
    }
    drop(table);
    out.section(layout::PAYLOADS)?;
    for (_, source, row) in each() {
        steps.step()?;
        let bytes = match source {
            Source::Sealed(one) => one.segment.payload_bytes(row)?.to_vec(),
            Source::Recent(one) => match one.rows.get(row) {
                Some(row) => codec::encode_payload(&row.record.id, &row.record.payload)?,
                None => Vec::new(),
            },
        };
        out.write(&bytes)?;
        ends.push(bytes.len());
    }
    ends.write(&mut out, layout::PAYLOAD_ENDS)?;
    out.section(layout::PAYLOAD_INDEX)?;
    steps.step()?;
    out.write(&payload_index(spec, sources, rows, &mut steps)?.to_bytes())?;
    steps.step()?;
    let seqs = rows.iter().map(|(seq, ..)| *seq);
    out.finish(Layout {
        number,
        dim: spec.dim,
        metric: spec.metric,
        stored: spec.stored,
        rows: rows.len(),
        seq_min: seqs.clone().min().unwrap_or(0),
        seq_max: seqs.max().unwrap_or(0),
        body_end: 0,
        table_crc: 0,
        sections: Vec::new(),
    })
}

/// The graph of rows, which are brought into its order.
fn graph_of(
    spec: &Spec,
    sources: &[Source],
    rows: &mut Vec<(u64, u32, u32)>,
    how: How<'_>,
) -> Result<Packed, StoreError> {
    // As they lie in their segments, not as they were written.
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    let place = |row: &u32| {
        rows.get(*row as usize)
            .map(|(_, source, row)| (*source, *row))
    };
    order.sort_unstable_by_key(place);
    let mut from = FromDisk::default();
    let mut read = |row: u32, into: &mut Vec<f32>| {
        into.clear();
        let placed = place(&row).and_then(|(at, row)| Some((sources.get(at as usize)?, row)));
        if let Some((source, row)) = placed {
            into.extend_from_slice(source.vector(row, &mut from)?);
        }
        Ok::<_, StoreError>(())
    };
    let input = Input {
        dim: spec.dim,
        metric: spec.metric,
        order: &order,
        read: &mut read,
    };
    let options = BuildOptions {
        codes: how.codes,
        threads: how.threads,
        ..BuildOptions::default()
    };
    let packed = Packed::build_from(input, &options, how.pace)?;
    let in_order = packed.order().iter();
    *rows = in_order
        .filter_map(|row| rows.get(*row as usize).copied())
        .collect();
    Ok(packed)
}

/// The payload index of the new rows, made of those of the sources.
fn payload_index(
    spec: &Spec,
    sources: &[Source],
    rows: &[(u64, u32, u32)],
    steps: &mut Steps<'_>,
) -> Result<PayloadIndex, StoreError> {
    let mut new_rows: Vec<Vec<u32>> = sources
        .iter()
        .map(|source| vec![u32::MAX; source.rows()])
        .collect();
    for (new, (_, source, old)) in (0u32..).zip(rows) {
        let of_source = new_rows.get_mut(*source as usize);
        if let Some(row) = of_source.and_then(|rows| rows.get_mut(*old as usize)) {
            *row = new;
        }
    }
    let new: Result<Vec<Option<PayloadIndex>>, StoreError> = sources
        .iter()
        .map(|source| {
            steps.step()?;
            Ok(source.new_payload_index(spec))
        })
        .collect();
    let new = new?;
    let indexes = sources.iter().zip(&new).filter_map(|pair| match pair {
        (Source::Sealed(one), _) => Some(&one.segment.payload_index),
        (Source::Recent(_), new) => new.as_ref(),
    });
    let maps: Vec<_> = new_rows
        .iter()
        .map(|rows| {
            move |row: u32| {
                rows.get(row as usize)
                    .copied()
                    .filter(|row| *row != u32::MAX)
            }
        })
        .collect();
    let parts: Vec<Moved<'_>> = indexes
        .zip(&maps)
        .map(|(index, map)| (index, map as &NewRow<'_>))
        .collect();
    let merged = PayloadIndex::merged(&spec.fields, rows.len() as u32, &parts);
    steps.step()?;
    Ok(merged)
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
    /// Up to here it is on the disk.
    synced: usize,
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
            synced: HEADER_BYTES,
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
        if self.at - self.synced >= SYNC_BYTES {
            let synced = self
                .out
                .flush()
                .and_then(|()| self.out.get_ref().sync_data());
            synced.map_err(StoreError::io(&self.path))?;
            self.synced = self.at;
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
