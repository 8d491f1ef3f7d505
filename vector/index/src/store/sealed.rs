//! A sealed segment: a file that never changes, its graph and payload index in memory, the rest mapped.
//!
//! Invariants: rows lie in the order of the graph, near ones together; an id has one row at most; opening reads the header,
//! the checksums, the graph and the payload index, and nothing else; every place that the file names is checked before
//! it is used, whatever the checksums say.

use super::blocks::{self, BLOCK_BYTES, Blocks};
use super::codec;
use super::error::StoreError;
use super::files;
use super::layout::{self, HEADER_BYTES, Layout, Section};
use super::score::{FromDisk, width};
use crate::PayloadIndex;
use crate::graph::{self, Packed};
use crate::{Record, Spec};
use skerry_types::Attributes;
use std::fs::File;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

pub struct Sealed {
    pub path: PathBuf,
    pub layout: Layout,
    pub header_crc: u32,
    pub packed: Packed,
    pub payload_index: PayloadIndex,
    /// Open as long as the segment is: it can be copied although it was removed.
    pub file: File,
    blocks: Blocks,
    vectors: Section,
    ids: Section,
    id_ends: Section,
    id_hashes: Section,
    id_rows: Section,
    seqs: Section,
    payloads: Section,
    payload_ends: Section,
}

