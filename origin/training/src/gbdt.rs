//! Histogram trees, grown leaf by leaf (Ke et al. 2017). Histograms are filled feature by feature, each by
//! one thread in row order, so that the number of threads does not change a bit of the result.

use rayon::prelude::*;
use skerry_origin_ranker::Tree;
use skerry_origin_ranker::forest::{LEAVES_MAX, Node};

/// Bins of a feature, at most.
pub const BINS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TreeOptions {
    pub leaves: usize,
    pub rows_min: u32,
    pub ridge: f64,
    pub rate: f64,
}

/// What a tree is to lower, and what it may look at.
pub struct Task<'a> {
    pub gradients: &'a [f32],
    pub hessians: &'a [f32],
    /// Features that may split, one flag each.
    pub features: &'a [bool],
}

/// Features in bins, by column.
pub struct Binned {
    pub columns: Vec<Vec<u8>>,
    /// A value's bin is the number of edges below it.
    pub edges: Vec<Vec<f32>>,
}

impl Binned {
    /// From columns of raw values; edges are quantiles of at most `SAMPLE` evenly spaced rows.
    pub fn new(columns: &[Vec<f32>]) -> Self {
        const SAMPLE: usize = 50_000;
        let edges_of = |column: &Vec<f32>| {
            let step = (column.len() / SAMPLE).max(1);
            let mut sample: Vec<f32> = column.iter().copied().step_by(step).collect();
            sample.sort_unstable_by(f32::total_cmp);
            let mut edges: Vec<f32> = (1..BINS_MAX)
                .filter_map(|bin| sample.get(bin * sample.len() / BINS_MAX).copied())
                .collect();
            edges.dedup();
            edges
        };
        let edges: Vec<Vec<f32>> = columns.par_iter().map(edges_of).collect();
        #[expect(clippy::cast_possible_truncation, reason = "at most BINS_MAX")]
        let bin = |edges: &Vec<f32>, value: f32| edges.partition_point(|edge| *edge < value) as u8;
        let columns = columns.par_iter().zip(&edges);
        let columns = columns
            .map(|(column, edges)| column.iter().map(|value| bin(edges, *value)).collect())
            .collect();
        Self { columns, edges }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    gradient: f64,
    hessian: f64,
    rows: u32,
}

impl Bin {
    fn add(&mut self, other: &Self) {
        self.gradient += other.gradient;
        self.hessian += other.hessian;
        self.rows += other.rows;
    }

    fn less(&self, other: &Self) -> Self {
        Self {
            gradient: self.gradient - other.gradient,
            hessian: self.hessian - other.hessian,
            rows: self.rows - other.rows,
        }
    }

