//! Similar items, and what similar users liked, with users' vectors in a node of their own.

use crate::within;
use serde_json::{Value, json};
use skerry_scenarios::process::{Pair, Process};
use std::time::{Duration, Instant};

/// Codes of an answer's warnings.
fn warnings(answer: &Value) -> Vec<&str> {
    let all = answer["warnings"].as_array().into_iter().flatten();
    all.filter_map(|one| one["code"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn users_vectors_lie_in_a_node_that_may_die() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("vectors");
    let mut node = Process::start_vector(&dir, "127.0.0.1:0").unwrap();
    let addr = node.endpoint("vector").unwrap();
    let env = vec![("SKERRY_VECTORS".to_owned(), addr.clone())];
    let pair = Pair::start_with(None, env).unwrap();
    let (mut edge, mut admin) = (pair.edge(), pair.admin());

    // Everybody is written there.
    let mut records = 0;
    let stable = within(Duration::from_secs(60), async || {
        let shards = admin.get("/v1/shards").await.unwrap().json();
        let now = shards["shards"][0]["replicas"][0]["records"].as_u64();
        let before = std::mem::replace(&mut records, now.unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(500)).await;
        before > 100 && before == records
    });
    assert!(stable.await, "{records} users in the node");
    eprintln!("{records} users' vectors in the node");

    // Each question of a user of their own: none is answered from a cache.
    let mut user = 10;
    let mut ask = async || {
        user += 1;
        let began = Instant::now();
        let reply = edge
            .get(&format!("/v1/recommend/{user}?n=10"))
            .await
            .unwrap();
        assert_eq!(reply.status, 200, "{}", reply.json());
        let answer = reply.json();
        assert_eq!(answer["items"].as_array().unwrap().len(), 10, "{answer}");
        (answer, began.elapsed())
    };
    let (answer, _) = ask().await;
    assert_eq!(answer["served"]["rung"], "full");
    assert_eq!(warnings(&answer), [""; 0]);

    node.kill();
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let (answer, took) = ask().await;
        assert_eq!(answer["served"]["rung"], "full");
        assert_eq!(warnings(&answer), ["stage_fallback"], "{answer}");
        slowest = slowest.max(took);
    }
    eprintln!(
        "slowest answer without the node {:.1} ms",
        slowest.as_secs_f64() * 1e3
    );
    assert!(slowest < Duration::from_millis(500));

    let _node = Process::start_vector(&dir, &addr).unwrap();
    let again = within(Duration::from_secs(20), async || {
        let (answer, _) = ask().await;
        warnings(&answer).is_empty()
    });
    assert!(again.await, "still without the node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn similar_items_end_to_end() {
    let pair = Pair::start(None).unwrap();
    let mut edge = pair.edge();
    let popular = edge.get("/v1/popular?n=12").await.unwrap().ids();
    let (seed, other) = (popular[0].clone(), popular[1].clone());
    let post = async |edge: &mut skerry_scenarios::http::Client, body: Value| {
        let body = body.to_string();
        edge.send("POST", "/v1/similar", &[], Some(body.as_bytes()))
            .await
            .unwrap()
    };
    let one = post(
        &mut edge,
        json!({"item": seed, "n": 20, "fields": ["genre"]}),
    )
    .await;
    assert_eq!(one.status, 200, "{}", one.json());
    let answer = one.json();
    assert_eq!(answer["served"]["rung"], "full", "{answer}");
    assert_eq!(one.ids().len(), 20);
    assert!(
        !one.ids().contains(&seed),
        "an item is not similar to itself"
    );
    // Several seeds are one question, with an answer of its own.
    let both = post(&mut edge, json!({"items": [seed, other], "n": 20})).await;
    assert!(!both.ids().contains(&seed) && !both.ids().contains(&other));
    assert_ne!(both.ids(), one.ids());
    // A filter and exclusions hold, and the list is full all the same.
    let genre = answer["items"][0]["fields"]["genre"][0].clone();
    let filter = json!({"genre": {"in": [genre]}});
    let body = json!({"item": seed, "n": 5, "fields": ["genre"], "filter": filter, "exclude": [one.ids()[0]]});
    let filtered = post(&mut edge, body).await;
    let items = filtered.json()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 5);
    for item in &items {
        let genres = item["fields"]["genre"].as_array().unwrap();
        assert!(genres.contains(&genre), "{item}");
    }
    assert!(!filtered.ids().contains(&one.ids()[0]));

    let cases = [
        ("no seed", json!({}), "missing_field"),
        ("eleven seeds", json!({"items": vec!["1"; 11]}), "too_many"),
        (
            "a million results",
            json!({"item": "1", "n": 1_000_000}),
            "out_of_range",
        ),
        ("an empty seed", json!({"item": ""}), "id_empty"),
        ("no id", json!({"item": [1.0, 2.0]}), "wrong_type"),
        ("an unknown field", json!({"itm": "1"}), "unknown_field"),
    ];
    for (name, body, code) in cases {
        let reply = post(&mut edge, body).await;
        let problem = reply.json();
        assert_eq!(reply.status, 400, "{name}: {problem}");
        let codes = problem["errors"].as_array().into_iter().flatten();
        let codes: Vec<&str> = codes.filter_map(|one| one["code"].as_str()).collect();
        assert!(codes.contains(&code), "{name}: {problem}");
    }
}
