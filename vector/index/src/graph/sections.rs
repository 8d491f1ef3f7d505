//! A packed graph as plain bytes, little-endian, for a file, and back.

use super::codes::Codes;
use super::{DEGREE, Links, NONE, Packed};
use crate::bits::Bits;
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
    /// u64: the bits of each node, its two factors (f32), its centre and its number of ones (u32);
    /// in the place of [`Section::Codes`], scales and biases.
    Bits = 7,
    /// f32: the centres of the bits.
    Centres = 8,
}

impl Section {
    pub const ALL: [Self; 8] = [
        Self::Codes,
        Self::Scales,
        Self::Biases,
        Self::Links,
        Self::Entries,
        Self::FirstRows,
        Self::Bits,
        Self::Centres,
    ];
    /// What there is of a graph whose nodes have bytes, or bits.
    const OF_BYTES: &[Self] = &[
        Self::Codes,
        Self::Scales,
        Self::Biases,
        Self::Links,
        Self::Entries,
        Self::FirstRows,
    ];
    const OF_BITS: &[Self] = &[
        Self::Links,
        Self::Entries,
        Self::FirstRows,
        Self::Bits,
        Self::Centres,
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
    /// The pieces that there are.
    pub fn sections(&self) -> &'static [Section] {
        match self.codes {
            Codes::Bytes(_) => Section::OF_BYTES,
            Codes::Bits(_) => Section::OF_BITS,
        }
    }

    /// A piece; nothing of one that there is not.
    pub fn section(&self, section: Section) -> &[u8] {
        match (section, &self.codes) {
            (Section::Codes, Codes::Bytes(codes)) => bytemuck::must_cast_slice(codes.lines()),
            (Section::Scales, Codes::Bytes(codes)) => bytemuck::must_cast_slice(codes.scales()),
            (Section::Biases, Codes::Bytes(codes)) => bytemuck::must_cast_slice(codes.biases()),
            (Section::Bits, Codes::Bits(codes)) => bytemuck::must_cast_slice(codes.words()),
            (Section::Centres, Codes::Bits(codes)) => bytemuck::must_cast_slice(codes.centres()),
            (Section::Links, _) => bytemuck::must_cast_slice(&self.links.0),
            (Section::Entries, _) => bytemuck::must_cast_slice(&self.entries),
            (Section::FirstRows, _) => bytemuck::must_cast_slice(&self.first_rows),
            _ => &[],
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
        let links: Hot<u32> =
            hot(piece(Section::Links)?).ok_or(bad(Section::Links, "is cut off"))?;
        let entries =
            values::<u32>(piece(Section::Entries)?).ok_or(bad(Section::Entries, "is cut off"))?;
        let first_rows = values::<u32>(piece(Section::FirstRows)?)
            .ok_or(bad(Section::FirstRows, "is cut off"))?;
        let codes = match of(Section::Bits) {
            Some(bits) => Codes::Bits(read_bits(dim, bits, piece(Section::Centres)?)?),
            None => Codes::Bytes(read_bytes(dim, metric, piece)?),
        };
        let nodes = codes.rows();
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

fn read_bits(dim: usize, bits: &[u8], centres: &[u8]) -> Result<Bits, BadSections> {
    let bad = |section, what| BadSections { section, what };
    let rows = hot(bits).ok_or(bad(Section::Bits, "is cut off"))?;
    let centres = values::<f32>(centres).ok_or(bad(Section::Centres, "is cut off"))?;
    Bits::from_parts(dim, rows, centres).ok_or(bad(Section::Bits, "has what are no codes"))
}

fn read_bytes<'a>(
    dim: usize,
    metric: Metric,
    piece: impl Fn(Section) -> Result<&'a [u8], BadSections>,
) -> Result<Sq8, BadSections> {
    let bad = |section, what| BadSections { section, what };
    let codes =
        hot(piece(Section::Codes)?).ok_or(bad(Section::Codes, "is no whole number of lines"))?;
    let scales =
        values::<f32>(piece(Section::Scales)?).ok_or(bad(Section::Scales, "is cut off"))?;
    let biases =
        values::<f32>(piece(Section::Biases)?).ok_or(bad(Section::Biases, "is cut off"))?;
    if scales.iter().any(|x| !x.is_finite() || *x < 0.0) {
        return Err(bad(Section::Scales, "has what is no scale"));
    }
    let wanted = if metric == Metric::L2 {
        scales.len()
    } else {
        0
    };
    if biases.len() != wanted || biases.iter().any(|x| !x.is_finite()) {
        return Err(bad(Section::Biases, "does not fit the nodes"));
    }
    Sq8::from_parts(dim, codes, scales, biases).ok_or(bad(Section::Codes, "does not fit the nodes"))
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
