use crate::artifact::seal;
use crate::features::FEATURES;
use crate::forest::Node;
use crate::*;
use proptest::prelude::*;
use skerry_decide::score::{Blend, DIM, EDGE_HISTORY_MAX, FoldIn, HistoryStep, Scratch, Vector};
use skerry_types::{ItemId, Source, Taste};

fn identity(scale: f32) -> FoldIn {
    let rows: Vec<f32> = (0..DIM * DIM)
        .map(|at| if at % (DIM + 1) == 0 { scale } else { 0.0 })
        .collect();
    FoldIn::new(&rows).unwrap()
}

fn trees() -> Vec<Tree> {
    let node = |feature, threshold, left_leaves| Node {
        feature,
        threshold,
        left_leaves,
    };
    vec![
        Tree {
            nodes: vec![node(2, 0.5, 0b01)],
            leaves: vec![-1.0, 1.0],
        },
        Tree {
            nodes: vec![node(10, 1.0, 0b011), node(1, 0.0, 0b001)],
            leaves: vec![0.1, 0.2, 0.3],
        },
    ]
}

/// Two clusters (even and odd rows) on two axes; each row is followed by the next of its cluster.
fn parts(items: u32) -> Parts {
    let blend = Blend {
        vector: 1.0,
        order: 0.5,
        prior: 0.0,
    };
    let vector = |item: u32| -> Vector {
        std::array::from_fn(|at| match at {
            0 | 1 if at as u32 == item % 2 => 1.0,
            2 => (item as f32 * 0.7).sin() * 0.3,
            _ => 0.0,
        })
    };
    let follower = |item: u32| {
        if items > 2 {
            vec![(item + 2) % items]
        } else {
            Vec::new()
        }
    };
    let rows: Vec<u32> = (0..items).flat_map(follower).collect();
    let prior = |item: u32| Prior {
        popularity: 5.0 / (item as f32 + 1.0),
        rating: 3.5,
        trend: 4.0 / (item as f32 + 1.0),
        recency: 0.5,
        year: 1990.0 + (item % 20) as f32,
        genres: 1 << (item % 2),
    };
    Parts {
        number: 7,
        ids: (0..items)
            .map(|item| ItemId::new(&format!("i{item}")).unwrap())
            .collect(),
        factors: (0..items).map(vector).collect(),
        fold: identity(0.5),
        followers: Followers {
            starts: (0..=items)
                .map(|item| if items > 2 { item } else { 0 })
                .collect(),
            weights: rows.iter().map(|_| 0.5).collect(),
            rows,
        },
        priors: (0..items).map(prior).collect(),
        blends: Blends {
            full: blend,
            edge: blend,
        },
        forest: Forest::new(trees(), FEATURES, 1.0).unwrap(),
    }
}

fn model(items: u32) -> Model {
    Model::new(parts(items)).unwrap()
}

fn liked(items: &[u32]) -> Vec<HistoryStep> {
    (0..)
        .zip(items)
        .map(|(age, item)| HistoryStep {
            item: *item,
            taste: Taste::Positive,
            age,
        })
        .collect()
}

#[test]
fn candidates_come_from_neighbours_followers_and_trending_without_repeats() {
    let model = model(400);
    let user = model.fold_in(&liked(&[10]));
    let near: Vec<(u32, f32)> = [10, 12, 30, 50, 30, 9_999, u32::MAX]
        .map(|item| (item, 1.0))
        .to_vec();
    let rows = model.candidates(&user, &near, 300);
    let mut items: Vec<u32> = rows.iter().map(|row| row.item).collect();
    let of = |item: u32| rows.iter().find(|row| row.item == item).unwrap();
    assert_eq!(
        of(12),
        &CandidateRow {
            item: 12,
            source: Source::Recent,
            because: Some(10)
        }
    );
    assert_eq!(
        of(30),
        &CandidateRow {
            item: 30,
            source: Source::Vector,
            because: None
        }
    );
    assert_eq!(model.because(&user, 30), Some(10));
    assert_eq!(model.because(&user, 9_999), None, "no such row");
    assert_eq!(model.because(&model.fold_in(&[]), 30), None);
    assert!(items.contains(&0), "what is trending joins");
    assert!(!items.contains(&10), "the history does not");
    assert_eq!(items[0], 12, "best base score first");
    items.sort_unstable();
    assert!(items.windows(2).all(|pair| pair[0] < pair[1]) && items.iter().all(|item| *item < 400));
    assert_eq!(model.candidates(&user, &near, 2).len(), 2);
    assert!(
        model
            .candidates_where(&user, &near, 300, |item| item > 20)
            .iter()
            .all(|row| row.item > 20)
    );
}

