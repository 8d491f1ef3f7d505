//! What the origin pushed: the newest good one of each kind, in memory and on disk.
//!
//! Invariants: a push is used only after its hash and its meaning were checked ([`check`]); what is
//! refused changes nothing, and the last good one is kept for ever; it is on disk before it is used;
//! epochs only go up; readers see a whole snapshot, never half of a change. A corrupt file is set aside,
//! counted, and the rest goes on.

pub mod check;
mod keys;

pub use keys::{LocalKeys, read_api_keys};

use crate::files;
use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use check::{Checked, check};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use skerry_decide::rights::Mask;
use skerry_types::{ItemHash, Millis, TenantId};
use skerry_wire::frame::{FORCED_EPOCH_STEP, PushHeader, PushKind};
use skerry_wire::value::{ConfigBlob, PoolItem};
use skerry_wire::{decode, encode};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest header in a held file, in bytes.
const HEADER_BYTES_MAX: usize = 4 << 10;
const NEVER: Millis = Millis::MAX;

/// Why a push was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the content does not have the announced hash")]
    Hash,
    #[error("it is for another tenant")]
    Tenant,
    #[error("its epoch is not newer than the one held")]
    Old,
    #[error("it does not decode")]
    Decode,
    #[error("it is empty where the last was not")]
    Empty,
    #[error("it has lost too many of the last one's items, or has too many")]
    Size,
    #[error("it has numbers that are not finite")]
    NotFinite,
    #[error("its parts do not fit each other")]
    Inconsistent,
}

impl Refused {
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Hash => "push_hash",
            Self::Tenant => "push_tenant",
            Self::Old => "push_old",
            Self::Decode => "push_decode",
            Self::Empty => "push_empty",
            Self::Size => "push_size",
            Self::NotFinite => "push_not_finite",
            Self::Inconsistent => "push_inconsistent",
        }
    }
}

/// The item pool.
pub struct Pool {
    pub epoch: u64,
    pub as_of: Millis,
    /// For the worker.
    pub arrays: Bytes,
    pub items: Vec<PoolItem>,
    /// Row by item hash; the row's id decides where two hashes meet.
    rows: HashMap<u64, u32>,
}

impl Pool {
    #[must_use]
    pub fn row(&self, id: &str) -> Option<u32> {
        let row = *self.rows.get(&xxhash_rust::xxh3::xxh3_64(id.as_bytes()))?;
        let item = self.items.get(usize::try_from(row).ok()?)?;
        (item.id.as_str() == id).then_some(row)
    }
}

/// Popular lists, encoded as the worker takes them.
pub struct Popular {
    pub epoch: u64,
    lists: HashMap<(Box<str>, Box<str>), Bytes>,
}

impl Popular {
    /// The list for surface and locale, else for either, else for everything.
    #[must_use]
    pub fn list(&self, surface: &str, locale: &str) -> Option<&Bytes> {
        let get =
            |surface: &str, locale: &str| self.lists.get(&(Box::from(surface), Box::from(locale)));
        get(surface, locale)
            .or_else(|| get(surface, ""))
            .or_else(|| get("", locale))
            .or_else(|| get("", ""))
    }
}

/// Everything held at one moment.
#[derive(Clone)]
pub struct Snapshot {
    pub config_epoch: u64,
    /// Encoded [`ConfigBlob`], with this PoP's name and keys in it.
    pub config: Bytes,
    pub keys: Arc<[skerry_wire::value::ApiKey]>,
    pub pool: Option<Arc<Pool>>,
    pub popular: Option<Arc<Popular>>,
    pub mask: Arc<Mask>,
    pub mask_epoch: u64,
    pub bandit: Arc<HashMap<Box<str>, Bytes>>,
    pub bandit_epoch: u64,
}

/// The holder. Shared by all threads.
pub struct Held {
    now: ArcSwap<Snapshot>,
    /// When the mask next changes by time alone, as of the last look.
    mask_until: AtomicU64,
    /// One writer at a time; holds what is held, by kind.
    writer: Mutex<HashMap<PushKind, (u64, [u8; 32])>>,
    dir: Option<PathBuf>,
    local: LocalKeys,
    corrupt_files: AtomicU64,
}

impl Held {
    /// Nothing held yet, and nothing kept on disk.
    #[must_use]
    pub fn in_memory(local: LocalKeys) -> Self {
        let snapshot = Snapshot {
            config_epoch: 1,
            config: Bytes::new(),
            keys: Arc::from([]),
            pool: None,
            popular: None,
            mask: Arc::default(),
            mask_epoch: 0,
            bandit: Arc::default(),
            bandit_epoch: 0,
        };
        let held = Self {
            now: ArcSwap::from_pointee(snapshot),
            mask_until: AtomicU64::new(NEVER),
            writer: Mutex::default(),
            dir: None,
            local,
            corrupt_files: AtomicU64::new(0),
        };
        let config = held.local.default_config();
        held.change(|snapshot| held.local.install(snapshot, 1, config), 0);
        held
    }

