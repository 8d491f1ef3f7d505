//! Tombstones: the rows of a segment that have been deleted or replaced.
//!
//! Invariants: a row that is dead stays dead; a row is marked only after what replaces it can be
//! found (who sees the mark sees the new record); a fork never changes with what it was forked from.

use super::error::StoreError;
use super::{files, manifest};
use roaring::RoaringBitmap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const MAGIC: &[u8; 8] = b"SKVDEAD\0";
const VERSION: u32 = 1;

pub struct Dead {
    bits: Box<[AtomicU64]>,
    count: AtomicUsize,
    rows: usize,
}

impl Dead {
    pub fn none(rows: usize) -> Self {
        Self {
            bits: (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicUsize::new(0),
            rows,
        }
    }

    pub fn contains(&self, row: u32) -> bool {
        self.bits
            .get(row as usize / 64)
            .is_some_and(|word| word.load(Ordering::Acquire) >> (row % 64) & 1 == 1)
    }

    /// Marks a row; whether it was alive.
    pub fn mark(&self, row: u32) -> bool {
        if row as usize >= self.rows {
            return false;
        }
        let Some(word) = self.bits.get(row as usize / 64) else {
            return false;
        };
        let bit = 1 << (row % 64);
        let was_alive = word.fetch_or(bit, Ordering::AcqRel) & bit == 0;
        if was_alive {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
        was_alive
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// A copy. Only where nothing marks meanwhile does it equal the original.
    pub fn fork(&self) -> Self {
        let copy = Self::none(self.rows);
        for (to, from) in copy.bits.iter().zip(&self.bits) {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
        let count = copy.bits.iter();
        let count = count.map(|word| word.load(Ordering::Acquire).count_ones() as usize);
        copy.count.store(count.sum(), Ordering::Release);
        copy
    }

    pub fn rows(&self) -> RoaringBitmap {
        (0u32..)
            .zip(&self.bits)
            .flat_map(|(at, word)| {
                let word = word.load(Ordering::Acquire);
                (0..64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| at * 64 + bit)
            })
            .collect()
    }

    /// Writes them beside their segment.
    pub fn write(
        dir: &Path,
        dead: &RoaringBitmap,
        segment: u64,
        seq: u64,
    ) -> Result<(), StoreError> {
        let path = dir.join(files::dead_name(segment, seq));
        files::write_whole(&path, &Self::encode(dead, segment, seq))
    }

    pub fn encode(dead: &RoaringBitmap, segment: u64, seq: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&segment.to_le_bytes());
        out.extend_from_slice(&seq.to_le_bytes());
        // Writing to memory cannot fail; if it did, the checksum would be of what cannot be read.
        let _ = dead.serialize_into(&mut out);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn read(dir: &Path, segment: u64, seq: u64, rows: usize) -> Result<Self, StoreError> {
        let path = dir.join(files::dead_name(segment, seq));
        let Some(bytes) = files::read_small(&path)? else {
            return Err(StoreError::corrupt(&path, 0, "it is missing"));
        };
        Self::decode(&path, &bytes, segment, seq, rows)
    }

    pub fn decode(
        path: &Path,
        bytes: &[u8],
        segment: u64,
        seq: u64,
        rows: usize,
    ) -> Result<Self, StoreError> {
        let bad = |at, what: &str| StoreError::corrupt(path, at, what);
        let body = manifest::checked(path, bytes, MAGIC, VERSION)?;
        let mut body = super::codec::Bytes(body);
        let names = (body.u64(), body.u64());
        if names != (Ok(segment), Ok(seq)) {
            return Err(bad(12, "it belongs to another segment or time"));
        }
        let mut reader = body.0;
        let found = RoaringBitmap::deserialize_from(&mut reader)
            .map_err(|error| bad(28, &format!("its rows do not decode: {error}")))?;
        if !reader.is_empty() || found.max().is_some_and(|most| most as usize >= rows) {
            return Err(bad(28, "its rows are not those of the segment"));
        }
        let dead = Self::none(rows);
        found.iter().for_each(|row| {
            dead.mark(row);
        });
        Ok(dead)
    }
}
