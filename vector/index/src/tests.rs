use super::*;
use proptest::prelude::*;

/// A deterministic number in [-1, 1).
fn noise(at: u64) -> f32 {
    let x = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// `n` vectors around `clusters` centres, sorted by cluster (the graph's worst order).
fn clustered(n: usize, dim: usize, clusters: usize, seed: u64) -> Vec<f32> {
    let mut out = Vec::with_capacity(n * dim);
    for row in 0..n {
        let cluster = (row * clusters / n) as u64;
        for d in 0..dim as u64 {
            let centre = noise(seed + cluster * 977 + d * 31 + 7);
            out.push(centre + 0.35 * noise(seed ^ (row as u64 * 65_537 + d * 131 + 3)));
        }
    }
    out
}

fn naive(dim: usize, metric: Metric, vectors: &[f32], query: &[f32], k: usize) -> Vec<u32> {
    let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let mut scores: Vec<(f64, u32)> = vectors
        .chunks_exact(dim)
        .enumerate()
        .filter(|(_, row)| length(row) > 0.0)
        .map(|(at, row)| {
            let dot: f64 = row
                .iter()
                .zip(query)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            let score = if metric == Metric::Dot {
                dot
            } else {
                dot / (length(row) * length(query))
            };
            (score, at as u32)
        })
        .collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scores.into_iter().take(k).map(|(_, at)| at).collect()
}

fn rows(found: &[(u32, f32)]) -> Vec<u32> {
    found.iter().map(|(row, _)| *row).collect()
}

#[test]
fn what_is_refused() {
    let ok = [1.0, 2.0, 3.0, 4.0];
    let with = |at: usize, value: f32| {
        let mut vectors = ok;
        vectors[at] = value;
        vectors
    };
    let cases = [
        (
            "dimension 0",
            Index::build(0, Metric::Dot, &ok),
            "vector_dim",
        ),
        (
            "dimension 5000",
            Index::build(5_000, Metric::Dot, &ok),
            "vector_dim",
        ),
        (
            "half a row",
            Index::build(3, Metric::Dot, &ok),
            "vector_ragged",
        ),
        (
            "NaN",
            Index::build(2, Metric::Dot, &with(3, f32::NAN)),
            "vector_not_finite",
        ),
        (
            "infinite",
            Index::build(2, Metric::Cosine, &with(1, f32::NEG_INFINITY)),
            "vector_not_finite",
        ),
        (
            "overflows",
            Index::build(2, Metric::Dot, &with(1, 1e30)),
            "vector_not_finite",
        ),
    ];
    for (name, built, code) in cases {
        assert_eq!(built.err().map(|error| error.code()), Some(code), "{name}");
    }
    let refused = Index::build(2, Metric::Dot, &with(3, f32::NAN)).err();
    assert_eq!(
        refused,
        Some(IndexError::NotFinite {
            row: 1,
            component: 1
        }),
        "says where"
    );
    let index = Index::build(2, Metric::Dot, &ok).unwrap();
    assert_eq!(
        index.near(&[1.0], 1),
        Err(IndexError::QueryDim { query: 1, index: 2 })
    );
    assert_eq!(
        index.near(&[1.0, f32::NAN], 1),
        Err(IndexError::QueryNotFinite { component: 1 })
    );
}

#[test]
fn edges_of_the_exact_scan() {
    let empty = Index::build(3, Metric::Dot, &[]).unwrap();
    assert_eq!(empty.near(&[1.0, 0.0, 0.0], 5), Ok(vec![]));
    // Row 1 is zero; rows 2 and 3 are equal.
    let vectors = [1.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0, -1.0, 0.0];
    let index = Index::build(2, Metric::Dot, &vectors).unwrap();
    assert_eq!(
        index.near(&[1.0, 0.0], 10),
        Ok(vec![(2, 2.0), (3, 2.0), (0, 1.0), (4, -1.0)])
    );
    assert_eq!(index.near(&[1.0, 0.0], 1), Ok(vec![(2, 2.0)]));
    assert_eq!(index.near(&[1.0, 0.0], 0), Ok(vec![]));
    assert_eq!(
        index.near_where(&[1.0, 0.0], 2, &|row| row != 2),
        Ok(vec![(3, 2.0), (0, 1.0)])
    );
    assert_eq!(index.near_where(&[1.0, 0.0], 2, &|_| false), Ok(vec![]));
    let cosine = Index::build(2, Metric::Cosine, &vectors).unwrap();
    assert_eq!(rows(&cosine.near(&[3.0, 0.0], 10).unwrap()), [0, 2, 3, 4]);
    assert_eq!(cosine.near(&[3.0, 0.0], 1), Ok(vec![(0, 1.0)]));
    let huge = index.near(&[f32::MAX, f32::MAX], 10).unwrap();
    assert!(huge.len() <= 4, "an overflow is no panic: {huge:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_scan_agrees_with_sorting_all(seed: u64, n in 0usize..400, dim in 1usize..40, k in 0usize..60, cosine: bool, modulo in 1u32..5) {
        let metric = if cosine { Metric::Cosine } else { Metric::Dot };
        let vectors: Vec<f32> = (0..n * dim).map(|at| noise(seed.wrapping_add(at as u64))).collect();
        let query: Vec<f32> = (0..dim).map(|at| noise(seed ^ (at as u64 + 99))).collect();
        let index = Index::build(dim, metric, &vectors).unwrap();
        let found = index.near(&query, k).unwrap();
        let want = naive(dim, metric, &vectors, &query, k);
        prop_assert_eq!(found.len(), want.len());
        // Rounding may swap neighbours whose scores are all but equal.
        let same = rows(&found).iter().filter(|row| want.contains(row)).count();
        prop_assert!(same + 1 >= want.len());
        prop_assert!(found.is_sorted_by(|a, b| exact::order(a, b).is_le()));
        let some = index.near_where(&query, k, &|row| row % modulo == 0).unwrap();
        let mut all = index.near(&query, n).unwrap();
        all.retain(|(row, _)| row % modulo == 0);
        all.truncate(k);
        prop_assert_eq!(some, all);
    }
}

fn recall(graph: &Index, exact: &Index, queries: &[Vec<f32>], k: usize) -> f64 {
    let mut hits = 0;
    for query in queries {
        let (got, want) = (graph.near(query, k).unwrap(), exact.near(query, k).unwrap());
        assert_eq!(got.len(), k);
        for found in &got {
            hits += usize::from(want.contains(found));
        }
    }
    hits as f64 / (queries.len() * k) as f64
}

/// 21,000 vectors, sorted by cluster, 3,000 of them identical, some zero: the graph must find what the
/// scan finds, with the same scores.
#[test]
fn the_graph_agrees_with_the_scan() {
    const N: usize = 21_000;
    const DIM: usize = 24;
    let mut vectors = clustered(N, DIM, 60, 5);
    for row in 4_000..7_000 {
        vectors.copy_within(0..DIM, row * DIM);
    }
    vectors[8_000 * DIM..8_010 * DIM].fill(0.0);
    for metric in [Metric::Cosine, Metric::Dot] {
        let graph = Index::build(DIM, metric, &vectors).unwrap();
        let exact = Index::build_exact(DIM, metric, &vectors).unwrap();
        assert!(!graph.is_exact() && exact.is_exact());
        let queries: Vec<Vec<f32>> = (0..60)
            .map(|q| clustered(N, DIM, 60, 5)[(q * 331 + 100) * DIM..][..DIM].to_vec())
            .collect();
        let (ten, hundred) = (
            recall(&graph, &exact, &queries, 10),
            recall(&graph, &exact, &queries, 100),
        );
        assert!(
            ten >= 0.97 && hundred >= 0.95,
            "{metric:?}: recall@10 {ten}, @100 {hundred}"
        );

        let near_twins = graph.near(&vectors[..DIM], 50).unwrap();
        let twins = near_twins
            .iter()
            .filter(|(row, _)| *row == 0 || (4_000..7_000).contains(row))
            .count();
        assert!(
            metric == Metric::Dot || twins == 50,
            "all rows of a collapsed node are found: {twins}"
        );
        let zeros = |row: &u32| (8_000..8_010).contains(row);
        assert!(
            !rows(&graph.near(&queries[0], 1_000).unwrap())
                .iter()
                .any(zeros)
        );
        for modulo in [2, 100] {
            let allow = |row: u32| row % modulo == 1;
            let got = graph.near_where(&queries[3], 10, &allow).unwrap();
            let want = exact.near_where(&queries[3], 10, &allow).unwrap();
            let same = got.iter().filter(|found| want.contains(found)).count();
            assert!(
                same >= 9 && got.iter().all(|(row, _)| allow(*row)),
                "{modulo}"
            );
        }
    }
}
