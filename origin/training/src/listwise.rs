//! The default ranker: listwise LambdaMART (Burges 2010) on earlier positions of each history. A group is
//! one positive among the candidates that the model would have made for the events before it, with
//! the positive itself taken out of every signal.

use crate::als::{self, Factors};
use crate::gbdt::{self, Binned, Task, TreeOptions};
use crate::order::OrderCounts;
use crate::priors::PriorSums;
use crate::{Interactions, TrainError, TrainOptions};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use skerry_decide::score::{HistoryStep, dot};
use skerry_origin_ranker::features::FEATURES;
use skerry_origin_ranker::{Forest, Model, Parts, Withheld};
use skerry_types::Taste;
use skerry_types::context::RECENT_MAX;
use std::collections::HashSet;

/// Vector neighbours per group, as in the pipeline.
const NEAR_MAX: usize = 200;
/// Candidates per group, as in the pipeline.
const CANDIDATES_MAX: usize = 300;
/// Positions that gain anything.
const CUT: usize = 10;

/// One positive and the rows that it competes with.
struct Group {
    /// Column by column, the positive first.
    columns: Vec<f32>,
    base: Vec<f32>,
    /// How many of all candidates each row stands for.
    stands_for: Vec<f32>,
}

/// What groups are made from.
pub struct Signals<'a> {
    pub data: &'a Interactions,
    pub histories: &'a [Vec<u32>],
    pub order: &'a OrderCounts,
    pub priors: &'a PriorSums,
    pub options: &'a TrainOptions,
}

/// Where a positive stands: the user and the place in the user's history.
#[derive(Clone, Copy)]
struct Position {
    user: u32,
    place: u32,
}

impl Signals<'_> {
    /// Trains the forest for the parts given (whose own forest is ignored).
    pub fn forest(
        &self,
        parts: &Parts,
        progress: &(dyn Fn(f32) + Sync),
    ) -> Result<Forest, TrainError> {
        let positions = self.positions();
        let folds = self.options.folds.max(2);
        let mut groups = Vec::new();
        for fold in 0..folds {
            #[expect(clippy::cast_precision_loss, reason = "a share for a progress bar")]
            progress(0.7 * fold as f32 / folds as f32);
            let inside: Vec<Position> = positions
                .iter()
                .copied()
                .filter(|at| fold_of(at.user, folds) == fold)
                .collect();
            if inside.is_empty() {
                continue;
            }
            let factors = self.factors_without(fold, folds)?;
            let model = Model::new(Parts {
                factors: factors.items,
                fold: factors.fold,
                ..parts.clone()
            })?;
            let of_fold: Vec<Option<Group>> = inside
                .par_iter()
                .map(|at| self.group(&model, *at))
                .collect();
            groups.extend(of_fold.into_iter().flatten());
        }
        let trees = boost(&groups, self.options, &|share| progress(0.7 + 0.3 * share));
        Forest::new(trees, FEATURES, self.options.base_weight).ok_or(TrainError::NotFinite)
    }

    /// The last positives of each user but the very last, newest user positions first; users in a
    /// seeded order where there are more than are needed.
    #[expect(clippy::cast_possible_truncation, reason = "COUNT_MAX fits")]
    fn positions(&self) -> Vec<Position> {
        let rows = self.data.rows();
        let mut users: Vec<u32> = (0..self.histories.len() as u32).collect();
        users.shuffle(&mut ChaCha8Rng::seed_from_u64(self.options.seed ^ 0x5eed));
        let mut positions = Vec::new();
        for user in users {
            if positions.len() >= self.options.groups_max {
                break;
            }
            let history = &self.histories[user as usize];
            let liked =
                |place: &u32| rows[history[*place as usize] as usize].taste == Taste::Positive;
            let last = (1..history.len() as u32).rev().filter(liked);
            let last = last
                .skip(self.options.skip_positives)
                .take(self.options.positives_per_user);
            positions.extend(last.map(|place| Position { user, place }));
        }
        positions.truncate(self.options.groups_max);
        positions
    }

    fn factors_without(&self, fold: u32, folds: u32) -> Result<Factors, TrainError> {
        let positives = crate::positives(self.data, |user| fold_of(user, folds) != fold);
        let mut options = self.options.als;
        options.iterations = self.options.fold_iterations;
        als::factorise(
            self.data.users(),
            self.data.items().len(),
            &positives,
            &options,
            self.options.seed,
            &|_| (),
        )
        .ok_or(TrainError::NotFinite)
    }

    /// `None` where the positive is not among the candidates.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred rows")]
    fn group(&self, model: &Model, at: Position) -> Option<Group> {
        let rows = self.data.rows();
        let history = &self.histories[at.user as usize];
        let place = at.place as usize;
        let target = &rows[history[place] as usize];
        let before: Vec<u32> = history[..place]
            .iter()
            .rev()
            .take(RECENT_MAX)
            .copied()
            .collect();
        let steps: Vec<HistoryStep> = (0..)
            .zip(&before)
            .map(|(age, row)| HistoryStep {
                item: rows[*row as usize].item,
                taste: rows[*row as usize].taste,
                age,
            })
            .collect();
        let items: Vec<u32> = steps.iter().map(|step| step.item).collect();
        if items.contains(&target.item) {
            return None;
        }
        let withheld = Withheld {
            item: target.item,
            prior: self.priors.without(history[place] as usize, target),
            links: self.order.without(
                target.item,
                &items,
                &model.parts().followers,
                self.options.followers,
            ),
        };
        let user = model.fold_in_without(&steps, Some(withheld));
        let known: HashSet<u32> = history
            .iter()
            .map(|row| rows[*row as usize].item)
            .filter(|item| *item != target.item)
            .collect();
        let near = near(model, user.query(), &known);
        let candidates =
            model.candidates_where(&user, &near, CANDIDATES_MAX, |item| !known.contains(&item));
        let position = candidates.iter().position(|row| row.item == target.item)?;
        let mut columns = Vec::new();
        let mut base = Vec::new();
        model.features(&user, &candidates, &mut columns, &mut base);
        // The positive, the strongest rivals, and a seeded sample of the others.
        let seed = self.options.seed ^ (u64::from(at.user) << 32 | u64::from(at.place));
        let mut others: Vec<usize> = (0..candidates.len())
            .filter(|row| *row != position)
            .collect();
        let strong = self.options.rivals.min(others.len());
        let mut sampled = others.split_off(strong);
        let of_sampled = sampled.len();
        sampled.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        sampled.truncate(self.options.sampled);
        let each = of_sampled as f32 / sampled.len().max(1) as f32;
        let stands_for = std::iter::repeat_n(1.0, strong + 1)
            .chain(std::iter::repeat_n(each, sampled.len()))
            .collect();
        let chosen: Vec<usize> = std::iter::once(position)
            .chain(others)
            .chain(sampled)
            .collect();
        let count = candidates.len();
        let columns = (0..FEATURES)
            .flat_map(|feature| chosen.iter().map(move |row| (feature, *row)))
            .map(|(feature, row)| columns[feature * count + row]);
        Some(Group {
            columns: columns.collect(),
            base: chosen.iter().map(|row| base[*row]).collect(),
            stands_for,
        })
    }
}

