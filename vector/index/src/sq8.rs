//! Scalar quantisation: a byte a component, and a scale for each vector.
//!
//! A vector x is stored as codes c and a scale s with x = s (c - 128) up to rounding, s = max|x| / 127.
//! A query is coded the same with 64 steps instead of 127, so that products fit (see `kernels`). What
//! is nearer by the codes is nearly always nearer: callers take more than they need, and score those
//! by the stored vectors.
//!
//! Invariant: scores of all metrics are `scale * query's scale * products + bias`, greater is nearer:
//! the bias is 0 for the cosine and the inner product, and -|x|^2 / 2 for the distance, which has the
//! same order as -|x - q|^2 (less |q|^2 / 2, times 2).

use crate::Metric;
use crate::kernels::{self, CENTRE, Line, QUERY_MAX, QueryCodes, STRIDE, Which};
use crate::memory::Hot;

/// Steps of a stored code on either side of 0.
const CODE_MAX: f32 = 127.0;

/// Codes of many vectors.
pub struct Sq8 {
    /// Lines of each row.
    lines: usize,
    codes: Hot<Line>,
    scales: Vec<f32>,
    /// One for each row, or none.
    biases: Vec<f32>,
}

/// A query in codes.
pub struct CodedQuery {
    codes: QueryCodes,
    scale: f32,
}

impl Sq8 {
    /// No rows yet, of vectors of dimension `dim`.
    pub fn new(dim: usize, rows: usize) -> Self {
        let lines = dim.div_ceil(STRIDE);
        Self {
            lines,
            codes: Hot::with_capacity(lines * rows),
            scales: Vec::with_capacity(rows),
            biases: Vec::new(),
        }
    }

    /// So many rows of zero vectors, each to be [`Sq8::set`].
    pub fn zeros(dim: usize, metric: Metric, rows: usize) -> Self {
        let lines = dim.div_ceil(STRIDE);
        let biases = if metric == Metric::L2 { rows } else { 0 };
        Self {
            lines,
            codes: Hot::filled(Line([CENTRE; STRIDE]), lines * rows),
            scales: vec![0.0; rows],
            biases: vec![0.0; biases],
        }
    }

    pub fn set(&mut self, row: u32, vector: &[f32]) {
        let from = row as usize * self.lines;
        let to = self.codes.get_mut(from..from + self.lines);
        let (scale, lines) = code(vector);
        let to = to.unwrap_or_default().iter_mut();
        to.zip(lines).for_each(|(to, line)| *to = line);
        if let Some(slot) = self.scales.get_mut(row as usize) {
            *slot = scale;
        }
        if let Some(bias) = self.biases.get_mut(row as usize) {
            *bias = bias_of(vector);
        }
    }

    pub fn push(&mut self, metric: Metric, vector: &[f32]) {
        let (scale, lines) = code(vector);
        lines.for_each(|line| self.codes.push(line));
        self.scales.push(scale);
        if metric == Metric::L2 {
            self.biases.push(bias_of(vector));
        }
    }

    /// From codes, scales and biases that fit together.
    pub fn from_parts(
        dim: usize,
        codes: Hot<Line>,
        scales: Vec<f32>,
        biases: Vec<f32>,
    ) -> Option<Self> {
        let lines = dim.div_ceil(STRIDE);
        let fits = codes.len() == scales.len().checked_mul(lines)?
            && (biases.is_empty() || biases.len() == scales.len());
        fits.then_some(Self {
            lines,
            codes,
            scales,
            biases,
        })
    }

    pub fn lines(&self) -> &[Line] {
        &self.codes
    }

    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub fn biases(&self) -> &[f32] {
        &self.biases
    }

    pub fn rows(&self) -> usize {
        self.scales.len()
    }

    pub fn query(&self, vector: &[f32]) -> CodedQuery {
        let most = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let scale = most / f32::from(QUERY_MAX);
        let inverse = if scale > f32::MIN_POSITIVE {
            1.0 / scale
        } else {
            0.0
        };
        CodedQuery {
            codes: QueryCodes::new(vector.iter().map(|x| (x * inverse).round_ties_even() as i8)),
            scale,
        }
    }

    /// A query that a row is taken for, to be filled by [`Sq8::take_for_query`].
    pub fn no_query(&self) -> CodedQuery {
        CodedQuery {
            codes: QueryCodes::new([]),
            scale: 0.0,
        }
    }

    pub fn take_for_query(&self, row: u32, query: &mut CodedQuery) {
        query.codes.set_halved(self.row(row));
        query.scale = 2.0 * self.scale(row);
    }

    pub fn row(&self, row: u32) -> &[Line] {
        let from = row as usize * self.lines;
        self.codes.get(from..from + self.lines).unwrap_or_default()
    }

    pub fn scale(&self, row: u32) -> f32 {
        self.scales.get(row as usize).copied().unwrap_or(0.0)
    }

    pub fn bias(&self, row: u32) -> f32 {
        self.biases.get(row as usize).copied().unwrap_or(0.0)
    }

    /// Scores of `rows`. `products` is room to work in.
    pub fn scores(
        &self,
        query: &CodedQuery,
        rows: &[u32],
        products: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        products.resize(rows.len(), 0);
        kernels::dots(
            &self.codes,
            self.lines,
            Which::These(rows),
            &query.codes,
            products,
        );
        out.clear();
        let scored = rows.iter().zip(products.iter()).map(|(row, product)| {
            self.scale(*row) * query.scale * *product as f32 + self.bias(*row)
        });
        out.extend(scored);
    }

    /// Scores of `count` rows from `first` on.
    pub fn scores_from(
        &self,
        query: &CodedQuery,
        first: u32,
        count: usize,
        products: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        let count = count.min(self.rows().saturating_sub(first as usize));
        products.resize(count, 0);
        kernels::dots(
            &self.codes,
            self.lines,
            Which::From(first),
            &query.codes,
            products,
        );
        out.clear();
        let scored = (first..)
            .zip(products.iter())
            .map(|(row, product)| self.scale(row) * query.scale * *product as f32 + self.bias(row));
        out.extend(scored);
    }

    /// Says that a row will be scored soon.
    #[inline(always)]
    pub fn fetch(&self, row: u32) {
        kernels::fetch(self.row(row));
    }

    /// The same rows in another order, or some of them.
    pub fn gather(&self, rows: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        let mut codes = Hot::with_capacity(self.lines * rows.len());
        rows.clone()
            .for_each(|row| codes.extend_from_slice(self.row(row)));
        Self {
            lines: self.lines,
            codes,
            scales: rows.clone().map(|row| self.scale(row)).collect(),
            biases: if self.biases.is_empty() {
                Vec::new()
            } else {
                rows.map(|row| self.bias(row)).collect()
            },
        }
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.codes) + 4 * (self.scales.len() + self.biases.len())
    }
}

/// The scale of a vector, and its codes.
fn code(vector: &[f32]) -> (f32, impl Iterator<Item = Line> + '_) {
    let most = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // What is too small for a scale is coded as 0.
    let scale = most / CODE_MAX;
    let inverse = if scale > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    };
    let code = move |x: &f32| {
        let code = (x * inverse).round_ties_even().clamp(-CODE_MAX, CODE_MAX);
        (code as i16 + i16::from(CENTRE)) as u8
    };
    let lines = vector.chunks(STRIDE).map(move |part| {
        let mut line = [CENTRE; STRIDE];
        line.iter_mut().zip(part).for_each(|(to, x)| *to = code(x));
        Line(line)
    });
    (scale, lines)
}

fn bias_of(vector: &[f32]) -> f32 {
    -0.5 * kernels::dot_f32(vector, vector)
}
