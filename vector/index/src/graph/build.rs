//! Building a packed graph.
//!
//! Nodes are put in in a shuffled order, in batches: each node of a batch looks for its neighbours in
//! the graph of those before the batch, then all links are made. Within a batch nothing depends on
//! anything, so that any number of threads makes the same graph.

use super::prune::{Room, prune};
use super::search::{Score, Scratch, starts};
use super::{BuildOptions, DEGREE, Links, NONE, Packed, repair};
use crate::Metric;
use crate::kernels::dot_f32;
use crate::memory::Hot;
use crate::sq8::{CodedQuery, Sq8};
use std::collections::HashMap;

/// Nodes of a batch: a share of those already there, at most so many.
const BATCH_SHARE: usize = 64;
const BATCH_MAX: usize = 4_096;
/// Nodes that searches start from: as many as the root of all, within bounds. The best of so many is
/// about as far from the nearest node as a root, too.
const ENTRIES: std::ops::RangeInclusive<usize> = 16..=1_024;

/// Where nodes are while a graph is built, and how near they are to one another.
pub struct Space {
    pub codes: Sq8,
    metric: Metric,
    /// For the inner product: what one more component would be that makes all vectors equally long
    /// (Bachrach et al. 2014), after which the greatest inner product is the smallest angle.
    lifts: Vec<f32>,
    /// The score of a node with itself, at most.
    pub top: f32,
}

impl Space {
    fn lift(&self, node: u32) -> f32 {
        self.lifts.get(node as usize).copied().unwrap_or(0.0)
    }

    /// Scores of `nodes` for `node`, which `query` holds.
    #[inline(always)]
    pub fn scores(
        &self,
        node: u32,
        query: &CodedQuery,
        nodes: &[u32],
        products: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        self.codes.scores(query, nodes, products, out);
        self.finish(node, nodes.iter().copied(), out);
    }

    fn finish(&self, node: u32, nodes: impl Iterator<Item = u32>, out: &mut [f32]) {
        match self.metric {
            Metric::Cosine => {}
            Metric::Dot => {
                let lift = self.lift(node);
                for (score, node) in out.iter_mut().zip(nodes) {
                    *score += lift * self.lift(node);
                }
            }
            Metric::L2 => {
                let bias = self.codes.bias(node);
                out.iter_mut().for_each(|score| *score += bias);
            }
        }
    }
}

struct ForNode<'a> {
    space: &'a Space,
    node: u32,
    query: &'a CodedQuery,
}

impl Score for ForNode<'_> {
    #[inline(always)]
    fn scores(&self, nodes: &[u32], products: &mut Vec<i32>, out: &mut Vec<f32>) {
        self.space
            .scores(self.node, self.query, nodes, products, out);
    }

    #[inline(always)]
    fn fetch(&self, node: u32) {
        self.space.codes.fetch(node);
    }
}

/// Links with their scores, while they change.
struct Growing {
    links: Links,
    scores: Vec<f32>,
    counts: Vec<u8>,
}

impl Growing {
    fn set(&mut self, node: u32, near: &[(u32, f32)]) {
        let from = node as usize * DEGREE;
        let links = self.links.of_mut(node);
        links.fill(NONE);
        let scores = self.scores.get_mut(from..from + DEGREE).unwrap_or_default();
        for ((link, score), near) in links.iter_mut().zip(scores).zip(near) {
            (*link, *score) = *near;
        }
        if let Some(count) = self.counts.get_mut(node as usize) {
            *count = near.len().min(DEGREE) as u8;
        }
    }

    fn near(&self, node: u32) -> impl Iterator<Item = (u32, f32)> + '_ {
        let from = node as usize * DEGREE;
        let scores = self.scores.get(from..from + DEGREE).unwrap_or_default();
        self.links
            .of(node)
            .iter()
            .copied()
            .zip(scores.iter().copied())
    }
}

