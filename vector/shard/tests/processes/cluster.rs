//! Shard processes and etcd, to start, kill and ask.

use crate::support;
use crate::world::count;
use skerry_vector_shard::admin::{Admin, Overview, ShardState};
use skerry_vector_shard::{NodeId, ShardId};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first three have the shards at the beginning.
pub const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
pub const REPLICAS: usize = 3;

pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Cluster {
    dir: PathBuf,
    pub etcd_port: u16,
    etcd_peer: u16,
    pub etcd: Option<Process>,
    /// gRPC, and HTTP for metrics.
    ports: BTreeMap<&'static str, (u16, u16)>,
    nodes: BTreeMap<&'static str, Process>,
}

impl Cluster {
    pub fn new(dir: &Path) -> Self {
        let ports = |name| (name, (support::free_port(), support::free_port()));
        Self {
            dir: dir.to_path_buf(),
            etcd_port: support::free_port(),
            etcd_peer: support::free_port(),
            etcd: None,
            ports: NODES.into_iter().map(ports).collect(),
            nodes: BTreeMap::new(),
        }
    }

    pub fn start_etcd(&mut self) {
        let child = support::spawn(&self.dir.join("etcd"), self.etcd_port, self.etcd_peer);
        self.etcd = Some(Process(child));
    }

    /// Starts a node, and hands back what waits until it is ready.
    pub fn start(&mut self, name: &'static str) -> std::thread::JoinHandle<()> {
        let (port, admin) = self.ports[name];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("node")
            .arg(name)
            .arg(self.dir.join(name))
            .arg(format!("127.0.0.1:{port}"))
            .arg(format!("127.0.0.1:{admin}"))
            .arg(format!("127.0.0.1:{}", self.etcd_port))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.nodes.insert(name, Process(child));
        std::thread::spawn(move || {
            let first = lines.next();
            assert_eq!(first.unwrap().unwrap(), "ready");
        })
    }

    pub fn kill(&mut self, name: &str) {
        self.nodes.remove(name).unwrap();
    }

    pub fn admin(&self) -> Admin {
        let name = self.nodes.keys().next().unwrap();
        Admin::new(&format!("127.0.0.1:{}", self.ports[name].0), None)
    }

    pub async fn state(&self, shard: u32) -> Option<ShardState> {
        let seen = self.admin().overview().await.ok()?;
        let mut states = seen.shards.into_iter();
        states.find(|state| state.shard == ShardId(shard))
    }

    pub async fn leader(&self, shard: u32) -> Option<&'static str> {
        let state = self.state(shard).await?;
        let leader = state.leader.as_ref()?;
        state.leading()?;
        NODES.into_iter().find(|name| *name == leader.as_str())
    }

    pub async fn replicas(&self, shard: u32) -> Vec<NodeId> {
        let state = self.state(shard).await.unwrap();
        state.replicas.into_iter().map(|one| one.node).collect()
    }

    /// Every shard has a leader, and all its replicas are in sync.
    pub async fn settled(&self) {
        self.until_seen("all are in sync", |seen| {
            let whole = |state: &ShardState| {
                state
                    .leading()
                    .is_some_and(|stats| stats.in_sync.len() == state.replicas.len())
            };
            seen.shards.iter().all(whole)
        })
        .await;
    }

    pub async fn until_seen(&self, what: &str, holds: impl Fn(&Overview) -> bool) {
        until(what, async || {
            self.admin().overview().await.is_ok_and(|seen| holds(&seen))
        })
        .await;
    }

    /// Samples of all nodes that run, by name and labels, summed up.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for name in self.nodes.keys() {
            let mut stream = TcpStream::connect(("127.0.0.1", self.ports[name].1)).unwrap();
            let ask = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(ask.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            for line in body.lines().filter(|line| !line.starts_with('#')) {
                let (key, value) = line.rsplit_once(' ').unwrap();
                *sums.entry(key.to_owned()).or_default() += value.parse::<f64>().unwrap();
            }
        }
        sums
    }

    /// Each replica searches a graph, and has nothing left to seal.
    pub async fn sealed(&self) {
        until("every replica has a graph", async || {
            let seen = self.admin().overview().await.unwrap();
            let metrics = self.metrics();
            seen.shards.iter().all(|state| {
                let of = |name: &str| metrics[&format!("{name}{{shard=\"{}\"}}", state.shard)];
                let replicas = state.replicas.len() as f64;
                of("skerry_vector_segments") >= replicas
                    && of("skerry_vector_frozen_segments") == 0.0
            })
        })
        .await;
    }
}

/// Waits for a condition: a minute, and longer where there are many vectors.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = Duration::from_secs(60 + count() as u64 / 1_000);
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < wait, "not in {wait:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
