//! What a collection is, what is written to it, and what is asked of it.

use crate::Metric;
use skerry_types::{Attributes, Filter};

/// What a collection holds. Fixed when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Components of each vector, 1 to [`crate::DIM_MAX`].
    pub dim: usize,
    pub metric: Metric,
    pub stored: Stored,
    /// Fields of the payload that a filter may name, in ascending order. Others are kept and given
    /// back, but cannot be filtered by.
    pub fields: Vec<Box<str>>,
}

/// How the vectors lie on disk, for exact scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stored {
    #[default]
    F32,
    /// Half the bytes; scores are exact for the rounded vectors (11 bits a component).
    F16,
}

/// A vector under an id.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// 1 to [`crate::ID_BYTES_MAX`] bytes.
    pub id: Box<str>,
    /// Finite components, as many as the collection's dimension; not all 0 for the cosine.
    pub vector: Vec<f32>,
    pub payload: Attributes,
}

/// One change. Of two changes of one id the later (by sequence number) wins.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Puts a record in place of what its id had, if anything.
    Upsert(Record),
    /// Takes an id out; no error where it is not there.
    Delete(Box<str>),
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// 1 to [`crate::QUERY_VECTORS_MAX`] vectors.
    pub vectors: Vec<Vec<f32>>,
    pub merge: Merge,
    /// Results wanted, 0 to [`crate::RESULTS_MAX`].
    pub k: usize,
    /// Candidates kept while a graph is searched; more finds more and takes longer. The collection's
    /// default where none is given, never below `k`.
    pub ef: Option<usize>,
    pub filter: Option<Filter>,
}

/// What the score of a record is where a query has several vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Merge {
    /// The greatest of its scores: near any of them.
    #[default]
    Best,
    /// The mean of its scores: near all of them.
    Mean,
}

/// A result.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub id: Box<str>,
    /// Greater is nearer: the inner product, the cosine, or the negative square of the distance.
    pub score: f32,
    /// Sequence number of the write that put the record there.
    pub seq: u64,
}
