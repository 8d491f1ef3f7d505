//! What is measured: an origin and a PoP as processes of their own, on a catalogue of 10,000 items.

use skerry_scenarios::made;
use skerry_scenarios::process::Pair;
use skerry_testkit::{Size, world};
use std::path::Path;

/// Items of the catalogue, and of the pool.
pub const ITEMS: usize = 10_000;
/// Users who have a history.
pub const USERS: usize = 1_000;
const EVENTS: usize = 60_000;
const SEED: u64 = 7;

/// Makes the data, and starts both processes on it.
pub fn start(folder: &Path) -> anyhow::Result<Pair> {
    let size = Size {
        items: ITEMS,
        users: USERS,
        events: EVENTS,
    };
    made::write(folder, &world(SEED, size))?;
    Pair::start(Some(folder))
}
