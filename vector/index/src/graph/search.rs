//! Searching a packed graph: the nearest known node that has not been looked at is looked at next,
//! until the best `ef` all have been.

use super::codes::{CodedQuery, Codes};
use super::{Links, Packed};
use crate::exact::Best;
use std::cell::RefCell;

/// Codes fetched before scoring begins: all of them, so that as many misses as can be overlap.
const FETCHED: usize = super::DEGREE;
/// Entries that a search starts from: the best of the sample.
const STARTS: usize = 4;
/// Rows scored at once by a scan.
const SCAN_ROWS: usize = 32;
/// With a filter, nodes kept for each that passes, at most: beyond that the filter passes too little
/// near the query for a sweep.
pub const SPREAD_MAX: usize = 32;

/// Room that a search works in. Reused from search to search; one search at a time.
#[derive(Default)]
pub struct Scratch {
    visited: Visited,
    pool: Pool,
    fresh: Vec<u32>,
    rows: Vec<u32>,
    products: Vec<i32>,
    scores: Vec<f32>,
}

/// Which nodes have been seen: a stamp for each, and one number that says seen now.
#[derive(Default)]
struct Visited {
    stamps: Vec<u8>,
    now: u8,
}

impl Visited {
    fn start(&mut self, nodes: usize) {
        if self.now == u8::MAX || self.stamps.len() < nodes {
            self.stamps.clear();
            self.stamps.resize(nodes, 0);
            self.now = 0;
        }
        self.now += 1;
    }

    /// Whether a node is seen for the first time.
    #[inline(always)]
    fn first(&mut self, node: u32) -> bool {
        self.stamps
            .get_mut(node as usize)
            .is_some_and(|stamp| std::mem::replace(stamp, self.now) != self.now)
    }
}

/// A node and its score; marks of the walk in the node's upper bits, which no number of nodes needs.
#[derive(Clone, Copy)]
pub(super) struct Near {
    pub score: f32,
    node: u32,
}

impl Near {
    const LOOKED: u32 = 1 << 31;
    const PASSES: u32 = 1 << 30;

    pub fn node(self) -> u32 {
        self.node & !(Self::LOOKED | Self::PASSES)
    }

    fn passes(self) -> bool {
        self.node & Self::PASSES != 0
    }
}

/// The best so far, best first.
#[derive(Default)]
struct Pool {
    kept: Vec<Near>,
    passing: usize,
    ef: usize,
    most: usize,
}

impl Pool {
    fn start(&mut self, ef: usize, most: usize) {
        self.kept.clear();
        self.passing = 0;
        (self.ef, self.most) = (ef, most);
    }

    fn is_full(&self) -> bool {
        self.passing >= self.ef || self.kept.len() >= self.most
    }

    /// The place where a node is put, if it is good enough.
    #[inline(always)]
    fn offer(&mut self, score: f32, node: u32, passes: bool) -> Option<usize> {
        if self.is_full() {
            let worst = self.kept.last()?;
            // What is no number is not better.
            if score.is_nan() || score <= worst.score {
                return None;
            }
        }
        let at = self.kept.partition_point(|near| near.score >= score);
        let mark = if passes { Near::PASSES } else { 0 };
        let node = node | mark;
        self.kept.insert(at, Near { score, node });
        self.passing += usize::from(passes);
        while self.passing > self.ef || self.kept.len() > self.most {
            let dropped = self.kept.pop()?;
            self.passing -= usize::from(dropped.passes());
        }
        Some(at)
    }
}

/// How nodes are scored: for a query, or for another node while building.
pub(super) trait Score {
    fn scores(&self, nodes: &[u32], products: &mut Vec<i32>, out: &mut Vec<f32>);
    fn fetch(&self, node: u32);
}

struct ForQuery<'a> {
    codes: &'a Codes,
    query: &'a CodedQuery,
}

impl Score for ForQuery<'_> {
    #[inline(always)]
    fn scores(&self, nodes: &[u32], products: &mut Vec<i32>, out: &mut Vec<f32>) {
        self.codes.scores(self.query, nodes, products, out);
    }

    #[inline(always)]
    fn fetch(&self, node: u32) {
        self.codes.fetch(node);
    }
}

thread_local! {
    static OF_THREAD: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Runs a search in the room that this thread keeps.
    pub fn with<T>(search: impl FnOnce(&mut Self) -> T) -> T {
        OF_THREAD.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => search(&mut scratch),
            // A search within a search.
            Err(_) => search(&mut Self::default()),
        })
    }

    /// Starts a search among `nodes` nodes.
    pub(super) fn start(&mut self, nodes: usize, ef: usize, filtered: bool) {
        self.visited.start(nodes);
        let most = if filtered { ef * SPREAD_MAX } else { ef };
        self.pool.start(ef, most);
    }

    /// Puts in a node to start from.
    pub(super) fn enter(&mut self, node: u32, score: f32, passes: bool) {
        if self.visited.first(node) {
            self.pool.offer(score, node, passes);
        }
    }

    /// Walks until the best have all been looked at.
    pub(super) fn walk(
        &mut self,
        links: &Links,
        score: &impl Score,
        allow: Option<&dyn Fn(u32) -> bool>,
    ) {
        let mut at = 0;
        while let Some(near) = self.pool.kept.get_mut(at) {
            if near.node & Near::LOOKED != 0 {
                at += 1;
                continue;
            }
            near.node |= Near::LOOKED;
            let node = near.node();
            if let Some(next) = self.pool.kept.get(at + 1) {
                links.fetch(next.node());
            }
            self.fresh.clear();
            self.gather(links, node, score);
            score.scores(&self.fresh, &mut self.products, &mut self.scores);
            let mut first = at + 1;
            for (node, score) in self.fresh.iter().zip(&self.scores) {
                if self.pool.is_full()
                    && let Some(worst) = self.pool.kept.last()
                    && *score <= worst.score
                {
                    continue;
                }
                let passes = allow.is_none_or(|allow| allow(*node));
                if let Some(place) = self.pool.offer(*score, *node, passes) {
                    first = first.min(place);
                }
            }
            at = first.min(at + 1);
        }
    }

    /// The links of a node that are seen for the first time.
    #[inline(always)]
    fn gather(&mut self, links: &Links, node: u32, score: &impl Score) {
        for link in links.of(node) {
            if self.visited.first(*link) {
                if self.fresh.len() < FETCHED {
                    score.fetch(*link);
                }
                self.fresh.push(*link);
            }
        }
    }

    /// What was found, best first.
    pub(super) fn found(&self) -> impl Iterator<Item = Near> + '_ {
        self.pool.kept.iter().filter(|near| near.passes()).copied()
    }
}

