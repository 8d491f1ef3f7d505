//! Making and opening a collection.
//!
//! Invariants: a folder is a collection once it has a manifest; what the manifest does not name is
//! left over from an end in the middle of a build, and removed; all that it names is checked before
//! anything is served.

use super::commit::Queue;
use super::dead::Dead;
use super::error::StoreError;
use super::files::{self, Kind, Lock};
use super::log::{self, Log};
use super::manifest::Manifest;
use super::memory::Memory;
use super::options::Options;
use super::record;
use super::sealed::open_named;
use super::shared::{Kept, Shared};
use super::view::{SealedRef, View};
use crate::{DIM_MAX, IndexError, Spec, Write};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Makes a folder that [`open`] opens.
pub fn create(dir: &Path, spec: Spec, options: Options) -> Result<Shared, StoreError> {
    make(dir, spec)?;
    open(dir, options)
}

fn make(dir: &Path, spec: Spec) -> Result<(), StoreError> {
    let spec = checked(spec)?;
    std::fs::create_dir_all(dir).map_err(StoreError::io(dir))?;
    let _lock = Lock::take(dir)?;
    if dir.join(files::MANIFEST_FILE).exists() {
        return Err(StoreError::Exists {
            dir: dir.to_owned(),
        });
    }
    is_unborn(dir)?;
    log::create(dir, 1)?;
    files::write_format(dir)?;
    Manifest::new(spec).write(dir)
}

/// Fails where a folder without a manifest has records: then the manifest was lost.
fn is_unborn(dir: &Path) -> Result<(), StoreError> {
    for (name, bytes) in files::list(dir)? {
        let holds = match files::kind(&name) {
            Kind::Segment(_) | Kind::Dead(..) => true,
            Kind::Log(_) => bytes > record::FILE_HEADER_BYTES as u64,
            _ => false,
        };
        if holds {
            let path = dir.join(files::MANIFEST_FILE);
            return Err(StoreError::corrupt(
                &path,
                0,
                format!("it is missing, {name} is there"),
            ));
        }
    }
    Ok(())
}

fn checked(mut spec: Spec) -> Result<Spec, StoreError> {
    if !(1..=DIM_MAX).contains(&spec.dim) {
        return Err(IndexError::Dim(spec.dim).into());
    }
    spec.fields.sort_unstable();
    spec.fields.dedup();
    Ok(spec)
}

pub fn open_or_create(dir: &Path, spec: Spec, options: Options) -> Result<Shared, StoreError> {
    let spec = checked(spec)?;
    if !dir.join(files::MANIFEST_FILE).exists() {
        if dir.join(files::FORMAT_FILE).exists() {
            files::check_format(dir)?;
        }
        return create(dir, spec, options);
    }
    let shared = open(dir, options)?;
    if shared.spec != spec {
        return Err(StoreError::SpecDiffers {
            dir: dir.to_owned(),
            has: describe(&shared.spec).into(),
            wanted: describe(&spec).into(),
        });
    }
    Ok(shared)
}

fn describe(spec: &Spec) -> String {
    let Spec {
        dim,
        metric,
        stored,
        fields,
    } = spec;
    let fields = fields.join(", ");
    format!("dimension {dim}, {metric:?}, {stored:?}, fields [{fields}]")
}

pub fn open(dir: &Path, options: Options) -> Result<Shared, StoreError> {
    let options = options.clamped();
    files::check_format(dir)?;
    let lock = Lock::take(dir)?;
    let manifest = Manifest::read(dir)?;
    remove_strays(dir, &manifest)?;
    let (view, dead) = read_segments(dir, &manifest)?;
    let memory = Memory::new(view, options.mutable_rows, manifest.checkpoint);
    let (log, last) = Log::open(
        dir,
        manifest.checkpoint,
        options.log_file_bytes,
        manifest.spec.dim,
        &mut |seq, write| {
            let places = Memory::places(&memory.view.load(), write_id(&write))?;
            memory.apply(seq, write, &places);
            Ok(())
        },
    )?;
    memory.reach(last);
    Ok(Shared {
        dir: dir.to_owned(),
        spec: manifest.spec.clone(),
        options,
        memory,
        log_files: log.files(),
        state: Mutex::new(log),
        queue: Queue::default(),
        manifest: Mutex::new(Kept {
            manifest,
            dead,
            damaged: HashSet::new(),
        }),
        compacting: Mutex::new(()),
        sealing: Mutex::new(()),
        stopping: AtomicBool::new(false),
        bell: Mutex::new(()),
        changed: Condvar::new(),
        faults: Mutex::default(),
        _lock: lock,
    })
}

fn write_id(write: &Write) -> &str {
    match write {
        Write::Upsert(record) => &record.id,
        Write::Delete(id) => id,
    }
}

fn remove_strays(dir: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    for (name, _) in files::list(dir)? {
        let mut entries = manifest.segments.iter();
        let is_stray = match files::kind(&name) {
            Kind::Unfinished => true,
            Kind::Segment(number) => !entries.any(|one| one.number == number),
            Kind::Dead(number, seq) => {
                !entries.any(|one| one.number == number && one.dead == Some(seq))
            }
            Kind::Log(_) | Kind::Own | Kind::Other => false,
        };
        if is_stray {
            files::remove(&dir.join(&name));
        }
    }
    Ok(())
}

/// Sealed segments, and how many tombstones the files have.
fn read_segments(
    dir: &Path,
    manifest: &Manifest,
) -> Result<(View, HashMap<u64, usize>), StoreError> {
    let mut view = View::default();
    let mut counts = HashMap::new();
    for entry in &manifest.segments {
        let segment = open_named(dir, &manifest.spec, entry)?;
        if segment.layout.seq_max > manifest.checkpoint {
            let what = "it has records from after the checkpoint";
            return Err(StoreError::corrupt(&segment.path, 0, what));
        }
        let dead = match entry.dead {
            Some(seq) => Dead::read(dir, entry.number, seq, segment.rows())?,
            None => Dead::none(segment.rows()),
        };
        counts.insert(entry.number, dead.count());
        view.sealed.push(SealedRef {
            segment: Arc::new(segment),
            dead: Arc::new(dead),
        });
    }
    Ok((view, counts))
}
