//! NEON: 16 codes at once, multiplied into 16 bits, which hold the sum of two products.

use super::{LANES, Line, Path, QueryLine, Which};
use std::arch::aarch64::*;

pub static PATH: Path = Path {
    name: "neon",
    dots,
    halve: super::plain::halve,
    dot_f32,
    l2_f32,
    bit_sums: super::plain::bit_sums,
};

#[target_feature(enable = "neon")]
unsafe fn dots(
    table: *const Line,
    lines: usize,
    which: Which<'_>,
    query: &[QueryLine],
    _sum: i32,
    out: &mut [i32],
) {
    for (at, out) in out.iter_mut().enumerate() {
        let row = which.row(at);
        // SAFETY: the row lies in the table and has as many lines as the query, as the caller says;
        // a line is four registers wide.
        unsafe {
            let row = table.add(row * lines).cast::<u8>();
            let query = query.as_ptr().cast::<i8>();
            let mut sum = vdupq_n_s32(0);
            for at in (0..lines * 64).step_by(32) {
                // Stored codes less 128, as signed ones.
                let flip = vdupq_n_u8(128);
                let a = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(row.add(at)), flip));
                let b = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(row.add(at + 16)), flip));
                let (p, q) = (vld1q_s8(query.add(at)), vld1q_s8(query.add(at + 16)));
                // Two products of at most 128 * 64 fit in 16 bits.
                let low = vmlal_s8(
                    vmull_s8(vget_low_s8(a), vget_low_s8(p)),
                    vget_low_s8(b),
                    vget_low_s8(q),
                );
                let high = vmlal_high_s8(vmull_high_s8(a, p), b, q);
                sum = vpadalq_s16(vpadalq_s16(sum, low), high);
            }
            *out = vaddvq_s32(sum);
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn each(
    a: &[[f32; LANES]],
    b: &[[f32; LANES]],
    step: impl Fn(float32x4_t, float32x4_t, float32x4_t) -> float32x4_t,
) -> [f32; LANES] {
    // SAFETY: loads and stores stay within arrays of 32 floats.
    unsafe {
        let mut sums = [vdupq_n_f32(0.0); LANES / 4];
        for (a, b) in a.iter().zip(b) {
            for (at, sum) in sums.iter_mut().enumerate() {
                let (a, b) = (a.as_ptr().add(at * 4), b.as_ptr().add(at * 4));
                *sum = step(*sum, vld1q_f32(a), vld1q_f32(b));
            }
        }
        let mut out = [0.0; LANES];
        for (at, sum) in sums.iter().enumerate() {
            vst1q_f32(out.as_mut_ptr().add(at * 4), *sum);
        }
        out
    }
}

#[target_feature(enable = "neon")]
fn dot_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    // Not `vfmaq_f32`: it rounds once where the other paths round twice.
    each(a, b, |sum, a, b| vaddq_f32(sum, vmulq_f32(a, b)))
}

#[target_feature(enable = "neon")]
fn l2_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    each(a, b, |sum, a, b| {
        let apart = vsubq_f32(a, b);
        vaddq_f32(sum, vmulq_f32(apart, apart))
    })
}
