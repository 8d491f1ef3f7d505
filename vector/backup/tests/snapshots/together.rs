//! Several at work in one place.

use crate::support::{collection, keep, put, restored, stamp, take};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use skerry_vector_backup::{Progress, Snapshots, Stamp, Take};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pruned_while_a_snapshot_is_taken() {
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 8);
    put(&one, 0..20, 0);
    let store = Arc::new(InMemory::new());
    let place = Snapshots::in_store(Arc::clone(&store) as Arc<dyn ObjectStore>);
    take(&place, "n1", &[&one], 1).await.unwrap();
    let mark = |text: &str| {
        let (store, path) = (Arc::clone(&store), Path::from(text));
        async move { store.put(&path, "x".into()).await.unwrap() }
    };
    // The store says when a mark was made: now.
    let now = Stamp::now();
    mark("locks/write/n2/20260101T000000Z-00000001").await;
    let busy = place.prune(keep(1), now).await.unwrap_err();
    assert_eq!(busy.code(), "backup_busy");
    assert!(busy.to_string().contains("n2"), "{busy}");
    // Another writer is no matter; and a mark of the own node was left by one who died.
    mark("locks/write/n1/20260101T000000Z-00000001").await;
    take(&place, "n1", &[&one], 2).await.unwrap();
    take(&place, "n2", &[&one], 3).await.unwrap();
    place.prune(keep(1), now).await.unwrap();

    mark("locks/prune/20260101T000000Z-00000001").await;
    let busy = place.prune(keep(1), now).await.unwrap_err();
    assert_eq!(busy.code(), "backup_busy");
    let took = Take {
        node: "n1".into(),
        parts: vec![("shard-0000".into(), one.capture().unwrap())],
        beside: Vec::new(),
    };
    let stop = CancellationToken::new();
    let busy = place.take(took, now, &stop, &|_| {}).await.unwrap_err();
    assert_eq!(busy.code(), "backup_busy");
    let tomorrow = Stamp {
        now_ms: now.now_ms + 25 * 3_600 * 1_000,
        ..now
    };
    place.prune(keep(1), tomorrow).await.unwrap();
    assert_eq!(place.list().await.unwrap().len(), 2);
}

/// A node does it in a task of its own.
#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_spawned() {
    let root = tempfile::tempdir().unwrap();
    let (dir, back) = (root.path().join("a"), root.path().join("b"));
    let place = Snapshots::in_store(Arc::new(InMemory::new()));
    let done = tokio::spawn(async move {
        let one = collection(&dir, 8);
        put(&one, 0..20, 0);
        let took = Take {
            node: "n1".into(),
            parts: vec![("shard-0000".into(), one.capture().unwrap())],
            beside: Vec::new(),
        };
        let stop = CancellationToken::new();
        let (id, manifest) = place.take(took, stamp(1), &stop, &|_| {}).await.unwrap();
        place.prune(keep(1), stamp(2)).await.unwrap();
        let dir_of = |_: &skerry_vector_backup::Part| back.clone();
        let restored = place.restore(&id, &manifest, dir_of, &stop, &|_| {});
        restored.await.unwrap();
        manifest.rows()
    });
    assert_eq!(done.await.unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_leaves_no_lock() {
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 8);
    put(&one, 0..2_000, 0);
    one.seal().unwrap();
    let place = Snapshots::in_store(Arc::new(InMemory::new()));
    let stop = CancellationToken::new();
    let took = Take {
        node: "n1".into(),
        parts: vec![("shard-0000".into(), one.capture().unwrap())],
        beside: Vec::new(),
    };
    let progress = |_: &Progress| stop.cancel();
    let error = place.take(took, stamp(1), &stop, &progress).await;
    assert_eq!(error.unwrap_err().code(), "backup_cancelled");
    assert!(place.list().await.unwrap().is_empty());
    place.prune(keep(1), Stamp::now()).await.unwrap();
    take(&place, "n1", &[&one], 2).await.unwrap();

    let (id, manifest) = place.find(None).await.unwrap();
    let dir = root.path().join("back");
    let off = place.restore(&id, &manifest, |_| dir.clone(), &stop, &|_| {});
    assert_eq!(off.await.unwrap_err().code(), "backup_cancelled");
    assert!(!dir.join("MANIFEST").exists());
    restored(&place, None).await.unwrap();
}
