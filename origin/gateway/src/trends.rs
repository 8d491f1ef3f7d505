//! What is popular now: the model's trend, and what has happened since the model was trained.
//!
//! Invariants: a pure fold over the log, so that a restart finds the same lists; decay goes by
//! position in the log, never by the clock (as in training: an archive ranks as it did when it
//! ended); imports are left to the next training, and what an erased user did leaves with the next
//! start or training; memory holds at most [`ITEMS_MAX`] items for each
//! of at most [`SURFACES_MAX`] surfaces and for all of them together.

use crate::Error;
use crate::kinds::Kinds;
use crate::state::State;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skerry_origin_events::{Consumer, IMPORTED, Reader, Stored};
use skerry_types::{Event, ItemId, Millis, Surface, TenantId};
use skerry_wire::codec::{decode_as, encode_as};
use skerry_wire::value::schema::TRENDS;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Items counted at once, in each count.
pub const ITEMS_MAX: usize = 20_000;
/// Surfaces with lists of their own; further ones have the general list.
pub const SURFACES_MAX: usize = 16;
/// After this many events on a surface an event there counts half.
const SURFACE_HALF_LIFE_EVENTS: f64 = 5_000.0;
/// A surface's list begins as the general one, which counts as this many positive events.
const SURFACE_PRIOR_EVENTS: f64 = 100.0;
/// Counts of surfaces are written after this many positions of the log: what a start reads again.
const SAVE_EVENTS: u64 = 20_000;
/// Events read from the log at once.
const READ_EVENTS_MAX: usize = 20_000;
/// Weights are scaled down once the newest is 2 to this.
const SHIFT: f64 = 64.0;
const NAME: &str = "trends";

/// Decayed counts. An event weighs 2^(its place / half-life), so that the past is never touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Fold {
    /// Last position of the log that is in.
    seq: u64,
    half_life: f64,
    /// Events so far, positive or not.
    places: u64,
    /// Halvings that weights have been scaled down by.
    shift: f64,
    /// Acceptance of the newest positive event.
    as_of_ms: Millis,
    weights: HashMap<ItemId, f64>,
}

impl Fold {
    fn new(half_life: f64, seq: u64) -> Self {
        Self {
            seq,
            half_life: half_life.max(1.0),
            places: 0,
            shift: 0.0,
            as_of_ms: 0,
            weights: HashMap::new(),
        }
    }

    /// Whether the event counted.
    fn note(&mut self, seq: u64, event: &Event, kinds: &Kinds) -> bool {
        if seq <= self.seq {
            return false;
        }
        self.seq = seq;
        let Some(item) = &event.item else {
            return false;
        };
        if &*event.pop == IMPORTED || !kinds.is_history(event) {
            return false;
        }
        self.places += 1;
        let weight = kinds.weight(event);
        if weight <= 0.0 {
            return false;
        }
        let age = self.age();
        if age > SHIFT {
            // By a power of two: exact.
            self.weights
                .values_mut()
                .for_each(|weight| *weight *= (-SHIFT).exp2());
            self.shift += SHIFT;
        }
        let grown = weight * self.age().exp2();
        *self.weights.entry(item.clone()).or_insert(0.0) += grown;
        self.as_of_ms = self.as_of_ms.max(event.accepted_ms);
        if self.weights.len() > ITEMS_MAX {
            self.prune();
        }
        true
    }

    /// Half-lives since the scale's zero.
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    fn age(&self) -> f64 {
        self.places as f64 / self.half_life - self.shift
    }

    /// What is left of one event from before the first.
    fn decay(&self) -> f64 {
        (-(self.age() + self.shift)).exp2()
    }

    /// An item's count, as of the newest event.
    fn count(&self, item: &ItemId) -> f64 {
        self.weights
            .get(item)
            .map_or(0.0, |weight| weight * (-self.age()).exp2())
    }

    /// Keeps the heavier half.
    fn prune(&mut self) {
        let mut items: Vec<(ItemId, f64)> = self.weights.drain().collect();
        items.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        items.truncate(ITEMS_MAX / 2);
        self.weights = items.into_iter().collect();
    }
}

