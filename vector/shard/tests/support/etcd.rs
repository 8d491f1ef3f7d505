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
    spawn_with(dir, client, peer, "http", &[])
}

/// The same, with a scheme for clients and further options.
pub fn spawn_with(dir: &Path, client: u16, peer: u16, scheme: &str, more: &[&str]) -> Child {
    let client = format!("{scheme}://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    Command::new("etcd")
        .args(["--data-dir", &dir.to_string_lossy(), "--log-level", "error"])
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
