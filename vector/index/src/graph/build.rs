//! Building a packed graph.
//!
//! Nodes are put in in a shuffled order, in batches: each node of a batch looks for its neighbours in
//! the graph of those before the batch, then all links are made. Within a batch nothing depends on
//! anything, so that any number of threads makes the same graph.
//!
//! A build takes its steps one node at a time: it can be stopped, and rests, at any of them. Its
//! memory is at most twice the codes and links of the graph (while they are put in order), and some
//! 40 bytes a row: vectors are read, not held.

use super::codes::{CodeKind, Codes};
use super::nodes::{Input, Nodes};
use super::prune::{Choice, Room, prune};
use super::search::{Score, Scratch, starts};
use super::{BuildOptions, DEGREE, Links, NONE, Packed, repair};
use crate::Metric;
use crate::bits::{self, Bits};
use crate::memory::Hot;
use crate::pace::{Pace, Steps, Stopped};
use crate::sq8::{CodedQuery, Sq8};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Nodes of a batch: a share of those already there, at most so many.
const BATCH_SHARE: usize = 64;
const BATCH_MAX: usize = 4_096;
/// Items that a thread takes at a time.
const PIECE: usize = 16;
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

pub fn build<E: From<Stopped>>(
    mut input: Input<'_, E>,
    options: &BuildOptions,
    pace: Pace<'_>,
) -> Result<Packed, E> {
    let mut steps = pace.steps();
    let nodes = Nodes::of(&mut input, options.seed, &mut steps)?;
    let (codes, squares) = nodes.coded(&mut input, &mut steps)?;
    let (lifts, top) = match input.metric {
        Metric::Cosine => (Vec::new(), 1.0),
        Metric::L2 => (Vec::new(), 0.0),
        Metric::Dot => {
            let longest = squares.iter().copied().fold(0.0, f32::max);
            let lifts = squares.iter().map(|x| (longest - x).max(0.0).sqrt());
            (lifts.collect(), longest)
        }
    };
    let space = Space {
        codes,
        metric: input.metric,
        lifts,
        top,
    };
    let count = nodes.rows.len();
    let entries = count
        .isqrt()
        .clamp(*ENTRIES.start(), *ENTRIES.end())
        .min(count);
    let mut links = grow(&space, entries, options, pace)?;
    let mut entries: Vec<u32> = (0..entries as u32).collect();
    repair::repair(&mut links, &mut entries, &mut steps)?;
    let codes = space.codes;
    pack(
        input,
        codes,
        options.codes,
        links,
        &entries,
        &nodes,
        &mut steps,
    )
}

/// The links of all nodes.
fn grow(
    space: &Space,
    entries: usize,
    options: &BuildOptions,
    pace: Pace<'_>,
) -> Result<Links, Stopped> {
    let count = space.codes.rows();
    let mut growing = Growing {
        links: Links(Hot::filled(NONE, count * DEGREE)),
        scores: vec![0.0; count * DEGREE],
        counts: vec![0; count],
    };
    let mut workers: Vec<Worker<'_>> = (0..options.threads.max(1))
        .map(|_| Worker::new(space, pace))
        .collect();
    let mut from = 1.min(count);
    while from < count {
        let to = (from + (from / BATCH_SHARE).clamp(1, BATCH_MAX)).min(count);
        put_in(
            space,
            &mut growing,
            from as u32..to as u32,
            entries,
            options,
            &mut workers,
        )?;
        from = to;
    }
    Ok(growing.links)
}

/// What a thread works with.
struct Worker<'a> {
    steps: Steps<'a>,
    scratch: Scratch,
    query: CodedQuery,
    room: Room,
    products: Vec<i32>,
    scores: Vec<f32>,
    found: Vec<(u32, f32)>,
}

impl<'a> Worker<'a> {
    fn new(space: &Space, pace: Pace<'a>) -> Self {
        Self {
            steps: pace.steps(),
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
            .walk(links, &ForNode { space, node, query }, None);
        self.found.clear();
        self.found
            .extend(self.scratch.found().map(|near| (near.node(), near.score)));
        let mut chosen = Vec::with_capacity(options.chosen);
        let choice = Choice {
            most: options.chosen.clamp(1, DEGREE),
            enough: options.chosen,
            alpha: options.alpha,
        };
        prune(space, &self.found, choice, &mut self.room, &mut chosen);
        chosen
    }
}

/// Runs `work` on all items, in pieces that the workers take as they get to them, a thread each; the
/// results are in the order of the items.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    workers: &mut [Worker<'_>],
    work: impl Fn(&T, &mut Worker<'_>) -> R + Sync,
) -> Result<Vec<R>, Stopped> {
    let stepwise = |items: &[T], worker: &mut Worker<'_>| -> Result<Vec<R>, Stopped> {
        let each = items.iter();
        each.map(|item| {
            worker.steps.step()?;
            Ok(work(item, worker))
        })
        .collect()
    };
    if let Some(first) = workers.first_mut()
        && items.len() <= PIECE
    {
        return stepwise(items, first);
    }
    if let [one] = workers {
        return stepwise(items, one);
    }
    let next = AtomicUsize::new(0);
    let take_pieces = |worker: &mut Worker<'_>| {
        worker.steps.begin();
        let mut done: Vec<(usize, Vec<R>)> = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            match items.chunks(PIECE).nth(at) {
                Some(piece) => done.push((at, stepwise(piece, worker)?)),
                None => return Ok(done),
            }
        }
    };
    let take_pieces = &take_pieces;
    let mut done: Vec<(usize, Vec<R>)> = Vec::new();
    let parts: Vec<Result<_, Stopped>> = std::thread::scope(|scope| {
        let workers = workers.iter_mut();
        let running: Vec<_> = workers
            .map(|worker| scope.spawn(move || take_pieces(worker)))
            .collect();
        let ended = running.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        ended.collect()
    });
    for part in parts {
        done.extend(part?);
    }
    done.sort_unstable_by_key(|(at, _)| *at);
    Ok(done.into_iter().flat_map(|(_, results)| results).collect())
}

