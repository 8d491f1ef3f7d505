//! The pipeline by cases: what each step gives, and what the answer is without it.

use super::{Outcome, Question, Status, answer};
use crate::fakes::{FakeWorld, Faults, event, item_id};
use proptest::prelude::*;
use skerry_types::{
    Ask, Count, EventKind, Filter, Route, Source, Test, Uid, UserId, Value, WarningCode,
};
use std::collections::HashSet;

fn ask(route: Route) -> Ask {
    Ask {
        route,
        user: Some(UserId::new("1").unwrap()),
        explain: true,
        ..Ask::default()
    }
}

fn run(world: &FakeWorld, ask: &Ask, seed: u64) -> Outcome {
    answer(
        world,
        &Question {
            ask,
            decision_id: Uid(1),
            seed,
            pending: &[],
            now: 1_000,
            explore: true,
        },
    )
}

fn first(outcome: &Outcome, n: usize) -> Vec<usize> {
    let ids = outcome.decision.candidates.iter().take(n);
    ids.map(|candidate| candidate.id.as_str().parse().unwrap())
        .collect()
}

#[test]
fn each_step_has_a_fallback_and_says_so() {
    let none = Faults::default();
    // What fails, the first three items, and how many steps fell back.
    let cases = [
        ("nothing", none, [11, 12, 13], 0),
        (
            "features",
            Faults {
                features: true,
                ..none
            },
            [299, 298, 297],
            1,
        ),
        (
            "vector index",
            Faults { near: true, ..none },
            [11, 12, 13],
            1,
        ),
        (
            "ranker",
            Faults {
                ranker: true,
                ..none
            },
            [11, 12, 13],
            1,
        ),
        (
            "bandit",
            Faults {
                bandit: true,
                ..none
            },
            [11, 12, 13],
            1,
        ),
        (
            "similar users",
            Faults {
                users: true,
                ..none
            },
            [11, 12, 13],
            1,
        ),
    ];
    for (name, faults, want, fallbacks) in cases {
        let world = FakeWorld {
            faults,
            arms: vec![200, 201],
            ..FakeWorld::new().liked(&[3, 10])
        };
        let outcome = run(&world, &ask(Route::Recommend), 1);
        let got = first(&outcome, 3);
        if name == "vector index" {
            // Trending, ranked by taste: the order is the ranker's, from either side of the item.
            assert!(
                got.iter().all(|item| item.abs_diff(10) <= 3),
                "{name}: {got:?}"
            );
        } else {
            assert_eq!(got, want, "{name}");
        }
        let fell = outcome
            .decision
            .warnings
            .iter()
            .filter(|warning| warning.code == WarningCode::StageFallback);
        assert_eq!(
            fell.count(),
            fallbacks,
            "{name}: {:?}",
            outcome.decision.warnings
        );
        let lost = outcome
            .inputs
            .iter()
            .filter(|input| input.status == Status::Unavailable);
        assert_eq!(lost.count(), fallbacks, "{name}");
    }
    let outcome = run(
        &FakeWorld {
            faults: Faults {
                no_model: true,
                ..none
            },
            ..FakeWorld::new()
        },
        &ask(Route::Recommend),
        1,
    );
    assert!(outcome.decision.candidates.is_empty());
}

#[test]
fn what_several_similar_users_liked_joins_the_list() {
    // Item 9 is no neighbour (those come after 10), and as near to the taste as 11.
    // What others liked, what is hidden, and whether 9 is there.
    type Case<'a> = (&'a str, &'a [&'a [usize]], &'a [usize], bool);
    let cases: [Case<'_>; 5] = [
        ("two liked it", &[&[9], &[9, 200]], &[], true),
        ("one liked it", &[&[9], &[8]], &[], false),
        ("one liked it twice", &[&[9, 9], &[8]], &[], false),
        ("it is hidden", &[&[9], &[9]], &[9], false),
        (
            "long ago",
            &[&[9], &[9, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59]],
            &[],
            false,
        ),
    ];
    for (name, others, hidden, expected) in cases {
        let world = FakeWorld {
            others: others.iter().map(|items| items.to_vec()).collect(),
            hidden: hidden.iter().copied().collect(),
            ..FakeWorld::new().liked(&[3, 10])
        };
        let outcome = run(&world, &ask(Route::Recommend), 1);
        assert_eq!(first(&outcome, 3).contains(&9), expected, "{name}");
        let similar = Route::Similar {
            seeds: vec![item_id(10)],
        };
        let outcome = run(&world, &ask(similar), 1);
        assert!(
            !first(&outcome, 60).contains(&9),
            "{name}: like items, not like users"
        );
    }
    let seen = FakeWorld {
        others: vec![vec![3], vec![3]],
        ..FakeWorld::new().liked(&[3, 10])
    };
    let outcome = run(&seen, &ask(Route::Recommend), 1);
    assert!(!first(&outcome, 60).contains(&3), "seen by the user");
}

