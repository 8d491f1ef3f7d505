//! What the model makes of a history: a vector, links from the last events, tastes in genres and
//! years. Made anew for every question, so that an event changes the next answer.

use crate::links::{Links, Share};
use crate::model::{Model, Prior};
use crate::wide::{Kernel, Registers, wide};
use skerry_decide::score::{HistoryStep, ORDER_CONTEXT, ORDER_DECAY, Vector, positives};
use skerry_types::Taste;

/// Events whose followers count in the long links, and their decay.
const LONG_CONTEXT: usize = 12;
const LONG_DECAY: f32 = 0.9;
/// Positives that a candidate is compared with one by one.
const COMPARED_MAX: usize = 8;
/// Genres (bits) of an item, at most.
pub(crate) const GENRES_MAX: usize = 64;

/// An item's signals with one event taken out: what training needs to see a positive as it was
/// before it happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Withheld {
    pub item: u32,
    pub prior: Prior,
    /// (row of the earlier item, weight of the item as its follower).
    pub links: Vec<(u32, f32)>,
}

/// A user, as the ranker sees it.
#[derive(Debug, Clone)]
pub struct UserState {
    pub(crate) vector: Option<Vector>,
    /// Mean and 1 / deviation of the vector score over the catalogue, and of the order score.
    pub(crate) vector_mean: f32,
    pub(crate) vector_scale: f32,
    pub(crate) order_mean: f32,
    pub(crate) order_scale: f32,
    pub(crate) links: Links,
    pub(crate) steps: Vec<HistoryStep>,
    /// Newest positives: row and weight.
    pub(crate) liked: Vec<(u32, f32)>,
    pub(crate) genres: GenreTaste,
    pub(crate) years: YearTaste,
    pub(crate) withheld: Option<Withheld>,
}

#[derive(Debug, Clone)]
pub(crate) struct GenreTaste {
    /// Share of the weighted positives that have the genre; likewise of the negatives and neutrals,
    /// and of the last five events.
    pub liked: [f32; GENRES_MAX],
    pub other: [f32; GENRES_MAX],
    pub recent: [f32; GENRES_MAX],
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct YearTaste {
    /// Zero: unknown.
    pub last: f32,
    pub liked: f32,
    pub recent: f32,
    pub newest: f32,
}

impl UserState {
    /// The vector to search the item space with; `None` where the history has no positive.
    #[must_use]
    pub fn query(&self) -> Option<&[f32]> {
        self.vector.as_ref().map(<[f32; 64]>::as_slice)
    }

    /// The history, newest first.
    #[must_use]
    pub fn steps(&self) -> &[HistoryStep] {
        &self.steps
    }

    /// What is known of an item, as this user must see it.
    #[inline(always)]
    pub(crate) fn prior<'a>(&'a self, model: &'a Model, item: u32) -> &'a Prior {
        match &self.withheld {
            Some(withheld) if withheld.item == item => &withheld.prior,
            _ => &model.parts.priors[item as usize],
        }
    }

    /// The standardised vector score.
    #[inline(always)]
    pub(crate) fn vector_score(&self, registers: impl Registers, vector: &Vector) -> f32 {
        let Some(user) = &self.vector else { return 0.0 };
        self.standard_score(registers.dot(user, vector))
    }

    #[inline(always)]
    pub(crate) fn standard_score(&self, score: f32) -> f32 {
        (score - self.vector_mean) * self.vector_scale
    }
}

impl Model {
    /// What the model makes of a history (newest first). Rows that it does not have are left out.
    #[must_use]
    pub fn fold_in(&self, history: &[HistoryStep]) -> UserState {
        self.fold_in_without(history, None)
    }

    /// [`Model::fold_in`] with an item's signals replaced.
    #[must_use]
    pub fn fold_in_without(
        &self,
        history: &[HistoryStep],
        withheld: Option<Withheld>,
    ) -> UserState {
        let known = history
            .iter()
            .filter(|step| (step.item as usize) < self.len());
        let steps: Vec<HistoryStep> = known.copied().collect();
        let liked: Vec<(u32, f32)> = positives(&steps).collect();
        let taste = wide(Folded {
            model: self,
            liked: &liked,
        });
        self.state(steps, liked, taste, withheld)
    }

