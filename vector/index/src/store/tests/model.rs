//! Whatever is done in whatever order, a collection holds what a map would.

use super::*;
use crate::store::filter::passes;
use crate::store::score::{prepare, query};
use proptest::prelude::*;
use skerry_types::{Filter, Test};
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Act {
    Batch(Vec<(u8, bool)>),
    Seal,
    Compact,
    Reopen,
    Restore,
}

fn act() -> impl Strategy<Value = Act> {
    let batch = prop::collection::vec((0u8..40, prop::bool::weighted(0.7)), 0..12);
    prop_oneof![
        12 => batch.prop_map(Act::Batch),
        2 => Just(Act::Seal),
        1 => Just(Act::Compact),
        2 => Just(Act::Reopen),
        1 => Just(Act::Restore),
    ]
}

type Model = BTreeMap<Box<str>, (Record, u64)>;

fn filter() -> Filter {
    Filter::All(vec![
        Filter::Field {
            field: "year".into(),
            test: Test::Gte(Value::Int(1993)),
        },
        Filter::Field {
            field: "genre".into(),
            test: Test::In(vec![Value::text("drama"), Value::text("western")]),
        },
    ])
}

fn expected(model: &Model, spec: &Spec, ask: &Query) -> Vec<(f32, u64, Box<str>)> {
    let vectors: Vec<_> = ask
        .vectors
        .iter()
        .map(|one| query(spec, one).unwrap())
        .collect();
    let mut all: Vec<_> = model
        .values()
        .filter(|(record, _)| {
            let passes = |filter| passes(filter, &record.payload);
            ask.filter.as_ref().is_none_or(passes)
        })
        .map(|(record, seq)| {
            let each = vectors
                .iter()
                .map(|one| score(spec.metric, one, &record.vector));
            let score = match ask.merge {
                Merge::Best => each.fold(f32::NEG_INFINITY, f32::max),
                Merge::Mean => each.map(|one| one / vectors.len() as f32).sum(),
            };
            (score, *seq, record.id.clone())
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all.truncate(ask.k);
    all
}

fn compare(collection: &Collection, model: &Model, random: &mut StdRng) {
    assert_eq!(collection.len(), model.len());
    let records: Vec<_> = model.values().cloned().collect();
    assert_eq!(all(collection, 5), records);
    for n in 0..40 {
        let id = format!("id-{n}");
        assert_eq!(
            collection.get(&id).unwrap().as_ref(),
            model.get(&*id),
            "{id}"
        );
    }
    let spec = collection.spec();
    let vector = |random: &mut StdRng| record("q", random).vector;
    for (vectors, merge, k, filter) in [
        (1, Merge::Best, 5, None),
        (1, Merge::Best, 100, Some(filter())),
        (3, Merge::Best, 7, None),
        (3, Merge::Mean, 7, Some(filter())),
    ] {
        let ask = Query {
            vectors: (0..vectors).map(|_| vector(random)).collect(),
            merge,
            k,
            ef: Some(200),
            filter,
        };
        let found = collection.search(&ask).unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|one| (one.score, one.seq, one.id))
            .collect();
        assert_eq!(found, expected(model, spec, &ask), "{ask:?}");
    }
}

fn run(acts: &[Act], metric: Metric, stored: Stored, background: bool, seed: u64) {
    let root = tempfile::tempdir().unwrap();
    let options = if background { busy() } else { quiet() };
    let mut dir = root.path().join("0");
    let mut collection = Collection::create(&dir, spec(metric, stored), options.clone()).unwrap();
    let mut model = Model::new();
    let mut random = random(seed);
    let mut seq = 0;
    for (step, act) in acts.iter().enumerate() {
        match act {
            Act::Batch(batch) => {
                let mut writes: BTreeMap<u8, Write> = BTreeMap::new();
                for (id, put) in batch {
                    let name = format!("id-{id}");
                    let write = if *put {
                        Write::Upsert(record(&name, &mut random))
                    } else {
                        Write::Delete(name.into())
                    };
                    writes.insert(*id, write);
                }
                let writes: Vec<Write> = writes.into_values().collect();
                let committed = collection.write(writes.clone()).unwrap();
                assert_eq!(committed.first_seq, seq + 1);
                for write in writes {
                    seq += 1;
                    match write {
                        Write::Upsert(mut record) => {
                            prepare(collection.spec(), &mut record.vector);
                            model.insert(record.id.clone(), (record, seq));
                        }
                        Write::Delete(id) => {
                            model.remove(&id);
                        }
                    }
                }
                assert_eq!((committed.last_seq, collection.seq()), (seq, seq));
            }
            Act::Seal => collection.seal().unwrap(),
            Act::Compact => collection.compact().unwrap(),
            Act::Reopen => {
                collection.close();
                let report = verify(&dir, &mut |_| {}).unwrap();
                assert!(report.is_sound(), "{report:?}");
                assert_eq!((report.last_seq, report.torn_bytes), (seq, 0));
                collection = Collection::open(&dir, options.clone()).unwrap();
            }
            Act::Restore => {
                let folder = root.path().join(format!("snapshot-{step}"));
                assert_eq!(collection.snapshot_to(&folder).unwrap().seq, seq);
                dir = root.path().join(format!("{}", step + 1));
                collection = Collection::restore(&folder, &dir, options.clone()).unwrap();
            }
        }
        assert_eq!(collection.stats().faults, Vec::<String>::new());
        if !matches!(act, Act::Batch(_)) || step % 4 == 0 {
            compare(&collection, &model, &mut random);
        }
    }
    compare(&collection, &model, &mut random);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_collection_is_a_map(
        acts in prop::collection::vec(act(), 1..40),
        metric in prop_oneof![Just(Metric::Dot), Just(Metric::Cosine), Just(Metric::L2)],
        stored in prop_oneof![Just(Stored::F32), Just(Stored::F16)],
        background in any::<bool>(),
        seed in any::<u64>(),
    ) {
        run(&acts, metric, stored, background, seed);
    }
}
