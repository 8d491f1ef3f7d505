//! A seeded world where order matters: each item has a few successors, and users mostly take one of
//! them; else they take something popular of their own genre.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use skerry_origin_training::{Interactions, Row};
use skerry_types::{Attributes, ItemId, Taste, Value};
use std::collections::HashSet;

const GENRES: u32 = 8;
const SUCCESSORS: u32 = 3;

pub fn interactions(users: u32, items: u32, events: usize, seed: u64) -> Interactions {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let catalogue = (0..items)
        .map(|item| {
            let mut attributes = Attributes::new();
            attributes.insert("year".into(), Value::Int(1970 + i64::from(item % 50)));
            attributes.insert(
                "genre".into(),
                Value::List(vec![Value::text(&format!("g{}", item % GENRES))]),
            );
            (
                ItemId::new(&format!("item-{item}")).expect("a short id"),
                attributes,
            )
        })
        .collect();
    // Falling popularity: the square of a uniform number.
    let popular = move |rng: &mut ChaCha8Rng, genre: u32| {
        let roll: f32 = rng.random();
        let of_genre = (items / GENRES).max(1);
        ((roll * roll * of_genre as f32) as u32 * GENRES + genre).min(items - 1)
    };
    let mut walks: Vec<(u32, HashSet<u32>)> = (0..users)
        .map(|user| (user % items, HashSet::new()))
        .collect();
    let mut rows = Vec::with_capacity(events);
    let mut at_ms = 1_000_000;
    while rows.len() < events {
        let user = rng.random_range(0..users);
        let (last, taken) = &mut walks[user as usize];
        let next = if rng.random::<f32>() < 0.6 {
            // A fixed, scattered successor.
            (*last * 7 + 13 * (1 + rng.random_range(0..SUCCESSORS))) % items
        } else {
            popular(&mut rng, user % GENRES)
        };
        at_ms += 1_000;
        if !taken.insert(next) {
            *last = next;
            if taken.len() as u32 >= items {
                break;
            }
            continue;
        }
        *last = next;
        let value = if rng.random::<f32>() < 0.7 { 4.5 } else { 2.5 };
        let taste = if value > 4.0 {
            Taste::Positive
        } else {
            Taste::Neutral
        };
        rows.push(Row {
            user,
            item: next,
            at_ms,
            taste,
            value: Some(value),
        });
    }
    Interactions::new(catalogue, rows).expect("rows in order on known items")
}