#[test]
fn an_event_changes_the_next_answer() {
    let model = model(400);
    let top = |history: &[HistoryStep]| {
        let user = model.fold_in(history);
        let near: Vec<(u32, f32)> = (0..200).map(|item| (item, 0.0)).collect();
        let rows = model.candidates(&user, &near, 300);
        let mut scores = Vec::new();
        model.rank(&user, &rows, &mut scores);
        (0..rows.len())
            .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
            .map(|at| rows[at].item)
            .unwrap()
    };
    assert_eq!(top(&liked(&[10])), 12);
    assert_eq!(top(&liked(&[21, 10])), 23);
}

#[test]
fn histories_of_every_shape_are_answered() {
    let negative = vec![HistoryStep {
        item: 4,
        taste: Taste::Negative,
        age: 0,
    }];
    let cases: [(&str, Vec<HistoryStep>); 5] = [
        ("empty", vec![]),
        ("no positive", negative),
        ("unknown rows alone", liked(&[70_000, u32::MAX])),
        ("one item again and again", liked(&[3; 50])),
        (
            "long",
            liked(&(0..3_000).map(|at| at % 30).collect::<Vec<_>>()),
        ),
    ];
    for items in [1, 2, 40] {
        let model = model(items);
        for (name, history) in &cases {
            let user = model.fold_in(history);
            let rows = model.candidates(&user, &[(0, 1.0), (1, 0.5)], 300);
            let mut scores = Vec::new();
            model.rank(&user, &rows, &mut scores);
            assert_eq!(scores.len(), rows.len(), "{name}, {items} items");
            assert!(
                scores.iter().all(|score| score.is_finite()),
                "{name}, {items} items"
            );
            assert_eq!(
                user.query().is_some(),
                history
                    .iter()
                    .any(|step| step.item < items && step.taste == Taste::Positive)
            );
            let (pool_rows, pool) = model.edge_pool(10_000);
            assert_eq!(
                (pool_rows.len(), pool.len()),
                (items as usize, items as usize)
            );
            assert!(pool.rank(history, &mut Scratch::default(), 10).len() <= items as usize);
        }
        assert!(model.candidates(&model.fold_in(&[]), &[], 0).is_empty());
        // A caller may ask for the score of what it likes.
        let mut scores = Vec::new();
        model.rank(&model.fold_in(&[]), &[0u32, 123_456], &mut scores);
        assert_eq!(scores.len(), 2);
    }
}

