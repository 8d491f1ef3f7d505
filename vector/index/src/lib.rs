//! Vector search: [`Index`] over rows in memory, exact up to [`EXACT_MAX`] of them and a graph above;
//! [`store::Collection`] for records under ids, durable, with payloads to filter by.
//!
//! Both stand on the same parts: codes of a byte or a bit a component ([`kernel_name`] says which
//! instructions multiply them), a packed graph ([`graph`]), exact scores from the stored vectors.
//!
//! Invariants: what is not finite or has the wrong dimension never reaches a kernel or the graph; a
//! score is always computed from the stored vectors by one kernel with one order of additions, so
//! that it is the same whichever path found the row; results are ordered by score, then row. A zero
//! vector points nowhere: it is kept, and never found.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bits;
mod codes;
mod exact;
pub mod graph;
mod kernels;
mod memory;
mod pace;
mod payload;
mod plan;
mod spec;
mod sq8;
pub mod store;

use exact::Rows;
pub use graph::CodeKind;
use graph::{BuildOptions, Packed, Scratch};
pub use kernels::kernel_name;
pub use payload::{Damaged, Moved, NewRow, PayloadIndex};
pub use plan::{Costs, Plan, Size, plan};
pub use spec::{Found, Merge, Query, Record, Spec, Stored, Write};

/// Up to this many vectors an exact scan is used.
pub const EXACT_MAX: usize = 20_000;
/// Most rows and dimensions of one index.
pub const ROWS_MAX: usize = 50_000_000;
pub const DIM_MAX: usize = 4_096;
/// Most results of one search, writes of one batch, vectors of one query, bytes of an id and of a
/// payload.
pub const RESULTS_MAX: usize = 10_000;
pub const BATCH_MAX: usize = 10_000;
pub const QUERY_VECTORS_MAX: usize = 10;
pub const ID_BYTES_MAX: usize = 512;
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// What near means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The inner product: greater is nearer.
    Dot,
    /// The cosine of the angle; stored vectors are normalised.
    Cosine,
    /// The Euclidean distance; scores are its negative square, so that greater is nearer here too.
    L2,
}

impl Metric {
    /// The score of two vectors: greater is nearer. For the cosine both have length 1.
    #[must_use]
    pub fn score(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::Dot | Self::Cosine => kernels::dot_f32(a, b),
            Self::L2 => -kernels::l2_f32(a, b),
        }
    }
}

/// What was wrong, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IndexError {
    #[error("a dimension of {0}: it must be 1 to {DIM_MAX}")]
    Dim(usize),
    #[error("{values} values are no whole number of rows of dimension {dim}")]
    Ragged { values: usize, dim: usize },
    #[error("{0} rows, at most {ROWS_MAX}")]
    TooMany(usize),
    #[error("an index over rows has inner products and cosines; distances take a collection")]
    NoDistances,
    #[error("row {row}, component {component} is not finite, or overflows when squared")]
    NotFinite { row: usize, component: usize },
    #[error("the query has dimension {query}, the index {index}")]
    QueryDim { query: usize, index: usize },
    #[error("component {component} of the query is not finite")]
    QueryNotFinite { component: usize },
    #[error("{id:?} has dimension {got}, the collection {dim}")]
    RecordDim {
        id: Box<str>,
        got: usize,
        dim: usize,
    },
    #[error("component {component} of {id:?} is not finite, or overflows when squared")]
    RecordNotFinite { id: Box<str>, component: usize },
    #[error("{id:?} has length 0: a cosine needs a direction")]
    ZeroNorm { id: Box<str> },
    #[error("the query has length 0: a cosine needs a direction")]
    QueryZeroNorm,
    #[error("{id:?} comes twice in one batch")]
    DuplicateId { id: Box<str> },
    #[error("an id of {0} bytes: it must have 1 to {ID_BYTES_MAX}")]
    IdLength(usize),
    #[error("{got} results asked for, at most {RESULTS_MAX}")]
    TooManyResults { got: usize },
    #[error("{got} writes in one batch, at most {BATCH_MAX}")]
    TooManyWrites { got: usize },
    #[error("{got} vectors in one query: it must have 1 to {QUERY_VECTORS_MAX}")]
    QueryVectors { got: usize },
    #[error("{field:?} is no field of this collection, which has {known}")]
    UnknownField { field: Box<str>, known: Box<str> },
    #[error("the payload of {id:?} has {bytes} bytes, at most {PAYLOAD_BYTES_MAX}")]
    PayloadTooLarge { id: Box<str>, bytes: usize },
    #[error("the build was stopped")]
    Stopped,
}

