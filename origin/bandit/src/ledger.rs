//! The ledger: statistics in memory, written through to fjall.
//!
//! One lock is held over read, change and commit, which keeps each change whole; a change costs some
//! microseconds, a snapshot reads memory only.

use crate::cell::{Cell, CellState, Pending, REWARD_ONE, expiry_key, pending_key};
use crate::{ARMS_MAX, BUCKET_MS, BUCKETS_MAX, Error, PENDING_MS_MAX, PRIOR_RATE, PRIOR_WEIGHT};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::Mutex;
use skerry_decide::bandit::{self, ArmParams, Params, Snapshot};
use skerry_types::{ItemId, Millis, Surface, TenantId, Uid};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The layout of the folder: `FORMAT` says which.
const FORMAT: u32 = 1;
/// Pending exposures that one sweep removes.
const SWEEP_MAX: usize = 50_000;
const CACHE_BYTES: u64 = 8 << 20;

/// An arm was shown (or sent, where nobody reports what was seen).
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    pub tenant: TenantId,
    pub surface: Surface,
    pub decision: Uid,
    pub arm: ItemId,
    pub at_ms: Millis,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reward {
    pub tenant: TenantId,
    pub decision: Uid,
    pub arm: ItemId,
    /// 0 to 1; clamped.
    pub reward: f64,
    pub at_ms: Millis,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    Counted,
    /// It had been counted before.
    Duplicate,
    /// No exposure waits for it: never shown, expired, or outside all buckets.
    Unknown,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    pub cells: usize,
    pub pending: usize,
}

type Place = (TenantId, Surface);
/// By bucket, then region.
type Cells = BTreeMap<(u32, Arc<str>), Cell>;

#[derive(Default)]
struct State {
    surfaces: HashMap<Place, HashMap<ItemId, Cells>>,
    arms: usize,
    /// Grows with every change here, merged ones included.
    seq: u64,
}

/// Statistics of all arms, of one region's origin.
pub struct Ledger {
    path: PathBuf,
    region: Arc<str>,
    database: Database,
    cells: Keyspace,
    pending: Keyspace,
    expiry: Keyspace,
    meta: Keyspace,
    state: Mutex<State>,
}

impl Ledger {
    /// Opens or makes the ledger in the folder `path`; `region` is the name that its own cells bear.
    pub fn open(path: &Path, region: &str) -> Result<Self, Error> {
        check_format(path)?;
        let store = |source| from_store(path, source);
        let database = Database::builder(path.join("store"))
            .cache_size(CACHE_BYTES)
            .worker_threads(1)
            .open()
            .map_err(store)?;
        let keyspace = |name: &str| {
            database
                .keyspace(name, KeyspaceCreateOptions::default)
                .map_err(store)
        };
        let (cells, pending) = (keyspace("cells")?, keyspace("pending")?);
        let (expiry, meta) = (keyspace("expiry")?, keyspace("meta")?);
        let mut state = State::default();
        for entry in cells.iter() {
            let (key, value) = entry.into_inner().map_err(store)?;
            let cell =
                CellState::decode(&key, &value).ok_or_else(|| damaged(path, "cells", &key))?;
            state.seq = state.seq.max(cell.cell.seq);
            let own = slot(&mut state, &cell)?;
            *own = cell.cell;
        }
        if let Some(value) = meta.get("seq").map_err(store)? {
            let stored = value
                .as_ref()
                .try_into()
                .map_err(|_| damaged(path, "meta", b"seq"))?;
            state.seq = state.seq.max(u64::from_le_bytes(stored));
        }
        let (path, region) = (path.to_path_buf(), Arc::from(region));
        Ok(Self {
            path,
            region,
            database,
            cells,
            pending,
            expiry,
            meta,
            state: Mutex::new(state),
        })
    }

