//! Made-up data that behaves like real data: a seeded catalogue, users with tastes, and events in a
//! plausible order. What `skerry up` shows when it is given no data, and what tests work on.
//!
//! Invariant: the same seed and size give the same world, on every machine.

#![forbid(unsafe_code)]

mod events;
mod titles;
mod world;
mod zipf;

pub use events::like;
pub use world::{Size, World, world};
pub use zipf::Zipf;
