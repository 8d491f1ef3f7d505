use super::*;
use crate::kernels::dot_f32;
use proptest::prelude::*;

const DIM: usize = 24;

/// `n` vectors around `clusters` centres, sorted by cluster unless `mixed`.
fn clustered(n: usize, clusters: usize, seed: u64, metric: Metric) -> Vec<f32> {
    let noise = |at: u64| {
        let x = (seed ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut out = Vec::with_capacity(n * DIM);
    for row in 0..n {
        let cluster = (row * clusters / n) as u64;
        let from = out.len();
        for d in 0..DIM as u64 {
            out.push(noise(cluster * 977 + d * 31) + 0.5 * noise(1 << 40 | (row as u64) << 8 | d));
        }
        if metric == Metric::Cosine {
            let length = dot_f32(&out[from..], &out[from..]).sqrt();
            out[from..].iter_mut().for_each(|x| *x /= length);
        }
    }
    out
}

fn exact(
    metric: Metric,
    vectors: &[f32],
    query: &[f32],
    k: usize,
    allow: impl Fn(u32) -> bool,
) -> Vec<u32> {
    let mut scored: Vec<(f32, u32)> = vectors
        .chunks_exact(DIM)
        .zip(0..)
        .filter(|(_, row)| allow(*row))
        .map(|(vector, row)| (metric.score(query, vector), row))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.iter().take(k).map(|(_, row)| *row).collect()
}

fn recall(found: &[u32], wanted: &[u32]) -> f64 {
    let hits = found.iter().filter(|row| wanted.contains(row)).count();
    hits as f64 / wanted.len().max(1) as f64
}

fn build(metric: Metric, vectors: &[f32]) -> Packed {
    Packed::build(DIM, metric, vectors, &BuildOptions::default()).unwrap()
}

#[test]
fn finds_nearly_all_of_what_a_scan_finds() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let vectors = clustered(4_000, 40, 1, metric);
        let queries = clustered(100, 40, 2, metric);
        let packed = build(metric, &vectors);
        assert_eq!(packed.unreachable(), 0, "{metric:?}");
        let mut scratch = Scratch::default();
        let of = |query: &[f32]| {
            let found = packed.search(&mut scratch, query, 10, 120, &vectors);
            assert!(found.is_sorted_by(|a, b| a.1 >= b.1));
            let rows: Vec<u32> = found.iter().map(|(row, _)| *row).collect();
            recall(&rows, &exact(metric, &vectors, query, 10, |_| true))
        };
        let mean = queries.chunks_exact(DIM).map(of).sum::<f64>() / 100.0;
        assert!(mean >= 0.99, "{metric:?}: recall {mean}");
    }
}

#[test]
fn any_order_and_many_twins_leave_nothing_out_of_reach() {
    let metric = Metric::Cosine;
    let sorted = clustered(3_000, 60, 3, metric);
    let mut twins = sorted.clone();
    for row in 0..1_500 {
        twins.copy_within(0..DIM, row * 2 * DIM);
    }
    for (case, vectors) in [("sorted by cluster", sorted), ("half of one vector", twins)] {
        let packed = build(metric, &vectors);
        assert_eq!(packed.unreachable(), 0, "{case}");
        let mut order = packed.order().to_vec();
        order.sort_unstable();
        assert!(
            order.into_iter().eq(0..3_000),
            "{case}: every vector is one row"
        );
        let mut scratch = Scratch::default();
        let mut found = 0;
        for row in (1..3_000).step_by(7) {
            let query = &vectors[row * DIM..(row + 1) * DIM];
            let best = packed.search(&mut scratch, query, 1, 60, &vectors);
            found += usize::from(best.first().is_some_and(|(_, score)| *score > 0.9999));
        }
        assert!(found >= 424, "{case}: {found} of 429 find themselves");
    }
}

#[test]
fn twins_are_all_found() {
    let mut vectors = clustered(200, 10, 4, Metric::Cosine);
    for row in [7, 99, 150] {
        vectors.copy_within(0..DIM, row * DIM);
    }
    let packed = build(Metric::Cosine, &vectors);
    assert_eq!((packed.nodes(), packed.rows()), (197, 200));
    let query = vectors[..DIM].to_vec();
    let found = packed.search(&mut Scratch::default(), &query, 4, 50, &vectors);
    let rows: Vec<u32> = found.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, [0, 7, 99, 150]);
    let scanned = packed.scan(&mut Scratch::default(), &packed.query(&query), 4, 0..200);
    let mut sources: Vec<u32> = scanned
        .iter()
        .map(|(row, _)| packed.order()[*row as usize])
        .collect();
    sources.sort_unstable();
    assert_eq!(sources, [0, 7, 99, 150]);
}

