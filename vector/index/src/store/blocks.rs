//! A file that never changes, mapped, with a checksum for each block of 64 KiB that is checked when
//! the block is first touched.
//!
//! Invariants: no byte is given out of a block that was not checked; a range that is not in the file
//! is an error; the file has been synced and renamed before it is mapped, and nothing writes to it.

use super::error::StoreError;
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::Xxh3;

pub const BLOCK_BYTES: usize = 64 << 10;

pub struct Blocks {
    path: PathBuf,
    map: Mmap,
    /// Where the first block begins, and the last ends.
    begin: usize,
    end: usize,
    crcs: Vec<u32>,
    checked: Box<[AtomicU64]>,
}

#[expect(unsafe_code, reason = "the one place where a file is mapped")]
pub fn map(path: &Path, file: &File) -> Result<Mmap, StoreError> {
    // SAFETY: the files that are mapped are written under another name, and renamed when they are
    // whole; this program changes none after that, and holds the folder's lock. Who truncates one
    // from outside while it is mapped ends the process by a signal, as with any mapped file.
    unsafe { Mmap::map(file) }.map_err(StoreError::io(path))
}

impl Blocks {
    /// Blocks from `begin` to `end` of the file, each with its CRC32C. The caller has seen that there
    /// are as many as that makes.
    pub fn new(path: &Path, map: Mmap, begin: usize, end: usize, crcs: Vec<u32>) -> Self {
        let words = crcs.len().div_ceil(64);
        Self {
            path: path.to_owned(),
            map,
            begin,
            end,
            crcs,
            checked: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn count(&self) -> usize {
        self.crcs.len()
    }

    pub fn crc(&self, block: usize) -> Option<u32> {
        self.crcs.get(block).copied()
    }

    pub fn file_bytes(&self) -> usize {
        self.map.len()
    }

    /// Bytes of the file, checked. `section` is for the error.
    pub fn bytes(&self, section: &str, at: usize, length: usize) -> Result<&[u8], StoreError> {
        let bad = |what: String| StoreError::corrupt(&self.path, at as u64, what);
        let end = at.checked_add(length).filter(|end| *end <= self.end);
        let end = end.filter(|_| at >= self.begin);
        let (Some(end), Some(bytes)) = (end, end.and_then(|end| self.map.get(at..end))) else {
            return Err(bad(format!(
                "section {section} has no {length} bytes there"
            )));
        };
        if length > 0 {
            let first = (at - self.begin) / BLOCK_BYTES;
            let last = (end - 1 - self.begin) / BLOCK_BYTES;
            for block in first..=last {
                self.check(block, section)?;
            }
        }
        Ok(bytes)
    }

    /// A hash of what lies outside the blocks: the header and the checksums.
    pub fn identity(&self) -> u128 {
        let mut hash = Xxh3::new();
        hash.update(self.map.get(..self.begin).unwrap_or_default());
        hash.update(self.map.get(self.end..).unwrap_or_default());
        hash.digest128()
    }

    /// Checks a block unless it has been.
    pub fn check(&self, block: usize, section: &str) -> Result<(), StoreError> {
        let word = self.checked.get(block / 64);
        let bit = 1u64 << (block % 64);
        if word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0) {
            return Ok(());
        }
        let at = self.begin + block * BLOCK_BYTES;
        let bytes = self.map.get(at..self.end.min(at + BLOCK_BYTES));
        if bytes.map(crc32c::crc32c) != self.crcs.get(block).copied() || bytes.is_none() {
            return Err(StoreError::corrupt(
                &self.path,
                at as u64,
                format!("block {block}, in section {section}, has a wrong checksum"),
            ));
        }
        if let Some(word) = word {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }
}
