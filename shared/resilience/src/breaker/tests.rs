use super::*;
use proptest::prelude::*;

const STILL: BreakerConfig = BreakerConfig {
    jitter_percent: 0,
    ..BreakerConfig::ORIGIN
};

fn ms(ms: u64) -> Tick {
    Tick::from_ms(10_000 + ms)
}

fn feed(breaker: &mut Breaker, outcomes: &str, every_ms: u64) -> (bool, u64) {
    let mut at = 0;
    for letter in outcomes.chars() {
        let outcome = match letter {
            'f' => Outcome::Failure,
            'o' => Outcome::Overload,
            _ => Outcome::Ok,
        };
        breaker.on(outcome, ms(at));
        if breaker.state(ms(at)) == BreakerState::Open {
            return (true, at);
        }
        at += every_ms;
    }
    (false, at)
}

#[test]
fn what_trips_and_what_does_not() {
    let cases = [
        ("5 in a row, however few", "fffff", 10, true),
        ("4 in a row", "ffff", 10, false),
        (
            "9 calls, 67 % failed: below the volume",
            "ffsffsffs",
            10,
            false,
        ),
        (
            "10 calls, half failed, the last one a failure",
            "sfsfsfsfsf",
            10,
            true,
        ),
        ("10 calls, 4 failed", "sfsfssfssf", 10, false),
        (
            "half failed, but over 20 s",
            "sfsfsfsfsfsfsfsfsfsf",
            1000,
            false,
        ),
        ("5 in a row over a minute", "fffff", 12_000, true),
        ("overload only", "oooooooooooooooooooo", 10, false),
        (
            "overload does not break a row, nor dilute",
            "fofofofof",
            10,
            true,
        ),
    ];
    for (name, outcomes, every_ms, want) in cases {
        assert_eq!(
            feed(&mut Breaker::new(STILL, 1), outcomes, every_ms).0,
            want,
            "{name}"
        );
    }
}

/// Opens it at `at` and returns it half-open, with the time.
fn tripped(config: BreakerConfig) -> Breaker {
    let mut breaker = Breaker::new(config, 7);
    assert!(feed(&mut breaker, "fffff", 0).0);
    breaker
}

#[test]
fn openings_double_to_the_cap_and_recovery_resets_them() {
    let mut breaker = tripped(STILL);
    let mut now = ms(0);
    for want_ms in [1_000, 2_000, 4_000, 4_000] {
        assert_eq!(
            breaker.admits(now.plus_ms(want_ms - 1), 3),
            Admit::No,
            "{want_ms}"
        );
        now = now.plus_ms(want_ms);
        assert!(breaker.wants_probe(now));
        assert!(matches!(
            breaker.probe_done(false, now),
            Some(Transition::Opened { .. })
        ));
    }
    now = now.plus_ms(4_000);
    for left in (0..PROBES_MAX).rev() {
        assert!(breaker.wants_probe(now));
        assert_eq!(
            breaker.probe_done(true, now),
            (left == 0).then_some(Transition::Closed)
        );
    }
    now = now.plus_ms(4_000);
    assert_eq!(breaker.admits(now, 3), Admit::Go);
    assert_eq!(breaker.state(now), BreakerState::Closed);
    let mut last = None;
    for _ in 0..5 {
        last = breaker.on(Outcome::Failure, now);
    }
    assert_eq!(
        last,
        Some(Transition::Opened {
            until: now.plus_ms(1_000)
        })
    );
}

#[test]
fn a_lost_probe_does_not_wedge_it() {
    let mut breaker = tripped(STILL);
    assert!(breaker.wants_probe(ms(1_000)));
    assert_eq!(breaker.state(ms(1_999)), BreakerState::HalfOpen);
    assert!(!breaker.wants_probe(ms(2_000)), "given up: open again");
    assert_eq!(breaker.probe_done(true, ms(2_001)), None, "too late");
    assert_eq!(breaker.state(ms(2_001)), BreakerState::Open);
    assert!(breaker.wants_probe(ms(4_000)));
}

