use super::*;
use proptest::prelude::*;

const FINE: Health = Health {
    user_hash: 1,
    connected: true,
    admit: Admit::Go,
    throttled: false,
    turned_away: false,
    origin_p50_ms: Some(8.0),
    shedding: false,
    pool: true,
    context: true,
};

fn check(
    name: &str,
    configured: Capabilities,
    present: Capabilities,
    health: Health,
    left: u32,
    want: (Rung, &[Cause]),
) {
    let got = plan(configured, present, &health, left);
    let causes: Vec<Cause> = got
        .cause
        .into_iter()
        .chain(got.further.iter().copied())
        .collect();
    assert_eq!((got.best, causes.as_slice()), want, "{name}");
    assert_eq!(got.ask_origin, got.best < Rung::Edge, "{name}");
}

#[test]
fn every_rung_and_its_cause() {
    use Capability::{Features, Llm, Origin, Rank, Realtime};
    let all = Capabilities::ALL;
    let plain = Capabilities::PLAIN;
    let down = Health {
        admit: Admit::No,
        ..FINE
    };
    check("all is well", all, all, FINE, 150, (Rung::Full, &[]));
    check(
        "LLM slow",
        all,
        all.without(Llm),
        FINE,
        150,
        (Rung::Template, &[Cause::LlmSlow]),
    );
    check(
        "no LLM configured",
        plain,
        all.without(Llm),
        FINE,
        150,
        (Rung::Full, &[]),
    );
    check(
        "no stream configured",
        plain,
        plain,
        FINE,
        150,
        (Rung::Full, &[]),
    );
    check(
        "stream lags",
        all,
        all.without(Realtime),
        FINE,
        150,
        (Rung::Batch, &[Cause::StreamLag]),
    );
    check(
        "both",
        all,
        all.without(Realtime).without(Llm),
        FINE,
        150,
        (Rung::Batch, &[Cause::LlmSlow, Cause::StreamLag]),
    );
    check(
        "slow origin",
        all,
        all.without(Rank),
        FINE,
        150,
        (Rung::Edge, &[Cause::OriginTimeout]),
    );
    let shedding = Health {
        shedding: true,
        ..FINE
    };
    check(
        "shedding origin",
        all,
        all.without(Rank),
        shedding,
        150,
        (Rung::Edge, &[Cause::OriginOverloaded]),
    );
    check(
        "no features",
        all,
        all.without(Features),
        FINE,
        150,
        (Rung::Edge, &[Cause::OriginError]),
    );
    check(
        "drained region",
        all,
        all.without(Origin),
        FINE,
        150,
        (Rung::Edge, &[Cause::OriginDown]),
    );
    check(
        "breaker open",
        all,
        all,
        down,
        150,
        (Rung::Edge, &[Cause::OriginDown]),
    );
    check(
        "probing",
        all,
        all,
        Health {
            admit: Admit::Probe,
            ..FINE
        },
        150,
        (Rung::Edge, &[Cause::OriginDown]),
    );
    check(
        "no connection",
        all,
        all,
        Health {
            connected: false,
            ..FINE
        },
        150,
        (Rung::Edge, &[Cause::OriginDown]),
    );
    check(
        "throttled",
        all,
        all,
        Health {
            throttled: true,
            ..FINE
        },
        150,
        (Rung::Edge, &[Cause::OriginOverloaded]),
    );
    check(
        "turned away",
        all,
        all,
        Health {
            turned_away: true,
            ..FINE
        },
        150,
        (Rung::Edge, &[Cause::OriginOverloaded]),
    );
    check(
        "too late",
        all,
        all,
        FINE,
        8,
        (Rung::Edge, &[Cause::Deadline]),
    );
    check("just in time", all, all, FINE, 9, (Rung::Full, &[]));
    check(
        "nothing left",
        all,
        all,
        Health {
            origin_p50_ms: None,
            ..FINE
        },
        0,
        (Rung::Edge, &[Cause::Deadline]),
    );
    let stranger = Health {
        context: false,
        ..down
    };
    check(
        "a stranger, origin down",
        all,
        all,
        stranger,
        150,
        (Rung::Cached, &[Cause::OriginDown, Cause::NoContext]),
    );
    check(
        "a stranger, origin up",
        all,
        all,
        Health {
            context: false,
            ..FINE
        },
        150,
        (Rung::Full, &[]),
    );
    check(
        "cold PoP",
        all,
        all,
        Health {
            pool: false,
            ..down
        },
        150,
        (Rung::Cached, &[Cause::OriginDown, Cause::NoPool]),
    );
}

fn slow(p95: f64) -> Measured {
    let origin = OriginHealth {
        samples: 100,
        p50_ms: Some(10.0),
        p95_ms: Some(p95),
        ..OriginHealth::default()
    };
    Measured {
        origin,
        ..Measured::default()
    }
}

/// Observes `measured` every 250 ms and says when the share of users on the origin's ranking changed.
fn shares(ladder: &mut Ladder, measured: &Measured, from_ms: u64, to_ms: u64) -> Vec<(u64, u32)> {
    let mut out: Vec<(u64, u32)> = Vec::new();
    for ms in (from_ms..to_ms).step_by(250) {
        let now = Tick::from_ms(ms);
        ladder.observe(measured, now);
        let there = (0..1_000u64)
            .filter(|user| ladder.present(*user, now).has(Capability::Rank))
            .count() as u32
            / 10;
        if out.last().is_none_or(|(_, last)| last.abs_diff(there) > 5) {
            out.push((ms, there));
        }
    }
    out
}

