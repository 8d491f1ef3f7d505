//! What is measured: an origin and a PoP as processes of their own, on a catalogue of 10,000 items.

use skerry_scenarios::process::Pair;
use skerry_testkit::{Size, World, world};
use skerry_types::{EventKind, Value};
use std::path::Path;

/// Items of the catalogue, and of the pool.
pub const ITEMS: usize = 10_000;
/// Users who have a history.
pub const USERS: usize = 1_000;
const EVENTS: usize = 60_000;
const SEED: u64 = 7;

/// Makes the data, and starts both processes on it.
pub fn start(folder: &Path) -> anyhow::Result<Pair> {
    let made = world(
        SEED,
        Size {
            items: ITEMS,
            users: USERS,
            events: EVENTS,
        },
    );
    write(folder, &made)?;
    Pair::start(Some(folder))
}

/// Writes a MovieLens folder: its ratings and titles.
fn write(folder: &Path, made: &World) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut movies = csv::Writer::from_path(folder.join("movies.csv"))?;
    movies.write_record(["movieId", "title", "genres"])?;
    for item in &made.items {
        let year = item
            .attributes
            .get("year")
            .and_then(Value::as_f64)
            .unwrap_or(2000.0);
        let genres: Vec<&str> = item
            .attributes
            .get("genre")
            .into_iter()
            .flat_map(Value::each)
            .filter_map(Value::as_str)
            .collect();
        movies.write_record([
            item.id.as_str(),
            &format!("{} ({year:.0})", item.title()),
            &genres.join("|"),
        ])?;
    }
    movies.flush()?;
    let mut ratings = csv::Writer::from_path(folder.join("ratings.csv"))?;
    ratings.write_record(["userId", "movieId", "rating", "timestamp"])?;
    for event in &made.events {
        let (Some(user), Some(item)) = (&event.user, &event.item) else {
            continue;
        };
        let value = event.value.unwrap_or(if event.kind == EventKind::Like {
            5.0
        } else {
            3.0
        });
        ratings.write_record([
            user.as_str(),
            item.as_str(),
            &value.to_string(),
            &(event.at_ms / 1000).to_string(),
        ])?;
    }
    Ok(ratings.flush()?)
}
