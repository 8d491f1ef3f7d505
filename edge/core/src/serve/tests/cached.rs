//! What is kept between answers: decisions, bodies, contexts.

use super::*;

#[test]
fn a_list_just_past_its_freshness_serves_while_the_next_is_made() {
    // (milliseconds past freshness, origin is down) -> how it is served, and how often the origin
    // has been asked in all
    let cases = [
        (-1, false, ("full", "hit"), 1),
        (0, false, ("full", "stale"), 2),
        (59_999, false, ("full", "stale"), 2),
        (60_000, false, ("full", "miss"), 2),
        (30_000, true, ("cached", "stale"), 1),
    ];
    for (past, down, served, asked) in cases {
        let host = FakeHost::empty().with_origin(origin);
        let ask = || {
            let got = get(&host, "/v1/recommend/1");
            (
                got.served("rung").to_owned(),
                got.served("cache").to_owned(),
            )
        };
        ask();
        host.now
            .set(host.expires().checked_add_signed(past).unwrap());
        if down {
            host.plan.set(Plan {
                ask: false,
                best: Rung::Edge,
                cause: Some(Cause::OriginDown),
            });
        }
        let (rung, cache) = ask();
        assert_eq!((rung.as_str(), cache.as_str()), served, "{past} ms");
        assert_eq!(host.asked.get(), asked, "{past} ms");
        let shown = host.shown.borrow().len();
        assert_eq!(shown, 2, "a revalidation shows nothing");
        if !down {
            assert_eq!(ask().1, "hit", "{past} ms: the next list is there");
            assert_eq!(host.asked.get(), asked);
        }
    }
}

#[test]
fn an_expired_response_serves_as_cached_for_a_day() {
    let host = FakeHost::empty().with_list(30).with_origin(origin);
    assert_eq!(get(&host, "/v1/recommend/1").served("rung"), "full");
    host.set_origin(|_| Err(AskFailure::Down));
    host.later(60 * 60 * 1000);
    let stale = get(&host, "/v1/recommend/1");
    assert_eq!(
        (
            stale.served("rung"),
            stale.served("cause"),
            stale.served("cache")
        ),
        ("cached", "origin_down", "stale")
    );
    assert!(stale.body["served"]["age_ms"].as_u64().unwrap() >= 60 * 60 * 1000);
    host.later(24 * 60 * 60 * 1000);
    assert_eq!(get(&host, "/v1/recommend/1").served("rung"), "popular");
}

#[test]
fn a_hit_is_the_same_decision_in_a_new_answer() {
    let host = FakeHost::empty().with_origin(origin);
    let (first, second) = (get(&host, "/v1/recommend/1"), get(&host, "/v1/recommend/1"));
    assert_eq!(
        (first.served("cache"), second.served("cache")),
        ("miss", "hit")
    );
    assert!(
        second.header("cache-status").starts_with("skerry; hit"),
        "{}",
        second.header("cache-status")
    );
    assert_eq!(first.served("decision_id"), second.served("decision_id"));
    assert_ne!(first.body["request_id"], second.body["request_id"]);
    assert_eq!(first.ids(), second.ids());
    assert_eq!(host.asked.get(), 1);
    let shown = host.shown.take();
    assert_eq!(
        shown[1].request_id.to_string(),
        second.body["request_id"].as_str().unwrap()
    );
    assert!(shown[1].from_cache && !shown[0].from_cache);
    // Another n, other fields and an exclusion are served from the same decision.
    let more = get(&host, "/v1/recommend/1?n=20&fields=year&exclude=3,4");
    assert_eq!(
        (more.served("cache"), more.ids().len(), host.asked.get()),
        ("hit", 20, 1)
    );
    assert!(!more.ids().contains(&"3") && more.body["items"][0]["fields"]["year"].is_number());
    // More than the decision holds is a miss.
    assert_eq!(get(&host, "/v1/recommend/1?n=100").served("cache"), "miss");
}

#[test]
fn a_filter_is_served_from_what_is_cached_or_asked_for() {
    let host = FakeHost::empty().with_origin(origin);
    get(&host, "/v1/recommend/1");
    let body = r#"{"user":{"id":"1"},"n":5,"filter":{"genre":{"eq":"Crime"}},"fields":["genre"]}"#;
    let got = send(
        &host,
        &mut WorkerState::default(),
        "POST",
        "/v1/recommend",
        body,
    );
    assert_eq!(
        (got.served("cache"), host.asked.get(), got.ids()),
        ("hit", 1, vec!["2", "5", "8", "11", "14"])
    );
    let body = r#"{"user":{"id":"1"},"n":5,"filter":{"year":{"eq":1990}}}"#;
    let narrow = send(
        &host,
        &mut WorkerState::default(),
        "POST",
        "/v1/recommend",
        body,
    );
    assert_eq!((narrow.served("cache"), host.asked.get()), ("miss", 2));
    assert_eq!(narrow.body["warnings"][0]["code"], "underfilled");
    assert_eq!(
        get(&host, "/v1/recommend/1").ids().len(),
        10,
        "the filtered decision is kept apart"
    );
}

#[test]
fn a_context_travels_only_where_it_differs() {
    let host = FakeHost::empty();
    let marks = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&marks);
    host.set_origin(move |ask| {
        heard.borrow_mut().push(ask.known_context);
        origin(ask)
    });
    let mark = context("1", &[]).mark();
    let ask = |surface: &str| {
        let target = format!("/v1/recommend/1?surface={surface}");
        assert_eq!(get(&host, &target).served("rung"), "full");
    };
    ask("a");
    ask("b");
    let view = r#"{"type":"view","user":"1","item":"9"}"#;
    let worker = &mut WorkerState::default();
    assert_eq!(send(&host, worker, "POST", "/v1/events", view).status, 202);
    ask("c");
    // Nothing was known, then the origin's own copy, then a copy with an event of this PoP.
    assert_eq!(*marks.borrow(), [0, mark, 0]);
}

#[test]
fn a_context_too_old_to_rank_on_is_replaced_by_the_origins() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let host = FakeHost::empty()
        .with_pool(40)
        .with_list(30)
        .with_context("1", &[3, 6]);
    host.later(DAY_MS + 1);
    assert_eq!(get(&host, "/v1/recommend/1").served("rung"), "popular");
    host.set_origin(origin);
    let answers: Vec<String> = (0..2)
        .map(|_| get(&host, "/v1/recommend/1").served("cache").to_owned())
        .collect();
    assert_eq!(answers, ["miss", "hit"]);
}
