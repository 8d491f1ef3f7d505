//! The world: items with genres, years and series; users who like a few genres, follow a series
//! from part to part, and watch what is popular.

use crate::titles::title;
use crate::zipf::Zipf;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skerry_types::{
    Event, EventId, EventKind, Hlc, Item, ItemId, Millis, Rights, TenantId, UserId, Value,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

const GENRES: [&str; 14] = [
    "Action",
    "Adventure",
    "Animation",
    "Children",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Horror",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
];
/// 2026-01-01: the newest event is shortly before it.
const END_MS: Millis = 1_767_225_600_000;
const DAY_MS: Millis = 86_400_000;
const NEWEST_YEAR: i64 = 2025;
/// Between two parts of a series.
const YEARS_APART: i64 = 2;
/// Share of choices that go on with a series, where the user has just seen a part of one.
const FOLLOW: f64 = 0.45;
/// Share of the others that stay in the user's genres.
const IN_TASTE: f64 = 0.75;
/// Draws for one choice before it takes what comes.
const DRAWS_MAX: usize = 40;

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub items: usize,
    pub users: usize,
    pub events: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            items: 2_000,
            users: 500,
            events: 60_000,
        }
    }
}

/// Items by id, and events in the order in which they happened.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub items: Vec<Item>,
    pub events: Vec<Event>,
}

struct Film {
    genres: Vec<usize>,
    /// The next part of its series.
    next: Option<usize>,
}

/// A world of `size`, all of it from `seed`. Item ids are `1..=items`, user ids `1..=users`.
#[must_use]
pub fn world(seed: u64, size: Size) -> World {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (items, films) = catalogue(&mut rng, size.items.max(1));
    let popularity = Zipf::new(films.len(), 0.8);
    let mut by_rank: Vec<usize> = (0..films.len()).collect();
    shuffle(&mut rng, &mut by_rank);
    let mut events = Vec::with_capacity(size.events);
    for (user, count) in activity(&mut rng, size).into_iter().enumerate() {
        history(
            &mut rng,
            user + 1,
            count,
            &films,
            &popularity,
            &by_rank,
            &mut events,
        );
    }
    events.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
    World { items, events }
}

fn catalogue(rng: &mut ChaCha8Rng, count: usize) -> (Vec<Item>, Vec<Film>) {
    let (mut items, mut films) = (Vec::with_capacity(count), Vec::<Film>::with_capacity(count));
    let mut titles = HashSet::new();
    while films.len() < count {
        // One in eight is the first part of a series.
        let parts = if rng.random_range(0..8u8) == 0 {
            rng.random_range(2..5usize)
        } else {
            1
        };
        let base = fresh_title(rng, &mut titles);
        let mut genres: Vec<usize> = (0..rng.random_range(1..4u8))
            .map(|_| rng.random_range(0..GENRES.len()))
            .collect();
        genres.sort_unstable();
        genres.dedup();
        // More recent years are fuller; the last part of a series is out, too.
        let newest = NEWEST_YEAR - YEARS_APART * (parts as i64 - 1);
        let year = newest - (60.0 * rng.random::<f64>().powi(2)) as i64;
        for part in 0..parts.min(count - films.len()) {
            let name = if part == 0 {
                base.clone()
            } else {
                title(rng, part, Some(&base))
            };
            items.push(item(
                films.len() + 1,
                &name,
                year + YEARS_APART * part as i64,
                &genres,
            ));
            if part > 0 {
                let at = films.len();
                films[at - 1].next = Some(at);
            }
            films.push(Film {
                genres: genres.clone(),
                next: None,
            });
        }
    }
    (items, films)
}

/// A title that no other film has: another draw where it is taken, and a second title where the
/// first ones are used up.
fn fresh_title(rng: &mut ChaCha8Rng, titles: &mut HashSet<String>) -> String {
    let mut name = title(rng, 0, None);
    for _ in 0..DRAWS_MAX {
        if !titles.contains(&name) {
            break;
        }
        name = title(rng, 0, None);
    }
    while titles.contains(&name) {
        name = format!("{name}: {}", title(rng, 0, None));
    }
    titles.insert(name.clone());
    name
}

