//! Zipf's law over ranks, sampled by a table: what users and items arrive like.

/// Draws ranks 0..n, rank r with weight 1 / (r + 1)^s.
#[derive(Debug, Clone)]
pub struct Zipf {
    /// Cumulative shares, ascending, the last one 1.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// `n` ranks; at least one.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^52")]
    pub fn new(n: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=n.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Self { cumulative }
    }

    /// The rank for a roll in 0..1.
    #[must_use]
    pub fn rank(&self, roll: f64) -> usize {
        self.cumulative
            .partition_point(|share| *share <= roll)
            .min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_ranks_come_often_and_all_rolls_are_in_range() {
        let zipf = Zipf::new(100, 1.0);
        assert_eq!(zipf.rank(0.0), 0);
        assert_eq!(zipf.rank(1.0), 99);
        let half = (0..1000)
            .filter(|i| zipf.rank(f64::from(*i) / 1000.0) < 10)
            .count();
        assert!((500..620).contains(&half), "{half}");
    }
}
