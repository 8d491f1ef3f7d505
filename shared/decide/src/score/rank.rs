//! Ranking from the pool: fold-in, one INT8 scan, the followers of the last events, the top of both.

use super::foldin::{Vector, dot};
use super::kernel::Query;
use super::pool::EdgePool;
use super::{HistoryStep, ORDER_CONTEXT, ORDER_DECAY, positives};
use std::cmp::Ordering;

/// What weighed most in a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreSource {
    /// Nearness to the user's taste; `because` of the positive (or seed) that weighed most.
    Vector { because: Option<u32> },
    /// It follows `because` in many histories.
    Followers { because: u32 },
    /// Nothing of this user: it is popular.
    Popular,
}

impl ScoreSource {
    /// The history item that weighed most.
    #[must_use]
    pub const fn because(self) -> Option<u32> {
        match self {
            Self::Vector { because } => because,
            Self::Followers { because } => Some(because),
            Self::Popular => None,
        }
    }
}

/// Working memory of one ranking, reused.
#[derive(Debug, Default)]
pub struct Scratch {
    scores: Vec<f32>,
    order: Vec<f32>,
    touched: Vec<u32>,
    picks: Vec<(f32, u32)>,
}

/// A weighted history: what to fold in, and whose followers count.
struct Profile {
    query: Option<Vector>,
    /// (row, weight) for reasons of [`ScoreSource::Vector`].
    liked: Vec<(u32, f32)>,
    /// (row, weight), newest first.
    followed: Vec<(u32, f32)>,
}

impl EdgePool {
    /// The `k` best items for a history (newest first), less the history itself.
    #[must_use]
    pub fn rank(
        &self,
        history: &[HistoryStep],
        scratch: &mut Scratch,
        k: usize,
    ) -> Vec<(u32, f32, ScoreSource)> {
        self.rank_where(history, scratch, k, |_| true)
    }

    /// [`EdgePool::rank`] among the items for which `allow` holds; it is asked only about items that
    /// would otherwise be among the best.
    #[must_use]
    pub fn rank_where(
        &self,
        history: &[HistoryStep],
        scratch: &mut Scratch,
        k: usize,
        allow: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f32, ScoreSource)> {
        let profile = self.profile(history);
        self.score(&profile, scratch);
        let allow = |item| !history.iter().any(|step| step.item == item) && allow(item);
        self.top(&profile, scratch, k, allow)
    }

    /// The `k` items most like the seeds together, less the seeds.
    #[must_use]
    pub fn similar(
        &self,
        seeds: &[u32],
        scratch: &mut Scratch,
        k: usize,
    ) -> Vec<(u32, f32, ScoreSource)> {
        self.similar_where(seeds, scratch, k, |_| true)
    }

    /// [`EdgePool::similar`] among the items for which `allow` holds.
    #[must_use]
    pub fn similar_where(
        &self,
        seeds: &[u32],
        scratch: &mut Scratch,
        k: usize,
        allow: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f32, ScoreSource)> {
        let liked: Vec<(u32, f32)> = seeds.iter().map(|seed| (*seed, 1.0)).collect();
        let profile = Profile {
            query: self.folded(&liked),
            followed: liked.clone(),
            liked,
        };
        self.score(&profile, scratch);
        self.top(&profile, scratch, k, |item| {
            !seeds.contains(&item) && allow(item)
        })
    }

    /// Scores of these items for a history, in their order; the least score for unknown rows.
    #[must_use]
    pub fn score_items(
        &self,
        history: &[HistoryStep],
        scratch: &mut Scratch,
        items: &[u32],
    ) -> Vec<f32> {
        self.score(&self.profile(history), scratch);
        items
            .iter()
            .map(|item| {
                scratch
                    .scores
                    .get(*item as usize)
                    .copied()
                    .unwrap_or(f32::MIN)
            })
            .collect()
    }

    fn profile(&self, history: &[HistoryStep]) -> Profile {
        let liked: Vec<(u32, f32)> = positives(history).collect();
        let mut weight = 1.0 / ORDER_DECAY;
        let followed = history.iter().take(ORDER_CONTEXT).map(|step| {
            weight *= ORDER_DECAY;
            (step.item, weight)
        });
        Profile {
            query: self.folded(&liked),
            followed: followed.collect(),
            liked,
        }
    }

    fn folded(&self, liked: &[(u32, f32)]) -> Option<Vector> {
        let vectors: Vec<(Vector, f32)> = liked
            .iter()
            .filter_map(|(item, weight)| Some((self.vector(*item)?, *weight)))
            .collect();
        self.fold
            .fold(vectors.iter().map(|(vector, weight)| (vector, *weight)))
    }

