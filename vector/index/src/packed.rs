//! A stand-in for the packed graph: the rows as they are, scanned. Exact.
//!
//! Invariants: sections of strangers' bytes give an error, never a panic, and never an allocation
//! beyond the bytes that are there; a score is what [`crate::store::score`] says.

use crate::Metric;
use crate::store::score;
use std::borrow::Cow;

/// The section with the rows, 4 little-endian bytes a component.
const ROWS: u32 = 1;

pub struct Packed {
    dim: usize,
    metric: Metric,
    vectors: Vec<f32>,
}

impl Packed {
    /// From row-major vectors, which are finite and a whole number of rows.
    pub fn build(dim: usize, metric: Metric, vectors: &[f32]) -> Self {
        Self {
            dim,
            metric,
            vectors: vectors.to_vec(),
        }
    }

    /// The `want` nearest rows for which `skip` does not hold, best first.
    pub fn search(
        &self,
        query: &[f32],
        want: usize,
        _ef: usize,
        skip: &dyn Fn(u32) -> bool,
    ) -> Vec<(u32, f32)> {
        let mut found: Vec<(u32, f32)> = (0u32..)
            .zip(self.vectors.chunks_exact(self.dim))
            .filter(|(row, _)| !skip(*row))
            .map(|(row, vector)| (row, score(self.metric, query, vector)))
            .collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(want);
        found
    }

    /// What [`Packed::from_sections`] reads again.
    pub fn sections(&self) -> Vec<(u32, Cow<'_, [u8]>)> {
        let bytes: Vec<u8> = self.vectors.iter().flat_map(|v| v.to_le_bytes()).collect();
        vec![(ROWS, Cow::Owned(bytes))]
    }

    /// From the sections that [`Packed::sections`] gave, checked.
    pub fn from_sections(
        dim: usize,
        metric: Metric,
        rows: usize,
        section: &mut dyn FnMut(u32) -> Option<Vec<u8>>,
    ) -> Result<Self, String> {
        let bytes = section(ROWS).ok_or("the rows are missing")?;
        if rows.checked_mul(dim).and_then(|n| n.checked_mul(4)) != Some(bytes.len()) {
            return Err(format!("{} bytes are not {rows} rows", bytes.len()));
        }
        let vectors: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|four| f32::from_le_bytes(*four))
            .collect();
        if vectors.iter().any(|value| !value.is_finite()) {
            return Err("a component is not finite".to_owned());
        }
        Ok(Self {
            dim,
            metric,
            vectors,
        })
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.vectors.len() * 4
    }
}
