//! A packed graph over byte codes: what a sealed segment searches.
//!
//! One layer of fixed degree (Malkov and Yashunin 2016, the bottom layer; Subramanya et al. 2019),
//! entered at a sample of its nodes that lies together and is scanned: on the machines measured, a few
//! hundred codes in a row are read as quickly as the upper layers' jumps. Nodes lie in the order in
//! which the graph is walked, so that neighbours are near in memory too. Vectors that are the same are
//! one node with several rows.
//!
//! Invariants: every link names a node; every node can be reached from the entries; rows are counted
//! in the graph's own order, and [`Packed::order`] says which vector each was. Scores are approximate:
//! the caller scores the best by the stored vectors.

mod build;
mod codes;
mod nodes;
mod prune;
mod repair;
mod search;
mod sections;

use crate::memory::Hot;
use crate::pace::{Pace, Stopped};
use crate::{IndexError, Metric};
pub use codes::CodeKind;
use codes::Codes;
pub(crate) use nodes::Input;
pub(crate) use search::SPREAD_MAX;
pub use search::Scratch;
pub use sections::{BadSections, Section};

/// Links of a node, at most. 32 are twice the customary M = 16, as in a bottom layer.
pub const DEGREE: usize = 32;
/// Candidates scored by the stored vectors, at least: of byte codes, and of a scan of bits.
const RESCORED_MIN: usize = 30;
const SCANNED_MIN: usize = 128;
/// No node.
const NONE: u32 = u32::MAX;

/// How a graph is built.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Candidates kept while a node's neighbours are looked for.
    pub ef: usize,
    /// Links that a new node chooses; the rest of [`DEGREE`] is for those that choose it.
    pub chosen: usize,
    /// A candidate that is nearer to a chosen neighbour than to the node is left out. Where fewer than
    /// `chosen` are left, those come back that are not so many times as near, at least 1.
    pub alpha: f32,
    /// How nodes are coded when the graph is searched. It is built by bytes.
    pub codes: CodeKind,
    /// Threads to build with. The graph is the same for any number.
    pub threads: usize,
    /// Of the order in which nodes are put in.
    pub seed: u64,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            ef: 100,
            chosen: 24,
            alpha: 1.1,
            codes: CodeKind::Bytes,
            threads: 1,
            seed: 0x5eed,
        }
    }
}

/// The links of all nodes, [`DEGREE`] places each, those unused at the end.
struct Links(Hot<u32>);

impl Links {
    fn of(&self, node: u32) -> &[u32] {
        let from = node as usize * DEGREE;
        let all = self.0.get(from..from + DEGREE).unwrap_or_default();
        let used = all.iter().position(|link| *link == NONE);
        all.get(..used.unwrap_or(DEGREE)).unwrap_or_default()
    }

    fn of_mut(&mut self, node: u32) -> &mut [u32] {
        let from = node as usize * DEGREE;
        self.0.get_mut(from..from + DEGREE).unwrap_or_default()
    }

    fn fetch(&self, node: u32) {
        let from = node as usize * DEGREE;
        crate::kernels::fetch(self.0.get(from..from + DEGREE).unwrap_or_default());
    }
}

/// A graph, ready to be searched.
pub struct Packed {
    metric: Metric,
    dim: usize,
    codes: Codes,
    links: Links,
    /// Nodes that searches start from, and their codes once more, one after the other.
    entries: Vec<u32>,
    entry_codes: Codes,
    /// First row of each node and the number of rows, where some node has several.
    first_rows: Vec<u32>,
    rows: usize,
    /// The vector that became each row.
    order: Vec<u32>,
}

impl Packed {
    /// Builds over row-major `vectors`, which are finite; for the cosine of length 1 (or 0).
    pub fn build(
        dim: usize,
        metric: Metric,
        vectors: &[f32],
        options: &BuildOptions,
    ) -> Result<Self, IndexError> {
        if dim == 0 || !vectors.len().is_multiple_of(dim) {
            return Err(IndexError::Ragged {
                values: vectors.len(),
                dim,
            });
        }
        let order: Vec<u32> = (0..(vectors.len() / dim) as u32).collect();
        let mut read = |row: u32, into: &mut Vec<f32>| {
            let from = row as usize * dim;
            into.clear();
            into.extend_from_slice(vectors.get(from..from + dim).unwrap_or_default());
            Ok(())
        };
        let input = Input {
            dim,
            metric,
            order: &order,
            read: &mut read,
        };
        Self::build_from(input, options, Pace::free())
    }

    /// The same from vectors that lie anywhere, at a pace.
    pub(crate) fn build_from<E: From<Stopped>>(
        input: Input<'_, E>,
        options: &BuildOptions,
        pace: Pace<'_>,
    ) -> Result<Self, E> {
        build::build(input, options, pace)
    }

    /// Which of the vectors that it was built from became each row; nothing once it was read back.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn nodes(&self) -> usize {
        self.codes.rows()
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// How many candidates should be scored by the stored vectors for `k` results of a search with
    /// `ef`, at least: bits tell less well which those are.
    pub fn rescored(&self, k: usize, ef: usize) -> usize {
        match self.codes {
            Codes::Bytes(_) => (k + k / 2).max(RESCORED_MIN),
            // Measured: beyond so many, more is found by a wider search, and not by more scores.
            Codes::Bits(_) => (ef / 3).max(5 * k).min(ef).max(k),
        }
    }

    /// The same of a scan, whose candidates no walk has chosen.
    pub fn rescored_of_scan(&self, k: usize, ef: usize) -> usize {
        let of_search = self.rescored(k, ef);
        match self.codes {
            Codes::Bytes(_) => of_search,
            Codes::Bits(_) => of_search.max(SCANNED_MIN).max(8 * k),
        }
    }

    /// Bytes of the codes of all nodes.
    pub fn code_bytes(&self) -> usize {
        self.codes.bytes()
    }

    /// Bytes that a search reads from: codes, links, entries.
    pub fn hot_bytes(&self) -> usize {
        self.codes.bytes()
            + size_of_val(&*self.links.0)
            + self.entry_codes.bytes()
            + 4 * (self.entries.len() + self.first_rows.len())
    }

    /// Nodes that no walk from the entries gets to: none, or the graph is broken.
    pub fn unreachable(&self) -> usize {
        repair::unreachable(&self.links, &self.entries, self.nodes()).len()
    }

    /// The rows of a node.
    fn rows_of(&self, node: u32) -> std::ops::Range<u32> {
        if self.first_rows.is_empty() {
            return node..node + 1;
        }
        let at = |node: usize| {
            self.first_rows
                .get(node)
                .copied()
                .unwrap_or(self.rows as u32)
        };
        at(node as usize)..at(node as usize + 1)
    }

    /// The node of a row.
    fn node_of(&self, row: u32) -> u32 {
        if self.first_rows.is_empty() {
            return row;
        }
        self.first_rows.partition_point(|first| *first <= row) as u32 - 1
    }
}

#[cfg(test)]
mod tests;
