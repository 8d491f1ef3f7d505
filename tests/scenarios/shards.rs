//! Shard nodes as an operator runs them: the binary, a real etcd, a split, a replica on another node, a
//! `kill -9`, all under load, and a check of the files at the end. Then what each command says to wrong
//! input.

use crate::{support, within};
use serde_json::Value;
use skerry_scenarios::binary;
use skerry_scenarios::http::Client;
use skerry_scenarios::process::Process;
use skerry_vector_index::{Merge, Query, Record, Write};
use skerry_vector_shard::coordination::etcd::Etcd;
use skerry_vector_shard::{Ask, ReadToken, Router};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const DIM: usize = 16;
/// Records that each writer changes over and over.
const IDS: usize = 300;
const LONG: Duration = Duration::from_secs(60);

/// etcd, ended with its handle.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// None where etcd is not installed; in CI it must be.
    fn start(folder: &Path) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            assert!(std::env::var("CI").is_err(), "etcd is not installed");
            eprintln!("skipped: etcd is not installed (apt-get install etcd-server)");
            return None;
        }
        let port = support::free_port();
        let child = support::spawn(&folder.join("etcd"), port, support::free_port());
        Some(Self { child, port })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Nodes<'a> {
    folder: &'a Path,
    etcd: String,
    up: BTreeMap<&'static str, Process>,
}

impl Nodes<'_> {
    fn start(&mut self, name: &'static str) {
        let dir = self.folder.join(name);
        let text = dir.to_string_lossy();
        let dim = DIM.to_string();
        let args = [
            "vector",
            "--dir",
            &text,
            "--node-id",
            name,
            "--listen",
            "127.0.0.1:0",
            "--etcd",
            &self.etcd,
            "--shards",
            "1",
            "--nodes",
            "n1,n2,n3",
            "--dim",
            &dim,
        ];
        let lease = [("SKERRY_VECTOR_LEASE_MS".to_owned(), "2000".to_owned())];
        let process = Process::start_in(&args, &dir, &lease).unwrap();
        self.up.insert(name, process);
    }

    /// `skerry shard ARGS`, asked of a node that is up.
    fn shard(&self, args: &[&str]) -> Output {
        let any = self.up.values().next().unwrap();
        let node = any.endpoint("vector").unwrap();
        let mut command = Command::new(binary().unwrap());
        command.arg("shard").args(args).args(["--node", &node]);
        command.output().unwrap()
    }

    /// The same, with its answer.
    fn told(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let output = self.shard(&all);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn state(&self, shard: usize) -> Value {
        self.told(&["list"])["shards"][shard].clone()
    }

    async fn settled(&self) {
        let settled = within(LONG, async || {
            let list = self.told(&["list"]);
            let shards = list["shards"].as_array().unwrap();
            shards.iter().all(|shard| {
                let count = |key: &str| shard[key].as_array().map_or(0, Vec::len);
                count("in_sync") == 3 && count("replicas") == 3
            })
        });
        assert!(settled.await, "{}", self.told(&["list"]));
    }

    fn watched(&self, name: &str) -> Client {
        self.up[name].client("admin").unwrap()
    }
}

fn record(id: &str, version: u64) -> Write {
    let at = |lane: usize| ((id.len() * 31 + lane * 7) as f32 + version as f32 * 0.1).sin();
    Write::Upsert(Record {
        id: id.into(),
        vector: (0..DIM).map(at).collect(),
        payload: Default::default(),
    })
}

fn query(k: usize) -> Query {
    Query {
        vectors: vec![vec![0.5; DIM]],
        merge: Merge::Best,
        k,
        ef: None,
        filter: None,
    }
}

fn ask(budget_ms: u32) -> Ask<'static> {
    Ask {
        budget_ms,
        ..Ask::default()
    }
}

