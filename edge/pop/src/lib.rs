//! The PoP: HTTP in front, the worker in wasmtime, and what the worker may ask of its host: response
//! cache, contexts, what the origin pushed, the event spool, and the QUIC link to the origin.
//!
//! Invariants: whatever fails behind a request, the request is answered (the host answers where the
//! worker cannot); every queue, cache and wait has a named bound; an event is on disk before its
//! sender hears of it. A request's path: [`listener`] -> [`worker`] -> the core in `edge/core` -> the
//! host functions in [`world`].

#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cache;
mod clock;
mod error;
mod files;
mod held;
mod kv;
mod listener;
mod meter;
mod native;
mod origin;
mod pop;
mod shared;
mod spool;
mod worker;
mod world;

pub use error::Error;
pub use listener::MetricsText;
pub use pop::{Handle, Options, Pop, has_worker};
pub use spool::Limits as SpoolLimits;
