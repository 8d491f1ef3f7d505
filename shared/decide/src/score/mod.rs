//! Scoring that edge and origin must do alike: fold-in of a history, the edge's item pool.
//!
//! Invariants: rows are dense and local to one artifact; sums run in a fixed order and nothing but
//! IEEE basic operations touches a score, so that a worker and a native host agree bit for bit.

mod codec;
mod foldin;
mod kernel;
mod pool;
mod rank;

pub use codec::PoolError;
pub use foldin::{DIM, FoldIn, Vector, dot};
pub use kernel::{Query, quantise};
pub use pool::{Blend, EdgePool, FOLLOWERS_MAX, PoolRow, ROWS_MAX};
pub use rank::{ScoreSource, Scratch};

use skerry_types::{ItemId, RecentEvent, Taste};

/// Decay of a positive's weight with each later positive (as measured on MovieLens).
pub const AGE_DECAY: f32 = 0.95;
/// Least weight of an old positive.
pub const AGE_FLOOR: f32 = 0.05;
/// Events whose followers count, newest first.
pub const ORDER_CONTEXT: usize = 5;
/// Decay of an event's followers with each later event.
pub const ORDER_DECAY: f32 = 0.7;
/// Events of a history that the edge looks at.
pub const EDGE_HISTORY_MAX: usize = 20;

/// One event of a history, on a row of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryStep {
    pub item: u32,
    pub taste: Taste,
    /// Later events on known items; 0 is the newest.
    pub age: u32,
}

/// The newest `max` steps on known items, newest first, from recent events (newest last).
pub fn history(
    recent: &[RecentEvent],
    max: usize,
    row: impl Fn(&ItemId) -> Option<u32>,
) -> Vec<HistoryStep> {
    let known = recent
        .iter()
        .rev()
        .filter_map(|event| Some((row(&event.item)?, event.taste())));
    (0..)
        .zip(known.take(max))
        .map(|(age, (item, taste))| HistoryStep { item, taste, age })
        .collect()
}

/// Weights of the positives of a history, newest first: (row, weight).
pub fn positives(history: &[HistoryStep]) -> impl Iterator<Item = (u32, f32)> {
    let liked = history.iter().filter(|step| step.taste == Taste::Positive);
    let mut weight = 1.0 / AGE_DECAY;
    liked.map(move |step| {
        weight *= AGE_DECAY;
        (step.item, weight.max(AGE_FLOOR))
    })
}

#[cfg(test)]
mod tests;
