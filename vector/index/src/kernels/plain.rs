//! The inner loops in plain Rust: the oracle of the others, and what runs where there is no other.

use super::{CENTRE, LANES, Line, PLANES, Path, QueryLine, Which};

pub static PATH: Path = Path {
    name: "plain",
    dots,
    halve,
    dot_f32,
    l2_f32,
    bit_sums,
};

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
        // SAFETY: the row lies in the table, as the caller says.
        let row = unsafe { std::slice::from_raw_parts(table.add(row * lines), lines) };
        let products = row.iter().zip(query).map(|(row, query)| {
            let pairs = row.0.iter().zip(&query.0);
            let of_line = pairs.map(|(x, q)| (i32::from(*x) - i32::from(CENTRE)) * i32::from(*q));
            of_line.sum::<i32>()
        });
        *out = products.sum();
    }
}

/// Half of each code, away from zero, so that the error has no direction.
#[inline(always)]
pub(super) fn halve(row: &[Line], query: &mut [QueryLine]) -> i32 {
    let mut sum = 0;
    for (to, from) in query.iter_mut().zip(row) {
        for (to, from) in to.0.iter_mut().zip(&from.0) {
            let code = (from ^ CENTRE) as i8;
            let half = (code.unsigned_abs().div_ceil(2)) as i8;
            *to = if code < 0 { -half } else { half };
        }
        let of_line = to.0.iter().map(|code| i16::from(*code));
        sum += i32::from(of_line.sum::<i16>());
    }
    sum
}

fn dot_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums
}

fn l2_f32(a: &[[f32; LANES]], b: &[[f32; LANES]]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += (a - b) * (a - b);
        }
    }
    sums
}

#[inline(always)]
pub(super) fn bit_sums(
    table: &[u64],
    stride: usize,
    which: Which<'_>,
    planes: &[u64],
    out: &mut [i32],
) {
    // The customary dimensions have loops of their own.
    match planes.len() / PLANES {
        2 => bit_sums_of::<2>(table, stride, which, planes, out),
        4 => bit_sums_of::<4>(table, stride, which, planes, out),
        6 => bit_sums_of::<6>(table, stride, which, planes, out),
        8 => bit_sums_of::<8>(table, stride, which, planes, out),
        12 => bit_sums_of::<12>(table, stride, which, planes, out),
        16 => bit_sums_of::<16>(table, stride, which, planes, out),
        words => {
            for (at, out) in out.iter_mut().enumerate() {
                let from = which.row(at) * stride;
                let row = table.get(from..from + words).unwrap_or_default();
                let each = planes.chunks_exact(words.max(1)).zip(0..);
                *out = each
                    .map(|(of_plane, plane)| ones(row, of_plane) << plane)
                    .sum();
            }
        }
    }
}

#[inline(always)]
fn bit_sums_of<const WORDS: usize>(
    table: &[u64],
    stride: usize,
    which: Which<'_>,
    planes: &[u64],
    out: &mut [i32],
) {
    let (planes, _) = planes.as_chunks::<WORDS>();
    for (at, out) in out.iter_mut().enumerate() {
        let row = table.get(which.row(at) * stride..);
        let row = row.and_then(|row| row.first_chunk::<WORDS>());
        let row = row.unwrap_or(&[0; WORDS]);
        let each = planes.iter().zip(0..);
        *out = each
            .map(|(of_plane, plane)| ones(row, of_plane) << plane)
            .sum();
    }
}

#[inline(always)]
fn ones(row: &[u64], of_plane: &[u64]) -> i32 {
    let both = row.iter().zip(of_plane);
    both.map(|(a, b)| (a & b).count_ones() as i32).sum()
}