    /// Loads the last good ones from disk.
    pub fn open(dir: &Path, local: LocalKeys, now: Millis) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut held = Self::in_memory(local);
        for kind in PushKind::HELD {
            let path = file_of(dir, kind);
            match fs::read(&path) {
                Ok(bytes) => {
                    let loaded = split_file(&bytes)
                        .ok_or(Refused::Decode)
                        .and_then(|(header, body)| held.install(&header, body, now).map(drop));
                    if let Err(refused) = loaded {
                        tracing::error!(code = refused.code(), path = %path.display(), "a held file is set aside");
                        files::set_aside(&path)?;
                        held.corrupt_files.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        held.dir = Some(dir.to_owned());
        Ok(held)
    }

    /// Checks a push and, where it is good, keeps it and uses it. What is held already is no fault.
    /// Blocks on the disk.
    pub fn push(&self, header: &PushHeader, body: Bytes, now: Millis) -> Result<(), Refused> {
        if self.writer.lock().get(&header.kind) == Some(&(header.epoch, header.sha256)) {
            return Ok(());
        }
        self.install(header, body, now)
    }

    fn install(
        &self,
        header: &PushHeader,
        body: impl Into<Bytes>,
        now: Millis,
    ) -> Result<(), Refused> {
        let body = body.into();
        if header.tenant != TenantId::default() {
            return Err(Refused::Tenant);
        }
        let hash: [u8; 32] = Sha256::digest(&body).into();
        if hash != header.sha256 {
            return Err(Refused::Hash);
        }
        let mut writer = self.writer.lock();
        let last = writer.get(&header.kind).copied();
        if last.is_some_and(|(epoch, _)| header.epoch <= epoch) {
            return Err(Refused::Old);
        }
        let forced = last.is_some_and(|(epoch, _)| header.epoch - epoch >= FORCED_EPOCH_STEP);
        let checked = check(header, &body, &self.now.load(), forced)?;
        self.keep(header, &body);
        writer.insert(header.kind, (header.epoch, hash));
        self.change(|snapshot| self.apply(snapshot, header.epoch, checked), now);
        Ok(())
    }

    /// Writes a push to disk. Callers hold the writer's lock, and use the push after this: an item
    /// that was seen to be gone does not come back with a crash.
    fn keep(&self, header: &PushHeader, body: &[u8]) {
        let Some(dir) = &self.dir else { return };
        let path = file_of(dir, header.kind);
        let head = encode(header).unwrap_or_default();
        let length = u32::try_from(head.len()).unwrap_or_default().to_le_bytes();
        if let Err(error) = files::write_whole(&path, &[&length, &head, body]) {
            // It serves from memory; only a restart without the origin would miss it.
            tracing::error!(%error, path = %path.display(), "a push is not kept on disk");
        }
    }

    fn apply(&self, snapshot: &mut Snapshot, epoch: u64, checked: Checked) {
        match checked {
            Checked::Config(config) => {
                self.local
                    .install(snapshot, epoch.saturating_add(1), config)
            }
            Checked::Pool(pool) => snapshot.pool = Some(pool),
            Checked::Popular(popular) => snapshot.popular = Some(popular),
            Checked::Mask(mask) => (snapshot.mask, snapshot.mask_epoch) = (mask, epoch),
            Checked::Bandit(bandit) => (snapshot.bandit, snapshot.bandit_epoch) = (bandit, epoch),
        }
    }

    /// Publishes a changed snapshot. Callers hold the writer's lock, or are the only ones.
    fn change(&self, change: impl FnOnce(&mut Snapshot), now: Millis) {
        let mut next = Snapshot::clone(&self.now.load());
        change(&mut next);
        let until = next.mask.next_change(now).unwrap_or(NEVER);
        self.now.store(Arc::new(next));
        self.mask_until.store(until, Ordering::Release);
    }

    #[must_use]
    pub fn now(&self) -> Guard<Arc<Snapshot>> {
        self.now.load()
    }

    /// When the mask next changes its mind by time alone.
    #[must_use]
    pub fn mask_until(&self, now: Millis) -> Millis {
        let until = self.mask_until.load(Ordering::Acquire);
        if now < until {
            return until;
        }
        let until = self.now.load().mask.next_change(now).unwrap_or(NEVER);
        self.mask_until.store(until, Ordering::Release);
        until
    }

    /// What to tell the origin, so that it is not sent again.
    #[must_use]
    pub fn inventory(&self) -> Vec<(PushKind, u64, [u8; 32])> {
        let mut all: Vec<_> = self
            .writer
            .lock()
            .iter()
            .map(|(kind, (epoch, sha256))| (*kind, *epoch, *sha256))
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether the PoP may say that it is ready.
    #[must_use]
    pub fn has_pool(&self) -> bool {
        self.now.load().pool.is_some()
    }

    #[must_use]
    pub fn corrupt_files(&self) -> u64 {
        self.corrupt_files.load(Ordering::Relaxed)
    }
}

impl Snapshot {
    /// Rights for each hash at `now`.
    pub fn forbidden(&self, hashes: &[u64], now: Millis, country: &str) -> Vec<u8> {
        if self.mask.is_empty() {
            return vec![0; hashes.len()];
        }
        let country = skerry_types::Country::parse(country);
        hashes
            .iter()
            .map(|hash| u8::from(self.mask.forbids(ItemHash(*hash), now, country)))
            .collect()
    }
}

fn file_of(dir: &Path, kind: PushKind) -> PathBuf {
    dir.join(format!("{}.held", kind.as_str()))
}

/// A held file is the header's length, the header, and the body.
fn split_file(bytes: &[u8]) -> Option<(PushHeader, Bytes)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length))
        .ok()
        .filter(|length| *length <= HEADER_BYTES_MAX)?;
    let (header, body) = rest.split_at_checked(length)?;
    Some((
        decode::<PushHeader>(header).ok()?,
        Bytes::copy_from_slice(body),
    ))
}

/// The blob that a PoP uses until the origin has pushed one.
fn plain_config(sealing_key: [u8; 32]) -> ConfigBlob {
    ConfigBlob {
        pop: Arc::from(""),
        region: Arc::from(""),
        sealing_key,
        surfaces: Vec::new(),
        public_names_users: None,
        keys: Vec::new(),
        fresh_active_ms: 5 * 60 * 1_000,
        fresh_idle_ms: 15 * 60 * 1_000,
    }
}

#[cfg(test)]
mod tests;
