//! The edge path by cases: every rung, and what must hold on each.

use crate::WorkerState;
use crate::fakes::{FakeHost, NOON, context, fields, item_id};
use crate::ports::{AskFailure, Header, Plan};
use skerry_types::{Candidate, Cause, Decision, ItemId, Rung, Source, Uid};
use skerry_wire::encode;
use skerry_wire::frame::{
    Answer, AnswerContext, AnswerFrame, AskFrame, Refusal, RefusalCode, RegionState,
};
use skerry_wire::value::{StoredDecision, metadata};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

mod cached;
mod refused;

/// An origin that ranks items by number, and has no idea of seen ones.
fn origin(ask: &AskFrame) -> Result<AnswerFrame, AskFailure> {
    let candidate = |at: usize| Candidate {
        id: item_id(at),
        score: 1.0 - at as f32 / 1000.0,
        source: Source::Vector,
        propensity: 1.0,
        reason: skerry_decide::reason::popular(),
        fields: metadata::of(&fields(at)),
    };
    let decision = Decision {
        id: Uid(u128::from(ask.seed)),
        rung: Rung::Full,
        cause: None,
        made_ms: NOON,
        as_of_ms: NOON - 240,
        model: "ranker@1".into(),
        region: "here".into(),
        seed: ask.seed,
        snapshot: 0,
        candidates: (0..ask.ask.n.kept()).map(candidate).collect(),
        warnings: Vec::new(),
    };
    let mut context = context("1", &[]);
    for event in &ask.pending {
        context.apply(event);
    }
    let known = ask.ask.subject().is_none() || context.mark() == ask.known_context;
    let answer = Answer {
        decision: encode(&StoredDecision { decision }).unwrap(),
        newest_ms: context.as_of_ms,
        context: (!known).then(|| AnswerContext::of(&context).unwrap()),
    };
    Ok(frame(Ok(answer)))
}

fn frame(outcome: Result<Answer, Refusal>) -> AnswerFrame {
    let state = RegionState::default();
    AnswerFrame {
        outcome,
        state,
        stages: Vec::new(),
    }
}

fn refusing(code: RefusalCode) -> impl Fn(&AskFrame) -> Result<AnswerFrame, AskFailure> {
    move |_| {
        Ok(frame(Err(Refusal {
            code,
            detail: "no".into(),
            retry_after_ms: 0,
        })))
    }
}

struct Answered {
    status: u16,
    body: serde_json::Value,
    headers: Vec<(Header, String)>,
}

impl Answered {
    fn ids(&self) -> Vec<&str> {
        self.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect()
    }
    fn served(&self, field: &str) -> &str {
        self.body["served"][field].as_str().unwrap_or("null")
    }
    fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map_or("", |(_, value)| value)
    }
}

fn send(
    host: &FakeHost,
    worker: &mut WorkerState,
    method: &str,
    target: &str,
    body: &str,
) -> Answered {
    let (response, body) = host.send(worker, method, target, body);
    let body = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    Answered {
        status: response.status,
        body,
        headers: response.headers,
    }
}

fn get(host: &FakeHost, target: &str) -> Answered {
    send(host, &mut WorkerState::default(), "GET", target, "")
}

