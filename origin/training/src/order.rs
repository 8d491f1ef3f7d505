//! Which items follow which in histories: the strongest signal there is here. Counts are kept raw
//! and whole while training, so that one event can be taken out again; the model gets each item's
//! strongest followers.

use crate::Interactions;
use skerry_origin_ranker::Followers;
use skerry_types::Taste;

/// Distance in events over which one item follows another, and its decay.
pub const WINDOW: usize = 5;
pub const DECAY: f32 = 0.7;
/// Weight of the earlier item as a follower of the later one.
const BACK: f32 = 0.5;
/// Added to the count of the followed item.
const SMOOTH: f32 = 5.0;
/// Power of the follower's count that its weight is divided by.
const DAMP: f32 = 0.3;

/// Raw weights by source, each source's followers by rising row.
pub struct OrderCounts {
    starts: Vec<u32>,
    to: Vec<(u32, f32)>,
    /// Events of each item.
    counts: Vec<u32>,
}

impl OrderCounts {
    #[expect(clippy::cast_possible_truncation, reason = "at most ten pairs a row")]
    pub fn new(data: &Interactions, histories: &[Vec<u32>]) -> Self {
        let items = data.items().len();
        let rows = data.rows();
        let mut counts = vec![0u32; items];
        rows.iter().for_each(|row| counts[row.item as usize] += 1);
        let each = |with: &mut dyn FnMut(u32, u32, f32)| {
            for history in histories {
                for (place, later) in history.iter().enumerate() {
                    let later = &rows[*later as usize];
                    let mut weight = 1.0;
                    for earlier in history[place.saturating_sub(WINDOW)..place].iter().rev() {
                        let earlier = &rows[*earlier as usize];
                        if earlier.item != later.item {
                            if later.taste == Taste::Positive {
                                with(earlier.item, later.item, weight);
                            }
                            if earlier.taste == Taste::Positive {
                                with(later.item, earlier.item, weight * BACK);
                            }
                        }
                        weight *= DECAY;
                    }
                }
            }
        };
        let mut starts = vec![0u32; items + 1];
        each(&mut |from, _, _| starts[from as usize + 1] += 1);
        for item in 0..items {
            starts[item + 1] += starts[item];
        }
        let mut next = starts.clone();
        let mut pairs = vec![(0u32, 0.0f32); starts[items] as usize];
        each(&mut |from, to, weight| {
            let at = &mut next[from as usize];
            pairs[*at as usize] = (to, weight);
            *at += 1;
        });
        // Each source's pairs, sorted by follower (stably: sums keep their order) and merged.
        let mut merged_starts = vec![0u32];
        let mut merged: Vec<(u32, f32)> = Vec::with_capacity(pairs.len() / 2);
        for item in 0..items {
            let of_item = &mut pairs[starts[item] as usize..starts[item + 1] as usize];
            of_item.sort_by_key(|pair| pair.0);
            let from = merged.len();
            for (to, weight) in of_item.iter() {
                match merged[from..].last_mut() {
                    Some(last) if last.0 == *to => last.1 += weight,
                    _ => merged.push((*to, *weight)),
                }
            }
            merged_starts.push(merged.len() as u32);
        }
        Self {
            starts: merged_starts,
            to: merged,
            counts,
        }
    }

    fn of(&self, item: u32) -> &[(u32, f32)] {
        &self.to[self.starts[item as usize] as usize..self.starts[item as usize + 1] as usize]
    }

    fn raw(&self, from: u32, to: u32) -> f32 {
        let of = self.of(from);
        of.binary_search_by_key(&to, |pair| pair.0)
            .map_or(0.0, |at| of[at].1)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of events")]
    fn weight(&self, from: u32, to_count: u32, raw: f32) -> f32 {
        raw / (self.counts[from as usize] as f32 + SMOOTH) / (to_count as f32 + 1.0).powf(DAMP)
    }

    /// Each item's `degree` strongest followers.
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the pairs")]
    pub fn followers(&self, degree: usize) -> Followers {
        let mut followers = Followers {
            starts: vec![0],
            rows: Vec::new(),
            weights: Vec::new(),
        };
        let mut row: Vec<(u32, f32)> = Vec::new();
        for item in 0..self.counts.len() as u32 {
            row.clear();
            row.extend(
                self.of(item)
                    .iter()
                    .map(|(to, raw)| (*to, self.weight(item, self.counts[*to as usize], *raw))),
            );
            row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            row.truncate(degree);
            followers.rows.extend(row.iter().map(|(to, _)| *to));
            followers
                .weights
                .extend(row.iter().map(|(_, weight)| *weight));
            followers.starts.push(followers.rows.len() as u32);
        }
        followers
    }

    /// Weights of `target` as a follower of the items before it (newest first), as if the event on it
    /// had not happened; what would not be among the kept followers is left out.
    pub fn without(
        &self,
        target: u32,
        before: &[u32],
        followers: &Followers,
        degree: usize,
    ) -> Vec<(u32, f32)> {
        let count = self.counts[target as usize].saturating_sub(1);
        let mut own = 1.0;
        let mut links = Vec::new();
        for (place, from) in before.iter().enumerate() {
            let raw = self.raw(*from, target) - if place < WINDOW { own } else { 0.0 };
            own *= DECAY;
            let weight = self.weight(*from, count, raw);
            let (_, weights) = followers.of(*from);
            let least = if weights.len() < degree {
                0.0
            } else {
                weights.last().copied().unwrap_or(0.0)
            };
            if raw > 1e-4 && weight >= least {
                links.push((*from, weight));
            }
        }
        links
    }
}
