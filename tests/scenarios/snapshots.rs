//! Snapshots as an operator takes them: of a node that serves and of one that is down, in a folder and
//! in a real S3 server, and what comes back of them. Then what the commands say to wrong input.

use serde_json::Value;
use skerry_scenarios::binary;
use skerry_scenarios::process::Process;
use skerry_vector_index::{Merge, Query, Record, Write};
use skerry_vector_shard::coordination::nodes::Nodes;
use skerry_vector_shard::{Ask, Router};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

const DIM: usize = 16;

struct Node {
    process: Process,
    addr: String,
    router: Router,
}

impl Node {
    /// `skerry vector` over a folder, with these flags.
    fn start(dir: &Path, flags: &[&str]) -> Self {
        let folder = dir.to_string_lossy();
        let first = ["vector", "--listen", "127.0.0.1:0", "--dir", &folder];
        let process = Process::start_in(&[&first, flags].concat(), dir, &[]).unwrap();
        let addr = process.endpoint("vector").unwrap();
        let nodes = Nodes::follow(vec![addr.clone()], None);
        Self {
            router: Router::new(Arc::new(nodes), None),
            process,
            addr,
        }
    }

    async fn write(&self, writes: Vec<Write>) {
        let written = self.router.write(writes, 10_000).await.unwrap();
        written.all().unwrap();
    }

    /// Everything that is there: each id, and the bits of its score.
    async fn all(&self) -> Vec<(String, u32)> {
        let query = Query {
            vectors: vec![vector(0, 0)],
            merge: Merge::Best,
            k: 10_000,
            ef: None,
            filter: None,
        };
        let ask = Ask {
            budget_ms: 10_000,
            ..Ask::default()
        };
        let found = self.router.search(&[query], ask).await.unwrap();
        assert!(found.missing.is_empty());
        let hits = found.lists[0].iter();
        let mut all: Vec<_> = hits
            .map(|hit| (hit.id.to_string(), hit.score.to_bits()))
            .collect();
        all.sort();
        all
    }
}

fn vector(id: usize, version: usize) -> Vec<f32> {
    let at = |lane: usize| ((id * 31 + lane * 7 + 1) as f32 + version as f32 * 0.1).sin();
    (0..DIM).map(at).collect()
}

fn puts(ids: Range<usize>, version: usize) -> Vec<Write> {
    let one = |id: usize| {
        Write::Upsert(Record {
            id: format!("i{id}").into(),
            vector: vector(id, version),
            payload: Default::default(),
        })
    };
    ids.map(one).collect()
}

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.arg("vector").args(args).output().unwrap()
}

