//! The messages and the service of `proto/vector.proto`, as prost and tonic write them.

#![allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    rust_2018_idioms
)]

tonic::include_proto!("skerry.vector.v1");
