//! Health, readiness and metrics over HTTP, as machines that watch a node see them.

use crate::harness::*;
use skerry_vector_shard::wire::grpc as g;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Status and body.
async fn ask_http(addr: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    ask_http(addr, "GET", path).await
}

/// Samples by name and labels. Every sample belongs to a family that was described before it.
async fn scrape(addr: SocketAddr) -> BTreeMap<String, f64> {
    let (status, text) = get(addr, "/metrics").await;
    assert_eq!(status, 200);
    let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(name.starts_with("skerry_vector_") && !help.is_empty());
            assert!(helped.insert(name), "{name} twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name));
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            typed.insert(name, kind);
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let name = key.split('{').next().unwrap();
            let ends = ["_bucket", "_sum", "_count"].iter();
            let family = ends
                .filter_map(|end| name.strip_suffix(end))
                .find(|base| typed.get(base) == Some(&"histogram"))
                .unwrap_or(name);
            assert!(typed.contains_key(family), "{line}");
            let known = samples.insert(key.to_owned(), value.parse().unwrap());
            assert_eq!(known, None, "{key} twice");
        }
    }
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_counts_is_what_it_did() {
    let cluster = Cluster::start(&["a", "b"], &[&["a", "b"], &["a", "b"]]).await;
    let router = cluster.router();
    let writes = (0..200).map(|at| upsert(&format!("i{at}"), 1)).collect();
    let token = router.write(writes, 5_000).await.unwrap().all().unwrap();
    for _ in 0..20 {
        router.search(&[query(5)], ask(2_000)).await.unwrap();
    }
    let mut asked = ask(2_000);
    asked.after = Some(&token);
    router.get(&["i1"], asked).await.unwrap();
    let wrong = g::WriteRequest::default();
    cluster.client("a").write(wrong).await.unwrap_err();

    let all = [
        scrape(cluster.watched("a")).await,
        scrape(cluster.watched("b")).await,
    ];
    let sum = |key: &str| -> f64 { all.iter().map(|one| one[key]).sum() };
    let requests = |op: &str, end: &str| {
        format!("skerry_vector_requests_total{{op=\"{op}\",outcome=\"{end}\"}}")
    };
    let hedged = router.counts();
    assert!(sum(&requests("search", "ok")) >= 40.0 && hedged.calls >= 40);
    assert_eq!(
        sum("skerry_vector_search_seconds_count"),
        sum("skerry_vector_queries_total")
    );
    assert!(sum("skerry_vector_search_seconds_count") >= 40.0);
    assert_eq!(
        sum("skerry_vector_search_seconds_bucket{le=\"+Inf\"}"),
        sum("skerry_vector_search_seconds_count")
    );
    assert_eq!(sum(&requests("write", "ok")), 2.0, "one for each shard");
    assert_eq!(sum(&requests("write", "refused")), 1.0);
    assert_eq!(sum("skerry_vector_write_seconds_count"), 2.0);
    assert_eq!(sum("skerry_vector_written_records_total"), 200.0);
    assert_eq!(sum(&requests("get", "ok")), 1.0);
    assert_eq!(sum("skerry_vector_ready"), 2.0);
    assert!(sum("skerry_vector_streams_total") >= 2.0, "each follows");

    let epoch = cluster.table().await.epoch() as f64;
    for one in &all {
        assert_eq!(one["skerry_vector_epoch"], epoch);
    }
    for shard in [0, 1] {
        let of = |name: &str| format!("skerry_vector_{name}{{shard=\"{shard}\"}}");
        let role =
            |role| format!("skerry_vector_replica_role{{shard=\"{shard}\",role=\"{role}\"}}");
        assert_eq!(sum(&role("leading")), 1.0);
        assert_eq!(sum(&role("following")), 1.0);
        assert_eq!(sum(&role("starting")), 0.0);
        assert_eq!(all[0][&of("replica_seq")], all[1][&of("replica_seq")]);
        assert_eq!(sum(&of("replica_lag_records")), 0.0);
        assert_eq!(all[0][&of("records")], all[1][&of("records")]);
        assert!(all[0][&of("replica_token")] > 0.0);
        assert!(all[0][&of("log_bytes")] > 0.0 && all[0][&of("hot_bytes")] > 0.0);
        assert!(all[0][&of("disk_bytes")] >= all[0][&of("log_bytes")]);
        let leads = all.iter().find(|one| one[&role("leading")] == 1.0).unwrap();
        assert_eq!(
            (leads[&of("in_sync_replicas")], leads[&of("lease_held")]),
            (2.0, 1.0)
        );
        let follows = all.iter().find(|one| one[&role("leading")] == 0.0).unwrap();
        assert!(!follows.contains_key(&of("in_sync_replicas")));
        for task in ["sealing", "compaction"] {
            let key = format!("skerry_vector_upkeep_fails{{shard=\"{shard}\",task=\"{task}\"}}");
            assert_eq!(sum(&key), 0.0);
        }
    }
    let records =
        all[0]["skerry_vector_records{shard=\"0\"}"] + all[0]["skerry_vector_records{shard=\"1\"}"];
    assert_eq!(records, 200.0);

    // What a router counts has a text of its own.
    let text = router.metrics();
    let calls = format!("skerry_vector_router_calls_total {}", router.counts().calls);
    assert!(text.lines().any(|line| line == calls), "{text}");
    for name in ["hedges", "retries", "epoch_rounds"] {
        assert!(
            text.contains(&format!("# TYPE skerry_vector_router_{name}_total counter")),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lags_and_what_is_missing_show() {
    let cluster = Cluster::start(&["a", "b", "c"], &[&["a", "b"]]).await;
    let ready = r#"{"ready":true,"missing":[]}"#.to_owned();
    for name in ["a", "b", "c"] {
        let addr = cluster.watched(name);
        assert_eq!(
            get(addr, "/healthz").await,
            (200, r#"{"status":"ok"}"#.to_owned())
        );
        assert_eq!(get(addr, "/readyz").await, (200, ready.clone()));
    }
    // A replica without a leader has nobody to catch up with.
    for name in ["a", "b"] {
        cluster.kill(name);
    }
    let table = cluster
        .table()
        .await
        .replace(skerry_vector_shard::ShardId(0), &[node("c")], 1);
    use skerry_vector_shard::Coordination;
    cluster
        .coordination
        .compare_and_swap(table.unwrap(), Vec::new())
        .await
        .unwrap();
    let addr = cluster.watched("c");
    until("it says what is missing", async || {
        get(addr, "/readyz").await == (503, r#"{"ready":false,"missing":["shard 0"]}"#.to_owned())
    })
    .await;
    until("it waits for a leader", async || {
        let role = "skerry_vector_replica_role{shard=\"0\",role=\"starting\"}";
        let seen = scrape(addr).await;
        seen["skerry_vector_ready"] == 0.0 && seen.get(role) == Some(&1.0)
    })
    .await;
    assert_eq!(get(addr, "/healthz").await.0, 200, "it lives");

    assert_eq!(get(addr, "/v1/other").await.0, 404);
    assert_eq!(ask_http(addr, "POST", "/metrics").await.0, 405);
    assert_eq!(
        ask_http(addr, "HEAD", "/readyz").await,
        (503, String::new())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_shows_while_it_goes_on() {
    let cluster = Cluster::start(&["a", "b"], &[&["a", "b"]]).await;
    let router = cluster.router();
    let writes = (0..500).map(|at| upsert(&format!("i{at}"), 1)).collect();
    router.write(writes, 5_000).await.unwrap().all().unwrap();
    // Nobody to receive: it lasts.
    let split = g::Split {
        shard: 0,
        replicas: vec!["z".to_owned()],
    };
    let begun = cluster
        .migrate(g::migrate_request::Verb::Split(split))
        .await
        .unwrap();
    let addr = cluster.watched("a");
    until("the migration shows", async || {
        scrape(addr).await["skerry_vector_migration"] == begun.migration as f64
    })
    .await;
    let abort = g::Abort {
        migration: begun.migration,
    };
    cluster
        .migrate(g::migrate_request::Verb::Abort(abort))
        .await
        .unwrap();
    let split = g::Split {
        shard: 0,
        replicas: Vec::new(),
    };
    cluster
        .migrate(g::migrate_request::Verb::Split(split))
        .await
        .unwrap();
    until("the split is over", async || {
        cluster.table().await.migration().is_none()
    })
    .await;
    let mut gates = 0.0;
    for name in ["a", "b"] {
        let seen = scrape(cluster.watched(name)).await;
        gates += seen["skerry_vector_gate_seconds_count"];
        assert_eq!(seen["skerry_vector_migration"], 0.0);
    }
    assert!(gates >= 1.0, "writes waited once");
}