    /// The vector that [`Model::fold_in`] makes of a history, and nothing else of it.
    #[must_use]
    pub fn vector_of(&self, history: &[HistoryStep]) -> Option<Vector> {
        let known: Vec<HistoryStep> = history
            .iter()
            .filter(|step| (step.item as usize) < self.len())
            .copied()
            .collect();
        let liked: Vec<(u32, f32)> = positives(&known).collect();
        let model = self;
        let taste = wide(Folded {
            model,
            liked: &liked,
        });
        taste.map(|taste| taste.vector)
    }

    /// A user of whom only such a vector is left; its length does not matter. `None` where it has
    /// another dimension, or is not finite.
    #[must_use]
    pub fn state_of(&self, vector: &[f32]) -> Option<UserState> {
        let vector: Vector = vector.try_into().ok()?;
        let finite = vector.iter().all(|value| value.is_finite());
        let taste = finite.then(|| {
            wide(Spread {
                model: self,
                vector: &vector,
            })
        })?;
        Some(self.state(Vec::new(), Vec::new(), Some(taste), None))
    }

    fn state(
        &self,
        steps: Vec<HistoryStep>,
        liked: Vec<(u32, f32)>,
        taste: Option<TasteVector>,
        withheld: Option<Withheld>,
    ) -> UserState {
        let links = self.links(&steps, withheld.as_ref());
        let (order_mean, order_scale) = self.order_moments(&links);
        let genres = self.genre_taste(&steps);
        let years = self.year_taste(&steps, &liked);
        let mut liked = liked;
        liked.truncate(COMPARED_MAX);
        UserState {
            vector: taste.map(|taste| taste.vector),
            vector_mean: taste.map_or(0.0, |taste| taste.mean),
            vector_scale: taste.map_or(0.0, |taste| taste.scale),
            order_mean,
            order_scale,
            links,
            steps,
            liked,
            genres,
            years,
            withheld,
        }
    }

