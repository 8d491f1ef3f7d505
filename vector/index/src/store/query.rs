//! A search over one view.
//!
//! Invariants: every score is computed from the stored vector by one kernel; results are ordered by
//! score, then by sequence number, whatever segments the records lie in; an id comes once, and of two
//! versions that a write made visible meanwhile the newer one.

use super::error::StoreError;
use super::filter;
use super::recent::BLOCK_ROWS;
use super::score::{FromDisk, normalise, query};
use super::view::{RecentRef, SealedRef, View};
use crate::exact::Best;
use crate::graph::{self, Scratch};
use crate::kernels;
use crate::plan::{Plan, Size, plan};
use crate::{
    Found, IndexError, Merge, Metric, QUERY_VECTORS_MAX, Query, RESULTS_MAX, Spec, Stored,
};
use roaring::RoaringBitmap;
use skerry_types::Filter;
use std::collections::HashMap;

/// Of recent rows, candidates that codes give for exact scores: the results wanted and half as many
/// more, at least this many.
const RESCORED_MIN: usize = 30;

/// A query that has been checked.
pub struct Prepared<'a> {
    metric: Metric,
    stored: Stored,
    vectors: Vec<Vec<f32>>,
    /// What graphs are asked for: for the mean its centre, since the mean of the scores orders
    /// records as the score of the mean does, in all three metrics.
    routes: Vec<Vec<f32>>,
    merge: Merge,
    k: usize,
    ef: usize,
    filter: Option<&'a Filter>,
}

/// A record that was found, and where.
#[derive(Clone, Copy)]
struct Hit {
    score: f32,
    seq: u64,
    /// Sealed segments first, then recent ones.
    segment: usize,
    row: u32,
}

pub fn prepare<'a>(
    spec: &Spec,
    ask: &'a Query,
    ef_default: usize,
) -> Result<Prepared<'a>, IndexError> {
    if ask.k > RESULTS_MAX {
        return Err(IndexError::TooManyResults { got: ask.k });
    }
    if !(1..=QUERY_VECTORS_MAX).contains(&ask.vectors.len()) {
        return Err(IndexError::QueryVectors {
            got: ask.vectors.len(),
        });
    }
    let vectors: Result<Vec<Vec<f32>>, IndexError> =
        ask.vectors.iter().map(|one| query(spec, one)).collect();
    let vectors = vectors?;
    if let Some(filter) = &ask.filter {
        filter::check(spec, filter)?;
    }
    let routes = match (ask.merge, vectors.as_slice()) {
        (Merge::Mean, [_, _, ..]) => centre(spec.metric, &vectors),
        _ => vectors.clone(),
    };
    Ok(Prepared {
        metric: spec.metric,
        stored: spec.stored,
        vectors,
        routes,
        merge: ask.merge,
        k: ask.k,
        ef: ask.ef.unwrap_or(ef_default).clamp(ask.k, RESULTS_MAX),
        filter: ask.filter.as_ref(),
    })
}

fn centre(metric: Metric, vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let dim = vectors.first().map_or(0, Vec::len);
    let mut mean = vec![0f32; dim];
    for vector in vectors {
        mean.iter_mut()
            .zip(vector)
            .for_each(|(sum, value)| *sum += value / vectors.len() as f32);
    }
    // Opposite directions have no centre: then each is asked for.
    if metric == Metric::Cosine && !normalise(&mut mean) {
        return vectors.to_vec();
    }
    vec![mean]
}

