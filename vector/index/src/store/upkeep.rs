//! What happens in the background: frozen segments are sealed, sealed ones are compacted.
//!
//! Invariants: the manifest is on disk before readers see a new segment, and what it no longer names
//! is removed only after they do; a tombstone that comes while a segment is built is carried over; a
//! checkpoint says no more than the segments and tombstones on disk hold. One thread seals, as fast
//! as writes come; another compacts, one build at a time, and rests in proportion while it builds. A
//! build ends when the collection stops: what it would have replaced stays, in the log and on disk.

use super::build::{Built, How, Source, build};
use super::dead::Dead;
use super::error::StoreError;
use super::files;
use super::manifest::{Entry, Manifest};
use super::options::Options;
use super::shared::{Kept, Shared};
use super::view::{SealedRef, View};
use crate::pace::Pace;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A build that failed is tried again after this time.
const RETRY_MS: u64 = 1_000;

/// Tells writers, should the thread that seals end before its time: they would wait for it for ever.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if !self.0.is_stopping() {
            self.0.faults.lock().sealing = Some(StoreError::Poisoned {
                cause: "the thread that seals has panicked".into(),
            });
            self.0.ring();
        }
    }
}

/// Seals until the collection stops.
pub fn run_sealing(shared: &Shared) {
    let _ended = Ended(shared);
    while wait(shared, &|| !shared.memory.view.load().frozen().is_empty()) {
        let result = in_background(shared, 100, |pace| seal(shared, pace));
        let failed = result.is_err();
        shared.faults.lock().sealing = note(shared, "sealing", result);
        shared.ring();
        if failed {
            rest(shared, Duration::from_millis(RETRY_MS));
        }
    }
}

/// Compacts until the collection stops.
pub fn run_compacting(shared: &Shared) {
    let wanted = || !pick(&shared.memory.view.load(), shared).is_empty();
    while wait(shared, &wanted) {
        let numbers = pick(&shared.memory.view.load(), shared);
        let percent = shared.options.cpu_percent;
        let result = in_background(shared, percent, |pace| compact(shared, &numbers, pace));
        let failed = result.is_err();
        shared.faults.lock().compacting = note(shared, "compaction", result);
        if failed {
            rest(shared, Duration::from_millis(RETRY_MS));
        }
    }
}