fn item(number: usize, title: &str, year: i64, genres: &[usize]) -> Item {
    let genres = genres
        .iter()
        .map(|genre| Value::text(GENRES[*genre]))
        .collect();
    let attributes = BTreeMap::from([
        (Box::from("title"), Value::text(title)),
        (Box::from("year"), Value::Int(year)),
        (Box::from("genre"), Value::List(genres)),
    ]);
    Item {
        id: id(ItemId::new, &number.to_string()),
        attributes,
        rights: Rights::default(),
    }
}

/// Events of each user, most active first by chance; they sum to `size.events` as far as the
/// catalogue allows.
fn activity(rng: &mut ChaCha8Rng, size: Size) -> Vec<usize> {
    let users = size.users.max(1);
    let weights: Vec<f64> = (0..users)
        .map(|_| (1.0 - rng.random::<f64>()).powf(-0.5))
        .collect();
    let sum: f64 = weights.iter().sum();
    let most = (size.items / 2).max(3);
    let share = |weight: &f64| ((weight / sum * size.events as f64) as usize).clamp(3, most);
    let mut counts: Vec<usize> = weights.iter().map(share).collect();
    // What rounding and bounds took or gave goes round, an event a user.
    let mut total: usize = counts.iter().sum();
    while total != size.events {
        let before = total;
        for count in &mut counts {
            if total < size.events && *count < most {
                (*count, total) = (*count + 1, total + 1);
            } else if total > size.events && *count > 3 {
                (*count, total) = (*count - 1, total - 1);
            }
        }
        if total == before {
            break;
        }
    }
    counts
}

fn history(
    rng: &mut ChaCha8Rng,
    user: usize,
    count: usize,
    films: &[Film],
    popularity: &Zipf,
    by_rank: &[usize],
    events: &mut Vec<Event>,
) {
    let tastes: Vec<usize> = (0..rng.random_range(2..4u8))
        .map(|_| rng.random_range(0..GENRES.len()))
        .collect();
    let likes = |film: usize| {
        films[film]
            .genres
            .iter()
            .any(|genre| tastes.contains(genre))
    };
    let user_id = id(UserId::new, &user.to_string());
    let mut seen = HashSet::new();
    let mut last: Option<usize> = None;
    // Evenings of a few films, days apart, ending in the last weeks.
    let mut at = END_MS - DAY_MS * (30 + count as u64 + rng.random_range(0..60u64));
    for number in 0..count.min(films.len()) {
        let follow = last
            .and_then(|film| films[film].next)
            .filter(|next| !seen.contains(next));
        let film = match follow {
            Some(next) if rng.random_bool(FOLLOW) => next,
            _ => {
                let in_taste = rng.random_bool(IN_TASTE);
                let mut draw = || by_rank[popularity.rank(rng.random())];
                let mut film = draw();
                for _ in 0..DRAWS_MAX {
                    if !seen.contains(&film) && (!in_taste || likes(film)) {
                        break;
                    }
                    film = draw();
                }
                // Who has seen all that was drawn takes the most popular film that is left.
                let unseen = || by_rank.iter().find(|film| !seen.contains(*film));
                if seen.contains(&film) {
                    unseen().copied().unwrap_or(film)
                } else {
                    film
                }
            }
        };
        seen.insert(film);
        at += if rng.random_range(0..3u8) == 0 {
            DAY_MS
        } else {
            rng.random_range(300_000..7_200_000u64)
        };
        let (kind, value) = verdict(rng, likes(film));
        events.push(Event {
            tenant: TenantId::default(),
            id: id(EventId::new, &format!("seed-{user}-{number}")),
            kind,
            user: Some(user_id.clone()),
            session: None,
            item: Some(id(ItemId::new, &(film + 1).to_string())),
            value,
            at_ms: at.min(END_MS),
            accepted_ms: at.min(END_MS),
            surface: None,
            request_id: None,
            positions: Vec::new(),
            hlc: Hlc {
                ms: at.min(END_MS),
                count: 0,
            },
            region: Arc::from("seed"),
            pop: Arc::from("seed"),
        });
        last = Some(film);
    }
}

/// Mostly ratings, some likes and views; what is to the user's taste is rated higher.
fn verdict(rng: &mut ChaCha8Rng, liked: bool) -> (EventKind, Option<f32>) {
    match rng.random_range(0..10u8) {
        0 => (EventKind::View, None),
        1 if liked => (EventKind::Like, None),
        _ => {
            let middle = if liked { 8.0 } else { 5.5 };
            let spread: f32 = rng.random_range(-2.0..2.0) + rng.random_range(-1.0..1.0f32);
            (
                EventKind::Rating,
                Some((middle + spread).round().clamp(1.0, 10.0) / 2.0),
            )
        }
    }
}