    /// Counts an exposure, once per (tenant, decision, arm).
    pub fn record_exposure(&self, exposure: &Exposure) -> Result<Recorded, Error> {
        let key = pending_key(&exposure.tenant, exposure.decision, &exposure.arm);
        let mut state = self.state.lock();
        if self.pending.contains_key(&key).map_err(|e| self.store(e))? {
            return Ok(Recorded::Duplicate);
        }
        let bucket = bucket_of(exposure.at_ms);
        let place = self.own(&exposure.tenant, &exposure.surface, &exposure.arm, bucket);
        let pending = Pending {
            surface: exposure.surface.clone(),
            bucket,
            rewarded: false,
        };
        let expires_ms = exposure.at_ms.saturating_add(PENDING_MS_MAX);
        self.change(
            &mut state,
            place,
            |cell| cell.exposures += 1,
            |batch| {
                batch.insert(&self.expiry, expiry_key(expires_ms, &key), Vec::new());
                batch.insert(&self.pending, key, pending.encode());
            },
        )?;
        Ok(Recorded::Counted)
    }

    /// Counts a reward into the bucket of its exposure, once.
    pub fn record_reward(&self, reward: &Reward) -> Result<Recorded, Error> {
        let key = pending_key(&reward.tenant, reward.decision, &reward.arm);
        let mut state = self.state.lock();
        let Some(stored) = self.pending.get(&key).map_err(|e| self.store(e))? else {
            return Ok(Recorded::Unknown);
        };
        let mut pending =
            Pending::decode(&stored).ok_or_else(|| damaged(&self.path, "pending", &key))?;
        if pending.rewarded {
            return Ok(Recorded::Duplicate);
        }
        if u64::from(bucket_of(reward.at_ms)) * BUCKET_MS
            > u64::from(pending.bucket) * BUCKET_MS + PENDING_MS_MAX
        {
            return Ok(Recorded::Unknown);
        }
        pending.rewarded = true;
        let value = if reward.reward.is_finite() {
            reward.reward.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let place = self.own(
            &reward.tenant,
            &pending.surface,
            &reward.arm,
            pending.bucket,
        );
        let add = |cell: &mut Cell| {
            cell.rewards_millionths += (value * REWARD_ONE).round() as u64;
            cell.squares_millionths += (value * value * REWARD_ONE).round() as u64;
        };
        self.change(&mut state, place, add, |batch| {
            batch.insert(&self.pending, key, pending.encode())
        })?;
        Ok(Recorded::Counted)
    }

    /// The parameters of a surface over `candidates` (the first [`bandit::ARMS_MAX`]), from the
    /// buckets that still count at `now_ms`. The prior is the surface's own rate, weighing
    /// [`PRIOR_WEIGHT`] exposures.
    #[must_use]
    pub fn params(
        &self,
        tenant: &TenantId,
        surface: &Surface,
        candidates: &[ItemId],
        now_ms: Millis,
    ) -> Params {
        let state = self.state.lock();
        let oldest = bucket_of(now_ms).saturating_sub(BUCKETS_MAX - 1);
        let arms = state.surfaces.get(&(tenant.clone(), surface.clone()));
        let sums = |cells: &Cells| {
            let live = cells.range((oldest, Arc::from(""))..).map(|(_, cell)| cell);
            live.fold((0, 0), |(n, r), cell| {
                (n + cell.exposures, r + cell.rewards_millionths)
            })
        };
        let (all, rewarded) = arms
            .iter()
            .flat_map(|arms| arms.values())
            .map(sums)
            .fold((0, 0), |(n, r), (m, s)| (n + m, r + s));
        let rate = (rewarded as f64 / REWARD_ONE + PRIOR_WEIGHT * PRIOR_RATE)
            / (all as f64 + PRIOR_WEIGHT);
        let arm = |item: &ItemId| {
            let (n, r) = arms
                .and_then(|arms| arms.get(item))
                .map(sums)
                .unwrap_or_default();
            let wins = r as f64 / REWARD_ONE;
            // More reward than exposures can only come from lost exposures.
            let losses = (n as f64 - wins).max(0.0);
            let (alpha, beta) = (
                PRIOR_WEIGHT * rate + wins,
                PRIOR_WEIGHT * (1.0 - rate) + losses,
            );
            ArmParams {
                item: item.clone(),
                alpha: alpha as f32,
                beta: beta as f32,
            }
        };
        let arms = candidates.iter().take(bandit::ARMS_MAX).map(arm).collect();
        Params {
            epoch: state.seq,
            surface: surface.clone(),
            arms,
        }
    }

    /// [`Ledger::params`], integrated: what draws are made from.
    #[must_use]
    pub fn snapshot(
        &self,
        tenant: &TenantId,
        surface: &Surface,
        candidates: &[ItemId],
        now_ms: Millis,
    ) -> Snapshot {
        Snapshot::integrate(&self.params(tenant, surface, candidates, now_ms))
    }

    /// This region's own cells that changed after `seq`, with their whole (cumulative) state.
    #[must_use]
    pub fn changed_since(&self, seq: u64) -> Vec<CellState> {
        let state = self.state.lock();
        let mut out = Vec::new();
        for ((tenant, surface), arms) in &state.surfaces {
            for (arm, cells) in arms {
                let own = cells
                    .iter()
                    .filter(|((_, region), cell)| *region == self.region && cell.seq > seq);
                out.extend(own.map(|((bucket, region), cell)| CellState {
                    tenant: tenant.clone(),
                    surface: surface.clone(),
                    arm: arm.clone(),
                    bucket: *bucket,
                    region: region.clone(),
                    cell: *cell,
                }));
            }
        }
        out.sort_by_key(|state| state.cell.seq);
        out
    }

    /// Takes over another region's cell, if it is newer than what is known. Our own cells come from
    /// nobody else. Returns whether it was taken.
    pub fn merge(&self, theirs: CellState) -> Result<bool, Error> {
        if theirs.region == self.region {
            return Ok(false);
        }
        let mut state = self.state.lock();
        let known = slot(&mut state, &theirs)?;
        if known.seq >= theirs.cell.seq {
            return Ok(false);
        }
        *known = theirs.cell;
        self.cells
            .insert(theirs.key(), theirs.cell.encode())
            .map_err(|e| self.store(e))?;
        self.bump(&mut state)?;
        Ok(true)
    }

    /// Drops the buckets that no longer count and the exposures that waited in vain. Call it every
    /// hour or so; one call removes at most 50,000 exposures.
    pub fn sweep(&self, now_ms: Millis) -> Result<Swept, Error> {
        let mut state = self.state.lock();
        let oldest = bucket_of(now_ms).saturating_sub(BUCKETS_MAX - 1);
        let mut swept = Swept::default();
        let mut batch = self.database.batch();
        for ((tenant, surface), arms) in &mut state.surfaces {
            for (arm, cells) in arms.iter_mut() {
                let live = cells.split_off(&(oldest, Arc::from("")));
                for ((bucket, region), cell) in std::mem::replace(cells, live) {
                    let gone = CellState {
                        tenant: tenant.clone(),
                        surface: surface.clone(),
                        arm: arm.clone(),
                        bucket,
                        region,
                        cell,
                    };
                    batch.remove(&self.cells, gone.key());
                    swept.cells += 1;
                }
            }
            arms.retain(|_, cells| !cells.is_empty());
        }
        state.surfaces.retain(|_, arms| !arms.is_empty());
        state.arms = state.surfaces.values().map(HashMap::len).sum();
        for entry in self.expiry.range(..now_ms.to_be_bytes()).take(SWEEP_MAX) {
            let key = entry.key().map_err(|e| self.store(e))?;
            if let Some((_, pending)) = key.split_first_chunk::<8>() {
                batch.remove(&self.pending, pending);
            }
            batch.remove(&self.expiry, key);
            swept.pending += 1;
        }
        batch.commit().map_err(|e| self.store(e))?;
        Ok(swept)
    }

    /// Makes everything so far durable.
    pub fn sync(&self) -> Result<(), Error> {
        self.database
            .persist(PersistMode::SyncData)
            .map_err(|e| self.store(e))
    }

    fn own(&self, tenant: &TenantId, surface: &Surface, arm: &ItemId, bucket: u32) -> CellState {
        CellState {
            tenant: tenant.clone(),
            surface: surface.clone(),
            arm: arm.clone(),
            bucket,
            region: self.region.clone(),
            cell: Cell::default(),
        }
    }

    /// Changes one own cell, in memory and on disk, together with what `also` writes. Memory changes
    /// only once the disk has.
    fn change(
        &self,
        state: &mut State,
        mut place: CellState,
        change: impl FnOnce(&mut Cell),
        also: impl FnOnce(&mut fjall::OwnedWriteBatch),
    ) -> Result<(), Error> {
        let seq = state.seq + 1;
        place.cell = *slot(state, &place)?;
        change(&mut place.cell);
        place.cell.seq = seq;
        let mut batch = self.database.batch();
        batch.insert(&self.cells, place.key(), place.cell.encode());
        also(&mut batch);
        batch.commit().map_err(|e| self.store(e))?;
        *slot(state, &place)? = place.cell;
        state.seq = seq;
        Ok(())
    }

    /// A merged cell carries its writer's sequence, so ours is stored beside it.
    fn bump(&self, state: &mut State) -> Result<(), Error> {
        state.seq += 1;
        self.meta
            .insert("seq", state.seq.to_le_bytes())
            .map_err(|e| self.store(e))
    }

    fn store(&self, source: fjall::Error) -> Error {
        from_store(&self.path, source)
    }
}

/// The cell at a place, made where there is none.
fn slot<'s>(state: &'s mut State, place: &CellState) -> Result<&'s mut Cell, Error> {
    let arms = state
        .surfaces
        .entry((place.tenant.clone(), place.surface.clone()))
        .or_default();
    if !arms.contains_key(&place.arm) {
        if state.arms >= ARMS_MAX {
            return Err(Error::Full);
        }
        state.arms += 1;
    }
    let cells = arms.entry(place.arm.clone()).or_default();
    Ok(cells
        .entry((place.bucket, place.region.clone()))
        .or_default())
}

