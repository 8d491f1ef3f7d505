//! Segments whose vectors are coded a bit a component.

use super::*;
use crate::CodeKind;
use skerry_types::{Filter, Test};

const WIDE: usize = 96;
const ROWS: usize = 3_000;

fn options(codes: CodeKind) -> Options {
    Options {
        mutable_rows: ROWS,
        codes,
        background: false,
        ..Options::default()
    }
}

/// Around 30 centres, in genres by turns.
fn records(metric: Metric) -> Vec<Record> {
    let mut random = random(3);
    let mut some = || -> Vec<f32> { (0..WIDE).map(|_| random.random_range(-1.0..1.0)).collect() };
    let centres: Vec<Vec<f32>> = (0..30).map(|_| some()).collect();
    let near = |n: usize| {
        let rest = some();
        let vector = centres[n % 30].iter().zip(rest);
        let mut vector: Vec<f32> = vector.map(|(c, x)| c + 0.6 * x).collect();
        if metric == Metric::Cosine {
            score::normalise(&mut vector);
        }
        let genre = if n.is_multiple_of(7) {
            "drama"
        } else {
            "comedy"
        };
        Record {
            id: format!("{n}").into(),
            vector,
            payload: Attributes::from([("genre".into(), Value::text(genre))]),
        }
    };
    (0..ROWS).map(near).collect()
}

fn hits(collection: &Collection, records: &[Record], metric: Metric, genre: Option<&str>) -> f64 {
    let passes = |record: &&Record| {
        genre.is_none_or(|genre| record.payload.get("genre") == Some(&Value::text(genre)))
    };
    let mut found = 0;
    for query in records.iter().step_by(ROWS / 100) {
        let mut wanted: Vec<(f32, &str)> = records
            .iter()
            .filter(passes)
            .map(|record| (metric.score(&query.vector, &record.vector), &*record.id))
            .collect();
        wanted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut ask = ask(&query.vector, 10);
        ask.filter = genre.map(|genre| Filter::Field {
            field: "genre".into(),
            test: Test::Eq(Value::text(genre)),
        });
        let answer = collection.search(&ask).unwrap();
        assert_eq!(answer.len(), 10);
        let wanted = &wanted[..10];
        found += answer
            .iter()
            .filter(|one| wanted.iter().any(|(_, id)| *id == &*one.id))
            .count();
        assert!(answer[0].score == wanted[0].0, "scores are exact");
    }
    found as f64 / 1_000.0
}

#[test]
fn a_segment_of_bits_finds_as_much_and_takes_less_memory() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(metric, Stored::F32);
        spec.dim = WIDE;
        let records = records(metric);
        let collection = Collection::create(dir.path(), spec, options(CodeKind::Bits)).unwrap();
        let writes = records.iter().cloned().map(Write::Upsert).collect();
        collection.write(writes).unwrap();
        collection.seal().unwrap();
        let print = collection.fingerprint(|_| true).unwrap();
        let path = dir.path().join("segment-1.skv");
        let version = || std::fs::read(&path).unwrap()[8];
        assert_eq!(version(), 2, "older programs refuse it");
        collection.close();
        assert!(verify(dir.path(), &mut |_| {}).unwrap().is_sound());
        // What a segment is made of is its own: options are for those that come.
        let collection = Collection::open(dir.path(), options(CodeKind::Bytes)).unwrap();
        assert_eq!(collection.fingerprint(|_| true).unwrap(), print);
        for genre in [None, Some("drama"), Some("comedy")] {
            let recall = hits(&collection, &records, metric, genre);
            assert!(recall >= 0.99, "{metric:?} {genre:?}: {recall}");
        }
        let by_bits = collection.stats().hot_bytes;
        // Merged by one who wants bytes, it has bytes.
        collection.write(vec![Write::Delete("1".into())]).unwrap();
        collection.compact().unwrap();
        let by_bytes = collection.stats().hot_bytes;
        assert_eq!(
            std::fs::read(dir.path().join("segment-2.skv")).unwrap()[8],
            1
        );
        // 128 bytes of codes and 4 of a scale, against 12 of bits and 16 of factors, and their centres.
        let less = (by_bytes - by_bits) as usize;
        assert!(less > ROWS * 90 - 64 * WIDE * 4, "{by_bits} and {by_bytes}");
    }
}

#[test]
fn few_dimensions_have_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::create(dir.path(), dot(), options(CodeKind::Bits)).unwrap();
    let mut random = random(1);
    let writes = (0..20).map(|n| Write::Upsert(record(&format!("{n}"), &mut random)));
    collection.write(writes.collect()).unwrap();
    collection.seal().unwrap();
    assert_eq!(
        std::fs::read(dir.path().join("segment-1.skv")).unwrap()[8],
        1
    );
}

#[test]
fn damaged_bits_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(Metric::Dot, Stored::F32);
    spec.dim = WIDE;
    let collection = Collection::create(dir.path(), spec, options(CodeKind::Bits)).unwrap();
    let writes = records(Metric::Dot)
        .into_iter()
        .take(200)
        .map(Write::Upsert);
    collection.write(writes.collect()).unwrap();
    collection.seal().unwrap();
    collection.close();
    let path = dir.path().join("segment-1.skv");
    let whole = std::fs::read(&path).unwrap();
    let header = &whole[..layout::HEADER_BYTES];
    let (layout, _) = layout::Layout::decode(&path, header, whole.len() as u64).unwrap();
    for (section, named) in [
        (graph::Section::Bits, "graph bits"),
        (graph::Section::Centres, "graph centres"),
    ] {
        let place = layout.section(layout::packed(section)).unwrap();
        let mut bytes = whole.clone();
        bytes[place.at + place.bytes / 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = Collection::open(dir.path(), options(CodeKind::Bits))
            .err()
            .unwrap();
        assert_eq!(error.code(), "vector_corrupt");
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
        assert!(
            !verify(dir.path(), &mut |_| {}).is_ok_and(|report| report.is_sound()),
            "{named}"
        );
    }
}
