//! The INT8 scan: one quantised query against every row of the pool.
//!
//! Products are integers (i16 query, i8 rows, i32 sums), so the order in which a target's SIMD adds
//! them cannot change the result. `|sum| <= 64 * 127 * 32767 < 2^31`.

use super::foldin::{DIM, Vector};

/// A query as i16 and what one step of it is worth.
#[derive(Debug, Clone)]
pub struct Query {
    steps: [i16; DIM],
    step: f32,
}

impl Query {
    #[must_use]
    pub fn new(vector: &Vector) -> Self {
        let largest = vector
            .iter()
            .fold(0.0f32, |largest, value| largest.max(value.abs()));
        if largest <= f32::MIN_POSITIVE {
            return Self {
                steps: [0; DIM],
                step: 0.0,
            };
        }
        let step = largest / f32::from(i16::MAX);
        Self {
            steps: vector.map(|value| round(value / step)),
            step,
        }
    }

    /// Scores of all rows, one after another. Rows beyond the shorter of the two are left alone.
    pub(super) fn scan(&self, rows: &[i8], scales: &[f32], scores: &mut [f32]) {
        for ((row, scale), score) in rows.as_chunks::<DIM>().0.iter().zip(scales).zip(scores) {
            *score = self.one(row, *scale);
        }
    }

    /// Score of one row: about the dot product of the vectors that query and row were made from.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::cast_precision_loss,
        reason = "one rounding, the same everywhere"
    )]
    pub fn one(&self, row: &[i8; DIM], scale: f32) -> f32 {
        let mut sum = 0i32;
        for (value, step) in row.iter().zip(&self.steps) {
            sum += i32::from(*value) * i32::from(*step);
        }
        sum as f32 * (self.step * scale)
    }
}

/// To the nearest i16, halves away from zero.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
fn round(value: f32) -> i16 {
    (value + if value < 0.0 { -0.5 } else { 0.5 }) as i16
}

/// A row as i8 and its scale.
#[must_use]
pub fn quantise(vector: &Vector) -> ([i8; DIM], f32) {
    let largest = vector
        .iter()
        .fold(0.0f32, |largest, value| largest.max(value.abs()));
    if largest <= f32::MIN_POSITIVE {
        return ([0; DIM], 0.0);
    }
    let scale = largest / f32::from(i8::MAX);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within -127..=127 by the scale"
    )]
    let row = vector.map(|value| round(value / scale) as i8);
    (row, scale)
}

/// The row as floats.
pub(super) fn restore(row: &[i8; DIM], scale: f32) -> Vector {
    row.map(|value| f32::from(value) * scale)
}
