//! Implicit-feedback factors by alternating least squares (Hu, Koren, Volinsky 2008): every positive
//! is a one, everything else a weak zero. No matrix of items by items; time and memory are linear in
//! the positives. The same result for any number of threads: every row is solved on its own, sums
//! over rows run in fixed blocks.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use skerry_decide::score::{DIM, FoldIn, Vector};

/// Rows per block of a Gram matrix.
const BLOCK: usize = 2048;

/// What the factorisation weighs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlsOptions {
    /// Weight of an unobserved pair against a positive's one.
    pub unobserved: f32,
    pub ridge: f32,
    pub iterations: u32,
}

/// Item factors, and the shared part of a user's normal equations.
#[derive(Debug, Clone)]
pub struct Factors {
    pub items: Vec<Vector>,
    pub fold: FoldIn,
}

/// Compressed rows: what each row is connected to, and how much.
pub struct Sparse {
    starts: Vec<u32>,
    to: Vec<(u32, f32)>,
}

impl Sparse {
    pub fn new(rows: usize, pairs: impl Iterator<Item = (u32, u32, f32)> + Clone) -> Self {
        let mut starts = vec![0u32; rows + 1];
        pairs
            .clone()
            .for_each(|(row, _, _)| starts[row as usize + 1] += 1);
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut to = vec![(0, 0.0); starts[rows] as usize];
        for (row, other, weight) in pairs {
            let at = &mut next[row as usize];
            to[*at as usize] = (other, weight);
            *at += 1;
        }
        Self { starts, to }
    }

    pub fn row(&self, row: usize) -> &[(u32, f32)] {
        &self.to[self.starts[row] as usize..self.starts[row + 1] as usize]
    }

    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }
}

/// Factorises positives given as (user, item, weight), each pair once.
pub fn factorise(
    users: usize,
    items: usize,
    positives: &[(u32, u32, f32)],
    options: &AlsOptions,
    seed: u64,
    progress: &dyn Fn(f32),
) -> Option<Factors> {
    let by_user = Sparse::new(users, positives.iter().copied());
    let by_item = Sparse::new(
        items,
        positives
            .iter()
            .map(|(user, item, weight)| (*item, *user, *weight)),
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut item_factors: Vec<Vector> = (0..items)
        .map(|_| std::array::from_fn(|_| small(&mut rng)))
        .collect();
    for iteration in 0..options.iterations.max(1) {
        #[expect(clippy::cast_precision_loss, reason = "a share for a progress bar")]
        progress(iteration as f32 / options.iterations.max(1) as f32);
        let user_factors = half(&by_user, &item_factors, options)?;
        item_factors = half(&by_item, &user_factors, options)?;
    }
    let fold = shared(&item_factors, options)?;
    Some(Factors {
        items: item_factors,
        fold,
    })
}

/// Solves every row against the other side's factors.
fn half(rows: &Sparse, others: &[Vector], options: &AlsOptions) -> Option<Vec<Vector>> {
    let shared = shared(others, options)?;
    let solve = |row: usize| {
        let weighted = rows
            .row(row)
            .iter()
            .map(|(other, weight)| (&others[*other as usize], *weight));
        shared.fold(weighted).unwrap_or([0.0; DIM])
    };
    Some(
        (0..rows.rows())
            .into_par_iter()
            .with_min_len(16)
            .map(solve)
            .collect(),
    )
}

/// `unobserved * Gram + ridge * I`
fn shared(factors: &[Vector], options: &AlsOptions) -> Option<FoldIn> {
    let blocks: Vec<Vec<f64>> = factors.par_chunks(BLOCK).map(gram).collect();
    let mut sum = vec![0.0f64; DIM * DIM];
    for block in &blocks {
        sum.iter_mut()
            .zip(block)
            .for_each(|(sum, value)| *sum += value);
    }
    for at in 0..DIM {
        sum[at * DIM + at] += f64::from(options.ridge / options.unobserved);
    }
    #[expect(clippy::cast_possible_truncation, reason = "factors are f32")]
    let rows: Vec<f32> = sum
        .iter()
        .map(|value| (value * f64::from(options.unobserved)) as f32)
        .collect();
    FoldIn::new(&rows)
}

fn gram(factors: &[Vector]) -> Vec<f64> {
    let mut sum = vec![0.0f64; DIM * DIM];
    for vector in factors {
        let wide = vector.map(f64::from);
        for (value, sums) in wide.iter().zip(sum.as_chunks_mut::<DIM>().0) {
            sums.iter_mut()
                .zip(&wide)
                .for_each(|(sum, other)| *sum += value * other);
        }
    }
    sum
}

/// About normal, deviation 0.1.
fn small(rng: &mut ChaCha8Rng) -> f32 {
    let sum: f32 = (0..4).map(|_| rng.random::<f32>() - 0.5).sum();
    sum * 0.17
}
