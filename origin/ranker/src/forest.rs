//! Gradient-boosted trees, scored for all candidates at once.
//!
//! Features become bins (positions among the thresholds in use), then every node is one byte
//! comparison over 32 candidates (QuickScorer by bit vectors: Lucchese et al. 2015, here vectorised
//! across candidates as in RapidScorer). Leaves are numbered left to right; a node that sends a
//! candidate right clears the leaves of its left subtree; the lowest bit left is the exit leaf.

#[cfg(target_arch = "x86_64")]
mod avx2;

/// Leaves of a tree, at most: one bit each in a byte.
pub const LEAVES_MAX: usize = 8;
/// Thresholds of a feature, at most: a bin is a byte.
pub const THRESHOLDS_MAX: usize = 255;
/// Trees, at most.
pub const TREES_MAX: usize = 4096;

const BLOCK: usize = 32;

/// Goes left where `feature <= threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    pub feature: u8,
    pub threshold: f32,
    /// Leaves of the left subtree, as bits.
    pub left_leaves: u8,
}

/// A tree, flattened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
    /// Left to right.
    pub leaves: Vec<f32>,
}

/// All trees, and the weight of the base score that they correct.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    trees: Vec<Tree>,
    base_weight: f32,
    features: usize,
    thresholds: Vec<Vec<f32>>,
    /// Per tree: where its nodes end in `flat`.
    ends: Vec<u32>,
    flat: Vec<FlatNode>,
    leaves: Vec<[f32; LEAVES_MAX]>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct FlatNode {
    feature: u8,
    /// Right where the bin is larger.
    bin: u8,
    /// What stays of the mask on the way right.
    keep: u8,
}

impl Forest {
    /// `None` where a tree is out of bounds or a value is not finite.
    #[must_use]
    pub fn new(trees: Vec<Tree>, features: usize, base_weight: f32) -> Option<Self> {
        let sound = |tree: &Tree| {
            let leaves = tree.leaves.len();
            let nodes = tree.nodes.iter();
            (1..=LEAVES_MAX).contains(&leaves)
                && tree.nodes.len() + 1 == leaves
                && tree.leaves.iter().all(|leaf| leaf.is_finite())
                && nodes.clone().all(|node| node.threshold.is_finite() && usize::from(node.feature) < features)
                // Whatever the features, at least one leaf must remain: the last one always does.
                && nodes.clone().all(|node| usize::from(node.left_leaves) < 1usize << (leaves - 1))
        };
        if trees.len() > TREES_MAX
            || features > 256
            || !base_weight.is_finite()
            || !trees.iter().all(sound)
        {
            return None;
        }
        let mut thresholds = vec![Vec::new(); features];
        for node in trees.iter().flat_map(|tree| &tree.nodes) {
            thresholds[usize::from(node.feature)].push(node.threshold);
        }
        for of_feature in &mut thresholds {
            of_feature.sort_unstable_by(f32::total_cmp);
            of_feature.dedup();
            if of_feature.len() > THRESHOLDS_MAX {
                return None;
            }
        }
        let mut forest = Self {
            trees,
            base_weight,
            features,
            thresholds,
            ends: Vec::new(),
            flat: Vec::new(),
            leaves: Vec::new(),
        };
        for tree in &forest.trees {
            for node in &tree.nodes {
                let of_feature = &forest.thresholds[usize::from(node.feature)];
                let bin = u8::try_from(of_feature.partition_point(|value| *value < node.threshold))
                    .ok()?;
                forest.flat.push(FlatNode {
                    feature: node.feature,
                    bin,
                    keep: !node.left_leaves,
                });
            }
            forest.ends.push(u32::try_from(forest.flat.len()).ok()?);
            let mut leaves = [0.0; LEAVES_MAX];
            leaves[..tree.leaves.len()].copy_from_slice(&tree.leaves);
            forest.leaves.push(leaves);
        }
        Some(forest)
    }

    #[must_use]
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    #[must_use]
    pub const fn features(&self) -> usize {
        self.features
    }

    #[must_use]
    pub const fn base_weight(&self) -> f32 {
        self.base_weight
    }

    /// Scores rows given by columns (`columns[feature * rows + row]`); `scores` starts with the base
    /// scores and has the rows' count.
    pub fn score(&self, columns: &[f32], scores: &mut [f32]) {
        let rows = scores.len();
        scores
            .iter_mut()
            .for_each(|score| *score *= self.base_weight);
        if rows == 0 || columns.len() < self.features * rows {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(registers) = crate::wide::avx2::Avx2::new() {
            return registers.add_forest(self, columns, scores);
        }
        self.add_plain(columns, scores);
    }

    fn add_plain(&self, columns: &[f32], scores: &mut [f32]) {
        let rows = scores.len();
        let blocks = rows.div_ceil(BLOCK);
        let mut bins = vec![[0u8; BLOCK]; blocks * self.features];
        for (feature, thresholds) in self.thresholds.iter().enumerate() {
            let column = &columns[feature * rows..(feature + 1) * rows];
            for (block, values) in column.chunks(BLOCK).enumerate() {
                let bins = &mut bins[block * self.features + feature];
                *bins = bins_of(thresholds, values);
            }
        }
        for (block, scores) in scores.chunks_mut(BLOCK).enumerate() {
            let bins = &bins[block * self.features..(block + 1) * self.features];
            let mut sums = [0.0f32; BLOCK];
            let mut from = 0;
            for (end, leaves) in self.ends.iter().zip(&self.leaves) {
                let end = *end as usize;
                let mut masks = [0xFFu8; BLOCK];
                for node in &self.flat[from..end] {
                    let bins = &bins[usize::from(node.feature)];
                    // Written without a choice, so that it becomes byte comparisons of whole vectors:
                    // all ones on the way left, what the node keeps on the way right.
                    for (mask, bin) in masks.iter_mut().zip(bins) {
                        *mask &= node.keep | u8::from(*bin > node.bin).wrapping_sub(1);
                    }
                }
                from = end;
                for (sum, mask) in sums.iter_mut().zip(masks) {
                    *sum += leaves[(mask.trailing_zeros() & 7) as usize];
                }
            }
            scores
                .iter_mut()
                .zip(sums)
                .for_each(|(score, sum)| *score += sum);
        }
    }
}

/// How many thresholds lie below each value: counting all of them vectorises over the block.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most 255 thresholds"
)]
fn bins_of(thresholds: &[f32], values: &[f32]) -> [u8; BLOCK] {
    let mut block = [0.0f32; BLOCK];
    block
        .iter_mut()
        .zip(values)
        .for_each(|(to, value)| *to = *value);
    let mut counts = [0i32; BLOCK];
    for threshold in thresholds {
        for (count, value) in counts.iter_mut().zip(&block) {
            *count += i32::from(value > threshold);
        }
    }
    counts.map(|count| count as u8)
}
