//! What exploration has learned: statistics of arms in an embedded ledger, and the parameters that
//! [`skerry_decide::bandit`] draws from.
//!
//! Invariants: an exposure counts once per (tenant, decision, arm), a reward once per exposure; a
//! late reward lands in the bucket of its exposure; statistics are integers, each cell is written by
//! one region only and merging is summing, so replicas that have seen the same cells are equal to the
//! bit; forgetting is dropping whole buckets, never decay in place. Exposures are not synced one by
//! one and the last ones may be lost in a crash; then their rewards do not count either.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cell;
mod ledger;

pub use cell::{Cell, CellState};
pub use ledger::{Exposure, Ledger, Recorded, Reward, Swept};

use std::path::PathBuf;

/// One bucket of time, in milliseconds, and how many of them count.
pub const BUCKET_MS: u64 = 24 * 3_600 * 1_000;
pub const BUCKETS_MAX: u32 = 30;
/// How long an exposure waits for its reward, in milliseconds.
pub const PENDING_MS_MAX: u64 = 7 * 24 * 3_600 * 1_000;
/// Arms with statistics, over all surfaces of all tenants.
pub const ARMS_MAX: usize = 1_000_000;
/// Weight of the prior, in exposures: an arm starts at its surface's rate.
pub const PRIOR_WEIGHT: f64 = 20.0;
/// The rate that a surface without any exposure starts from.
pub const PRIOR_RATE: f64 = 0.05;

/// Why the ledger did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the bandit ledger at {path} failed")]
    Store {
        path: PathBuf,
        #[source]
        source: fjall::Error,
    },
    #[error(
        "the bandit ledger at {path} is damaged: {reason}; start with --repair to set it aside"
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error("{path} has format {found}, this version reads up to {known}")]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("the bandit ledger at {path} cannot be read")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the ledger holds {ARMS_MAX} arms, no more")]
    Full,
}

impl Error {
    /// The stable code; its page is `docs/errors/CODE.md`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store { .. } => "bandit_store",
            Self::Corrupt { .. } => "bandit_corrupt",
            Self::Newer { .. } => "bandit_newer",
            Self::Io { .. } => "bandit_io",
            Self::Full => "bandit_full",
        }
    }
}

#[cfg(test)]
mod tests;
