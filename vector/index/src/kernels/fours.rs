//! How the x86 kernels go over rows: four together, the next four on their way meanwhile.

use super::{CENTRE, Line, Which};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

pub const TOGETHER: usize = 4;

/// Fills `out` with what `four` gives for the rows, less what [`CENTRE`] adds where the codes of the
/// query have this `sum`.
///
/// Safety: as the `dots` of a `Path`.
#[inline(always)]
pub unsafe fn in_fours(
    table: *const Line,
    lines: usize,
    which: Which<'_>,
    sum: i32,
    out: &mut [i32],
    four: impl Fn([*const Line; TOGETHER]) -> [i32; TOGETHER],
) {
    let offset = sum * i32::from(CENTRE);
    let last = out.len().saturating_sub(1);
    let row = |at: usize| {
        // What is beyond the last is computed as the last, and not kept.
        let row = which.row(at.min(last));
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
        for (next, value) in four(rows).into_iter().enumerate() {
            if let Some(out) = out.get_mut(at + next) {
                *out = value - offset;
            }
        }
        at += TOGETHER;
    }
}
