use super::*;
use proptest::prelude::*;
use skerry_types::{EventId, EventKind};

fn step(item: u32, taste: Taste, age: u32) -> HistoryStep {
    HistoryStep { item, taste, age }
}

fn liked(items: &[u32]) -> Vec<HistoryStep> {
    (0..)
        .zip(items)
        .map(|(age, item)| step(*item, Taste::Positive, age))
        .collect()
}

/// A splitmix64 stream: tests need no crate for chance.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }
}

fn fold_for(vectors: &[Vector]) -> FoldIn {
    let mut rows = vec![0.0f32; DIM * DIM];
    for vector in vectors {
        for row in 0..DIM {
            for col in 0..DIM {
                rows[row * DIM + col] += 0.1 * vector[row] * vector[col];
            }
        }
    }
    (0..DIM).for_each(|at| rows[at * DIM + at] += 1.0);
    FoldIn::new(&rows).unwrap()
}

/// `items` in two clusters (even, odd rows); each row is followed by the next of its cluster.
fn pool(items: u32) -> EdgePool {
    let mut next = noise(u64::from(items));
    let vectors: Vec<Vector> = (0..items)
        .map(|item| {
            std::array::from_fn(|at| {
                next() * 0.2 + if at == (item % 2) as usize { 1.0 } else { 0.0 }
            })
        })
        .collect();
    let rows: Vec<PoolRow> = (0..items)
        .zip(&vectors)
        .map(|(item, vector)| PoolRow {
            vector: *vector,
            followers: vec![((item + 2) % items, 1.0), ((item + 4) % items, 0.5)],
            prior: 1.0 / (item as f32 + 1.0),
        })
        .collect();
    EdgePool::build(
        fold_for(&vectors),
        Blend {
            vector: 1.0,
            order: 0.5,
            prior: 0.0,
        },
        &rows,
    )
}

