//! The second start is fast and trains nothing; a port in use is said plainly.

use skerry_scenarios::process::Process;
use std::process::Command;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn the_second_start_is_fast() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut first = Process::start(&["up", "--port", "0"], &state).unwrap();
    let before = first
        .client("edge")
        .unwrap()
        .get("/v1/recommend/1")
        .await
        .unwrap()
        .json();
    let status = first.stop().unwrap();
    assert!(status.success(), "SIGTERM is a graceful end: {status}");
    let second = Process::start(&["up", "--port", "0"], &state).unwrap();
    eprintln!(
        "first start {:.2} s, second {:.2} s",
        first.started_in.as_secs_f64(),
        second.started_in.as_secs_f64()
    );
    assert!(
        second.started_in <= Duration::from_secs(3),
        "{:?}",
        second.started_in
    );
    let after = second
        .client("edge")
        .unwrap()
        .get("/v1/recommend/1")
        .await
        .unwrap()
        .json();
    assert_eq!(
        before["served"]["model"], after["served"]["model"],
        "it must not train again"
    );
    assert_eq!(after["served"]["rung"], "full", "{after}");
}

#[test]
#[ignore = "starts real processes: run by `cargo xtask test`"]
fn a_port_in_use_is_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = Command::new(skerry_scenarios::binary().unwrap())
        .args(["up", "--port", &port, "--state"])
        .arg(folder.path().join("state"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&port) && said.contains("--port"), "{said}");
    assert!(output.stdout.is_empty(), "stdout is for `ready` alone");
}
