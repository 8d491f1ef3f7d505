//! Bad input: over HTTP, over QUIC, and in files. Each gets a typed problem or a closed stream; the
//! product goes on answering.

use crate::event;
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use skerry_scenarios::http::Client;
use skerry_scenarios::process::Pair;
use skerry_wire::frame::{ALPN, SERVER_NAME};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a process may grow by while all of this is thrown at it.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

async fn answers(edge: &mut Client, after: &str) {
    let answer = edge.get("/v1/recommend/1?n=10").await.unwrap();
    assert_eq!(
        (answer.status, answer.rung(), answer.ids().len()),
        (200, "full", 10),
        "after {after}"
    );
}

fn nested_filter(depth: usize) -> Value {
    (0..depth).fold(
        json!({"year": {"gte": 1990}}),
        |inner, _| json!({"not": inner}),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn bad_requests_are_typed_problems() {
    let pair = Pair::start(None).unwrap();
    let mut edge = pair.edge();
    answers(&mut edge, "the start").await;
    let before = pair.pop.rss().unwrap();
    let brackets = "[".repeat(100_000);
    let large = format!("{{\"user\":{{\"id\":\"{}\"}}}}", "x".repeat(10 << 20));
    let deep = json!({"user": {"id": "1"}, "filter": nested_filter(40)}).to_string();
    let invalid: &[u8] = b"{\"user\":{\"id\":\"\xff\xfe\"}}";
    let posts: &[(&str, &str, &[u8], u16)] = &[
        ("malformed JSON", "/v1/recommend", b"{\"user\":", 400),
        ("no JSON at all", "/v1/recommend", b"hello", 400),
        (
            "unknown field",
            "/v1/recommend",
            b"{\"usr\":{\"id\":\"1\"}}",
            400,
        ),
        ("n = 0", "/v1/recommend", b"{\"n\":0}", 400),
        ("n = 10^9", "/v1/recommend", b"{\"n\":1000000000}", 400),
        ("n = -1", "/v1/recommend", b"{\"n\":-1}", 400),
        (
            "id of no characters",
            "/v1/recommend",
            b"{\"user\":{\"id\":\"\"}}",
            400,
        ),
        (
            "control character in an id",
            "/v1/recommend",
            b"{\"user\":{\"id\":\"a\\u0000b\"}}",
            400,
        ),
        ("invalid UTF-8", "/v1/recommend", invalid, 400),
        ("filter 40 deep", "/v1/recommend", deep.as_bytes(), 400),
        (
            "100,000 brackets",
            "/v1/recommend",
            brackets.as_bytes(),
            400,
        ),
        ("10 MB", "/v1/recommend", large.as_bytes(), 413),
        ("no items", "/v1/rank", b"{\"items\":[]}", 400),
        ("no seed", "/v1/similar", b"{}", 400),
        ("no event", "/v1/events", b"[]", 400),
        (
            "event of no type",
            "/v1/events",
            b"{\"user\":\"1\",\"item\":\"1\"}",
            400,
        ),
        ("brackets as events", "/v1/events", brackets.as_bytes(), 400),
        ("unknown route", "/v1/recommendations", b"{}", 404),
    ];
    for (name, target, body, status) in posts {
        let reply = edge.send("POST", target, &[], Some(body)).await.unwrap();
        check_problem(name, &reply, *status);
    }
    let gets = [
        ("n of no number", "/v1/recommend/1?n=ten", 400),
        ("unknown parameter", "/v1/recommend/1?number=3", 400),
        ("invalid UTF-8 in the path", "/v1/recommend/%ff%fe", 400),
        (
            "id of 300 bytes",
            &format!("/v1/recommend/{}", "x".repeat(300)),
            400,
        ),
        ("a forged next", "/v1/recommend/1?next=AAAA", 400),
        ("unknown route", "/nowhere", 404),
    ];
    for (name, target, status) in gets {
        check_problem(name, &edge.get(target).await.unwrap(), status);
    }
    check_problem(
        "wrong method",
        &edge.send("DELETE", "/v1/events", &[], None).await.unwrap(),
        405,
    );
    let wrong_key = edge
        .send("GET", "/v1/recommend/1", &[("x-api-key", "wrong")], None)
        .await
        .unwrap();
    check_problem("wrong key", &wrong_key, 401);
    answers(&mut edge, "bad requests").await;
    let grown = pair.pop.rss().unwrap().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");
}

fn check_problem(name: &str, reply: &skerry_scenarios::http::Response, status: u16) {
    let problem = reply.json();
    assert_eq!(reply.status, status, "{name}: {problem}");
    assert_eq!(
        reply.header("content-type"),
        "application/problem+json",
        "{name}"
    );
    for key in ["type", "title", "code", "request_id"] {
        assert!(problem[key].is_string(), "{name}: no {key} in {problem}");
    }
    assert_eq!(problem["status"], status, "{name}");
}

async fn connect(pair: &Pair, keys: Option<&Path>) -> Result<quinn::Connection, String> {
    let pem = |path: &Path| CertificateDer::from_pem_file(path).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pem(&pair.keys().join("ca.crt"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match keys {
        Some(dir) => {
            let key = PrivateKeyDer::from_pem_file(dir.join("pop.key")).unwrap();
            builder
                .with_client_auth_cert(vec![pem(&dir.join("pop.crt"))], key)
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    let mut endpoint =
        quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).map_err(|e| e.to_string())?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(
        QuicClientConfig::try_from(config).unwrap(),
    )));
    let connecting = endpoint
        .connect(pair.quic().parse().unwrap(), SERVER_NAME)
        .map_err(|e| e.to_string())?;
    let connection = connecting.await.map_err(|e| e.to_string())?;
    // A server that refuses the client's certificate says so just after the handshake.
    match tokio::time::timeout(Duration::from_millis(500), connection.closed()).await {
        Ok(error) => Err(error.to_string()),
        Err(_) => Ok(connection),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn bad_quic_peers_get_a_closed_stream() {
    let pair = Pair::start(None).unwrap();
    let mut edge = pair.edge();
    answers(&mut edge, "the start").await;
    let before = pair.origin.rss().unwrap();
    assert!(
        connect(&pair, None).await.is_err(),
        "a peer without a certificate"
    );

    let connection = connect(&pair, Some(&pair.keys())).await.unwrap();
    let garbage: &[(&str, &[u8])] = &[
        ("garbage", &[0x5a; 4096]),
        ("a length of 4 GiB", &[0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
        ("a length over the limit", &[0, 0, 0x20, 0, 1, 2, 3]),
        ("an empty frame", &[0, 0, 0, 0]),
    ];
    for (name, bytes) in garbage {
        let Ok((mut send, mut recv)) = connection.open_bi().await else {
            break;
        };
        send.write_all(bytes).await.ok();
        send.finish().ok();
        let ended = tokio::time::timeout(Duration::from_secs(8), recv.read_to_end(1 << 20)).await;
        assert!(ended.is_ok(), "{name}: the stream is still open");
    }
    // Half a frame, then nothing: given up within 5 s, not held for ever.
    let connection = connect(&pair, Some(&pair.keys())).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&[100, 0, 0, 0, 1, 2, 3]).await.unwrap();
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(9), recv.read_to_end(1 << 20)).await;
    assert!(
        ended.is_ok(),
        "half a frame is still held after {:?}",
        began.elapsed()
    );
    answers(&mut edge, "bad QUIC peers").await;
    let grown = pair.origin.rss().unwrap().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn corrupt_files_are_set_aside_and_nothing_is_lost() {
    let mut pair = Pair::start(None).unwrap();
    pair.origin.kill();
    let mut edge = pair.edge();
    let reply = edge
        .post("/v1/events", &event("kept-1", "like", "kept", "30"))
        .await
        .unwrap();
    assert_eq!(reply.status, 202);
    pair.pop.kill();
    // Every pushed file of the PoP is damaged in the middle; the spool is left alone.
    let mut damaged = 0;
    for path in pushed_files(&pair.pop_state()) {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0xff;
            damaged += 1;
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(
        damaged > 0,
        "no pushed files in {}",
        pair.pop_state().display()
    );
    tokio::task::block_in_place(|| pair.restart_origin()).unwrap();
    tokio::task::block_in_place(|| pair.restart_pop()).unwrap();
    let mut edge = pair.edge();
    let whole = crate::within(Duration::from_secs(10), async || {
        edge.get("/v1/recommend/1")
            .await
            .is_ok_and(|answer| answer.status == 200 && answer.rung() == "full")
    })
    .await;
    assert!(whole, "{}", pair.pop.tail());
    let mut admin = pair.admin();
    let kept = crate::within(Duration::from_secs(20), async || {
        crate::arrived(&mut admin, "kept").await == ["kept-1"]
    })
    .await;
    assert!(kept, "the acknowledged event is not at the origin");
}

/// Files of the last good pushes.
fn pushed_files(state: &Path) -> Vec<std::path::PathBuf> {
    let held = std::fs::read_dir(state.join("held"))
        .into_iter()
        .flatten()
        .flatten();
    held.map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect()
}