    fn gain(&self, ridge: f64) -> f64 {
        self.gradient * self.gradient / (self.hessian + ridge)
    }
}

#[derive(Debug, Clone, Copy)]
struct Split {
    gain: f64,
    feature: usize,
    bin: u8,
}

struct Leaf {
    rows: Vec<u32>,
    histogram: Vec<[Bin; BINS_MAX]>,
    total: Bin,
    split: Option<Split>,
    /// Index into `places` of the growing tree.
    place: usize,
}

enum Place {
    Leaf(f32),
    Node {
        split: Split,
        left: usize,
        right: usize,
    },
}

/// One tree that lowers the loss on `rows`; its leaves hold what is
/// to be added to the score.
pub fn grow(data: &Binned, rows: Vec<u32>, task: &Task<'_>, options: &TreeOptions) -> Tree {
    let mut places = vec![Place::Leaf(0.0)];
    let histogram = fill(data, &rows, task);
    let mut leaves = vec![leaf(rows, histogram, 0, options)];
    while leaves.len() < options.leaves.min(LEAVES_MAX) {
        let gain = |leaf: &Leaf| leaf.split.map_or(0.0, |split| split.gain);
        let best = (0..leaves.len()).reduce(|a, b| {
            if gain(&leaves[b]) > gain(&leaves[a]) {
                b
            } else {
                a
            }
        });
        let Some((at, split)) = best.and_then(|at| Some((at, leaves[at].split?))) else {
            break;
        };
        let parent = leaves.swap_remove(at);
        let column = &data.columns[split.feature];
        let (left, right): (Vec<u32>, Vec<u32>) = parent
            .rows
            .iter()
            .partition(|row| column[**row as usize] <= split.bin);
        let small = if left.len() <= right.len() {
            &left
        } else {
            &right
        };
        let small_histogram = fill(data, small, task);
        let large_histogram = parent.histogram.iter().zip(&small_histogram);
        let large_histogram = large_histogram
            .map(|(all, small)| std::array::from_fn(|bin| all[bin].less(&small[bin])))
            .collect();
        let (left_histogram, right_histogram) = if left.len() <= right.len() {
            (small_histogram, large_histogram)
        } else {
            (large_histogram, small_histogram)
        };
        let (left_place, right_place) = (places.len(), places.len() + 1);
        places.push(Place::Leaf(0.0));
        places.push(Place::Leaf(0.0));
        places[parent.place] = Place::Node {
            split,
            left: left_place,
            right: right_place,
        };
        leaves.push(leaf(left, left_histogram, left_place, options));
        leaves.push(leaf(right, right_histogram, right_place, options));
    }
    for leaf in &leaves {
        #[expect(clippy::cast_possible_truncation, reason = "a leaf is f32")]
        let value =
            (-leaf.total.gradient / (leaf.total.hessian + options.ridge) * options.rate) as f32;
        places[leaf.place] = Place::Leaf(value);
    }
    let mut tree = Tree::default();
    flatten(data, &places, 0, &mut tree);
    tree
}

/// Adds a subtree, leaves left to right; returns its leaves as bits.
fn flatten(data: &Binned, places: &[Place], at: usize, tree: &mut Tree) -> u8 {
    match &places[at] {
        Place::Leaf(value) => {
            tree.leaves.push(*value);
            1 << (tree.leaves.len() - 1)
        }
        Place::Node { split, left, right } => {
            let node = tree.nodes.len();
            let threshold = data.edges[split.feature][usize::from(split.bin)];
            #[expect(clippy::cast_possible_truncation, reason = "fewer than 256 features")]
            tree.nodes.push(Node {
                feature: split.feature as u8,
                threshold,
                left_leaves: 0,
            });
            let left = flatten(data, places, *left, tree);
            tree.nodes[node].left_leaves = left;
            left | flatten(data, places, *right, tree)
        }
    }
}

/// Histograms of all features; those that may not split are left empty.
fn fill(data: &Binned, rows: &[u32], task: &Task<'_>) -> Vec<[Bin; BINS_MAX]> {
    let of_rows: Vec<(f32, f32)> = rows
        .iter()
        .map(|row| (task.gradients[*row as usize], task.hessians[*row as usize]))
        .collect();
    let of_column = |(column, used): (&Vec<u8>, &bool)| {
        let mut bins = [Bin::default(); BINS_MAX];
        if !used {
            return bins;
        }
        for (row, (gradient, hessian)) in rows.iter().zip(&of_rows) {
            let bin = &mut bins[usize::from(column[*row as usize]) & (BINS_MAX - 1)];
            bin.gradient += f64::from(*gradient);
            bin.hessian += f64::from(*hessian);
            bin.rows += 1;
        }
        bins
    };
    data.columns
        .par_iter()
        .zip(task.features)
        .map(of_column)
        .collect()
}

fn leaf(
    rows: Vec<u32>,
    histogram: Vec<[Bin; BINS_MAX]>,
    place: usize,
    options: &TreeOptions,
) -> Leaf {
    let mut total = Bin::default();
    let used = |bins: &&[Bin; BINS_MAX]| bins.iter().any(|bin| bin.rows > 0);
    histogram
        .iter()
        .find(used)
        .into_iter()
        .flatten()
        .for_each(|bin| total.add(bin));
    let mut best: Option<Split> = None;
    for (feature, bins) in histogram.iter().enumerate() {
        let mut left = Bin::default();
        for (bin, of_bin) in (0u8..).zip(&bins[..BINS_MAX - 1]) {
            left.add(of_bin);
            let right = total.less(&left);
            if left.rows < options.rows_min {
                continue;
            }
            if right.rows < options.rows_min {
                break;
            }
            let gain =
                left.gain(options.ridge) + right.gain(options.ridge) - total.gain(options.ridge);
            if gain > best.map_or(1e-9, |best| best.gain) {
                best = Some(Split { gain, feature, bin });
            }
        }
    }
    Leaf {
        rows,
        histogram,
        total,
        split: best,
        place,
    }
}

/// Adds the tree's values to the scores of all rows.
pub fn add_to(tree: &Tree, data: &Binned, scores: &mut [f32]) {
    const BLOCK: usize = 4096;
    #[expect(clippy::cast_possible_truncation, reason = "at most BINS_MAX")]
    let bin = |node: &Node| {
        data.edges[usize::from(node.feature)].partition_point(|edge| *edge < node.threshold) as u8
    };
    let bins: Vec<u8> = tree.nodes.iter().map(bin).collect();
    scores
        .par_chunks_mut(BLOCK)
        .enumerate()
        .for_each(|(block, scores)| {
            let mut masks = vec![0xFFu8; scores.len()];
            for (node, bin) in tree.nodes.iter().zip(&bins) {
                let column = &data.columns[usize::from(node.feature)][block * BLOCK..];
                for (mask, value) in masks.iter_mut().zip(column) {
                    *mask &= !node.left_leaves | u8::from(value > bin).wrapping_sub(1);
                }
            }
            for (score, mask) in scores.iter_mut().zip(masks) {
                *score += tree.leaves[mask.trailing_zeros() as usize];
            }
        });
}
