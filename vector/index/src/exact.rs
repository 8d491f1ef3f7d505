//! The exact scan: small codes of all rows say which rows can be among the nearest, and only those are
//! scored from the vectors. The answer is that of scoring every row.
//!
//! Each score is summed in eight lanes and in a fixed order, without fused multiply-add: AVX2 and
//! plain code give the same bits.

use crate::codes::{Codes, LANES};
use crate::kernels;

/// Asked for more than this share of all rows, the codes would leave out too few to be worth it.
const CODED_SHARE: usize = 4;
/// Rows kept beyond the wanted ones before the worst are sorted out.
const SPARE: usize = 256;
/// The same of [`Best`], whose callers ask what a row must be worth.
const BEST_SPARE: usize = 32;

/// All rows, one after another, filled up with zeros to whole lanes.
pub struct Rows {
    dim: usize,
    /// Groups of lanes of one row.
    groups: usize,
    values: Vec<[f32; LANES]>,
    codes: Codes,
}

/// Scales to length 1; a zero vector stays.
pub fn normalise(vector: &mut [f32]) {
    let length = length(vector.iter().copied());
    if length > 0.0 {
        vector
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

pub fn length(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt()
}

impl Rows {
    pub fn new(dim: usize, vectors: &[f32], normal: bool) -> Self {
        let groups = dim.div_ceil(LANES);
        let mut values = vec![[0.0; LANES]; vectors.len() / dim * groups];
        for (row, vector) in values
            .chunks_exact_mut(groups)
            .zip(vectors.chunks_exact(dim))
        {
            let row = row.as_flattened_mut();
            row.iter_mut().zip(vector).for_each(|(to, x)| *to = *x);
            if normal {
                normalise(row);
            }
        }
        Self {
            dim,
            groups,
            codes: Codes::new(groups, &values),
            values,
        }
    }

    pub fn rows(&self) -> usize {
        self.values.len() / self.groups
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn is_zero(&self, row: u32) -> bool {
        self.groups_of(row).as_flattened().iter().all(|x| *x == 0.0)
    }

    pub fn row(&self, row: u32) -> &[f32] {
        let row = self.groups_of(row).as_flattened();
        row.get(..self.dim).unwrap_or_default()
    }

    fn groups_of(&self, row: u32) -> &[[f32; LANES]] {
        let from = row as usize * self.groups;
        self.values
            .get(from..from + self.groups)
            .unwrap_or_default()
    }

    /// Rows and scores of `rows`, best first. A score that is no number or minus infinity, which
    /// takes a query that overflows, is none.
    pub fn scored(
        &self,
        query: &[f32],
        k: usize,
        rows: impl Iterator<Item = u32>,
    ) -> Vec<(u32, f32)> {
        let query = self.padded(query);
        let mut best = Best::new(k);
        for row in rows {
            best.offer(row, dot(self.groups_of(row), &query));
        }
        best.into_sorted()
    }

    fn padded(&self, query: &[f32]) -> Vec<[f32; LANES]> {
        let mut padded = vec![[0.0; LANES]; self.groups];
        let to = padded.as_flattened_mut().iter_mut();
        to.zip(query).for_each(|(to, x)| *to = *x);
        padded
    }

    /// The `k` best rows that are not zero and that `allow` lets pass.
    pub fn near(
        &self,
        query: &[f32],
        k: usize,
        allow: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<(u32, f32)> {
        let k = k.min(self.rows());
        if k == 0 {
            return Vec::new();
        }
        let allowed = |row: u32| allow.is_none_or(|allow| allow(row));
        let coded = if k * CODED_SHARE < self.rows() {
            self.codes.query(&self.padded(query))
        } else {
            None
        };
        let Some(coded) = coded else {
            let rows = (0..self.rows() as u32).filter(|row| !self.is_zero(*row) && allowed(*row));
            return self.scored(query, k, rows);
        };
        let mut hopeful = Hopeful::new(k);
        self.codes.sweep(&coded, &mut |block, uppers| {
            for (lane, upper) in uppers.iter().enumerate() {
                // What is no number is no row.
                if *upper >= hopeful.least
                    && let Some((row, lower)) =
                        self.codes.lower(block * LANES + lane, *upper, &coded)
                    && allowed(row)
                {
                    hopeful.offer(row, lower, *upper);
                }
            }
            hopeful.least
        });
        hopeful.cut();
        let groups = hopeful.kept.iter().map(|(row, ..)| self.groups_of(*row));
        // Rows to be scored lie anywhere in memory.
        groups.for_each(kernels::fetch);
        self.scored(query, k, hopeful.kept.iter().map(|(row, ..)| *row))
    }
}

/// Better first: by score, then by row.
#[cfg(test)]
pub fn order(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Rows that may be among the `k` best, with the least and the most that their scores can be.
struct Hopeful {
    k: usize,
    kept: Vec<(u32, f32, f32)>,
    /// The k-th greatest of the least scores: what can only be less is out.
    least: f32,
    cut_at: usize,
}

impl Hopeful {
    fn new(k: usize) -> Self {
        let cut_at = k * 2 + SPARE;
        Self {
            k,
            kept: Vec::with_capacity(cut_at),
            least: f32::NEG_INFINITY,
            cut_at,
        }
    }

    fn offer(&mut self, row: u32, lower: f32, upper: f32) {
        self.kept.push((row, lower, upper));
        if self.kept.len() >= self.cut_at {
            self.cut();
            // Bounds may be so wide that little goes: the work stays linear.
            self.cut_at = self.kept.len() * 2 + SPARE;
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.k {
            let by_lower = |a: &(u32, f32, f32), b: &(u32, f32, f32)| b.1.total_cmp(&a.1);
            let (_, last, _) = self.kept.select_nth_unstable_by(self.k - 1, by_lower);
            let least = last.1;
            self.kept.retain(|(.., upper)| *upper >= least);
            self.least = least;
        }
    }
}

/// The `k` best so far, as numbers that ascend from the best to the worst.
pub struct Best {
    k: usize,
    kept: Vec<u64>,
    /// What is not before this is not among the best.
    worst: u64,
}

impl Best {
    pub fn new(k: usize) -> Self {
        Self {
            k,
            kept: Vec::with_capacity(k * 2 + BEST_SPARE),
            worst: u64::MAX,
        }
    }

    /// Whether a row with this score may be among the best.
    #[inline(always)]
    pub fn takes(&self, row: u32, score: f32) -> bool {
        score > f32::NEG_INFINITY && key(row, score) < self.worst
    }

    #[inline(always)]
    pub fn offer(&mut self, row: u32, score: f32) {
        if self.takes(row, score) {
            self.kept.push(key(row, score));
            if self.kept.len() >= self.k * 2 + BEST_SPARE {
                self.cut();
            }
        }
    }

    fn cut(&mut self) {
        if self.k > 0 && self.kept.len() > self.k {
            let (_, worst, _) = self.kept.select_nth_unstable(self.k - 1);
            self.worst = *worst;
        }
        self.kept.truncate(self.k);
    }

    pub fn into_sorted(mut self) -> Vec<(u32, f32)> {
        self.cut();
        self.kept.sort_unstable();
        let restored = self.kept.iter().map(|key| {
            let descending = (key >> 32) as u32;
            let bits = if descending >> 31 == 1 {
                descending
            } else {
                !descending ^ 1 << 31
            };
            (*key as u32, f32::from_bits(bits))
        });
        restored.collect()
    }
}

/// Orders by score, greatest first, then by row.
#[inline(always)]
fn key(row: u32, score: f32) -> u64 {
    let bits = score.to_bits();
    let descending = if bits >> 31 == 1 {
        bits
    } else {
        !(bits | 1 << 31)
    };
    u64::from(descending) << 32 | u64::from(row)
}

#[inline(always)]
fn dot_plain(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> f32 {
    let mut sums = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

fn dot(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: avx2 is there, as just checked; the function has no other condition.
        return unsafe { dot_avx2(a, b) };
    }
    dot_plain(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_avx2(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> f32 {
    use std::arch::x86_64::*;
    let mut sums = _mm256_setzero_ps();
    for (a, b) in a.iter().zip(b) {
        // SAFETY: both are arrays of eight floats, and the load has no alignment.
        let (a, b) = unsafe { (_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())) };
        sums = _mm256_add_ps(sums, _mm256_mul_ps(a, b));
    }
    let fours = _mm_add_ps(
        _mm256_castps256_ps128(sums),
        _mm256_extractf128_ps::<1>(sums),
    );
    let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_kernels_give_the_same_bits(values in prop::collection::vec(-1e3f32..1e3, 0..200)) {
            let (values, _) = values.as_chunks::<LANES>();
            let (a, b) = values.split_at(values.len() / 2);
            prop_assert_eq!(dot_plain(a, b).to_bits(), dot(a, b).to_bits());
        }

        #[test]
        fn the_best_are_kept_in_order(scores in prop::collection::vec(prop_oneof![any::<f32>(), Just(0.0), Just(-0.0)], 0..900), k in 0usize..40) {
            let mut best = Best::new(k);
            let rows: Vec<(u32, f32)> = (0..).zip(scores).collect();
            rows.iter().for_each(|(row, score)| best.offer(*row, *score));
            let mut want = rows;
            want.retain(|(_, score)| *score > f32::NEG_INFINITY);
            want.sort_by(order);
            want.truncate(k);
            let bits = |rows: Vec<(u32, f32)>| rows.into_iter().map(|(row, score)| (row, score.to_bits())).collect::<Vec<_>>();
            prop_assert_eq!(bits(best.into_sorted()), bits(want));
        }
    }
}
