//! What an operator sees: metrics by the names of the public contract, and the log.
//!
//! Invariants: a label is an enum or one of at most [`VALUES_MAX`] names that configuration knows,
//! never an id; each role has its own [`Metrics`], so that PoP and origin in one process do not mix;
//! recording never fails and never waits for a reader.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod exposition;
mod labels;
mod log;
mod metrics;

pub use crate::metrics::{Metrics, VALUES_MAX};
pub use labels::{
    Cache, CacheResult, EventResult, OriginOutcome, ReplicaRole, RouteLabel, Stage, UpkeepTask,
    VectorOp, VectorOutcome,
};
pub use log::{LogError, LogFormat, init_log};
