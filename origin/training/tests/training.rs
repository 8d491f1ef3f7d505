//! What training promises: the same bytes from the same seed, lists far better than popularity where
//! order matters, and a model from whatever data there is.

mod world;

use skerry_decide::score::{DIM, EDGE_HISTORY_MAX, HistoryStep, Scratch, dot};
use skerry_origin_ranker::Model;
use skerry_origin_training::eval::{Protocol, evaluate};
use skerry_origin_training::{Interactions, Row, Stage, TrainError, TrainOptions, train};
use skerry_types::{Attributes, ItemId, Taste};

fn options() -> TrainOptions {
    TrainOptions {
        trees: 40,
        groups_max: 1_000,
        folds: 3,
        ..TrainOptions::default()
    }
}

fn trained(data: &Interactions, options: &TrainOptions) -> Model {
    train(data, options, &|_, _| ()).expect("a model")
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads")
        .install(work)
}

fn steps(history: &[Row], max: usize) -> Vec<HistoryStep> {
    let newest = history.iter().rev().take(max);
    (0..)
        .zip(newest)
        .map(|(age, row)| HistoryStep {
            item: row.item,
            taste: row.taste,
            age,
        })
        .collect()
}

#[test]
fn the_seed_alone_decides_the_bytes() {
    let data = world::interactions(150, 300, 6_000, 5);
    let bytes = |threads, seed| {
        on_threads(threads, || {
            trained(&data, &TrainOptions { seed, ..options() }).to_bytes()
        })
    };
    let one = bytes(1, 1);
    assert!(
        one == bytes(3, 1),
        "the number of threads changed the model"
    );
    assert!(one != bytes(1, 2), "the seed changed nothing");
}

#[test]
fn where_order_matters_every_rung_beats_popularity() {
    let data = world::interactions(300, 400, 15_000, 11);
    let split = Protocol::Loo { back: 0 }.split(&data);
    let model = trained(&split.train, &options());
    let allowed = |excluded: &[u32], row: u32| excluded.binary_search(&row).is_err();
    let popular = evaluate(&split, 1, |_, excluded| {
        model
            .trending(400)
            .into_iter()
            .map(|(row, _)| row)
            .filter(|row| allowed(excluded, *row))
            .take(10)
            .collect()
    });
    let full = evaluate(&split, 1, |history, excluded| {
        let user = model.fold_in(&steps(history, 50));
        let query = user
            .query()
            .map(|query| <&[f32; DIM]>::try_from(query).expect("the dimension"));
        let score = |row: u32| {
            query.map_or(0.0, |query| {
                dot(query, &model.parts().factors[row as usize])
            })
        };
        let near: Vec<(u32, f32)> = (0..400)
            .map(|row| (row, score(row)))
            .filter(|(_, score)| *score > 0.1)
            .collect();
        let rows = model.candidates_where(&user, &near, 300, |row| allowed(excluded, row));
        let mut scores = Vec::new();
        model.rank(&user, &rows, &mut scores);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.iter().take(10).map(|at| rows[*at].item).collect()
    });
    let (places, pool) = model.edge_pool(10_000);
    let row_of: Vec<u32> = (0..400)
        .map(|item| places.iter().position(|row| *row == item).expect("all fit") as u32)
        .collect();
    let mut scratch = Scratch::default();
    let edge = evaluate(&split, 1, |history, excluded| {
        let mut history = steps(history, EDGE_HISTORY_MAX);
        history
            .iter_mut()
            .for_each(|step| step.item = row_of[step.item as usize]);
        let best = pool.rank_where(&history, &mut scratch, 10, |row| {
            allowed(excluded, places[row as usize])
        });
        best.iter().map(|best| places[best.0 as usize]).collect()
    });
    println!("popular {popular:?}\nedge {edge:?}\nfull {full:?}");
    assert!(edge.ndcg_at_10 > 4.0 * popular.ndcg_at_10);
    assert!(full.ndcg_at_10 > 4.0 * popular.ndcg_at_10);
    assert!(full.ndcg_at_10 > 0.2 && edge.ndcg_at_10 > 0.15);
    assert!(full.interval.0 <= full.ndcg_at_10 && full.ndcg_at_10 <= full.interval.1);
}

#[test]
fn there_is_a_model_from_whatever_there_is() {
    let items = |count: usize| -> Vec<(ItemId, Attributes)> {
        (0..count)
            .map(|item| {
                (
                    ItemId::new(&item.to_string()).expect("an id"),
                    Attributes::new(),
                )
            })
            .collect()
    };
    let row = |user, item, taste| Row {
        user,
        item,
        at_ms: 1,
        taste,
        value: None,
    };
    let cases = [
        ("no event", items(3), vec![]),
        ("one item", items(1), vec![row(0, 0, Taste::Positive)]),
        (
            "no positive",
            items(3),
            vec![row(0, 0, Taste::Negative), row(0, 1, Taste::Neutral)],
        ),
        (
            "the same item again",
            items(3),
            vec![row(0, 1, Taste::Positive); 20],
        ),
        (
            "a user far out",
            items(3),
            vec![
                row(9_000, 2, Taste::Positive),
                row(9_000, 1, Taste::Positive),
            ],
        ),
    ];
    for (name, items, rows) in cases {
        let data = Interactions::new(items, rows).expect(name);
        let model = trained(&data, &options());
        assert_eq!(
            Model::from_bytes(&model.to_bytes()).expect(name).to_bytes(),
            model.to_bytes(),
            "{name}"
        );
        let user = model.fold_in(&steps(data.rows(), 50));
        let rows = model.candidates(&user, &[(0, 1.0)], 10);
        let mut scores = Vec::new();
        model.rank(&user, &rows, &mut scores);
        assert!(scores.iter().all(|score| score.is_finite()), "{name}");
    }
    let empty = Interactions::default();
    assert!(matches!(
        train(&empty, &options(), &|_, _| ()),
        Err(TrainError::Empty)
    ));
    assert!(matches!(
        Interactions::new(items(1), vec![row(0, 1, Taste::Neutral)]),
        Err(TrainError::UnknownItem { item: 1 })
    ));
    let later = Row {
        at_ms: 2,
        ..row(0, 0, Taste::Neutral)
    };
    let back = Interactions::new(items(1), vec![later, row(0, 0, Taste::Neutral)]);
    assert!(matches!(back, Err(TrainError::OutOfOrder)));
}

#[test]
fn progress_goes_forward() {
    let data = world::interactions(40, 60, 900, 3);
    let seen = std::sync::Mutex::new(Vec::new());
    let progress = |stage: Stage, share: f32| seen.lock().expect("no panic").push((stage, share));
    train(&data, &options(), &progress).expect("a model");
    let seen = seen.into_inner().expect("no panic");
    let shares = |stage| {
        seen.iter()
            .filter(move |(of, _)| *of == stage)
            .map(|(_, share)| *share)
    };
    for stage in [Stage::Embeddings, Stage::Order, Stage::Ranker] {
        assert!(
            shares(stage).count() > 0
                && shares(stage).is_sorted()
                && shares(stage).all(|share| (0.0..=1.0).contains(&share))
        );
    }
}
