use super::world::*;
use sha2::Digest;
use skerry_wire::value::{ApiKey, KeyClass};

/// Method, path, body; status, code and pointer of the first error.
type Case<'a> = (&'a str, &'a str, &'a [u8], u16, &'a str, &'a str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_says_what_is_wrong() {
    let origin = Running::start().await;
    let deep = format!(
        "{{\"attributes\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let long = vec![b' '; (1 << 20) + 1];
    let id = "x".repeat(257);
    let long_id = format!("/v1/items/{id}");
    let cases: [Case<'_>; 30] = [
        ("GET", "/healthz", b"", 200, "", ""),
        ("GET", "/readyz", b"", 200, "", ""),
        ("GET", "/v1/nothing", b"", 404, "not_found", ""),
        ("GET", "/v1/items/1/2/3", b"", 404, "not_found", ""),
        ("POST", "/v1/items/1", b"{}", 405, "method_not_allowed", ""),
        ("DELETE", "/v1/events", b"", 405, "method_not_allowed", ""),
        ("POST", "/v1/events", b"{}", 405, "method_not_allowed", ""),
        (
            "PUT",
            "/v1/items/new",
            br#"{"attributes":{"title":"New"}}"#,
            201,
            "",
            "",
        ),
        (
            "PUT",
            "/v1/items/new",
            br#"{"attributes":{"title":"Newer"}}"#,
            200,
            "",
            "",
        ),
        ("PUT", "/v1/items/new", b"not json", 400, "invalid_json", ""),
        ("PUT", "/v1/items/new", b"", 400, "invalid_json", ""),
        (
            "PUT",
            "/v1/items/new",
            br#"{"atributes":{}}"#,
            400,
            "invalid_request",
            "/atributes",
        ),
        (
            "PUT",
            "/v1/items/new",
            br#"{"hidden":"yes"}"#,
            400,
            "invalid_request",
            "/hidden",
        ),
        (
            "PUT",
            "/v1/items/new",
            deep.as_bytes(),
            400,
            "json_too_deep",
            "",
        ),
        ("PUT", "/v1/items/new", &long, 413, "body_too_large", ""),
        (
            "PUT",
            "/v1/items/new",
            b"{\"attributes\":{\"t\":\"\xff\"}}",
            400,
            "invalid_utf8",
            "",
        ),
        ("PUT", &long_id, b"{}", 400, "invalid_request", "{id}"),
        (
            "PUT",
            "/v1/items/%zz",
            b"{}",
            400,
            "percent_encoding_invalid",
            "",
        ),
        (
            "PUT",
            "/v1/items/%0a",
            b"{}",
            400,
            "invalid_request",
            "{id}",
        ),
        ("PUT", "/v1/items/a%2Fb", b"{}", 201, "", ""),
        ("GET", "/v1/items/a%2Fb", b"", 200, "", ""),
        ("DELETE", "/v1/items/a%2Fb", b"", 204, "", ""),
        ("GET", "/v1/items/a%2Fb", b"", 404, "not_found", ""),
        (
            "GET",
            "/v1/items/1?verbose=1",
            b"",
            400,
            "invalid_request",
            "?verbose",
        ),
        (
            "POST",
            "/v1/items:batch",
            br#"[{"id":"b1"},{"colour":1}]"#,
            200,
            "",
            "",
        ),
        (
            "GET",
            "/v1/events?user=1&limit=0",
            b"",
            400,
            "invalid_request",
            "?limit",
        ),
        ("GET", "/v1/events?user=1&limit=5", b"", 200, "", ""),
        (
            "GET",
            "/v1/explain/nonsense",
            b"",
            400,
            "invalid_request",
            "{id}",
        ),
        (
            "GET",
            "/v1/explain/01980000-0000-7000-8000-000000000000",
            b"",
            404,
            "not_found",
            "",
        ),
        (
            "POST",
            "/v1/imports",
            br#"{"path":"/nowhere/at/all"}"#,
            400,
            "invalid_request",
            "/path",
        ),
    ];
    for (method, path, body, status, code, pointer) in cases {
        let (got, head, answer) = origin.http(method, path, body).await;
        let path = &path[..path.len().min(60)];
        assert_eq!(got, status, "{method} {path}: {answer}");
        if !code.is_empty() {
            assert!(
                head.contains("application/problem+json"),
                "{method} {path}: {head}"
            );
            assert_eq!(answer["code"], code, "{method} {path}: {answer}");
            assert_eq!(answer["status"], status);
        }
        if !pointer.is_empty() {
            assert_eq!(
                answer["errors"][0]["pointer"], pointer,
                "{method} {path}: {answer}"
            );
        }
        if status == 405 {
            assert!(head.contains("\r\nallow: "), "{head}");
        }
    }
    let (_, _, page) = origin.http("GET", "/v1/events?user=1&limit=5", b"").await;
    assert_eq!(page["events"].as_array().unwrap().len(), 5);
    let next = format!("/v1/events?user=1&limit=100&after={}", page["next_after"]);
    assert_eq!(
        origin.http("GET", &next, b"").await.2["events"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
    assert_eq!(
        origin.http("GET", "/v1/events:count", b"").await.2["count"],
        720
    );
    let (_, _, user) = origin
        .http("PUT", "/v1/users/1", br#"{"attributes":{"plan":"gold"}}"#)
        .await;
    assert_eq!(user["attributes"]["plan"], "gold");
    let (_, _, user) = origin
        .http(
            "PATCH",
            "/v1/users/1",
            br#"{"attributes":{"plan":null,"age":7}}"#,
        )
        .await;
    assert_eq!(user["attributes"], serde_json::json!({"age": 7}));
    assert_eq!(
        origin.http("GET", "/v1/users/1", b"").await.2["recent"]
            .as_array()
            .unwrap()
            .len(),
        12
    );
    assert_eq!(origin.http("GET", "/v1/users/nobody", b"").await.0, 404);
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_reports_rows_by_line() {
    let origin = Running::start().await;
    let file = origin.dir.path().join("events.jsonl");
    std::fs::write(
        &file,
        b"{\"type\":\"like\",\"user\":\"z\",\"item\":\"1\"}\nnonsense\n",
    )
    .unwrap();
    let body = serde_json::json!({"path": file}).to_string();
    for round in 0..2 {
        let (status, _, started) = origin.http("POST", "/v1/imports", body.as_bytes()).await;
        assert_eq!(status, 202, "{started}");
        let path = format!("/v1/imports/{}", started["id"].as_str().unwrap());
        let mut job = serde_json::Value::Null;
        for _ in 0..100 {
            job = origin.http("GET", &path, b"").await.2;
            if job["state"] != "running" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(job["state"], "done", "{job}");
        assert_eq!(
            job["events"]["new"],
            1 - round,
            "the second time changes nothing: {job}"
        );
        assert_eq!(
            (&job["errors"][0]["line"], &job["errors"][0]["code"]),
            (&2.into(), &"invalid_json".into())
        );
    }
    let (status, _, model) = origin.http("POST", "/v1/models", b"").await;
    assert_eq!(
        (status, model["version"].as_str()),
        (201, Some("ranker@2")),
        "{model}"
    );
    assert_eq!(model["events"], 721);
    origin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_secret_key_administrates() {
    let key = |text: &str, class| ApiKey {
        sha256: sha2::Sha256::digest(text.as_bytes()).into(),
        class,
        tenant: skerry_types::TenantId::default(),
    };
    let keys = vec![
        key("pub", KeyClass::Public),
        key("sec", KeyClass::Secret),
        key("pop", KeyClass::Pop),
    ];
    let origin = Running::start_with(|options| options.api_keys = keys.clone()).await;
    let addr = origin.handle.admin_addr();
    type Keyed<'a> = (&'a [(&'a str, &'a str)], &'a str, u16);
    let cases: [Keyed<'_>; 7] = [
        (&[], "/v1/items/1", 200),
        (&[("x-api-key", "sec")], "/v1/items/1", 200),
        (&[("authorization", "Bearer sec")], "/v1/items/1", 200),
        (&[("x-api-key", "pub")], "/v1/items/1", 403),
        (&[("authorization", "bearer pop")], "/v1/items/1", 403),
        (&[("x-api-key", "wrong")], "/v1/items/1", 401),
        (&[("x-api-key", "wrong")], "/readyz", 200),
    ];
    for (headers, path, status) in cases {
        assert_eq!(
            http(addr, "GET", path, headers, b"").await.0,
            status,
            "{headers:?} {path}"
        );
    }
    let (dir, _) = origin.stop().await;
    // Beyond loopback a key is needed to start, and then to ask.
    let mut open = options(dir.path());
    open.admin = "0.0.0.0:0".parse().unwrap();
    assert_eq!(open.build().await.err().unwrap().code(), "keys_missing");
    let certificates = Certificates::new();
    certificates.write(&dir.path().join("keys"));
    let origin = Running::start_in(dir, certificates, |options| {
        options.admin = "0.0.0.0:0".parse().unwrap();
        options.api_keys = keys;
    });
    let origin = origin.await.unwrap();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], origin.handle.admin_addr().port()));
    assert_eq!(http(addr, "GET", "/v1/items/1", &[], b"").await.0, 401);
    assert_eq!(
        http(addr, "GET", "/v1/items/1", &[("x-api-key", "sec")], b"")
            .await
            .0,
        200
    );
    origin.stop().await;
}
