//! The model: immutable parts, checked once, and the questions that a pipeline asks of it.

use crate::artifact::{self, ModelError};
use crate::forest::Forest;
use crate::user::UserState;
use skerry_decide::score::{
    Blend, DIM, EdgePool, FOLLOWERS_MAX, FoldIn, PoolRow, ROWS_MAX, Vector, dot,
};
use skerry_origin_core::CandidateRow;
use skerry_types::{ItemId, Source};
use std::collections::HashMap;
use std::sync::Arc;

/// Trending items that join the candidates of every question.
const TRENDING_CANDIDATES: usize = 50;

/// Everything that training makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The N of `ranker@N`.
    pub number: u64,
    pub ids: Vec<ItemId>,
    pub factors: Vec<Vector>,
    pub fold: FoldIn,
    pub followers: Followers,
    pub priors: Vec<Prior>,
    pub blends: Blends,
    pub forest: Forest,
}

/// How scores are put together at the origin, before the forest, and in a PoP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blends {
    pub full: Blend,
    pub edge: Blend,
}

/// What is known of an item beside any user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// ln(1 + positives).
    pub popularity: f32,
    /// Mean value of its ratings, shrunk to the mean of all.
    pub rating: f32,
    /// ln(1 + positives weighted by recency against the newest event).
    pub trend: f32,
    /// Mean place of its events in the log, 0 oldest to 1 newest.
    pub recency: f32,
    /// Zero: unknown.
    pub year: f32,
    /// A bit for each of the most frequent genres.
    pub genres: u64,
}

/// Followers of each item, strongest first: compressed rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Followers {
    pub starts: Vec<u32>,
    pub rows: Vec<u32>,
    pub weights: Vec<f32>,
}

impl Followers {
    /// Rows and weights; empty for an unknown row.
    #[must_use]
    pub fn of(&self, item: u32) -> (&[u32], &[f32]) {
        let item = item as usize;
        let (Some(from), Some(to)) = (self.starts.get(item), self.starts.get(item + 1)) else {
            return (&[], &[]);
        };
        let range = *from as usize..*to as usize;
        (&self.rows[range.clone()], &self.weights[range])
    }
}

/// What can be ranked: a candidate row, or a bare row number.
pub trait Row {
    fn item(&self) -> u32;
}

impl Row for CandidateRow {
    fn item(&self) -> u32 {
        self.item
    }
}

impl Row for u32 {
    fn item(&self) -> u32 {
        *self
    }
}

/// A model in service.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) parts: Parts,
    version: Arc<str>,
    rows: HashMap<ItemId, u32>,
    pub(crate) inverse_norms: Vec<f32>,
    pub(crate) mean: Vector,
    pub(crate) covariance: Box<[Vector; DIM]>,
    /// Rows by falling trend.
    trending: Vec<u32>,
}

impl Model {
    /// # Errors
    /// [`ModelError::Part`] names the part that does not fit the others.
    #[expect(clippy::cast_possible_truncation, reason = "checked: rows fit 32 bits")]
    pub fn new(parts: Parts) -> Result<Self, ModelError> {
        artifact::check(&parts)?;
        let rows: HashMap<ItemId, u32> = parts.ids.iter().cloned().zip(0u32..).collect();
        if rows.len() != parts.ids.len() {
            return Err(ModelError::Part { part: "ids" });
        }
        let inverse_norms = parts
            .factors
            .iter()
            .map(|vector| 1.0 / dot(vector, vector).sqrt().max(1e-9))
            .collect();
        let (mean, covariance) = moments(&parts.factors);
        let mut trending: Vec<u32> = (0..parts.ids.len() as u32).collect();
        let trend = |row: u32| parts.priors[row as usize].trend;
        trending.sort_by(|a, b| trend(*b).total_cmp(&trend(*a)).then(a.cmp(b)));
        let version = Arc::from(format!("ranker@{}", parts.number));
        Ok(Self {
            version,
            rows,
            inverse_norms,
            mean,
            covariance,
            trending,
            parts,
        })
    }

    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<u32> {
        self.rows.get(id).copied()
    }