/// What a command answers with `--json`.
fn told(args: &[&str]) -> Value {
    let output = run(&[args, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn id_of(snapshot: &Value) -> String {
    snapshot["snapshot"].as_str().unwrap().to_owned()
}

fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(id_of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn a_node_comes_back_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().join("backups");
    comes_back(folder.path(), &url.to_string_lossy()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn a_node_comes_back_from_s3() {
    let Ok(bucket) = std::env::var("SKERRY_TEST_S3") else {
        eprintln!("skipped: `cargo xtask test` starts a server and sets SKERRY_TEST_S3");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{bucket}/scenario-{}", std::process::id());
    comes_back(folder.path(), &url).await;
}

async fn comes_back(folder: &Path, url: &str) {
    // No fields: that is not what a node has unless it is told.
    let flags = ["--dim", "16", "--fields="];
    let dir = folder.join("n1");
    let mut node = Node::start(&dir, &flags);
    node.write(puts(0..300, 0)).await;
    let before = node.all().await;
    assert_eq!(before.len(), 300);
    let first = told(&["snapshot", "--node", &node.addr, url]);
    assert_eq!(first["records"], 300, "{first}");
    let first = id_of(&first);

    // Changed, deleted, new; then killed, so that what comes is of the log.
    node.write(puts(100..400, 1)).await;
    let gone = (0..50).map(|id| Write::Delete(format!("i{id}").into()));
    node.write(gone.collect()).await;
    let after = node.all().await;
    assert_eq!(after.len(), 350);
    assert_ne!(before, after);
    let second = told(&["snapshot", "--node", &node.addr, url]);
    assert_eq!(second["records"], 350, "{second}");
    node.process.kill();
    let text = dir.to_string_lossy();
    let third = told(&["snapshot", &text, url]);
    assert_eq!(third["records"], 350, "{third}");
    let list = told(&["snapshots", url]);
    let last = id_of(&third);
    assert_eq!(ids(&list), [first.clone(), id_of(&second), last.clone()]);

    // The last without an id, an older one by its id; both are whole, and serve with the flags given.
    let cases: [(&str, &[&str], &Vec<_>); 2] = [
        ("last", &[], &after),
        ("first", &["--snapshot", &first], &before),
    ];
    for (name, which, want) in cases {
        let dir = folder.join(name);
        let text = dir.to_string_lossy();
        let restored = told(&[&["restore", url, &text], which].concat());
        assert_eq!(restored["missing"], serde_json::json!([]), "{restored}");
        let flags: Vec<&str> = restored["flags"].as_str().unwrap().split(' ').collect();
        let report = told(&["verify", &text]);
        assert!(!report.as_array().unwrap().is_empty());
        let mut node = Node::start(&dir, &flags);
        assert_eq!(&node.all().await, want, "{name}");
        node.write(puts(400..410, 0)).await;
        assert_eq!(node.all().await.len(), want.len() + 10);
        assert!(node.process.stop().unwrap().success());
    }

    let pruned = told(&["prune", url, "--keep", "1"]);
    assert_eq!(pruned["pruned"].as_array().unwrap().len(), 2, "{pruned}");
    let list = told(&["snapshots", url]);
    assert_eq!(ids(&list), [last]);
    let dir = folder.join("pruned");
    told(&["restore", url, &dir.to_string_lossy()]);
    let node = Node::start(&dir, &flags);
    assert_eq!(node.all().await, after, "after pruning");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts real processes: run by `cargo xtask test`"]
async fn wrong_input_is_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let node = Node::start(&folder.path().join("n1"), &["--dim", "16"]);
    let other = Node::start(&folder.path().join("n2"), &["--dim", "8"]);
    node.write(puts(0..50, 0)).await;
    let (n1, url, full, text) = (at("n1"), at("backups"), at("full"), at("text"));
    let (addr, of_other) = (node.addr.as_str(), other.addr.as_str());
    let taken = told(&["snapshot", "--node", addr, &url]);
    std::fs::create_dir(&full).unwrap();
    std::fs::write(folder.path().join("full/file"), "mine").unwrap();
    std::fs::write(&text, "no folder").unwrap();
    let cases: [(&[&str], i32, &str); 15] = [
        (
            &["snapshot", "--node", addr, "ftp://a/b"],
            2,
            "[backup_url]",
        ),
        (&["snapshot", "--node", addr, "s3://"], 2, "[backup_url]"),
        (&["snapshot", "--node", addr, &text], 2, &text),
        (
            &["snapshot", "--node", of_other, &url],
            1,
            "[backup_foreign]",
        ),
        (&["snapshot", &n1, &url], 1, &n1),
        (&["snapshot", &at("none"), &url], 2, &at("none")),
        (&["snapshots", &at("none")], 2, "no such folder"),
        (&["snapshots", &full], 1, "[backup_missing]"),
        (&["prune", &url, "--keep", "0"], 2, "--keep"),
        (&["prune", &at("none"), "--keep", "1"], 2, "no such folder"),
        (&["restore", &url, &full], 1, &full),
        (&["restore", &url, &text], 1, &text),
        (
            &["restore", &url, &at("new"), "--snapshot", "last"],
            2,
            "--snapshot",
        ),
        (
            &[
                "restore",
                &url,
                &at("new"),
                "--snapshot",
                "20200101T000000Z-1a2b3c4d",
            ],
            1,
            "20200101T000000Z-1a2b3c4d",
        ),
        (
            &["restore", &url, &at("new"), "--node-id", "A B"],
            2,
            "--node-id",
        ),
    ];
    let mut wrong = Vec::new();
    for (args, code, want) in cases {
        let output = run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        let is_told = output.status.code() == Some(code) && said.contains(want);
        if !is_told || said.contains("panicked") {
            wrong.push(format!("{args:?}: {:?}\n{said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing was left, and nothing of what was there was touched.
    assert!(!folder.path().join("new").exists());
    assert!(folder.path().join("full/file").exists());
    assert_eq!(ids(&told(&["snapshots", &url])), [id_of(&taken)]);

    // A damaged object is named, and no half of a node is left.
    let mut below = vec![folder.path().join("backups/snapshots")];
    let mut damaged = None;
    while let Some(dir) = below.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let is_log = path.to_string_lossy().contains("wal-");
            match path.is_dir() {
                true => below.push(path),
                false if is_log => damaged = Some(path),
                false => {}
            }
        }
    }
    let path = damaged.expect("a snapshot of fresh records has a log");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = run(&["restore", &url, &at("new")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("[backup_corrupt]"),
        "{said}"
    );
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(said.contains(&name), "{said}");
    assert!(!folder.path().join("new").exists(), "left behind");
}
