//! What the public JSON says: the bytes of answers and problems, and patched bodies.

mod common;

use common::golden;
use proptest::prelude::*;
use serde_json::Value as Json;
use skerry_types::{
    Attributes, Candidate, Cause, Event, EventId, EventKind, Hlc, ItemId, ItemRef, Reason,
    ReasonKind, Rung, Source, TenantId, Uid, UserId, Value, Warning, WarningCode,
};
use skerry_wire::json::{
    AnswerView, ItemView, Problem, Served, Slots, event_to_json, format_time, item_to_json,
    parse_events, parse_item, parse_time, render_accepted, render_answer, write_float,
    write_string,
};
use skerry_wire::value::metadata;
use std::sync::Arc;

const REQUEST: Uid = Uid(0x01939f3c_7e00_7000_8000_000000000001);
const DECISION: Uid = Uid(0x01939f3c_7e00_7000_8000_000000000002);
const NOON: u64 = 1_795_176_000_000;

fn candidate(id: &str, title: &str, score: f32, source: Source) -> Candidate {
    let fields: Attributes = [
        ("title".into(), Value::text(title)),
        ("year".into(), Value::Int(1999)),
        ("genre".into(), Value::List(vec![Value::text("Sci-Fi")])),
    ]
    .into();
    let liked = ItemRef {
        id: ItemId::new("1748").unwrap(),
        title: Arc::from("Dark City"),
    };
    let reason = Reason {
        kind: ReasonKind::BecauseLiked,
        item: Some(liked),
        detail: None,
    };
    Candidate {
        id: ItemId::new(id).unwrap(),
        score,
        source,
        propensity: 0.08,
        reason,
        fields: metadata::of(&fields),
    }
}

fn read(candidates: &[Candidate]) -> Vec<Attributes> {
    let read = |one: &Candidate| metadata::read(&one.fields).unwrap();
    candidates.iter().map(read).collect()
}

fn served(cache: &str) -> Served<'_> {
    Served {
        rung: Rung::Edge,
        cause: Some(Cause::OriginTimeout),
        as_of_ms: NOON,
        age_ms: 240,
        cache,
        decision_id: DECISION,
        region: "us-west",
        pop: "sea1",
        model: "ranker@12",
        took_ms: 9,
    }
}

fn render(view: &AnswerView<'_>) -> (Vec<u8>, Slots) {
    let mut out = Vec::new();
    let slots = render_answer(view, &mut out);
    (out, slots)
}

#[test]
fn answer_is_the_golden_one() {
    let candidates = [
        candidate("2571", "The \"Matrix\"\n", 0.91, Source::Vector),
        candidate("260", "Star Wars: Épisode IV", 0.5, Source::Explore),
    ];
    let metadata = read(&candidates);
    let items: Vec<_> = candidates
        .iter()
        .zip(&metadata)
        .map(|(c, m)| ItemView::explained(c, "Because you liked Dark City", "template").with(m))
        .collect();
    let fields = [
        "title".into(),
        "year".into(),
        "nothing".into(),
        "title".into(),
    ];
    let warnings = [Warning {
        code: WarningCode::Underfilled,
        detail: "2 of 10".into(),
    }];
    let view = AnswerView {
        request_id: REQUEST,
        items: &items,
        shown: 10,
        fields: &fields,
        served: served("miss"),
        next: Some("opaque"),
        warnings: &warnings,
    };
    let (body, _) = render(&view);
    golden("recommend.response.json", &body);
    let json: Json = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["items"][0]["rank"], 11);
    assert_eq!(
        json["items"][0]["fields"],
        serde_json::json!({"title": "The \"Matrix\"\n", "year": 1999})
    );
    assert_eq!(
        json["items"][0]["reason"]["items"],
        serde_json::json!(["1748"])
    );
    assert_eq!(json["served"]["as_of"], "2026-11-20T12:00:00Z");
}

#[test]
fn answer_says_only_what_was_asked_for() {
    let candidates = [candidate("2571", "The Matrix", f32::NAN, Source::Popular)];
    let items: Vec<_> = candidates.iter().map(ItemView::of).collect();
    let served = Served {
        cause: None,
        ..served("hit")
    };
    let view = AnswerView {
        request_id: REQUEST,
        items: &items,
        shown: 0,
        fields: &[],
        served,
        next: None,
        warnings: &[],
    };
    let json: Json = serde_json::from_slice(&render(&view).0).unwrap();
    let keys: Vec<_> = json["items"][0]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys, ["id", "propensity", "rank", "score", "source"]);
    assert_eq!(json["items"][0]["score"], 0, "what is not a number is 0");
    assert!(json["served"]["cause"].is_null() && json["next"].is_null());
    assert_eq!(json["experiments"], serde_json::json!([]));
}