impl Prepared<'_> {
    fn score(&self, vector: &[f32]) -> f32 {
        let scores = self
            .vectors
            .iter()
            .map(|one| self.metric.score(one, vector));
        match self.merge {
            Merge::Best => scores.fold(f32::NEG_INFINITY, f32::max),
            // Each is divided, not their sum: that might overflow.
            Merge::Mean => scores.map(|one| one / self.vectors.len() as f32).sum(),
        }
    }

    fn best(&self, mut hits: Vec<Hit>) -> Vec<Hit> {
        if hits.len() > self.k && self.k > 0 {
            hits.select_nth_unstable_by(self.k - 1, order);
        }
        hits.truncate(self.k);
        hits
    }

    /// Recent rows that are scored exactly.
    fn want(&self) -> usize {
        (self.k + self.k / 2).max(RESCORED_MIN)
    }

    fn sealed(&self, segment: usize, one: &SealedRef) -> Result<Vec<Hit>, StoreError> {
        let matching = match self.filter {
            Some(filter) => Some(one.segment.payload_index.matching(filter)?),
            None => None,
        };
        let rows = Scratch::with(|scratch| match &matching {
            Some(rows) => self.filtered(one, rows, scratch),
            None => self.unfiltered(one, scratch),
        });
        let bytes: Result<Vec<&[u8]>, StoreError> = rows
            .iter()
            .map(|row| one.segment.vector_bytes(*row))
            .collect();
        let bytes = bytes?;
        bytes.iter().for_each(|bytes| kernels::fetch(bytes));
        let mut vector = FromDisk::default();
        let mut hits = Vec::with_capacity(rows.len());
        for (row, bytes) in rows.into_iter().zip(bytes) {
            // Since the search looked, it may have been replaced.
            if one.dead.contains(row) {
                continue;
            }
            hits.push(Hit {
                score: self.score(vector.read(self.stored, bytes)),
                seq: one.segment.seq(row)?,
                segment,
                row,
            });
        }
        Ok(self.best(hits))
    }

    /// Rows near any of the routes that are alive.
    fn unfiltered(&self, one: &SealedRef, scratch: &mut Scratch) -> Vec<u32> {
        let alive = |row: u32| !one.dead.contains(row);
        let allow: Option<&dyn Fn(u32) -> bool> = (one.dead.count() > 0).then_some(&alive);
        let packed = &one.segment.packed;
        self.by_routes(|route| {
            let query = packed.query(route);
            let want = packed.rescored(self.k, self.ef);
            packed.candidates(scratch, &query, want, self.ef, allow)
        })
    }

    /// The same of those that pass a filter, by the way that costs least.
    fn filtered(
        &self,
        one: &SealedRef,
        matching: &RoaringBitmap,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let packed = &one.segment.packed;
        let rows = one.segment.rows() as u32;
        let live = rows.saturating_sub(one.dead.count() as u32);
        let size = Size {
            rows,
            live,
            code_bytes: packed.code_bytes(),
            degree: graph::DEGREE,
        };
        let plan = plan(size, matching.len(), self.ef, self.k);
        let allow = |row: u32| matching.contains(row) && !one.dead.contains(row);
        let want = packed.rescored(self.k, self.ef);
        self.by_routes(|route| {
            let query = packed.query(route);
            let found = match plan {
                Plan::Scan => Vec::new(),
                Plan::GraphSweep => packed.candidates(scratch, &query, want, self.ef, Some(&allow)),
            };
            if found.len() >= want {
                return found;
            }
            // Little passes near the query, or in all.
            let alive = matching.iter().filter(|row| !one.dead.contains(*row));
            let want = packed.rescored_of_scan(self.k, self.ef);
            packed.scan(scratch, &query, want, alive)
        })
    }

    /// The rows that `search` gives for the routes, each once.
    fn by_routes(&self, mut search: impl FnMut(&[f32]) -> Vec<(u32, f32)>) -> Vec<u32> {
        let found = self.routes.iter().flat_map(|route| search(route));
        let mut rows: Vec<u32> = found.map(|(row, _)| row).collect();
        if self.routes.len() > 1 {
            rows.sort_unstable();
            rows.dedup();
        }
        rows
    }

    /// Of the newest records more than the results wanted: an old version and its new one may both be
    /// among them.
    fn recent(&self, segment: usize, one: &RecentRef) -> Result<Vec<Hit>, StoreError> {
        let length = one.length.unwrap_or_else(|| one.rows.len());
        let mut rows = self.of_blocks(one, length)?;
        rows.extend(self.one_by_one(one, length / BLOCK_ROWS * BLOCK_ROWS));
        // Alive when looked at: one that is replaced by now may have its new version beyond the end.
        let rows = rows.into_iter();
        let hits = rows.filter_map(|at| {
            let row = one.rows.get(at)?;
            Some(Hit {
                score: self.score(&row.record.vector),
                seq: row.seq,
                segment,
                row: at,
            })
        });
        Ok(hits.collect())
    }

    /// Rows of full blocks that pass and are worth an exact score, by the greatest of their scores by
    /// codes. Whether a row passes is asked only where its score is good enough.
    fn of_blocks(&self, one: &RecentRef, length: usize) -> Result<Vec<u32>, StoreError> {
        let mut best = Best::new(self.want() * self.routes.len());
        let (mut products, mut scores) = (Vec::new(), Vec::new());
        let mut greatest: Vec<f32> = Vec::with_capacity(BLOCK_ROWS);
        // Codes of a query are the same for all blocks.
        let Some(first) = one.rows.blocks(length).next() else {
            return Ok(Vec::new());
        };
        let queries: Vec<_> = self
            .routes
            .iter()
            .map(|one| first.codes.query(one))
            .collect();
        let mut from = 0;
        for block in one.rows.blocks(length) {
            let matching = match self.filter {
                Some(filter) => Some(block.payload_index.matching(filter)?),
                None => None,
            };
            greatest.clear();
            greatest.resize(BLOCK_ROWS, f32::NEG_INFINITY);
            for query in &queries {
                let codes = &block.codes;
                codes.scores_from(query, 0, BLOCK_ROWS, &mut products, &mut scores);
                let each = greatest.iter_mut().zip(&scores);
                each.for_each(|(greatest, score)| *greatest = greatest.max(*score));
            }
            for (at, score) in (0u32..).zip(&greatest) {
                let row = from + at;
                let passes = || matching.as_ref().is_none_or(|rows| rows.contains(at));
                if best.takes(row, *score) && passes() && !one.dead.contains(row) {
                    best.offer(row, *score);
                }
            }
            from += BLOCK_ROWS as u32;
        }
        Ok(best.into_sorted().into_iter().map(|(row, _)| row).collect())
    }

    /// The best rows that pass from one on to the end, as it is when this gets there: whoever finds a
    /// row dead finds what replaced it.
    fn one_by_one(&self, one: &RecentRef, from: usize) -> Vec<u32> {
        let mut best = Best::new(self.want());
        for (at, row) in one.rows.iter_from(from as u32, one.length) {
            // A score beyond all numbers is still one.
            let score = self.score(&row.record.vector).max(f32::MIN);
            let passes = |filter| filter::passes(filter, &row.record.payload);
            if best.takes(at, score) && !one.dead.contains(at) && self.filter.is_none_or(passes) {
                best.offer(at, score);
            }
        }
        best.into_sorted().into_iter().map(|(row, _)| row).collect()
    }
}