    /// Fills `scratch.scores` for every row, and `scratch.order` with the standardised order part.
    fn score(&self, profile: &Profile, scratch: &mut Scratch) {
        let rows = self.len();
        scratch.scores.clear();
        scratch.scores.resize(rows, 0.0);
        scratch.order.clear();
        scratch.order.resize(rows, 0.0);
        scratch.touched.clear();
        if let Some(query) = &profile.query {
            Query::new(query).scan(&self.vectors, &self.scales, &mut scratch.scores);
            let (mean, deviation) = moments(scratch.scores.iter().copied(), rows);
            let scale = self.blend.vector / deviation;
            scratch
                .scores
                .iter_mut()
                .for_each(|score| *score = (*score - mean) * scale);
        }
        for (item, weight) in &profile.followed {
            for (follower, share) in self.followers_of(*item) {
                if let Some(order) = scratch.order.get_mut(follower as usize) {
                    if *order == 0.0 {
                        scratch.touched.push(follower);
                    }
                    *order += weight * share;
                }
            }
        }
        let touched = scratch
            .touched
            .iter()
            .filter_map(|item| scratch.order.get(*item as usize).copied());
        // The mean is left in: it moves every score alike.
        let (_, deviation) = moments(touched, rows);
        let scale = self.blend.order / deviation;
        for item in &scratch.touched {
            let at = *item as usize;
            if let (Some(order), Some(score)) =
                (scratch.order.get_mut(at), scratch.scores.get_mut(at))
            {
                *order *= scale;
                *score += *order;
            }
        }
        // Without any history the prior alone orders the list.
        let prior = if profile.liked.is_empty() && scratch.touched.is_empty() {
            1.0
        } else {
            self.blend.prior
        };
        scratch
            .scores
            .iter_mut()
            .zip(&self.priors)
            .for_each(|(score, value)| *score += prior * value);
    }

    fn top(
        &self,
        profile: &Profile,
        scratch: &mut Scratch,
        k: usize,
        allow: impl Fn(u32) -> bool,
    ) -> Vec<(u32, f32, ScoreSource)> {
        let k = k.min(self.len());
        if k == 0 {
            return Vec::new();
        }
        let picks = &mut scratch.picks;
        picks.clear();
        // Twice k are gathered before the worse half goes; what cannot enter costs one comparison.
        let mut least = f32::NEG_INFINITY;
        for (item, score) in (0u32..).zip(&scratch.scores) {
            if *score > least && allow(item) {
                picks.push((*score, item));
                if picks.len() == k * 2 {
                    picks.select_nth_unstable_by(k - 1, best_first);
                    picks.truncate(k);
                    least = picks.last().map_or(least, |(score, _)| *score);
                }
            }
        }
        picks.sort_unstable_by(best_first);
        picks.truncate(k);
        let picks = picks.iter().map(|(score, item)| {
            let order = scratch.order.get(*item as usize).copied().unwrap_or(0.0);
            (*item, *score, self.source(profile, *item, *score, order))
        });
        picks.collect()
    }

    fn source(&self, profile: &Profile, item: u32, score: f32, order: f32) -> ScoreSource {
        if order > 0.0 && order * 2.0 >= score {
            let weight = |(from, weight): &(u32, f32)| {
                let share = self
                    .followers_of(*from)
                    .find(|(follower, _)| *follower == item);
                share.map(|(_, share)| (*from, weight * share))
            };
            if let Some(because) = strongest(profile.followed.iter().filter_map(weight)) {
                return ScoreSource::Followers { because };
            }
        }
        if profile.query.is_none() {
            return ScoreSource::Popular;
        }
        let near = self.vector(item).and_then(|vector| {
            let each = profile.liked.iter().filter_map(|(liked, weight)| {
                Some((*liked, weight * dot(&self.vector(*liked)?, &vector)))
            });
            strongest(each)
        });
        ScoreSource::Vector { because: near }
    }
}

fn strongest(each: impl Iterator<Item = (u32, f32)>) -> Option<u32> {
    let best = each.fold(None, |best: Option<(u32, f32)>, next| match best {
        Some(best) if best.1 >= next.1 => Some(best),
        _ => Some(next),
    });
    best.map(|(item, _)| item)
}

/// Falling score, then rising row: a total order.
fn best_first(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Mean and standard deviation over `rows` values of which those not given are zero.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a pool has at most 65,536 rows"
)]
fn moments(values: impl Iterator<Item = f32>, rows: usize) -> (f32, f32) {
    let (mut sum, mut squares) = (0.0f64, 0.0f64);
    for value in values {
        let value = f64::from(value);
        sum += value;
        squares += value * value;
    }
    let mean = sum / rows.max(1) as f64;
    let variance = (squares / rows.max(1) as f64 - mean * mean).max(0.0);
    (mean as f32, variance.sqrt().max(1e-9) as f32)
}