/// Of a sample that lies together, the best `STARTS`: places in the sample and their scores.
pub(super) fn starts(scores: &[f32]) -> [(usize, f32); STARTS] {
    let mut best = [(0, f32::NEG_INFINITY); STARTS];
    for (at, score) in scores.iter().enumerate() {
        let mut candidate = (at, *score);
        for kept in &mut best {
            if candidate.1 > kept.1 {
                std::mem::swap(kept, &mut candidate);
            }
        }
    }
    best
}

impl Packed {
    /// The best `want` rows by codes with their approximate scores, best first. With a filter fewer,
    /// where too little near the query passes.
    pub fn candidates(
        &self,
        scratch: &mut Scratch,
        query: &CodedQuery,
        want: usize,
        ef: usize,
        allow: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<(u32, f32)> {
        scratch.start(self.nodes(), ef.max(want).max(1), allow.is_some());
        let of_node = allow.map(|allow| move |node: u32| self.rows_of(node).any(allow));
        let of_node: Option<&dyn Fn(u32) -> bool> = of_node.as_ref().map(|allow| allow as _);
        let (products, scores) = (&mut scratch.products, &mut scratch.scores);
        self.entry_codes.all_scores(query, products, scores);
        for (at, score) in starts(scores) {
            if let Some(entry) = self.entries.get(at)
                && score > f32::NEG_INFINITY
            {
                let passes = of_node.is_none_or(|allow| allow(*entry));
                scratch.enter(*entry, score, passes);
            }
        }
        let codes = &self.codes;
        scratch.walk(&self.links, &ForQuery { codes, query }, of_node);
        self.rows_found(scratch, want, allow)
    }

    fn rows_found(
        &self,
        scratch: &Scratch,
        want: usize,
        allow: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<(u32, f32)> {
        let rows = scratch.found().flat_map(|near| {
            let rows = self.rows_of(near.node());
            rows.map(move |row| (row, near.score))
        });
        let passing = rows.filter(|(row, _)| allow.is_none_or(|allow| allow(*row)));
        passing.take(want).collect()
    }

    /// The best `want` of `rows` by codes, best first: every one of them is scored.
    pub fn scan(
        &self,
        scratch: &mut Scratch,
        query: &CodedQuery,
        want: usize,
        rows: impl Iterator<Item = u32>,
    ) -> Vec<(u32, f32)> {
        let mut best = Best::new(want);
        let mut rows = rows.filter(|row| (*row as usize) < self.rows);
        // The codes of a part are on their way while those of the part before are scored.
        let mut next: Vec<(u32, u32)> = Vec::with_capacity(SCAN_ROWS);
        loop {
            scratch.rows.clear();
            scratch.fresh.clear();
            for (row, node) in next.drain(..) {
                scratch.rows.push(row);
                scratch.fresh.push(node);
            }
            for row in rows.by_ref().take(SCAN_ROWS) {
                let node = self.node_of(row);
                self.codes.fetch(node);
                next.push((row, node));
            }
            if scratch.rows.is_empty() {
                if next.is_empty() {
                    return best.into_sorted();
                }
                continue;
            }
            let (products, scores) = (&mut scratch.products, &mut scratch.scores);
            self.codes.scores(query, &scratch.fresh, products, scores);
            for (row, score) in scratch.rows.iter().zip(scores.iter()) {
                best.offer(*row, *score);
            }
        }
    }

    pub fn query(&self, vector: &[f32]) -> CodedQuery {
        self.codes.query(vector)
    }

    /// The `k` best rows, scored by the vectors that it was built from, best first. A query of
    /// the cosine has length 1.
    pub fn search(
        &self,
        scratch: &mut Scratch,
        query: &[f32],
        k: usize,
        ef: usize,
        vectors: &[f32],
    ) -> Vec<(u32, f32)> {
        let want = k.max(self.rescored(k, ef).min(ef));
        let coded = self.query(query);
        let rows = self.candidates(scratch, &coded, want, ef, None);
        let vector = |row: u32| {
            let source = self.order.get(row as usize).copied().unwrap_or(0) as usize;
            (
                source,
                vectors
                    .get(source * self.dim..(source + 1) * self.dim)
                    .unwrap_or_default(),
            )
        };
        rows.iter()
            .for_each(|(row, _)| crate::kernels::fetch(vector(*row).1));
        let mut scored: Vec<(u32, f32)> = rows
            .iter()
            .map(|(row, _)| {
                let (source, vector) = vector(*row);
                (source as u32, self.metric.score(query, vector))
            })
            .collect();
        scored.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scored.truncate(k);
        scored
    }
}