impl From<pace::Stopped> for IndexError {
    fn from(_: pace::Stopped) -> Self {
        Self::Stopped
    }
}

impl IndexError {
    /// The stable code that logs carry.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Dim(_) => "vector_dim",
            Self::Ragged { .. } => "vector_ragged",
            Self::TooMany(_) => "vector_rows",
            Self::NoDistances => "vector_metric",
            Self::NotFinite { .. } => "vector_not_finite",
            Self::QueryDim { .. } => "vector_query_dim",
            Self::QueryNotFinite { .. } => "vector_query_not_finite",
            Self::RecordDim { .. } => "vector_dim",
            Self::RecordNotFinite { .. } => "vector_not_finite",
            Self::ZeroNorm { .. } => "vector_zero_norm",
            Self::QueryZeroNorm => "vector_query_zero_norm",
            Self::DuplicateId { .. } => "vector_duplicate_id",
            Self::IdLength(_) => "vector_id_length",
            Self::TooManyResults { .. } => "vector_results",
            Self::TooManyWrites { .. } => "vector_batch",
            Self::QueryVectors { .. } => "vector_query_vectors",
            Self::UnknownField { .. } => "vector_unknown_field",
            Self::PayloadTooLarge { .. } => "vector_payload",
            Self::Stopped => "vector_stopped",
        }
    }
}

/// An index over dense rows; row `i` of the input is `i` in all results. Immutable.
pub struct Index {
    metric: Metric,
    rows: Rows,
    graph: Option<Graph>,
}

/// A graph over the rows that are not zero.
struct Graph {
    packed: Packed,
    /// The row of the index that each row of the graph is.
    rows: Vec<u32>,
}

/// Candidates kept while the graph is searched, at least.
const EF_MIN: usize = 256;
/// Beyond one of so many rows wanted, a scan is quicker than the graph.
const SHARE_MAX: usize = 16;

impl Graph {
    fn build(rows: &Rows, metric: Metric) -> Result<Self, IndexError> {
        let kept: Vec<u32> = (0..rows.rows() as u32)
            .filter(|row| !rows.is_zero(*row))
            .collect();
        let vectors: Vec<f32> = kept
            .iter()
            .flat_map(|row| rows.row(*row))
            .copied()
            .collect();
        let packed = Packed::build(rows.dim(), metric, &vectors, &BuildOptions::default())?;
        let source = |row: &u32| kept.get(*row as usize).copied();
        let rows = packed.order().iter().filter_map(source).collect();
        Ok(Self { packed, rows })
    }

    fn is_worth_it(&self, k: usize) -> bool {
        k.saturating_mul(SHARE_MAX) <= self.rows.len()
    }

    fn row(&self, row: u32) -> u32 {
        self.rows.get(row as usize).copied().unwrap_or_default()
    }

    /// About the best rows, more than `k` of them; fewer where few pass near the query.
    fn near(
        &self,
        query: &[f32],
        k: usize,
        allow: Option<&dyn Fn(u32) -> bool>,
    ) -> impl Iterator<Item = u32> {
        let query = self.packed.query(query);
        let allow = allow.map(|allow| move |row: u32| allow(self.row(row)));
        let allow: Option<&dyn Fn(u32) -> bool> = allow.as_ref().map(|allow| allow as _);
        let found = Scratch::with(|scratch| {
            let want = k.saturating_mul(2);
            self.packed.candidates(scratch, &query, want, EF_MIN, allow)
        });
        found.into_iter().map(|(row, _)| self.row(row))
    }
}

