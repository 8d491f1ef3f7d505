//! A MovieLens folder: movies are items, ratings are `rating` events, tags and links are attributes
//! of the items, never events of users.

use super::table::Table;
use super::{Import, file_name};
use crate::Error;
use skerry_origin_events::IMPORTED;
use skerry_types::{
    Attributes, Event, EventId, EventKind, Hlc, Item, ItemId, Rights, UserId, Value,
};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

pub const FILES: [&str; 4] = ["movies.csv", "ratings.csv", "tags.csv", "links.csv"];
/// Tags of one item, the most used first.
const TAGS_MAX: usize = 32;
const NO_GENRES: &str = "(no genres listed)";

pub fn read(dir: &Path, import: &mut Import<'_>) -> Result<(), Error> {
    let mut more: HashMap<String, Attributes> = HashMap::new();
    links(&dir.join("links.csv"), import, &mut more)?;
    tags(&dir.join("tags.csv"), import, &mut more)?;
    movies(&dir.join("movies.csv"), import, &mut more)?;
    import.flush()?;
    ratings(&dir.join("ratings.csv"), import)?;
    import.flush()
}

fn movies(
    path: &Path,
    import: &mut Import<'_>,
    more: &mut HashMap<String, Attributes>,
) -> Result<(), Error> {
    let name = file_name(path);
    let mut table = Table::open(path, &["movieId", "title", "genres"], import)?;
    while let Some((line, [id, title, genres])) = table.next(import)? {
        let item = match ItemId::new(&id) {
            Ok(item) => item,
            Err(error) => {
                import.error(
                    &name,
                    line,
                    Some("movieId"),
                    error.code(),
                    error.to_string(),
                );
                continue;
            }
        };
        let mut attributes = more.remove(&id).unwrap_or_default();
        let (title, year) = title_and_year(&title);
        attributes.insert("title".into(), Value::text(&title));
        if let Some(year) = year {
            attributes.insert("year".into(), Value::Int(year));
        }
        let genres: Vec<Value> = genres
            .split('|')
            .filter(|genre| !genre.is_empty() && *genre != NO_GENRES)
            .map(Value::text)
            .collect();
        if !genres.is_empty() {
            attributes.insert("genre".into(), Value::List(genres));
        }
        import.item(Item {
            id: item,
            attributes,
            rights: Rights::default(),
        })?;
    }
    Ok(())
}

fn ratings(path: &Path, import: &mut Import<'_>) -> Result<(), Error> {
    let name = file_name(path);
    let mut table = Table::open(path, &["userId", "movieId", "rating", "timestamp"], import)?;
    let (pop, region): (Arc<str>, Arc<str>) =
        (Arc::from(IMPORTED), Arc::clone(&import.stamp.region));
    // One allocation for each user and item, however often they occur.
    let mut users: HashMap<String, UserId> = HashMap::new();
    let mut items: HashMap<String, ItemId> = HashMap::new();
    while let Some((line, [user, item, rating, timestamp])) = table.next(import)? {
        let (user, item) = match (
            known(&mut users, user, UserId::new),
            known(&mut items, item, ItemId::new),
        ) {
            (Ok(user), Ok(item)) => (user, item),
            (Err(error), _) => {
                import.error(&name, line, Some("userId"), error.code(), error.to_string());
                continue;
            }
            (_, Err(error)) => {
                import.error(
                    &name,
                    line,
                    Some("movieId"),
                    error.code(),
                    error.to_string(),
                );
                continue;
            }
        };
        let value = rating
            .parse::<f32>()
            .ok()
            .filter(|value| (0.0..=10.0).contains(value));
        let Some(value) = value else {
            import.error(
                &name,
                line,
                Some("rating"),
                "value_invalid",
                format!("rating {rating:?} is not a number from 0 to 10"),
            );
            continue;
        };
        let at = timestamp
            .parse::<u64>()
            .ok()
            .filter(|at| *at < 100_000_000_000);
        let Some(at) = at else {
            import.error(
                &name,
                line,
                Some("timestamp"),
                "time_invalid",
                format!("timestamp {timestamp:?} is not seconds since 1970"),
            );
            continue;
        };
        let id = match EventId::new(&format!("ml:{user}:{item}")) {
            Ok(id) => id,
            Err(error) => {
                import.error(&name, line, None, error.code(), error.to_string());
                continue;
            }
        };
        import.event(Event {
            tenant: import.stamp.tenant.clone(),
            id,
            kind: EventKind::Rating,
            user: Some(user),
            session: None,
            item: Some(item),
            value: Some(value),
            at_ms: at * 1000,
            accepted_ms: import.stamp.now,
            surface: None,
            request_id: None,
            positions: Vec::new(),
            hlc: Hlc {
                ms: import.stamp.now,
                count: 0,
            },
            region: Arc::clone(&region),
            pop: Arc::clone(&pop),
        })?;
    }
    Ok(())
}

