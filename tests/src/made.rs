//! The seeded catalogue as a MovieLens folder: what the processes under test import.

use skerry_testkit::World;
use skerry_types::{EventKind, Value};
use std::path::Path;

/// Writes its titles and ratings. A like is a rating of 5, a view one of 3.
pub fn write(folder: &Path, made: &World) -> anyhow::Result<()> {
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
