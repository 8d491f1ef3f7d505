//! Interrupted at every step: what was there before is there still, and what is begun again is done.

use crate::faults::Faults;
use crate::support::{collection, keep, print, put, quiet, restored, stamp, take};
use skerry_vector_backup::Snapshots;
use skerry_vector_index::store::Collection;
use std::sync::Arc;

fn faulty() -> (Faults, Snapshots) {
    let store = Faults::default();
    store.never();
    (store.clone(), Snapshots::in_store(Arc::new(store)))
}

/// Takes a snapshot whose `n`th change fails, for every `n` there is.
async fn at_every_change(dies: bool, large: bool) {
    let root = tempfile::tempdir().unwrap();
    let dim = if large { 1_024 } else { 8 };
    let one = collection(root.path(), dim);
    put(&one, 0..50, 0);
    one.seal().unwrap();
    let (store, place) = faulty();
    let (first, ..) = take(&place, "n1", &[&one], 0).await.unwrap();
    let before = print(&one);
    put(&one, 20..(if large { 2_600 } else { 80 }), 1);
    one.seal().unwrap();
    put(&one, 0..3, 2);
    let mut changes = 0;
    loop {
        // Names of the day are in the order of time.
        let at = 10 + changes as u64 * 2;
        store.fail(changes, dies);
        let taken = take(&place, "n1", &[&one], at).await;
        let failed = store.has_failed();
        store.never();
        if !failed {
            taken.unwrap();
            break;
        }
        changes += 1;
        // The last change lets go of the lock: the snapshot is there.
        match taken {
            Ok(_) => panic!("change {changes} failed, and nobody says so"),
            Err(error) => assert_eq!(error.code(), "backup_store", "{error}"),
        }
        assert_eq!(restored(&place, Some(&first)).await.unwrap(), [before]);
        for listed in place.list().await.unwrap() {
            let prints = restored(&place, Some(&listed.id)).await.unwrap();
            let want = if listed.id == first {
                before
            } else {
                print(&one)
            };
            assert_eq!(prints, [want]);
        }
    }
    assert!(changes >= if large { 10 } else { 7 }, "{changes} changes");
    assert_eq!(store.aborted() > 0, large);
    assert_eq!(restored(&place, None).await.unwrap(), [print(&one)]);
    // What the attempts left goes with the next pruning.
    place.prune(keep(1), stamp(1_000)).await.unwrap();
    let (last, manifest) = place.find(None).await.unwrap();
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    let left: Vec<_> = store.inner.list(None).try_collect().await.unwrap();
    let files = manifest.parts[0].files.len();
    assert_eq!(left.len(), files + 2, "{last} needs {files} of {left:?}");
    assert_eq!(restored(&place, None).await.unwrap(), [print(&one)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_fails_at_any_change_leaves_the_older_ones() {
    at_every_change(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_change_leaves_the_older_ones() {
    at_every_change(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_that_fails_anywhere_is_given_up() {
    at_every_change(false, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_that_dies_at_any_change_leaves_what_is_listed_whole() {
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 8);
    for changes in 0.. {
        let (store, place) = faulty();
        let mut prints = Vec::new();
        for n in 0..3u64 {
            put(&one, 0..30, n as u32 + changes as u32);
            one.seal().unwrap();
            one.compact().unwrap();
            take(&place, "n1", &[&one], n).await.unwrap();
            prints.push(print(&one));
        }
        store.fail(changes, true);
        let pruned = place.prune(keep(1), stamp(10)).await;
        let failed = store.has_failed();
        store.never();
        let listed = place.list().await.unwrap();
        assert!(!listed.is_empty());
        for (one, want) in listed.iter().rev().zip(prints.iter().rev()) {
            assert_eq!(restored(&place, Some(&one.id)).await.unwrap(), [*want]);
        }
        if !failed {
            assert_eq!(pruned.unwrap().snapshots.len(), 2);
            assert!(changes > 5, "{changes} changes");
            return;
        }
        assert_eq!(pruned.unwrap_err().code(), "backup_store");
    }
}

/// What is damaged here is not kept there in place of what is sound.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_is_not_sent() {
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 8);
    put(&one, 0..50, 0);
    one.seal().unwrap();
    let (store, place) = faulty();
    take(&place, "n1", &[&one], 0).await.unwrap();
    let before = print(&one);
    put(&one, 20..80, 1);
    one.seal().unwrap();
    drop(one);
    let path = root.path().join("segment-2.skv");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = 4_096 + 64;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    // Opening looks at what it needs, and may find it first.
    if let Ok(one) = Collection::open(root.path(), quiet()) {
        let error = take(&place, "n1", &[&one], 1).await.unwrap_err();
        assert_eq!(error.code(), "vector_corrupt");
        assert!(error.to_string().contains("segment-2.skv"), "{error}");
    }
    assert_eq!(place.list().await.unwrap().len(), 1);
    assert_eq!(restored(&place, None).await.unwrap(), [before]);
    assert!(!store.has_failed());
}
