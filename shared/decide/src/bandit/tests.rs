use super::*;
use proptest::prelude::*;

fn params(shapes: &[(f32, f32)]) -> Params {
    let arm = |(at, (alpha, beta)): (usize, &(f32, f32))| ArmParams {
        item: ItemId::new(&format!("i{at}")).unwrap(),
        alpha: *alpha,
        beta: *beta,
    };
    Params {
        epoch: 7,
        surface: Surface::default(),
        arms: shapes.iter().enumerate().map(arm).collect(),
    }
}

fn snapshot(shapes: &[(f32, f32)]) -> Snapshot {
    Snapshot::integrate(&params(shapes))
}

/// By brute force: 1,600,000 trapezoids in logit space, distribution functions from the same sums.
fn reference(shapes: &[(f64, f64)]) -> Vec<f64> {
    const STEPS: usize = 1_600_000;
    let spread = |a: f64, b: f64| 45.0 * (1.0 / a + 1.0 / b).sqrt();
    let low = shapes
        .iter()
        .map(|(a, b)| (a / b).ln() - spread(*a, *b))
        .fold(f64::INFINITY, f64::min);
    let high = shapes
        .iter()
        .map(|(a, b)| (a / b).ln() + spread(*a, *b))
        .fold(f64::NEG_INFINITY, f64::max);
    let step = (high - low) / STEPS as f64;
    let density: Vec<Vec<f64>> = shapes
        .iter()
        .map(|(a, b)| {
            let log = |t: f64| -(a * (-t).exp().ln_1p() + b * t.exp().ln_1p());
            let logs: Vec<f64> = (0..=STEPS).map(|k| log(low + step * k as f64)).collect();
            let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let raw: Vec<f64> = logs.iter().map(|l| (l - top).exp()).collect();
            let sum: f64 = raw.iter().sum();
            raw.into_iter().map(|f| f / sum).collect()
        })
        .collect();
    let mut wins = vec![0.0; shapes.len()];
    let mut below = vec![0.0; shapes.len()];
    for k in 0..=STEPS {
        for (sum, f) in below.iter_mut().zip(&density) {
            *sum += f[k];
        }
        let half = |j: usize| below[j] - 0.5 * density[j][k];
        for i in 0..shapes.len() {
            wins[i] += density[i][k]
                * (0..shapes.len())
                    .filter(|j| *j != i)
                    .map(half)
                    .product::<f64>();
        }
    }
    wins
}

