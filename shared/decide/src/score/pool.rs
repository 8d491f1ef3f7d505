//! The numeric part of the item pool that a PoP ranks from: INT8 vectors, what fold-in needs, each
//! item's strongest followers, a popularity prior. At most 2 MB for 10,000 items.
//!
//! Invariant: a pool that exists is sound (lengths agree, every float is finite, every follower is a
//! row of the pool); nothing after construction checks again.

use super::foldin::{DIM, FoldIn, Vector};
use super::kernel::{quantise, restore};

/// Items of a pool, at most: a follower is named by 16 bits.
pub const ROWS_MAX: usize = 65_536;
/// Followers kept of an item, at most.
pub const FOLLOWERS_MAX: usize = 20;

/// What each part of a score weighs. Parts are standardised over the pool first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blend {
    pub vector: f32,
    pub order: f32,
    pub prior: f32,
}

/// An item on its way into a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolRow {
    pub vector: Vector,
    /// (row of the pool, weight), strongest first; those beyond [`FOLLOWERS_MAX`] are dropped.
    pub followers: Vec<(u32, f32)>,
    /// Popularity, standardised over the pool.
    pub prior: f32,
}

/// The pool.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgePool {
    pub(super) fold: FoldIn,
    pub(super) blend: Blend,
    /// Rows of [`DIM`], one after another.
    pub(super) vectors: Vec<i8>,
    pub(super) scales: Vec<f32>,
    pub(super) priors: Vec<f32>,
    /// Where each row's followers start; one more than there are rows.
    pub(super) starts: Vec<u32>,
    pub(super) followers: Vec<u16>,
    /// Of a follower: weight in 255ths of its row's strongest.
    pub(super) shares: Vec<u8>,
    /// Weight of each row's strongest follower.
    pub(super) strongest: Vec<f32>,
}

impl EdgePool {
    /// Builds a pool; rows beyond [`ROWS_MAX`], followers outside the pool and values that are not
    /// finite are dropped (a row whose vector is not finite gets a zero vector).
    #[must_use]
    pub fn build(fold: FoldIn, blend: Blend, rows: &[PoolRow]) -> Self {
        let rows = rows.get(..ROWS_MAX).unwrap_or(rows);
        let mut pool = Self {
            fold,
            blend,
            vectors: Vec::with_capacity(rows.len() * DIM),
            scales: Vec::with_capacity(rows.len()),
            priors: Vec::with_capacity(rows.len()),
            starts: vec![0],
            followers: Vec::new(),
            shares: Vec::new(),
            strongest: Vec::with_capacity(rows.len()),
        };
        for row in rows {
            let finite = row.vector.iter().all(|value| value.is_finite());
            let (vector, scale) = quantise(if finite { &row.vector } else { &[0.0; DIM] });
            pool.vectors.extend_from_slice(&vector);
            pool.scales.push(scale);
            pool.priors.push(if row.prior.is_finite() {
                row.prior
            } else {
                0.0
            });
            pool.push_followers(&row.followers, rows.len());
        }
        pool
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share is 1 to 255"
    )]
    fn push_followers(&mut self, followers: &[(u32, f32)], rows: usize) {
        let sound = |(row, weight): &&(u32, f32)| {
            (*row as usize) < rows && weight.is_finite() && *weight > 0.0
        };
        let kept = || followers.iter().filter(sound).take(FOLLOWERS_MAX);
        let strongest = kept().fold(0.0f32, |strongest, (_, weight)| strongest.max(*weight));
        for (row, weight) in kept() {
            self.followers.push(*row as u16);
            self.shares
                .push((weight / strongest * 255.0 + 0.5).max(1.0) as u8);
        }
        self.strongest.push(strongest);
        self.starts.push(self.followers.len() as u32);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    pub(super) fn row(&self, item: u32) -> Option<(&[i8; DIM], f32)> {
        let item = item as usize;
        Some((
            self.vectors.as_chunks::<DIM>().0.get(item)?,
            *self.scales.get(item)?,
        ))
    }

    pub(super) fn vector(&self, item: u32) -> Option<Vector> {
        self.row(item).map(|(row, scale)| restore(row, scale))
    }

    /// An item's followers with their weights.
    pub(super) fn followers_of(&self, item: u32) -> impl Iterator<Item = (u32, f32)> {
        let item = item as usize;
        let bounds = self.starts.get(item).zip(self.starts.get(item + 1));
        let range = bounds.map_or(0..0, |(from, to)| *from as usize..*to as usize);
        let step = self.strongest.get(item).copied().unwrap_or(0.0) / 255.0;
        let rows = self.followers.get(range.clone()).unwrap_or_default();
        let shares = self.shares.get(range).unwrap_or_default();
        rows.iter()
            .zip(shares)
            .map(move |(row, share)| (u32::from(*row), f32::from(*share) * step))
    }
}
