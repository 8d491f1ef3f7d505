//! What a collection refuses, and that nothing of it is done.

use super::*;
use skerry_types::{Filter, Test};

fn upsert(id: &str) -> Write {
    Write::Upsert(record(id, &mut random(id.len() as u64)))
}

fn with(vector: Vec<f32>) -> Write {
    Write::Upsert(Record {
        id: "a".into(),
        vector,
        payload: Attributes::new(),
    })
}

fn payload(value: Value) -> Write {
    Write::Upsert(Record {
        id: "a".into(),
        vector: vec![1.0; DIM],
        payload: Attributes::from([("x".into(), value)]),
    })
}

#[test]
fn what_cannot_be_stored_is_refused_and_nothing_of_its_batch_is_there() {
    let mut nan = vec![1.0; DIM];
    nan[3] = f32::NAN;
    let mut great = vec![1.0; DIM];
    great[2] = 1e30;
    let mut half = vec![1.0; DIM];
    half[1] = 1e5;
    let list = Value::List(vec![Value::List(vec![])]);
    let long = Value::text(&"x".repeat(crate::PAYLOAD_BYTES_MAX + 1));
    let (f32s, f16s) = (Stored::F32, Stored::F16);
    let cases = [
        ("nan", Metric::Dot, f32s, with(nan), "vector_not_finite"),
        (
            "overflow",
            Metric::L2,
            f32s,
            with(great.clone()),
            "vector_not_finite",
        ),
        (
            "more than a half holds",
            Metric::Dot,
            f16s,
            with(half.clone()),
            "vector_not_finite",
        ),
        ("short", Metric::Dot, f32s, with(vec![1.0]), "vector_dim"),
        (
            "zero",
            Metric::Cosine,
            f32s,
            with(vec![0.0; DIM]),
            "vector_zero_norm",
        ),
        (
            "no id",
            Metric::Dot,
            f32s,
            Write::Delete("".into()),
            "vector_id_length",
        ),
        (
            "long id",
            Metric::Dot,
            f32s,
            upsert(&"i".repeat(513)),
            "vector_id_length",
        ),
        (
            "twice",
            Metric::Dot,
            f32s,
            upsert("good"),
            "vector_duplicate_id",
        ),
        (
            "payload",
            Metric::Dot,
            f32s,
            payload(long),
            "vector_payload",
        ),
        (
            "list in a list",
            Metric::Dot,
            f32s,
            payload(list),
            "vector_value",
        ),
    ];
    for (name, metric, stored, write, code) in cases {
        let dir = tempfile::tempdir().unwrap();
        let collection = Collection::create(dir.path(), spec(metric, stored), quiet()).unwrap();
        let error = collection.write(vec![upsert("good"), write]).unwrap_err();
        assert_eq!(error.code(), code, "{name}");
        assert_eq!((collection.seq(), collection.len()), (0, 0), "{name}");
    }
    for (name, metric, write) in [
        ("a cosine scales", Metric::Cosine, with(great)),
        ("and then a half holds it", Metric::Cosine, with(half)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let collection =
            Collection::create(dir.path(), spec(metric, Stored::F16), quiet()).unwrap();
        collection.write(vec![write]).expect(name);
        let (found, _) = collection.get("a").unwrap().unwrap();
        assert!(
            (Metric::Dot.score(&found.vector, &found.vector) - 1.0).abs() < 2e-3,
            "{name}"
        );
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let collection = Collection::create(dir.path(), spec(Metric::Cosine, Stored::F32), quiet());
    let collection = collection.unwrap();
    let good = ask(&[1.0; DIM], 3);
    let field = |field: &str| {
        Some(Filter::Not(Box::new(Filter::Field {
            field: field.into(),
            test: Test::Exists(true),
        })))
    };
    let vectors = |count| vec![vec![1.0; DIM]; count];
    let cases = [
        ("good", good.clone(), ""),
        (
            "k",
            Query {
                k: 1_000_000,
                ..good.clone()
            },
            "vector_results",
        ),
        (
            "no vector",
            Query {
                vectors: vectors(0),
                ..good.clone()
            },
            "vector_query_vectors",
        ),
        (
            "11 vectors",
            Query {
                vectors: vectors(11),
                ..good.clone()
            },
            "vector_query_vectors",
        ),
        ("dimension", ask(&[1.0], 3), "vector_query_dim"),
        ("nan", ask(&[f32::NAN; DIM], 3), "vector_query_not_finite"),
        ("zero", ask(&[0.0; DIM], 3), "vector_query_zero_norm"),
        (
            "known field",
            Query {
                filter: field("year"),
                ..good.clone()
            },
            "",
        ),
        (
            "unknown field",
            Query {
                filter: field("title"),
                ..good
            },
            "vector_unknown_field",
        ),
    ];
    for (name, ask, code) in cases {
        let found = collection
            .search_batch(std::slice::from_ref(&ask))
            .map(|_| "");
        assert_eq!(found.unwrap_or_else(|error| error.code()), code, "{name}");
    }
    let ask = Query {
        filter: field("title"),
        ..ask(&[1.0; DIM], 1)
    };
    let error = collection.search(&ask).unwrap_err().to_string();
    assert!(
        error.contains("title") && error.contains("genre, year"),
        "{error}"
    );
}