/// Counts of surfaces as they are stored. Derived: what does not fit is made again from the log.
#[derive(Serialize, Deserialize)]
struct Saved {
    kinds: Vec<(Box<str>, u8, f32)>,
    surfaces: BTreeMap<Surface, Fold>,
}

struct Live {
    /// Since the model in service was trained; `None` before there is one.
    general: Option<Fold>,
    /// Position that the model learned up to.
    model_seq: u64,
    surfaces: BTreeMap<Surface, Fold>,
    saved_seq: u64,
    /// Something counted since the lists were taken last.
    moved: bool,
    taken_ms: Millis,
}

/// A list, best first, with scores in 0..=1 relative to the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    pub surface: Option<Surface>,
    pub as_of_ms: Millis,
    pub items: Vec<(ItemId, f32)>,
}

/// The model's part: its best items with their trend, and the trend of any.
pub struct Base<'a> {
    pub as_of_ms: Millis,
    pub best: Vec<(ItemId, f64)>,
    pub trend: &'a dyn Fn(&ItemId) -> f64,
}

/// The consumer.
pub struct Trends {
    tenant: TenantId,
    kinds: Kinds,
    state: State,
    live: Mutex<Live>,
}

impl Trends {
    /// Opens the counts of surfaces and brings them up to the end of the log.
    pub fn open(
        state: &State,
        reader: &Reader,
        tenant: &TenantId,
        surfaces: &[Surface],
        kinds: Kinds,
    ) -> Result<Self, Error> {
        let wanted: BTreeMap<Surface, Fold> = surfaces
            .iter()
            .take(SURFACES_MAX)
            .map(|surface| (surface.clone(), Fold::new(SURFACE_HALF_LIFE_EVENTS, 0)))
            .collect();
        let saved = state
            .get(NAME)?
            .and_then(|bytes| decode_as::<Saved>(TRENDS, &bytes).ok())
            .filter(|saved| {
                saved.kinds == kinds.signature() && saved.surfaces.keys().eq(wanted.keys())
            });
        let mut surfaces = saved.map_or(wanted, |saved| saved.surfaces);
        if let Some(from) = surfaces.values().map(|fold| fold.seq).min() {
            each(reader, tenant, from, |seq, event| {
                note(&mut surfaces, seq, event, &kinds);
            })?;
        }
        Ok(Self {
            tenant: tenant.clone(),
            kinds,
            state: state.clone(),
            live: Mutex::new(Live {
                general: None,
                model_seq: 0,
                saved_seq: reader.last_seq()?,
                surfaces,
                moved: false,
                taken_ms: 0,
            }),
        })
    }

    /// Counts on from where a model's training ended; `half_life` is the model's, in events.
    pub fn follow(&self, reader: &Reader, seq: u64, half_life: f64) -> Result<(), Error> {
        let follows = |live: &Live| live.general.is_some() && live.model_seq == seq;
        if follows(&self.live.lock()) {
            return Ok(());
        }
        let mut fold = Fold::new(half_life, seq);
        let read = |fold: &mut Fold| {
            each(reader, &self.tenant, fold.seq, |seq, event| {
                fold.note(seq, event, &self.kinds);
            })
        };
        // The long part without holding the log up, then what arrived meanwhile.
        read(&mut fold)?;
        let mut live = self.live.lock();
        read(&mut fold)?;
        live.general = Some(fold);
        live.model_seq = seq;
        Ok(())
    }

    /// Whether lists should be made again: something counted, and `every_ms` have passed.
    pub fn take_due(&self, now: Millis, every_ms: u64) -> bool {
        let mut live = self.live.lock();
        // A clock that went back is no reason to wait.
        let waited = now < live.taken_ms || now - live.taken_ms >= every_ms;
        let due = live.moved && waited;
        if due {
            (live.moved, live.taken_ms) = (false, now);
        }
        due
    }

