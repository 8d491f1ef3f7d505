//! MovieLens ratings, the split "last positive out", and the score of a list: written apart from
//! the product's own, so that the two can be held against each other.

use anyhow::Context;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

/// Ratings from this value on are positive.
const POSITIVE: f32 = 4.0;

#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    pub user: String,
    pub item: String,
    pub value: String,
    pub at_s: u64,
}

/// A training part, and what is held out of it by user.
#[derive(Debug, Clone)]
pub struct Split {
    pub train: Vec<Rating>,
    pub held: BTreeMap<String, Held>,
}

/// A user's held-out item, and what of the training part the user rated before it and after it: to be
/// strict about time, the one is what is known and the other only what may not be in the list.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Held {
    pub item: String,
    pub before: Vec<Rating>,
    pub after: Vec<Rating>,
}

/// `ratings.csv` of a MovieLens folder, by time, then item.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Rating>> {
    let path = folder.join("ratings.csv");
    let mut reader = csv::Reader::from_path(&path).with_context(|| path.display().to_string())?;
    let mut ratings = Vec::new();
    for row in reader.records() {
        let row = row?;
        let field = |at: usize| row.get(at).context("a short row");
        ratings.push(Rating {
            user: field(0)?.to_owned(),
            item: field(1)?.to_owned(),
            value: field(2)?.to_owned(),
            at_s: field(3)?.parse()?,
        });
    }
    ratings.sort_by_key(|rating| (rating.at_s, rating.item.parse::<u64>().unwrap_or(u64::MAX)));
    Ok(ratings)
}

/// Holds out each user's last positive rating; of users who would have nothing left, none.
#[must_use]
pub fn leave_last_out(ratings: Vec<Rating>) -> Split {
    let mut last = BTreeMap::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (at, rating) in ratings.iter().enumerate() {
        *counts.entry(rating.user.clone()).or_default() += 1;
        if rating
            .value
            .parse::<f32>()
            .is_ok_and(|value| value >= POSITIVE)
        {
            last.insert(rating.user.clone(), at);
        }
    }
    last.retain(|user, _| counts.get(user).is_some_and(|count| *count > 1));
    let taken: BTreeSet<usize> = last.values().copied().collect();
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    for (at, rating) in ratings.iter().enumerate() {
        let Some(own) = last.get(&rating.user) else {
            continue;
        };
        let held = held.entry(rating.user.clone()).or_default();
        match at.cmp(own) {
            Ordering::Less => held.before.push(rating.clone()),
            Ordering::Equal => held.item = rating.item.clone(),
            Ordering::Greater => held.after.push(rating.clone()),
        }
    }
    let train = ratings
        .into_iter()
        .enumerate()
        .filter(|(at, _)| !taken.contains(at))
        .map(|(_, rating)| rating)
        .collect();
    Split { train, held }
}

/// Writes a MovieLens folder of these ratings, with the movies of another.
pub fn write(folder: &Path, ratings: &[Rating], movies: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Read and written, not copied: the source may be read-only, and so would be the copy.
    std::fs::write(
        folder.join("movies.csv"),
        std::fs::read(movies.join("movies.csv"))?,
    )?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(folder.join("ratings.csv"))?);
    writeln!(file, "userId,movieId,rating,timestamp")?;
    for rating in ratings {
        writeln!(
            file,
            "{},{},{},{}",
            rating.user, rating.item, rating.value, rating.at_s
        )?;
    }
    Ok(file.flush()?)
}

/// NDCG@10 of a list with one relevant item: 1 / log2(position + 1), 0 where it is not there.
#[must_use]
pub fn ndcg_at_10(list: &[String], relevant: &str) -> f64 {
    hit_at(list, relevant).map_or(0.0, |at| 1.0 / (at as f64 + 2.0).log2())
}

/// Position from 0 among the first ten.
#[must_use]
pub fn hit_at(list: &[String], relevant: &str) -> Option<usize> {
    list.iter().take(10).position(|id| id == relevant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_positive_is_held_out() {
        let rating = |user: &str, item: &str, value: &str, at_s| Rating {
            user: user.into(),
            item: item.into(),
            value: value.into(),
            at_s,
        };
        let ratings = vec![
            rating("a", "1", "5.0", 1),
            rating("a", "2", "4.0", 2),
            rating("a", "3", "2.0", 3),
            rating("b", "1", "5.0", 1),
            rating("c", "1", "1.0", 1),
            rating("c", "2", "1.0", 2),
        ];
        let split = leave_last_out(ratings);
        let held = Held {
            item: "2".to_owned(),
            before: vec![rating("a", "1", "5.0", 1)],
            after: vec![rating("a", "3", "2.0", 3)],
        };
        assert_eq!(split.held, BTreeMap::from([("a".to_owned(), held)]));
        assert_eq!(split.train.len(), 5);
    }

    #[test]
    fn ndcg_falls_with_the_position() {
        let list: Vec<String> = (0..12).map(|i| i.to_string()).collect();
        assert_eq!(ndcg_at_10(&list, "0"), 1.0);
        assert!((ndcg_at_10(&list, "1") - 0.6309).abs() < 1e-4);
        assert_eq!(ndcg_at_10(&list, "10"), 0.0);
    }
}