#[test]
fn users_that_were_not_looked_at_are_a_warning() {
    let world = FakeWorld {
        faults: Faults {
            users_missing: 1,
            ..Faults::default()
        },
        ..FakeWorld::new().liked(&[10])
    };
    let decision = run(&world, &ask(Route::Recommend), 1).decision;
    let codes: Vec<_> = decision.warnings.iter().map(|one| one.code).collect();
    assert_eq!(codes, [WarningCode::PartialResult]);
}

#[test]
fn a_stored_taste_serves_where_events_cannot_be_read() {
    let cases = [
        ("stored", Some(10), false, [11, 12, 13], 1),
        ("not stored", None, false, [299, 298, 297], 1),
        ("not to be read either", Some(10), true, [299, 298, 297], 2),
    ];
    for (name, stored, users, want, fallbacks) in cases {
        let world = FakeWorld {
            faults: Faults {
                features: true,
                users,
                ..Faults::default()
            },
            stored,
            ..FakeWorld::new()
        };
        let outcome = run(&world, &ask(Route::Recommend), 1);
        assert_eq!(first(&outcome, 3), want, "{name}");
        assert_eq!(outcome.decision.warnings.len(), fallbacks, "{name}");
    }
    // A user of whom nothing is known is no fault.
    let world = FakeWorld {
        stored: Some(10),
        ..FakeWorld::new()
    };
    let outcome = run(&world, &ask(Route::Recommend), 1);
    assert_eq!(first(&outcome, 3), [299, 298, 297]);
}

#[test]
fn seen_excluded_hidden_and_filtered_items_stay_out() {
    let mut world = FakeWorld {
        arms: vec![14, 16, 290, 291],
        ..FakeWorld::new().liked(&[11, 12, 10])
    };
    world.hidden.extend([13, 290]);
    let mut ask = ask(Route::Recommend);
    ask.exclude = vec![item_id(14)];
    ask.filter = Some(Filter::Field {
        field: "genre".into(),
        test: Test::NotIn(vec![Value::text("Drama")]),
    });
    for seed in 0..50 {
        let outcome = run(&world, &ask, seed);
        let items = first(&outcome, usize::MAX);
        assert_eq!(
            items[..3],
            [16, 17, 19],
            "11 and 12 seen, 13 hidden, 14 excluded, 15 and 18 drama"
        );
        assert!(
            !items.contains(&290) && items.iter().all(|item| item % 3 != 0),
            "{items:?}"
        );
    }
}

/// Who is asked about, for what, and what the whole list must be.
#[test]
fn a_list_is_full_where_enough_may_be_shown() {
    let titled = |number: u32| Filter::Field {
        field: "title".into(),
        test: Test::Eq(Value::text(&format!("Title {number}"))),
    };
    let crime = || Filter::Field {
        field: "genre".into(),
        test: Test::Eq(Value::text("Crime")),
    };
    let nobody = FakeWorld {
        items: 1_000,
        ..FakeWorld::new()
    };
    // The three hundred rows nearest to the newest like are seen.
    let seen_all_near = || {
        let seen: Vec<usize> = (11..=320).chain([10]).collect();
        FakeWorld {
            items: 1_000,
            ..FakeWorld::new().liked(&seen)
        }
    };
    let disliked = |items: std::ops::Range<usize>| {
        let mut context = skerry_types::UserContext::default();
        for (at, item) in items.enumerate() {
            assert!(context.apply(&event(EventKind::Dislike, item, at as u64)));
        }
        FakeWorld {
            items: 1_000,
            context: Some(context),
            ..FakeWorld::new()
        }
    };
    let near_crime = (11..).filter(|item| item % 3 == 2);
    let cases = [
        (
            "all that is near is seen",
            seen_all_near(),
            None,
            100,
            (321..421).collect(),
        ),
        (
            "and a filter passes one of three",
            seen_all_near(),
            Some(crime()),
            100,
            near_crime.skip(104).take(100).collect(),
        ),
        (
            "all that passes, however far",
            seen_all_near(),
            Some(titled(990)),
            10,
            vec![990],
        ),
        (
            "nobody's filter passes what is not trending",
            nobody,
            Some(titled(3)),
            10,
            vec![3],
        ),
        (
            "all that is trending is disliked",
            disliked(400..1_000),
            None,
            10,
            (390..400).collect(),
        ),
    ];
    for (name, world, filter, n, want) in cases {
        let ask = Ask {
            filter,
            n: Count::new(n).unwrap(),
            ..ask(Route::Recommend)
        };
        let outcome = run(&world, &ask, 1);
        let mut got = first(&outcome, ask.n.get());
        got.sort_unstable();
        assert_eq!(got, want, "{name}");
        let short = |warning: &skerry_types::Warning| warning.code == WarningCode::Underfilled;
        assert_eq!(
            outcome.decision.warnings.iter().any(short),
            want.len() < ask.n.get(),
            "{name}"
        );
    }
}

