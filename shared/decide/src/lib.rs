//! What edge and origin must do alike: filter, rules, rights, fold-in, scoring, bandit draw,
//! template reasons.
//!
//! Invariants: pure (no I/O, no clock, no randomness of its own), no `unsafe`, no panic, and the
//! same result on every target, byte for byte.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod bandit;
pub mod filter;
pub mod reason;
pub mod rights;
pub mod rules;
pub mod score;
