//! Checks a collection, or a snapshot of one, without changing anything: every file, every block,
//! every row, and what must hold between them.

use super::codec;
use super::dead::Dead;
use super::error::StoreError;
use super::files::{self, Kind, Lock};
use super::manifest::Manifest;
use super::sealed::{Sealed, open_named};
use super::snapshot::SnapshotInfo;
use super::{log, record};
use std::collections::HashMap;
use std::path::Path;

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file that is read.
    pub file: &'a str,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    pub segments: usize,
    pub blocks: usize,
    pub rows: usize,
    /// Tombstones on disk; the log may have more.
    pub dead: usize,
    pub logs: usize,
    pub log_records: u64,
    /// Up to here segments have the log, and the log ends there.
    pub checkpoint: u64,
    pub last_seq: u64,
    pub bytes: u64,
    /// Bytes at the end of the log that were never acknowledged; opening cuts them.
    pub torn_bytes: u64,
    /// Files that nothing names. Those with names of the collection's are removed when it is opened.
    pub strays: Vec<String>,
    /// What is damaged. Each file is checked as far as it goes.
    pub damage: Vec<StoreError>,
}

impl VerifyReport {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Checks the collection of a folder that no process has open. Fails where it cannot be checked at
/// all: no collection, a newer format, a manifest that does not decode.
pub fn verify(
    dir: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<VerifyReport, StoreError> {
    files::check_format(dir)?;
    let _lock = Lock::share(dir)?;
    let manifest = Manifest::read(dir)?;
    let all = files::list(dir)?;
    let mut check = Check {
        dir,
        report: VerifyReport {
            checkpoint: manifest.checkpoint,
            bytes: all.iter().map(|(_, bytes)| bytes).sum(),
            strays: strays(&all, &manifest),
            ..VerifyReport::default()
        },
        manifest,
        live: HashMap::new(),
        done: 0,
        progress,
    };
    if all.iter().any(|(name, _)| name == files::SNAPSHOT_FILE) {
        let checked = check.snapshot();
        check.note(checked);
    }
    for at in 0..check.manifest.segments.len() {
        let checked = check.segment(at);
        check.note(checked);
    }
    let checked = check.logs();
    check.note(checked);
    Ok(check.report)
}

fn strays(all: &[(String, u64)], manifest: &Manifest) -> Vec<String> {
    let is_stray = |name: &str| {
        let mut entries = manifest.segments.iter();
        match files::kind(name) {
            Kind::Segment(number) => !entries.any(|one| one.number == number),
            Kind::Dead(number, seq) => {
                !entries.any(|one| one.number == number && one.dead == Some(seq))
            }
            Kind::Unfinished | Kind::Other => true,
            Kind::Log(first) => name != files::log_name(first),
            Kind::Own => false,
        }
    };
    let names = all.iter().map(|(name, _)| name);
    names.filter(|name| is_stray(name)).cloned().collect()
}

struct Check<'a> {
    dir: &'a Path,
    manifest: Manifest,
    report: VerifyReport,
    /// Where each id is alive, by its hash: index of the segment and row.
    live: HashMap<u64, (u64, u32)>,
    done: u64,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Check<'_> {
    fn note(&mut self, checked: Result<(), StoreError>) {
        self.report.damage.extend(checked.err());
    }

    fn went(&mut self, file: &str, bytes: u64) {
        self.done += bytes;
        (self.progress)(Progress {
            file,
            bytes_done: self.done.min(self.report.bytes),
            bytes_total: self.report.bytes,
        });
    }

    /// The list of a snapshot: what it names is there, as long as it says. Contents are checked below,
    /// by their own checksums.
    fn snapshot(&mut self) -> Result<(), StoreError> {
        for file in SnapshotInfo::read(self.dir)?.files {
            let path = self.dir.join(&*file.name);
            let length = std::fs::metadata(&path)
                .map_err(StoreError::io(&path))?
                .len();
            if length != file.bytes {
                let what = format!("the snapshot says {} bytes", file.bytes);
                return Err(StoreError::corrupt(&path, length, what));
            }
        }
        Ok(())
    }

    fn segment(&mut self, at: usize) -> Result<(), StoreError> {
        let Some(entry) = self.manifest.segments.get(at).copied() else {
            return Ok(());
        };
        let name = files::segment_name(entry.number);
        self.report.segments += 1;
        let sealed = open_named(self.dir, &self.manifest.spec, &entry)?;
        self.report.blocks += sealed.blocks().count();
        self.report.rows += sealed.rows();
        sealed.verify(&mut |bytes| self.went(&name, bytes))?;
        if sealed.layout.seq_max > self.manifest.checkpoint {
            let what = "it has records from after the checkpoint";
            return Err(StoreError::corrupt(&sealed.path, 0, what));
        }
        let dead = match entry.dead {
            Some(seq) => Dead::read(self.dir, entry.number, seq, sealed.rows())?,
            None => Dead::none(sealed.rows()),
        };
        self.report.dead += dead.count();
        self.once(&sealed, &dead)
    }

    /// No id is alive twice.
    fn once(&mut self, sealed: &Sealed, dead: &Dead) -> Result<(), StoreError> {
        for place in 0..sealed.rows() {
            let (hash, row) = sealed.entry(place)?;
            if dead.contains(row) {
                continue;
            }
            let id = sealed.id(row)?;
            // Two ids may have one hash; within a segment they were compared.
            if let Some((other, there)) = self.live.insert(hash, (sealed.number(), row))
                && other != sealed.number()
                && self.id_in(other, there)? == *id
            {
                let what = format!("{id:?} is alive in segment {other} too");
                return Err(StoreError::corrupt(&sealed.path, 0, what));
            }
        }
        Ok(())
    }

    fn id_in(&self, number: u64, row: u32) -> Result<String, StoreError> {
        let path = self.dir.join(files::segment_name(number));
        Ok(Sealed::open(&path, &self.manifest.spec)?
            .id(row)?
            .to_owned())
    }

    fn logs(&mut self) -> Result<(), StoreError> {
        let all = log::found(self.dir)?;
        let checkpoint = self.manifest.checkpoint;
        if all.first().is_none_or(|file| file.first > checkpoint + 1) {
            let path = self.dir.join(files::log_name(checkpoint + 1));
            return Err(StoreError::corrupt(&path, 0, "it is missing"));
        }
        let dim = self.manifest.spec.dim;
        let mut next = None;
        for (at, file) in all.iter().enumerate() {
            let name = files::log_name(file.first);
            let path = self.dir.join(&name);
            self.report.logs += 1;
            if next.is_some_and(|next| next != file.first) {
                let what = format!("the log before it ends before {}", file.first);
                return Err(StoreError::corrupt(&path, 0, what));
            }
            let bytes = log::read_log(&path, file.bytes)?;
            let mut each = |place: usize, record: record::Found<'_>| {
                codec::writes(record.body, record.count as usize, dim)
                    .map_err(|what| StoreError::corrupt(&path, place as u64, what))
                    .map(drop)
            };
            let scanned = record::scan(&path, &bytes, file.first, at + 1 == all.len(), &mut each)?;
            self.report.log_records += scanned.records;
            self.report.torn_bytes += bytes.len().saturating_sub(scanned.end) as u64;
            self.report.last_seq = scanned.next - 1;
            next = Some(scanned.next);
            self.went(&name, bytes.len() as u64);
        }
        if self.report.last_seq < checkpoint {
            let what = format!(
                "the log ends at {}, before {checkpoint}",
                self.report.last_seq
            );
            return Err(StoreError::corrupt(self.dir, 0, what));
        }
        Ok(())
    }
}