fn known<T: Clone, E>(
    map: &mut HashMap<String, T>,
    text: String,
    new: fn(&str) -> Result<T, E>,
) -> Result<T, E> {
    if let Some(id) = map.get(&text) {
        return Ok(id.clone());
    }
    let id = new(&text)?;
    map.insert(text, id.clone());
    Ok(id)
}

fn tags(
    path: &Path,
    import: &mut Import<'_>,
    more: &mut HashMap<String, Attributes>,
) -> Result<(), Error> {
    if !path.is_file() {
        return Ok(());
    }
    let mut counts: HashMap<String, BTreeMap<String, u32>> = HashMap::new();
    let mut table = Table::open(path, &["movieId", "tag"], import)?;
    while let Some((_, [item, tag])) = table.next(import)? {
        let tag = tag.trim().to_lowercase();
        if !tag.is_empty() && tag.len() <= 64 {
            *counts.entry(item).or_default().entry(tag).or_default() += 1;
        }
    }
    for (item, counts) in counts {
        let mut tags: Vec<(String, u32)> = counts.into_iter().collect();
        tags.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let tags = tags
            .iter()
            .take(TAGS_MAX)
            .map(|(tag, _)| Value::text(tag))
            .collect();
        more.entry(item)
            .or_default()
            .insert("tags".into(), Value::List(tags));
    }
    Ok(())
}

fn links(
    path: &Path,
    import: &mut Import<'_>,
    more: &mut HashMap<String, Attributes>,
) -> Result<(), Error> {
    if !path.is_file() {
        return Ok(());
    }
    let mut table = Table::open(path, &["movieId", "imdbId", "tmdbId"], import)?;
    while let Some((_, [item, imdb, tmdb])) = table.next(import)? {
        let attributes = more.entry(item).or_default();
        for (name, id) in [("imdb_id", imdb), ("tmdb_id", tmdb)] {
            if !id.is_empty() {
                attributes.insert(name.into(), Value::text(&id));
            }
        }
    }
    Ok(())
}

/// `Matrix, The (1999)` is `The Matrix` of 1999.
fn title_and_year(text: &str) -> (String, Option<i64>) {
    let text = text.trim();
    let (title, year) = match text.rsplit_once(" (") {
        Some((title, rest)) => match rest
            .strip_suffix(')')
            .map(|year| year.get(..4).unwrap_or(year))
        {
            Some(year) if year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()) => {
                (title, year.parse().ok())
            }
            _ => (text, None),
        },
        None => (text, None),
    };
    let (head, tail) = title
        .find(" (")
        .map_or((title, ""), |at| title.split_at(at));
    for article in ["The", "A", "An"] {
        if let Some(head) = head
            .strip_suffix(article)
            .and_then(|head| head.strip_suffix(", "))
        {
            return (format!("{article} {head}{tail}"), year);
        }
    }
    (title.to_owned(), year)
}

#[cfg(test)]
mod tests {
    use super::title_and_year;

    #[test]
    fn titles_lose_their_year_and_regain_their_article() {
        let cases = [
            ("Toy Story (1995)", "Toy Story", Some(1995)),
            ("Matrix, The (1999)", "The Matrix", Some(1999)),
            (
                "City of Lost Children, The (Cité, La) (1995)",
                "The City of Lost Children (Cité, La)",
                Some(1995),
            ),
            ("Death Note (2006–2007)", "Death Note", Some(2006)),
            ("Babylon 5", "Babylon 5", None),
            ("Odd (cut)", "Odd (cut)", None),
            ("", "", None),
        ];
        for (text, title, year) in cases {
            assert_eq!(title_and_year(text), (title.to_owned(), year), "{text}");
        }
    }
}
