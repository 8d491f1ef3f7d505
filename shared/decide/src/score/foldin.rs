//! A user's vector from weighted items: the least-squares step of implicit ALS, so that a new user
//! or a new event needs no training (Hu, Koren, Volinsky 2008; Rendle et al. 2021).

#![allow(
    clippy::indexing_slicing,
    reason = "every index runs over fixed arrays of DIM"
)]

/// Dimensions of item and user vectors.
pub const DIM: usize = 64;
/// An item's or user's vector.
pub type Vector = [f32; DIM];

const LANES: usize = 8;

/// Vectors added in one pass over a row, so that the row is loaded and stored once for all of them.
const AT_ONCE: usize = 4;

/// Dot product in eight fixed lanes: the same bits on every target. Inlined always, like what
/// [`FoldIn::fold`] is made of, so that a native caller compiled for wider registers gets them.
#[must_use]
#[inline(always)]
pub fn dot(a: &Vector, b: &Vector) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a
        .as_chunks::<LANES>()
        .0
        .iter()
        .zip(b.as_chunks::<LANES>().0)
    {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6]))
        + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

/// The part of the normal equations that all users share: `unobserved * Gram + ridge * I`.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldIn {
    shared: Box<[Vector; DIM]>,
}

impl FoldIn {
    /// From the shared matrix, row by row. `None` unless it is finite and has a positive diagonal.
    #[must_use]
    pub fn new(rows: &[f32]) -> Option<Self> {
        let (rows, rest) = rows.as_chunks::<DIM>();
        let shared = Box::new(<[Vector; DIM]>::try_from(rows).ok()?);
        let finite = shared.as_flattened().iter().all(|value| value.is_finite());
        let positive = (0..DIM).all(|at| shared[at][at] > 0.0);
        (rest.is_empty() && finite && positive).then_some(Self { shared })
    }

    /// The shared matrix, row by row.
    #[must_use]
    pub fn rows(&self) -> &[f32] {
        self.shared.as_flattened()
    }

    /// The vector x that minimises `sum w (1 - x.v)^2 + x' shared x` over (v, w). `None` where there
    /// is no item or the system is numerically singular.
    #[inline(always)]
    pub fn fold<'v>(&self, items: impl Iterator<Item = (&'v Vector, f32)>) -> Option<Vector> {
        let items: Vec<(&Vector, f32)> = items.collect();
        if items.is_empty() {
            return None;
        }
        let mut left = self.shared.clone();
        let mut right = [0.0f32; DIM];
        for row in 0..DIM {
            let (chunks, rest) = items.as_chunks::<AT_ONCE>();
            for chunk in chunks {
                let scales = chunk.map(|(vector, weight)| weight * vector[row]);
                scales.iter().for_each(|scale| right[row] += scale);
                add_scaled(&mut left[row], chunk.map(|(vector, _)| vector), scales, row);
            }
            for (vector, weight) in rest {
                let scale = weight * vector[row];
                right[row] += scale;
                add_scaled(&mut left[row], [vector], [scale], row);
            }
        }
        solve(&mut left, right)
    }
}

/// Adds vectors, the first first, from the lane group of column `from` on: only the upper triangle
/// is read, so what a whole lane group changes below it does no harm.
#[inline(always)]
fn add_scaled<const N: usize>(
    to: &mut Vector,
    vectors: [&Vector; N],
    scales: [f32; N],
    from: usize,
) {
    let skip = from / LANES;
    let vectors = vectors.map(|vector| vector.as_chunks::<LANES>().0);
    for (group, to) in to
        .as_chunks_mut::<LANES>()
        .0
        .iter_mut()
        .enumerate()
        .skip(skip)
    {
        let mut sums = *to;
        for (vector, scale) in vectors.iter().zip(scales) {
            for lane in 0..LANES {
                sums[lane] += scale * vector[group][lane];
            }
        }
        *to = sums;
    }
}

/// Solves the symmetric system in place by Cholesky on the upper triangle, row by row: all rows
/// above, already final, are taken out of a row in their order, whole lanes at a time.
#[inline(always)]
fn solve(left: &mut [Vector; DIM], right: Vector) -> Option<Vector> {
    let mut x = right;
    let mut inverse = [0.0f32; DIM];
    for row in 0..DIM {
        let (above, rest) = left.split_at_mut(row);
        let this = &mut rest[0];
        let (chunks, last) = above.as_chunks::<AT_ONCE>();
        for chunk in chunks {
            add_scaled(
                this,
                chunk.each_ref(),
                chunk.each_ref().map(|upper| -upper[row]),
                row,
            );
        }
        for upper in last {
            add_scaled(this, [upper], [-upper[row]], row);
        }
        for (upper, value) in above.iter().zip(x) {
            x[row] -= value * upper[row];
        }
        let square = this[row];
        if square.is_nan() || square <= f32::MIN_POSITIVE {
            return None;
        }
        let scale = 1.0 / square.sqrt();
        inverse[row] = scale;
        this.iter_mut().for_each(|value| *value *= scale);
        x[row] *= scale;
    }
    for row in (0..DIM).rev() {
        let mut value = x[row];
        for col in row + 1..DIM {
            value -= left[row][col] * x[col];
        }
        x[row] = value * inverse[row];
    }
    x.iter().all(|value| value.is_finite()).then_some(x)
}
