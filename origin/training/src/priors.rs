//! What is known of items beside any user: popularity, ratings, recency, year, genres. Sums are kept
//! so that one event can be taken out again.

use crate::Interactions;
use crate::interactions::Row;
use skerry_origin_ranker::Prior;
use skerry_types::{Attributes, Taste, Value};
use std::collections::HashMap;

/// Genres that get a bit, at most.
const GENRES_MAX: usize = 64;
/// Ratings of the mean kind that every item starts with.
const RATING_SHRINK: f64 = 5.0;

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    positives: f64,
    events: f64,
    ratings: f64,
    rated: f64,
    trend: f64,
    places: f64,
}

pub struct PriorSums {
    sums: Vec<Sums>,
    years: Vec<f32>,
    genres: Vec<u64>,
    mean_rating: f64,
    rows: f64,
    half_life: f64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts and years"
)]
impl PriorSums {
    /// `half_life` is a share of the log.
    pub fn new(data: &Interactions, half_life: f64) -> Self {
        let rows = data.rows().len().max(1) as f64;
        let mut this = Self {
            sums: vec![Sums::default(); data.items().len()],
            years: data
                .items()
                .iter()
                .map(|(_, attributes)| year(attributes))
                .collect(),
            genres: genre_bits(data),
            mean_rating: 0.0,
            rows,
            half_life: (half_life * rows).max(1.0),
        };
        for (place, row) in data.rows().iter().enumerate() {
            let mut sums = this.sums[row.item as usize];
            this.add(&mut sums, place, row, 1.0);
            this.sums[row.item as usize] = sums;
        }
        let (ratings, rated) = this.sums.iter().fold((0.0, 0.0), |(a, b), sums| {
            (a + sums.ratings, b + sums.rated)
        });
        this.mean_rating = if rated > 0.0 { ratings / rated } else { 0.0 };
        this
    }

    fn add(&self, sums: &mut Sums, place: usize, row: &Row, sign: f64) {
        let positive = f64::from(u8::from(row.taste == Taste::Positive)) * sign;
        sums.positives += positive;
        sums.events += sign;
        if let Some(value) = row.value {
            sums.ratings += f64::from(value) * sign;
            sums.rated += sign;
        }
        let age = (self.rows - 1.0 - place as f64) / self.half_life;
        sums.trend += positive * (-age).exp2();
        sums.places += sign * place as f64 / self.rows;
    }

    pub fn prior(&self, item: u32) -> Prior {
        self.of(item, &self.sums[item as usize])
    }

    /// The prior of a row's item as if that row (at `place` of the log) had not happened.
    pub fn without(&self, place: usize, row: &Row) -> Prior {
        let mut sums = self.sums[row.item as usize];
        self.add(&mut sums, place, row, -1.0);
        self.of(row.item, &sums)
    }

    fn of(&self, item: u32, sums: &Sums) -> Prior {
        let rating =
            (sums.ratings + self.mean_rating * RATING_SHRINK) / (sums.rated + RATING_SHRINK);
        Prior {
            popularity: sums.positives.max(0.0).ln_1p() as f32,
            rating: rating as f32,
            trend: sums.trend.max(0.0).ln_1p() as f32,
            recency: if sums.events > 0.5 {
                (sums.places / sums.events) as f32
            } else {
                0.0
            },
            year: self.years[item as usize],
            genres: self.genres[item as usize],
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a year")]
fn year(attributes: &Attributes) -> f32 {
    attributes
        .get("year")
        .and_then(Value::as_f64)
        .filter(|year| (1.0..=9999.0).contains(year))
        .unwrap_or(0.0) as f32
}

fn genre_bits(data: &Interactions) -> Vec<u64> {
    let of = |attributes: &Attributes| -> Vec<String> {
        let genre = attributes.get("genre").into_iter();
        genre
            .flat_map(Value::each)
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (_, attributes) in data.items() {
        of(attributes)
            .into_iter()
            .for_each(|genre| *counts.entry(genre).or_default() += 1);
    }
    let mut names: Vec<(String, usize)> = counts.into_iter().collect();
    names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let bits: HashMap<String, u32> = names
        .into_iter()
        .map(|(name, _)| name)
        .take(GENRES_MAX)
        .zip(0..)
        .collect();
    let bit = |genre: String| bits.get(&genre).map_or(0, |bit| 1u64 << bit);
    data.items()
        .iter()
        .map(|(_, attributes)| {
            of(attributes)
                .into_iter()
                .map(bit)
                .fold(0, |all, bit| all | bit)
        })
        .collect()
}
