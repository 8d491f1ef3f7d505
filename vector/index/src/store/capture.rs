//! A collection at one sequence number, as files that can be copied away while it goes on.
//!
//! Invariants: all files are of one moment; they can be read although a compaction removes them
//! meanwhile; every byte of a segment is checked against the segment's own checksums while it is
//! read, so that no copy is made of what is damaged.

use super::blocks::BLOCK_BYTES;
use super::dead::Dead;
use super::error::StoreError;
use super::files;
use super::layout::HEADER_BYTES;
use super::sealed::Sealed;
use super::shared::Shared;
use crate::Spec;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A collection at one sequence number.
pub struct Capture {
    spec: Spec,
    seq: u64,
    rows: usize,
    files: Vec<Arc<CapturedFile>>,
}

/// One of its files.
pub struct CapturedFile {
    name: Box<str>,
    bytes: u64,
    identity: Option<u128>,
    content: Content,
}

enum Content {
    Made(Vec<u8>),
    Log(PathBuf, File),
    Segment(Arc<Sealed>),
}

impl Capture {
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// It holds all writes up to this one, and none after.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Records that are alive.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// In the order in which they are copied: the manifest last.
    #[must_use]
    pub fn files(&self) -> &[Arc<CapturedFile>] {
        &self.files
    }
}

impl CapturedFile {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// For a segment: a hash of its header and its checksums, and by them of all that it holds. Two
    /// segments of one length with the same hash are the same.
    #[must_use]
    pub const fn identity(&self) -> Option<u128> {
        self.identity
    }

    /// From its first byte on.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> CapturedReader {
        CapturedReader {
            file: Arc::clone(self),
            at: 0,
            crc: 0,
        }
    }

    fn made(name: &str, content: Vec<u8>) -> Self {
        Self {
            name: name.into(),
            bytes: content.len() as u64,
            identity: None,
            content: Content::Made(content),
        }
    }
}

/// Reads one file, once. Calls block.
pub struct CapturedReader {
    file: Arc<CapturedFile>,
    at: u64,
    /// Of the region that is being read.
    crc: u32,
}

impl CapturedReader {
    /// Fills what it can of `into` and says how much; 0 at the end.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize, StoreError> {
        let left = usize::try_from(self.file.bytes - self.at).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let into = into.get_mut(..most).unwrap_or_default();
        if into.is_empty() {
            return Ok(0);
        }
        let file = Arc::clone(&self.file);
        let count = match &file.content {
            Content::Made(bytes) => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX);
                let to = from.saturating_add(into.len());
                into.copy_from_slice(bytes.get(from..to).unwrap_or_default());
                into.len()
            }
            Content::Log(path, file) => {
                let count = file.read_at(into, self.at);
                count.map_err(StoreError::io(path))?
            }
            Content::Segment(segment) => {
                let count = segment.file.read_at(into, self.at);
                let count = count.map_err(StoreError::io(&segment.path))?;
                self.check(segment, into.get(..count).unwrap_or_default())?;
                count
            }
        };
        if count == 0 {
            let path = match &file.content {
                Content::Segment(segment) => segment.path.clone(),
                Content::Log(path, _) => path.clone(),
                Content::Made(_) => PathBuf::from(&*file.name),
            };
            return Err(StoreError::corrupt(&path, self.at, "it ends too early"));
        }
        self.at += count as u64;
        Ok(count)
    }

    /// Checks what was read at `self.at`, as far as it fills regions that have a checksum.
    fn check(&mut self, segment: &Sealed, mut bytes: &[u8]) -> Result<(), StoreError> {
        let mut at = usize::try_from(self.at).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            let region = region(segment, at);
            let (part, rest) = bytes.split_at((region.end - at).clamp(1, bytes.len()));
            self.crc = crc32c::crc32c_append(self.crc, part);
            at += part.len();
            bytes = rest;
            if at >= region.end {
                if self.crc != region.crc {
                    let (begin, what) = (region.begin as u64, "it has a wrong checksum");
                    return Err(StoreError::corrupt(&segment.path, begin, what));
                }
                self.crc = 0;
            }
        }
        Ok(())
    }
}

/// A part of a segment under one checksum.
struct Region {
    begin: usize,
    end: usize,
    crc: u32,
}

/// The region that a byte of a segment lies in: the header, the header's checksum, a block, or the
/// blocks' checksums.
fn region(segment: &Sealed, at: usize) -> Region {
    const HEADER_BODY_BYTES: usize = HEADER_BYTES - 4;
    let (layout, blocks) = (&segment.layout, segment.blocks());
    if at < HEADER_BODY_BYTES {
        return Region {
            begin: 0,
            end: HEADER_BODY_BYTES,
            crc: segment.header_crc,
        };
    }
    if at < HEADER_BYTES {
        return Region {
            begin: HEADER_BODY_BYTES,
            end: HEADER_BYTES,
            crc: crc32c::crc32c(&segment.header_crc.to_le_bytes()),
        };
    }
    if at < layout.body_end {
        let block = (at - HEADER_BYTES) / BLOCK_BYTES;
        let begin = HEADER_BYTES + block * BLOCK_BYTES;
        return Region {
            begin,
            end: layout.body_end.min(begin + BLOCK_BYTES),
            crc: blocks.crc(block).unwrap_or_default(),
        };
    }
    Region {
        begin: layout.body_end,
        end: blocks.file_bytes(),
        crc: layout.table_crc,
    }
}

pub fn take(shared: &Shared) -> Result<Capture, StoreError> {
    // All of one moment: no manifest and no write in between.
    let (mut manifest, view, logs, seq) = {
        let kept = shared.manifest.lock();
        let _state = shared.state.lock();
        let logs = shared.log_files.after(kept.manifest.checkpoint)?;
        let view = shared.memory.view.load().pinned();
        (kept.manifest.clone(), view, logs, shared.memory.applied())
    };
    let mut all = Vec::new();
    for one in &view.sealed {
        let number = one.segment.number();
        all.push(CapturedFile {
            name: files::segment_name(number).into(),
            bytes: one.segment.file_bytes() as u64,
            identity: Some(one.segment.identity()),
            content: Content::Segment(Arc::clone(&one.segment)),
        });
        let dead = one.dead.rows();
        let entries = manifest.segments.iter_mut();
        for entry in entries.filter(|entry| entry.number == number) {
            entry.dead = (!dead.is_empty()).then_some(seq);
            if entry.dead.is_some() {
                let bytes = Dead::encode(&dead, number, seq);
                all.push(CapturedFile::made(&files::dead_name(number, seq), bytes));
            }
        }
    }
    for (known, file) in logs {
        let name = files::log_name(known.first);
        all.push(CapturedFile {
            bytes: known.bytes,
            identity: None,
            content: Content::Log(shared.dir.join(&name), file),
            name: name.into(),
        });
    }
    let format = format!("{} {}\n", files::FORMAT_NAME, files::FORMAT);
    all.push(CapturedFile::made(files::FORMAT_FILE, format.into_bytes()));
    all.push(CapturedFile::made(files::MANIFEST_FILE, manifest.encode()));
    Ok(Capture {
        spec: shared.spec.clone(),
        seq,
        rows: view.rows() - view.dead(),
        files: all.into_iter().map(Arc::new).collect(),
    })
}
