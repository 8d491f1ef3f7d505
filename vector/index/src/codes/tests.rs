use super::*;
use crate::exact::Rows;
use proptest::prelude::*;

fn grouped(values: &[f32]) -> &[[f32; LANES]] {
    values.as_chunks().0
}

/// Every block with its uppers.
fn all(codes: &Codes, query: &CodedQuery, plain: bool) -> Vec<(usize, [u32; LANES])> {
    let mut seen = Vec::new();
    let mut keep = |block: usize, uppers: [f32; LANES]| {
        seen.push((block, uppers.map(f32::to_bits)));
        f32::NEG_INFINITY
    };
    if plain {
        codes.sweep_plain(query, &mut keep);
    } else {
        codes.sweep(query, &mut keep);
    }
    seen
}

/// Plain numbers, and such as are hard on codes: one large beside small ones, tiny, huge, zero.
fn component() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -1.0f32..1.0,
        1 => (-1i8..=1).prop_map(f32::from),
        1 => -1e-3f32..1e-3,
        1 => -300.0f32..300.0,
    ]
}

fn scaled() -> impl Strategy<Value = f32> {
    prop_oneof![6 => Just(1.0f32), 1 => Just(0.0), 1 => Just(1e-20), 1 => Just(1e15), 1 => Just(1e-6)]
}

proptest! {
    #[test]
    fn scores_lie_within_their_bounds(
        groups in 1usize..9,
        values in prop::collection::vec(component(), 0..1200),
        scales in prop::collection::vec(scaled(), 150),
        query in prop::collection::vec(component(), 64),
        query_scale in scaled(),
    ) {
        let dim = groups * LANES;
        let rows = values.len() / dim;
        let mut values = values[..rows * dim].to_vec();
        for (row, scale) in values.chunks_exact_mut(dim).zip(&scales) {
            row.iter_mut().for_each(|x| *x *= scale);
        }
        let query: Vec<f32> = query[..dim].iter().map(|x| x * query_scale).collect();
        let codes = Codes::new(groups, grouped(&values));
        let exact = Rows::new(dim, &values, false);
        if let Some(coded) = codes.query(grouped(&query)) {
            let blocks = all(&codes, &coded, true);
            prop_assert_eq!(&blocks, &all(&codes, &coded, false));
            let mut bounded = 0;
            let mut longest = f64::INFINITY;
            for (block, uppers) in blocks {
                for (lane, upper) in uppers.map(f32::from_bits).into_iter().enumerate() {
                    let Some((row, lower)) = codes.lower(block * LANES + lane, upper, &coded) else {
                        prop_assert!(upper.is_nan(), "no row");
                        continue;
                    };
                    let score = exact.scored(&query, 1, std::iter::once(row))[0].1;
                    prop_assert!(lower <= score && score <= upper, "{} <= {} <= {}", lower, score, upper);
                    let reach = (codes.reaches[block] * coded.length).max(REACH_MIN);
                    prop_assert!(score <= reach, "{} <= {}", score, reach);
                    let length = length(exact.row(row).iter().copied());
                    prop_assert!(length <= longest, "longest first");
                    longest = length;
                    bounded += 1;
                }
            }
            let nonzero = (0..rows as u32).filter(|row| !exact.is_zero(*row)).count();
            prop_assert_eq!(bounded, nonzero);
        }
    }

    #[test]
    fn the_codes_change_no_answer(
        seed: u64,
        dim in 1usize..70,
        rows in 0usize..700,
        k in 0usize..30,
        steps in prop_oneof![Just(2.0f32), Just(30.0), Just(1e6)],
        modulo in 1u32..6,
        query_scale in scaled(),
    ) {
        // Few different values make ties; rows of zeros and far too large ones are among them.
        let noise = |at: usize| {
            let x = (at as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * steps
        };
        let mut vectors: Vec<f32> = (0..rows * dim).map(|at| noise(at).round() / steps).collect();
        for (at, row) in vectors.chunks_exact_mut(dim).enumerate() {
            let scale = match at % 41 {
                7 => 0.0,
                9 => 1e14,
                11 => 1e-16,
                _ => 1.0,
            };
            row.iter_mut().for_each(|x| *x *= scale);
        }
        let query: Vec<f32> = (0..dim).map(|at| noise(at + 1_000_000).round() / steps * query_scale).collect();
        let index = Rows::new(dim, &vectors, false);
        let plain = |allow: &dyn Fn(u32) -> bool| {
            index.scored(&query, k, (0..rows as u32).filter(|row| !index.is_zero(*row) && allow(*row)))
        };
        prop_assert_eq!(index.near(&query, k, None), plain(&|_| true));
        let allow = |row: u32| row.is_multiple_of(modulo);
        prop_assert_eq!(index.near(&query, k, Some(&allow)), plain(&allow));
    }
}