#[test]
fn integrals_agree_with_a_fine_reference() {
    let cases: [(&str, &[(f64, f64)]); 9] = [
        ("equal", &[(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]),
        (
            "fresh arms of a low rate",
            &[(1.0, 19.0), (1.3, 20.7), (2.5, 60.5), (1.0, 19.0)],
        ),
        ("wide against narrow", &[(1.0, 9.0), (1_000.0, 9_000.0)]),
        (
            "narrow ones close together",
            &[
                (5_000.0, 45_000.0),
                (5_050.0, 45_000.0),
                (4_990.0, 45_000.0),
            ],
        ),
        (
            "narrow far below",
            &[(100.0, 99_900.0), (50.0, 50.0), (45.0, 50.0)],
        ),
        ("fractional, below 1", &[(0.5, 0.5), (0.3, 2.0), (2.0, 0.4)]),
        ("near certain", &[(900.0, 1.0), (90.0, 1.0), (9.0, 1.0)]),
        ("one arm", &[(3.0, 4.0)]),
        (
            "many scales",
            &[
                (1.0, 1.0),
                (10.0, 12.0),
                (100.0, 95.0),
                (1_000.0, 1_010.0),
                (10_000.0, 10_000.0),
            ],
        ),
    ];
    for (name, shapes) in cases {
        let (got, want) = (win_probabilities(shapes), reference(shapes));
        let error = got
            .iter()
            .zip(&want)
            .map(|(g, w)| (g - w).abs())
            .fold(0.0, f64::max);
        assert!(error < 1e-7, "{name}: {error:e} {got:?} {want:?}");
    }
}

#[test]
fn two_arms_agree_with_the_closed_form() {
    // P(Beta(a, b) > Beta(1, 1)) is the mean of the first; P(Beta(1, b) > Beta(1, d)) = d / (b + d).
    for (a, b) in [
        (2.0, 3.0),
        (40.0, 60.0),
        (1e4, 3e4),
        (1e7, 1e7),
        (0.05, 0.05),
    ] {
        let got = win_probabilities(&[(a, b), (1.0, 1.0)]);
        assert!((got[0] - a / (a + b)).abs() < 1e-8, "{a} {b}: {got:?}");
    }
    for (b, d) in [(3.0, 5.0), (1e4, 3e4), (2.0, 1e6)] {
        let got = win_probabilities(&[(1.0, b), (1.0, d)]);
        assert!((got[0] - d / (b + d)).abs() < 1e-9, "{b} {d}: {got:?}");
    }
}

#[test]
fn no_arms_no_draw_and_bad_shapes_do_no_harm() {
    assert!(snapshot(&[]).draw(|_| true, 2, 1).is_empty());
    assert_eq!(snapshot(&[]).check(), Ok(()));
    let odd = [
        (f32::NAN, 1.0),
        (f32::INFINITY, 2.0),
        (-3.0, 0.0),
        (1e30, 1e-30),
        (2.0, 2.0),
    ];
    let odd = snapshot(&odd);
    assert_eq!(odd.check(), Ok(()), "{odd:?}");
    let mut bad = snapshot(&[(1.0, 1.0), (2.0, 2.0)]);
    bad.arms[1].win = f64::NAN;
    assert_eq!(bad.check(), Err(BanditError::Probability(1)));
    assert_eq!(
        bad.draw(|_| true, 2, 3).len(),
        1,
        "what is no number is never drawn"
    );
    bad.arms[1].win = 0.9;
    assert_eq!(bad.check(), Err(BanditError::Sum));
    let many = vec![(1.0, 9.0); ARMS_MAX + 50];
    assert_eq!(snapshot(&many).arms.len(), ARMS_MAX);
}

#[test]
fn slots_are_few_and_low() {
    for n in 0..=200 {
        let slots = slots_for(n);
        assert!(slots.len() <= SLOTS_MAX && slots.len() * 5 <= n);
        assert!(
            slots.iter().all(|at| *at < n && *at >= n.min(10) / 2),
            "{n}: {slots:?}"
        );
    }
}

#[test]
fn frequencies_match_propensities() {
    let snapshot = snapshot(&[
        (3.0, 30.0),
        (5.0, 30.0),
        (4.0, 40.0),
        (1.0, 9.0),
        (2.0, 11.0),
        (8.0, 50.0),
    ]);
    let eligible = |at: usize| at != 1;
    const DRAWS: u64 = 200_000;
    let mut counts = [[0u64; 6]; 2];
    for seed in 0..DRAWS {
        for (slot, draw) in snapshot.draw(eligible, 2, seed).into_iter().enumerate() {
            counts[slot][draw.arm] += 1;
        }
    }
    for (slot, counts) in counts.iter().enumerate() {
        let wanted = snapshot.propensities(eligible, slot);
        let chi: f64 = counts
            .iter()
            .zip(&wanted)
            .filter(|(_, p)| **p > 0.0)
            .map(|(n, p)| (*n as f64 - p * DRAWS as f64).powi(2) / (p * DRAWS as f64))
            .sum();
        assert_eq!(counts[1], 0);
        // 4 degrees of freedom: 18.5 is the 0.999 quantile.
        assert!(chi < 18.5, "slot {slot}: {chi} {counts:?} {wanted:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn draws_are_sound(
        shapes in proptest::collection::vec((0.05f32..500.0, 0.05f32..5_000.0), 1..60),
        mask: u64, slots in 0usize..4, seed: u64,
    ) {
        let snapshot = snapshot(&shapes);
        prop_assert_eq!(snapshot.check(), Ok(()));
        let eligible = |at: usize| mask >> (at % 64) & 1 == 1;
        let open = (0..shapes.len()).filter(|at| eligible(*at)).count();
        let draws = snapshot.draw(eligible, slots, seed);
        prop_assert_eq!(draws.len(), slots.min(SLOTS_MAX).min(open));
        prop_assert_eq!(&draws, &snapshot.draw(eligible, slots, seed));
        if let [first, second] = draws[..] {
            prop_assert_ne!(first.arm, second.arm);
        }
        let floor = FLOOR_MASS / shapes.len() as f64;
        for (slot, draw) in draws.iter().enumerate() {
            let all = snapshot.propensities(eligible, slot);
            prop_assert!((all.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(eligible(draw.arm) && (all[draw.arm] - draw.propensity).abs() < 1e-12);
            prop_assert!(draw.propensity > 0.0 && draw.propensity <= 1.0 + 1e-12);
            prop_assert!(slot > 0 || draw.propensity >= floor * 0.999_999);
        }
    }

    #[test]
    fn wins_follow_the_means(rate in 0.01f32..0.5, n in 5f32..2_000.0) {
        // With the same number of trials, the higher rate wins more often.
        let wins = snapshot(&[(rate * n, (1.0 - rate) * n), (rate * n * 1.1, (1.0 - rate * 1.1) * n)]);
        prop_assert!(wins.arms[1].win > wins.arms[0].win);
    }
}

/// Not a test of speed by itself: prints what `cargo test -- --nocapture` shows.
#[test]
fn two_hundred_arms_in_milliseconds() {
    let shapes: Vec<(f64, f64)> = (0..200u64)
        .map(|at| {
            let (rate, n) = (
                0.02 + 0.1 * unit(at, 0),
                10.0 + 3_000.0 * unit(at, 1).powi(3),
            );
            (rate * n, (1.0 - rate) * n)
        })
        .collect();
    let started = std::time::Instant::now();
    let wins = win_probabilities(&shapes);
    let took = started.elapsed();
    println!("200 arms: {took:?}");
    assert!((wins.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(took.as_millis() < 200, "{took:?}");
}