#[test]
fn pending_events_count_before_they_arrive() {
    let world = FakeWorld::new().liked(&[10]);
    let pending = [
        event(EventKind::Like, 100, 50),
        event(EventKind::Like, 101, 51),
    ];
    let ask = ask(Route::Recommend);
    let question = Question {
        ask: &ask,
        decision_id: Uid(1),
        seed: 1,
        pending: &pending,
        now: 1_000,
        explore: true,
    };
    let outcome = answer(&world, &question);
    assert_eq!(first(&outcome, 2), [102, 103]);
    assert_eq!(outcome.context.unwrap().recent.len(), 3);
    // The same events again, now stored as well, change nothing.
    let world = FakeWorld {
        context: Some({
            let mut context = world.context.unwrap();
            pending
                .iter()
                .for_each(|event| assert!(context.apply(event)));
            context
        }),
        ..FakeWorld::new()
    };
    assert_eq!(answer(&world, &question).context.unwrap().recent.len(), 3);
}

#[test]
fn reasons_say_what_brought_the_item() {
    let text =
        |outcome: &Outcome| skerry_decide::reason::text(&outcome.decision.candidates[0].reason);
    let liked = FakeWorld::new().liked(&[10]);
    assert_eq!(
        text(&run(&liked, &ask(Route::Recommend), 1)),
        "Because you liked Title 10"
    );
    let new = FakeWorld::new();
    assert_eq!(text(&run(&new, &ask(Route::Recommend), 1)), "Popular now");
    let similar = Route::Similar {
        seeds: vec![item_id(20)],
    };
    let outcome = run(&liked, &ask(similar), 1);
    assert_eq!(
        (text(&outcome).as_str(), first(&outcome, 2)),
        ("Similar to Title 20", vec![21, 22])
    );
}

#[test]
fn own_items_keep_what_was_seen_and_lose_what_is_forbidden() {
    let mut world = FakeWorld::new().liked(&[12, 10]);
    world.hidden.insert(11);
    let items = ["12", "11", "9999", "10", "40"]
        .map(|id| skerry_types::ItemId::new(id).unwrap())
        .to_vec();
    let outcome = run(&world, &ask(Route::Rank { items }), 1);
    assert_eq!(first(&outcome, 9), [10, 12, 40]);
    assert!(
        outcome
            .decision
            .warnings
            .iter()
            .any(|warning| warning.code == WarningCode::UnknownItems)
    );
}

proptest! {
    /// Exploration never repeats an item, stays in its slots, and says with what probability.
    #[test]
    fn explored_slots_are_exact(seed: u64, n in 1u64..60, arms in proptest::collection::hash_set(0usize..300, 0..40)) {
        let world = FakeWorld { arms: arms.into_iter().collect(), ..FakeWorld::new().liked(&[10]) };
        let ask = Ask { n: Count::new(n).unwrap(), ..ask(Route::Recommend) };
        let outcome = run(&world, &ask, seed);
        let again = run(&world, &ask, seed);
        prop_assert_eq!(&outcome.decision, &again.decision, "the same seed, the same decision");
        let ids: HashSet<_> = outcome.decision.candidates.iter().map(|candidate| candidate.id.clone()).collect();
        prop_assert_eq!(ids.len(), outcome.decision.candidates.len());
        let slots = skerry_decide::bandit::slots_for(ask.n.get());
        for (slot, candidate) in outcome.decision.candidates.iter().enumerate() {
            if candidate.source == Source::Explore {
                prop_assert!(slots.contains(&slot), "slot {}", slot);
                prop_assert!(candidate.propensity > 0.0 && candidate.propensity <= 1.0);
            } else {
                prop_assert_eq!(candidate.propensity, 1.0);
            }
        }
    }
}
