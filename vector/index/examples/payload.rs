//! Measures the payload index: a million rows with a genre (1 to 3 of 20), a year (of 100) and an id
//! of their own.
//!
//! `cargo run --release -p skerry-vector-index --example payload`

use skerry_types::{Attributes, Filter, Test, Value};
use skerry_vector_index::PayloadIndex;
use std::time::{Duration, Instant};

const ROWS: u32 = 1_000_000;
const ROUNDS: usize = 21;

fn payload(row: u32) -> Attributes {
    let roll = |salt: u32| (row ^ salt).wrapping_mul(2_654_435_761) >> 8;
    let genre = |salt| Value::text(&format!("genre-{:02}", roll(salt) % 20));
    let genres = (0..=roll(7) % 3).map(genre);
    [
        ("genre".into(), Value::List(genres.collect())),
        ("year".into(), Value::Int(1925 + i64::from(roll(99) % 100))),
        ("id".into(), Value::text(&format!("item-{:08}", roll(3)))),
    ]
    .into()
}

fn field(name: &str, test: Test) -> Filter {
    Filter::Field {
        field: name.into(),
        test,
    }
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    println!("{what:<44} {:>9.1} ms", ms(start.elapsed()));
    result
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn main() {
    let fields: Vec<Box<str>> = ["genre", "id", "year"].map(Into::into).to_vec();
    let payloads: Vec<Attributes> = (0..ROWS).map(payload).collect();
    let mut index = PayloadIndex::new(&fields);
    timed("add 1M rows", || {
        for (row, payload) in (0..).zip(&payloads) {
            index.add(row, payload);
        }
    });
    println!(
        "memory as added  {:>6.1} bytes a row",
        per_row(index.bytes())
    );
    let merged = timed("renumber, 1 row in 5 gone", || {
        index.renumber(ROWS, &|row| (row % 5 != 0).then_some(row))
    });
    drop(merged);
    let bytes = timed("to bytes", || index.to_bytes());
    println!("bytes            {:>6.1} a row", per_row(bytes.len()));
    let index = timed("from bytes", || {
        PayloadIndex::from_bytes(&fields, ROWS, &bytes).expect("what was written reads")
    });
    println!(
        "memory as read   {:>6.1} bytes a row",
        per_row(index.bytes())
    );
    for name in ["genre", "id", "year"] {
        let mut one = PayloadIndex::new(&[name.into()]);
        for (row, payload) in (0..).zip(&payloads) {
            one.add(row, payload);
        }
        let packed = one.renumber(ROWS, &Some);
        println!("  {name:<14} {:>6.1} bytes a row", per_row(packed.bytes()));
    }

    let genres = |of: &[u32]| {
        of.iter()
            .map(|of| Value::text(&format!("genre-{of:02}")))
            .collect()
    };
    let year = |year: i64| Value::Int(year);
    let ids = (0..5)
        .map(|row| payload(row * 1_000)["id"].clone())
        .collect();
    let eq = || field("genre", Test::Eq(Value::text("genre-03")));
    let since = |from| field("year", Test::Gte(year(from)));
    let from_id = |from: &str| field("id", Test::Gte(Value::text(from)));
    let not = |filter| Filter::Not(Box::new(filter));
    for (what, filter) in [
        ("genre eq", eq()),
        (
            "genre in (5)",
            field("genre", Test::In(genres(&[1, 2, 3, 4, 5]))),
        ),
        (
            "genre not_in (5)",
            field("genre", Test::NotIn(genres(&[1, 2, 3, 4, 5]))),
        ),
        ("year eq", field("year", Test::Eq(year(1990)))),
        ("year >= 2015 (10 of 100)", since(2015)),
        ("year >= 1975 (50 of 100)", since(1975)),
        ("id in (5)", field("id", Test::In(ids))),
        ("id >= 99 % (1 % pass)", from_id("item-16609443")),
        ("id >= 50 % (50 % pass)", from_id("item-08388608")),
        (
            "id not_in (1)",
            field("id", Test::NotIn(vec![Value::text("item-00000000")])),
        ),
        (
            "genre eq and year >= 2015",
            Filter::All(vec![eq(), since(2015)]),
        ),
        (
            "genre eq or year >= 2015",
            Filter::Any(vec![eq(), since(2015)]),
        ),
        ("not genre eq", not(eq())),
        (
            "year >= 2015 and not genre eq",
            Filter::All(vec![since(2015), not(eq())]),
        ),
        (
            "(genre eq or year 1990) and id >= 50 %",
            Filter::All(vec![
                Filter::Any(vec![eq(), field("year", Test::Eq(year(1990)))]),
                from_id("item-08388608"),
            ]),
        ),
    ] {
        let mut times: Vec<Duration> = Vec::new();
        let mut passing = 0;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let rows = index.matching(&filter).expect("the fields are known");
            times.push(start.elapsed());
            passing = rows.len();
        }
        times.sort_unstable();
        let median = ms(times[ROUNDS / 2]) * 1e3;
        println!("{what:<44} {median:>9.1} us  {passing:>8} rows");
    }
}

fn per_row(bytes: usize) -> f64 {
    bytes as f64 / f64::from(ROWS)
}
