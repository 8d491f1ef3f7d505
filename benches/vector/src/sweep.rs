//! Recall, and speed at a fixed recall.
//!
//! An engine is asked with ever more candidates (`ef`) until its recall passes the highest wanted
//! one. Between the two neighbouring points around a wanted recall the logarithm of the speed is
//! taken as linear in the recall.

/// Tried in this order.
pub const EFS: &[usize] = &[
    10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512,
    640, 768, 1_024, 1_536, 2_048,
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub ef: usize,
    pub recall: f64,
    pub per_second: f64,
}

/// Which of the points (by place) a wanted recall lies between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    Between(usize, usize),
    /// The fastest point is better already: its speed counts.
    Above(usize),
    /// No point is as good.
    Unreached,
}

/// The share of the true nearest that was found; `found` and `truth` have `k` rows of each query.
pub fn recall(found: &[u32], truth: &[u32], k: usize) -> f64 {
    let (found, truth) = (found.chunks_exact(k), truth.chunks_exact(k));
    let queries = truth.len();
    let hits: usize = truth
        .zip(found)
        .map(|(truth, found)| truth.iter().filter(|row| found.contains(row)).count())
        .sum();
    hits as f64 / (queries * k).max(1) as f64
}

/// `points` in the order of their `ef`.
pub fn around(points: &[Point], wanted: f64) -> Around {
    match points.iter().position(|point| point.recall >= wanted) {
        None => Around::Unreached,
        Some(0) => Around::Above(0),
        Some(at) => Around::Between(at - 1, at),
    }
}

/// Queries a second at the wanted recall; none where it is not reached.
pub fn at_recall(points: &[Point], wanted: f64) -> Option<f64> {
    match around(points, wanted) {
        Around::Unreached => None,
        Around::Above(at) => Some(points[at].per_second),
        Around::Between(low, high) => {
            let (low, high) = (points[low], points[high]);
            let share = (wanted - low.recall) / (high.recall - low.recall);
            let log = low.per_second.ln() * (1.0 - share) + high.per_second.ln() * share;
            Some(log.exp())
        }
    }
}

/// Places of the points that the rounds measure again: those around each wanted recall.
pub fn to_measure(points: &[Point], wanted: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = wanted
        .iter()
        .flat_map(|wanted| match around(points, *wanted) {
            Around::Between(low, high) => vec![low, high],
            Around::Above(at) => vec![at],
            Around::Unreached => Vec::new(),
        })
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(all: &[(usize, f64, f64)]) -> Vec<Point> {
        all.iter()
            .map(|&(ef, recall, per_second)| Point {
                ef,
                recall,
                per_second,
            })
            .collect()
    }

    #[test]
    fn recall_counts_rows_of_the_same_query_in_any_order() {
        let cases: [(&[u32], &[u32], f64); 5] = [
            (&[1, 2, 3, 4], &[2, 1, 4, 3], 1.0),
            (&[1, 2, 3, 4], &[3, 4, 1, 2], 0.0),
            (&[1, 9, 3, 4], &[1, 2, 3, 4], 0.75),
            // Fewer answers than questions: what is missing was not found.
            (&[1, 2], &[1, 2, 3, 4], 0.5),
            (&[], &[], 0.0),
        ];
        for (found, truth, want) in cases {
            assert_eq!(recall(found, truth, 2), want, "{found:?} {truth:?}");
        }
    }

    #[test]
    fn speed_is_interpolated_in_its_logarithm() {
        let all = points(&[(10, 0.90, 1000.0), (20, 0.96, 100.0), (40, 0.99, 10.0)]);
        let close = |got: Option<f64>, want: f64| (got.unwrap() - want).abs() < 1e-6 * want;
        assert!(close(at_recall(&all, 0.93), 1000.0f64 * 0.1f64.sqrt()));
        assert!(close(at_recall(&all, 0.96), 100.0));
        assert!(close(at_recall(&all, 0.99), 10.0));
        assert!(
            close(at_recall(&all, 0.5), 1000.0),
            "the fastest point counts"
        );
        assert_eq!(at_recall(&all, 0.995), None);
        assert_eq!(at_recall(&[], 0.9), None);
    }

    #[test]
    fn a_recall_that_falls_again_takes_the_first_passing() {
        let all = points(&[(10, 0.94, 9.0), (20, 0.951, 8.0), (40, 0.949, 7.0)]);
        assert_eq!(around(&all, 0.95), Around::Between(0, 1));
    }

    #[test]
    fn only_what_lies_around_is_measured_again() {
        let all = points(&[
            (10, 0.90, 5.0),
            (20, 0.94, 4.0),
            (30, 0.96, 3.0),
            (40, 0.98, 2.0),
            (50, 0.99, 1.0),
        ]);
        assert_eq!(to_measure(&all, &[0.95, 0.99]), [1, 2, 3, 4]);
        assert_eq!(to_measure(&all[..3], &[0.95, 0.99]), [1, 2]);
        assert_eq!(to_measure(&all[2..], &[0.95, 0.99]), [0, 1, 2]);
    }
}
