//! What all tests of the store share.

mod bits;
mod cases;
mod crash;
mod model;
mod mutate;
mod refused;
mod stop;

use super::*;
use crate::{Merge, Metric, Stored, graph};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_types::{Attributes, Value};

const DIM: usize = 6;

fn spec(metric: Metric, stored: Stored) -> Spec {
    Spec {
        dim: DIM,
        metric,
        stored,
        fields: vec!["genre".into(), "year".into()],
    }
}

fn dot() -> Spec {
    spec(Metric::Dot, Stored::F32)
}

/// Small segments, and nothing in the background.
fn quiet() -> Options {
    Options {
        mutable_rows: 8,
        log_file_bytes: 1 << 10,
        log_tail_bytes: 2 << 10,
        background: false,
        ..Options::default()
    }
}

/// Small segments, sealed and compacted all the time.
fn busy() -> Options {
    Options {
        background: true,
        cpu_percent: 100,
        ..quiet()
    }
}

fn record(id: &str, random: &mut StdRng) -> Record {
    let year = random.random_range(1990..2000);
    let genre = ["drama", "comedy", "western"][random.random_range(0..3)];
    Record {
        id: id.into(),
        vector: (0..DIM).map(|_| random.random_range(-1.0..1.0)).collect(),
        payload: Attributes::from([
            ("year".into(), Value::Int(year)),
            ("genre".into(), Value::List(vec![Value::text(genre)])),
            ("title".into(), Value::text(&format!("Title of {id}"))),
        ]),
    }
}

fn random(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn ask(vector: &[f32], k: usize) -> Query {
    Query {
        vectors: vec![vector.to_vec()],
        merge: Merge::Best,
        k,
        ef: None,
        filter: None,
    }
}

/// All records of a collection, by pages of `page`.
fn all(collection: &Collection, page: usize) -> Vec<(Record, u64)> {
    let mut after: Option<Box<str>> = None;
    let mut all = Vec::new();
    loop {
        let page = collection.scan(after.as_deref(), page, &|_| true).unwrap();
        all.extend(page.records);
        after = page.next;
        if after.is_none() {
            all.sort_by(|a, b| a.0.id.cmp(&b.0.id));
            return all;
        }
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
