//! Exploration: Beta-Bernoulli Thompson sampling over at most [`ARMS_MAX`] arms of a surface.
//!
//! Thompson sampling plays an arm with the probability that it is the best one. Those probabilities
//! are integrated once per parameter snapshot ([`win_probabilities`]); a request samples from them,
//! restricted to its eligible arms and renormalised. So a propensity is exact, without Monte Carlo
//! on the path, and a draw can be replayed from (snapshot, eligible arms, seed).
//!
//! Invariants: the propensities of a slot sum to 1 over the eligible arms; an arm that is not
//! eligible is never drawn; every eligible arm keeps a floor, so that off-policy estimates stay
//! finite; a draw uses only +, x and /, which makes it the same on every target.

mod integrate;

pub use integrate::win_probabilities;

use serde::{Deserialize, Serialize};
use skerry_types::{ItemId, Surface};

/// Arms of one surface.
pub const ARMS_MAX: usize = 200;
/// Slots that one list gives to exploration.
pub const SLOTS_MAX: usize = 2;
/// This much probability is spread evenly over all arms: the floor of an arm is this / arms.
pub const FLOOR_MASS: f64 = 0.02;
/// What `alpha` and `beta` may be; others are clamped, what is no number counts as 1.
pub const SHAPE_MIN: f32 = 0.05;
pub const SHAPE_MAX: f32 = 1e7;

/// Why a snapshot from elsewhere is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BanditError {
    #[error("{0} arms, at most {ARMS_MAX}")]
    TooManyArms(usize),
    #[error("arm {0} has a probability outside [0, 1]")]
    Probability(usize),
    #[error("the probabilities of the arms do not sum to 1")]
    Sum,
}

impl BanditError {
    /// The stable code that logs carry.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooManyArms(_) => "bandit_arms",
            Self::Probability(_) => "bandit_probability",
            Self::Sum => "bandit_sum",
        }
    }
}

/// What is known of an arm: a Beta(alpha, beta) over its rate of reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmParams {
    pub item: ItemId,
    pub alpha: f32,
    pub beta: f32,
}

/// The parameters of a surface, as the ledger gives them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    pub epoch: u64,
    pub surface: Surface,
    pub arms: Vec<ArmParams>,
}

/// An arm, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    pub item: ItemId,
    /// The probability that it is the best one, floored.
    pub win: f64,
}

/// Parameters with their integrals: what PoPs receive ready-made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub epoch: u64,
    pub surface: Surface,
    pub arms: Vec<Arm>,
}

/// One slot's arm and the probability with which the policy put it there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    pub arm: usize,
    pub propensity: f64,
}

/// Which positions of a list of `n` (from 0, ascending) explore: the 10th of ten or more and the 20th
/// of twenty or more, the last one of 5 to 9, none of fewer.
///
/// Few and low positions keep the price small, which is what they push out. `cargo xtask quality`
/// prints it, and the hits at each position: on MovieLens the 10th costs 5 % of NDCG@10, the 8th and the
/// 10th would cost 11 %; the bound is 7 %.
#[must_use]
pub fn slots_for(n: usize) -> &'static [usize] {
    match n {
        0..=4 => &[],
        5 => &[4],
        6 => &[5],
        7 => &[6],
        8 => &[7],
        9 => &[8],
        10..=19 => &[9],
        _ => &[9, 19],
    }
}

impl Snapshot {
    /// Integrates. Arms beyond [`ARMS_MAX`] are left out.
    #[must_use]
    pub fn integrate(params: &Params) -> Self {
        let arms = || params.arms.iter().take(ARMS_MAX);
        let shapes: Vec<(f64, f64)> = arms()
            .map(|arm| (shape(arm.alpha), shape(arm.beta)))
            .collect();
        let floor = FLOOR_MASS / shapes.len().max(1) as f64;
        let wins = win_probabilities(&shapes)
            .into_iter()
            .map(|win| (1.0 - FLOOR_MASS) * win + floor);
        let arms = arms()
            .zip(wins)
            .map(|(arm, win)| Arm {
                item: arm.item.clone(),
                win,
            })
            .collect();
        Self {
            epoch: params.epoch,
            surface: params.surface.clone(),
            arms,
        }
    }