fn order(a: &Hit, b: &Hit) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then(a.seq.cmp(&b.seq))
}

/// `is_still` says, after all segments were read, whether nothing was written meanwhile.
pub fn search(
    view: &View,
    ask: &Prepared<'_>,
    is_still: &dyn Fn() -> bool,
) -> Result<Vec<Found>, StoreError> {
    if ask.k == 0 {
        return Ok(Vec::new());
    }
    let mut hits = Vec::new();
    for (at, one) in view.sealed.iter().enumerate() {
        hits.extend(ask.sealed(at, one)?);
    }
    let mut recent = Vec::new();
    for (at, one) in view.recent.iter().enumerate() {
        recent.extend(ask.recent(view.sealed.len() + at, one)?);
    }
    if is_still() {
        hits.extend(ask.best(recent));
        let mut hits = ask.best(hits);
        hits.sort_by(order);
        return hits.iter().map(|hit| found(view, hit)).collect();
    }
    hits.extend(recent);
    newest(view, hits, ask.k)
}

/// The best of hits among which an id may come with several versions.
fn newest(view: &View, hits: Vec<Hit>, k: usize) -> Result<Vec<Found>, StoreError> {
    let mut by_id: HashMap<Box<str>, Hit> = HashMap::with_capacity(hits.len());
    for hit in hits {
        let id = id_of(view, &hit)?;
        match by_id.get_mut(id) {
            Some(other) if other.seq < hit.seq => *other = hit,
            Some(_) => {}
            None => {
                by_id.insert(id.into(), hit);
            }
        }
    }
    let mut hits: Vec<Hit> = by_id.into_values().collect();
    hits.sort_by(order);
    hits.iter().take(k).map(|hit| found(view, hit)).collect()
}

fn id_of<'a>(view: &'a View, hit: &Hit) -> Result<&'a str, StoreError> {
    if let Some(one) = view.sealed.get(hit.segment) {
        return one.segment.id(hit.row);
    }
    let recent = hit.segment.checked_sub(view.sealed.len());
    let recent = recent.and_then(|at| view.recent.get(at));
    let row = recent.and_then(|one| one.rows.get(hit.row));
    Ok(row.map_or("", |row| &row.record.id))
}

fn found(view: &View, hit: &Hit) -> Result<Found, StoreError> {
    Ok(Found {
        id: id_of(view, hit)?.into(),
        score: hit.score,
        seq: hit.seq,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A few records that are replaced as quickly as memory takes it: every search finds each once.
    #[test]
    fn what_is_replaced_during_a_search_is_there_once() {
        const IDS: usize = 4;
        let rows_max = 60_000;
        let spec = Spec {
            dim: 8,
            metric: Metric::Dot,
            stored: Stored::F32,
            fields: Vec::new(),
        };
        let view = View {
            sealed: Vec::new(),
            recent: vec![RecentRef::new(&spec, rows_max)],
        };
        let one = &view.recent[0];
        let put = |n: usize| {
            let record = Record {
                id: format!("id-{}", n % IDS).into(),
                vector: vec![1.0; 8],
                payload: skerry_types::Attributes::new(),
            };
            one.rows.put(record, n as u64 + 1, &one.dead);
        };
        (0..IDS).for_each(put);
        let query = Query {
            vectors: vec![vec![0.5; 8]],
            merge: Merge::Best,
            k: 20,
            ef: None,
            filter: None,
        };
        let ask = prepare(&spec, &query, 64).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (IDS..rows_max).for_each(put);
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                let found = search(&view, &ask, &|| false).unwrap();
                assert_eq!(found.len(), IDS);
            }
        });
    }
}
