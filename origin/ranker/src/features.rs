//! What the forest sees of a candidate: scores and their ranks, priors, distance in year and genre
//! to the last and the liked items. The order of the columns is part of the artifact's format.

use crate::model::{Model, Row};
use crate::user::{UserState, each_genre};
use skerry_decide::score::dot;

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
        let count = rows.len();
        columns.clear();
        columns.resize(FEATURES * count, 0.0);
        base.clear();
        base.resize(count, 0.0);
        let last = user.steps.first().map(|step| step.item);
        let last_genres = last.map_or(0, |item| self.parts.priors[item as usize].genres);
        for (at, row) in rows.iter().enumerate() {
            let item = row.item();
            let Some(vector) = self.parts.factors.get(item as usize) else {
                continue;
            };
            let withheld = user
                .withheld
                .as_ref()
                .filter(|withheld| withheld.item == item);
            let prior = withheld.map_or(&self.parts.priors[item as usize], |withheld| {
                &withheld.prior
            });
            let mut set = |feature: usize, value: f32| columns[feature * count + at] = value;
            let near = user.vector_score(vector);
            let link = user.links.get(item);
            let order = link.map_or(0.0, |link| link.short);
            let order = (order - user.order_mean) * user.order_scale;
            let blend = &self.parts.blends.full;
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
            let norm = self.inverse_norms[item as usize];
            let cosine = |other: u32| {
                dot(vector, &self.parts.factors[other as usize])
                    * norm
                    * self.inverse_norms[other as usize]
            };
            set(25, last.map_or(0.0, cosine));
            let nearest = user
                .liked
                .iter()
                .map(|(item, _)| cosine(*item))
                .fold(0.0, f32::max);
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
fn rank(scores: &[f32], order: &mut Vec<(f32, u32)>, ranks: &mut [f32]) {
    order.clear();
    order.extend(scores.iter().zip(0u32..).map(|(score, at)| (*score, at)));
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut place = 0;
    for at in 0..order.len() {
        if at > 0 && order[at].0 != order[at - 1].0 {
            place = at as u32;
        }
        ranks[order[at].1 as usize] = place as f32;
    }
}
