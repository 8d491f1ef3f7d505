//! The codes of a graph's nodes: a byte a component, or a bit.

use crate::bits::{BitQuery, Bits};
use crate::sq8::{self, Sq8};

/// How vectors are coded in memory. Scores of results are exact either way: codes choose what is
/// scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodeKind {
    /// A byte a component (see `sq8`).
    #[default]
    Bytes,
    /// A bit a component and 16 bytes (see `bits`): less memory, more stored vectors read for each
    /// search. Vectors of fewer than 64 components have bytes all the same.
    Bits,
}

pub enum Codes {
    Bytes(Sq8),
    Bits(Bits),
}

/// A query in the codes that it is compared with.
pub enum CodedQuery {
    Bytes(sq8::CodedQuery),
    Bits(BitQuery),
}

impl Codes {
    pub fn rows(&self) -> usize {
        match self {
            Self::Bytes(codes) => codes.rows(),
            Self::Bits(codes) => codes.rows(),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Bytes(codes) => codes.bytes(),
            Self::Bits(codes) => codes.bytes(),
        }
    }

    pub fn query(&self, vector: &[f32]) -> CodedQuery {
        match self {
            Self::Bytes(codes) => CodedQuery::Bytes(codes.query(vector)),
            Self::Bits(codes) => CodedQuery::Bits(codes.query(vector)),
        }
    }

    /// Scores of `rows`. A query in other codes is near nothing. `room` is room to work in.
    #[inline(always)]
    pub fn scores(
        &self,
        query: &CodedQuery,
        rows: &[u32],
        room: &mut Vec<i32>,
        out: &mut Vec<f32>,
    ) {
        match (self, query) {
            (Self::Bytes(codes), CodedQuery::Bytes(query)) => codes.scores(query, rows, room, out),
            (Self::Bits(codes), CodedQuery::Bits(query)) => codes.scores(query, rows, room, out),
            _ => {
                out.clear();
                out.resize(rows.len(), f32::NEG_INFINITY);
            }
        }
    }

    /// Scores of all rows, the same way.
    pub fn all_scores(&self, query: &CodedQuery, room: &mut Vec<i32>, out: &mut Vec<f32>) {
        match (self, query) {
            (Self::Bytes(codes), CodedQuery::Bytes(query)) => {
                codes.scores_from(query, 0, codes.rows(), room, out);
            }
            (Self::Bits(codes), CodedQuery::Bits(query)) => codes.all_scores(query, room, out),
            _ => out.clear(),
        }
    }

    /// Says that a row will be scored soon.
    #[inline(always)]
    pub fn fetch(&self, row: u32) {
        match self {
            Self::Bytes(codes) => codes.fetch(row),
            Self::Bits(codes) => codes.fetch(row),
        }
    }

    /// Some of the rows, in an order, to be asked with the queries of all.
    pub fn gather(&self, rows: impl ExactSizeIterator<Item = u32> + Clone) -> Self {
        match self {
            Self::Bytes(codes) => Self::Bytes(codes.gather(rows)),
            Self::Bits(codes) => Self::Bits(codes.gather(rows)),
        }
    }
}