    /// The general list first, then those of surfaces on which anything happened; `k` items each
    /// of those that `exists` knows.
    pub fn lists(
        &self,
        base: &Base<'_>,
        k: usize,
        exists: impl Fn(&ItemId) -> bool,
    ) -> Vec<Ranked> {
        let live = self.live.lock();
        let general = live.general.as_ref();
        let decay = general.map_or(1.0, Fold::decay);
        let score = |item: &ItemId| {
            (base.trend)(item) * decay + general.map_or(0.0, |fold| fold.count(item))
        };
        // In order: sums of the same numbers are then the same.
        let mut items: BTreeSet<&ItemId> = base.best.iter().map(|(item, _)| item).collect();
        items.extend(general.into_iter().flat_map(|fold| fold.weights.keys()));
        let as_of_ms = general.map_or(0, |fold| fold.as_of_ms).max(base.as_of_ms);
        let all: f64 = items.iter().map(|item| score(item)).sum();
        let mut lists = vec![Ranked {
            surface: None,
            as_of_ms,
            items: best(items.iter().copied(), score, k, &exists),
        }];
        for (surface, fold) in &live.surfaces {
            if fold.weights.is_empty() {
                continue;
            }
            let prior = SURFACE_PRIOR_EVENTS / all.max(f64::MIN_POSITIVE);
            let score = |item: &ItemId| fold.count(item) + prior * score(item);
            let items: BTreeSet<&ItemId> =
                items.iter().copied().chain(fold.weights.keys()).collect();
            lists.push(Ranked {
                surface: Some(surface.clone()),
                as_of_ms: as_of_ms.max(fold.as_of_ms),
                items: best(items.into_iter(), score, k, &exists),
            });
        }
        lists
    }
}

impl Consumer for Trends {
    fn apply(&self, _: &Reader, batch: &[Stored]) {
        let mut live = self.live.lock();
        for stored in batch {
            // What an import replaces counted when it happened.
            if stored.event.tenant != self.tenant || stored.replaced.is_some() {
                continue;
            }
            let (seq, event) = (stored.seq, &stored.event);
            let general = live.general.as_mut();
            let counted = general.is_some_and(|fold| fold.note(seq, event, &self.kinds));
            live.moved |= note(&mut live.surfaces, seq, event, &self.kinds) || counted;
        }
    }

    fn flush(&self, seq: u64) {
        let bytes = {
            let mut live = self.live.lock();
            if live.surfaces.is_empty() || seq.saturating_sub(live.saved_seq) < SAVE_EVENTS {
                return;
            }
            live.saved_seq = seq;
            let saved = Saved {
                kinds: self.kinds.signature(),
                surfaces: live.surfaces.clone(),
            };
            encode_as(TRENDS, &saved)
        };
        let written = bytes
            .map_err(Error::from)
            .and_then(|bytes| self.state.put(NAME, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "popular counts were not written");
        }
    }
}

/// Counts an event where it happened. All surfaces move on, so that the oldest says where to read
/// again.
fn note(surfaces: &mut BTreeMap<Surface, Fold>, seq: u64, event: &Event, kinds: &Kinds) -> bool {
    let mut counted = false;
    for (surface, fold) in surfaces.iter_mut() {
        if event.surface.as_ref() == Some(surface) {
            counted |= fold.note(seq, event, kinds);
        } else {
            fold.seq = fold.seq.max(seq);
        }
    }
    counted
}

/// All events after a position.
fn each(
    reader: &Reader,
    tenant: &TenantId,
    mut after: u64,
    mut each: impl FnMut(u64, &Event),
) -> Result<(), Error> {
    loop {
        let (_, last) = reader.replay(tenant, after, READ_EVENTS_MAX, &mut |seq, event| {
            each(seq, &event);
        })?;
        if last == after {
            return Ok(());
        }
        after = last;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "scores are shown")]
fn best<'i>(
    items: impl Iterator<Item = &'i ItemId>,
    score: impl Fn(&ItemId) -> f64,
    k: usize,
    exists: &impl Fn(&ItemId) -> bool,
) -> Vec<(ItemId, f32)> {
    let mut scored: Vec<(&ItemId, f64)> = items
        .filter(|item| exists(item))
        .map(|item| (item, score(item)))
        .collect();
    scored.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let most = scored.first().map_or(1.0, |first| first.1).max(1e-12);
    scored
        .into_iter()
        .take(k)
        .map(|(item, score)| (item.clone(), (score / most).clamp(0.0, 1.0) as f32))
        .collect()
}

#[cfg(test)]
mod tests;
