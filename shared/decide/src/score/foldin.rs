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

/// Dot product in eight fixed lanes: the same bits on every target.
#[must_use]
#[inline]
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
    pub fn fold<'v>(&self, items: impl Iterator<Item = (&'v Vector, f32)>) -> Option<Vector> {
        let mut left = self.shared.clone();
        let mut right = [0.0f32; DIM];
        let mut any = false;
        for (vector, weight) in items {
            any = true;
            for row in 0..DIM {
                let scale = weight * vector[row];
                right[row] += scale;
                add_scaled(&mut left[row], vector, scale, row);
            }
        }
        if any { solve(&mut left, right) } else { None }
    }
}

/// Adds from the lane group of column `from` on: only the upper triangle is read, so what a whole
/// lane group changes below it does no harm.
#[inline]
fn add_scaled(to: &mut Vector, vector: &Vector, scale: f32, from: usize) {
    let skip = from / LANES;
    let to = &mut to.as_chunks_mut::<LANES>().0[skip..];
    for (to, vector) in to.iter_mut().zip(&vector.as_chunks::<LANES>().0[skip..]) {
        for lane in 0..LANES {
            to[lane] += scale * vector[lane];
        }
    }
}

/// Solves the symmetric system in place by Cholesky on the upper triangle, row by row: each row,
/// once final, is taken out of those below it, whole lanes at a time.
fn solve(left: &mut [Vector; DIM], right: Vector) -> Option<Vector> {
    let mut x = right;
    let mut inverse = [0.0f32; DIM];
    for row in 0..DIM {
        let square = left[row][row];
        if square.is_nan() || square <= f32::MIN_POSITIVE {
            return None;
        }
        let scale = 1.0 / square.sqrt();
        inverse[row] = scale;
        let mut upper = left[row];
        upper.iter_mut().for_each(|value| *value *= scale);
        left[row] = upper;
        let value = x[row] * scale;
        x[row] = value;
        for below in row + 1..DIM {
            add_scaled(&mut left[below], &upper, -upper[below], below);
            x[below] -= value * upper[below];
        }
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
