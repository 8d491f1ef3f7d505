//! One bit a component: RaBitQ (Gao and Long 2024), around some centres as in its partitions.
//!
//! A vector x with the nearest centre c is stored as the signs b of P (x - c), P a rotation, and two
//! factors with which <x, q> is about f1 <b, P q> + f2 + <c, q> for any q. The estimate has no bias;
//! its error falls with the root of the dimension, and is less the nearer x and q are to c. Callers
//! take more than they need, and score those by the stored vectors.
//!
//! P q is kept in whole numbers of [`PLANES`] bits, so that the sums in the inner loop have no order.
//!
//! Invariants: as in `sq8`, greater scores are nearer in all metrics (for the distance f2 has
//! -|x|^2 / 2 too); factors are finite, and a row names a centre that is there. The rotation depends
//! on the dimension alone.

use crate::Metric;
use crate::kernels::{self, PLANES, Which, dot_f32};
use crate::memory::Hot;
use crate::pace::{Steps, Stopped};

/// Below this dimension, signs say too little.
pub const DIM_MIN: usize = 64;
/// Centres, at most.
const CENTRES_MAX: usize = 64;
/// Vectors that centres are learned from, and how often these choose theirs.
pub const SAMPLE: usize = 8_192;
const ROUNDS: usize = 4;
/// Turns of the rotation: random signs, then a Hadamard transform.
const TURNS: u64 = 4;
/// Words of a row after its bits: the two factors; the centre and the number of ones.
const EXTRA: usize = 2;

/// Codes of many vectors.
pub struct Bits {
    dim: usize,
    /// Words of a row that are bits.
    words: usize,
    rows: Hot<u64>,
    centres: Vec<f32>,
    rotation: Rotation,
}

/// A query in whole numbers.
pub struct BitQuery {
    /// Bit by bit: the lowest bits of all components, then the next ones.
    planes: Vec<u64>,
    /// A component is `low + step * number`.
    low: f32,
    step: f32,
    /// What a row without a single one would sum up to, with its sign turned.
    all: f32,
    of_centres: Vec<f32>,
}

struct Rotation {
    signs: Vec<f32>,
    /// The widest transform that fits; it goes over the front and the back in turn.
    width: usize,
}

impl Rotation {
    fn new(dim: usize) -> Self {
        let sign = |at: u64| {
            let x = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            if x >> 63 == 0 { 1.0 } else { -1.0 }
        };
        Self {
            signs: (0..TURNS * dim as u64).map(sign).collect(),
            width: dim.checked_ilog2().map_or(0, |log| 1 << log),
        }
    }

    fn apply(&self, vector: &mut [f32]) {
        let dim = vector.len();
        for (turn, signs) in self.signs.chunks_exact(dim.max(1)).enumerate() {
            vector
                .iter_mut()
                .zip(signs)
                .for_each(|(x, sign)| *x *= sign);
            let from = if turn % 2 == 0 { 0 } else { dim - self.width };
            hadamard(vector.get_mut(from..from + self.width).unwrap_or_default());
        }
    }
}

