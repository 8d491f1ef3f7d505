//! The origin's pipeline: features -> candidates -> rank -> rules -> explore -> reasons.
//!
//! `pipeline.rs` is the path, top to bottom; `ports.rs` is what it needs of the stores and models
//! around it. No I/O, no async, no clock of its own: the gateway supplies a [`ports::World`].

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod pipeline;
pub mod ports;
mod reasons;
mod rules;

#[cfg(test)]
mod fakes;

pub use pipeline::{Outcome, Question, answer, history};
pub use ports::{
    Arms, CandidateRow, Card, Cards, Gate, Model, Place, PortError, SimilarUsers, World,
};
