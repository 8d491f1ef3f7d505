//! Snapshots of nodes: running ones and folders of those that are down; what is made of them serves.

use crate::harness::{Cluster, ask, node, query, spec, until, upsert};
use crate::load::{Model, check};
use skerry_vector_backup::Snapshots;
use skerry_vector_shard::coordination::embedded::Embedded;
use skerry_vector_shard::{
    Admin, Collections, Coordination, Directory, Error, Handle, Options, ReadToken, Router,
    ShardId, backup, wire::grpc as g,
};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A node on its own in a folder, as `skerry vector` runs it.
struct Alone {
    handle: Handle,
    router: Router,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Alone {
    async fn start(dir: &Path, name: &str, shards: usize) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).unwrap();
        let coordination = Arc::new(Embedded::open(dir)?) as Arc<dyn Coordination>;
        let stores = Arc::new(Collections {
            spec: spec(),
            options: Default::default(),
        });
        let router = Router::new(coordination.clone(), None);
        let mut options = Options::new(node(name), dir.to_owned(), coordination, stores);
        options.first = Some(vec![vec![node(name)]; shards]);
        let node = options.build().await?;
        let (handle, stop) = (node.handle(), CancellationToken::new());
        let running = tokio::spawn(node.run(stop.clone().cancelled_owned()));
        handle.ready().await;
        Ok(Self {
            handle,
            router,
            stop,
            running,
        })
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }

    fn admin(&self) -> Admin {
        Admin::new(&self.handle.addr().to_string(), None)
    }
}

/// Writes, deletes some, and keeps account.
async fn write(router: &Router, ids: std::ops::Range<usize>, version: i64, model: &mut Model) {
    let names: Vec<String> = ids.map(|at| format!("id-{at}")).collect();
    let mut batch: Vec<_> = names.iter().map(|name| upsert(name, version)).collect();
    let last = names.last().unwrap().clone();
    batch.pop();
    batch.push(skerry_vector_index::Write::Delete(last.as_str().into()));
    let written = router.write(batch, 10_000).await.unwrap();
    assert!(written.failed.is_empty());
    for name in names {
        model.insert(name, version);
    }
    model.remove(&last);
}

fn places() -> (tempfile::TempDir, PathBuf, String) {
    let root = tempfile::tempdir().unwrap();
    let kept = root.path().join("kept").display().to_string();
    let back = root.path().join("back");
    (root, back, kept)
}

