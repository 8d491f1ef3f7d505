//! What the forest sees of a candidate: scores and their ranks, priors, distance in year and genre
//! to the last and the liked items. The order of the columns is part of the artifact's format.

use crate::model::{FETCH_AHEAD, Model, Row, ascending};
use crate::user::{UserState, each_genre};
use crate::wide::{Kernel, Registers, wide};
use skerry_decide::score::Vector;

/// Columns.
pub const FEATURES: usize = 27;

/// Names of the columns, for reports.
pub const NAMES: [&str; FEATURES] = [
    "vector",
    "order",
    "base",
    "vector_rank",
    "order_rank",
    "base_rank",
    "order_long",
    "order_newest",
    "order_strongest",
    "order_count",
    "popularity",
    "rating",
    "trend",
    "recency",
    "year",
    "year_after_last",
    "year_off_last",
    "year_after_liked",
    "year_off_liked",
    "year_off_recent",
    "year_after_newest",
    "genre_last",
    "genre_liked",
    "genre_recent",
    "genre_other",
    "cosine_last",
    "cosine_liked",
];

impl Model {
    /// Fills `columns[feature * rows + row]`, and `base` with the base score of each row. Unknown
    /// rows are all zero.
    pub fn features(
        &self,
        user: &UserState,
        rows: &[impl Row],
        columns: &mut Vec<f32>,
        base: &mut Vec<f32>,
    ) {
        wide(Fill {
            model: self,
            user,
            rows,
            columns,
            base,
        });
    }
}

struct Fill<'a, R> {
    model: &'a Model,
    user: &'a UserState,
    rows: &'a [R],
    columns: &'a mut Vec<f32>,
    base: &'a mut Vec<f32>,
}

impl<R: Row> Kernel for Fill<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run(self, registers: impl Registers) {
        let Self {
            model,
            user,
            rows,
            columns,
            base,
        } = self;
        let count = rows.len();
        columns.clear();
        columns.resize(FEATURES * count, 0.0);
        base.clear();
        base.resize(count, 0.0);
        let last = user.steps.first().map(|step| step.item);
        let last_genres = last.map_or(0, |item| model.parts.priors[item as usize].genres);
        // Copied together: every row is compared with all of them.
        let scaled = |item: u32| {
            let item = item as usize;
            (model.parts.factors[item], model.inverse_norms[item])
        };
        let last_vector = last.map(scaled);
        let liked_vectors: Vec<(Vector, f32)> =
            user.liked.iter().map(|(item, _)| scaled(*item)).collect();
        for (at, row) in rows.iter().enumerate() {
            if let Some(soon) = rows.get(at + FETCH_AHEAD).map(|row| row.item() as usize)
                && let Some(vector) = model.parts.factors.get(soon)
            {
                registers.fetch(vector);
                registers.fetch(&model.parts.priors[soon]);
                registers.fetch(&model.inverse_norms[soon]);
            }
            let item = row.item();
            let Some(vector) = model.parts.factors.get(item as usize) else {
                continue;
            };
            let prior = user.prior(model, item);
            let mut set = |feature: usize, value: f32| columns[feature * count + at] = value;
            let near = user.vector_score(registers, vector);
            let link = user.links.get(item);
            let order = link.map_or(0.0, |link| link.short);
            let order = (order - user.order_mean) * user.order_scale;
            let blend = &model.parts.blends.full;
            let sum = blend.vector * near + blend.order * order + blend.prior * prior.popularity;
            base[at] = sum;
            set(0, near);
            set(1, order);
            set(2, sum);
            if let Some(link) = link {
                set(6, link.long);
                set(7, link.newest);
                set(8, link.strongest);
                set(9, f32::from(link.count));
            }
            set(10, prior.popularity);
            set(11, prior.rating);
            set(12, prior.trend);
            set(13, prior.recency);
            let off = |from: f32| {
                if from > 0.0 && prior.year > 0.0 {
                    prior.year - from
                } else {
                    0.0
                }
            };
            set(14, prior.year);
            set(15, off(user.years.last));
            set(16, off(user.years.last).abs());
            set(17, off(user.years.liked));
            set(18, off(user.years.liked).abs());
            set(19, off(user.years.recent).abs());
            set(20, off(user.years.newest));
            let either = (prior.genres | last_genres).count_ones();
            #[expect(clippy::cast_precision_loss, reason = "at most 64")]
            if either > 0 {
                set(
                    21,
                    (prior.genres & last_genres).count_ones() as f32 / either as f32,
                );
            }
            let (mut liked, mut recent, mut other, mut genres) = (0.0, 0.0, 0.0, 0.0f32);
            each_genre(prior.genres, |genre| {
                liked += user.genres.liked[genre];
                recent += user.genres.recent[genre];
                other += user.genres.other[genre];
                genres += 1.0;
            });
            let genres = genres.max(1.0);
            set(22, liked / genres);
            set(23, recent / genres);
            set(24, (liked - other) / genres);
            let norm = model.inverse_norms[item as usize];
            if let Some((last, last_norm)) = &last_vector {
                set(25, registers.dot(vector, last) * norm * last_norm);
            }
            let mut nearest = 0.0f32;
            for (liked, liked_norm) in &liked_vectors {
                nearest = nearest.max(registers.dot(vector, liked) * norm * liked_norm);
            }
            set(26, nearest);
        }
        let mut order = Vec::with_capacity(count);
        for score in 0..3 {
            let (scores, ranks) = columns.split_at_mut(3 * count);
            let scores = &scores[score * count..(score + 1) * count];
            rank(
                scores,
                &mut order,
                &mut ranks[score * count..(score + 1) * count],
            );
        }
    }
}

/// Places of the scores, best first; equal scores share the place of the first.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a few hundred places"
)]
#[inline(always)]
fn rank(scores: &[f32], order: &mut Vec<u64>, ranks: &mut [f32]) {
    order.clear();
    let key = |(score, at): (&f32, u64)| u64::from(!ascending(*score)) << 32 | at;
    order.extend(scores.iter().zip(0u64..).map(key));
    order.sort_unstable();
    let (mut place, mut before) = (0, f32::NAN);
    for (at, key) in order.iter().enumerate() {
        let row = *key as u32 as usize;
        if scores[row] != before {
            (place, before) = (at, scores[row]);
        }
        ranks[row] = place as f32;
    }
}
