//! Training: implicit-feedback embeddings, affinities by the order of events, a listwise ranker on top;
//! and offline evaluation by the protocols that the figures are reported for.
//!
//! Invariants: the same data, options and seed give the same bytes, whatever the number of threads;
//! time and memory are linear in events; nothing here reads a clock or a file.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod als;
pub mod eval;
mod gbdt;
mod interactions;
mod listwise;
mod order;
mod priors;

pub use als::AlsOptions;
pub use interactions::{COUNT_MAX, Interactions, Row};

use listwise::Signals;
use order::OrderCounts;
use priors::PriorSums;
use skerry_decide::score::Blend;
use skerry_origin_ranker::features::FEATURES;
use skerry_origin_ranker::{Blends, Forest, Model, ModelError, Parts};
use skerry_types::Taste;
use std::collections::HashSet;

/// What training is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Embeddings,
    Order,
    Ranker,
}

impl Stage {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Order => "order",
            Self::Ranker => "ranker",
        }
    }
}

/// Settings; the default is tuned on MovieLens latest-small with each user's second-last positive
/// held out, never on the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainOptions {
    pub seed: u64,
    /// The N of `ranker@N`.
    pub number: u64,
    pub als: AlsOptions,
    /// Followers kept of each item.
    pub followers: usize,
    pub blends: Blends,
    /// Half-life of trending, as a share of the log.
    pub trend_half_life: f64,
    pub trees: usize,
    pub leaves: usize,
    pub rate: f64,
    pub tree_ridge: f64,
    /// Rows of a leaf, at least.
    pub rows_min: u32,
    /// Share of the groups, and of the features, that each tree sees.
    pub bagging: f32,
    pub feature_share: f32,
    /// Weight of the base score that the trees correct.
    pub base_weight: f32,
    /// Softmax instead of NDCG-weighted pairs.
    pub softmax: bool,
    /// Parts of the users whose factors are made without them.
    pub folds: u32,
    pub fold_iterations: u32,
    /// Groups, at most.
    pub groups_max: usize,
    pub skip_positives: usize,
    pub positives_per_user: usize,
    /// Rows of a group beside the positive: the best, and a sample of the others.
    pub rivals: usize,
    pub sampled: usize,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            number: 1,
            als: AlsOptions {
                unobserved: 0.1,
                ridge: 5.0,
                iterations: 8,
            },
            followers: 64,
            blends: Blends {
                full: Blend {
                    vector: 1.0,
                    order: 0.5,
                    prior: 0.0,
                },
                edge: Blend {
                    vector: 1.0,
                    order: 0.5,
                    prior: 0.0,
                },
            },
            trend_half_life: 0.5,
            trees: 150,
            leaves: 7,
            rate: 0.08,
            tree_ridge: 5.0,
            rows_min: 50,
            bagging: 0.7,
            feature_share: 0.5,
            base_weight: 0.5,
            softmax: false,
            folds: 3,
            fold_iterations: 5,
            groups_max: 4_000,
            skip_positives: 0,
            positives_per_user: 6,
            rivals: 40,
            sampled: 40,
        }
    }
}

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("there is no item to train on")]
    Empty,
    #[error("an event names item {item}, which is not given")]
    UnknownItem { item: u32 },
    #[error("more items, users or events than {COUNT_MAX}")]
    TooMany,
    #[error("events are not in the order of time")]
    OutOfOrder,
    #[error("training did not converge to finite numbers")]
    NotFinite,
    #[error("training made a model that does not hold together")]
    Model(#[from] ModelError),
}

impl TrainError {
    /// Stable name for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "train_empty",
            Self::UnknownItem { .. } => "train_unknown_item",
            Self::TooMany => "train_too_many",
            Self::OutOfOrder => "train_out_of_order",
            Self::NotFinite => "train_not_finite",
            Self::Model(_) => "train_model",
        }
    }
}

/// Trains a model.
///
/// # Errors
/// [`TrainError::Empty`] without items; the others mean unusable numbers in options or data.
pub fn train(
    data: &Interactions,
    options: &TrainOptions,
    progress: &(dyn Fn(Stage, f32) + Sync),
) -> Result<Model, TrainError> {
    let items = data.items().len();
    if items == 0 {
        return Err(TrainError::Empty);
    }
    let positives = positives(data, |_| true);
    let factors = als::factorise(
        data.users(),
        items,
        &positives,
        &options.als,
        options.seed,
        &|share| progress(Stage::Embeddings, share),
    )
    .ok_or(TrainError::NotFinite)?;
    progress(Stage::Order, 0.0);
    let histories = data.histories();
    let order = OrderCounts::new(data, &histories);
    let priors = PriorSums::new(data, options.trend_half_life);
    let no_trees = Forest::new(Vec::new(), FEATURES, 1.0).ok_or(TrainError::NotFinite)?;
    #[expect(clippy::cast_possible_truncation, reason = "COUNT_MAX fits")]
    let parts = Parts {
        number: options.number,
        ids: data.items().iter().map(|(id, _)| id.clone()).collect(),
        factors: factors.items,
        fold: factors.fold,
        followers: order.followers(options.followers),
        priors: (0..items as u32).map(|item| priors.prior(item)).collect(),
        blends: options.blends,
        forest: no_trees,
    };
    progress(Stage::Ranker, 0.0);
    let signals = Signals {
        data,
        histories: &histories,
        order: &order,
        priors: &priors,
        options,
    };
    let forest = signals.forest(&parts, &|share| progress(Stage::Ranker, share))?;
    Ok(Model::new(Parts { forest, ..parts })?)
}

/// Positives of the users for whom `keep` holds, each pair once.
fn positives(data: &Interactions, keep: impl Fn(u32) -> bool) -> Vec<(u32, u32, f32)> {
    let mut seen = HashSet::new();
    let liked = data
        .rows()
        .iter()
        .filter(|row| row.taste == Taste::Positive && keep(row.user));
    liked
        .filter(|row| seen.insert((row.user, row.item)))
        .map(|row| (row.user, row.item, 1.0))
        .collect()
}

#[cfg(test)]
mod tests;
