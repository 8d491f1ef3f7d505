//! The whole edge path, platform-neutral. `serve.rs` is one request from top to bottom; `ports.rs`
//! is what it needs of the platform.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub mod ports;