fn fold_of(user: u32, folds: u32) -> u32 {
    (user.wrapping_mul(0x9E37_79B9) >> 8) % folds
}

/// The nearest rows by scan, less the known ones.
fn near(model: &Model, query: Option<&[f32]>, known: &HashSet<u32>) -> Vec<(u32, f32)> {
    let Some(query) = query.and_then(|query| <&[f32; 64]>::try_from(query).ok()) else {
        return Vec::new();
    };
    let scores = (0u32..)
        .zip(&model.parts().factors)
        .filter(|(item, _)| !known.contains(item));
    let mut scores: Vec<(u32, f32)> = scores
        .map(|(item, vector)| (item, dot(query, vector)))
        .collect();
    let best_first = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if scores.len() > NEAR_MAX {
        scores.select_nth_unstable_by(NEAR_MAX - 1, best_first);
        scores.truncate(NEAR_MAX);
    }
    scores.sort_unstable_by(best_first);
    scores
}

fn boost(
    groups: &[Group],
    options: &TrainOptions,
    progress: &dyn Fn(f32),
) -> Vec<skerry_origin_ranker::Tree> {
    let mut starts = vec![0usize];
    groups
        .iter()
        .for_each(|group| starts.push(starts.last().copied().unwrap_or(0) + group.base.len()));
    let total = starts.last().copied().unwrap_or(0);
    if total == 0 {
        return Vec::new();
    }
    let column = |feature: usize| -> Vec<f32> {
        let of_group = |group: &Group| {
            let rows = group.base.len();
            group.columns[feature * rows..(feature + 1) * rows].to_vec()
        };
        groups.iter().flat_map(of_group).collect()
    };
    let columns: Vec<Vec<f32>> = (0..FEATURES).into_par_iter().map(column).collect();
    let data = Binned::new(&columns);
    drop(columns);
    let mut scores: Vec<f32> = groups
        .iter()
        .flat_map(|group| &group.base)
        .map(|base| base * options.base_weight)
        .collect();
    let tree_options = TreeOptions {
        leaves: options.leaves,
        rows_min: options.rows_min,
        ridge: options.tree_ridge,
        rate: options.rate,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x7ee5);
    let mut trees = Vec::with_capacity(options.trees);
    for tree in 0..options.trees {
        #[expect(clippy::cast_precision_loss, reason = "a share for a progress bar")]
        progress(tree as f32 / options.trees as f32);
        let kept: Vec<bool> = groups
            .iter()
            .map(|_| rng.random::<f32>() < options.bagging)
            .collect();
        let of_group = |at: usize| {
            if kept[at] {
                lambdas(&groups[at], &scores[starts[at]..starts[at + 1]], options)
            } else {
                Vec::new()
            }
        };
        let lambdas: Vec<Vec<(f32, f32)>> =
            (0..groups.len()).into_par_iter().map(of_group).collect();
        let mut gradients = vec![0.0f32; total];
        let mut hessians = vec![0.0f32; total];
        let mut rows: Vec<u32> = Vec::with_capacity(total);
        for (start, of_group) in starts.iter().zip(&lambdas) {
            for (at, (gradient, hessian)) in (*start..).zip(of_group) {
                if *hessian > 0.0 {
                    gradients[at] = *gradient;
                    hessians[at] = *hessian;
                    #[expect(clippy::cast_possible_truncation, reason = "bounded by groups_max")]
                    rows.push(at as u32);
                }
            }
        }
        let features: Vec<bool> = (0..FEATURES)
            .map(|_| rng.random::<f32>() < options.feature_share)
            .collect();
        let task = Task {
            gradients: &gradients,
            hessians: &hessians,
            features: &features,
        };
        let tree = gbdt::grow(&data, rows, &task, &tree_options);
        gbdt::add_to(&tree, &data, &mut scores);
        trees.push(tree);
    }
    trees
}

