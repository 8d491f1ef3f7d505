//! Vector search over one segment: exact up to [`EXACT_MAX`] vectors, a graph above.
//!
//! The surface is narrow on purpose: build from rows, ask for the nearest rows, with or without a
//! condition. What lies inside (an exact scan, or `hnsw_rs` behind a validator) may change.
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

mod codes;
mod exact;
mod graph;
mod packed;
mod spec;
pub mod store;

use exact::Rows;
use graph::Graph;
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

/// What was wrong, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IndexError {
    #[error("a dimension of {0}: it must be 1 to {DIM_MAX}")]
    Dim(usize),
    #[error("{values} values are no whole number of rows of dimension {dim}")]
    Ragged { values: usize, dim: usize },
    #[error("{0} rows, at most {ROWS_MAX}")]
    TooMany(usize),
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
}

impl IndexError {
    /// The stable code that logs carry.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Dim(_) => "vector_dim",
            Self::Ragged { .. } => "vector_ragged",
            Self::TooMany(_) => "vector_rows",
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
        }
    }
}

/// An index over dense rows; row `i` of the input is `i` in all results. Immutable.
pub struct Index {
    metric: Metric,
    rows: Rows,
    graph: Option<Graph>,
}

impl Index {
    /// Builds from row-major `vectors`.
    pub fn build(dim: usize, metric: Metric, vectors: &[f32]) -> Result<Self, IndexError> {
        let mut index = Self::build_exact(dim, metric, vectors)?;
        if index.len() > EXACT_MAX {
            index.graph = Some(Graph::build(&index.rows, metric));
        }
        Ok(index)
    }

    /// Builds one that scans, whatever its size: exact, for comparisons and for small memory.
    pub fn build_exact(dim: usize, metric: Metric, vectors: &[f32]) -> Result<Self, IndexError> {
        if !(1..=DIM_MAX).contains(&dim) {
            return Err(IndexError::Dim(dim));
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
            Some(graph) if graph.is_worth_it(k) => graph.near(&self.rows, &query, k),
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
            // Where at least half of what is near passes, the graph has enough; else a scan of those
            // that pass is both exact and quicker than sweeping the graph.
            let mut found = graph.near(&self.rows, &query, k.saturating_mul(2));
            found.retain(|(row, _)| allow(*row));
            if found.len() >= k {
                found.truncate(k);
                return Ok(found);
            }
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