    #[must_use]
    pub fn id(&self, row: u32) -> Option<&ItemId> {
        self.parts.ids.get(row as usize)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.ids.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.ids.is_empty()
    }

    /// `ranker@N`
    #[must_use]
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.version)
    }

    /// The item space, row by row, and its dimension.
    #[must_use]
    pub fn item_vectors(&self) -> (&[f32], usize) {
        (self.parts.factors.as_flattened(), DIM)
    }

    /// The `k` trending items, best first, with scores in 0..=1: positives weighted by recency
    /// against the newest stored event, relative to the first.
    #[must_use]
    pub fn trending(&self, k: usize) -> Vec<(u32, f32)> {
        let trend = |row: u32| self.parts.priors[row as usize].trend.exp() - 1.0;
        let most = self
            .trending
            .first()
            .map_or(1.0, |row| trend(*row))
            .max(1e-6);
        self.trending
            .iter()
            .take(k)
            .map(|row| (*row, (trend(*row) / most).clamp(0.0, 1.0)))
            .collect()
    }

    /// [`Model::candidates_where`] for everything but the history itself.
    #[must_use]
    pub fn candidates(&self, user: &UserState, near: &[(u32, f32)], k: usize) -> Vec<CandidateRow> {
        self.candidates_where(user, near, k, |_| true)
    }

    /// The `k` rows with the best base score, best first, among vector neighbours, followers of the
    /// last events and what is trending; less the history and what `allow` refuses.
    #[must_use]
    pub fn candidates_where(
        &self,
        user: &UserState,
        near: &[(u32, f32)],
        k: usize,
        allow: impl Fn(u32) -> bool,
    ) -> Vec<CandidateRow> {
        let mut steps: Vec<u32> = user.steps.iter().map(|step| step.item).collect();
        steps.sort_unstable();
        let mut nearest: Vec<u32> = near.iter().map(|(item, _)| *item).collect();
        nearest.sort_unstable();
        nearest.dedup();
        let is_linked = |item: u32| user.links.get(item).is_some();
        let linked = user.links.iter().map(|link| link.item);
        let near = nearest.iter().copied().filter(|item| !is_linked(*item));
        let trending = self.trending.iter().copied().take(TRENDING_CANDIDATES);
        let trending =
            trending.filter(|item| !is_linked(*item) && nearest.binary_search(item).is_err());
        let mut found: Vec<(f32, CandidateRow)> = Vec::with_capacity(nearest.len() + 1_024);
        for item in linked.chain(near).chain(trending) {
            if (item as usize) < self.len() && steps.binary_search(&item).is_err() && allow(item) {
                found.push(self.candidate(user, item));
            }
        }
        let best_first = |a: &(f32, CandidateRow), b: &(f32, CandidateRow)| {
            b.0.total_cmp(&a.0).then(a.1.item.cmp(&b.1.item))
        };
        if found.len() > k && k > 0 {
            found.select_nth_unstable_by(k - 1, best_first);
        }
        found.truncate(k);
        found.sort_unstable_by(best_first);
        let mut rows: Vec<CandidateRow> = found.into_iter().map(|(_, row)| row).collect();
        for row in rows.iter_mut().filter(|row| row.source == Source::Vector) {
            row.because = self.most_like(user, row.item);
        }
        rows
    }

    /// An item's base score and which part of it weighs most.
    fn candidate(&self, user: &UserState, item: u32) -> (f32, CandidateRow) {
        let blend = &self.parts.blends.full;
        let withheld = user
            .withheld
            .as_ref()
            .filter(|withheld| withheld.item == item);
        let prior = withheld.map_or(&self.parts.priors[item as usize], |withheld| {
            &withheld.prior
        });
        let near = blend.vector * user.vector_score(&self.parts.factors[item as usize]);
        let link = user.links.get(item);
        let order = blend.order
            * (link.map_or(0.0, |link| link.short) - user.order_mean)
            * user.order_scale;
        let score = near + order + blend.prior * prior.popularity;
        let row = match link {
            Some(link) if order >= near => CandidateRow {
                item,
                source: Source::Recent,
                because: Some(link.because),
            },
            _ if user.vector.is_some() => CandidateRow {
                item,
                source: Source::Vector,
                because: None,
            },
            _ => CandidateRow {
                item,
                source: Source::Trending,
                because: None,
            },
        };
        (score, row)
    }

    fn most_like(&self, user: &UserState, item: u32) -> Option<u32> {
        let vector = &self.parts.factors[item as usize];
        let liked = user.liked.iter().map(|(liked, weight)| {
            let like = dot(vector, &self.parts.factors[*liked as usize])
                * self.inverse_norms[*liked as usize];
            (*liked, weight * like)
        });
        let best = liked.fold(None, |best: Option<(u32, f32)>, next| match best {
            Some(best) if best.1 >= next.1 => Some(best),
            _ => Some(next),
        });
        best.map(|(item, _)| item)
    }

    /// One score for each row, higher is better; the same for the same model, history and rows.
    pub fn rank(&self, user: &UserState, rows: &[impl Row], scores: &mut Vec<f32>) {
        let mut columns = Vec::new();
        self.features(user, rows, &mut columns, scores);
        self.parts.forest.score(&columns, scores);
    }

    /// The pool for PoPs: the rows of the `capacity` most popular items, and their numeric part.
    #[must_use]
    pub fn edge_pool(&self, capacity: usize) -> (Vec<u32>, EdgePool) {
        let mut chosen: Vec<u32> = (0u32..).take(self.len()).collect();
        let weight = |row: u32| self.parts.priors[row as usize].popularity;
        chosen.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)).then(a.cmp(b)));
        chosen.truncate(capacity.min(ROWS_MAX));
        let places: HashMap<u32, u32> = chosen.iter().copied().zip(0u32..).collect();
        let standard = standardise(chosen.iter().map(|row| weight(*row)));
        let rows: Vec<PoolRow> = chosen
            .iter()
            .zip(standard)
            .map(|(row, prior)| {
                let (followers, weights) = self.parts.followers.of(*row);
                let inside = followers
                    .iter()
                    .zip(weights)
                    .filter_map(|(to, weight)| Some((*places.get(to)?, *weight)));
                PoolRow {
                    vector: self.parts.factors[*row as usize],
                    followers: inside.take(FOLLOWERS_MAX).collect(),
                    prior,
                }
            })
            .collect();
        (
            chosen,
            EdgePool::build(self.parts.fold.clone(), self.parts.blends.edge, &rows),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean over the catalogue")]
fn standardise(values: impl ExactSizeIterator<Item = f32> + Clone) -> Vec<f32> {
    let count = values.len().max(1) as f32;
    let mean = values.clone().sum::<f32>() / count;
    let variance = values
        .clone()
        .map(|value| (value - mean) * (value - mean))
        .sum::<f32>()
        / count;
    values
        .map(|value| (value - mean) / variance.sqrt().max(1e-6))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "moments of the catalogue"
)]
fn moments(factors: &[Vector]) -> (Vector, Box<[Vector; DIM]>) {
    let count = factors.len().max(1) as f64;
    let mut sums = [0.0f64; DIM];
    let mut squares = vec![[0.0f64; DIM]; DIM];
    for vector in factors {
        let wide = vector.map(f64::from);
        for row in 0..DIM {
            sums[row] += wide[row];
            for col in 0..=row {
                squares[row][col] += wide[row] * wide[col];
            }
        }
    }
    let mut covariance = Box::new([[0.0f32; DIM]; DIM]);
    for row in 0..DIM {
        for col in 0..=row {
            let value =
                (squares[row][col] / count - sums[row] * sums[col] / (count * count)) as f32;
            covariance[row][col] = value;
            covariance[col][row] = value;
        }
    }
    (sums.map(|sum| (sum / count) as f32), covariance)
}
