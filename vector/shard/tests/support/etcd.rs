//! A real etcd for tests, on ports of its own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Starts etcd over a folder; the caller ends it.
pub fn spawn(dir: &Path, client: u16, peer: u16) -> Child {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let (client, peer) = (url(client), url(peer));
    Command::new("etcd")
        .args(["--data-dir", &dir.to_string_lossy(), "--log-level", "error"])
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
