//! Offline evaluation: splits, and the measures of lists that any closure makes, so that the serving
//! pipeline itself is what gets a figure.

use crate::Interactions;
use crate::interactions::Row;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skerry_types::Taste;
use std::collections::HashSet;

/// Positions of a list that count.
pub const TOP: usize = 10;
/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 2_000;

/// How data is split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Protocol {
    /// Each user's last positive is held out; strict about time: the history is what came before it,
    /// but everything that is trained on stays excluded. `back` positives of each user are dropped
    /// first: 0 to test, 1 to tune on.
    Loo { back: usize },
    /// The last share of time is held out, for users known before.
    Temporal { share: f64 },
}

/// One user to answer for.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub user: u32,
    /// Rows before the held-out positive, oldest first.
    pub history: Vec<Row>,
    /// Items that may not be in the list: all that is trained on. Ascending.
    pub excluded: Vec<u32>,
    /// What is held out.
    pub targets: Vec<u32>,
}

/// Training data and the cases to answer.
#[derive(Debug, Clone)]
pub struct Split {
    pub train: Interactions,
    pub cases: Vec<Case>,
}

/// Measures of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    pub users: usize,
    pub ndcg_at_10: f64,
    pub hr_at_10: f64,
    /// Share of the catalogue that is in any list.
    pub coverage: f64,
    /// Bootstrap interval of NDCG@10 over users, 95 %.
    pub interval: (f64, f64),
}

impl Protocol {
    #[must_use]
    pub fn split(self, data: &Interactions) -> Split {
        match self {
            Self::Loo { back } => loo(data, back),
            Self::Temporal { share } => temporal(data, share),
        }
    }
}

fn loo(data: &Interactions, back: usize) -> Split {
    let rows = data.rows();
    let histories = data.histories();
    let mut out: HashSet<usize> = HashSet::new();
    let mut held: Vec<usize> = Vec::new();
    for history in &histories {
        let liked = history
            .iter()
            .rev()
            .filter(|row| rows[**row as usize].taste == Taste::Positive);
        let last: Vec<usize> = liked.take(back + 1).map(|row| *row as usize).collect();
        out.extend(&last);
        if last.len() == back + 1 {
            held.extend(last.last().copied());
        }
    }
    let train = data.filtered(|at, _| !out.contains(&at));
    let case = |at: usize| {
        let history = histories[rows[at].user as usize]
            .iter()
            .map(|row| *row as usize);
        let train_rows = || history.clone().filter(|row| !out.contains(row));
        Case {
            user: rows[at].user,
            history: train_rows()
                .filter(|row| *row < at)
                .map(|row| rows[row])
                .collect(),
            excluded: ascending(train_rows().map(|row| rows[row].item)),
            targets: vec![rows[at].item],
        }
    };
    held.sort_unstable_by_key(|at| rows[*at].user);
    Split {
        train,
        cases: held.into_iter().map(case).collect(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a quantile"
)]
fn temporal(data: &Interactions, share: f64) -> Split {
    let rows = data.rows();
    let last = rows.len().saturating_sub(1) as f64;
    let at = (last * (1.0 - share.clamp(0.0, 1.0))).floor().max(0.0) as usize;
    let Some(border) = rows.get(at).map(|row| row.at_ms) else {
        return Split {
            train: data.clone(),
            cases: Vec::new(),
        };
    };
    let train = data.filtered(|_, row| row.at_ms <= border);
    let mut targets = vec![Vec::new(); data.users()];
    for row in rows
        .iter()
        .filter(|row| row.at_ms > border && row.taste == Taste::Positive)
    {
        targets[row.user as usize].push(row.item);
    }
    let cases = (0u32..)
        .zip(train.histories())
        .zip(targets)
        .filter(|((_, history), targets)| !history.is_empty() && !targets.is_empty());
    let cases = cases.map(|((user, history), targets)| {
        let history: Vec<Row> = history
            .iter()
            .map(|row| train.rows()[*row as usize])
            .collect();
        let excluded = ascending(history.iter().map(|row| row.item));
        Case {
            user,
            excluded,
            history,
            targets: ascending(targets.into_iter()),
        }
    });
    Split {
        cases: cases.collect(),
        train,
    }
}

fn ascending(items: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut items: Vec<u32> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// Answers every case with `list` (history oldest first, excluded items ascending) and measures.
pub fn evaluate(
    split: &Split,
    seed: u64,
    mut list: impl FnMut(&[Row], &[u32]) -> Vec<u32>,
) -> Report {
    let lists: Vec<Vec<u32>> = split
        .cases
        .iter()
        .map(|case| list(&case.history, &case.excluded))
        .collect();
    measure(&split.cases, &lists, split.train.items().len(), seed)
}

/// Measures lists, one for each case.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of users and items")]
pub fn measure(cases: &[Case], lists: &[Vec<u32>], items: usize, seed: u64) -> Report {
    let mut gains = Vec::with_capacity(cases.len());
    let (mut hits, mut shown) = (0usize, HashSet::<u32>::new());
    for (case, list) in cases.iter().zip(lists) {
        let top = &list[..list.len().min(TOP)];
        shown.extend(top);
        let discount = |place: usize| 1.0 / (place as f64 + 2.0).log2();
        let gain: f64 = top
            .iter()
            .enumerate()
            .filter(|(_, item)| case.targets.contains(item))
            .map(|(place, _)| discount(place))
            .sum();
        let ideal: f64 = (0..case.targets.len().min(TOP)).map(discount).sum();
        hits += usize::from(gain > 0.0);
        gains.push(if ideal > 0.0 { gain / ideal } else { 0.0 });
    }
    let users = gains.len();
    let mean = |sum: f64| sum / users.max(1) as f64;
    Report {
        users,
        ndcg_at_10: mean(gains.iter().sum()),
        hr_at_10: mean(hits as f64),
        coverage: shown.len() as f64 / items.max(1) as f64,
        interval: bootstrap(&gains, seed),
    }
}

/// The 2.5 % and 97.5 % quantiles of the mean over seeded resamples.
#[expect(clippy::cast_precision_loss, reason = "counts of users")]
fn bootstrap(gains: &[f64], seed: u64) -> (f64, f64) {
    if gains.is_empty() {
        return (0.0, 0.0);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut resample = || {
        (0..gains.len())
            .map(|_| gains[rng.random_range(0..gains.len())])
            .sum::<f64>()
    };
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| resample() / gains.len() as f64)
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    (means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40])
}