pub fn build(dim: usize, metric: Metric, vectors: &[f32], options: &BuildOptions) -> Packed {
    let rows = vectors.len() / dim;
    let (mut nodes, twins) = distinct(dim, vectors);
    shuffle(&mut nodes, options.seed);
    let vector = |row: u32| {
        let from = row as usize * dim;
        vectors.get(from..from + dim).unwrap_or_default()
    };

    let mut codes = Sq8::new(dim, nodes.len());
    nodes
        .iter()
        .for_each(|row| codes.push(metric, vector(*row)));
    let squares = nodes.iter().map(|row| dot_f32(vector(*row), vector(*row)));
    let (lifts, top) = match metric {
        Metric::Cosine => (Vec::new(), 1.0),
        Metric::L2 => (Vec::new(), 0.0),
        Metric::Dot => {
            let longest = squares.clone().fold(0.0, f32::max);
            let lifts = squares.map(|square| (longest - square).max(0.0).sqrt());
            (lifts.collect(), longest)
        }
    };
    let space = Space {
        codes,
        metric,
        lifts,
        top,
    };

    let count = nodes.len();
    let entries = count
        .isqrt()
        .clamp(*ENTRIES.start(), *ENTRIES.end())
        .min(count);
    let mut growing = Growing {
        links: Links(Hot::filled(NONE, count * DEGREE)),
        scores: vec![0.0; count * DEGREE],
        counts: vec![0; count],
    };
    let mut workers: Vec<Worker> = (0..options.threads.max(1))
        .map(|_| Worker::new(&space))
        .collect();
    let mut from = 1.min(count);
    while from < count {
        let to = (from + (from / BATCH_SHARE).clamp(1, BATCH_MAX)).min(count);
        put_in(
            &space,
            &mut growing,
            from as u32..to as u32,
            entries,
            options,
            &mut workers,
        );
        from = to;
    }
    drop(workers);
    let mut links = growing.links;
    drop(growing.scores);
    let mut entries: Vec<u32> = (0..entries as u32).collect();
    repair::repair(&space, &mut links, &mut entries);
    pack(
        dim,
        metric,
        rows,
        &space.codes,
        &links,
        &entries,
        &nodes,
        &twins,
    )
}

/// What a thread works with.
struct Worker {
    scratch: Scratch,
    query: CodedQuery,
    room: Room,
    products: Vec<i32>,
    scores: Vec<f32>,
    found: Vec<(u32, f32)>,
}

impl Worker {
    fn new(space: &Space) -> Self {
        Self {
            scratch: Scratch::default(),
            query: space.codes.no_query(),
            room: Room::new(space),
            products: Vec::new(),
            scores: Vec::new(),
            found: Vec::new(),
        }
    }

    /// The neighbours that a new node chooses among those `before` it.
    fn choose(
        &mut self,
        space: &Space,
        links: &Links,
        node: u32,
        before: u32,
        entries: usize,
        options: &BuildOptions,
    ) -> Vec<(u32, f32)> {
        space.codes.take_for_query(node, &mut self.query);
        let sample = entries.min(before as usize);
        space
            .codes
            .scores_from(&self.query, 0, sample, &mut self.products, &mut self.scores);
        space.finish(node, 0..sample as u32, &mut self.scores);
        self.scratch.start(space.codes.rows(), options.ef, false);
        for (at, score) in starts(&self.scores) {
            if score > f32::NEG_INFINITY {
                self.scratch.enter(at as u32, score, true);
            }
        }
        let query = &self.query;
        self.scratch
            .walk(links, &ForNode { space, node, query }, None, false);
        self.found.clear();
        self.found
            .extend(self.scratch.found().map(|near| (near.node(), near.score)));
        let mut chosen = Vec::with_capacity(options.chosen);
        let most = options.chosen.clamp(1, DEGREE);
        prune(
            space,
            &self.found,
            most,
            options.alpha,
            &mut self.room,
            &mut chosen,
        );
        chosen
    }
}

