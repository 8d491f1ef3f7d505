//! The model: immutable parts, checked once, and the questions that a pipeline asks of it.

use crate::artifact::{self, ModelError};
use crate::forest::Forest;
use crate::links::RowSet;
use crate::user::UserState;
use crate::wide::{Kernel, Registers, wide};
use skerry_decide::score::{
    Blend, DIM, EdgePool, FOLLOWERS_MAX, FoldIn, PoolRow, Query, ROWS_MAX, Vector, dot, quantise,
};
use skerry_origin_core::CandidateRow;
use skerry_types::ids::ItemHashMap;
use skerry_types::{ItemId, Source};
use std::collections::HashMap;
use std::sync::Arc;

/// Trending items that join the candidates of every question.
const TRENDING_CANDIDATES: usize = 50;

/// How many rows ahead of the one in work are fetched: they lie anywhere in memory.
pub(crate) const FETCH_AHEAD: usize = 8;

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
    rows: ItemHashMap<u32>,
    pub(crate) inverse_norms: Vec<f32>,
    /// The factors in a quarter of their size, with what a step of each is worth: for scores of many
    /// rows of which few are kept.
    codes: Vec<Code>,
    steps: Vec<f32>,
    pub(crate) mean: Vector,
    pub(crate) covariance: Box<[Vector; DIM]>,
    /// Rows by falling trend.
    trending: Vec<u32>,
}

/// A factor as i8: one line of the cache.
#[derive(Debug, Clone)]
#[repr(align(64))]
struct Code([i8; DIM]);