#[test]
fn fold_in_solves_the_normal_equations() {
    let mut next = noise(7);
    let vectors: Vec<Vector> = (0..40).map(|_| std::array::from_fn(|_| next())).collect();
    let fold = fold_for(&vectors);
    let weighted = || {
        vectors
            .iter()
            .take(9)
            .zip([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    };
    let x = fold.fold(weighted()).unwrap();
    for row in 0..DIM {
        let shared: f64 = (0..DIM)
            .map(|col| f64::from(fold.rows()[row * DIM + col]) * f64::from(x[col]))
            .sum();
        let seen: f64 = weighted()
            .map(|(v, w)| f64::from(w) * f64::from(v[row]) * (1.0 - f64::from(dot(v, &x))))
            .sum();
        assert!(
            (shared - seen).abs() < 1e-4,
            "row {row}: {shared} against {seen}"
        );
    }
    assert_eq!(fold.fold(std::iter::empty()), None);
    assert_eq!(
        FoldIn::new(&vec![0.0; DIM * DIM]),
        None,
        "no positive diagonal"
    );
    assert_eq!(FoldIn::new(&[1.0; DIM]), None, "too short");
}

#[test]
fn history_is_newest_first_on_known_items() {
    let event = |item: &str, kind: EventKind, value| RecentEvent {
        id: EventId::new(item).unwrap(),
        item: ItemId::new(item).unwrap(),
        kind,
        value,
        at_ms: 0,
        accepted_ms: 0,
    };
    let recent = [
        event("old", EventKind::Like, None),
        event("gone", EventKind::Like, None),
        event("bad", EventKind::Rating, Some(1.0)),
        event("new", EventKind::View, None),
    ];
    let row = |id: &ItemId| {
        ["old", "bad", "new"]
            .iter()
            .position(|known| *known == id.as_str())
            .map(|at| at as u32)
    };
    let all = [
        step(2, Taste::Neutral, 0),
        step(1, Taste::Negative, 1),
        step(0, Taste::Positive, 2),
    ];
    assert_eq!(history(&recent, 9, row), all);
    assert_eq!(history(&recent, 2, row), all[..2]);
    let weights: Vec<(u32, f32)> = positives(&liked(&[4, 5])).collect();
    assert!((weights[0].1 - 1.0).abs() < 1e-6 && (weights[1].1 - AGE_DECAY).abs() < 1e-6);
    let last = positives(&liked(&[0; 200])).last().unwrap();
    assert_eq!(last.1, AGE_FLOOR);
}

#[test]
fn ranking_cases() {
    let pool = pool(100);
    let mut scratch = Scratch::default();
    let best = pool.rank(&liked(&[10, 20]), &mut scratch, 5);
    assert_eq!(best.len(), 5);
    assert_eq!(
        best[0].0, 12,
        "what follows the newest event, in the liked cluster"
    );
    assert_eq!(best[0].2, ScoreSource::Followers { because: 10 });
    assert!(
        best.iter()
            .all(|(item, _, _)| item % 2 == 0 && *item != 10 && *item != 20)
    );
    assert!(best.is_sorted_by(|a, b| a.1 >= b.1));
    assert!(best.iter().any(|(_, _, source)| matches!(
        source,
        ScoreSource::Vector {
            because: Some(10 | 20)
        }
    )));

    let cold = pool.rank(&[], &mut scratch, 3);
    assert_eq!(
        cold.iter().map(|best| best.0).collect::<Vec<_>>(),
        [0, 1, 2],
        "by prior"
    );
    assert!(cold.iter().all(|best| best.2 == ScoreSource::Popular));

    let disliked = pool.rank(&[step(10, Taste::Negative, 0)], &mut scratch, 1);
    assert_eq!(disliked[0].0, 12, "order counts without a positive too");

    let only = pool.rank_where(&liked(&[10]), &mut scratch, 5, |item| item == 31);
    assert_eq!(only.iter().map(|best| best.0).collect::<Vec<_>>(), [31]);

    let similar = pool.similar(&[11], &mut scratch, 3);
    assert!(
        similar
            .iter()
            .all(|(item, _, _)| item % 2 == 1 && *item != 11)
    );

    let ranked = pool.rank(&liked(&[10, 20]), &mut scratch, 100);
    let items: Vec<u32> = ranked.iter().map(|best| best.0).collect();
    let scores = pool.score_items(&liked(&[10, 20]), &mut scratch, &items);
    assert_eq!(scores, ranked.iter().map(|best| best.1).collect::<Vec<_>>());
    assert_eq!(
        pool.score_items(&[], &mut scratch, &[1_000_000]),
        [f32::MIN]
    );

    // Rows that the pool does not have, and pools that have next to nothing, change nothing.
    assert_eq!(
        pool.rank(&liked(&[10, 70_000, 20]), &mut scratch, 1).len(),
        1
    );
    assert!(
        EdgePool::build(
            fold_for(&[]),
            Blend {
                vector: 1.0,
                order: 1.0,
                prior: 0.0
            },
            &[]
        )
        .rank(&liked(&[0]), &mut scratch, 5)
        .is_empty()
    );
}

#[test]
fn one_item_is_never_recommended_to_who_has_it() {
    let row = PoolRow {
        vector: [0.1; DIM],
        followers: vec![(0, 1.0)],
        prior: 0.0,
    };
    let pool = EdgePool::build(
        fold_for(&[[0.1; DIM]]),
        Blend {
            vector: 1.0,
            order: 0.5,
            prior: 0.0,
        },
        &[row],
    );
    let mut scratch = Scratch::default();
    assert_eq!(pool.rank(&liked(&[0]), &mut scratch, 5), []);
    assert_eq!(pool.rank(&[], &mut scratch, 5).len(), 1);
}

/// One item and one row at a time, in the order that the sums are defined in.
fn fold_plain(fold: &FoldIn, items: &[(Vector, f32)]) -> Vector {
    let mut left: Vec<Vector> = fold.rows().as_chunks::<DIM>().0.to_vec();
    let mut x = [0.0f32; DIM];
    for (vector, weight) in items {
        for row in 0..DIM {
            let scale = weight * vector[row];
            x[row] += scale;
            (0..DIM).for_each(|col| left[row][col] += scale * vector[col]);
        }
    }
    let mut inverse = [0.0f32; DIM];
    for row in 0..DIM {
        inverse[row] = 1.0 / left[row][row].sqrt();
        (row..DIM).for_each(|col| left[row][col] *= inverse[row]);
        x[row] *= inverse[row];
        for below in row + 1..DIM {
            let scale = -left[row][below];
            (below..DIM).for_each(|col| left[below][col] += scale * left[row][col]);
            x[below] -= x[row] * left[row][below];
        }
    }
    for row in (0..DIM).rev() {
        let mut value = x[row];
        (row + 1..DIM).for_each(|col| value -= left[row][col] * x[col]);
        x[row] = value * inverse[row];
    }
    x
}

#[test]
fn fold_in_adds_in_the_plain_order() {
    let mut next = noise(11);
    let vectors: Vec<Vector> = (0..60).map(|_| std::array::from_fn(|_| next())).collect();
    let fold = fold_for(&vectors);
    for count in [1, 2, 3, 4, 5, 7, 8, 9, 50, 60] {
        let items: Vec<(Vector, f32)> = vectors[..count]
            .iter()
            .map(|vector| (*vector, next() + 0.6))
            .collect();
        let x = fold
            .fold(items.iter().map(|(vector, weight)| (vector, *weight)))
            .unwrap();
        let plain = fold_plain(&fold, &items);
        assert_eq!(
            x.map(f32::to_bits),
            plain.map(f32::to_bits),
            "{count} items"
        );
    }
}

/// The same bits on every target: what a worker and a native host both must produce. The golden
/// value was computed natively; the worker's conformance test compares the same call.
#[test]
fn scores_are_stable_bits() {
    let pool = pool(64);
    let mut scratch = Scratch::default();
    let scores = |scratch: &mut Scratch| {
        let best = pool.rank(&liked(&[3, 8, 13]), scratch, 64);
        best.iter().fold(0u64, |hash, (item, score, _)| {
            (hash ^ u64::from(*item) ^ u64::from(score.to_bits()) << 16)
                .wrapping_mul(0x100_0000_01b3)
        })
    };
    let once = scores(&mut scratch);
    assert_eq!(once, scores(&mut scratch), "scratch carries nothing over");
    assert_eq!(once, GOLDEN);
}
const GOLDEN: u64 = 15_198_754_943_672_367_362;

#[test]
fn quantised_scores_are_close_to_exact_ones() {
    let mut next = noise(3);
    let vectors: Vec<Vector> = (0..200).map(|_| std::array::from_fn(|_| next())).collect();
    let query: Vector = std::array::from_fn(|_| next());
    let rows: Vec<PoolRow> = vectors
        .iter()
        .map(|vector| PoolRow {
            vector: *vector,
            followers: vec![],
            prior: 0.0,
        })
        .collect();
    let pool = EdgePool::build(
        fold_for(&vectors),
        Blend {
            vector: 1.0,
            order: 0.0,
            prior: 0.0,
        },
        &rows,
    );
    let mut scores = vec![0.0; 200];
    kernel::Query::new(&query).scan(&pool.vectors, &pool.scales, &mut scores);
    for (vector, score) in vectors.iter().zip(scores) {
        assert!(
            (dot(vector, &query) - score).abs() < 0.02,
            "{} against {score}",
            dot(vector, &query)
        );
    }
}

#[test]
fn a_full_pool_fits_two_megabytes() {
    let items = 10_000u32;
    let rows: Vec<PoolRow> = (0..items)
        .map(|item| PoolRow {
            vector: [0.5; DIM],
            followers: (1..40)
                .map(|by| ((item + by) % items, 1.0 / by as f32))
                .collect(),
            prior: 0.0,
        })
        .collect();
    let pool = EdgePool::build(
        fold_for(&[[0.5; DIM]]),
        Blend {
            vector: 1.0,
            order: 0.5,
            prior: 0.0,
        },
        &rows,
    );
    let bytes = pool.to_bytes();
    assert!(bytes.len() <= 2_000_000, "{} bytes", bytes.len());
    assert_eq!(pool.followers_of(7).count(), FOLLOWERS_MAX);
    assert_eq!(EdgePool::from_bytes(&bytes), Ok(pool));
}

#[test]
fn bytes_that_are_no_pool_are_named() {
    let good = pool(10).to_bytes();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        EdgePool::from_bytes(&bad).unwrap_err().code()
    };
    assert_eq!(EdgePool::from_bytes(&[]).unwrap_err(), PoolError::Magic);
    assert_eq!(with(0, b"x"), "pool_magic");
    assert_eq!(with(4, &[9, 0]), "pool_version");
    assert_eq!(with(6, &[65, 0]), "pool_field");
    assert_eq!(with(8, &u32::MAX.to_le_bytes()), "pool_field");
    assert_eq!(with(8, &11u32.to_le_bytes()), "pool_length");
    assert_eq!(with(16, &f32::NAN.to_le_bytes()), "pool_field");
    let starts = 28 + DIM * DIM * 4 + 10 * 12;
    assert_eq!(with(starts, &5u32.to_le_bytes()), "pool_field");
    assert_eq!(with(starts + 4, &u32::MAX.to_le_bytes()), "pool_field");
    assert_eq!(with(starts + 44, &10u16.to_le_bytes()), "pool_field");
    assert_eq!(
        EdgePool::from_bytes(&good[..good.len() - 1])
            .unwrap_err()
            .code(),
        "pool_length"
    );
}

proptest! {
    #[test]
    fn pools_round_trip(items in 0u32..50) {
        let pool = if items == 0 {
            EdgePool::build(fold_for(&[]), Blend { vector: 1.0, order: 0.5, prior: 0.0 }, &[])
        } else {
            pool(items)
        };
        prop_assert_eq!(EdgePool::from_bytes(&pool.to_bytes()), Ok(pool));
    }

    #[test]
    fn mutated_pools_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        history in prop::collection::vec(0u32..30, 0..8),
    ) {
        let mut bytes = pool(20).to_bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(pool) = EdgePool::from_bytes(&bytes) {
            let best = pool.rank(&liked(&history), &mut Scratch::default(), 7);
            prop_assert!(best.len() <= 7 && best.iter().all(|best| (best.0 as usize) < pool.len()));
        }
    }

    #[test]
    fn rank_agrees_with_sorting_everything(history in prop::collection::vec(0u32..100, 0..20), k in 1usize..60) {
        let pool = pool(100);
        let mut scratch = Scratch::default();
        let all: Vec<u32> = (0..100).filter(|item| !history.contains(item)).collect();
        let scores = pool.score_items(&liked(&history), &mut scratch, &all);
        let mut want: Vec<(u32, f32)> = all.into_iter().zip(scores).collect();
        want.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        want.truncate(k);
        let got = pool.rank(&liked(&history), &mut scratch, k);
        prop_assert_eq!(got.into_iter().map(|best| (best.0, best.1)).collect::<Vec<_>>(), want);
    }
}