async fn restore(url: &str, dir: &Path, name: Option<&str>) -> Result<backup::Restored, Error> {
    let snapshots = Snapshots::open(url)?;
    let stop = CancellationToken::new();
    backup::restore(&snapshots, None, dir, name.map(node), &stop, &|_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_running_node_becomes_a_node() {
    let (root, back, kept) = places();
    let one = Alone::start(&root.path().join("one"), "n1", 2)
        .await
        .unwrap();
    let mut model = Model::new();
    write(&one.router, 0..300, 1, &mut model).await;
    let mut told = 0;
    let mut progress = |_: &g::BackupReply| told += 1;
    let done = one.admin().backup(&kept, 0, &mut progress).await.unwrap();
    assert!(told > 0);
    assert_eq!((done.node.as_str(), done.shards.len()), ("n1", 2));
    let records: u64 = done.shards.iter().map(|shard| shard.records).sum();
    assert_eq!(records, model.len() as u64);
    // What comes later is not in it; and only the last two are kept.
    let mut later = model.clone();
    write(&one.router, 200..400, 2, &mut later).await;
    let restored = restore(&kept, &back, None).await.unwrap();
    assert_eq!((restored.node.as_str(), restored.missing.len()), ("n1", 0));
    let two = Alone::start(&back, "n1", 1).await.unwrap();
    check(&two.router, &model, &ReadToken::default()).await;
    // It goes on as any node: writes, and a split.
    write(&two.router, 500..600, 3, &mut model).await;
    check(&two.router, &model, &ReadToken::default()).await;
    let split = two.admin().split(ShardId(0), &[]).await.unwrap();
    until("the split is over", async || {
        let now = two.admin().overview().await.unwrap();
        now.migration.is_none() && now.epoch > split.epoch
    })
    .await;
    check(&two.router, &model, &ReadToken::default()).await;
    // A table that was split is restored too.
    let again = two.admin().backup(&kept, 1, &mut |_| {}).await.unwrap();
    assert_eq!((again.shards.len(), again.pruned), (3, vec![done.snapshot]));
    two.end().await;
    let third = root.path().join("third");
    restore(&kept, &third, Some("other")).await.unwrap();
    let three = Alone::start(&third, "other", 1).await.unwrap();
    assert_eq!(three.admin().overview().await.unwrap().shards.len(), 3);
    check(&three.router, &model, &ReadToken::default()).await;
    three.end().await;
    one.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_a_node_that_is_down_is_kept_and_one_that_runs_is_not() {
    let (root, back, kept) = places();
    let dir = root.path().join("one");
    let one = Alone::start(&dir, "n1", 2).await.unwrap();
    let mut model = Model::new();
    write(&one.router, 0..200, 1, &mut model).await;
    let take = async |keep: Option<usize>| {
        let snapshots = Snapshots::open_or_make(&kept).unwrap();
        let (me, stop) = (node("n1"), CancellationToken::new());
        let keep = keep.and_then(NonZeroUsize::new);
        backup::take_stopped(&dir, &me, &snapshots, keep, &stop, &|_| {}).await
    };
    assert_eq!(take(None).await.unwrap_err().code(), "vector_locked");
    one.end().await;
    take(None).await.unwrap();
    let taken = take(Some(1)).await.unwrap();
    assert_eq!(taken.pruned.snapshots.len(), 1);
    restore(&kept, &back, None).await.unwrap();
    let two = Alone::start(&back, "n1", 1).await.unwrap();
    check(&two.router, &model, &ReadToken::default()).await;
    two.end().await;
    let empty = root.path().join("empty");
    std::fs::create_dir_all(&empty).unwrap();
    let snapshots = Snapshots::open(&kept).unwrap();
    let (me, stop) = (node("n1"), CancellationToken::new());
    let none = backup::take_stopped(&empty, &me, &snapshots, None, &stop, &|_| {}).await;
    assert_eq!(none.unwrap_err().code(), "shard_request");
}

/// One node of three has every shard: alone it serves what all three did.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_is_restored_alone() {
    let (_root, back, kept) = places();
    let all: &[&str] = &["a", "b", "c"];
    let cluster = Cluster::start(all, &[all, all]).await;
    let router = cluster.router();
    let mut model = Model::new();
    write(&router, 0..200, 1, &mut model).await;
    let addr = cluster.coordination.watch().borrow().clone().unwrap();
    let addr = addr.nodes.get(&node("b")).unwrap().clone();
    let admin = Admin::new(&addr, None);
    admin.backup(&kept, 0, &mut |_| {}).await.unwrap();
    let restored = restore(&kept, &back, None).await.unwrap();
    assert_eq!((restored.node.as_str(), restored.missing.len()), ("b", 0));
    let alone = Alone::start(&back, "b", 1).await.unwrap();
    check(&alone.router, &model, &ReadToken::default()).await;
    write(&alone.router, 100..300, 2, &mut model).await;
    check(&alone.router, &model, &ReadToken::default()).await;
    alone.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_half_restored_is_left_or_started() {
    let (root, back, kept) = places();
    let one = Alone::start(&root.path().join("one"), "n1", 2)
        .await
        .unwrap();
    let mut model = Model::new();
    write(&one.router, 0..100, 1, &mut model).await;
    one.admin().backup(&kept, 0, &mut |_| {}).await.unwrap();
    one.end().await;
    // The last file of the last shard is damaged.
    let snapshots = root.path().join("kept/snapshots");
    let own = std::fs::read_dir(&snapshots).unwrap();
    let own = own.map(|entry| entry.unwrap().path());
    let own = own.into_iter().find(|path| path.is_dir()).unwrap();
    let file = own.join("shard-0001/MANIFEST");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let error = restore(&kept, &back, None).await.unwrap_err();
    assert_eq!(error.code(), "backup_corrupt");
    assert!(error.to_string().contains("shard-0001/MANIFEST"), "{error}");
    assert!(!back.exists());
    std::fs::create_dir(&back).unwrap();
    assert!(restore(&kept, &back, None).await.is_err());
    assert_eq!(std::fs::read_dir(&back).unwrap().count(), 0);
    std::fs::write(&file, &whole).unwrap();

    // A restore that died: its folder is no node's, and the next one clears it.
    std::fs::write(back.join("RESTORING"), "").unwrap();
    std::fs::create_dir_all(back.join("shard-0009/g-000001/data")).unwrap();
    let refused = Alone::start(&back, "n1", 1).await.err().unwrap();
    assert_eq!(refused.code(), "shard_restoring");
    restore(&kept, &back, None).await.unwrap();
    assert!(!back.join("shard-0009").exists() && !back.join("RESTORING").exists());
    let taken = restore(&kept, &back, None).await.unwrap_err();
    assert_eq!(taken.code(), "vector_exists");
    let two = Alone::start(&back, "n1", 1).await.unwrap();
    check(&two.router, &model, &ReadToken::default()).await;
    let found = two.router.search(&[query(1)], ask(2_000)).await.unwrap();
    assert!(!found.is_partial());
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_cannot_do_is_the_callers_to_hear() {
    let (root, _, kept) = places();
    let one = Alone::start(&root.path().join("one"), "n1", 1)
        .await
        .unwrap();
    let mut model = Model::new();
    write(&one.router, 0..10, 1, &mut model).await;
    for (url, code) in [("ftp://x/y", "backup_url"), ("s3://x/y", "not_built_in")] {
        if code == "not_built_in" && cfg!(feature = "s3") {
            continue;
        }
        let error = one.admin().backup(url, 0, &mut |_| {}).await.unwrap_err();
        assert_eq!((error.code(), error.is_callers()), (code, true));
    }
    // Another place's kind of collection is refused, and the node goes on.
    let other = g::BackupRequest {
        url: kept.clone(),
        keep: 0,
    };
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(Path::new(&kept).join("PLACE"), "no place").unwrap();
    let error = one.admin().backup(&other.url, 0, &mut |_| {}).await;
    assert_eq!(error.unwrap_err().code(), "backup_corrupt");
    check(&one.router, &model, &ReadToken::default()).await;
    one.end().await;
}