/// Writes and searches until it is told to stop. Every write is repeated until it is acknowledged.
struct Load {
    stop: Arc<AtomicBool>,
    writer: tokio::task::JoinHandle<(BTreeSet<String>, ReadToken)>,
    searcher: tokio::task::JoinHandle<(u64, Vec<String>)>,
    searched: Arc<AtomicU64>,
}

impl Load {
    fn start(router: &Router) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let searched = Arc::new(AtomicU64::new(0));
        let writer = {
            let (router, stop) = (router.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut there, mut token) = (BTreeSet::new(), ReadToken::default());
                let mut version = 0;
                while !stop.load(Ordering::SeqCst) {
                    version += 1;
                    let at = (version as usize * 7) % IDS;
                    let ids: Vec<String> = (0..4).map(|k| format!("i{}", (at + k) % IDS)).collect();
                    let deletes = version % 9 == 0;
                    let batch: Vec<Write> = ids
                        .iter()
                        .map(|id| match deletes {
                            true => Write::Delete(id.as_str().into()),
                            false => record(id, version),
                        })
                        .collect();
                    loop {
                        match router.write(batch.clone(), 2_000).await {
                            Ok(written) if written.failed.is_empty() => {
                                token.merge(&written.token);
                                break;
                            }
                            _ => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                    }
                    for id in ids {
                        if deletes {
                            there.remove(&id);
                        } else {
                            there.insert(id);
                        }
                    }
                }
                (there, token)
            })
        };
        let searcher = {
            let (router, stop) = (router.clone(), Arc::clone(&stop));
            let searched = Arc::clone(&searched);
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    match router.search(&[query(10)], ask(2_000)).await {
                        Ok(found) if found.missing.is_empty() => {}
                        Ok(found) => failed.push(format!("missing {:?}", found.missing)),
                        Err(error) => failed.push(format!("{}: {error}", error.code())),
                    }
                    searched.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (searched.load(Ordering::SeqCst), failed)
            })
        };
        Self {
            stop,
            writer,
            searcher,
            searched,
        }
    }

    async fn more(&self, searches: u64) {
        let from = self.searched.load(Ordering::SeqCst);
        let went_on = within(LONG, async || {
            self.searched.load(Ordering::SeqCst) >= from + searches
        });
        assert!(went_on.await, "searches stopped");
    }

    async fn end(self) -> (BTreeSet<String>, ReadToken) {
        self.stop.store(true, Ordering::SeqCst);
        let (searched, failed) = self.searcher.await.unwrap();
        eprintln!("{searched} searches, {} failed", failed.len());
        assert!(failed.is_empty(), "{:?}", failed.first());
        self.writer.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn operators_split_move_and_lose_nodes_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(folder.path()) else {
        return;
    };
    let etcd = format!("127.0.0.1:{}", server.port);
    let mut nodes = Nodes {
        folder: folder.path(),
        etcd: etcd.clone(),
        up: BTreeMap::new(),
    };
    for name in ["n1", "n2", "n3", "n4"] {
        nodes.start(name);
    }
    nodes.settled().await;
    let coordination = Etcd::connect(&[etcd], "/skerry/local/users").await.unwrap();
    let router = Router::new(Arc::new(coordination), None);
    let load = Load::start(&router);
    load.more(50).await;

    let split = nodes.told(&["split", "0"]);
    assert_eq!(
        (&split["done"], &split["to"], &split["slots"]),
        (&true.into(), &1.into(), &8_192.into())
    );
    nodes.settled().await;
    load.more(50).await;

    let moved = nodes.told(&["replicas", "0", "--to", "n2,n3,n4"]);
    assert_eq!(moved["done"], true);
    assert_eq!(moved["to"], serde_json::json!(["n2", "n3", "n4"]));
    assert_eq!(nodes.state(0)["change"], Value::Null);
    nodes.settled().await;

    let names = ["n1", "n2", "n3", "n4"];
    let leader = nodes.state(0)["leader"].as_str().unwrap().to_owned();
    let leader = names.into_iter().find(|name| *name == leader).unwrap();
    let ready = nodes.watched(leader).get("/readyz").await.unwrap();
    assert_eq!(
        (ready.status, ready.json()["ready"].clone()),
        (200, true.into())
    );
    let metrics = nodes.watched(leader).get("/metrics").await.unwrap();
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let leads = "skerry_vector_replica_role{shard=\"0\",role=\"leading\"} 1";
    assert!(metrics.lines().any(|line| line == leads), "{metrics}");

    // `kill -9`.
    nodes.up.remove(leader).unwrap().kill();
    let another = within(LONG, async || {
        let now = nodes.state(0)["leader"].clone();
        now.is_string() && now != leader
    });
    assert!(another.await, "nobody took the lead");
    load.more(50).await;
    nodes.start(leader);
    nodes.settled().await;
    load.more(50).await;

    let (there, token) = load.end().await;
    let mut asked = ask(10_000);
    asked.after = Some(&token);
    let found = router.search(&[query(10_000)], asked).await.unwrap();
    assert!(found.missing.is_empty());
    let mut ids: Vec<String> = found.lists[0]
        .iter()
        .map(|one| one.id.to_string())
        .collect();
    ids.sort();
    let want: Vec<String> = there.iter().cloned().collect();
    assert_eq!(ids, want, "lost, or twice");

    // The files, once the nodes have ended as asked.
    for (name, mut node) in std::mem::take(&mut nodes.up) {
        let status = node.stop().unwrap();
        assert!(status.success(), "{name}: {status}\n{}", node.tail());
        let output = Command::new(binary().unwrap())
            .args(["vector", "verify", "--json"])
            .arg(folder.path().join(name))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {said}");
        let reports: Value = serde_json::from_str(&said).unwrap();
        assert!(!reports.as_array().unwrap().is_empty());
    }
}

