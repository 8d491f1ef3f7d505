//! The origin's front: QUIC for PoPs, HTTP for operators, pushes, imports, training, drain.
//!
//! `Options::build` opens the state and binds both listeners; `Origin::run` loads or makes what is
//! missing (import, training), publishes, serves, and drains; `Handle` is for everybody else.
//!
//! Invariants: an acknowledged event is durable; what PoPs hold has epochs that only grow; damaged
//! state is refused by name and never worked around silently; no request, frame or file can panic
//! the process or make it hold more than its bounds.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod admin;
mod artifacts;
mod asks;
mod catalog;
mod clock;
mod counters;
mod error;
mod handle;
mod hub;
mod imports;
mod jobs;
mod kinds;
mod options;
mod origin;
mod pops;
mod publish;
mod quic;
mod rewards;
mod service;
mod similar;
mod spread;
mod state;
mod tls;
mod train;
mod trends;
mod users;

pub use catalog::Written;
pub use error::Error;
pub use handle::{Handle, Receipt};
pub use imports::{RowError, Sink, Stamp, Summary, read as read_data};
pub use jobs::{Job, JobState};
pub use kinds::EventRule;
pub use options::{Data, Limits, Options, Progress, Step, VectorsAt};
pub use origin::Origin;
pub use service::About;
pub use similar::spec as user_vectors_spec;
pub use tls::{Keys, api_keys};

#[cfg(test)]
mod tests;
