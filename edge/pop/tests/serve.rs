//! The real worker behind a real socket, without an origin. Needs `SKERRY_WORKER` (as `cargo xtask
//! test` sets it); without it each test says that it was skipped.

use skerry_edge_pop::{Handle, Options};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;

struct Running {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(mut self) {
        drop(self.stop.take());
        self.done.await.unwrap();
    }
}

fn worker() -> Option<PathBuf> {
    let path = std::env::var_os("SKERRY_WORKER").map(PathBuf::from);
    if path.is_none() {
        eprintln!(
            "SKIPPED: SKERRY_WORKER names no worker; `cargo xtask test` builds one and sets it"
        );
    }
    path
}

async fn start(state: &Path, worker: PathBuf, memory_bytes: Option<usize>) -> Running {
    let mut options = Options::new(state.to_owned(), "127.0.0.1:0".parse().unwrap());
    options.worker = Some(worker);
    options.threads = 2;
    if let Some(bytes) = memory_bytes {
        options.worker_bytes = bytes;
    }
    let pop = options.build().await.unwrap();
    let handle = pop.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(async move {
        let drain = async {
            let _ = stopped.await;
        };
        pop.run(drain).await.unwrap();
    });
    Running {
        handle,
        stop: Some(stop),
        done,
    }
}

/// Sends bytes, and reads until the peer closes; (status, whole response).
fn talk(addr: SocketAddr, bytes: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // A refused body is not read to its end: the write may fail, the answer is there all the same.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all).into_owned();
    let status = text
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    (status, text)
}

async fn send(addr: SocketAddr, method: &str, target: &str, body: &str) -> (u16, String) {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: pop\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::task::spawn_blocking(move || talk(addr, request.as_bytes()))
        .await
        .unwrap()
}

