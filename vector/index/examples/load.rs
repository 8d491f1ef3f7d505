//! Fills a collection and opens it again, and says how long that took:
//! `cargo run --release -p skerry-vector-index --example load -- DIR ROWS DIM [BATCH]`.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_vector_index::store::{Collection, Options, StoreError, verify};
use skerry_vector_index::{Merge, Metric, Query, Record, Spec, Stored, Write};
use std::path::PathBuf;
use std::time::Instant;

const WRITERS: usize = 4;

fn vector(random: &mut StdRng, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn load(collection: &Collection, writer: usize, rows: usize, batch: usize) {
    let mut random = StdRng::seed_from_u64(writer as u64);
    let dim = collection.spec().dim;
    for from in (0..rows).step_by(batch) {
        let writes: Vec<Write> = (from..rows.min(from + batch))
            .map(|n| {
                Write::Upsert(Record {
                    id: format!("{writer}-{n}").into(),
                    vector: vector(&mut random, dim),
                    payload: [("n".into(), skerry_types::Value::Int(n as i64))].into(),
                })
            })
            .collect();
        loop {
            match collection.write(writes.clone()) {
                Err(StoreError::Full { .. }) => std::thread::yield_now(),
                written => {
                    written.expect("written");
                    break;
                }
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize| {
        arguments
            .get(at)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let (Some(dir), Some(rows), Some(dim)) = (arguments.get(1), number(2), number(3)) else {
        eprintln!("load DIR ROWS DIM [BATCH]");
        return;
    };
    let dir = PathBuf::from(dir);
    let spec = Spec {
        dim,
        metric: Metric::Cosine,
        stored: Stored::F32,
        fields: vec!["n".into()],
    };
    let options = Options::default();
    let collection = Collection::create(&dir, spec, options.clone()).expect("an empty folder");
    let began = Instant::now();
    let batch = number(4).unwrap_or(500);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let collection = &collection;
            scope.spawn(move || load(collection, writer, rows / WRITERS, batch));
        }
    });
    println!(
        "written: {:.1} s, {:?}",
        began.elapsed().as_secs_f64(),
        collection.stats()
    );
    collection.seal().expect("sealed");
    println!(
        "sealed:  {:.1} s, {:?}",
        began.elapsed().as_secs_f64(),
        collection.stats()
    );
    collection.close();
    println!("closed:  {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    let collection = Collection::open(&dir, options).expect("it opens again");
    println!(
        "open:    {:.2} s, {} records",
        began.elapsed().as_secs_f64(),
        collection.len()
    );
    let mut random = StdRng::seed_from_u64(99);
    let began = Instant::now();
    for _ in 0..20 {
        let ask = Query {
            vectors: vec![vector(&mut random, dim)],
            merge: Merge::Best,
            k: 10,
            ef: None,
            filter: None,
        };
        assert_eq!(collection.search(&ask).expect("an answer").len(), 10);
    }
    println!(
        "search:  {:.2} ms each",
        began.elapsed().as_secs_f64() * 50.0
    );
    let began = Instant::now();
    let print = collection.fingerprint(|_| true).expect("a fingerprint");
    println!("print:   {:.1} s, {print:?}", began.elapsed().as_secs_f64());
    collection.close();
    let began = Instant::now();
    let report = verify(&dir, &mut |_| {}).expect("a collection");
    println!(
        "verify:  {:.1} s, sound: {}",
        began.elapsed().as_secs_f64(),
        report.is_sound()
    );
}
