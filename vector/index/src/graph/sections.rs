//! A packed graph as plain bytes, little-endian, for a file, and back.

use super::{DEGREE, Links, NONE, Packed};
use crate::memory::Hot;
use crate::sq8::Sq8;
use crate::{DIM_MAX, Metric, ROWS_MAX};
use bytemuck::Pod;

/// What a piece holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Section {
    /// u8: the codes of each node, padded with 128 to whole lines of 64.
    Codes = 1,
    /// f32: a scale for each node.
    Scales = 2,
    /// f32: a bias for each node, for the distance; else empty.
    Biases = 3,
    /// u32: [`DEGREE`] places for each node, unused ones at the end and all ones.
    Links = 4,
    /// u32: nodes to start from.
    Entries = 5,
    /// u32: the first row of each node, where some node has several; else empty.
    FirstRows = 6,
}

impl Section {
    pub const ALL: [Self; 6] = [
        Self::Codes,
        Self::Scales,
        Self::Biases,
        Self::Links,
        Self::Entries,
        Self::FirstRows,
    ];
}

/// What was wrong with the pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{section:?}: {what}")]
pub struct BadSections {
    pub section: Section,
    pub what: &'static str,
}

#[cfg(target_endian = "big")]
compile_error!("files and kernels are little-endian");

impl Packed {
    pub fn section(&self, section: Section) -> &[u8] {
        match section {
            Section::Codes => bytemuck::must_cast_slice(self.codes.lines()),
            Section::Scales => bytemuck::must_cast_slice(self.codes.scales()),
            Section::Biases => bytemuck::must_cast_slice(self.codes.biases()),
            Section::Links => bytemuck::must_cast_slice(&self.links.0),
            Section::Entries => bytemuck::must_cast_slice(&self.entries),
            Section::FirstRows => bytemuck::must_cast_slice(&self.first_rows),
        }
    }

    /// From the pieces of a graph over `rows` rows. All numbers are checked; that every node can be
    /// reached is not: [`Packed::unreachable`] says.
    pub fn from_sections<'a>(
        dim: usize,
        metric: Metric,
        rows: usize,
        of: impl Fn(Section) -> Option<&'a [u8]>,
    ) -> Result<Self, BadSections> {
        let bad = |section, what| BadSections { section, what };
        let piece = |section| of(section).ok_or(bad(section, "is missing"));
        if !(1..=DIM_MAX).contains(&dim) || rows > ROWS_MAX {
            return Err(bad(Section::Codes, "dimension or rows out of range"));
        }
        let codes = hot(piece(Section::Codes)?)
            .ok_or(bad(Section::Codes, "is no whole number of lines"))?;
        let scales =
            values::<f32>(piece(Section::Scales)?).ok_or(bad(Section::Scales, "is cut off"))?;
        let biases =
            values::<f32>(piece(Section::Biases)?).ok_or(bad(Section::Biases, "is cut off"))?;
        let links: Hot<u32> =
            hot(piece(Section::Links)?).ok_or(bad(Section::Links, "is cut off"))?;
        let entries =
            values::<u32>(piece(Section::Entries)?).ok_or(bad(Section::Entries, "is cut off"))?;
        let first_rows = values::<u32>(piece(Section::FirstRows)?)
            .ok_or(bad(Section::FirstRows, "is cut off"))?;
        let nodes = scales.len();
        if scales.iter().any(|x| !x.is_finite() || *x < 0.0) {
            return Err(bad(Section::Scales, "has what is no scale"));
        }
        let wanted = if metric == Metric::L2 { nodes } else { 0 };
        if biases.len() != wanted || biases.iter().any(|x| !x.is_finite()) {
            return Err(bad(Section::Biases, "does not fit the nodes"));
        }
        let codes = Sq8::from_parts(dim, codes, scales, biases)
            .ok_or(bad(Section::Codes, "does not fit the nodes"))?;
        let is_node = |node: u32| (node as usize) < nodes;
        let of_nodes = links.chunks_exact(DEGREE);
        if links.len() != nodes * DEGREE {
            return Err(bad(Section::Links, "does not fit the nodes"));
        }
        for of_node in of_nodes {
            let used = of_node.iter().take_while(|link| **link != NONE).count();
            let (used, unused) = of_node.split_at(used);
            if !used.iter().all(|link| is_node(*link)) || unused.iter().any(|link| *link != NONE) {
                return Err(bad(Section::Links, "names what is no node"));
            }
        }
        if !entries.iter().all(|entry| is_node(*entry)) || entries.is_empty() != (nodes == 0) {
            return Err(bad(Section::Entries, "names what is no node"));
        }
        let ascending = first_rows.is_sorted_by(|a, b| a < b)
            && first_rows.first().is_none_or(|first| *first == 0)
            && first_rows.last().is_none_or(|last| (*last as usize) < rows);
        let fits = if first_rows.is_empty() {
            nodes == rows
        } else {
            nodes == first_rows.len()
        };
        if !ascending || !fits {
            return Err(bad(Section::FirstRows, "does not fit the rows"));
        }
        Ok(Self {
            metric,
            dim,
            entry_codes: codes.gather(entries.iter().copied()),
            codes,
            links: Links(links),
            entries,
            first_rows,
            rows,
            order: Vec::new(),
        })
    }
}

/// Bytes as values, whatever their alignment.
fn values<T: Pod>(bytes: &[u8]) -> Option<Vec<T>> {
    bytes.len().is_multiple_of(size_of::<T>()).then(|| {
        let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
        values
    })
}

fn hot<T: Pod>(bytes: &[u8]) -> Option<Hot<T>> {
    bytes.len().is_multiple_of(size_of::<T>()).then(|| {
        let mut values = Hot::filled(T::zeroed(), bytes.len() / size_of::<T>());
        let to: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        to.copy_from_slice(bytes);
        values
    })
}