/// Exit code and stderr of a command that must fail soon.
fn refused(args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(binary().unwrap())
        .args(args)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn wrong_input_is_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = Server::start(folder.path()) else {
        return;
    };
    let etcd = format!("127.0.0.1:{}", server.port);
    let mut nodes = Nodes {
        folder: folder.path(),
        etcd: etcd.clone(),
        up: BTreeMap::new(),
    };
    for name in ["n1", "n2", "n3"] {
        nodes.start(name);
    }
    nodes.settled().await;
    let node = nodes.up["n1"].endpoint("vector").unwrap();
    let dir = folder.path().join("other").to_string_lossy().into_owned();
    let text = folder.path().join("text");
    std::fs::write(&text, "no certificate").unwrap();
    let text = text.to_string_lossy().into_owned();
    let held = folder.path().join("n1").to_string_lossy().into_owned();

    let vector = |more: &[&'static str]| -> Vec<String> {
        let args = ["vector", "--dir", &dir]
            .into_iter()
            .chain(more.iter().copied());
        args.map(|arg| match arg {
            "ETCD" => etcd.clone(),
            "TEXT" => text.clone(),
            arg => arg.to_owned(),
        })
        .collect()
    };
    let shard = |more: &[&str]| -> Vec<String> {
        let args = ["shard"].into_iter().chain(more.iter().copied());
        args.chain(["--node", &node]).map(str::to_owned).collect()
    };
    let plain =
        |args: &[&str]| -> Vec<String> { args.iter().map(|arg| (*arg).to_owned()).collect() };
    let cases: Vec<(Vec<String>, i32, &str)> = vec![
        (vector(&["--dim", "0"]), 2, "vector.dim"),
        (vector(&["--dim", "many"]), 2, "--dim"),
        (vector(&["--metric", "far"]), 2, "cosine, dot, l2"),
        (vector(&["--stored", "f64"]), 2, "f32, f16"),
        (vector(&["--codes", "bit"]), 2, "bytes, bits"),
        (vector(&["--build-threads", "0"]), 2, "vector.build_threads"),
        (vector(&["--cpu-percent", "101"]), 2, "vector.cpu_percent"),
        (vector(&["--node-id", "N 1"]), 2, "a node's name"),
        (vector(&["--shards", "0"]), 2, "vector.shards"),
        (vector(&["--shards", "100000"]), 2, "vector.shards"),
        (vector(&["--nodes", "a,a"]), 2, "vector.nodes"),
        (vector(&["--listen", "nowhere"]), 2, "--listen"),
        (vector(&["--admin", "nowhere"]), 2, "--admin"),
        (vector(&["--listen", "0.0.0.0:0"]), 1, "TLS"),
        (vector(&["--etcd-ca", "TEXT"]), 2, "vector.etcd is not"),
        (vector(&["--etcd-user", "me"]), 2, "vector.etcd is not"),
        (
            vector(&["--etcd", "ETCD", "--etcd-user", "me"]),
            2,
            "SKERRY_ETCD_PASSWORD",
        ),
        (
            vector(&["--etcd", "ETCD", "--etcd-ca", "none.pem"]),
            2,
            "none.pem",
        ),
        (
            vector(&["--etcd", "ETCD", "--etcd-ca", "TEXT"]),
            2,
            "no certificate",
        ),
        (
            vector(&["--etcd", "ETCD", "--etcd-cert", "TEXT"]),
            2,
            "come together",
        ),
        (
            plain(&["shard", "list", "--node", "nowhere"]),
            2,
            "HOST:PORT",
        ),
        (
            plain(&["shard", "list", "--node", "127.0.0.1:1"]),
            1,
            "onnect",
        ),
        (shard(&["split"]), 2, "SHARD"),
        (shard(&["split", "x"]), 2, "invalid value"),
        (shard(&["split", "9"]), 1, "shard 9 is not in the table"),
        (shard(&["move", "0", "0", "--slots", "0-1"]), 1, "to itself"),
        (
            shard(&["move", "0", "1", "--slots", "5-1"]),
            2,
            "slots are written as",
        ),
        (shard(&["move", "0", "9", "--slots", "0-1"]), 1, "shard 9"),
        (shard(&["abort", "7"]), 1, "migration 7 is not under way"),
        (shard(&["replicas", "0"]), 2, "--to"),
        (shard(&["replicas", "0", "--to", "N1"]), 2, "a node's name"),
        (
            shard(&["replicas", "0", "--to", "n1,n2,n9"]),
            1,
            "node n9 is not there",
        ),
        (
            shard(&["replicas", "0", "--to", "n3,n2,n1"]),
            1,
            "not those of now",
        ),
        (shard(&["replicas", "9", "--to", "n1"]), 1, "shard 9"),
        (
            shard(&["replicas", "0", "--abort"]),
            1,
            "no change of the replicas",
        ),
        (
            shard(&["replicas", "0", "--abort", "--to", "n1"]),
            2,
            "cannot be used with",
        ),
        (plain(&["vector", "verify", "/nowhere"]), 1, "/nowhere"),
        (plain(&["vector", "verify", &text]), 1, ""),
    ];
    for (args, code, want) in cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (got, said) = refused(&args, &[]);
        assert!(
            got == code && said.contains(want),
            "{args:?}: {got}\n{said}"
        );
        assert!(!said.contains("panicked"), "{args:?}: {said}");
    }
    let user = vector(&["--etcd", "ETCD", "--etcd-user", "me"]);
    let user: Vec<&str> = user.iter().map(String::as_str).collect();
    let (got, said) = refused(&user, &[("SKERRY_ETCD_PASSWORD", "secret")]);
    assert!(
        got == 1 && said.contains("refuses this node"),
        "{got}\n{said}"
    );
    assert!(!said.contains("secret"), "{said}");
    // A collection that a node has open is not checked under its feet.
    let (got, _) = refused(&["vector", "verify", &held], &[]);
    assert_eq!(got, 1);
    // All is as before.
    nodes.settled().await;
}
