//! `hnsw_rs` behind a validator.
//!
//! It must not be trusted with much: NaN and foreign dimensions panic in it, identical vectors make
//! others unreachable, and so does insertion sorted by cluster. So only checked vectors of length 1
//! get here, identical ones collapse to one node with a list of rows, insertion is in a shuffled
//! order, and its distances only choose rows: scores come from the stored vectors.

use crate::Metric;
use crate::exact::{Rows, normalise};
use anndists::dist::distances::Distance;
use hnsw_rs::prelude::Hnsw;
use std::collections::HashMap;

/// Links of a node; candidates while building; layers (`hnsw_rs` wants 16).
const LINKS: usize = 16;
const EF_BUILD: usize = 96;
const LAYERS: usize = 16;
/// Least candidates while searching.
const EF_MIN: usize = 256;
/// Beyond this share of all rows a scan is quicker than the graph.
const SHARE_MAX: usize = 16;

pub struct Graph {
    hnsw: Hnsw<'static, f32, UnitDot>,
    /// Rows of each node, ascending.
    rows: Vec<Vec<u32>>,
    /// For the inner product: one more component makes all vectors equally long (Bachrach et al.
    /// 2014), after which the greatest inner product is the smallest angle.
    lifted: bool,
    count: usize,
}

/// `1 - a . b`, not below 0, for vectors of length 1.
#[derive(Clone, Copy, Default)]
struct UnitDot;

impl Distance<f32> for UnitDot {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - dot(a, b)).max(0.0)
    }
}

#[inline(always)]
fn dot_plain(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.0.iter().zip(b.0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    // Halving keeps the sum in wide registers, where one after the other would take 32 steps.
    let mut width = LANES / 2;
    while width > 0 {
        let (left, right) = sums.split_at_mut(width);
        left.iter_mut().zip(right).for_each(|(a, b)| *a += *b);
        width /= 2;
    }
    rest + sums.first().copied().unwrap_or_default()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: avx2 is there, as just checked; the function has no other condition.
        return unsafe { dot_avx2(a, b) };
    }
    dot_plain(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    dot_plain(a, b)
}

impl Graph {
    pub fn build(stored: &Rows, metric: Metric) -> Self {
        let lifted = metric == Metric::Dot;
        let count = stored.rows();
        let kept: Vec<(u32, Vec<f32>)> = (0..count as u32)
            .filter(|row| !stored.is_zero(*row))
            .map(|row| (row, stored.row(row).to_vec()))
            .collect();
        let square = |vector: &[f32]| {
            vector
                .iter()
                .map(|x| f64::from(*x) * f64::from(*x))
                .sum::<f64>()
        };
        let longest = kept
            .iter()
            .map(|(_, vector)| square(vector))
            .fold(0.0, f64::max);

        let mut nodes: HashMap<Vec<u32>, usize> = HashMap::with_capacity(kept.len());
        let mut rows: Vec<Vec<u32>> = Vec::new();
        let mut vectors: Vec<Vec<f32>> = Vec::new();
        for (row, mut vector) in kept {
            let bits = vector.iter().map(|x| x.to_bits()).collect();
            let node = *nodes.entry(bits).or_insert(rows.len());
            if let Some(rows) = rows.get_mut(node) {
                rows.push(row);
                continue;
            }
            if lifted {
                vector.push((longest - square(&vector)).max(0.0).sqrt() as f32);
            }
            normalise(&mut vector);
            rows.push(vec![row]);
            vectors.push(vector);
        }

        let hnsw = Hnsw::new(LINKS, vectors.len().max(1), LAYERS, EF_BUILD, UnitDot);
        let mut all: Vec<(&[f32], usize)> = vectors
            .iter()
            .enumerate()
            .map(|(at, v)| (v.as_slice(), at))
            .collect();
        shuffle(&mut all);
        hnsw.parallel_insert_slice(&all);
        Self {
            hnsw,
            rows,
            lifted,
            count,
        }
    }

    pub fn is_worth_it(&self, k: usize) -> bool {
        k.saturating_mul(SHARE_MAX) <= self.count
    }

    pub fn near(&self, stored: &Rows, query: &[f32], k: usize) -> Vec<(u32, f32)> {
        if k == 0 || self.rows.is_empty() {
            return Vec::new();
        }
        let mut point = query.to_vec();
        if self.lifted {
            point.push(0.0);
        }
        normalise(&mut point);
        let nodes = self.hnsw.search(&point, k, (k * 2).max(EF_MIN));
        let rows = nodes
            .iter()
            .filter_map(|node| self.rows.get(node.d_id))
            .flatten();
        stored.scored(query, k, rows.copied())
    }
}

/// Fisher-Yates with SplitMix64 and a fixed seed: insertion in any fixed order that is not the
/// data's own.
fn shuffle<T>(items: &mut [T]) {
    let mut state = 0x5eed_u64;
    for at in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let other = ((u128::from(x ^ (x >> 31)) * (at as u128 + 1)) >> 64) as usize;
        items.swap(at, other);
    }
}