    fn links(&self, steps: &[HistoryStep], withheld: Option<&Withheld>) -> Links {
        let context = || steps.iter().take(LONG_CONTEXT);
        let most: usize = context()
            .map(|step| self.parts.followers.of(step.item).0.len() + 1)
            .sum();
        let mut links = Links::with_capacity(most);
        let (mut short, mut long) = (1.0, 1.0);
        for (place, step) in context().enumerate() {
            let share = |weight| Share {
                from: step.item,
                weight,
                short: if place < ORDER_CONTEXT { short } else { 0.0 },
                long,
                is_newest: place == 0,
            };
            let (rows, weights) = self.parts.followers.of(step.item);
            for (row, weight) in rows.iter().zip(weights) {
                if withheld.is_none_or(|withheld| withheld.item != *row) {
                    links.add(*row, share(*weight));
                }
            }
            if let Some(withheld) = withheld {
                let own = withheld
                    .links
                    .iter()
                    .filter(|(from, weight)| *from == step.item && *weight > 0.0);
                own.for_each(|(_, weight)| links.add(withheld.item, share(*weight)));
            }
            short *= ORDER_DECAY;
            long *= LONG_DECAY;
        }
        links
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean over the catalogue")]
    fn order_moments(&self, links: &Links) -> (f32, f32) {
        let (mut sum, mut squares) = (0.0f32, 0.0f32);
        for link in links.iter_slots() {
            sum += link.short;
            squares += link.short * link.short;
        }
        let items = self.len().max(1) as f32;
        let mean = sum / items;
        let variance = squares / items - mean * mean;
        (
            mean,
            if variance > 0.0 {
                1.0 / variance.sqrt().max(1e-9)
            } else {
                0.0
            },
        )
    }

    fn genre_taste(&self, steps: &[HistoryStep]) -> GenreTaste {
        let zero = [0.0f32; GENRES_MAX];
        let mut taste = GenreTaste {
            liked: zero,
            other: zero,
            recent: zero,
        };
        let (mut liked, mut other, mut recent) = (1e-6f32, 1e-6f32, 1e-6f32);
        let mut weight = 1.0f32;
        for (place, step) in steps.iter().enumerate() {
            let genres = self.parts.priors[step.item as usize].genres;
            let (to, total) = match step.taste {
                Taste::Positive => (&mut taste.liked, &mut liked),
                Taste::Neutral | Taste::Negative => (&mut taste.other, &mut other),
            };
            *total += weight;
            each_genre(genres, |genre| to[genre] += weight);
            if place < ORDER_CONTEXT {
                recent += 1.0;
                each_genre(genres, |genre| taste.recent[genre] += 1.0);
            }
            weight *= 0.97;
        }
        taste.liked.iter_mut().for_each(|share| *share /= liked);
        taste.other.iter_mut().for_each(|share| *share /= other);
        taste.recent.iter_mut().for_each(|share| *share /= recent);
        taste
    }

    fn year_taste(&self, steps: &[HistoryStep], liked: &[(u32, f32)]) -> YearTaste {
        let year = |item: u32| self.parts.priors[item as usize].year;
        let known = |each: &mut dyn Iterator<Item = (f32, f32)>| {
            let (sum, total) = each.fold((0.0, 0.0), |(sum, total), (year, weight)| {
                if year > 0.0 {
                    (sum + year * weight, total + weight)
                } else {
                    (sum, total)
                }
            });
            if total > 0.0 { sum / total } else { 0.0 }
        };
        YearTaste {
            last: steps.first().map_or(0.0, |step| year(step.item)),
            liked: known(&mut liked.iter().map(|(item, weight)| (year(*item), *weight))),
            recent: known(
                &mut steps
                    .iter()
                    .take(ORDER_CONTEXT)
                    .map(|step| (year(step.item), 1.0)),
            ),
            newest: steps.iter().map(|step| year(step.item)).fold(0.0, f32::max),
        }
    }
}

/// A user's vector, with the mean and 1 / deviation of its scores over the catalogue.
#[derive(Debug, Clone, Copy)]
struct TasteVector {
    vector: Vector,
    mean: f32,
    scale: f32,
}

/// The vector of these items and weights; `None` where nothing is liked.
struct Folded<'a> {
    model: &'a Model,
    liked: &'a [(u32, f32)],
}

impl Kernel for Folded<'_> {
    type Out = Option<TasteVector>;

    #[inline(always)]
    fn run(self, registers: impl Registers) -> Self::Out {
        let Self { model, liked } = self;
        let vectors = liked
            .iter()
            .map(|(item, weight)| (&model.parts.factors[*item as usize], *weight));
        let vector = &model.parts.fold.fold(vectors)?;
        Some(Spread { model, vector }.run(registers))
    }
}

/// How the scores of a vector are spread.
struct Spread<'a> {
    model: &'a Model,
    vector: &'a Vector,
}

impl Kernel for Spread<'_> {
    type Out = TasteVector;

    #[inline(always)]
    fn run(self, registers: impl Registers) -> Self::Out {
        let Self { model, vector } = self;
        let mean = registers.dot(&model.mean, vector);
        let spread: f32 = model
            .covariance
            .iter()
            .zip(vector)
            .map(|(row, value)| value * registers.dot(row, vector))
            .sum();
        let scale = 1.0 / spread.max(0.0).sqrt().max(1e-9);
        TasteVector {
            vector: *vector,
            mean,
            scale,
        }
    }
}

#[inline(always)]
pub(crate) fn each_genre(mut genres: u64, mut with: impl FnMut(usize)) {
    while genres != 0 {
        with(genres.trailing_zeros() as usize);
        genres &= genres - 1;
    }
}