impl Model {
    /// # Errors
    /// [`ModelError::Part`] names the part that does not fit the others.
    #[expect(clippy::cast_possible_truncation, reason = "checked: rows fit 32 bits")]
    pub fn new(parts: Parts) -> Result<Self, ModelError> {
        artifact::check(&parts)?;
        let rows: ItemHashMap<u32> = parts.ids.iter().map(ItemId::hash).zip(0u32..).collect();
        if rows.len() != parts.ids.len() {
            return Err(ModelError::Part { part: "ids" });
        }
        let inverse_norms = parts
            .factors
            .iter()
            .map(|vector| 1.0 / dot(vector, vector).sqrt().max(1e-9))
            .collect();
        let codes = parts.factors.iter().map(quantise);
        let (codes, steps) = codes.map(|(code, step)| (Code(code), step)).unzip();
        let (mean, covariance) = moments(&parts.factors);
        let mut trending: Vec<u32> = (0..parts.ids.len() as u32).collect();
        let trend = |row: u32| parts.priors[row as usize].trend;
        trending.sort_by(|a, b| trend(*b).total_cmp(&trend(*a)).then(a.cmp(b)));
        let version = Arc::from(format!("ranker@{}", parts.number));
        Ok(Self {
            version,
            rows,
            inverse_norms,
            codes,
            steps,
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
    pub fn index_of(&self, id: &ItemId) -> Option<u32> {
        self.rows.get(&id.hash()).copied()
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

    /// The `k` rows with the best base score (about: by the codes of their vectors), best first, among vector neighbours, followers of the
    /// last events and what is trending; less the history and what `allow` refuses.
    #[must_use]
    pub fn candidates_where(
        &self,
        user: &UserState,
        near: &[(u32, f32)],
        k: usize,
        allow: impl Fn(u32) -> bool,
    ) -> Vec<CandidateRow> {
        let mut found = wide(Sources {
            model: self,
            user,
            near,
            allow,
        });
        if found.len() > k && k > 0 {
            found.select_nth_unstable(k - 1);
        }
        found.truncate(k);
        found.sort_unstable();
        let source = if user.vector.is_some() {
            Source::Vector
        } else {
            Source::Trending
        };
        let rows = found.into_iter().map(|place| {
            let (item, is_followed) = place.row();
            match user.links.get(item).filter(|_| is_followed) {
                Some(link) => CandidateRow {
                    item,
                    source: Source::Recent,
                    because: Some(link.because),
                },
                None => CandidateRow {
                    item,
                    source,
                    because: None,
                },
            }
        });
        rows.collect()
    }

    /// The row of the liked item most like this one, weighted by how lately it was liked.
    #[must_use]
    pub fn because(&self, user: &UserState, item: u32) -> Option<u32> {
        user.vector.as_ref()?;
        ((item as usize) < self.len()).then(|| {
            wide(MostLike {
                model: self,
                user,
                item,
            })
        })?
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

/// A candidate's place among the others: ascending is best first, equal scores by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    /// `artifact::check` bounds rows by 2^28: a bit is free to say that a link brought the row.
    fn new(score: f32, item: u32, is_followed: bool) -> Self {
        let best_first = !ascending(score);
        Self(u64::from(best_first) << 32 | u64::from(item) << 1 | u64::from(is_followed))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    const fn row(self) -> (u32, bool) {
        (self.0 as u32 >> 1, self.0 & 1 == 1)
    }
}

/// Bits that are in the order of `f32::total_cmp` as unsigned numbers.
#[inline(always)]
pub(crate) const fn ascending(score: f32) -> u32 {
    let bits = score.to_bits();
    let is_negative = bits >> 31 == 1;
    if is_negative { !bits } else { bits | 1 << 31 }
}

/// Every candidate with its base score: links, neighbours and what is trending, each once.
struct Sources<'a, A> {
    model: &'a Model,
    user: &'a UserState,
    near: &'a [(u32, f32)],
    allow: A,
}

impl<A: Fn(u32) -> bool> Kernel for Sources<'_, A> {
    type Out = Vec<Place>;

    #[inline(always)]
    fn run(self, registers: impl Registers) -> Vec<Place> {
        let Self {
            model,
            user,
            near,
            allow,
        } = self;
        let blend = &model.parts.blends.full;
        let most = user.steps.len() + near.len() + TRENDING_CANDIDATES;
        let mut out = RowSet::with_capacity(most);
        user.steps.iter().for_each(|step| {
            out.insert(step.item);
        });
        let mut rows: Vec<(u32, Option<f32>)> = Vec::with_capacity(user.links.len() + most);
        let is_allowed = |item: u32| (item as usize) < model.len() && allow(item);
        for link in user.links.iter() {
            if !out.has(link.item) && is_allowed(link.item) {
                rows.push((link.item, Some(link.short)));
            }
        }
        let trending = model.trending.iter().take(TRENDING_CANDIDATES);
        for item in near.iter().map(|(item, _)| item).chain(trending) {
            if user.links.get(*item).is_none() && out.insert(*item) && is_allowed(*item) {
                rows.push((*item, None));
            }
        }
        let query = user.vector.as_ref().map(Query::new);
        let mut found = Vec::with_capacity(rows.len());
        for (at, (item, short)) in rows.iter().enumerate() {
            if let Some((soon, _)) = rows.get(at + FETCH_AHEAD) {
                registers.fetch(&model.codes[*soon as usize]);
            }
            let code = &model.codes[*item as usize];
            let step = model.steps[*item as usize];
            let near = query
                .as_ref()
                .map_or(0.0, |query| user.standard_score(query.one(&code.0, step)));
            let near = blend.vector * near;
            let order = blend.order * (short.unwrap_or(0.0) - user.order_mean) * user.order_scale;
            let prior = if blend.prior == 0.0 {
                0.0
            } else {
                blend.prior * user.prior(model, *item).popularity
            };
            let is_followed = short.is_some() && order >= near;
            found.push(Place::new(near + order + prior, *item, is_followed));
        }
        found
    }
}

struct MostLike<'a> {
    model: &'a Model,
    user: &'a UserState,
    item: u32,
}

impl Kernel for MostLike<'_> {
    type Out = Option<u32>;

    #[inline(always)]
    fn run(self, registers: impl Registers) -> Option<u32> {
        let Self { model, user, item } = self;
        let vector = &model.parts.factors[item as usize];
        let mut best: Option<(u32, f32)> = None;
        for (liked, weight) in &user.liked {
            let like = registers.dot(vector, &model.parts.factors[*liked as usize])
                * model.inverse_norms[*liked as usize];
            let like = weight * like;
            if best.is_none_or(|best| best.1 < like) {
                best = Some((*liked, like));
            }
        }
        best.map(|(item, _)| item)
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