impl Sealed {
    pub fn open(path: &Path, spec: &Spec) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StoreError::corrupt(path, 0, "it is missing"),
            _ => StoreError::io(path)(error),
        })?;
        let length = file.metadata().map_err(StoreError::io(path))?.len();
        let map = if length == 0 {
            return Err(StoreError::corrupt(path, 0, "it is empty"));
        } else {
            blocks::map(path, &file)?
        };
        let header = map.get(..HEADER_BYTES).unwrap_or_default();
        let (layout, header_crc) = Layout::decode(path, header, map.len() as u64)?;
        if !layout.fits(spec) {
            return Err(StoreError::corrupt(path, 12, "it is of another collection"));
        }
        let table = map.get(layout.body_end..).unwrap_or_default();
        if crc32c::crc32c(table) != layout.table_crc {
            let at = layout.body_end as u64;
            return Err(StoreError::corrupt(
                path,
                at,
                "the checksums have a wrong checksum",
            ));
        }
        let (fours, _) = table.as_chunks::<4>();
        let crcs = fours.iter().map(|four| u32::from_le_bytes(*four)).collect();
        let blocks = Blocks::new(path, map, HEADER_BYTES, layout.body_end, crcs);
        let packed = read_packed(path, &layout, &blocks)?;
        let payload_index = read_payload_index(path, spec, &layout, &blocks)?;
        let section = |kind| layout.section(kind).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            header_crc,
            packed,
            payload_index,
            file,
            blocks,
            vectors: section(layout::VECTORS),
            ids: section(layout::IDS),
            id_ends: section(layout::ID_ENDS),
            id_hashes: section(layout::ID_HASHES),
            id_rows: section(layout::ID_ROWS),
            seqs: section(layout::SEQS),
            payloads: section(layout::PAYLOADS),
            payload_ends: section(layout::PAYLOAD_ENDS),
            layout,
        })
    }

    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    pub fn number(&self) -> u64 {
        self.layout.number
    }

    pub fn file_bytes(&self) -> usize {
        self.blocks.file_bytes()
    }

    /// A hash of the header and the checksums, and by them of all that it holds.
    pub fn identity(&self) -> u128 {
        self.blocks.identity()
    }

    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub fn corrupt(&self, section: Section, what: &str) -> StoreError {
        let what = format!("section {}: {what}", layout::name(section.kind));
        StoreError::corrupt(&self.path, section.at as u64, what)
    }

    fn bytes(&self, section: Section, from: usize, length: usize) -> Result<&[u8], StoreError> {
        let name = layout::name(section.kind);
        if from
            .checked_add(length)
            .is_none_or(|end| end > section.bytes)
        {
            return Err(self.corrupt(section, &format!("no {length} bytes at {from}")));
        }
        self.blocks.bytes(name, section.at + from, length)
    }

    fn u64_at(&self, section: Section, index: usize) -> Result<u64, StoreError> {
        let bytes = self.bytes(section, index.saturating_mul(8), 8)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |eight| u64::from_le_bytes(*eight)))
    }

    fn u32_at(&self, section: Section, index: usize) -> Result<u32, StoreError> {
        let bytes = self.bytes(section, index.saturating_mul(4), 4)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |four| u32::from_le_bytes(*four)))
    }

    /// The bytes of a row in a section, of which another one has the ends.
    fn part(&self, section: Section, ends: Section, row: u32) -> Result<&[u8], StoreError> {
        let row = row as usize;
        let from = match row.checked_sub(1) {
            Some(before) => self.u64_at(ends, before)?,
            None => 0,
        };
        let to = self.u64_at(ends, row)?;
        let place = |value| usize::try_from(value).ok();
        match (place(from), to.checked_sub(from).and_then(place)) {
            (Some(from), Some(length)) => self.bytes(section, from, length),
            _ => Err(self.corrupt(ends, "they do not ascend")),
        }
    }

    pub fn id(&self, row: u32) -> Result<&str, StoreError> {
        std::str::from_utf8(self.part(self.ids, self.id_ends, row)?)
            .map_err(|_| self.corrupt(self.ids, "an id is not UTF-8"))
    }

    pub fn seq(&self, row: u32) -> Result<u64, StoreError> {
        self.u64_at(self.seqs, row as usize)
    }

    pub fn payload_bytes(&self, row: u32) -> Result<&[u8], StoreError> {
        self.part(self.payloads, self.payload_ends, row)
    }

    pub fn payload(&self, row: u32) -> Result<Attributes, StoreError> {
        codec::decode_payload(self.payload_bytes(row)?)
            .map_err(|what| self.corrupt(self.payloads, what))
    }

    pub fn vector_bytes(&self, row: u32) -> Result<&[u8], StoreError> {
        let length = self.layout.dim * width(self.layout.stored);
        self.bytes(self.vectors, (row as usize).saturating_mul(length), length)
    }

    pub fn vector<'a>(&'a self, row: u32, into: &'a mut FromDisk) -> Result<&'a [f32], StoreError> {
        Ok(into.read(self.layout.stored, self.vector_bytes(row)?))
    }

    pub fn record(&self, row: u32) -> Result<Record, StoreError> {
        let mut vector = FromDisk::default();
        let vector = self.vector(row, &mut vector)?.to_vec();
        Ok(Record {
            id: self.id(row)?.into(),
            vector,
            payload: self.payload(row)?,
        })
    }

    /// The hash and the row at a place of the table, which is ordered by hash, then id.
    pub fn entry(&self, place: usize) -> Result<(u64, u32), StoreError> {
        let row = self.u32_at(self.id_rows, place)?;
        if row as usize >= self.rows() {
            return Err(self.corrupt(self.id_rows, "a row that is none"));
        }
        Ok((self.u64_at(self.id_hashes, place)?, row))
    }

    /// The first place of the table that does not come before (`hash`, `id`).
    pub fn place(&self, hash: u64, id: &str) -> Result<usize, StoreError> {
        let (mut low, mut high) = (0, self.rows());
        while low < high {
            let middle = low.midpoint(high);
            let found = self.u64_at(self.id_hashes, middle)?;
            let before = found < hash || (found == hash && self.id(self.entry(middle)?.1)? < id);
            if before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The row of an id, dead or alive.
    pub fn row_of(&self, hash: u64, id: &str) -> Result<Option<u32>, StoreError> {
        let place = self.place(hash, id)?;
        if place >= self.rows() || self.u64_at(self.id_hashes, place)? != hash {
            return Ok(None);
        }
        let (_, row) = self.entry(place)?;
        Ok((self.id(row)? == id).then_some(row))
    }

    /// Checks every block, then every row. `progress` gets the bytes that were checked.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        for block in 0..self.blocks.count() {
            let at = HEADER_BYTES + block * BLOCK_BYTES;
            let inside = |one: &&Section| at + BLOCK_BYTES > one.at && at < one.at + one.bytes;
            let section = self.layout.sections.iter().find(inside);
            let section = section.map_or("between", |section| layout::name(section.kind));
            self.blocks.check(block, section)?;
            progress(BLOCK_BYTES as u64);
        }
        let mut last_entry = None;
        if self.packed.unreachable() > 0 {
            return Err(self.corrupt(self.vectors, "the graph does not reach every row"));
        }
        let mut seen = roaring::RoaringBitmap::new();
        let mut vector = FromDisk::default();
        for row in 0..self.rows() as u32 {
            let seq = self.seq(row)?;
            if !(self.layout.seq_min..=self.layout.seq_max).contains(&seq) {
                return Err(self.corrupt(self.seqs, "one is out of the segment's range"));
            }
            let id = self.id(row)?;
            if !(1..=crate::ID_BYTES_MAX).contains(&id.len()) {
                return Err(self.corrupt(self.ids, "an id has a wrong length"));
            }
            self.payload(row)?;
            if self
                .vector(row, &mut vector)?
                .iter()
                .any(|value| !value.is_finite())
            {
                return Err(self.corrupt(self.vectors, "a component is not finite"));
            }
            let (hash, named) = self.entry(row as usize)?;
            let id = self.id(named)?;
            let ascends = last_entry < Some((hash, id));
            if hash != xxh3_64(id.as_bytes()) || !ascends || !seen.insert(named) {
                return Err(self.corrupt(self.id_hashes, "they are not those of the ids"));
            }
            last_entry = Some((hash, id));
        }
        Ok(())
    }
}

