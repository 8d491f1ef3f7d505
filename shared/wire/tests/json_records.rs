//! Which events, items and attributes the public JSON takes and refuses.

#[path = "common/refused.rs"]
mod refused;

use refused::seen;
use skerry_types::{Country, ItemId, Value};
use skerry_wire::json::{
    parse_attributes, parse_events, parse_item, parse_item_patch, parse_items,
};

const NOW: u64 = 1_795_176_000_000;

#[test]
fn events_are_judged_one_by_one() {
    let body = include_bytes!("golden/events.request.json");
    let parsed = parse_events(body, NOW).unwrap();
    assert_eq!(
        parsed
            .accepted
            .iter()
            .map(|(index, _)| *index)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let rejected: Vec<_> = parsed
        .rejected
        .iter()
        .map(|r| (r.index, r.pointer.as_str(), r.code))
        .collect();
    assert_eq!(
        rejected,
        [
            (3, "/3/value", "missing_field"),
            (4, "/4/type", "missing_field")
        ]
    );
    let like = &parsed.accepted[0].1;
    assert_eq!(
        (like.kind.as_str(), like.at_ms, like.value),
        ("rating", Some(1_795_176_000_000), Some(4.5))
    );
    assert_eq!(parsed.accepted[1].1.positions, [0, 1]);

    let refused = [
        ("[]", " out_of_range"),
        (r#"{"type":"like","user":"u"}"#, "/item missing_field"),
        (r#"{"type":"like","item":"i"}"#, "/user missing_field"),
        (
            r#"{"type":"Like!","user":"u","item":"i"}"#,
            "/type event_type_invalid",
        ),
        (
            r#"{"type":"rating","user":"u","item":"i"}"#,
            "/value missing_field",
        ),
        (
            r#"{"type":"rating","user":"u","item":"i","value":"4"}"#,
            "/value wrong_type",
        ),
        (
            r#"{"type":"rating","user":"u","item":"i","value":1e300}"#,
            "/value out_of_range",
        ),
        (
            r#"{"type":"view","user":"u","item":"i","at":"yesterday"}"#,
            "/at time_invalid",
        ),
        (
            r#"{"type":"view","user":"u","item":"i","at":1700000000}"#,
            "/at wrong_type",
        ),
        (
            r#"{"type":"view","user":"u","item":"i","at":"2099-01-01T00:00:00Z"}"#,
            "/at time_ahead",
        ),
        (
            r#"{"type":"view","user":"u","item":"i","request_id":"x"}"#,
            "/request_id uuid_invalid",
        ),
        (
            r#"{"type":"impression","user":"u","positions":[0]}"#,
            "/item missing_field",
        ),
        (
            r#"{"type":"view","user":"u","item":"i","positions":[0]}"#,
            "/request_id missing_field",
        ),
        (
            r#"{"type":"view","user":"u","item":"i","positions":[-1]}"#,
            "/positions/0 out_of_range",
        ),
        (
            r#"{"type":"view","user":"u","item":"i","itm":"i"}"#,
            "/itm unknown_field",
        ),
        (
            r#"{"type":"view","user":"u","user":"v","item":"i"}"#,
            "/user duplicate_field",
        ),
    ];
    for (body, want) in refused {
        let (status, _, errors) = seen(parse_events(body.as_bytes(), NOW));
        assert_eq!(
            (status, errors.first().map(String::as_str)),
            (400, Some(want)),
            "{body}"
        );
    }
    let many = |n: usize| format!("[{}]", vec![r#"{"type":"my.own","user":"u"}"#; n].join(","));
    assert_eq!(
        parse_events(many(500).as_bytes(), NOW)
            .unwrap()
            .accepted
            .len(),
        500
    );
    assert_eq!(
        seen(parse_events(many(501).as_bytes(), NOW)).2,
        [" too_many"]
    );
}

#[test]
fn items_and_attributes() {
    let id = ItemId::new("318").unwrap();
    let item = parse_item(&id, include_bytes!("golden/item.request.json")).unwrap();
    assert_eq!(item.title(), "The Shawshank Redemption");
    assert!(
        item.rights.available[0]
            .countries
            .contains(&Country(*b"DE"))
    );
    assert_eq!(
        (item.rights.hidden, item.rights.maturity),
        (false, Some(16))
    );
    assert!(!item.attributes.contains_key("tagline"), "null is absent");

    let mut patched = item.clone();
    let patch = br#"{"attributes":{"year":null,"score":9.3},"hidden":true,"maturity":null}"#;
    parse_item_patch(&id, patch).unwrap().apply(&mut patched);
    assert_eq!(
        (patched.rights.hidden, patched.rights.maturity),
        (true, None)
    );
    assert_eq!(patched.rights.available, item.rights.available);
    assert!(!patched.attributes.contains_key("year"));
    assert_eq!(patched.attributes.get("score"), Some(&Value::Float(9.3)));

    let batch = parse_items(br#"[{"id":"1"},{"id":""},{"attributes":{}},7]"#).unwrap();
    assert_eq!(batch.accepted.len(), 1);
    let rejected: Vec<_> = batch
        .rejected
        .iter()
        .map(|r| (r.pointer.as_str(), r.code))
        .collect();
    assert_eq!(
        rejected,
        [
            ("/1/id", "id_empty"),
            ("/2/id", "missing_field"),
            ("/3", "wrong_type")
        ]
    );

    let refused = [
        (r#"{"id":"319"}"#, "/id conflicting_fields"),
        (r#"{"attributes":{"x":{}}}"#, "/attributes/x wrong_type"),
        (
            r#"{"attributes":{"x":[[1]]}}"#,
            "/attributes/x/0 wrong_type",
        ),
        (
            r#"{"attributes":{"x":1,"x":2}}"#,
            "/attributes/x duplicate_field",
        ),
        (
            r#"{"available":[{"from":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}]}"#,
            "/available/0/until out_of_range",
        ),
        (
            r#"{"available":[{"countries":["Germany"]}]}"#,
            "/available/0/countries/0 country_invalid",
        ),
        (r#"{"maturity":200}"#, "/maturity out_of_range"),
        (r#"{"title":"x"}"#, "/title unknown_field"),
    ];
    for (body, want) in refused {
        assert_eq!(seen(parse_item(&id, body.as_bytes())).2, [want], "{body}");
    }
    assert_eq!(
        parse_attributes(br#"{"attributes":{"plan":"pro"}}"#)
            .unwrap()
            .len(),
        1
    );
}