#[test]
fn problem_is_the_golden_one() {
    let tenant = TenantId::default();
    let body = br#"{"n":0,"surfce":"home"}"#;
    let problem = skerry_wire::json::parse_recommend(body, &tenant).unwrap_err();
    golden("problem.response.json", &problem.render(REQUEST));
    let json: Json = serde_json::from_slice(&problem.render(REQUEST)).unwrap();
    assert_eq!(json["errors"].as_array().unwrap().len(), 2);

    let nasty = Problem::bad_request("invalid_json", "a \"quote\"\\ and \u{1} more\u{7f}\u{2028}");
    let json: Json = serde_json::from_slice(&nasty.render(REQUEST)).unwrap();
    assert_eq!(json["detail"], "a \"quote\"\\ and \u{1} more\u{7f}\u{2028}");
    assert!(json.get("errors").is_none());
    let busy = Problem::unavailable("below_lowest_rung", "nothing better than popular", 2);
    assert_eq!(
        (busy.status, busy.retry_after_s, busy.title),
        (503, Some(2), "No answer on an acceptable rung")
    );
}

#[test]
fn events_response_is_the_golden_one() {
    let parsed = parse_events(include_bytes!("golden/events.request.json"), NOON).unwrap();
    let mut out = Vec::new();
    render_accepted(&mut out, parsed.accepted.len(), &parsed.rejected);
    golden("events.response.json", &out);
}

#[test]
fn items_and_events_come_out_as_they_went_in() {
    let id = ItemId::new("318").unwrap();
    let item = parse_item(&id, include_bytes!("golden/item.request.json")).unwrap();
    let mut out = Vec::new();
    item_to_json(&mut out, &item);
    golden("item.response.json", &out);
    assert_eq!(parse_item(&id, &out), Ok(item));

    let event = Event {
        tenant: TenantId::default(),
        id: EventId::new("e1").unwrap(),
        kind: EventKind::Rating,
        user: UserId::new("u1").ok(),
        session: None,
        item: Some(id),
        value: Some(4.5),
        at_ms: NOON,
        accepted_ms: NOON + 7,
        surface: None,
        request_id: Some(REQUEST),
        positions: vec![0, 3],
        hlc: Hlc::default(),
        region: Arc::from("local"),
        pop: Arc::from("pop1"),
    };
    let mut out = Vec::new();
    event_to_json(&mut out, &event);
    golden("event.response.json", &out);
    serde_json::from_slice::<Json>(&out).unwrap();
}

#[test]
fn floats_are_short() {
    let cases = [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.91, "0.91"),
        (f64::from(0.91f32), "0.91"),
        (0.08, "0.08"),
        (-2.5, "-2.5"),
        (123_456.7, "123457"),
        (999_999.7, "1000000"),
        (1.0 / 3.0, "0.333333"),
        (0.000_012_345_678, "0.0000123457"),
        (1.5e-7, "1.5e-7"),
        (1e-9, "1e-9"),
        (4e9, "4000000000"),
        (1.25e18, "1.25e18"),
        (f64::MAX, "1.79769e308"),
        (f64::NAN, "0"),
        (f64::INFINITY, "0"),
    ];
    for (value, want) in cases {
        let mut out = Vec::new();
        write_float(&mut out, value);
        assert_eq!(String::from_utf8(out).unwrap(), want, "{value:e}");
    }
}