    /// Checks one that came from elsewhere by its meaning.
    pub fn check(&self) -> Result<(), BanditError> {
        if self.arms.len() > ARMS_MAX {
            return Err(BanditError::TooManyArms(self.arms.len()));
        }
        if let Some(at) = self
            .arms
            .iter()
            .position(|arm| !(0.0..=1.0).contains(&arm.win))
        {
            return Err(BanditError::Probability(at));
        }
        let sum: f64 = self.arms.iter().map(|arm| arm.win).sum();
        if !self.arms.is_empty() && (sum - 1.0).abs() > 1e-6 {
            return Err(BanditError::Sum);
        }
        Ok(())
    }

    /// Draws arms for up to `slots` (at most [`SLOTS_MAX`]) slots, without replacement; fewer where
    /// fewer are eligible. The same arguments give the same draw.
    #[must_use]
    pub fn draw(&self, eligible: impl Fn(usize) -> bool, slots: usize, seed: u64) -> Vec<Draw> {
        let weights = self.restricted(eligible);
        let mut draws = Vec::with_capacity(SLOTS_MAX);
        let Some(first) = pick(&weights, unit(seed, 0), None) else {
            return draws;
        };
        if slots == 0 {
            return draws;
        }
        let weight = |at: usize| weights.get(at).copied().unwrap_or_default();
        draws.push(Draw {
            arm: first,
            propensity: weight(first),
        });
        if slots > 1
            && let Some(second) = pick(&weights, unit(seed, 1), Some(first))
        {
            draws.push(Draw {
                arm: second,
                propensity: second_propensity(weight(second), odds_sum(&weights)),
            });
        }
        draws
    }

    /// The propensity of each arm in the `slot` (0 or 1): what a draw reports, for all arms. Zeros
    /// where such a slot is never filled.
    #[must_use]
    pub fn propensities(&self, eligible: impl Fn(usize) -> bool, slot: usize) -> Vec<f64> {
        let weights = self.restricted(eligible);
        let odds = odds_sum(&weights);
        let second_is_filled = weights.iter().filter(|weight| **weight > 0.0).count() > 1;
        let of = |weight: f64| match slot {
            0 => weight,
            1 if second_is_filled => second_propensity(weight, odds),
            _ => 0.0,
        };
        weights.iter().map(|weight| of(*weight)).collect()
    }

    /// The probabilities of the eligible arms, renormalised; 0 for the others.
    fn restricted(&self, eligible: impl Fn(usize) -> bool) -> Vec<f64> {
        let weight = |(at, arm): (usize, &Arm)| {
            let counts = at < ARMS_MAX && arm.win.is_finite() && arm.win > 0.0 && eligible(at);
            if counts { arm.win } else { 0.0 }
        };
        let mut weights: Vec<f64> = self.arms.iter().enumerate().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        weights
    }
}

fn shape(raw: f32) -> f64 {
    f64::from(if raw.is_finite() {
        raw.clamp(SHAPE_MIN, SHAPE_MAX)
    } else {
        1.0
    })
}

/// Inverse transform over the weights, `taken` left out.
fn pick(weights: &[f64], roll: f64, taken: Option<usize>) -> Option<usize> {
    let open = || {
        weights
            .iter()
            .enumerate()
            .filter(|(at, weight)| **weight > 0.0 && Some(*at) != taken)
    };
    let sum: f64 = open().map(|(_, weight)| weight).sum();
    let mut left = roll * sum;
    let mut last = None;
    for (at, weight) in open() {
        last = Some(at);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    // Rounding may leave the roll just beyond the last one.
    last
}

/// `p_i (sum_j p_j / (1 - p_j) - p_i / (1 - p_i))`: the chance of being second, over all that may be
/// first.
fn second_propensity(weight: f64, odds: f64) -> f64 {
    if weight < 1.0 {
        weight * (odds - weight / (1.0 - weight))
    } else {
        0.0
    }
}

fn odds_sum(weights: &[f64]) -> f64 {
    weights
        .iter()
        .filter(|weight| **weight < 1.0)
        .map(|weight| weight / (1.0 - weight))
        .sum()
}

/// A number in [0, 1) with 53 bits: SplitMix64, the `index`-th after `seed`.
fn unit(seed: u64, index: u64) -> f64 {
    let x = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
