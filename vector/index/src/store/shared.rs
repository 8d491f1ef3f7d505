//! What the threads of an open collection share.
//!
//! Locks are taken in this order: `compacting` or `sealing`, `manifest`, `state`, then those that are
//! held for a moment. Who holds `state` writes: the log, the mutable segment, tombstones, the view.

use super::commit::Queue;
use super::error::StoreError;
use super::files::Lock;
use super::log::{Log, LogFiles};
use super::manifest::Manifest;
use super::memory::Memory;
use super::options::Options;
use super::view::View;
use crate::Spec;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

pub struct Shared {
    pub dir: PathBuf,
    pub spec: Spec,
    pub options: Options,
    pub memory: Memory,
    /// The end of the log.
    pub state: Mutex<Log>,
    pub queue: Queue,
    pub log_files: LogFiles,
    pub manifest: Mutex<Kept>,
    /// Held by whoever compacts, and by whoever seals: one of each at a time.
    pub compacting: Mutex<()>,
    pub sealing: Mutex<()>,
    pub stopping: AtomicBool,
    /// Something changed that a thread or a caller may wait for.
    pub bell: Mutex<()>,
    pub changed: Condvar,
    pub faults: Mutex<Faults>,
    pub _lock: Lock,
}

/// What went wrong in the background, until it goes right again.
#[derive(Default)]
pub struct Faults {
    pub sealing: Option<StoreError>,
    pub compacting: Option<StoreError>,
}

/// The manifest as it is on disk, and what is known about its files.
pub struct Kept {
    pub manifest: Manifest,
    /// How many tombstones the file of each segment has.
    pub dead: HashMap<u64, usize>,
    /// Segments that could not be read: they are left alone.
    pub damaged: HashSet<u64>,
}

impl Shared {
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn ring(&self) {
        drop(self.bell.lock());
        self.changed.notify_all();
    }

    /// A view that never changes, and the sequence number up to which it holds everything.
    pub fn pinned(&self) -> (View, u64) {
        let _state = self.state.lock();
        (self.memory.view.load().pinned(), self.memory.applied())
    }
}
