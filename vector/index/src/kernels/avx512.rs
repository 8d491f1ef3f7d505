//! AVX-512 VNNI: `vpdpbusd` multiplies and adds 64 stored codes with as many of a query in one step.

use super::fours::{TOGETHER, in_fours};
use super::{LANES, Line, Path, QueryLine, Which};
use std::arch::x86_64::*;

pub static PATH: Path = Path {
    name: "avx512vnni",
    dots,
    halve,
    dot_f32,
    l2_f32,
    bit_sums: super::avx2::bit_sums,
};

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dots(
    table: *const Line,
    lines: usize,
    which: Which<'_>,
    query: &[QueryLine],
    sum: i32,
    out: &mut [i32],
) {
    let four = |rows: [*const Line; TOGETHER]| {
        let mut sums = [_mm512_setzero_si512(); TOGETHER];
        for (line, query) in query.iter().enumerate() {
            // SAFETY: a line is one register wide and aligned to it; all rows have `lines` lines.
            unsafe {
                let query = _mm512_load_si512((query as *const QueryLine).cast());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let row = _mm512_load_si512(row.add(line).cast());
                    *sum = _mm512_dpbusd_epi32(*sum, row, query);
                }
            }
        }
        sums.map(|sum| _mm512_reduce_add_epi32(sum))
    };
    // SAFETY: as the caller says.
    unsafe { in_fours(table, lines, which, sum, out, four) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn halve(row: &[Line], query: &mut [QueryLine]) -> i32 {
    super::plain::halve(row, query)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn each(
    a: &[[f32; LANES]],
    b: &[[f32; LANES]],
    step: impl Fn(__m512, __m512, __m512) -> __m512,
) -> [f32; LANES] {
    // SAFETY: loads and stores stay within arrays of 32 floats and have no alignment.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); LANES / 16];
        for (a, b) in a.iter().zip(b) {
            for (at, sum) in sums.iter_mut().enumerate() {
                let (a, b) = (a.as_ptr().add(at * 16), b.as_ptr().add(at * 16));
                *sum = step(*sum, _mm512_loadu_ps(a), _mm512_loadu_ps(b));
            }
        }
        let mut out = [0.0; LANES];
        for (at, sum) in sums.iter().enumerate() {
            _mm512_storeu_ps(out.as_mut_ptr().add(at * 16), *sum);
        }
        out
    }
}

#[target_feature(enable = "avx512f")]
fn dot_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    each(a, b, |sum, a, b| _mm512_add_ps(sum, _mm512_mul_ps(a, b)))
}

#[target_feature(enable = "avx512f")]
fn l2_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    each(a, b, |sum, a, b| {
        let apart = _mm512_sub_ps(a, b);
        _mm512_add_ps(sum, _mm512_mul_ps(apart, apart))
    })
}
