//! The newest records, in memory: one mutable segment, and those that are frozen until they are
//! sealed. Whole blocks of rows are searched by codes, the rest one by one.
//!
//! Invariants: one thread writes, readers take no lock; a row that was put never changes; a row is
//! there before the row that it replaces is marked dead, so that who reads rows up to the end *as it
//! is when he gets there* misses no record.

use super::dead::Dead;
use crate::sq8::Sq8;
use crate::{Metric, PayloadIndex, Record, Spec};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Rows of a block.
pub const BLOCK_ROWS: usize = 512;

pub struct Row {
    pub record: Record,
    pub seq: u64,
}

/// What is made of a block of rows when it is full.
pub struct Block {
    pub codes: Sq8,
    /// Rows count from the block's first.
    pub payload_index: PayloadIndex,
}

pub struct Recent {
    rows: Box<[OnceLock<Row>]>,
    blocks: Box<[OnceLock<Block>]>,
    metric: Metric,
    dim: usize,
    fields: Box<[Box<str>]>,
    length: AtomicUsize,
    by_id: RwLock<HashMap<Box<str>, u32>>,
    /// The last sequence number that was applied while this was the mutable one, deletes included.
    last_seq: AtomicU64,
    /// Writes that were applied meanwhile, deletes included.
    writes: AtomicUsize,
    bytes: AtomicUsize,
}

impl Recent {
    pub fn new(spec: &Spec, rows_max: usize) -> Self {
        Self {
            rows: (0..rows_max).map(|_| OnceLock::new()).collect(),
            blocks: (0..rows_max / BLOCK_ROWS)
                .map(|_| OnceLock::new())
                .collect(),
            metric: spec.metric,
            dim: spec.dim,
            fields: spec.fields.clone().into(),
            length: AtomicUsize::new(0),
            by_id: RwLock::new(HashMap::new()),
            last_seq: AtomicU64::new(0),
            writes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }

    pub fn len(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.rows.len()
    }

    pub fn get(&self, row: u32) -> Option<&Row> {
        self.rows.get(row as usize)?.get()
    }

    pub fn row_of(&self, id: &str) -> Option<u32> {
        self.by_id.read().get(id).copied()
    }

    pub fn last_seq(&self) -> u64 {
        self.last_seq.load(Ordering::Acquire)
    }

    /// An estimate of what it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed) + self.rows.len() * size_of::<OnceLock<Row>>()
    }

    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::Acquire)
    }

    /// A write was applied.
    pub fn note(&self, seq: u64) {
        self.writes.fetch_add(1, Ordering::AcqRel);
        self.last_seq.store(seq, Ordering::Release);
    }

    /// Puts a record at the end, in place of what its id had here. Whether that was alive. The caller
    /// has seen that there is room.
    pub fn put(&self, record: Record, seq: u64, dead: &Dead) -> bool {
        let row = self.len();
        let bytes = record.vector.len() * 4 + record.id.len() * 2 + record.payload.len() * 64;
        let id = record.id.clone();
        let Some(place) = self.rows.get(row) else {
            return false;
        };
        if place.set(Row { record, seq }).is_err() {
            return false;
        }
        if (row + 1).is_multiple_of(BLOCK_ROWS) {
            self.make_block(row / BLOCK_ROWS);
        }
        self.length.store(row + 1, Ordering::Release);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let old = self.by_id.write().insert(id, row as u32);
        old.is_some_and(|old| dead.mark(old))
    }

    fn make_block(&self, block: usize) {
        let from = block * BLOCK_ROWS;
        let mut codes = Sq8::new(self.dim, BLOCK_ROWS);
        let mut payload_index = PayloadIndex::new(&self.fields);
        let rows = self.rows.get(from..from + BLOCK_ROWS).unwrap_or_default();
        for (at, row) in (0u32..).zip(rows) {
            if let Some(row) = row.get() {
                codes.push(self.metric, &row.record.vector);
                payload_index.add(at, &row.record.payload);
            }
        }
        self.bytes
            .fetch_add(codes.bytes() + payload_index.bytes(), Ordering::Relaxed);
        if let Some(place) = self.blocks.get(block) {
            // One thread writes: it is there once.
            let _ = place.set(Block {
                codes,
                payload_index,
            });
        }
    }

    /// The blocks that are full, within the first `length` rows.
    pub fn blocks(&self, length: usize) -> impl Iterator<Item = &Block> {
        let full = self.blocks.iter().take(length / BLOCK_ROWS);
        full.map_while(OnceLock::get)
    }

    /// All rows, dead ones too. Ends where the rows end when it gets there, or at `length`.
    pub fn iter(&self, length: Option<usize>) -> impl Iterator<Item = (u32, &Row)> {
        self.iter_from(0, length)
    }

    /// The same from a row on.
    pub fn iter_from(&self, from: u32, length: Option<usize>) -> impl Iterator<Item = (u32, &Row)> {
        (from..).map_while(move |row| {
            let end = length.unwrap_or_else(|| self.len());
            if row as usize >= end {
                return None;
            }
            Some((row, self.get(row)?))
        })
    }
}