fn json(response: &str) -> serde_json::Value {
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pop_answers_refuses_and_accepts() {
    let Some(worker) = worker() else { return };
    let state = tempfile::tempdir().unwrap();
    let pop = start(state.path(), worker.clone(), None).await;
    let addr = pop.handle.local_addr();
    let event = r#"{"id":"e1","type":"like","user":"u1","item":"318"}"#;
    let cases = [
        ("alive", "GET", "/healthz", "", 200, "ok"),
        (
            "not ready",
            "GET",
            "/readyz",
            "",
            503,
            "\"missing\":[\"pool\"]",
        ),
        (
            "cold",
            "GET",
            "/v1/recommend/u1",
            "",
            200,
            "x-skerry-rung: popular",
        ),
        ("cold list", "GET", "/v1/popular", "", 200, "cold_pop"),
        (
            "nothing there",
            "GET",
            "/v2/nothing",
            "",
            404,
            "\"code\":\"not_found\"",
        ),
        (
            "wrong method",
            "DELETE",
            "/v1/popular",
            "",
            405,
            "allow: GET, HEAD",
        ),
        (
            "bad n",
            "GET",
            "/v1/recommend/u1?n=0",
            "",
            400,
            "\"pointer\"",
        ),
        (
            "unknown field",
            "POST",
            "/v1/recommend",
            r#"{"usr":{}}"#,
            400,
            "usr",
        ),
        (
            "not JSON",
            "POST",
            "/v1/recommend",
            "{",
            400,
            "invalid_json",
        ),
        (
            "an event",
            "POST",
            "/v1/events",
            event,
            202,
            "\"accepted\":1",
        ),
    ];
    for (name, method, target, body, status, part) in cases {
        let (got, text) = send(addr, method, target, body).await;
        assert_eq!(got, status, "{name}: {text}");
        assert!(text.contains(part), "{name}: {text}");
    }
    assert_eq!(pop.handle.spool_backlog(), 1);
    let (_, text) = send(addr, "GET", "/v1/recommend/u1", "").await;
    let answer = json(&text);
    assert_eq!(answer["served"]["rung"], "popular");
    assert_eq!(answer["served"]["cause"], "origin_down");
    pop.stop().await;

    // The compiled worker is kept, the event too.
    let pop = start(state.path(), worker, None).await;
    assert_eq!(pop.handle.spool_backlog(), 1);
    pop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_refused_without_being_read() {
    let Some(worker) = worker() else { return };
    let state = tempfile::tempdir().unwrap();
    let pop = start(state.path(), worker, None).await;
    let addr = pop.handle.local_addr();
    let head = "POST /v1/events HTTP/1.1\r\nhost: pop\r\nconnection: close\r\n";
    let announced = format!("{head}content-length: 10000000\r\n\r\n");
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..1_200 {
        chunked.extend_from_slice(b"400\r\n");
        chunked.extend_from_slice(&[b' '; 1_024]);
        chunked.extend_from_slice(b"\r\n");
    }
    for (name, bytes) in [("announced", announced.into_bytes()), ("chunked", chunked)] {
        let (status, text) = tokio::task::spawn_blocking(move || talk(addr, &bytes))
            .await
            .unwrap();
        assert_eq!(status, 413, "{name}: {text}");
        assert!(text.contains("body_too_large"), "{name}: {text}");
    }
    pop.stop().await;
}

/// Instances with less and less memory: too little to start at all, enough for a small question but
/// not for a body of 1 MB (the guest traps, the instance is discarded), and enough.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_worker_traps_the_host_answers() {
    let Some(worker) = worker() else { return };
    let exclude = format!("[{}]", vec!["\"i\""; 900].join(","));
    let large = format!(
        r#"{{"user":{{"id":"u1"}},"exclude":{exclude}{}}}"#,
        " ".repeat(1_000_000)
    );
    let small = r#"{"user":{"id":"u1"}}"#;
    let mut seen = std::collections::BTreeSet::new();
    // One state: the worker is compiled once.
    let state = tempfile::tempdir().unwrap();
    for memory_bytes in (1..=12).map(|step| step << 18) {
        let pop = start(state.path(), worker.clone(), Some(memory_bytes)).await;
        let addr = pop.handle.local_addr();
        let mut causes = Vec::new();
        for body in [small, &large, small, &large] {
            let (status, text) = send(addr, "POST", "/v1/recommend", body).await;
            assert_eq!(status, 200, "{memory_bytes}: {text}");
            let answer = json(&text);
            assert_eq!(answer["served"]["rung"], "popular", "{memory_bytes}");
            causes.push(answer["served"]["cause"].as_str().unwrap().to_owned());
        }
        assert_eq!(
            causes[..2],
            causes[2..],
            "{memory_bytes}: a trap leaves nothing behind"
        );
        let (status, _) = send(addr, "POST", "/v1/recommend", "{").await;
        assert_eq!(status, 400, "{memory_bytes}: what is wrong stays wrong");
        let (status, _) = send(
            addr,
            "POST",
            "/v1/events",
            r#"{"type":"like","user":"u","item":"1"}"#,
        )
        .await;
        assert_eq!(status, 202, "{memory_bytes}: events are not lost");
        seen.insert((causes[0].clone(), causes[1].clone()));
        pop.stop().await;
    }
    let want = [
        ("origin_down", "origin_down"),
        ("origin_down", "worker_failed"),
        ("worker_failed", "worker_failed"),
    ];
    let want = want.map(|(small, large)| (small.to_owned(), large.to_owned()));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), want);
}

#[tokio::test]
async fn what_a_pop_refuses_to_start_with() {
    let state = tempfile::tempdir().unwrap();
    let code = |options: Options| async move {
        options
            .build()
            .await
            .err()
            .map_or("started", |error| error.code())
    };
    let options = |listen: &str| Options::new(state.path().to_owned(), listen.parse().unwrap());
    assert_eq!(code(options("0.0.0.0:0")).await, "pop_unprotected");
    let mut origin = options("127.0.0.1:0");
    origin.origin = Some("127.0.0.1:1".to_owned());
    assert_eq!(code(origin).await, "pop_no_keys");
    let mut missing = options("127.0.0.1:0");
    missing.worker = Some(state.path().join("none"));
    assert_eq!(code(missing).await, "pop_worker_file");
    let mut garbage = options("127.0.0.1:0");
    std::fs::write(state.path().join("garbage"), b"garbage").unwrap();
    garbage.worker = Some(state.path().join("garbage"));
    assert_eq!(code(garbage).await, "pop_worker");
    std::fs::write(state.path().join("FORMAT"), "999").unwrap();
    assert_eq!(code(options("127.0.0.1:0")).await, "pop_state_newer");
}
