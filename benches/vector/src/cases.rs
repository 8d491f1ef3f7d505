//! Cases that only our index is asked: orders of insertion, filters, churn.

use crate::dataset::DataSet;
use crate::ours::{Kept, Ours};
use crate::worker::{Engine, cpu_s};
use skerry_bench_report::{Row, median};

/// Candidates of every search here: a recall of .99 on `ml` without conditions.
const EF: usize = 128;
/// Copies of one vector: what a default for new users and items does to an index.
const COPIES: usize = 5_000;
const SORT_CLUSTERS: usize = 64;
/// Two scores this near are one: copies and roundings do not lose recall.
const SAME_SCORE: f32 = 1e-5;
const PASS_SHARES: [f64; 4] = [0.5, 0.1, 0.01, 0.001];
const CHURN_SHARE: f64 = 0.3;
const FILTER_RECALL_MIN: f64 = 0.99;
/// Recall that churn may cost.
const CHURN_RECALL_LOSS_MAX: f64 = 0.005;

pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (heads, tails) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0.0f32; 16];
    for (a, b) in heads.0.iter().zip(tails.0) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = heads.1.iter().zip(tails.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// SplitMix64: a draw for a row that is the same everywhere.
pub fn draw(row: u64) -> u64 {
    let x = (row + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Vectors in an order, and what is asked of them.
struct Case<'a> {
    dim: usize,
    base: &'a [f32],
    queries: Vec<&'a [f32]>,
}

impl Case<'_> {
    fn row(&self, row: u32) -> Option<&[f32]> {
        self.base.chunks_exact(self.dim).nth(row as usize)
    }

    /// The score of the `k`-th nearest of the rows, of each query.
    fn bars(&self, rows: impl Iterator<Item = u32> + Clone, k: usize) -> Vec<f32> {
        let score = |query: &&[f32]| {
            let mut scores: Vec<f32> = rows
                .clone()
                .filter_map(|row| self.row(row))
                .map(|vector| dot(query, vector))
                .collect();
            scores.sort_unstable_by(|a, b| b.total_cmp(a));
            scores.get(k.min(scores.len()).saturating_sub(1)).copied()
        };
        self.queries
            .iter()
            .map(|query| score(query).unwrap_or(f32::MAX))
            .collect()
    }

    /// The share of `wanted` results a query that are as near as the `k`-th nearest.
    fn recall(&self, found: &[Vec<u32>], bars: &[f32], wanted: usize) -> f64 {
        let hits: usize = self
            .queries
            .iter()
            .zip(found)
            .zip(bars)
            .map(|((query, rows), bar)| {
                let vectors = rows.iter().filter_map(|row| self.row(*row));
                let near = vectors.filter(|vector| dot(query, vector) >= bar - SAME_SCORE);
                near.count().min(wanted)
            })
            .sum();
        hits as f64 / (self.queries.len() * wanted).max(1) as f64
    }

    fn search_kept(&self, kept: &Kept, k: usize) -> anyhow::Result<Vec<Vec<u32>>> {
        let queries = self.queries.iter();
        queries
            .map(|query| kept.search(query, k, EF, None))
            .collect()
    }

    fn search(&self, index: &mut Ours, k: usize) -> anyhow::Result<Vec<Vec<u32>>> {
        self.queries
            .iter()
            .map(|query| {
                let mut rows = Vec::new();
                index.search(self.base, query, k, EF, &mut rows)?;
                Ok(rows)
            })
            .collect()
    }
}

fn case<'a>(set: &'a DataSet, base: &'a [f32], queries: usize) -> Case<'a> {
    Case {
        dim: set.dim,
        base,
        queries: set.queries.chunks_exact(set.dim).take(queries).collect(),
    }
}

/// As it comes (random), sorted by cluster, and with many copies of one vector: recall, and points
/// that cannot be reached.
pub fn orders(set: &DataSet, queries: usize) -> anyhow::Result<Vec<Row>> {
    let sorted = sorted(set);
    let copies = with_copies(set);
    let mut rows = Vec::new();
    for (name, base) in [
        ("random", &set.base),
        ("sorted", &sorted),
        ("copies", &copies),
    ] {
        eprintln!("   {}: order of insertion {name} ...", set.name);
        let mut index = Ours::over(set.dim, base)?;
        let case = case(set, base, queries);
        let count = (base.len() / set.dim) as u32;
        let bars = case.bars(0..count, set.nearest);
        let found = case.search(&mut index, set.nearest)?;
        let recall = case.recall(&found, &bars, set.nearest);
        let name = |what: &str| format!("vector.{}.{name}.{what}", set.name);
        rows.push(Row::new(name("recall"), recall, ""));
        rows.push(Row {
            target: Some(0.0),
            ..Row::new(name("unreachable"), index.unreachable() as f64, "points")
        });
    }
    Ok(rows)
}

/// Rows of one cluster after those of another, as an export by category would bring them.
fn sorted(set: &DataSet) -> Vec<f32> {
    let mut rows: Vec<(usize, f32, usize)> = (0..set.rows())
        .map(|row| {
            let near = |centre: usize| dot(set.row(row), set.row(centre));
            let (centre, score) = (0..SORT_CLUSTERS.min(set.rows()))
                .map(|centre| (centre, near(centre)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .unwrap_or_default();
            (centre, -score, row)
        })
        .collect();
    rows.sort_by(|a, b| (a.0, a.2).cmp(&(b.0, b.2)).then(a.1.total_cmp(&b.1)));
    rows.iter()
        .flat_map(|(_, _, row)| set.row(*row))
        .copied()
        .collect()
}

/// The set with copies of its mean among the first half.
fn with_copies(set: &DataSet) -> Vec<f32> {
    let mut mean = vec![0.0f32; set.dim];
    for vector in set.base.chunks_exact(set.dim) {
        mean.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
    }
    let length = dot(&mean, &mean).sqrt();
    mean.iter_mut().for_each(|x| *x /= length);
    let half = set.rows() / 2 * set.dim;
    let mut all = set.base[..half].to_vec();
    for _ in 0..COPIES {
        all.extend_from_slice(&mean);
    }
    all.extend_from_slice(&set.base[half..]);
    all
}

/// Recall and time of searches in a collection under a condition that a share of the rows meets: drawn,
/// or all in one place (those nearest to some row).
pub fn filters(set: &DataSet, queries: usize) -> anyhow::Result<Vec<Row>> {
    let case = case(set, &set.base, queries);
    let mut by_place: Vec<u32> = (0..set.rows() as u32).collect();
    by_place.sort_by(|a, b| {
        let score = |row: u32| dot(set.row(0), set.row(row as usize));
        score(*b).total_cmp(&score(*a))
    });
    let mut by_chance: Vec<u32> = (0..set.rows() as u32).collect();
    by_chance.sort_by_key(|row| draw(u64::from(*row)));
    let mut conditions = Vec::new();
    for share in PASS_SHARES {
        for (kind, order) in [("random", &by_chance), ("clustered", &by_place)] {
            let mut allowed = order[..(set.rows() as f64 * share).round() as usize].to_vec();
            allowed.sort_unstable();
            conditions.push((format!("{kind}.{}", share * 100.0), share, allowed));
        }
    }
    let mut meets: Vec<Vec<&str>> = vec![Vec::new(); set.rows()];
    for (name, _, allowed) in &conditions {
        allowed
            .iter()
            .for_each(|row| meets[*row as usize].push(name));
    }
    eprintln!("   {}: a collection with conditions ...", set.name);
    let kept = Kept::empty(set.dim)?;
    let each = (0..set.rows()).zip(meets);
    kept.upsert(each.map(|(row, meets)| (row as u32, set.row(row), meets)))?;
    kept.compact()?;

    let timed = |k: usize, name: Option<&str>| -> anyhow::Result<(Vec<Vec<u32>>, f64)> {
        let mut found = Vec::new();
        let mut times_us = Vec::new();
        for query in &case.queries {
            let started = cpu_s();
            found.push(kept.search(query, k, EF, name)?);
            times_us.push((cpu_s() - started) * 1e6);
        }
        Ok((found, median(&times_us)))
    };
    timed(set.nearest, None)?;
    let (_, plain_us) = timed(set.nearest, None)?;
    let mut rows = Vec::new();
    for (name, share, allowed) in &conditions {
        eprintln!("   {}: {name} % pass ...", set.name);
        let wanted = set.nearest.min(allowed.len());
        let bars = case.bars(allowed.iter().copied(), wanted);
        let (found, us) = timed(wanted, Some(name))?;
        anyhow::ensure!(
            found
                .iter()
                .flatten()
                .all(|row| allowed.binary_search(row).is_ok()),
            "a row came that the condition forbids"
        );
        let recall = case.recall(&found, &bars, wanted);
        let name = |what: &str| format!("vector.{}.filter.{name}.{what}", set.name);
        rows.push(Row {
            ratio: Some(recall / FILTER_RECALL_MIN),
            target: Some(FILTER_RECALL_MIN),
            ..Row::new(name("recall"), recall, "")
        });
        let row = Row::new(name("latency"), us, "us");
        let ratio = plain_us / us;
        rows.push(if *share == 0.01 {
            row.against("unfiltered", ratio, 1.0)
        } else {
            row.beside("unfiltered", ratio)
        });
    }
    Ok(rows)
}

/// A share of the rows replaced and the index compacted, against one built from what is there then.
pub fn churn(set: &DataSet, queries: usize) -> anyhow::Result<Vec<Row>> {
    // The last rows of the set come in for those that leave.
    let fresh = (set.rows() as f64 * CHURN_SHARE) as usize;
    let old = set.rows() - fresh;
    let (first, last) = set.base.split_at(old * set.dim);
    let mut leaving: Vec<u32> = (0..old as u32).collect();
    leaving.sort_by_key(|row| draw(u64::from(*row)));
    leaving.truncate((old as f64 * CHURN_SHARE) as usize);
    leaving.sort_unstable();
    // Rows are counted anew: those that stayed in their order, then the fresh ones.
    let stayed = (0..old).filter(|row| leaving.binary_search(&(*row as u32)).is_err());
    let mut now: Vec<f32> = stayed
        .clone()
        .flat_map(|row| set.row(row))
        .copied()
        .collect();
    now.extend_from_slice(last);
    let mut ids = vec![u32::MAX; old];
    for (new, row) in (0u32..).zip(stayed) {
        ids[row] = new;
    }
    let stay = now.len() / set.dim - fresh;
    let mut gone = u32::MAX;
    for id in ids.iter_mut().filter(|id| **id == u32::MAX) {
        *id = gone;
        gone -= 1;
    }
    eprintln!("   {}: churn ...", set.name);
    let churned = Kept::empty(set.dim)?;
    let old_rows = ids.iter().zip(first.chunks_exact(set.dim));
    churned.upsert(old_rows.map(|(id, vector)| (*id, vector, Vec::new())))?;
    churned.compact()?;
    let leaving: Vec<u32> = leaving.iter().map(|row| ids[*row as usize]).collect();
    churned.delete(&leaving)?;
    let fresh_rows = (stay as u32..).zip(last.chunks_exact(set.dim));
    churned.upsert(fresh_rows.map(|(id, vector)| (id, vector, Vec::new())))?;
    churned.compact()?;
    let rebuilt = Kept::empty(set.dim)?;
    let all = (0u32..).zip(now.chunks_exact(set.dim));
    rebuilt.upsert(all.map(|(id, vector)| (id, vector, Vec::new())))?;
    rebuilt.compact()?;

    let case = case(set, &now, queries);
    let bars = case.bars(0..(now.len() / set.dim) as u32, set.nearest);
    let recall = |kept: &Kept| -> anyhow::Result<f64> {
        let found = case.search_kept(kept, set.nearest)?;
        Ok(case.recall(&found, &bars, set.nearest))
    };
    let (after, fresh) = (recall(&churned)?, recall(&rebuilt)?);
    Ok(vec![
        Row::new(format!("vector.{}.churn.recall", set.name), after, "").against(
            "rebuild",
            after / fresh,
            1.0 - CHURN_RECALL_LOSS_MAX,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows on a circle, a degree apart.
    fn circle(rows: usize) -> DataSet {
        let base = (0..rows)
            .flat_map(|row| {
                let angle = (row as f32).to_radians();
                [angle.cos(), angle.sin()]
            })
            .collect();
        DataSet {
            name: "circle",
            dim: 2,
            base_path: "base".into(),
            queries_path: "queries".into(),
            base,
            queries: vec![1.0, 0.0, 0.0, 1.0],
            truth: vec![0, 1, 90, 89],
            nearest: 2,
        }
    }

    #[test]
    fn recall_goes_by_the_score_of_the_last_that_counts() {
        let set = circle(91);
        let case = case(&set, &set.base, 2);
        let bars = case.bars(0..91, 2);
        let checks: [([&[u32]; 2], f64); 4] = [
            ([&[0, 1], &[90, 89]], 1.0),
            ([&[1, 0], &[90, 45]], 0.75),
            ([&[0], &[]], 0.25),
            ([&[50, 51], &[1, 2]], 0.0),
        ];
        for (found, want) in checks {
            let found: Vec<Vec<u32>> = found.iter().map(|rows| rows.to_vec()).collect();
            assert_eq!(case.recall(&found, &bars, 2), want, "{found:?}");
        }
        // Among fewer rows, the nearest of those.
        let bars = case.bars([10, 80].into_iter(), 1);
        assert_eq!(case.recall(&[vec![10], vec![80]], &bars, 1), 1.0);
        assert_eq!(case.recall(&[vec![80], vec![10]], &bars, 1), 0.0);
    }

    #[test]
    fn copies_do_not_lose_recall() {
        let set = circle(91);
        let mut base = set.base.clone();
        base.extend_from_slice(&set.base[..2]);
        let case = case(&set, &base, 1);
        let bars = case.bars(0..92, 1);
        assert_eq!(case.recall(&[vec![91]], &bars, 1), 1.0);
    }

    #[test]
    fn orders_keep_every_row() {
        let set = circle(91);
        let rows = |base: &[f32]| {
            let mut rows: Vec<[u32; 2]> = base
                .chunks_exact(2)
                .map(|row| [row[0].to_bits(), row[1].to_bits()])
                .collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(rows(&sorted(&set)), rows(&set.base));
        let copies = with_copies(&set);
        assert_eq!(copies.len(), set.base.len() + COPIES * 2);
        assert_eq!(copies[..90], set.base[..90]);
        let same = copies[90..]
            .chunks_exact(2)
            .filter(|row| *row == &copies[90..92]);
        assert!(same.count() >= COPIES);
    }

    #[test]
    fn the_dot_product_takes_every_component() {
        for dim in [1, 15, 16, 17, 33] {
            assert_eq!(dot(&vec![1.0; dim], &vec![2.0; dim]), 2.0 * dim as f32);
        }
    }
}
