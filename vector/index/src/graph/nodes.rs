//! Which rows become nodes, in which order they are put in, and their codes.
//!
//! Invariants: what comes out depends on the vectors and their numbers alone, not on the order in
//! which they are read; vectors are read one at a time and never kept, so that a build needs no more
//! memory for longer rows on disk.

use super::NONE;
use crate::Metric;
use crate::kernels::dot_f32;
use crate::pace::{Steps, Stopped};
use crate::sq8::Sq8;
use std::collections::HashMap;

/// Gives the vector of a row.
pub type Read<'a, E> = &'a mut dyn FnMut(u32, &mut Vec<f32>) -> Result<(), E>;

/// Vectors that a graph is built from.
pub struct Input<'a, E> {
    pub dim: usize,
    pub metric: Metric,
    /// All rows, each once, in the order in which reading them is quick.
    pub order: &'a [u32],
    pub read: Read<'a, E>,
}

/// One row for each different vector, in the order in which they are put in.
pub struct Nodes {
    pub rows: Vec<u32>,
    /// Further rows with the vector of one, ascending.
    pub twins: HashMap<u32, Vec<u32>>,
}

impl Nodes {
    pub fn of<E: From<Stopped>>(
        input: &mut Input<'_, E>,
        seed: u64,
        steps: &mut Steps<'_>,
    ) -> Result<Self, E> {
        let mut hashes: Vec<(u64, u32)> = Vec::with_capacity(input.order.len());
        let mut vector = Vec::with_capacity(input.dim);
        for row in input.order {
            steps.step()?;
            (input.read)(*row, &mut vector)?;
            hashes.push((hash(&vector), *row));
        }
        hashes.sort_unstable();
        let mut twins: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut is_twin = vec![false; hashes.len()];
        for same_hash in hashes
            .chunk_by(|a, b| a.0 == b.0)
            .filter(|some| some.len() > 1)
        {
            let mut firsts: Vec<(u32, Vec<f32>)> = Vec::new();
            for (_, row) in same_hash {
                steps.step()?;
                (input.read)(*row, &mut vector)?;
                match firsts.iter().find(|(_, first)| *first == vector) {
                    Some((first, _)) => {
                        twins.entry(*first).or_default().push(*row);
                        if let Some(is_twin) = is_twin.get_mut(*row as usize) {
                            *is_twin = true;
                        }
                    }
                    None => firsts.push((*row, vector.clone())),
                }
            }
        }
        drop(hashes);
        let firsts = (0u32..).zip(&is_twin).filter(|(_, is_twin)| !**is_twin);
        let mut rows: Vec<u32> = firsts.map(|(row, _)| row).collect();
        shuffle(&mut rows, seed);
        Ok(Self { rows, twins })
    }

    /// The codes of the nodes, and for the inner product the squares of their lengths.
    pub fn coded<E: From<Stopped>>(
        &self,
        input: &mut Input<'_, E>,
        steps: &mut Steps<'_>,
    ) -> Result<(Sq8, Vec<f32>), E> {
        let mut places = vec![NONE; input.order.len()];
        for (place, row) in (0u32..).zip(&self.rows) {
            if let Some(slot) = places.get_mut(*row as usize) {
                *slot = place;
            }
        }
        let mut codes = Sq8::zeros(input.dim, input.metric, self.rows.len());
        let mut squares = match input.metric {
            Metric::Dot => vec![0.0; self.rows.len()],
            Metric::Cosine | Metric::L2 => Vec::new(),
        };
        let mut vector = Vec::with_capacity(input.dim);
        for row in input.order {
            let place = places.get(*row as usize).copied().unwrap_or(NONE);
            if place == NONE {
                continue;
            }
            steps.step()?;
            (input.read)(*row, &mut vector)?;
            codes.set(place, &vector);
            if let Some(square) = squares.get_mut(place as usize) {
                *square = dot_f32(&vector, &vector);
            }
        }
        Ok((codes, squares))
    }
}

fn hash(vector: &[f32]) -> u64 {
    vector.iter().fold(0u64, |hash, x| {
        // Minus zero is zero.
        let x = u64::from((x + 0.0).to_bits());
        (hash.rotate_left(5) ^ x).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

/// Fisher-Yates with SplitMix64: insertion in an order that is not the data's own.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for at in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let other = ((u128::from(x ^ (x >> 31)) * (at as u128 + 1)) >> 64) as usize;
        items.swap(at, other);
    }
}
