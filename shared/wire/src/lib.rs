//! The only codecs: binary frames between PoP and origin, values that either side stores, and the
//! public JSON.
//!
//! Invariants: bincode is used nowhere else; every binary value starts with a 4-byte header (magic,
//! wire version, schema number), decoders read N and N-1 and refuse everything else with a typed
//! error; nothing here allocates more than the bytes it was given justify; no input panics.

#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod codec;
pub mod frame;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod json;
pub mod packed;
pub mod value;

pub use codec::{CodecError, decode, encode};