impl Index {
    /// Builds from row-major `vectors`.
    pub fn build(dim: usize, metric: Metric, vectors: &[f32]) -> Result<Self, IndexError> {
        let mut index = Self::build_exact(dim, metric, vectors)?;
        if index.len() > EXACT_MAX {
            index.graph = Some(Graph::build(&index.rows, metric)?);
        }
        Ok(index)
    }

    /// Builds one that scans, whatever its size: exact, for comparisons and for small memory.
    pub fn build_exact(dim: usize, metric: Metric, vectors: &[f32]) -> Result<Self, IndexError> {
        if !(1..=DIM_MAX).contains(&dim) {
            return Err(IndexError::Dim(dim));
        }
        if metric == Metric::L2 {
            return Err(IndexError::NoDistances);
        }
        if !vectors.len().is_multiple_of(dim) {
            return Err(IndexError::Ragged {
                values: vectors.len(),
                dim,
            });
        }
        let rows = vectors.len() / dim;
        if rows > ROWS_MAX {
            return Err(IndexError::TooMany(rows));
        }
        // Below the root of the largest f32 over the dimension, no sum of products overflows.
        let most = (f32::MAX / dim as f32).sqrt();
        if let Some(at) = vectors
            .iter()
            .position(|value| value.is_nan() || value.abs() > most)
        {
            return Err(IndexError::NotFinite {
                row: at / dim,
                component: at % dim,
            });
        }
        Ok(Self {
            metric,
            rows: Rows::new(dim, vectors, metric == Metric::Cosine),
            graph: None,
        })
    }

    /// The `k` nearest rows, best first, with their scores; fewer where there are fewer.
    pub fn near(&self, query: &[f32], k: usize) -> Result<Vec<(u32, f32)>, IndexError> {
        let query = self.query(query)?;
        Ok(match &self.graph {
            Some(graph) if graph.is_worth_it(k) => {
                self.rows.scored(&query, k, graph.near(&query, k, None))
            }
            _ => self.rows.near(&query, k, None),
        })
    }

    /// The `k` nearest among the rows for which `allow` holds. Exact unless many rows pass on an index
    /// with a graph.
    pub fn near_where(
        &self,
        query: &[f32],
        k: usize,
        allow: &dyn Fn(u32) -> bool,
    ) -> Result<Vec<(u32, f32)>, IndexError> {
        let query = self.query(query)?;
        if let Some(graph) = &self.graph
            && graph.is_worth_it(k.saturating_mul(2))
        {
            let found: Vec<u32> = graph.near(&query, k, Some(allow)).collect();
            if found.len() >= k {
                return Ok(self.rows.scored(&query, k, found.into_iter()));
            }
            // Little near the query passes: a scan of all that does is exact, and quicker than sweeping
            // the graph.
        }
        Ok(self.rows.near(&query, k, Some(allow)))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.rows()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn dim(&self) -> usize {
        self.rows.dim()
    }

    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Whether [`Index::near`] scans.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.graph.is_none()
    }

    /// Checks a query; for the cosine, scales it to length 1 (a zero query stays zero).
    fn query(&self, query: &[f32]) -> Result<Vec<f32>, IndexError> {
        if query.len() != self.dim() {
            return Err(IndexError::QueryDim {
                query: query.len(),
                index: self.dim(),
            });
        }
        if let Some(component) = query.iter().position(|value| !value.is_finite()) {
            return Err(IndexError::QueryNotFinite { component });
        }
        let mut query = query.to_vec();
        if self.metric == Metric::Cosine {
            exact::normalise(&mut query);
        }
        Ok(query)
    }
}

#[cfg(test)]
mod tests;
