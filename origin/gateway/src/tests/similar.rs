//! The user index: in this process, and in a cluster of which parts fail.

use super::world::*;
use crate::{VectorsAt, user_vectors_spec};
use skerry_types::{Uid, WarningCode};
use skerry_vector_index::store;
use skerry_vector_shard::coordination::embedded::Embedded;
use skerry_vector_shard::{Collections, Coordination, NodeId, Options};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A sample of `/metrics`.
async fn metric(origin: &Running, name: &str) -> f64 {
    let (_, _, body) = origin.http("GET", "/metrics", b"").await;
    let text = body.as_str().unwrap().to_owned();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

async fn until(origin: &Running, name: &str, value: usize) {
    let began = Instant::now();
    loop {
        let now = metric(origin, name).await;
        if now == value as f64 {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{name} is {now}, {value} was expected"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How an input of an answered question was.
async fn input(origin: &Running, request: Uid, name: &str) -> (String, String) {
    let path = format!("/v1/explain/{request}");
    for _ in 0..100 {
        let (status, _, body) = origin.http("GET", &path, b"").await;
        if status == 200 {
            let features = body["decision"]["features"].as_array().unwrap();
            let one = features.iter().find(|one| one["name"] == name);
            let one = one.unwrap_or_else(|| panic!("no {name} in {features:?}"));
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            return (text("status"), text("detail"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not explained");
}

const RECORDS: &str = "skerry_user_index_records";
const WRITTEN: &str = "skerry_user_index_writes_total{result=\"ok\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_indexed_followed_erased_and_kept() {
    let origin = Running::start().await;
    until(&origin, RECORDS, USERS).await;
    let mut pop = origin.pop("p1").await;
    let question = ask(Some("1"), 10);
    pop.ask(&question).await.outcome.unwrap();
    let (status, detail) = input(&origin, question.request_id, "similar users").await;
    assert_eq!(status, "PRESENT");
    assert!(detail.starts_with("20 users, "), "{detail}");

    // Somebody new is found by others a little later.
    let likes = (0..3).map(|n| event(&format!("n{n}"), "new", &(4 * n).to_string(), 2_000_000 + n));
    pop.deliver(1, likes.collect()).await;
    until(&origin, RECORDS, USERS + 1).await;

    let (status, _, _) = origin.http("DELETE", "/v1/users/new", b"").await;
    assert_eq!(status, 200);
    assert_eq!(metric(&origin, RECORDS).await, USERS as f64);

    let (_, _, shards) = origin.http("GET", "/v1/shards", b"").await;
    assert_eq!(shards["shards"][0]["slots"], "0-16383");
    assert_eq!(shards["shards"][0]["replicas"][0]["records"], USERS);
    for (body, status) in [
        (&br#"{"split":{"shard":0}}"#[..], 400),
        (br#"{"halve":{"shard":0}}"#, 400),
        (br#"{"move":{"from":0,"to":1,"slots":"x"}}"#, 400),
        (b"", 400),
    ] {
        assert_eq!(origin.http("POST", "/v1/shards", body).await.0, status);
    }

    // A start finds it as it was, and an event between two starts is not forgotten.
    drop(pop);
    let (dir, certificates) = origin.stop().await;
    let origin = Running::start_in(dir, certificates, |_| {}).await.unwrap();
    until(&origin, RECORDS, USERS).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let again = metric(&origin, WRITTEN).await;
    assert!(again <= 1.0, "{again} users were written again");

    // A new model is a new space: all are written again.
    origin.handle.train().await.unwrap();
    let began = Instant::now();
    while metric(&origin, WRITTEN).await < USERS as f64 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metric(&origin, RECORDS).await, USERS as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_index_is_refused_by_name_and_made_again_on_request() {
    let origin = Running::start().await;
    until(&origin, RECORDS, USERS).await;
    let (dir, certificates) = origin.stop().await;
    let manifest = dir.path().join("state/user-vectors/MANIFEST");
    std::fs::write(&manifest, b"damage").unwrap();
    let error = options(dir.path()).build().await.err().unwrap();
    assert_eq!(error.code(), "state_corrupt");
    assert!(error.to_string().contains("user-vectors"), "{error}");
    let origin = Running::start_in(dir, certificates, |options| options.repair = true)
        .await
        .unwrap();
    until(&origin, RECORDS, USERS).await;
}

/// A shard node that runs until it is dropped.
struct Node {
    addr: String,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(name: &str, dir: &Path, coordination: &Embedded, first: &[&[&str]]) -> Self {
        let node = |name: &&str| NodeId::new(name).unwrap();
        let stores = Arc::new(Collections {
            spec: user_vectors_spec(),
            options: store::Options::default(),
        });
        let coordination = Arc::new(coordination.clone()) as Arc<dyn Coordination>;
        let mut options = Options::new(node(&name), dir.join(name), coordination, stores);
        let first = first.iter();
        options.first = Some(
            first
                .map(|nodes| nodes.iter().map(node).collect())
                .collect(),
        );
        let built = options.build().await.unwrap();
        let handle = built.handle();
        let stop = CancellationToken::new();
        let drain = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move { built.run(drain).await.unwrap() });
        Self {
            addr: handle.addr().to_string(),
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lost_shard_is_a_warning_and_a_lost_cluster_a_fallback() {
    let dir = tempfile::tempdir().unwrap();
    let coordination = Embedded::default();
    let first: &[&[&str]] = &[&["a"], &["b"]];
    let a = Node::start("a", dir.path(), &coordination, first).await;
    let b = Node::start("b", dir.path(), &coordination, first).await;
    // One node is named, the other is found through it.
    let nodes = vec![a.addr.clone()];
    let origin = Running::start_with(|options| {
        options.vectors = VectorsAt::Nodes { nodes, tls: None };
    })
    .await;
    let began = Instant::now();
    while metric(&origin, WRITTEN).await < USERS as f64 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, _, shards) = origin.http("GET", "/v1/shards", b"").await;
    let shards = shards["shards"].as_array().unwrap().clone();
    let records = shards
        .iter()
        .map(|shard| shard["replicas"][0]["records"].as_u64().unwrap());
    assert_eq!((shards.len(), records.sum::<u64>()), (2, USERS as u64));

    let pop = origin.pop("p1").await;
    let codes = async || {
        let question = ask(Some("1"), 10);
        let began = Instant::now();
        let answer = pop.ask(&question).await.outcome.unwrap();
        let decision = answer.decision().unwrap();
        assert!(decision.candidates.len() >= 10);
        let codes: Vec<WarningCode> = decision.warnings.iter().map(|one| one.code).collect();
        (codes, question.request_id, began.elapsed())
    };
    let (warnings, request, _) = codes().await;
    assert_eq!(warnings, []);
    let (_, detail) = input(&origin, request, "similar users").await;
    assert!(detail.starts_with("20 users, "), "{detail}");

    b.stop().await;
    let (warnings, request, _) = codes().await;
    assert_eq!(warnings, [WarningCode::PartialResult]);
    assert_eq!(input(&origin, request, "similar users").await.0, "PRESENT");

    a.stop().await;
    let (warnings, request, took) = codes().await;
    assert_eq!(warnings, [WarningCode::StageFallback]);
    assert_eq!(
        input(&origin, request, "similar users").await.0,
        "UNAVAILABLE"
    );
    assert!(took < Duration::from_millis(500), "{took:?}");
    // From the fifth failure on it is not even asked.
    for _ in 0..8 {
        codes().await;
    }
    let skipped = "skerry_user_index_searches_total{result=\"skipped\"}";
    assert!(metric(&origin, skipped).await >= 2.0);
}
