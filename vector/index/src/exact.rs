//! The exact scan: rows in blocks of [`LANES`], transposed, so that the compiler makes each lane of a
//! vector register one row and no horizontal sum is needed.
//!
//! Each score is summed component by component in order, without fused multiply-add: AVX-512, AVX2
//! and plain code give the same bits.

use std::cmp::Ordering;

/// Rows of one block.
pub const LANES: usize = 32;

/// All rows, transposed by block; the last block is filled up with zeros.
pub struct Blocks {
    dim: usize,
    rows: usize,
    values: Vec<[f32; LANES]>,
    /// One bit a row: not zero.
    nonzero: Vec<u32>,
}

/// Scales to length 1; a zero vector stays.
pub fn normalise(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt();
    if length > 0.0 {
        vector
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

impl Blocks {
    pub fn new(dim: usize, vectors: &[f32], normal: bool) -> Self {
        let rows = vectors.len() / dim;
        let mut values = vec![[0.0; LANES]; rows.div_ceil(LANES) * dim];
        let mut nonzero = vec![0; rows.div_ceil(LANES)];
        for (row, vector) in vectors.chunks_exact(dim).enumerate() {
            let mut vector = vector.to_vec();
            if normal {
                normalise(&mut vector);
            }
            let (block, lane) = (row / LANES, row % LANES);
            for (line, value) in values.iter_mut().skip(block * dim).zip(&vector) {
                if let Some(slot) = line.get_mut(lane) {
                    *slot = *value;
                }
            }
            if let Some(bits) = nonzero.get_mut(block)
                && vector.iter().any(|value| *value != 0.0)
            {
                *bits |= 1 << lane;
            }
        }
        Self {
            dim,
            rows,
            values,
            nonzero,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn is_zero(&self, row: u32) -> bool {
        let row = row as usize;
        self.nonzero
            .get(row / LANES)
            .is_none_or(|bits| bits >> (row % LANES) & 1 == 0)
    }

    pub fn row(&self, row: u32) -> Vec<f32> {
        let (block, lane) = (row as usize / LANES, row as usize % LANES);
        let lines = self.values.iter().skip(block * self.dim).take(self.dim);
        lines.filter_map(|line| line.get(lane).copied()).collect()
    }

    /// The score of one row: the same additions as a scan's.
    pub fn score(&self, row: u32, query: &[f32]) -> f32 {
        let (block, lane) = (row as usize / LANES, row as usize % LANES);
        let lines = self.values.iter().skip(block * self.dim);
        let products = lines
            .zip(query)
            .map(|(line, q)| line.get(lane).map_or(0.0, |x| x * q));
        products.fold(0.0, |sum, product| sum + product)
    }

    /// The `k` best rows that are not zero and that `allow` lets pass.
    pub fn near(
        &self,
        query: &[f32],
        k: usize,
        allow: Option<&dyn Fn(u32) -> bool>,
    ) -> Vec<(u32, f32)> {
        let mut best = Best::new(k.min(self.rows));
        if best.k == 0 {
            return Vec::new();
        }
        for (at, (block, nonzero)) in self
            .values
            .chunks_exact(self.dim)
            .zip(&self.nonzero)
            .enumerate()
        {
            let first = (at * LANES) as u32;
            let mut lanes = *nonzero;
            if let Some(allow) = allow {
                for lane in 0..LANES as u32 {
                    if lanes >> lane & 1 == 1 && !allow(first + lane) {
                        lanes &= !(1 << lane);
                    }
                }
            }
            if lanes == 0 {
                continue;
            }
            let scores = scan(block, query);
            best.offer(first, &scores, lanes);
        }
        best.into_sorted()
    }
}

/// Better first: by score, then by row.
pub fn order(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The `k` best so far, and room for as many again, so that sorting out is rare.
struct Best {
    k: usize,
    kept: Vec<(u32, f32)>,
    least: f32,
}

impl Best {
    fn new(k: usize) -> Self {
        Self {
            k,
            kept: Vec::with_capacity(k * 2 + LANES),
            least: f32::NEG_INFINITY,
        }
    }

    fn offer(&mut self, first: u32, scores: &[f32; LANES], lanes: u32) {
        let mut above = 0u32;
        for (lane, score) in scores.iter().enumerate() {
            above |= u32::from(*score > self.least) << lane;
        }
        let mut left = above & lanes;
        while left != 0 {
            let lane = left.trailing_zeros();
            left &= left - 1;
            if let Some(score) = scores.get(lane as usize) {
                self.kept.push((first + lane, *score));
            }
        }
        if self.kept.len() >= self.k * 2 {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.k {
            let (_, last, _) = self.kept.select_nth_unstable_by(self.k - 1, order);
            // Rows come in ascending order: an equal score that comes later is worse.
            self.least = last.1;
            self.kept.truncate(self.k);
        }
    }

    fn into_sorted(mut self) -> Vec<(u32, f32)> {
        self.cut();
        self.kept.sort_unstable_by(order);
        self.kept
    }
}

#[inline(always)]
fn scan_plain(block: &[[f32; LANES]], query: &[f32]) -> [f32; LANES] {
    let mut sums = [0.0f32; LANES];
    for (line, q) in block.iter().zip(query) {
        for (sum, x) in sums.iter_mut().zip(line) {
            *sum += x * q;
        }
    }
    sums
}

/// The scores of one block, by the widest registers that the machine has.
fn scan(block: &[[f32; LANES]], query: &[f32]) -> [f32; LANES] {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: avx512f is there, as just checked; the function has no other condition.
            return unsafe { scan_avx512(block, query) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: avx2 is there, as just checked; the function has no other condition.
            return unsafe { scan_avx2(block, query) };
        }
    }
    scan_plain(block, query)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn scan_avx512(block: &[[f32; LANES]], query: &[f32]) -> [f32; LANES] {
    scan_plain(block, query)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn scan_avx2(block: &[[f32; LANES]], query: &[f32]) -> [f32; LANES] {
    scan_plain(block, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kernels_give_the_same_bits() {
        let value = |at: usize| ((at as f32 * 0.731).sin() * 3.0) / (1.0 + at as f32 % 7.0);
        let block: Vec<[f32; LANES]> = (0..67)
            .map(|d| std::array::from_fn(|lane| value(d * 41 + lane * 3)))
            .collect();
        let query: Vec<f32> = (0..67).map(|d| value(d + 1_000)).collect();
        let plain = scan_plain(&block, &query);
        assert_eq!(
            plain.map(f32::to_bits),
            scan(&block, &query).map(f32::to_bits)
        );
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: checked in the line above.
            let avx2 = unsafe { scan_avx2(&block, &query) };
            assert_eq!(plain.map(f32::to_bits), avx2.map(f32::to_bits));
        }
    }
}
