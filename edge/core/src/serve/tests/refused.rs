//! What is refused, and how.

use super::*;

#[test]
fn a_token_is_for_one_user_and_not_for_ever() {
    let host = FakeHost::empty().with_origin(origin);
    let next = get(&host, "/v1/recommend/1").body["next"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = get(&host, &format!("/v1/recommend/2?next={next}"));
    assert_eq!(
        (other.status, &other.body["code"]),
        (400, &serde_json::json!("next_invalid"))
    );
    host.later(60 * 60 * 1000);
    assert_eq!(
        get(&host, &format!("/v1/recommend/1?next={next}")).status,
        400
    );
}

#[test]
fn below_the_lowest_rung_is_the_only_503() {
    let host = FakeHost::empty().with_list(30);
    let got = get(&host, "/v1/recommend/1?lowest_rung=cached");
    assert_eq!(
        (got.status, &got.body["code"]),
        (503, &serde_json::json!("below_lowest_rung"))
    );
    assert_eq!(got.header("retry-after"), "1");
    assert_eq!(
        get(&host, "/v1/recommend/1?lowest_rung=popular").status,
        200
    );
}

#[test]
fn wrong_requests_are_typed() {
    let cases = [
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/v1/recommend", "", 405),
        ("GET", "/v1/recommend/1?n=0", "", 400),
        ("GET", "/v1/recommend/1?nn=5", "", 400),
        ("POST", "/v1/recommend", "{", 400),
        ("POST", "/v1/recommend", r#"{"sufrace":"home"}"#, 400),
        ("POST", "/v1/events", r#"[{"type":"like"}]"#, 400),
        ("GET", "/v1/recommend/1?next=%2A%2A", "", 400),
    ];
    let host = FakeHost::empty().with_list(30);
    for (method, target, body, status) in cases {
        let got = send(&host, &mut WorkerState::default(), method, target, body);
        assert_eq!(got.status, status, "{method} {target} {body}: {}", got.body);
        assert_eq!(got.header("content-type"), "application/problem+json");
        assert!(
            got.body["type"]
                .as_str()
                .unwrap()
                .ends_with(got.body["code"].as_str().unwrap())
        );
    }
}