#[test]
fn a_small_pool_holds_the_most_popular_and_links_inside_it() {
    let model = model(100);
    let (rows, pool) = model.edge_pool(20);
    assert_eq!(rows, (0..20).collect::<Vec<_>>());
    let best = pool.rank(&liked(&[4]), &mut Scratch::default(), EDGE_HISTORY_MAX);
    assert_eq!(best[0].0, 6);
    assert_eq!(
        model
            .trending(2)
            .iter()
            .map(|row| row.0)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(model.trending(1_000).len(), 100);
}

#[test]
fn a_withheld_item_is_seen_as_if_it_had_not_happened() {
    let model = model(100);
    let prior = Prior {
        popularity: 0.0,
        ..parts(100).priors[12]
    };
    let withheld = Withheld {
        item: 12,
        prior,
        links: vec![],
    };
    let features = |user: &UserState| {
        let (mut columns, mut base) = (Vec::new(), Vec::new());
        model.features(user, &[12u32], &mut columns, &mut base);
        (columns[8], columns[10])
    };
    assert_eq!(features(&model.fold_in(&liked(&[10]))), (0.5, 5.0 / 13.0));
    assert_eq!(
        features(&model.fold_in_without(&liked(&[10]), Some(withheld))),
        (0.0, 0.0)
    );
}

#[test]
fn parts_that_do_not_fit_are_named() {
    type Change = fn(&mut Parts);
    let cases: [(&str, Change); 9] = [
        ("ids", |parts| parts.ids[1] = parts.ids[0].clone()),
        ("factors", |parts| parts.factors.truncate(3)),
        ("factors", |parts| parts.factors[2][5] = f32::NAN),
        ("priors", |parts| parts.priors[0].trend = f32::INFINITY),
        ("followers", |parts| parts.followers.rows[0] = 10),
        ("followers", |parts| parts.followers.starts[3] = 9),
        ("followers", |parts| parts.followers.weights[0] = -1.0),
        ("blend", |parts| parts.blends.edge.order = f32::NAN),
        ("forest", |parts| {
            parts.forest = Forest::new(vec![], 3, 1.0).unwrap()
        }),
    ];
    for (part, change) in cases {
        let mut parts = parts(10);
        change(&mut parts);
        assert_eq!(Model::new(parts).unwrap_err(), ModelError::Part { part });
    }
}

#[test]
fn bytes_that_are_no_model_are_named() {
    let good = model(10).to_bytes();
    assert_eq!(Model::from_bytes(&[]).unwrap_err(), ModelError::Magic);
    assert_eq!(
        Model::from_bytes(&good[..good.len() - 1]).unwrap_err(),
        ModelError::Digest
    );
    assert_eq!(
        Model::from_bytes(&[&good[..4], &[9, 0]].concat()).unwrap_err(),
        ModelError::Version { found: 9 }
    );
    let mut flipped = good.clone();
    flipped[200] ^= 1;
    assert_eq!(
        Model::from_bytes(&flipped).unwrap_err().code(),
        "model_digest"
    );
}

/// Exits of every tree, walked one node at a time.
fn walk(tree: &Tree, row: &[f32]) -> f32 {
    let mut mask = 0xFFu8;
    for node in &tree.nodes {
        if row[usize::from(node.feature)] > node.threshold {
            mask &= !node.left_leaves;
        }
    }
    tree.leaves[mask.trailing_zeros() as usize]
}

#[test]
fn trees_that_are_no_trees_are_refused() {
    let node = Node {
        feature: 0,
        threshold: 0.0,
        left_leaves: 1,
    };
    let tree = |nodes: Vec<Node>, leaves: &[f32]| {
        vec![Tree {
            nodes,
            leaves: leaves.to_vec(),
        }]
    };
    let cases = [
        ("no leaf", tree(vec![], &[])),
        ("a leaf too many", tree(vec![node], &[0.0; 3])),
        ("nine leaves", tree(vec![node; 8], &[0.0; 9])),
        (
            "no such feature",
            tree(vec![Node { feature: 3, ..node }], &[0.0; 2]),
        ),
        (
            "threshold",
            tree(
                vec![Node {
                    threshold: f32::NAN,
                    ..node
                }],
                &[0.0; 2],
            ),
        ),
        ("leaf", tree(vec![node], &[0.0, f32::INFINITY])),
        (
            "everything is left",
            tree(
                vec![Node {
                    left_leaves: 3,
                    ..node
                }],
                &[0.0; 2],
            ),
        ),
    ];
    for (name, trees) in cases {
        assert_eq!(Forest::new(trees, 3, 1.0), None, "{name}");
    }
}

proptest! {
    #[test]
    fn blocks_score_like_walks(
        values in prop::collection::vec(-3i8..3, 3..300),
        splits in prop::collection::vec((0u8..3, -3i8..3, -3i8..3), 0..12),
    ) {
        let trees: Vec<Tree> = splits.iter().zip(1..).map(|((feature, low, high), at)| Tree {
            nodes: vec![
                Node { feature: *feature, threshold: f32::from(*low), left_leaves: 0b001 },
                Node { feature: (feature + 1) % 3, threshold: f32::from(*high) + 0.5, left_leaves: 0b010 },
            ],
            leaves: vec![0.5 * at as f32, -1.0, 2.0],
        }).collect();
        let forest = Forest::new(trees.clone(), 3, 2.0).unwrap();
        let rows = values.len() / 3;
        let columns: Vec<f32> = values[..rows * 3].iter().map(|value| f32::from(*value)).collect();
        let mut scores: Vec<f32> = (0..rows).map(|row| row as f32).collect();
        forest.score(&columns, &mut scores);
        for (row, score) in scores.iter().enumerate() {
            let of_row: Vec<f32> = (0..3).map(|feature| columns[feature * rows + row]).collect();
            let sum = trees.iter().map(|tree| walk(tree, &of_row)).fold(0.0f32, |sum, value| sum + value);
            prop_assert_eq!(*score, 2.0 * row as f32 + sum);
        }
    }

    #[test]
    fn models_round_trip(items in 0u32..40) {
        let model = model(items);
        let bytes = model.to_bytes();
        let back = Model::from_bytes(&bytes).unwrap();
        prop_assert_eq!(back.parts(), model.parts());
        prop_assert_eq!(back.to_bytes(), bytes);
        prop_assert_eq!(&*back.version(), "ranker@7");
        prop_assert_eq!(back.hash(), model.hash());
        for item in 0..items {
            prop_assert_eq!(back.id(item).and_then(|id| back.index_of(id)), Some(item));
        }
    }

    /// With the digest made right again: the meaning is what must be checked.
    #[test]
    fn mutated_models_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        resealed in any::<bool>(),
    ) {
        let mut bytes = model(12).to_bytes();
        if resealed {
            bytes.truncate(bytes.len() - 32);
        }
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        let bytes = if resealed { seal(bytes) } else { bytes };
        if let Ok(model) = Model::from_bytes(&bytes) {
            let user = model.fold_in(&liked(&[1, 5]));
            let rows = model.candidates(&user, &[(2, 1.0)], 300);
            let mut scores = Vec::new();
            model.rank(&user, &rows, &mut scores);
            prop_assert_eq!(scores.len(), rows.len());
        }
    }
}
