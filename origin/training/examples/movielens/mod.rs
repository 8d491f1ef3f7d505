//! A MovieLens folder as interactions: what the examples measure on.

use skerry_decide::score::HistoryStep;
use skerry_origin_training::{Interactions, Row};
use skerry_types::event::{EventKind, RATING_POSITIVE};
use skerry_types::{Attributes, ItemId, Taste, Value};
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

/// The newest `max` events as steps, newest first.
pub fn steps(history: &[Row], max: usize, row: impl Fn(u32) -> Option<u32>) -> Vec<HistoryStep> {
    let known = history
        .iter()
        .rev()
        .take(max)
        .filter_map(|event| Some((row(event.item)?, event.taste)));
    (0..)
        .zip(known)
        .map(|(age, (item, taste))| HistoryStep { item, taste, age })
        .collect()
}

/// Ratings in the order of time, then item; items in the order of their ids.
pub fn read(folder: &Path) -> Result<Interactions, Box<dyn Error>> {
    let mut items: Vec<(u64, ItemId, Attributes)> = Vec::new();
    for record in csv::Reader::from_path(folder.join("movies.csv"))?.records() {
        let record = record?;
        let (id, title, genres) = (&record[0], record[1].trim(), &record[2]);
        let mut attributes = Attributes::new();
        let year = title
            .strip_suffix(')')
            .and_then(|title| title.rsplit_once('('))
            .and_then(|(_, year)| year.parse().ok());
        if let Some(year) = year {
            attributes.insert("year".into(), Value::Int(year));
        }
        let genres = genres.split('|').map(Value::text).collect();
        attributes.insert("genre".into(), Value::List(genres));
        items.push((id.parse()?, ItemId::new(id)?, attributes));
    }
    items.sort_by_key(|(id, _, _)| *id);
    let places: HashMap<u64, u32> = items.iter().map(|(id, _, _)| *id).zip(0..).collect();
    let mut rows = Vec::new();
    for record in csv::Reader::from_path(folder.join("ratings.csv"))?.records() {
        let record = record?;
        let value: f32 = record[2].parse()?;
        let item = *places
            .get(&record[1].parse()?)
            .ok_or("a rating of an unknown movie")?;
        let at_ms = record[3].parse::<u64>()? * 1000;
        debug_assert_eq!(
            EventKind::Rating.taste(Some(value)) == Taste::Positive,
            value >= RATING_POSITIVE
        );
        rows.push(Row {
            user: record[0].parse()?,
            item,
            at_ms,
            taste: EventKind::Rating.taste(Some(value)),
            value: Some(value),
        });
    }
    rows.sort_by_key(|row| (row.at_ms, row.item));
    Ok(Interactions::new(
        items
            .into_iter()
            .map(|(_, id, attributes)| (id, attributes))
            .collect(),
        rows,
    )?)
}