/// (gradient, hessian) of each row.
fn lambdas(group: &Group, scores: &[f32], options: &TrainOptions) -> Vec<(f32, f32)> {
    if options.softmax {
        softmax(group, scores)
    } else {
        pairwise(group, scores)
    }
}

/// LambdaMART: each rival pushes by how much swapping places with the positive would change NDCG.
#[expect(clippy::cast_precision_loss, reason = "places")]
fn pairwise(group: &Group, scores: &[f32]) -> Vec<(f32, f32)> {
    let mut order: Vec<u32> = (0..).take(scores.len()).collect();
    order.sort_by(|a, b| {
        scores[*b as usize]
            .total_cmp(&scores[*a as usize])
            .then(a.cmp(b))
    });
    let mut places = vec![0.0f32; scores.len()];
    let mut place = 0.0;
    for row in order {
        places[row as usize] = place;
        place += group.stands_for[row as usize];
    }
    let gain = |place: f32| {
        if place < CUT as f32 * 3.0 {
            1.0 / (place + 2.0).log2()
        } else {
            0.0
        }
    };
    let own = gain(places[0]);
    let mut out = vec![(0.0f32, 0.0f32); scores.len()];
    for row in 1..scores.len() {
        let weight = (own - gain(places[row])).abs() * group.stands_for[row];
        let push = 1.0 / (1.0 + (scores[0] - scores[row]).exp());
        let curve = (push * (1.0 - push)).max(1e-6) * weight;
        out[row] = (push * weight, curve);
        out[0].0 -= push * weight;
        out[0].1 += curve;
    }
    out
}

/// Cross-entropy of a softmax over the group (ListNet with one positive).
fn softmax(group: &Group, scores: &[f32]) -> Vec<(f32, f32)> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let each: Vec<f32> = scores
        .iter()
        .zip(&group.stands_for)
        .map(|(score, n)| (score - most).exp() * n)
        .collect();
    let total: f32 = each.iter().sum();
    let share = each.iter().map(|value| value / total);
    share
        .enumerate()
        .map(|(row, share)| {
            (
                share - f32::from(u8::from(row == 0)),
                (share * (1.0 - share)).max(1e-6),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(scores: &[f32]) -> Group {
        let stands_for = scores
            .iter()
            .enumerate()
            .map(|(row, _)| if row > 2 { 4.0 } else { 1.0 })
            .collect();
        Group {
            columns: Vec::new(),
            base: scores.to_vec(),
            stands_for,
        }
    }

    #[test]
    fn the_softmax_gradient_is_that_of_its_loss() {
        let scores = [0.3f32, -0.2, 1.1, 0.4, -0.9];
        let group = group(&scores);
        let loss = |scores: &[f32]| -> f64 {
            let each = scores
                .iter()
                .zip(&group.stands_for)
                .map(|(score, n)| f64::from(*score).exp() * f64::from(*n));
            each.sum::<f64>().ln() - f64::from(scores[0])
        };
        for (row, (gradient, _)) in softmax(&group, &scores).iter().enumerate() {
            let (mut up, mut down) = (scores, scores);
            up[row] += 1e-2;
            down[row] -= 1e-2;
            let slope = (loss(&up) - loss(&down)) / 2e-2;
            assert!(
                (slope - f64::from(*gradient)).abs() < 1e-3,
                "row {row}: {slope} against {gradient}"
            );
        }
    }

    #[test]
    fn pairs_push_the_positive_up_and_rivals_down_by_what_a_swap_would_gain() {
        let scores = [0.0f32, 2.0, 1.0, -1.0];
        let lambdas = pairwise(&group(&scores), &scores);
        assert!(lambdas[0].0 < 0.0 && lambdas[1..].iter().all(|(gradient, _)| *gradient > 0.0));
        assert!(
            lambdas
                .iter()
                .map(|(gradient, _)| gradient)
                .sum::<f32>()
                .abs()
                < 1e-5
        );
        assert!(
            lambdas[1].0 > lambdas[2].0,
            "the top place is worth more than the second"
        );
        assert!(lambdas.iter().all(|(_, hessian)| *hessian > 0.0));
    }
}
