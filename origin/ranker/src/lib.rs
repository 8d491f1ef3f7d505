//! The native ranker and its model artifact: an item space, what follows what, priors and a forest.
//!
//! Invariants: a [`Model`] is immutable and was checked whole when made, by training or from bytes;
//! scores depend on the model, the history and the rows alone (no clock, no thread, no chance).
//! It refuses to train and to store: `origin/training` and the gateway do that.

#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod artifact;
pub mod features;
pub mod forest;
mod links;
mod model;
mod port;
mod user;
mod wide;

pub use artifact::ModelError;
pub use forest::{Forest, Tree};
pub use model::{Blends, Followers, Model, Parts, Prior, Row};
pub use skerry_origin_core::CandidateRow;
pub use user::{UserState, Withheld};

#[cfg(test)]
mod tests;
