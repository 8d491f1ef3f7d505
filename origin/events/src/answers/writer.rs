//! The thread that appends records to the newest segment.

use super::segment::{Head, Index, Place, path};
use parking_lot::RwLock;
use skerry_types::Millis;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

pub(super) const SEGMENT_BYTES_MAX: u64 = 32 << 20;
/// Records in one write.
const GROUP_RECORDS_MAX: usize = 1_024;
/// Records gather for this long before they are written, in milliseconds.
const GATHER_MS: u64 = 10;

/// A record on its way to the file.
pub(super) struct Record {
    pub head: Head,
    /// At most [`super::segment::BODY_BYTES_MAX`].
    pub body: Vec<u8>,
}

pub(super) struct Writer {
    dir: PathBuf,
    index: Arc<RwLock<Index>>,
    /// The newest segment, once something was written.
    file: Option<File>,
    number: u64,
    at: u64,
    newest_ms: Millis,
}

impl Writer {
    /// Starts with segment `number`: nothing is ever appended behind a torn tail.
    pub(super) fn new(dir: PathBuf, index: Arc<RwLock<Index>>, number: u64) -> Self {
        Self {
            dir,
            index,
            file: None,
            number,
            at: 0,
            newest_ms: 0,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this thread has nothing else to wait for"
    )]
    pub(super) fn run(&mut self, records: &Receiver<Record>) {
        while let Ok(first) = records.recv() {
            // Whoever hands over a record does not have to wake this thread while it waits here.
            std::thread::sleep(Duration::from_millis(GATHER_MS));
            let rest = records.try_iter().take(GROUP_RECORDS_MAX - 1);
            let group: Vec<Record> = std::iter::once(first).chain(rest).collect();
            if let Err(error) = self.write(group) {
                tracing::warn!(%error, "answers were not kept for explanation");
                self.file = None;
                self.number += 1;
            }
        }
    }

    fn write(&mut self, group: Vec<Record>) -> std::io::Result<()> {
        if self.at >= SEGMENT_BYTES_MAX {
            self.file = None;
            self.number += 1;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let mut out = Vec::new();
        let mut added = Vec::with_capacity(group.len());
        for Record { head, body } in group {
            let Ok(bytes) = u32::try_from(body.len()) else {
                continue;
            };
            head.write(bytes, &mut out);
            let place = Place {
                segment: self.number,
                at: self.at + out.len() as u64,
                bytes,
            };
            out.extend_from_slice(&body);
            added.push((head, place));
            self.newest_ms = self.newest_ms.max(head.at_ms);
        }
        file.write_all(&out)?;
        self.file = Some(file);
        self.at += out.len() as u64;
        let mut index = self.index.write();
        for (head, place) in added {
            index.add(head, place);
        }
        Ok(())
    }

    /// Starts a segment, and drops those that are past their day or beyond the bound.
    fn open(&mut self) -> std::io::Result<File> {
        let mut options = File::options();
        let options = options.create(true).truncate(true).read(true).write(true);
        let file = options.open(path(&self.dir, self.number))?;
        self.at = 0;
        let gone = {
            let mut index = self.index.write();
            index.start_segment(self.number, file.try_clone()?);
            index.drop_old(self.newest_ms)
        };
        for number in gone {
            std::fs::remove_file(path(&self.dir, number))?;
        }
        Ok(file)
    }
}
