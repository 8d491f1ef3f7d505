//! Clustered vectors from a seed: the same bytes on every machine, for any number of threads.
//!
//! A vector is the centre of its cluster, a point on a plane of few dimensions through it, and a
//! little noise in all dimensions; scaled to length 1. Neighbours are then told apart in some twenty
//! dimensions, as those of text embeddings are, and not in all, where no index would find them.
//!
//! Invariant: whole numbers, and additions, products and roots of floats in one order; nothing of the
//! machine's library of functions, which differ in their last bits.

use crate::cases::{dot, draw};

/// Rows of a cluster, about; clusters are of very different sizes, and overlap.
const ROWS_OF_CLUSTER: usize = 200;
/// Clusters lie around so many centres.
const GROUPS: usize = 16;
/// Planes that the clusters share, and their dimensions.
const PLANES: usize = 4;
const LATENT: usize = 40;
/// How far a cluster is from the centre of its group, how far its rows are spread along the first
/// direction of their plane, and how much all of them is noise; the centre of a group has length 1.
const APART: f32 = 0.4;
const SPREAD: f32 = 0.45;
const NOISE: f32 = 0.3;

/// Streams of draws: what is drawn for one thing never depends on another.
const OF_GROUP: u64 = 1 << 56;
const OF_CLUSTER: u64 = 2 << 56;
const OF_PLANE: u64 = 3 << 56;
const OF_ROW: u64 = 4 << 56;

pub struct World {
    dim: usize,
    centres: Vec<f32>,
    planes: Vec<f32>,
    /// Up to which share of all rows those of each cluster go, of 2^32.
    shares: Vec<u64>,
}

/// About normal: the sum of four even draws, of variance 1.
fn normal(at: u64) -> f32 {
    const OF_ONE: f32 = 37_837.23;
    let bits = draw(at);
    let sum = (0..4)
        .map(|part| (bits >> (16 * part)) & 0xffff)
        .sum::<u64>();
    (sum as i64 - 131_070) as f32 / OF_ONE
}

impl World {
    /// For about so many `rows`.
    pub fn new(dim: usize, rows: usize) -> Self {
        let clusters = (rows / ROWS_OF_CLUSTER).max(16);
        let unit = 1.0 / (dim as f32).sqrt();
        let part = |stream: u64, of: usize, d: usize| {
            unit * normal(stream | ((of as u64) << 24) | d as u64)
        };
        let centre = |cluster: usize| {
            let group = draw(OF_CLUSTER | cluster as u64) as usize % GROUPS;
            (0..dim)
                .map(move |d| part(OF_GROUP, group, d) + APART * part(OF_CLUSTER, cluster + 1, d))
        };
        let direction = |plane: usize, latent: usize| {
            let weight = SPREAD / (1.0 + latent as f32 / 12.0).sqrt();
            (0..dim).map(move |d| weight * part(OF_PLANE, 1 + plane * LATENT + latent, d))
        };
        let weights = (1..=clusters).map(|rank| 1.0 / (rank as f64).sqrt());
        let total: f64 = weights.clone().sum();
        let mut sum = 0.0;
        let shares = weights.map(|weight| {
            sum += weight;
            (sum / total * (1u64 << 32) as f64) as u64
        });
        Self {
            dim,
            shares: shares.collect(),
            centres: (0..clusters).flat_map(centre).collect(),
            planes: (0..PLANES)
                .flat_map(|plane| (0..LATENT).map(move |latent| (plane, latent)))
                .flat_map(|(plane, latent)| direction(plane, latent))
                .collect(),
        }
    }

    /// The vector of a row, of `dim` components. Any row has one, those beyond the base too.
    pub fn vector(&self, row: u64, out: &mut [f32]) {
        let of_row = OF_ROW | (row << 16);
        let place = draw(of_row) >> 32;
        let cluster = self.shares.partition_point(|end| *end <= place);
        let cluster = cluster.min(self.shares.len() - 1);
        let plane = draw(OF_PLANE | cluster as u64) as usize % PLANES;
        out.copy_from_slice(&self.centres[cluster * self.dim..][..self.dim]);
        for latent in 0..LATENT {
            let along = normal(of_row | (1 + latent as u64));
            let direction = &self.planes[(plane * LATENT + latent) * self.dim..][..self.dim];
            out.iter_mut()
                .zip(direction)
                .for_each(|(x, d)| *x += along * d);
        }
        let noise = NOISE / (self.dim as f32).sqrt();
        for (x, d) in out.iter_mut().zip(0u64..) {
            *x += noise * normal(of_row | (1 << 13) | d);
        }
        let length = dot(out, out).sqrt();
        out.iter_mut().for_each(|x| *x /= length);
    }
}

/// The dimension in which neighbours lie, by the distances from each of some points to its nearest,
/// ascending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dimension {
    /// By the first two (Facco et al. 2017).
    pub two_nn: f64,
    /// By all of them (Levina and Bickel 2004, averaged as MacKay and Ghahramani 2005 say).
    pub by_likelihood: f64,
}

impl Dimension {
    pub fn of(distances: &[Vec<f64>]) -> Self {
        let mean_log = |to: usize| {
            let logs = distances.iter().filter_map(|near| {
                let last = *near.get(to)?;
                let of_one =
                    near[..to].iter().map(|one| (last / one).ln()).sum::<f64>() / to as f64;
                of_one.is_finite().then_some(of_one)
            });
            let (sum, count) = logs.fold((0.0, 0), |(sum, count), one| (sum + one, count + 1));
            sum / f64::from(count.max(1))
        };
        let last = distances
            .iter()
            .map(Vec::len)
            .min()
            .unwrap_or(0)
            .saturating_sub(1);
        Self {
            two_nn: 1.0 / mean_log(1),
            by_likelihood: 1.0 / mean_log(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_same_bytes_whoever_makes_it() {
        let world = World::new(40, 9_000);
        let mut vector = vec![0.0; 40];
        let hash = (0..50u64).fold(0u64, |hash, row| {
            world.vector(row * 1_000_003, &mut vector);
            assert!((dot(&vector, &vector) - 1.0).abs() < 1e-5);
            let bits = vector.iter().map(|x| u64::from(x.to_bits()));
            bits.fold(hash, |hash, bits| draw(hash ^ bits))
        });
        assert_eq!(hash, HASH, "another machine makes other vectors: {hash:#x}");
    }

    const HASH: u64 = 0xe119_7dec_e6ce_067e;

    #[test]
    fn the_dimension_of_a_flat_thing_is_its_own() {
        // Points on a plane in one direction each: the share within r grows as r squared.
        let distances: Vec<Vec<f64>> = (0..4_000u64)
            .map(|point| {
                let mut near: Vec<f64> = (0..200)
                    .map(|other| {
                        let even = (draw(point * 1_000 + other) >> 11) as f64 / (1u64 << 53) as f64;
                        even.sqrt()
                    })
                    .collect();
                near.sort_by(f64::total_cmp);
                near.truncate(10);
                near
            })
            .collect();
        let dimension = Dimension::of(&distances);
        assert!((dimension.two_nn - 2.0).abs() < 0.15, "{dimension:?}");
        assert!(
            (dimension.by_likelihood - 2.0).abs() < 0.15,
            "{dimension:?}"
        );
    }
}