#[test]
fn times() {
    let cases = [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2026-11-20T12:00:00Z", Some(NOON)),
        ("2026-11-20t12:00:00z", Some(NOON)),
        ("2026-11-20 12:00:00Z", Some(NOON)),
        ("2026-11-20T13:30:00+01:30", Some(NOON)),
        ("2026-11-19T23:00:00.25-13:00", Some(NOON + 250)),
        ("2024-02-29T00:00:00.123456789Z", Some(1_709_164_800_123)),
        ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
        ("2023-02-29T00:00:00Z", None),
        ("1969-12-31T23:59:59Z", None),
        ("2026-11-20T24:00:00Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-11-20T12:00:00", None),
        ("2026-11-20T12:00:00.Z", None),
        ("2026-11-20T12:00:00+0100", None),
        ("2026-11-20T12:00:00+24:00", None),
        ("2026-11-20", None),
        ("+026-11-20T12:00:00Z", None),
        ("２026-11-20T12:00Z", None),
        ("", None),
    ];
    for (text, want) in cases {
        assert_eq!(parse_time(text), want, "{text}");
    }
    assert_eq!(format_time(NOON + 5), "2026-11-20T12:00:00.005Z");
    assert_eq!(format_time(u64::MAX), "9999-12-31T23:59:59.999Z");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// jiff is the second opinion on the calendar.
    #[test]
    fn times_agree_with_jiff(ms in 0u64..253_402_207_200_000, offset in -1439i64..1440) {
        let jiff = jiff::Timestamp::from_millisecond(ms as i64).unwrap();
        prop_assert_eq!(format_time(ms).parse::<jiff::Timestamp>().unwrap(), jiff);
        prop_assert_eq!(parse_time(&jiff.to_string()), Some(ms));
        let sign = if offset < 0 { '-' } else { '+' };
        let (h, m) = (offset.abs() / 60, offset.abs() % 60);
        let local = jiff.as_millisecond() + offset * 60_000;
        prop_assume!((0..253_402_207_200_000).contains(&local));
        let text = format_time(local as u64).replace('Z', &format!("{sign}{h:02}:{m:02}"));
        prop_assert_eq!(parse_time(&text), Some(ms), "{}", text);
    }

    #[test]
    fn floats_are_near_and_json(value: f64) {
        let mut out = Vec::new();
        write_float(&mut out, value);
        let back: f64 = serde_json::from_slice(&out).unwrap();
        let want = if value.is_finite() { value } else { 0.0 };
        prop_assert!((back - want).abs() <= want.abs() * 5.000_001e-6, "{} {}", value, back);
        prop_assert!(out.len() <= 17);
    }

    #[test]
    fn strings_are_escaped(text in any::<String>()) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    /// A kept body, patched, says what a freshly rendered one says.
    #[test]
    fn patched_bodies_equal_rendered_ones(
        texts in prop::collection::vec(any::<String>(), 4),
        (first, second) in (any::<u128>(), any::<u128>()),
        (ages, tooks) in ((any::<u64>(), 0u64..10_000_000_000), (0u64..100_000, 0u64..10_000_000_000)),
        states in (0usize..4, 0usize..4),
        count in 0usize..4,
    ) {
        const STATES: [&str; 4] = ["hit", "miss", "stale", "bypass"];
        let candidates: Vec<_> = (0..count).map(|i| candidate("i", &texts[0], i as f32, Source::Recent)).collect();
        let metadata = read(&candidates);
        let items: Vec<_> = candidates.iter().zip(&metadata)
            .map(|(c, m)| ItemView::explained(c, &texts[1], "template").with(m)).collect();
        let fields = ["title".into()];
        let view = |id, age_ms, took_ms, state: usize| AnswerView {
            request_id: Uid(id),
            items: &items,
            shown: 0,
            fields: &fields,
            served: Served { age_ms, took_ms, cache: STATES[state], region: &texts[2], model: &texts[3], ..served("") },
            next: Some(&texts[2]),
            warnings: &[],
        };
        let (mut kept, slots) = render(&view(first, ages.0, tooks.0, states.0));
        let (fresh, same) = render(&view(second, ages.1, tooks.1, states.1));
        prop_assert_eq!(slots, same);
        let patches = Slots::patches(Uid(second), ages.1, STATES[states.1], tooks.1);
        let mut left = &patches[..];
        for (at, length) in slots.to_array() {
            let (patch, rest) = left.split_at(length as usize);
            kept[at as usize..(at + length) as usize].copy_from_slice(patch);
            left = rest;
        }
        prop_assert!(left.is_empty());
        prop_assert_eq!(&kept, &fresh);
        let json: Json = serde_json::from_slice(&kept).unwrap();
        prop_assert_eq!(&json["request_id"], &Uid(second).to_string());
        prop_assert_eq!(&json["served"]["age_ms"], ages.1);
        prop_assert_eq!(&json["served"]["took_ms"], tooks.1);
        prop_assert_eq!(&json["served"]["cache"], STATES[states.1]);
        prop_assert_eq!(json["items"].as_array().unwrap().len(), count);
    }
}
