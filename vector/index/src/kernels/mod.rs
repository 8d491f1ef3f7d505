//! The inner loops: inner products of byte codes and of floats, once in plain Rust and once for each
//! instruction set, chosen at run time.
//!
//! Invariants: all paths give the same bits. Codes are whole numbers, whose sums have no order:
//! stored codes are 0..=255, standing for themselves less [`CENTRE`]; codes of a query are within
//! [`QUERY_MAX`], so that no sum of two products leaves 16 bits (what `vpmaddubsw` needs). Floats are
//! multiplied and added without fusing in [`LANES`] lanes, in one order. Rows are padded with zeros
//! to [`STRIDE`] codes. Only this folder has raw pointers; its surface checks their bounds.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod fours;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;

use bytemuck::{Pod, Zeroable};
use std::sync::OnceLock;

/// What a stored code of 0 is written as.
pub const CENTRE: u8 = 128;
/// Greatest code of a query, and least with a minus: `255 * 64 * 2 < 2^15`.
pub const QUERY_MAX: i8 = 64;
/// Rows of codes are whole multiples of this.
pub const STRIDE: usize = 64;
// No sum over the longest row leaves 32 bits, on the paths that take the centre off at the end too.
const _: () = assert!(crate::DIM_MAX * (255 + CENTRE as usize) * (QUERY_MAX as usize) < 1 << 31);
/// Floats that are added apart from one another.
pub const LANES: usize = 32;
/// Bits of a component of a query that rows of bits are asked with.
pub const PLANES: usize = 4;

/// A group of codes; aligned as a cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line(pub [u8; STRIDE]);

/// The same for a query.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct QueryLine(pub [i8; STRIDE]);

/// Which rows of a table.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    These(&'a [u32]),
    /// From a row on, as many as there is room for results.
    From(u32),
}

impl Which<'_> {
    /// The row at a place of the results.
    #[inline(always)]
    pub fn row(self, at: usize) -> usize {
        match self {
            Self::These(rows) => rows.get(at).copied().unwrap_or(0) as usize,
            Self::From(first) => first as usize + at,
        }
    }
}

/// Sums over two vectors, kept apart by lanes.
type InLanes = unsafe fn(&[[f32; LANES]], &[[f32; LANES]]) -> [f32; LANES];

/// For each of some rows of a table, given by the words from one to the next, the sum of the query's
/// numbers where the row has ones.
type BitSums = unsafe fn(&[u64], usize, Which<'_>, &[u64], &mut [i32]);

/// One implementation of all inner loops.
///
/// The `dots` of a table of rows of `lines` lines, for each of `which`: the sum of code times query
/// code, where a stored code counts less [`CENTRE`]; `sum` is the sum of the query's codes.
///
/// `halve` takes stored codes for those of a query, and gives their sum.
///
/// Safety of `dots`: each row asked for lies in the table, `query` has `lines` lines, `out` as many
/// places as rows are asked for, and the instruction set is there.
struct Path {
    name: &'static str,
    dots: unsafe fn(*const Line, usize, Which<'_>, &[QueryLine], i32, &mut [i32]),
    halve: unsafe fn(&[Line], &mut [QueryLine]) -> i32,
    dot_f32: InLanes,
    l2_f32: InLanes,
    bit_sums: BitSums,
}

fn path() -> &'static Path {
    static CHOSEN: OnceLock<&'static Path> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let wanted = std::env::var("SKERRY_KERNEL").ok();
        let mut paths = available();
        if let Some(wanted) = wanted
            && let Some(at) = paths.iter().position(|path| path.name == wanted)
        {
            return paths.swap_remove(at);
        }
        paths.first().copied().unwrap_or(&plain::PATH)
    })
}

/// What this machine can run, fastest first; always the plain one too.
fn available() -> Vec<&'static Path> {
    let mut paths: Vec<&'static Path> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vnni")
            && std::arch::is_x86_feature_detected!("popcnt")
        {
            paths.push(&avx512::PATH);
        }
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("popcnt")
        {
            paths.push(&avx2::PATH);
        }
    }
    #[cfg(target_arch = "aarch64")]
    paths.push(&neon::PATH);
    paths.push(&plain::PATH);
    paths
}

/// Which instruction set the inner loops use here: `avx512vnni`, `avx2`, `neon` or `plain`. The
/// environment variable `SKERRY_KERNEL` names another that the machine has.
#[must_use]
pub fn kernel_name() -> &'static str {
    path().name
}