/// Puts a batch of nodes in.
fn put_in(
    space: &Space,
    growing: &mut Growing,
    batch: std::ops::Range<u32>,
    entries: usize,
    options: &BuildOptions,
    workers: &mut [Worker<'_>],
) -> Result<(), Stopped> {
    let before = batch.start;
    let nodes: Vec<u32> = batch.collect();
    let links = &growing.links;
    let chosen = in_parallel(&nodes, workers, |node, worker| {
        worker.choose(space, links, *node, before, entries, options)
    })?;
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
            let choice = Choice {
                most: DEGREE,
                enough: options.chosen,
                alpha: options.alpha,
            };
            prune(space, &all, choice, &mut worker.room, &mut kept);
            all = kept;
        }
        (to, all)
    })?;
    for (to, near) in changed {
        growing.set(to, &near);
    }
    Ok(())
}

/// Numbers the nodes anew, in the order of a walk, and packs them.
fn pack<E: From<Stopped>>(
    mut input: Input<'_, E>,
    codes: Sq8,
    kind: CodeKind,
    links: Links,
    entries: &[u32],
    nodes: &Nodes,
    steps: &mut Steps<'_>,
) -> Result<Packed, E> {
    let (count, rows) = (nodes.rows.len(), input.order.len());
    let walk = repair::walk(&links, entries, count);
    steps.step()?;
    let mut number = vec![NONE; count];
    for (new, old) in (0..).zip(&walk) {
        if let Some(number) = number.get_mut(*old as usize) {
            *number = new;
        }
    }
    let new = |old: &u32| number.get(*old as usize).copied().unwrap_or(NONE);
    let mut packed = Links(Hot::with_capacity(count * DEGREE));
    let mut order = Vec::with_capacity(rows);
    let mut first_rows = Vec::with_capacity(count);
    for old in &walk {
        steps.step()?;
        let of_node = links.of(*old);
        of_node.iter().for_each(|link| packed.0.push(new(link)));
        (of_node.len()..DEGREE).for_each(|_| packed.0.push(NONE));
        first_rows.push(order.len() as u32);
        if let Some(row) = nodes.rows.get(*old as usize) {
            order.push(*row);
            order.extend(nodes.twins.get(row).into_iter().flatten());
        }
    }
    drop(links);
    if order.len() == count {
        first_rows = Vec::new();
    }
    let entries: Vec<u32> = entries.iter().map(new).collect();
    steps.step()?;
    let codes = match kind {
        CodeKind::Bits if input.dim >= bits::DIM_MIN => {
            drop(codes);
            Codes::Bits(bits_of(&mut input, &walk, nodes, steps)?)
        }
        CodeKind::Bytes | CodeKind::Bits => Codes::Bytes(codes.gather(walk.iter().copied())),
    };
    steps.step()?;
    Ok(Packed {
        metric: input.metric,
        dim: input.dim,
        entry_codes: codes.gather(entries.iter().copied()),
        codes,
        links: packed,
        entries,
        first_rows,
        rows,
        order,
    })
}

/// The bits of the nodes, in an order.
fn bits_of<E: From<Stopped>>(
    input: &mut Input<'_, E>,
    order: &[u32],
    nodes: &Nodes,
    steps: &mut Steps<'_>,
) -> Result<Bits, E> {
    let mut vector = Vec::with_capacity(input.dim);
    // Nodes are shuffled: the first are a sample.
    let mut sample = Vec::with_capacity(bits::SAMPLE.min(nodes.rows.len()) * input.dim);
    for row in nodes.rows.iter().take(bits::SAMPLE) {
        steps.step()?;
        (input.read)(*row, &mut vector)?;
        sample.extend_from_slice(&vector);
    }
    let mut bits = Bits::around(input.dim, &sample, order.len(), steps)?;
    let mut each = order
        .iter()
        .filter_map(|node| nodes.rows.get(*node as usize));
    bits.extend(input.metric, steps, |into| match each.next() {
        Some(row) => (input.read)(*row, into).map(|()| true),
        None => Ok(false),
    })?;
    Ok(bits)
}