fn hadamard(part: &mut [f32]) {
    let mut half = 1;
    while half < part.len() {
        for pair in part.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (part.len() as f32).sqrt();
    part.iter_mut().for_each(|x| *x *= scale);
}

fn finite(x: f32) -> f32 {
    if x.is_nan() {
        0.0
    } else {
        x.clamp(f32::MIN, f32::MAX)
    }
}

impl Bits {
    /// No rows yet, around the centres of a sample of vectors of dimension `dim`.
    pub fn around(
        dim: usize,
        sample: &[f32],
        rows: usize,
        steps: &mut Steps<'_>,
    ) -> Result<Self, Stopped> {
        let count = (sample.len() / dim.max(1)).min(CENTRES_MAX);
        let mut centres = sample.get(..count * dim).unwrap_or_default().to_vec();
        for _ in 0..ROUNDS {
            let squares = squares(dim, &centres);
            let mut sums = vec![0.0f32; centres.len()];
            let mut counts = vec![0.0f32; count];
            for vector in sample.chunks_exact(dim.max(1)) {
                steps.step()?;
                let nearest = nearest(&centres, &squares, vector);
                if let Some(sum) = sums.chunks_exact_mut(dim).nth(nearest) {
                    sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
                }
                if let Some(count) = counts.get_mut(nearest) {
                    *count += 1.0;
                }
            }
            let each = centres.chunks_exact_mut(dim).zip(sums.chunks_exact(dim));
            for ((centre, sum), count) in each.zip(counts).filter(|(_, count)| *count > 0.0) {
                centre
                    .iter_mut()
                    .zip(sum)
                    .for_each(|(c, sum)| *c = finite(sum / count));
            }
        }
        let words = dim.div_ceil(64);
        Ok(Self {
            dim,
            words,
            rows: Hot::with_capacity(rows * (words + EXTRA)),
            centres,
            rotation: Rotation::new(dim),
        })
    }

    /// Adds rows. `next` gives their vectors one after another, until it has no more.
    pub fn extend<E: From<Stopped>>(
        &mut self,
        metric: Metric,
        steps: &mut Steps<'_>,
        mut next: impl FnMut(&mut Vec<f32>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let squares = squares(self.dim, &self.centres);
        let mut rotated = self.centres.clone();
        for centre in rotated.chunks_exact_mut(self.dim) {
            self.rotation.apply(centre);
        }
        let (mut vector, mut rest) = (Vec::new(), vec![0.0f32; self.dim]);
        loop {
            steps.step()?;
            if !next(&mut vector)? {
                return Ok(());
            }
            let at = nearest(&self.centres, &squares, &vector);
            let of = |all| of_row(all, self.dim, at);
            let (centre, rotated) = (of(&self.centres), of(&rotated));
            let both = vector.iter().zip(centre);
            rest.iter_mut()
                .zip(both)
                .for_each(|(rest, (x, c))| *rest = x - c);
            let square = dot_f32(&rest, &rest);
            self.rotation.apply(&mut rest);
            let sum: f32 = rest.iter().map(|x| x.abs()).sum();
            let f1 = if sum > 0.0 { finite(square / sum) } else { 0.0 };
            let signed = rest.iter().zip(rotated);
            let of_centre: f32 = signed.map(|(x, c)| if *x >= 0.0 { *c } else { -c }).sum();
            let bias = match metric {
                Metric::L2 => -0.5 * dot_f32(&vector, &vector),
                Metric::Cosine | Metric::Dot => 0.0,
            };
            let f2 = dot_f32(&vector, centre) - dot_f32(centre, centre) - f1 * of_centre + bias;
            let mut ones = 0;
            for part in rest.chunks(64) {
                let bits = part.iter().rev();
                let bits = bits.fold(0u64, |bits, x| bits << 1 | u64::from(*x >= 0.0));
                ones += bits.count_ones();
                self.rows.push(bits);
            }
            let factors = [f1, finite(f2)].map(|factor| u64::from(factor.to_bits()));
            let [f1, f2] = factors;
            self.rows.push(f1 | f2 << 32);
            self.rows.push(at as u64 | u64::from(ones) << 32);
        }
    }

    /// From rows and centres that fit together.
    pub fn from_parts(dim: usize, rows: Hot<u64>, centres: Vec<f32>) -> Option<Self> {
        let words = dim.div_ceil(64);
        let count = centres.len() / dim.max(1);
        let is_whole =
            centres.len().is_multiple_of(dim) && rows.len().is_multiple_of(words + EXTRA);
        let is_right = |row: &[u64]| {
            let (bits, rest) = row.split_at_checked(words)?;
            let &[factors, more] = rest else { return None };
            let (f1, f2) = factors_of(factors);
            let (centre, ones) = centre_of(more);
            let counted: u32 = bits.iter().map(|word| word.count_ones()).sum();
            let fits = f1.is_finite() && f2.is_finite() && centre < count && ones == counted;
            (fits && counted as usize <= dim).then_some(())
        };
        let fits = is_whole
            && count <= CENTRES_MAX
            && centres.iter().all(|x| x.is_finite())
            && rows
                .chunks_exact(words + EXTRA)
                .all(|row| is_right(row).is_some());
        fits.then(|| Self {
            dim,
            words,
            rows,
            centres,
            rotation: Rotation::new(dim),
        })
    }

    pub fn words(&self) -> &[u64] {
        &self.rows
    }

    pub fn centres(&self) -> &[f32] {
        &self.centres
    }

    pub fn rows(&self) -> usize {
        self.rows.len() / (self.words + EXTRA)
    }

    fn row(&self, row: u32) -> &[u64] {
        let stride = self.words + EXTRA;
        let from = row as usize * stride;
        self.rows.get(from..from + stride).unwrap_or_default()
    }

    pub fn query(&self, vector: &[f32]) -> BitQuery {
        let mut rotated = vector.to_vec();
        self.rotation.apply(&mut rotated);
        let bounds = rotated.iter().fold((0.0f32, 0.0f32), |(low, high), x| {
            (low.min(*x), high.max(*x))
        });
        let (low, most) = (bounds.0, ((1u32 << PLANES) - 1) as f32);
        let step = ((bounds.1 - low) / most).max(f32::MIN_POSITIVE);
        let mut planes = vec![0u64; PLANES * self.words];
        let mut sum = 0;
        for (at, x) in rotated.iter().enumerate() {
            let number = ((x - low) / step).round_ties_even().clamp(0.0, most) as u64;
            sum += number;
            for (plane, words) in planes.chunks_exact_mut(self.words).enumerate() {
                if let Some(word) = words.get_mut(at / 64) {
                    *word |= (number >> plane & 1) << (at % 64);
                }
            }
        }
        let centres = self.centres.chunks_exact(self.dim);
        BitQuery {
            planes,
            low,
            step,
            all: low * self.dim as f32 + step * sum as f32,
            of_centres: centres.map(|centre| dot_f32(vector, centre)).collect(),
        }
    }

    /// Scores of `count` of `which` rows. `sums` is room to work in.
    fn scores_of(
        &self,
        query: &BitQuery,
        which: Which<'_>,
        count: usize,
        sums: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        sums.resize(count, 0);
        let stride = self.words + EXTRA;
        kernels::bit_sums(&self.rows, stride, which, &query.planes, sums);
        out.clear();
        let each = sums.iter().enumerate().map(|(at, sum)| {
            let row = self.row(which.row(at) as u32);
            let Some(&[factors, more]) = row.last_chunk() else {
                return f32::NEG_INFINITY;
            };
            let ((f1, f2), (centre, ones)) = (factors_of(factors), centre_of(more));
            let of_ones = query.low * ones as f32 + query.step * *sum as f32;
            let of_centre = query.of_centres.get(centre).copied().unwrap_or(0.0);
            f1 * (2.0 * of_ones - query.all) + f2 + of_centre
        });
        out.extend(each);
    }

    /// Scores of `rows`.
    pub fn scores(&self, query: &BitQuery, rows: &[u32], sums: &mut Vec<i32>, out: &mut Vec<f32>) {
        self.scores_of(query, Which::These(rows), rows.len(), sums, out);
    }

    /// Scores of all rows.
    pub fn all_scores(&self, query: &BitQuery, sums: &mut Vec<i32>, out: &mut Vec<f32>) {
        self.scores_of(query, Which::From(0), self.rows(), sums, out);
    }

    /// Says that a row will be scored soon.
    #[inline(always)]
    pub fn fetch(&self, row: u32) {
        kernels::fetch(self.row(row));
    }

    /// Some of the rows, in an order.
    pub fn gather(&self, rows: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut gathered = Hot::with_capacity((self.words + EXTRA) * rows.len());
        rows.for_each(|row| gathered.extend_from_slice(self.row(row)));
        Self {
            dim: self.dim,
            words: self.words,
            rows: gathered,
            centres: Vec::new(),
            rotation: Rotation::new(0),
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + 4 * self.centres.len()
    }
}

fn of_row(all: &[f32], dim: usize, row: usize) -> &[f32] {
    all.get(row * dim..(row + 1) * dim).unwrap_or_default()
}

fn factors_of(word: u64) -> (f32, f32) {
    (
        f32::from_bits(word as u32),
        f32::from_bits((word >> 32) as u32),
    )
}

fn centre_of(word: u64) -> (usize, u32) {
    (word as u32 as usize, (word >> 32) as u32)
}

fn squares(dim: usize, centres: &[f32]) -> Vec<f32> {
    let each = centres.chunks_exact(dim.max(1));
    each.map(|centre| dot_f32(centre, centre)).collect()
}

fn nearest(centres: &[f32], squares: &[f32], vector: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    let each = centres.chunks_exact(vector.len().max(1)).zip(squares);
    for (at, (centre, square)) in each.enumerate() {
        let score = dot_f32(vector, centre) - 0.5 * square;
        if score > best.1 {
            best = (at, score);
        }
    }
    best.0
}

#[cfg(test)]
mod tests;