fn shuffle(rng: &mut ChaCha8Rng, list: &mut [usize]) {
    for at in (1..list.len()).rev() {
        list.swap(at, rng.random_range(0..=at));
    }
}

fn id<T, E: std::fmt::Debug>(new: impl Fn(&str) -> Result<T, E>, text: &str) -> T {
    new(text).expect("ids made here are short and printable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_world_is_what_it_says() {
        let World { items, events } = world(7, Size::default());
        assert_eq!(items.len(), 2_000);
        assert_eq!(events.len(), 60_000);
        let year = |item: &Item| match item.attributes.get("year") {
            Some(Value::Int(year)) => *year,
            other => panic!("{other:?}"),
        };
        assert!(items.iter().all(|item| (1940..=2025).contains(&year(item))));
        let users: HashSet<_> = events
            .iter()
            .filter_map(|event| event.user.clone())
            .collect();
        assert_eq!(users.len(), 500);
        assert!(events.is_sorted_by_key(|event| event.at_ms));
        let titles: HashSet<_> = items.iter().map(|item| item.title().to_owned()).collect();
        assert_eq!(titles.len(), 2_000);
        assert!(events.iter().all(|event| event.at_ms <= END_MS));
    }

    #[test]
    fn one_seed_one_world() {
        let size = Size {
            items: 50,
            users: 10,
            events: 200,
        };
        assert_eq!(world(1, size), world(1, size));
        assert_ne!(world(1, size), world(2, size));
    }

    #[test]
    fn a_user_meets_an_item_once() {
        let World { events, .. } = world(
            3,
            Size {
                items: 200,
                users: 20,
                events: 2_000,
            },
        );
        let pairs: HashSet<_> = events
            .iter()
            .map(|event| (event.user.clone(), event.item.clone()))
            .collect();
        assert_eq!(pairs.len(), events.len());
    }

    /// What others did after a user's last item predicts the next one better than popularity:
    /// without that, a demonstration of order-aware recommendations would show nothing.
    #[test]
    fn what_follows_carries_signal() {
        let World { events, .. } = world(7, Size::default());
        let mut histories: BTreeMap<UserId, Vec<ItemId>> = BTreeMap::new();
        for event in events {
            if let (Some(user), Some(item)) = (event.user, event.item) {
                histories.entry(user).or_default().push(item);
            }
        }
        let mut follows: BTreeMap<ItemId, BTreeMap<ItemId, usize>> = BTreeMap::new();
        let mut popular: BTreeMap<ItemId, usize> = BTreeMap::new();
        for pair in histories
            .values()
            .step_by(2)
            .flat_map(|history| history.windows(2))
        {
            *follows
                .entry(pair[0].clone())
                .or_default()
                .entry(pair[1].clone())
                .or_default() += 1;
            *popular.entry(pair[1].clone()).or_default() += 1;
        }
        let top = |counts: &BTreeMap<ItemId, usize>| {
            let mut best: Vec<(&ItemId, &usize)> = counts.iter().collect();
            best.sort_by(|a, b| b.1.cmp(a.1));
            best.into_iter()
                .take(10)
                .map(|(item, _)| item.clone())
                .collect::<HashSet<ItemId>>()
        };
        let popular = top(&popular);
        let follows: BTreeMap<ItemId, HashSet<ItemId>> = follows
            .into_iter()
            .map(|(item, counts)| (item, top(&counts)))
            .collect();
        let (mut asked, mut by_order, mut by_popularity) = (0, 0, 0);
        for pair in histories
            .values()
            .skip(1)
            .step_by(2)
            .flat_map(|history| history.windows(2))
        {
            asked += 1;
            by_order += usize::from(
                follows
                    .get(&pair[0])
                    .is_some_and(|top| top.contains(&pair[1])),
            );
            by_popularity += usize::from(popular.contains(&pair[1]));
        }
        assert!(
            asked > 20_000 && by_order > asked / 12,
            "{by_order} of {asked}"
        );
        assert!(
            2 * by_order > 3 * by_popularity,
            "{by_order} against {by_popularity}"
        );
    }
}