#[test]
fn nodes_with_few_directions_are_linked_to_near_ones_too() {
    let metric = Metric::L2;
    // Each query is a vector, moved a little.
    let vectors = clustered(3_000, 1, 12, metric);
    let moved = |(at, x): (usize, &f32)| x + 0.0004 * (at * 7_919 % 101) as f32 - 0.02;
    let queries: Vec<f32> = vectors.iter().enumerate().map(moved).collect();
    let of = |alpha: f32| {
        let options = BuildOptions {
            alpha,
            ..BuildOptions::default()
        };
        let packed = Packed::build(DIM, metric, &vectors, &options).unwrap();
        let of_node = |node: u32| packed.links.of(node).len();
        let links: usize = (0..packed.nodes() as u32).map(of_node).sum();
        let mut scratch = Scratch::default();
        let each = queries.chunks_exact(DIM).step_by(5).map(|query| {
            let found = packed.search(&mut scratch, query, 10, 16, &vectors);
            let rows: Vec<u32> = found.iter().map(|(row, _)| *row).collect();
            recall(&rows, &exact(metric, &vectors, query, 10, |_| true))
        });
        (
            links as f64 / packed.nodes() as f64,
            each.sum::<f64>() / 600.0,
        )
    };
    let ((links, recall), (more, better)) = (of(1.0), of(BuildOptions::default().alpha));
    assert!(more > links * 1.1, "{more} links a node, {links} without");
    assert!(better > recall + 0.002, "recall {better}, {recall} without");
}

#[test]
fn threads_make_the_same_graph() {
    let vectors = clustered(2_000, 20, 5, Metric::Dot);
    let with = |threads: usize| {
        let options = BuildOptions {
            threads,
            ..BuildOptions::default()
        };
        Packed::build(DIM, Metric::Dot, &vectors, &options).unwrap()
    };
    let (one, three) = (with(1), with(3));
    for section in one.sections() {
        assert!(
            one.section(*section) == three.section(*section),
            "{section:?}"
        );
    }
    assert_eq!(one.order(), three.order());
}

#[test]
fn filters_of_any_share_and_place() {
    let metric = Metric::Cosine;
    let vectors = clustered(4_000, 40, 6, metric);
    let queries = clustered(50, 40, 7, metric);
    let packed = build(metric, &vectors);
    let order = packed.order().to_vec();
    let mut scratch = Scratch::default();
    type Passes = fn(u32) -> bool;
    let cases: [(&str, Passes); 5] = [
        ("half, anywhere", |row| {
            row.wrapping_mul(2_654_435_761) >> 31 == 0
        }),
        ("a tenth, anywhere", |row| {
            row.wrapping_mul(2_654_435_761) % 10 == 0
        }),
        ("half, in clusters", |row| row < 2_000),
        ("a tenth, in clusters", |row| row >= 3_600),
        ("a few", |row| row % 400 == 3),
    ];
    for (case, passes) in cases {
        let allow = |row: u32| passes(order[row as usize]);
        let matching: Vec<u32> = (0..4_000).filter(|row| allow(*row)).collect();
        let mut of_sweep = Vec::new();
        let mut of_scan = 0.0;
        for query in queries.chunks_exact(DIM) {
            let coded = packed.query(query);
            let wanted = exact(metric, &vectors, query, 10, passes);
            let recall_of = |found: Vec<(u32, f32)>| {
                assert!(
                    found.iter().all(|(row, _)| allow(*row)),
                    "{case}: only what passes"
                );
                let rows: Vec<u32> = found.iter().map(|(row, _)| order[*row as usize]).collect();
                recall(&rows, &wanted)
            };
            of_scan += recall_of(packed.scan(&mut scratch, &coded, 30, matching.iter().copied()));
            let swept = packed.candidates(&mut scratch, &coded, 30, 100, Some(&allow));
            if swept.len() == 30 {
                of_sweep.push(recall_of(swept));
            }
        }
        assert!(
            of_scan / 50.0 >= 0.999,
            "{case}: a scan finds {of_scan} of 50"
        );
        let mean = of_sweep.iter().sum::<f64>() / of_sweep.len().max(1) as f64;
        assert!(
            of_sweep.is_empty() || mean >= 0.99,
            "{case}: a sweep that is full finds {mean}"
        );
    }
}

#[test]
fn small_ones() {
    for (rows, k) in [(0, 3), (1, 3), (2, 1), (5, 10)] {
        let vectors = clustered(rows, rows.max(1), 8, Metric::L2);
        let packed = build(Metric::L2, &vectors);
        let found = packed.search(&mut Scratch::default(), &[0.1; DIM], k, 1, &vectors);
        assert_eq!(found.len(), k.min(rows), "{rows} rows, {k} wanted");
        assert_eq!(packed.unreachable(), 0);
    }
}

