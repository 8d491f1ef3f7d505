//! Small codes of rows, a byte a component, that say between which bounds a row's score must lie.
//!
//! A row x is a scale times whole numbers in -127..=127 and a rest e; a query q likewise, with up to
//! 16 bits, and a rest f. Whole numbers are multiplied and added without rounding, so for every row
//! |x.q - x'.q'| <= |e||q| + |x'||f|, where x' and q' are what the codes stand for; rounding in a
//! score in f32 and in the bounds themselves is at most (dim + 64) 2^-23 |x||q| (Higham 2002, 3.1).
//! The lengths of the rests are taken from the rests: nothing depends on how well codes were chosen.
//!
//! The longest rows come first: a sweep ends where |x||q| is less than the least score wanted, which
//! is early where lengths differ much, as those of learned items do.

use crate::exact::length;

/// Rows of one block, and floats of a group.
pub const LANES: usize = 8;
const CODE_MAX: f32 = 127.0;
const QUERY_MAX: usize = i16::MAX as usize;
/// Lengths between which no step underflows or overflows; rows beyond are always scored, and
/// queries beyond never use codes.
const LENGTHS: std::ops::RangeInclusive<f64> = 1e-12..=1e12;
/// For what rounding the lengths to f32, and adding them up, loses.
const UP: f64 = 1.000_01;

/// Products of lengths below this say nothing: scores may underflow.
const REACH_MIN: f32 = 1e-30;

/// Codes of the rows that are not zero, longest first, in blocks of [`LANES`].
pub struct Codes {
    /// The row at each place.
    rows: Vec<u32>,
    /// Pairs of components of a row.
    pairs: usize,
    /// For each block and pair: both components of each row of the block.
    lines: Vec<[i8; LANES * 2]>,
    scales: Vec<[f32; LANES]>,
    /// How far a score can be off for a query of length 1; not a number where there is no row.
    slacks: Vec<[f32; LANES]>,
    /// What no score of the block and those after it exceeds, for a query of length 1.
    reaches: Vec<f32>,
    query_max: f32,
}

/// A query as whole numbers.
pub struct CodedQuery {
    /// Each pair of components, once for each lane.
    pairs: Vec<[i16; LANES * 2]>,
    step: f32,
    length: f32,
}

struct Block<'a> {
    lines: &'a [[i8; LANES * 2]],
    scales: &'a [f32; LANES],
    slacks: &'a [f32; LANES],
    reach: f32,
}

impl Block<'_> {
    /// Whether this block or one after it can have a score of `least`.
    #[inline(always)]
    fn reaches(&self, least: f32, query: &CodedQuery) -> bool {
        (self.reach * query.length).max(REACH_MIN) >= least
    }
}

impl Codes {
    /// Of rows of `groups` times [`LANES`] components.
    pub fn new(groups: usize, values: &[[f32; LANES]]) -> Self {
        let dim = groups * LANES;
        // No sum of products may leave 32 bits.
        let query_max = QUERY_MAX.min(i32::MAX as usize / (CODE_MAX as usize * dim)) as f32;
        let lengths = values.chunks_exact(groups).zip(0u32..);
        let mut rows: Vec<(f64, u32)> = lengths
            .map(|(values, row)| (length(values.as_flattened().iter().copied()), row))
            .filter(|(length, _)| *length > 0.0)
            .collect();
        rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (blocks, pairs) = (rows.len().div_ceil(LANES), dim / 2);
        let rounding = (dim + 64) as f64 * f64::from(f32::EPSILON);
        let mut codes = Self {
            rows: rows.iter().map(|(_, row)| *row).collect(),
            pairs,
            lines: vec![[0; LANES * 2]; blocks * pairs],
            scales: vec![[0.0; LANES]; blocks],
            slacks: vec![[f32::NAN; LANES]; blocks],
            reaches: Vec::with_capacity(blocks),
            query_max,
        };
        for (place, (length_x, row)) in rows.into_iter().enumerate() {
            let (block, lane) = (place / LANES, place % LANES);
            if lane == 0 {
                codes
                    .reaches
                    .push((length_x * (1.0 + rounding) * UP) as f32);
            }
            let from = row as usize * groups;
            let values = values.get(from..from + groups).unwrap_or_default();
            let values = values.as_flattened();
            let most = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let (mut scale, mut slack) = (0.0, f32::INFINITY);
            if LENGTHS.contains(&length_x) {
                scale = most / CODE_MAX;
                let (mut rest, mut kept) = (0.0f64, 0.0f64);
                let lines = codes.lines.iter_mut().skip(block * pairs);
                for (line, pair) in lines.zip(values.as_chunks::<2>().0) {
                    let both = line.iter_mut().skip(lane * 2);
                    for (code, x) in both.zip(pair) {
                        *code = (x / scale).round().clamp(-CODE_MAX, CODE_MAX) as i8;
                        let stands_for = f64::from(*code) * f64::from(scale);
                        rest += (f64::from(*x) - stands_for).powi(2);
                        kept += stands_for * stands_for;
                    }
                }
                let query_loss = kept.sqrt() * codes.query_loss();
                slack = ((rest.sqrt() + query_loss + rounding * length_x) * UP) as f32;
            }
            let slot = codes.scales.get_mut(block).and_then(|of| of.get_mut(lane));
            slot.into_iter().for_each(|slot| *slot = scale);
            let slot = codes.slacks.get_mut(block).and_then(|of| of.get_mut(lane));
            slot.into_iter().for_each(|slot| *slot = slack);
        }
        codes
    }