/// One case: a host, and the rung and cause of its first answer to a known user.
fn check(name: &str, host: FakeHost, rung: &str, cause: &str) {
    let got = get(&host, "/v1/recommend/1?n=5&explain=true&fields=title");
    assert_eq!(
        (got.status, got.served("rung"), got.served("cause")),
        (200, rung, cause),
        "{name}: {}",
        got.body
    );
    assert_eq!(got.header("x-skerry-rung"), rung, "{name}");
    assert_eq!(got.body["items"].as_array().unwrap().len(), 5, "{name}");
    for item in got.body["items"].as_array().unwrap() {
        assert!(
            item["reason"]["text"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{name}: {item}"
        );
        assert!(
            item["fields"]["title"].is_string() && item["propensity"].as_f64().is_some(),
            "{name}: {item}"
        );
    }
    let shown = host.shown.borrow();
    assert_eq!(shown.len(), 1, "{name}: one exposure an answer");
    assert_eq!(
        shown[0].request_id.to_string(),
        got.body["request_id"].as_str().unwrap(),
        "{name}"
    );
    assert_eq!(shown[0].shown.rung.as_str(), rung, "{name}");
}

#[test]
fn every_rung_and_its_cause() {
    let world = || {
        FakeHost::empty()
            .with_pool(40)
            .with_list(30)
            .with_context("1", &[3, 6])
    };
    let listed = || FakeHost::empty().with_list(30);
    check("all is well", world().with_origin(origin), "full", "null");
    check(
        "an unknown user is a new one",
        listed().with_origin(origin),
        "full",
        "null",
    );
    check("origin down, pool fresh", world(), "edge", "origin_down");
    check(
        "origin too slow",
        world().with_origin(|_| Err(AskFailure::Timeout)),
        "edge",
        "origin_timeout",
    );
    check(
        "origin sheds",
        world().with_origin(refusing(RefusalCode::Overloaded)),
        "edge",
        "origin_overloaded",
    );
    check(
        "origin drains",
        world().with_origin(refusing(RefusalCode::Draining)),
        "edge",
        "origin_down",
    );
    check(
        "origin fails",
        world().with_origin(refusing(RefusalCode::Internal)),
        "edge",
        "origin_error",
    );
    check(
        "origin down, nobody known",
        FakeHost::empty().with_pool(40).with_list(30),
        "popular",
        "origin_down",
    );
    check(
        "origin down, no pool",
        listed().with_context("1", &[3]),
        "popular",
        "origin_down",
    );
    let host = world().with_origin(origin);
    host.plan.set(Plan {
        ask: false,
        best: Rung::Edge,
        cause: Some(Cause::OriginDown),
    });
    check("the ladder says not to ask", host, "edge", "origin_down");
    let host = world().with_origin(origin);
    host.plan.set(Plan {
        ask: true,
        best: Rung::Batch,
        cause: Some(Cause::StreamLag),
    });
    check("the stream lags", host, "batch", "stream_lag");
}

#[test]
fn an_event_shows_in_the_next_answer() {
    let like = |item: &str| format!(r#"{{"type":"like","user":"1","item":"{item}"}}"#);
    let view = r#"{"type":"view","user":"1","item":"9"}"#;
    for (name, down) in [("on a cache hit", false), ("with the origin down", true)] {
        let host = FakeHost::empty()
            .with_pool(40)
            .with_list(30)
            .with_context("1", &[30]);
        if !down {
            host.set_origin(origin);
        }
        let worker = &mut WorkerState::default();
        let before = send(&host, worker, "GET", "/v1/recommend/1", "");
        let first = before.ids()[0].to_owned();
        assert_eq!(send(&host, worker, "POST", "/v1/events", view).status, 202);
        let accepted = send(&host, worker, "POST", "/v1/events", &like(&first));
        assert_eq!(
            (accepted.status, &accepted.body["accepted"]),
            (202, &serde_json::json!(1)),
            "{name}"
        );
        assert_eq!(host.spool.borrow().len(), 2);
        let after = send(&host, worker, "GET", "/v1/recommend/1", "");
        assert!(
            !after.ids().contains(&first.as_str()),
            "{name}: {first} still in {:?}",
            after.ids()
        );
    }
}

#[test]
fn one_like_makes_a_new_user_known_without_an_origin() {
    let host = FakeHost::empty().with_pool(40).with_list(30);
    let ask = r#"{"user":{"session":"s1"},"n":5}"#;
    let worker = &mut WorkerState::default();
    assert_eq!(
        send(&host, worker, "POST", "/v1/recommend", ask).served("rung"),
        "popular"
    );
    let liked = send(
        &host,
        worker,
        "POST",
        "/v1/events",
        r#"{"type":"like","session":"s1","item":"7"}"#,
    );
    assert_eq!(liked.status, 202);
    assert_eq!(
        send(&host, worker, "POST", "/v1/recommend", ask).served("rung"),
        "edge"
    );
}

#[test]
fn a_full_spool_is_said_and_changes_nothing() {
    let host = FakeHost::empty().with_pool(40).with_list(30);
    host.spool_full.set(true);
    let like = r#"{"type":"like","user":"1","item":"7"}"#;
    let refused = send(
        &host,
        &mut WorkerState::default(),
        "POST",
        "/v1/events",
        like,
    );
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    assert_eq!(
        get(&host, "/v1/recommend/1").served("rung"),
        "popular",
        "nothing was learnt from it"
    );
}

#[test]
fn a_hidden_item_is_on_no_rung() {
    let full = FakeHost::empty().with_origin(origin);
    let cached = FakeHost::empty().with_origin(origin);
    get(&cached, "/v1/recommend/1");
    cached.set_origin(|_| Err(AskFailure::Down));
    cached.later(60 * 60 * 1000);
    let hit = FakeHost::empty().with_origin(origin);
    get(&hit, "/v1/recommend/1");
    let edge = FakeHost::empty()
        .with_pool(40)
        .with_list(30)
        .with_context("1", &[3, 6]);
    let popular = FakeHost::empty().with_list(30);
    for (rung, host) in [
        ("full", full),
        ("full", hit),
        ("edge", edge),
        ("cached", cached),
        ("popular", popular),
    ] {
        let worker = &mut WorkerState::default();
        // What would be first is hidden now; the worker's own copies are warm.
        let target = "/v1/recommend/1?n=6";
        let first = ItemId::new(send(&host, worker, "GET", target, "").ids()[0]).unwrap();
        host.hide(&first);
        let got = send(&host, worker, "GET", target, "");
        assert_eq!(got.served("rung"), rung);
        assert!(
            !got.ids().contains(&first.as_str()),
            "{rung}: {:?}",
            got.ids()
        );
        assert_eq!(got.ids().len(), 6, "{rung}");
    }
}

#[test]
fn the_last_list_in_the_worker_serves_when_the_host_has_lost_it() {
    let host = FakeHost::empty().with_list(30);
    let worker = &mut WorkerState::default();
    send(&host, worker, "GET", "/v1/popular", "");
    *host.list.borrow_mut() = None;
    host.change(|epochs| epochs.popular += 1);
    let got = send(&host, worker, "GET", "/v1/popular", "");
    assert_eq!(
        (got.status, got.served("rung"), got.ids().len()),
        (200, "popular", 10)
    );
    let cold = get(&FakeHost::empty(), "/v1/popular");
    assert_eq!(
        (cold.status, cold.served("cause"), cold.ids().len()),
        (200, "cold_pop", 0)
    );
    assert_eq!(cold.body["warnings"][0]["code"], "underfilled");
}

#[test]
fn pages_go_on_without_repeats_and_without_an_origin() {
    let host = FakeHost::empty()
        .with_pool(40)
        .with_list(30)
        .with_origin(origin);
    let mut page = get(&host, "/v1/recommend/1?n=10&explain=true&fields=title");
    host.set_origin(|_| Err(AskFailure::Down));
    let mut seen = HashSet::new();
    let mut rank = 0;
    let mut pages = 0;
    loop {
        pages += 1;
        for item in page.body["items"].as_array().unwrap() {
            rank += 1;
            assert_eq!(item["rank"], rank);
            assert!(
                seen.insert(item["id"].as_str().unwrap().to_owned()),
                "{item} was shown before"
            );
        }
        let Some(next) = page.body["next"].as_str() else {
            break;
        };
        page = get(&host, &format!("/v1/recommend/1?n=10&next={next}"));
        assert_eq!(
            (page.status, page.served("rung")),
            (200, "full"),
            "{}",
            page.body
        );
    }
    assert_eq!((pages, seen.len()), (6, 60));
}

#[test]
fn own_items_are_ranked_on_every_rung() {
    let body = r#"{"user":{"id":"1"},"items":["9","404","3","12"]}"#;
    let with_pool = FakeHost::empty().with_pool(40).with_context("1", &[6]);
    let got = send(
        &with_pool,
        &mut WorkerState::default(),
        "POST",
        "/v1/rank",
        body,
    );
    assert_eq!(
        (got.served("rung"), got.ids().len(), got.ids()[3]),
        ("edge", 4, "404")
    );
    assert_eq!(got.body["warnings"][0]["code"], "unknown_items");
    let without = FakeHost::empty();
    let got = send(
        &without,
        &mut WorkerState::default(),
        "POST",
        "/v1/rank",
        body,
    );
    assert_eq!(
        (got.served("rung"), got.ids()),
        ("popular", vec!["9", "404", "3", "12"])
    );
}

#[test]
fn similar_without_an_origin() {
    let host = FakeHost::empty().with_pool(40).with_list(30);
    let got = send(
        &host,
        &mut WorkerState::default(),
        "POST",
        "/v1/similar",
        r#"{"item":"6","n":5,"explain":true}"#,
    );
    assert_eq!(
        (got.status, got.served("rung")),
        (200, "edge"),
        "{}",
        got.body
    );
    assert!(!got.ids().contains(&"6"));
    assert_eq!(got.body["items"][0]["reason"]["text"], "Similar to Title 6");
    let unknown = send(
        &host,
        &mut WorkerState::default(),
        "POST",
        "/v1/similar",
        r#"{"item":"nope","n":5}"#,
    );
    assert_eq!(unknown.served("rung"), "popular");
}
