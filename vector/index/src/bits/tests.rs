use super::*;
use crate::pace::Pace;

const DIM: usize = 192;

fn vectors(count: usize, seed: u64) -> Vec<f32> {
    let noise = |at: u64| {
        let x = (seed << 40 ^ at)
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((x ^ (x >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..(count * DIM) as u64).map(noise).collect()
}

fn bits(metric: Metric, vectors: &[f32]) -> Bits {
    let mut steps = Pace::free().steps();
    let mut bits = Bits::around(DIM, vectors, 0, &mut steps).unwrap();
    let mut each = vectors.chunks_exact(DIM);
    bits.extend(metric, &mut steps, |into| {
        into.clear();
        let next = each.next();
        into.extend_from_slice(next.unwrap_or_default());
        Ok::<_, Stopped>(next.is_some())
    })
    .unwrap();
    bits
}

#[test]
fn a_rotation_keeps_lengths_and_angles() {
    for dim in [64, 96, 192, 500, 512] {
        let all = vectors(6, 1);
        let (mut a, mut b) = (all[..dim].to_vec(), all[dim..2 * dim].to_vec());
        let before = (dot_f32(&a, &a), dot_f32(&a, &b));
        let rotation = Rotation::new(dim);
        rotation.apply(&mut a);
        rotation.apply(&mut b);
        assert!((dot_f32(&a, &a) - before.0).abs() < 1e-2, "{dim}");
        assert!((dot_f32(&a, &b) - before.1).abs() < 1e-2, "{dim}");
    }
}

#[test]
fn estimates_have_no_bias_and_a_small_error() {
    for metric in [Metric::Cosine, Metric::Dot, Metric::L2] {
        let base = vectors(1_000, 2);
        let bits = bits(metric, &base);
        let queries = vectors(20, 3);
        let (mut sums, mut scores) = (Vec::new(), Vec::new());
        let (mut bias, mut error) = (0.0, 0.0);
        for query in queries.chunks_exact(DIM) {
            bits.all_scores(&bits.query(query), &mut sums, &mut scores);
            for (vector, score) in base.chunks_exact(DIM).zip(&scores) {
                let product = dot_f32(query, vector);
                let want = match metric {
                    Metric::L2 => product - 0.5 * dot_f32(vector, vector),
                    _ => product,
                };
                // Of the product of the lengths, which are about the same.
                let off = f64::from((score - want) / (DIM as f32 / 3.0));
                bias += off / 20_000.0;
                error += off * off / 20_000.0;
            }
        }
        assert!(bias.abs() < 0.003, "{metric:?}: {bias}");
        let (error, expected) = (error.sqrt(), 0.76 / (DIM as f64).sqrt());
        assert!(
            error < 1.2 * expected,
            "{metric:?}: {error}, not {expected}"
        );
        assert!(
            error > 0.5 * expected,
            "{metric:?}: {error}, not {expected}"
        );
    }
}

#[test]
fn some_rows_score_as_all_do() {
    let base = vectors(50, 4);
    let bits = bits(Metric::Dot, &base);
    let query = bits.query(&vectors(1, 5));
    let (mut sums, mut all, mut some) = (Vec::new(), Vec::new(), Vec::new());
    bits.all_scores(&query, &mut sums, &mut all);
    bits.scores(&query, &[49, 0, 7], &mut sums, &mut some);
    assert_eq!(some, [all[49], all[0], all[7]]);
    let gathered = bits.gather([49, 0, 7].into_iter());
    gathered.all_scores(&query, &mut sums, &mut some);
    assert_eq!(some, [all[49], all[0], all[7]]);
}

type Change<'a> = &'a dyn Fn(&mut Vec<u64>, &mut Vec<f32>);

#[test]
fn what_cannot_be_codes_is_refused() {
    let bits = bits(Metric::Dot, &vectors(70, 6));
    let again = |change: Change<'_>| {
        let (mut rows, mut centres) = (bits.words().to_vec(), bits.centres().to_vec());
        change(&mut rows, &mut centres);
        let mut hot = Hot::with_capacity(rows.len());
        hot.extend_from_slice(&rows);
        Bits::from_parts(DIM, hot, centres).is_some()
    };
    assert!(again(&|_, _| {}));
    let nan = u64::from(f32::NAN.to_bits());
    let changes: [(&str, Change<'_>); 7] = [
        ("a bit", &|rows, _| rows[0] ^= 1 << 9),
        ("a factor", &|rows, _| rows[3] = nan),
        ("the other", &|rows, _| rows[3] = nan << 32),
        ("a centre that is none", &|rows, _| rows[4] += 64),
        ("half a row", &|rows, _| rows.truncate(12)),
        ("half a centre", &|_, centres| {
            centres.truncate(DIM * 63 + 1)
        }),
        ("no number", &|_, centres| centres[3] = f32::INFINITY),
    ];
    for (what, change) in changes {
        assert!(!again(change), "{what}");
    }
}

#[test]
fn nothing_and_the_greatest_have_codes() {
    let most = (f32::MAX / DIM as f32).sqrt() / 2.0;
    let mut base = vec![0.0; DIM];
    base.extend(vec![most; DIM]);
    base.extend(vec![-most; DIM]);
    for metric in [Metric::Dot, Metric::L2] {
        let bits = bits(metric, &base);
        let mut hot = Hot::with_capacity(0);
        hot.extend_from_slice(bits.words());
        assert!(Bits::from_parts(DIM, hot, bits.centres().to_vec()).is_some());
        let (mut sums, mut scores) = (Vec::new(), Vec::new());
        for query in [vec![0.0; DIM], vec![1.0; DIM]] {
            bits.all_scores(&bits.query(&query), &mut sums, &mut scores);
            assert_eq!(scores.len(), 3);
        }
    }
}