fn reread(
    packed: &Packed,
    rows: usize,
    change: impl Fn(Section, &mut Vec<u8>),
) -> Result<Packed, BadSections> {
    let each = packed.sections().iter();
    let pieces: Vec<(Section, Vec<u8>)> = each
        .map(|section| {
            let mut bytes = packed.section(*section).to_vec();
            change(*section, &mut bytes);
            (*section, bytes)
        })
        .collect();
    Packed::from_sections(packed.dim(), packed.metric(), rows, |section| {
        let piece = pieces.iter().find(|(of, _)| *of == section);
        piece.map(|(_, bytes)| bytes.as_slice())
    })
}

/// A graph whose nodes have bits, and what it was built from.
fn of_bits(rows: usize, seed: u64) -> (Packed, Vec<f32>) {
    const WIDE: usize = 64;
    let mut vectors = clustered(rows * WIDE / DIM + 1, 5, seed, Metric::Dot);
    vectors.truncate(rows * WIDE);
    let options = BuildOptions {
        codes: CodeKind::Bits,
        ..BuildOptions::default()
    };
    let packed = Packed::build(WIDE, Metric::Dot, &vectors, &options).unwrap();
    (packed, vectors)
}

#[test]
fn pieces_are_read_back_as_they_were() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let mut vectors = clustered(700, 10, 9, metric);
        vectors.copy_within(0..DIM, 50 * DIM);
        let packed = build(metric, &vectors);
        let again = reread(&packed, 700, |_, _| {}).unwrap();
        let query = again.query(&vectors[..DIM]);
        let mut scratch = Scratch::default();
        let found = again.candidates(&mut scratch, &query, 20, 60, None);
        assert_eq!(found, packed.candidates(&mut scratch, &query, 20, 60, None));
    }
    let (packed, vectors) = of_bits(500, 9);
    let again = reread(&packed, 500, |_, _| {}).unwrap();
    let query = again.query(&vectors[..64]);
    let mut scratch = Scratch::default();
    let found = again.candidates(&mut scratch, &query, 20, 60, None);
    assert_eq!(found, packed.candidates(&mut scratch, &query, 20, 60, None));
    assert!(
        found
            .iter()
            .any(|(row, _)| packed.order()[*row as usize] == 0)
    );
}

#[test]
fn pieces_that_do_not_fit_are_refused() {
    let vectors = clustered(300, 10, 10, Metric::L2);
    let packed = build(Metric::L2, &vectors);
    for of in [&packed, &of_bits(300, 10).0] {
        for section in of.sections() {
            let cut = |at: Section, bytes: &mut Vec<u8>| {
                if at == *section {
                    bytes.pop();
                }
            };
            let got = reread(of, 300, cut).map(|_| ());
            if !of.section(*section).is_empty() {
                assert!(got.is_err(), "{section:?} without its last byte");
            }
            let short = |at: Section, bytes: &mut Vec<u8>| {
                if at == *section {
                    bytes.truncate(bytes.len() / 2 / 64 * 64);
                }
            };
            let got = reread(of, 300, short).map(|_| ());
            if !matches!(section, Section::FirstRows | Section::Entries) {
                assert!(got.is_err(), "half of {section:?}");
            }
        }
    }
    assert!(
        reread(&packed, 299, |_, _| {}).is_err(),
        "fewer rows than nodes"
    );
    let names = |value: u32| {
        move |at: Section, bytes: &mut Vec<u8>| {
            if at == Section::Links {
                bytes[..4].copy_from_slice(&value.to_le_bytes());
            }
        }
    };
    let got = reread(&packed, 300, names(300)).map(|_| ()).unwrap_err();
    assert_eq!(got.section, Section::Links, "a link to no node");
}

proptest! {
    #[test]
    fn no_bytes_of_pieces_lead_out_of_bounds(
        by_bits in any::<bool>(),
        section in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in 0usize..3,
    ) {
        let mut vectors = clustered(120, 6, 11, Metric::L2);
        vectors.copy_within(0..DIM, 50 * DIM);
        let mut packed = build(Metric::L2, &vectors);
        if by_bits {
            (packed, vectors) = of_bits(120, 11);
        }
        let section = *section.get(packed.sections());
        let again = reread(&packed, 120, |of, bytes| {
            if of == section && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
                bytes.truncate(bytes.len() - cut * 4 % (bytes.len() + 1));
            }
        });
        if let Ok(again) = again {
            let query = again.query(&vectors[..again.dim()]);
            let mut scratch = Scratch::default();
            for (row, _) in again.candidates(&mut scratch, &query, 20, 60, None) {
                prop_assert!((row as usize) < 120);
            }
            again.scan(&mut scratch, &query, 200, 0..200);
        }
    }
}