#[test]
fn slowness_is_left_slowly_and_an_outage_at_once() {
    let mut ladder = Ladder::new(Capabilities::ALL);
    assert_eq!(shares(&mut ladder, &slow(201.0), 0, 1_000), [(0, 0)]);
    assert_eq!(
        shares(&mut ladder, &slow(130.0), 1_000, 30_000),
        [(1_000, 0)],
        "between the thresholds"
    );
    let back = shares(&mut ladder, &slow(60.0), 30_000, 60_000);
    let times: Vec<u64> = back.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times, [30_000, 40_000, 43_000, 46_000], "{back:?}");

    shares(&mut ladder, &slow(900.0), 60_000, 62_000);
    let outage = Measured {
        outage: true,
        ..slow(900.0)
    };
    shares(&mut ladder, &outage, 62_000, 63_000);
    assert_eq!(
        shares(&mut ladder, &slow(20.0), 63_000, 64_000),
        [(63_000, 100)],
        "only the breaker's ramp governs"
    );
}

#[test]
fn few_samples_judge_nobody_and_shares_do() {
    let health = |samples, timeout_share, shed_share| OriginHealth {
        samples,
        p50_ms: Some(10.0),
        p95_ms: Some(20.0),
        timeout_share,
        shed_share,
    };
    let cases = [
        ("19 samples, all timeouts", health(19, 1.0, 0.0), false),
        ("5 % timeouts", health(100, 0.05, 0.0), false),
        ("6 % timeouts", health(100, 0.06, 0.0), true),
        ("6 % shed", health(100, 0.0, 0.06), true),
    ];
    for (name, origin, lost) in cases {
        let mut ladder = Ladder::new(Capabilities::ALL);
        ladder.observe(
            &Measured {
                origin,
                ..Measured::default()
            },
            Tick(0),
        );
        assert_eq!(
            !ladder.present(1, Tick(0)).has(Capability::Rank),
            lost,
            "{name}"
        );
        assert_eq!(ladder.shedding(), name.ends_with("shed"), "{name}");
    }
}

#[test]
fn one_rung_up_at_a_time() {
    let mut ladder = Ladder::new(Capabilities::ALL);
    let bad = Measured {
        llm_p95_ms: Some(900.0),
        stream_lag_ms: Some(90_000.0),
        ..slow(900.0)
    };
    for ms in (0..2_000).step_by(250) {
        ladder.observe(&bad, Tick::from_ms(ms));
    }
    let mut regained = Vec::new();
    for ms in (2_000..90_000).step_by(250) {
        let changes = ladder.observe(&slow(10.0), Tick::from_ms(ms));
        assert!(changes.len() <= 1);
        regained.extend(changes.into_iter().map(|(capability, _)| (capability, ms)));
    }
    let order: Vec<Capability> = regained.iter().map(|(capability, _)| *capability).collect();
    assert_eq!(
        order,
        [Capability::Rank, Capability::Realtime, Capability::Llm]
    );
    for pair in regained.windows(2) {
        assert!(pair[1].1 - pair[0].1 >= RISE_MS_MIN, "{regained:?}");
    }
}

#[test]
fn the_frame_counts_while_it_lives() {
    let mut ladder = Ladder::new(Capabilities::ALL);
    let frame = RegionFrame {
        region: "eu".into(),
        epoch: 1,
        seq: 1,
        capabilities: Capabilities::ALL.without(Capability::Realtime),
        admit_percent: 100,
        event_lag_ms: 90_000,
        ttl_ms: 3_000,
    };
    ladder.heed(Some(&frame));
    assert_eq!(ladder.plan(&FINE, 150, Tick(0)).best, Rung::Batch);
    ladder.heed(None);
    assert_eq!(ladder.plan(&FINE, 150, Tick(0)).best, Rung::Full);
}

proptest! {
    /// Never above what is there; a worse input never gives a better plan; below full has a cause.
    #[test]
    fn plans_are_sound(
        configured in 0u8..32, present in 0u8..32, fewer in 0u8..32, bits in 0u8..64, left in 0u32..300, p50 in proptest::option::of(0f64..200.0),
    ) {
        let (configured, present) = (Capabilities(configured), Capabilities(present));
        let bit = |at: u8| bits >> at & 1 == 1;
        let admit = if bit(1) { Admit::Go } else { Admit::No };
        let health = Health {
            user_hash: 9, connected: bit(0), admit, throttled: bit(2), turned_away: bit(3), origin_p50_ms: p50,
            shedding: false, pool: bit(4), context: bit(5),
        };
        let got = plan(configured, present, &health, left);
        prop_assert_eq!(got.best == Rung::Full, got.cause.is_none());
        if got.ask_origin {
            prop_assert!(health.connected && health.admit == Admit::Go && !health.throttled && !health.turned_away);
            prop_assert!(p50.is_none_or(|p50| f64::from(left) > p50));
        }
        for one in Capability::ALL {
            if configured.has(one) && !present.has(one) {
                let least = match one {
                    Capability::Llm => Rung::Template,
                    Capability::Realtime => Rung::Batch,
                    _ => Rung::Edge,
                };
                prop_assert!(got.best >= least);
            }
        }
        let worse = plan(configured, present.and(Capabilities(fewer)), &health, left);
        prop_assert!(worse.best >= got.best);
        prop_assert_eq!(plan(Capabilities::NONE, Capabilities::NONE, &FINE, 150).best, Rung::Full);
    }
}