/// Runs `work` on parts of `items`, a thread each; the results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    workers: &mut [Worker],
    work: impl Fn(&T, &mut Worker) -> R + Sync,
) -> Vec<R> {
    if let [one] = workers {
        return items.iter().map(|item| work(item, one)).collect();
    }
    let part = items.len().div_ceil(workers.len()).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let parts = items.chunks(part).zip(workers);
        let running: Vec<_> = parts
            .map(|(items, worker)| {
                scope.spawn(move || {
                    items
                        .iter()
                        .map(|item| work(item, worker))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let done = running.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        done.flatten().collect()
    })
}

/// Puts a batch of nodes in.
fn put_in(
    space: &Space,
    growing: &mut Growing,
    batch: std::ops::Range<u32>,
    entries: usize,
    options: &BuildOptions,
    workers: &mut [Worker],
) {
    let before = batch.start;
    let nodes: Vec<u32> = batch.collect();
    let links = &growing.links;
    let chosen = in_parallel(&nodes, workers, |node, worker| {
        worker.choose(space, links, *node, before, entries, options)
    });
    let mut back: Vec<(u32, u32, f32)> = Vec::new();
    for (node, chosen) in nodes.iter().zip(&chosen) {
        growing.set(*node, chosen);
        back.extend(chosen.iter().map(|(to, score)| (*to, *node, *score)));
    }
    back.sort_unstable_by_key(|(to, node, _)| (*to, *node));
    let targets: Vec<&[(u32, u32, f32)]> = back.chunk_by(|a, b| a.0 == b.0).collect();
    let shared = &*growing;
    let changed = in_parallel(&targets, workers, |links, worker| {
        let to = links.first().map_or(0, |link| link.0);
        let mut all: Vec<(u32, f32)> = shared.near(to).collect();
        all.extend(links.iter().map(|(_, node, score)| (*node, *score)));
        if all.len() > DEGREE {
            all.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut kept = Vec::with_capacity(DEGREE);
            prune(
                space,
                &all,
                DEGREE,
                options.alpha,
                &mut worker.room,
                &mut kept,
            );
            all = kept;
        }
        (to, all)
    });
    for (to, near) in changed {
        growing.set(to, &near);
    }
}

/// One row for each different vector, and the further rows of each.
fn distinct(dim: usize, vectors: &[f32]) -> (Vec<u32>, HashMap<u32, Vec<u32>>) {
    let mut firsts: HashMap<u64, Vec<u32>> = HashMap::new();
    let mut nodes = Vec::new();
    let mut twins: HashMap<u32, Vec<u32>> = HashMap::new();
    let vector = |row: u32| {
        let from = row as usize * dim;
        vectors.get(from..from + dim).unwrap_or_default()
    };
    for row in 0..(vectors.len() / dim) as u32 {
        let bits = |vector: &[f32]| -> u64 {
            vector.iter().fold(0u64, |hash, x| {
                // Minus zero is zero.
                let x = u64::from((x + 0.0).to_bits());
                (hash.rotate_left(5) ^ x).wrapping_mul(0x517c_c1b7_2722_0a95)
            })
        };
        let same = firsts.entry(bits(vector(row))).or_default();
        match same.iter().find(|first| vector(**first) == vector(row)) {
            Some(first) => twins.entry(*first).or_default().push(row),
            None => {
                same.push(row);
                nodes.push(row);
            }
        }
    }
    (nodes, twins)
}

/// Fisher-Yates with SplitMix64: insertion in an order that is not the data's own.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for at in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let other = ((u128::from(x ^ (x >> 31)) * (at as u128 + 1)) >> 64) as usize;
        items.swap(at, other);
    }
}

/// Numbers the nodes anew, in the order of a walk, and packs them.
#[expect(clippy::too_many_arguments, reason = "the pieces of one graph")]
fn pack(
    dim: usize,
    metric: Metric,
    rows: usize,
    codes: &Sq8,
    links: &Links,
    entries: &[u32],
    nodes: &[u32],
    twins: &HashMap<u32, Vec<u32>>,
) -> Packed {
    let walk = repair::walk(links, entries, nodes.len());
    let mut number = vec![NONE; nodes.len()];
    for (new, old) in (0..).zip(&walk) {
        if let Some(number) = number.get_mut(*old as usize) {
            *number = new;
        }
    }
    let new = |old: &u32| number.get(*old as usize).copied().unwrap_or(NONE);
    let mut packed = Links(Hot::with_capacity(nodes.len() * DEGREE));
    let mut order = Vec::with_capacity(rows);
    let mut first_rows = Vec::with_capacity(nodes.len());
    for old in &walk {
        let of_node = links.of(*old);
        of_node.iter().for_each(|link| packed.0.push(new(link)));
        (of_node.len()..DEGREE).for_each(|_| packed.0.push(NONE));
        first_rows.push(order.len() as u32);
        if let Some(row) = nodes.get(*old as usize) {
            order.push(*row);
            order.extend(twins.get(row).into_iter().flatten());
        }
    }
    if order.len() == nodes.len() {
        first_rows = Vec::new();
    }
    let entries: Vec<u32> = entries.iter().map(new).collect();
    let codes = codes.gather(walk.iter().copied());
    Packed {
        metric,
        dim,
        entry_codes: codes.gather(entries.iter().copied()),
        codes,
        links: packed,
        entries,
        first_rows,
        rows,
        order,
    }
}
