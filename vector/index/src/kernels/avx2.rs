//! AVX2: `vpmaddubsw` multiplies 32 unsigned stored codes with signed query codes at once. Four rows
//! are taken together, so that the query is loaded once and one reduction serves them all.

use super::fours::{TOGETHER, in_fours};
use super::{LANES, Line, Path, QueryLine, Which};
use std::arch::x86_64::*;

pub static PATH: Path = Path {
    name: "avx2",
    dots,
    halve,
    dot_f32,
    l2_f32,
    bit_sums,
};

#[target_feature(enable = "avx2")]
unsafe fn dots(
    table: *const Line,
    lines: usize,
    which: Which<'_>,
    query: &[QueryLine],
    sum: i32,
    out: &mut [i32],
) {
    // SAFETY: as the caller says; each four are rows of `lines` lines, and so is the query.
    unsafe {
        in_fours(table, lines, which, sum, out, |rows| {
            four(rows, lines, query.as_ptr())
        });
    }
}

#[inline]
#[target_feature(enable = "avx2")]
unsafe fn four(rows: [*const Line; TOGETHER], lines: usize, query: *const QueryLine) -> [i32; 4] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); TOGETHER];
    let rows = rows.map(|row| row.cast::<__m256i>());
    let query = query.cast::<__m256i>();
    for half in 0..lines * 2 {
        // SAFETY: a line is two registers wide and aligned to both; all have `lines` lines.
        unsafe {
            let query = _mm256_load_si256(query.add(half));
            for (sum, row) in sums.iter_mut().zip(rows) {
                let pairs = _mm256_maddubs_epi16(_mm256_load_si256(row.add(half)), query);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    let [a, b, c, d] = sums;
    let both = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let four = _mm_add_epi32(
        _mm256_castsi256_si128(both),
        _mm256_extracti128_si256::<1>(both),
    );
    let mut out = [0; 4];
    // SAFETY: four whole numbers of 32 bits; the store has no alignment.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), four) };
    out
}

#[target_feature(enable = "avx2")]
fn halve(row: &[Line], query: &mut [QueryLine]) -> i32 {
    super::plain::halve(row, query)
}

#[inline]
#[target_feature(enable = "avx2")]
fn each(
    a: &[[f32; LANES]],
    b: &[[f32; LANES]],
    step: impl Fn(__m256, __m256, __m256) -> __m256,
) -> [f32; LANES] {
    // SAFETY: loads and stores stay within arrays of 32 floats and have no alignment.
    unsafe {
        let mut sums = [_mm256_setzero_ps(); LANES / 8];
        for (a, b) in a.iter().zip(b) {
            for (at, sum) in sums.iter_mut().enumerate() {
                let (a, b) = (a.as_ptr().add(at * 8), b.as_ptr().add(at * 8));
                *sum = step(*sum, _mm256_loadu_ps(a), _mm256_loadu_ps(b));
            }
        }
        let mut out = [0.0; LANES];
        for (at, sum) in sums.iter().enumerate() {
            _mm256_storeu_ps(out.as_mut_ptr().add(at * 8), *sum);
        }
        out
    }
}

#[target_feature(enable = "avx2")]
fn dot_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    each(a, b, |sum, a, b| _mm256_add_ps(sum, _mm256_mul_ps(a, b)))
}

#[target_feature(enable = "avx2")]
fn l2_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    each(a, b, |sum, a, b| {
        let apart = _mm256_sub_ps(a, b);
        _mm256_add_ps(sum, _mm256_mul_ps(apart, apart))
    })
}

/// The plain loops, with the instruction that counts ones.
#[target_feature(enable = "avx2,popcnt")]
pub(super) fn bit_sums(
    table: &[u64],
    stride: usize,
    which: Which<'_>,
    planes: &[u64],
    out: &mut [i32],
) {
    super::plain::bit_sums(table, stride, which, planes, out);
}