/// Codes of a query in lines, and their sum.
#[derive(Clone)]
pub struct QueryCodes {
    lines: Vec<QueryLine>,
    sum: i32,
}

impl QueryCodes {
    /// Codes beyond [`QUERY_MAX`] count as that.
    pub fn new(codes: impl IntoIterator<Item = i8>) -> Self {
        let mut this = Self {
            lines: Vec::new(),
            sum: 0,
        };
        this.set(codes);
        this
    }

    pub fn set(&mut self, codes: impl IntoIterator<Item = i8>) {
        self.lines.clear();
        self.sum = 0;
        let mut line = [0; STRIDE];
        let mut filled = 0;
        for code in codes {
            let code = code.clamp(-QUERY_MAX, QUERY_MAX);
            if let Some(slot) = line.get_mut(filled) {
                *slot = code;
            }
            self.sum += i32::from(code);
            filled += 1;
            if filled == STRIDE {
                self.lines.push(QueryLine(line));
                (line, filled) = ([0; STRIDE], 0);
            }
        }
        if filled > 0 {
            self.lines.push(QueryLine(line));
        }
    }

    /// Takes a stored row as a query, with half its precision.
    pub fn set_halved(&mut self, row: &[Line]) {
        self.lines.resize(row.len(), QueryLine([0; STRIDE]));
        // SAFETY: `path` has only what the machine can run.
        self.sum = unsafe { (path().halve)(row, &mut self.lines) };
    }
}

/// The inner products of a query with rows of a table, `lines` lines each. Rows beyond the table, and
/// a query of another length, are answered with the least number.
pub fn dots(table: &[Line], lines: usize, which: Which<'_>, query: &QueryCodes, out: &mut [i32]) {
    let rows = table.len().checked_div(lines).unwrap_or(0);
    let fits = match which {
        Which::These(these) => {
            these.len() == out.len() && these.iter().all(|row| (*row as usize) < rows)
        }
        Which::From(first) => (first as usize).saturating_add(out.len()) <= rows,
    };
    if !fits || query.lines.len() != lines {
        out.fill(i32::MIN);
        return;
    }
    // SAFETY: rows, query and results fit, as just checked (without rows nothing is read); `path` has only what the machine can run.
    unsafe { (path().dots)(table.as_ptr(), lines, which, &query.lines, query.sum, out) }
}

/// Sums of a query's numbers where rows have ones: `planes` has the lowest bits of the numbers, then the
/// next ones, [`PLANES`] in all. The first words of a row are its bits, `stride` words are from one row
/// to the next. Rows beyond the table have no ones.
pub fn bit_sums(table: &[u64], stride: usize, which: Which<'_>, planes: &[u64], out: &mut [i32]) {
    // SAFETY: `path` has only what the machine can run.
    unsafe { (path().bit_sums)(table, stride, which, planes, out) }
}

/// Says that rows will be read soon.
#[inline(always)]
pub fn fetch<T>(from: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..std::mem::size_of_val(from)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address lies within a live slice, and a fetch has no other effect.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast::<i8>().add(at)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// The inner product of two vectors of one length.
#[must_use]
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: `path` has only what the machine can run.
    in_lanes(a, b, |a, b| unsafe { (path().dot_f32)(a, b) }, |a, b| a * b)
}

/// The square of the distance between two vectors of one length.
#[must_use]
pub fn l2_f32(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: `path` has only what the machine can run.
    in_lanes(
        a,
        b,
        |a, b| unsafe { (path().l2_f32)(a, b) },
        |a, b| (a - b) * (a - b),
    )
}

#[inline(always)]
fn in_lanes(
    a: &[f32],
    b: &[f32],
    whole: impl Fn(&[[f32; LANES]], &[[f32; LANES]]) -> [f32; LANES],
    one: impl Fn(f32, f32) -> f32,
) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let mut sums = whole(a, b);
    for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += one(*a, *b);
    }
    // Halving keeps the order fixed, and the sums in wide registers.
    let mut width = LANES / 2;
    while width > 0 {
        let (left, right) = sums.split_at_mut(width);
        left.iter_mut().zip(right).for_each(|(a, b)| *a += *b);
        width /= 2;
    }
    let [sum, ..] = sums;
    sum
}

#[cfg(test)]
mod tests;