#[test]
fn the_way_back_fits_into_ten_seconds() {
    // The worst case: a probe failed just before the target was ready, at the cap.
    let mut breaker = tripped(BreakerConfig::ORIGIN);
    let mut now = ms(0);
    for _ in 0..6 {
        now = now.plus_ms(4_000);
        assert!(breaker.wants_probe(now));
        breaker.probe_done(false, now);
    }
    let ready = now;
    let mut full = None;
    for step in 1..=1_000 {
        let at = ready.plus_ms(step * 10);
        while breaker.wants_probe(at) {
            breaker.probe_done(true, at);
        }
        if (0..1_000u64).all(|user| breaker.admits(at, user) == Admit::Go) {
            full = Some(at.since_ms(ready));
            break;
        }
    }
    assert!(full.is_some_and(|ms| ms <= 8_050), "{full:?}");
}

#[test]
fn a_failing_ramp_opens_again_and_for_longer() {
    let mut breaker = tripped(STILL);
    let now = ms(1_000);
    for _ in 0..PROBES_MAX {
        assert!(breaker.wants_probe(now));
        breaker.probe_done(true, now);
    }
    assert_eq!(breaker.state(now), BreakerState::Ramping);
    let mut last = None;
    for _ in 0..5 {
        last = breaker.on(Outcome::Failure, now.plus_ms(100));
    }
    assert_eq!(
        last,
        Some(Transition::Opened {
            until: now.plus_ms(2_100)
        })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens: the bound on probes holds, and no state lasts for ever.
    #[test]
    fn bounds_hold_on_any_history(seed: u64, steps in proptest::collection::vec((0u8..6, 0u64..1_500), 1..300)) {
        let mut breaker = Breaker::new(BreakerConfig::ORIGIN, seed);
        let mut now = ms(0);
        for (step, wait) in steps {
            now = now.plus_ms(wait);
            let transition = match step {
                0 => breaker.on(Outcome::Ok, now),
                1 => breaker.on(Outcome::Failure, now),
                2 => breaker.on(Outcome::Overload, now),
                3 => { breaker.admits(now, seed ^ wait); None }
                4 => breaker.probe_done(wait % 3 != 0, now),
                _ => { breaker.wants_probe(now); None }
            };
            prop_assert!(breaker.probes_in_flight() <= PROBES_MAX);
            if let Some(Transition::Opened { until }) = transition {
                let open = until.since_ms(now);
                prop_assert!((800..=4_000).contains(&open), "{open}");
                prop_assert_eq!(breaker.admits(now, seed), Admit::No);
            }
        }
        // It always finds its way back.
        for _ in 0..40 {
            now = now.plus_ms(500);
            while breaker.wants_probe(now) {
                breaker.probe_done(true, now);
            }
        }
        prop_assert_eq!(breaker.admits(now, seed), Admit::Go);
    }

    #[test]
    fn fewer_than_the_volume_trip_only_in_a_row(outcomes in "[sf]{0,9}") {
        let row = outcomes.contains("fffff");
        prop_assert_eq!(feed(&mut Breaker::new(STILL, 1), &outcomes, 5).0, row);
    }

    #[test]
    fn the_ramp_never_sends_anybody_back(user: u64, a in 0u64..6_000, b in 0u64..6_000) {
        let mut breaker = tripped(STILL);
        let now = ms(1_000);
        for _ in 0..PROBES_MAX {
            prop_assert!(breaker.wants_probe(now));
            breaker.probe_done(true, now);
        }
        let (early, late) = (a.min(b), a.max(b));
        if breaker.admits(now.plus_ms(early), user) == Admit::Go {
            prop_assert_eq!(breaker.admits(now.plus_ms(late), user), Admit::Go);
        }
    }
}

#[test]
fn the_ramp_admits_the_share_it_says() {
    let mut breaker = tripped(STILL);
    let now = ms(1_000);
    for _ in 0..PROBES_MAX {
        assert!(breaker.wants_probe(now));
        breaker.probe_done(true, now);
    }
    for (at, want) in [
        (0, 10.0),
        (1_999, 10.0),
        (2_000, 50.0),
        (3_999, 50.0),
        (4_000, 100.0),
    ] {
        let go = (0..20_000u64)
            .filter(|user| breaker.admits(now.plus_ms(at), *user) == Admit::Go)
            .count();
        let share = go as f64 / 200.0;
        assert!((share - want).abs() < 1.0, "{at}: {share}");
    }
}
