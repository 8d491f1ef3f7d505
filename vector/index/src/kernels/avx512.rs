//! AVX-512 VNNI: `vpdpbusd` multiplies and adds 64 stored codes with as many of a query in one step.

use super::{CENTRE, LANES, Line, Path, QueryLine, Which};
use std::arch::x86_64::*;

pub static PATH: Path = Path {
    name: "avx512vnni",
    dots,
    halve,
    dot_f32,
    l2_f32,
};

const TOGETHER: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dots(
    table: *const Line,
    lines: usize,
    which: Which<'_>,
    query: &[QueryLine],
    sum: i32,
    out: &mut [i32],
) {
    let offset = sum * i32::from(CENTRE);
    let last = out.len().saturating_sub(1);
    let row = |at: usize| {
        let row = match which {
            // What is beyond the last is computed as the last, and not kept.
            Which::These(rows) => rows
                .get(at)
                .or(rows.last())
                .copied()
                .map_or(0, |row| row as usize),
            Which::From(first) => first as usize + at.min(last),
        };
        // SAFETY: the row lies in the table, as the caller says.
        unsafe { table.add(row * lines) }
    };
    let mut at = 0;
    while at < out.len() {
        let rows = [row(at), row(at + 1), row(at + 2), row(at + 3)];
        if at + TOGETHER < out.len() {
            for next in 0..TOGETHER {
                let next = row(at + TOGETHER + next).cast::<i8>();
                for line in 0..lines {
                    // SAFETY: within the table; a fetch has no other effect.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(next.add(line * 64)) };
                }
            }
        }
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
        for (next, sum) in sums.into_iter().enumerate() {
            if let Some(out) = out.get_mut(at + next) {
                *out = _mm512_reduce_add_epi32(sum) - offset;
            }
        }
        at += TOGETHER;
    }
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
