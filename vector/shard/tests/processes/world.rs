//! Vectors, queries, and what is nearest to them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skerry_vector_index::{Merge, Query, Record, Write};
use std::collections::BTreeSet;

pub const DIM: usize = 64;
pub const K: usize = 10;
pub const QUERIES: usize = 200;
const CLUSTERS: usize = 100;
const SEED: u64 = 7;
/// Where `SKERRY_SHARD_VECTORS` says nothing.
const COUNT: usize = 4_000;

/// How many vectors there are.
pub fn count() -> usize {
    let count = std::env::var("SKERRY_SHARD_VECTORS").ok();
    count.and_then(|text| text.parse().ok()).unwrap_or(COUNT)
}

/// Clustered vectors, in the order of their numbers.
fn vectors(count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let mut random = |spread: f32| -> Vec<f32> {
        let lanes = 0..DIM;
        lanes
            .map(|_| (rng.random::<f32>() - 0.5) * spread)
            .collect()
    };
    let centres: Vec<Vec<f32>> = (0..CLUSTERS).map(|_| random(2.0)).collect();
    let near = (0..count).map(|at| {
        let noise = random(0.8);
        let centre = &centres[at % CLUSTERS];
        centre.iter().zip(noise).map(|(a, b)| a + b).collect()
    });
    near.collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

pub fn record(at: usize, vector: &[f32]) -> Write {
    Write::Upsert(Record {
        id: format!("i{at}").into(),
        vector: vector.to_vec(),
        payload: Default::default(),
    })
}

pub fn query(vector: &[f32], k: usize) -> Query {
    Query {
        vectors: vec![vector.to_vec()],
        merge: Merge::Best,
        k,
        ef: Some(128),
        filter: None,
    }
}

pub struct World {
    pub vectors: Vec<Vec<f32>>,
    pub queries: Vec<Vec<f32>>,
    pub truth: Vec<BTreeSet<String>>,
}

impl World {
    pub fn new(count: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut vectors = vectors(count + QUERIES, &mut rng);
        let queries = vectors.split_off(count);
        let nearest = |query: &Vec<f32>| {
            let scores = vectors
                .iter()
                .enumerate()
                .map(|(at, v)| (cosine(query, v), at));
            let mut scores: Vec<(f32, usize)> = scores.collect();
            scores.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            scores
                .iter()
                .take(K)
                .map(|(_, at)| format!("i{at}"))
                .collect()
        };
        let truth = queries.iter().map(nearest).collect();
        Self {
            vectors,
            queries,
            truth,
        }
    }
}