fn read_packed(path: &Path, layout: &Layout, blocks: &Blocks) -> Result<Packed, StoreError> {
    let mut pieces: Vec<(graph::Section, &[u8])> = Vec::new();
    for kind in graph::Section::ALL {
        if let Some(section) = layout.section(layout::packed(kind)) {
            let name = layout::name(section.kind);
            pieces.push((kind, blocks.bytes(name, section.at, section.bytes)?));
        }
    }
    let piece = |kind| {
        let mut pieces = pieces.iter();
        pieces
            .find(|(one, _)| *one == kind)
            .map(|(_, bytes)| *bytes)
    };
    Packed::from_sections(layout.dim, layout.metric, layout.rows, piece).map_err(|bad| {
        let section = layout
            .section(layout::packed(bad.section))
            .unwrap_or_default();
        let name = layout::name(layout::packed(bad.section));
        let what = format!("section {name}: {}", bad.what);
        StoreError::corrupt(path, section.at as u64, what)
    })
}

fn read_payload_index(
    path: &Path,
    spec: &Spec,
    layout: &Layout,
    blocks: &Blocks,
) -> Result<PayloadIndex, StoreError> {
    let section = layout.section(layout::PAYLOAD_INDEX).unwrap_or_default();
    let name = layout::name(layout::PAYLOAD_INDEX);
    let bytes = blocks.bytes(name, section.at, section.bytes)?;
    PayloadIndex::from_bytes(&spec.fields, layout.rows as u32, bytes).map_err(|damaged| {
        let what = format!("section {name}: {damaged}");
        StoreError::corrupt(path, section.at as u64, what)
    })
}

/// Opens what the manifest names, and sees that it is the same.
pub fn open_named(
    dir: &Path,
    spec: &Spec,
    entry: &super::manifest::Entry,
) -> Result<Sealed, StoreError> {
    let path = dir.join(files::segment_name(entry.number));
    let sealed = Sealed::open(&path, spec)?;
    let same = sealed.header_crc == entry.header_crc
        && sealed.number() == entry.number
        && sealed.rows() as u64 == entry.rows
        && sealed.file_bytes() as u64 == entry.bytes;
    if !same {
        return Err(StoreError::corrupt(
            &path,
            0,
            "it is not the file that the manifest names",
        ));
    }
    Ok(sealed)
}
