//! The exact score of two vectors, and what a vector becomes before it is stored.
//!
//! Invariants: one kernel with one order of additions, so that a record has the same score wherever
//! it lies; what passes here is finite and stays so when squared and summed.

use crate::{IndexError, Metric, Spec, Stored};
use half::f16;
use half::slice::HalfFloatSliceExt;

const LANES: usize = 16;

/// Greater is nearer; see [`Metric`]. Both have the same length.
#[must_use]
pub fn score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    match metric {
        Metric::Dot | Metric::Cosine => sum(a, b, |a, b| a * b),
        Metric::L2 => -sum(a, b, |a, b| (a - b) * (a - b)),
    }
}

fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += term(*a, *b);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| term(*a, *b)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The component that is not finite, or so great that a sum over `dim` squared differences overflows.
fn overflowing(vector: &[f32]) -> Option<usize> {
    let most = (f32::MAX / vector.len() as f32).sqrt() / 2.0;
    vector
        .iter()
        .position(|value| value.is_nan() || value.abs() > most)
}

/// Scales to length 1; false for a vector that has no direction. In `f64`, where no sum of squares
/// of finite `f32` overflows or vanishes.
pub fn normalise(vector: &mut [f32]) -> bool {
    let square: f64 = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    let length = square.sqrt();
    if length == 0.0 {
        return false;
    }
    vector
        .iter_mut()
        .for_each(|value| *value = (f64::from(*value) / length) as f32);
    true
}

/// Checks a record's vector, as it comes from outside or from a leader's log.
pub fn check(spec: &Spec, id: &str, vector: &[f32]) -> Result<(), IndexError> {
    if vector.len() != spec.dim {
        return Err(IndexError::RecordDim {
            id: id.into(),
            got: vector.len(),
            dim: spec.dim,
        });
    }
    let too_great = |value: &f32| spec.stored == Stored::F16 && f16::from_f32(*value).is_infinite();
    // The cosine scales first: only what is stored must fit.
    let position = match spec.metric {
        Metric::Cosine => vector.iter().position(|value| !value.is_finite()),
        _ => overflowing(vector).or_else(|| vector.iter().position(too_great)),
    };
    if let Some(component) = position {
        return Err(IndexError::RecordNotFinite {
            id: id.into(),
            component,
        });
    }
    if spec.metric == Metric::Cosine && vector.iter().all(|value| *value == 0.0) {
        return Err(IndexError::ZeroNorm { id: id.into() });
    }
    Ok(())
}

/// What is stored of a checked vector: of length 1 for the cosine, rounded to what the disk keeps.
pub fn prepare(spec: &Spec, vector: &mut [f32]) {
    if spec.metric == Metric::Cosine {
        normalise(vector);
    }
    round(spec, vector);
}

/// Rounds to what the disk keeps; what was rounded once stays.
pub fn round(spec: &Spec, vector: &mut [f32]) {
    if spec.stored == Stored::F16 {
        for value in vector {
            *value = f16::from_f32(*value).to_f32();
        }
    }
}

/// Checks a vector of a query, and scales it for the cosine.
pub fn query(spec: &Spec, vector: &[f32]) -> Result<Vec<f32>, IndexError> {
    if vector.len() != spec.dim {
        return Err(IndexError::QueryDim {
            query: vector.len(),
            index: spec.dim,
        });
    }
    let cosine = spec.metric == Metric::Cosine;
    let position = if cosine {
        vector.iter().position(|value| !value.is_finite())
    } else {
        overflowing(vector)
    };
    if let Some(component) = position {
        return Err(IndexError::QueryNotFinite { component });
    }
    let mut vector = vector.to_vec();
    if cosine && !normalise(&mut vector) {
        return Err(IndexError::QueryZeroNorm);
    }
    Ok(vector)
}

/// Bytes of a component on disk.
pub const fn width(stored: Stored) -> usize {
    match stored {
        Stored::F32 => 4,
        Stored::F16 => 2,
    }
}

/// The bytes of a stored vector.
pub fn to_disk(stored: Stored, vector: &[f32], out: &mut Vec<u8>) {
    for value in vector {
        match stored {
            Stored::F32 => out.extend_from_slice(&value.to_le_bytes()),
            Stored::F16 => out.extend_from_slice(&f16::from_f32(*value).to_le_bytes()),
        }
    }
}

/// Reads vectors from disk. Keeps its memory from one to the next.
#[derive(Default)]
pub struct FromDisk {
    halves: Vec<f16>,
    pub vector: Vec<f32>,
}

impl FromDisk {
    pub fn read(&mut self, stored: Stored, bytes: &[u8]) -> &[f32] {
        self.vector.clear();
        match stored {
            Stored::F32 => {
                let (fours, _) = bytes.as_chunks::<4>();
                self.vector
                    .extend(fours.iter().map(|four| f32::from_le_bytes(*four)));
            }
            Stored::F16 => {
                let (twos, _) = bytes.as_chunks::<2>();
                self.halves.clear();
                self.halves
                    .extend(twos.iter().map(|two| f16::from_le_bytes(*two)));
                self.vector.resize(self.halves.len(), 0.0);
                self.halves.convert_to_f32_slice(&mut self.vector);
            }
        }
        &self.vector
    }
}