    /// Most of a query's length that its rest can be.
    fn query_loss(&self) -> f64 {
        0.5 * ((self.pairs * 2) as f64).sqrt() / f64::from(self.query_max) * UP
    }

    /// `None` where the query is out of [`LENGTHS`]: then every row must be scored.
    pub fn query(&self, query: &[[f32; LANES]]) -> Option<CodedQuery> {
        let values = query.as_flattened();
        let length_q = length(values.iter().copied());
        if !LENGTHS.contains(&length_q) {
            return None;
        }
        let most = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let step = most / self.query_max;
        let code = |x: f32| (x / step).round().clamp(-self.query_max, self.query_max) as i16;
        let rest = values
            .iter()
            .map(|x| (f64::from(*x) - f64::from(code(*x)) * f64::from(step)).powi(2));
        if rest.sum::<f64>().sqrt() > length_q * self.query_loss() {
            return None;
        }
        let pairs = values.as_chunks::<2>().0.iter().map(|[a, b]| {
            let pair = [code(*a), code(*b)];
            let mut line = [0; LANES * 2];
            line.as_chunks_mut::<2>().0.fill(pair);
            line
        });
        Some(CodedQuery {
            pairs: pairs.collect(),
            step,
            length: (length_q * UP) as f32,
        })
    }

    /// The row at a place, which is a block's number times [`LANES`] and a lane, and the least that
    /// its score can be, given the most.
    pub fn lower(&self, place: usize, upper: f32, query: &CodedQuery) -> Option<(u32, f32)> {
        let row = *self.rows.get(place)?;
        let slack = *self.slacks.get(place / LANES)?.get(place % LANES)?;
        Some((
            row,
            if slack == f32::INFINITY {
                f32::NEG_INFINITY
            } else {
                upper - 2.0 * (slack * query.length)
            },
        ))
    }

    /// Goes through the blocks, and gives `keep` those where the most that a row's score can be is
    /// at least what `keep` returned last; minus infinity at first.
    pub fn sweep(&self, query: &CodedQuery, keep: &mut dyn FnMut(usize, [f32; LANES]) -> f32) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: avx2 is there, as just checked; the function has no other condition.
            return unsafe { self.sweep_avx2(query, keep) };
        }
        self.sweep_plain(query, keep);
    }

    fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let lines = self.lines.chunks_exact(self.pairs);
        let of_block = self.scales.iter().zip(&self.slacks).zip(&self.reaches);
        lines
            .zip(of_block)
            .map(|(lines, ((scales, slacks), reach))| Block {
                lines,
                scales,
                slacks,
                reach: *reach,
            })
    }

    fn sweep_plain(&self, query: &CodedQuery, keep: &mut dyn FnMut(usize, [f32; LANES]) -> f32) {
        let mut least = f32::NEG_INFINITY;
        for (at, block) in self.blocks().enumerate() {
            if !block.reaches(least, query) {
                return;
            }
            let mut sums = [0i32; LANES];
            for (line, pair) in block.lines.iter().zip(&query.pairs) {
                let products = line.as_chunks::<2>().0.iter().zip(pair.as_chunks::<2>().0);
                for (sum, ([a, b], [p, q])) in sums.iter_mut().zip(products) {
                    *sum += i32::from(*a) * i32::from(*p) + i32::from(*b) * i32::from(*q);
                }
            }
            let mut uppers = [0.0f32; LANES];
            let of_lane = sums.iter().zip(block.scales).zip(block.slacks);
            for (upper, ((sum, scale), slack)) in uppers.iter_mut().zip(of_lane) {
                *upper = *sum as f32 * scale * query.step + slack * query.length;
            }
            if uppers.iter().any(|upper| *upper >= least) {
                least = keep(at, uppers);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn sweep_avx2(&self, query: &CodedQuery, keep: &mut dyn FnMut(usize, [f32; LANES]) -> f32) {
        use std::arch::x86_64::*;
        let mut least = f32::NEG_INFINITY;
        let (step, length) = (_mm256_set1_ps(query.step), _mm256_set1_ps(query.length));
        for (at, block) in self.blocks().enumerate() {
            if !block.reaches(least, query) {
                return;
            }
            let mut sums = _mm256_setzero_si256();
            for (line, pair) in block.lines.iter().zip(&query.pairs) {
                // SAFETY: 16 bytes and 32 bytes, as long as the arrays; the loads have no alignment.
                let (line, pair) = unsafe {
                    (
                        _mm_loadu_si128(line.as_ptr().cast()),
                        _mm256_loadu_si256(pair.as_ptr().cast()),
                    )
                };
                let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(line), pair);
                sums = _mm256_add_epi32(sums, products);
            }
            // SAFETY: both are arrays of eight floats, and the load has no alignment.
            let (scales, slacks) = unsafe {
                (
                    _mm256_loadu_ps(block.scales.as_ptr()),
                    _mm256_loadu_ps(block.slacks.as_ptr()),
                )
            };
            let scores = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), scales), step);
            let upper = _mm256_add_ps(scores, _mm256_mul_ps(slacks, length));
            if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(upper, _mm256_set1_ps(least))) != 0 {
                let mut uppers = [0.0f32; LANES];
                // SAFETY: an array of eight floats, and the store has no alignment.
                unsafe { _mm256_storeu_ps(uppers.as_mut_ptr(), upper) };
                least = keep(at, uppers);
            }
        }
    }
}

#[cfg(test)]
mod tests;