fn bucket_of(at_ms: Millis) -> u32 {
    u32::try_from(at_ms / BUCKET_MS).unwrap_or(u32::MAX)
}

fn damaged(path: &Path, keyspace: &str, key: &[u8]) -> Error {
    let reason = format!("keyspace {keyspace}, key {}", key.escape_ascii());
    Error::Corrupt {
        path: path.join("store"),
        reason,
    }
}

/// Damage and trouble want different remedies.
fn from_store(path: &Path, source: fjall::Error) -> Error {
    let path = path.join("store");
    match source {
        fjall::Error::Io(source) if source.kind() != std::io::ErrorKind::InvalidData => {
            Error::Io { path, source }
        }
        fjall::Error::Locked | fjall::Error::Poisoned => Error::Store { path, source },
        damage => Error::Corrupt {
            path,
            reason: damage.to_string(),
        },
    }
}

fn check_format(path: &Path) -> Result<(), Error> {
    let file = path.join("FORMAT");
    let io = |source| Error::Io {
        path: file.clone(),
        source,
    };
    std::fs::create_dir_all(path).map_err(io)?;
    match std::fs::read_to_string(&file) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found <= FORMAT => Ok(()),
            Ok(found) => Err(Error::Newer {
                path: file,
                found,
                known: FORMAT,
            }),
            Err(_) => Err(Error::Corrupt {
                path: file,
                reason: "not a number".to_owned(),
            }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&file, format!("{FORMAT}\n")).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}
