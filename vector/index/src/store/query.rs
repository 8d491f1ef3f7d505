//! A search over one view.
//!
//! Invariants: every score is computed from the stored vector by [`score`]; results are ordered by
//! score, then by sequence number, whatever segments the records lie in; an id comes once, and of two
//! versions that a write made visible meanwhile the newer one.

use super::error::StoreError;
use super::filter;
use super::score::{FromDisk, normalise, query, score};
use super::view::{RecentRef, SealedRef, View};
use crate::{
    Found, IndexError, Merge, Metric, QUERY_VECTORS_MAX, Query, RESULTS_MAX, Spec, Stored,
};
use roaring::RoaringBitmap;
use skerry_types::Filter;
use std::collections::HashMap;

/// Candidates that a graph search gives for exact rescoring: the results wanted and half as many
/// more, at least this many.
const RESCORE_MIN: usize = 30;
/// Up to this many rows that pass a filter are scored one by one. Above, the graph is asked.
const EXACT_MATCHES_MAX: u64 = 2_000;

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
            .map(|one| score(self.metric, one, vector));
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

    fn sealed(&self, segment: usize, one: &SealedRef) -> Result<Vec<Hit>, StoreError> {
        let matching = match self.filter {
            Some(filter) => Some(filter::matching(&one.segment, filter)?),
            None => None,
        };
        let rows = match &matching {
            Some(rows) if rows.len() <= EXACT_MATCHES_MAX => rows.clone(),
            _ => self.candidates(one, matching.as_ref()),
        };
        let mut vector = FromDisk::default();
        let mut hits = Vec::with_capacity(rows.len() as usize);
        for row in rows {
            if one.dead.contains(row) {
                continue;
            }
            let bytes = one.segment.vector_bytes(row)?;
            hits.push(Hit {
                score: self.score(vector.read(self.stored, bytes)),
                seq: one.segment.seq(row)?,
                segment,
                row,
            });
        }
        Ok(self.best(hits))
    }

    fn candidates(&self, one: &SealedRef, matching: Option<&RoaringBitmap>) -> RoaringBitmap {
        let skip =
            |row: u32| one.dead.contains(row) || matching.is_some_and(|rows| !rows.contains(row));
        let want = (self.k + self.k / 2).max(RESCORE_MIN);
        let ef = self.ef.max(want);
        let routes = self.routes.iter();
        routes
            .flat_map(|route| one.segment.packed.search(route, want, ef, &skip))
            .map(|(row, _)| row)
            .filter(|row| (*row as usize) < one.segment.rows())
            .collect()
    }

    fn recent(&self, segment: usize, one: &RecentRef) -> Vec<Hit> {
        let hits = one
            .rows
            .iter(one.length)
            .filter(|(row, _)| !one.dead.contains(*row))
            .filter(|(_, row)| {
                let passes = |filter| filter::passes(filter, &row.record.payload);
                self.filter.is_none_or(passes)
            })
            .map(|(at, row)| Hit {
                score: self.score(&row.record.vector),
                seq: row.seq,
                segment,
                row: at,
            });
        // Not cut here: an old version and its new one may both be among them.
        hits.collect()
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
        recent.extend(ask.recent(view.sealed.len() + at, one));
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