/// Works at a pace that ends with the collection.
fn in_background<T>(shared: &Shared, percent: u32, work: impl FnOnce(Pace<'_>) -> T) -> T {
    let is_stopped = || shared.is_stopping();
    let rest = |pause| rest(shared, pause);
    work(Pace::new(&is_stopped, &rest, percent))
}

fn note(shared: &Shared, what: &str, result: Result<(), StoreError>) -> Option<StoreError> {
    let error = result.err()?;
    if shared.is_stopping() {
        return None;
    }
    tracing::error!(%error, code = error.code(), dir = %shared.dir.display(), "{what} failed");
    Some(error)
}

/// Waits for something to do; false when the collection stops.
fn wait(shared: &Shared, wanted: &dyn Fn() -> bool) -> bool {
    let mut bell = shared.bell.lock();
    loop {
        if shared.is_stopping() {
            return false;
        }
        if wanted() {
            return true;
        }
        shared.changed.wait(&mut bell);
    }
}

fn rest(shared: &Shared, pause: Duration) {
    let until = Instant::now() + pause;
    let mut bell = shared.bell.lock();
    while !shared.is_stopping() && !shared.changed.wait_until(&mut bell, until).timed_out() {}
}

/// Seals what is frozen, all of it into one segment.
pub fn seal(shared: &Shared, pace: Pace<'_>) -> Result<(), StoreError> {
    let _one = shared.sealing.lock();
    let view = shared.memory.view.load_full();
    let Some(last) = view.frozen().last() else {
        return Ok(());
    };
    let checkpoint = last.rows.last_seq();
    let sources: Vec<Source> = view.frozen().iter().cloned().map(Source::Recent).collect();
    // One that only deletes went through has no last number where nothing was written at all.
    let checkpoint = checkpoint.max(shared.manifest.lock().manifest.checkpoint);
    replace(shared, &sources, checkpoint, pace)
}

/// Makes one segment of those that are named.
pub fn compact(shared: &Shared, numbers: &[u64], pace: Pace<'_>) -> Result<(), StoreError> {
    let _one = shared.compacting.lock();
    let view = shared.memory.view.load_full();
    let sources: Vec<Source> = view
        .sealed
        .iter()
        .filter(|one| numbers.contains(&one.segment.number()))
        .cloned()
        .map(Source::Sealed)
        .collect();
    if sources.is_empty() {
        return Ok(());
    }
    let result = replace(shared, &sources, 0, pace);
    if let Err(StoreError::Corrupt { .. }) = result {
        // Which of them it was is not asked: they stay as they are until they are verified.
        shared.manifest.lock().damaged.extend(numbers);
    }
    result
}

/// The segments that should become one now.
fn pick(view: &View, shared: &Shared) -> Vec<u64> {
    let Some(kept) = shared.manifest.try_lock() else {
        return Vec::new();
    };
    let sizes: Vec<(u64, usize, usize)> = view
        .sealed
        .iter()
        .filter(|one| !kept.damaged.contains(&one.segment.number()))
        .map(|one| (one.segment.number(), one.segment.rows(), one.dead.count()))
        .collect();
    drop(kept);
    choose(&sizes, &shared.options)
}

/// Of segments given by number, rows and dead rows: one with too many dead, else enough of a size.
pub fn choose(sizes: &[(u64, usize, usize)], options: &Options) -> Vec<u64> {
    let too_dead = |(_, rows, dead): &&(u64, usize, usize)| {
        dead.saturating_mul(100) > rows.saturating_mul(options.dead_percent_max)
    };
    if let Some((number, ..)) = sizes.iter().find(too_dead) {
        return vec![*number];
    }
    let mut live: Vec<(usize, u64)> = sizes
        .iter()
        .map(|(number, rows, dead)| (rows.saturating_sub(*dead), *number))
        .collect();
    live.sort_unstable();
    let tier = |rows: usize| {
        let units = (rows / options.mutable_rows).max(1);
        units.ilog(options.merge_fan_in)
    };
    for group in live.chunk_by(|a, b| tier(a.0) == tier(b.0)) {
        let some: Vec<_> = group.iter().take(options.merge_fan_in).collect();
        let rows: usize = some.iter().map(|(rows, _)| rows).sum();
        if some.len() == options.merge_fan_in && rows <= options.segment_rows_max {
            return some.iter().map(|(_, number)| *number).collect();
        }
    }
    Vec::new()
}

/// Builds a segment from the sources and puts it in their place, on disk and then in memory.
fn replace(
    shared: &Shared,
    sources: &[Source],
    checkpoint: u64,
    pace: Pace<'_>,
) -> Result<(), StoreError> {
    let number = {
        let mut kept = shared.manifest.lock();
        let number = kept.manifest.next_segment;
        kept.manifest.next_segment += 1;
        number
    };
    let how = How {
        codes: shared.options.codes,
        threads: shared.options.build_threads,
        pace,
    };
    let built = build(&shared.dir, &shared.spec, number, sources, how)?;
    let mut kept = shared.manifest.lock();
    let result = install(shared, &mut kept, sources, built.as_ref(), checkpoint);
    drop(kept);
    shared.ring();
    result
}

fn install(
    shared: &Shared,
    kept: &mut Kept,
    sources: &[Source],
    built: Option<&Built>,
    checkpoint: u64,
) -> Result<(), StoreError> {
    let is_source = |number: u64| {
        let same = |source: &Source| matches!(source, Source::Sealed(one) if one.segment.number() == number);
        sources.iter().any(same)
    };
    // Which tombstones there are by now: those up to the checkpoint must be on disk with it.
    let (seq, dead) = {
        let _state = shared.state.lock();
        let view = shared.memory.view.load();
        let others = view.sealed.iter();
        let others = others.filter(|one| !is_source(one.segment.number()));
        let mut dead: Vec<(u64, usize, _)> = others
            .map(|one| (one.segment.number(), one.dead.count(), one.dead.rows()))
            .collect();
        let new = built.map(|built| {
            (
                built.segment.number(),
                built.dead(&in_force(&view, sources)),
            )
        });
        dead.extend(new.map(|(number, new)| (number, new.count(), new.rows())));
        (shared.memory.applied(), dead)
    };
    let mut next = kept.manifest.clone();
    next.segments.retain(|entry| !is_source(entry.number));
    next.segments.extend(built.map(Built::entry));
    next.checkpoint = next.checkpoint.max(checkpoint);
    let mut written = Vec::new();
    for (number, count, rows) in dead {
        if count != kept.dead.get(&number).copied().unwrap_or(0) {
            Dead::write(&shared.dir, &rows, number, seq).inspect_err(|_| {
                built.inspect(|built| files::remove(&built.segment.path));
            })?;
            let entries = next.segments.iter_mut();
            for entry in entries.filter(|entry| entry.number == number) {
                entry.dead = Some(seq);
            }
            written.push((number, count));
        }
    }
    // Should this fail, the disk may have either manifest: the files of both stay.
    next.write(&shared.dir)?;
    // From here on the disk has the new state: memory follows.
    let before = std::mem::replace(&mut kept.manifest, next);
    kept.dead.extend(written);
    swap(shared, sources, built);
    tidy(shared, &before, &kept.manifest);
    Ok(())
}

/// Puts the new segment in the place of its sources, with the tombstones that they have by now.
fn swap(shared: &Shared, sources: &[Source], built: Option<&Built>) {
    let _state = shared.state.lock();
    let view = shared.memory.view.load();
    let mut next = View::clone(&view);
    next.sealed.retain(|one| {
        let same = |source: &Source| matches!(source, Source::Sealed(from) if Arc::ptr_eq(&from.segment, &one.segment));
        !sources.iter().any(same)
    });
    next.recent.retain(|one| {
        let same = |source: &Source| matches!(source, Source::Recent(from) if Arc::ptr_eq(&from.rows, &one.rows));
        !sources.iter().any(same)
    });
    next.sealed.extend(built.map(|built| SealedRef {
        segment: Arc::clone(&built.segment),
        dead: Arc::new(built.dead(&in_force(&view, sources))),
    }));
    shared.memory.view.store(Arc::new(next));
}

/// The sources with the tombstones that writes mark now: they may have been forked during the build.
fn in_force(view: &View, sources: &[Source]) -> Vec<Source> {
    let current = |source: &Source| match source {
        Source::Sealed(from) => {
            let mut all = view.sealed.iter();
            let one = all.find(|one| Arc::ptr_eq(&one.segment, &from.segment));
            one.cloned().map(Source::Sealed)
        }
        Source::Recent(from) => {
            let mut all = view.recent.iter();
            let one = all.find(|one| Arc::ptr_eq(&one.rows, &from.rows));
            one.cloned().map(Source::Recent)
        }
    };
    let each = sources.iter();
    each.map(|source| current(source).unwrap_or_else(|| source.clone()))
        .collect()
}

/// Removes what the manifest named and no longer does, and log that nobody needs.
fn tidy(shared: &Shared, before: &Manifest, now: &Manifest) {
    let dead = |entry: &Entry| entry.dead.map(|seq| (entry.number, seq));
    for entry in &before.segments {
        let still = now.segments.iter().find(|one| one.number == entry.number);
        if let Some((number, seq)) = dead(entry)
            && still.and_then(dead) != Some((number, seq))
        {
            files::remove(&shared.dir.join(files::dead_name(number, seq)));
        }
        if still.is_none() {
            files::remove(&shared.dir.join(files::segment_name(entry.number)));
        }
    }
    shared
        .log_files
        .trim(now.checkpoint, shared.options.log_tail_bytes);
}
