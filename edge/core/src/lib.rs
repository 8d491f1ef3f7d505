//! The whole edge path, platform-neutral: `serve.rs` is one request from top to bottom, `ports.rs` is
//! what it needs of the platform.
//!
//! Invariants: no clock and no randomness of its own, no state of a request outlives it, no panic is
//! reachable from a request, and a valid, authorised question always gets an answer: faults lower
//! the rung.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod ask;
mod cache_key;
mod cached;
mod context;
mod events;
mod keys;
mod page;
mod pick;
mod popular;
pub mod ports;
mod rank;
mod respond;
mod serve;
mod worker;

#[cfg(test)]
mod fakes;

pub use ports::{Host, Request, Response};
pub use serve::serve;
pub use worker::WorkerState;
