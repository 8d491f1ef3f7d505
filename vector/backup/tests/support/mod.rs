//! Collections to take snapshots of, and what must hold in any store.

use skerry_types::Attributes;
use skerry_vector_backup::{Error, Manifest, Progress, SnapshotId, Snapshots, Stamp, Take};
use skerry_vector_index::store::{Collection, Fingerprint, Options};
use skerry_vector_index::{Metric, Record, Spec, Stored, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub fn spec(dim: usize) -> Spec {
    Spec {
        dim,
        metric: Metric::Dot,
        stored: Stored::F32,
        fields: Vec::new(),
    }
}

pub fn quiet() -> Options {
    Options {
        background: false,
        ..Options::default()
    }
}

pub fn collection(dir: &Path, dim: usize) -> Collection {
    Collection::create(dir, spec(dim), quiet()).unwrap()
}

/// Writes records with these numbers, different ones for each `version`.
pub fn put(collection: &Collection, numbers: std::ops::Range<u32>, version: u32) {
    let dim = collection.spec().dim;
    let write = |number: u32| {
        let at = |lane: usize| ((number * 31 + version * 7 + 1) as f32 * (lane + 1) as f32).sin();
        Write::Upsert(Record {
            id: format!("{number}").into(),
            vector: (0..dim).map(at).collect(),
            payload: Attributes::default(),
        })
    };
    collection.write(numbers.map(write).collect()).unwrap();
}

pub fn print(collection: &Collection) -> Fingerprint {
    collection.fingerprint(|_| true).unwrap()
}

/// The `n`th second of the day on which tests play.
pub fn stamp(n: u64) -> Stamp {
    Stamp {
        now_ms: 1_900_000_000_000 + n * 1_000,
        chance: u128::from(n) + 1,
    }
}

pub async fn take(
    place: &Snapshots,
    node: &str,
    collections: &[&Collection],
    n: u64,
) -> Result<(SnapshotId, Manifest, Progress), Error> {
    let parts = collections.iter().enumerate().map(|(at, collection)| {
        let name = format!("shard-{at:04}");
        (name.into(), collection.capture().unwrap())
    });
    let take = Take {
        node: node.into(),
        parts: parts.collect(),
        beside: vec![1, 2, 3],
    };
    let last = Mutex::new(Progress::default());
    let progress = |now: &Progress| *last.lock().unwrap() = now.clone();
    let stop = CancellationToken::new();
    let (id, manifest) = place.take(take, stamp(n), &stop, &progress).await?;
    let last = last.into_inner().unwrap();
    assert_eq!(
        (last.bytes_done, manifest.bytes()),
        (last.bytes_total, last.bytes_total)
    );
    Ok((id, manifest, last))
}

/// Restores into a fresh folder; what its collections hold. After an error there is no collection.
pub async fn restored(
    place: &Snapshots,
    id: Option<&SnapshotId>,
) -> Result<Vec<Fingerprint>, Error> {
    let root = tempfile::tempdir().unwrap();
    let (id, manifest) = place.find(id).await?;
    let dir_of = |part: &skerry_vector_backup::Part| root.path().join(&*part.name);
    let stop = CancellationToken::new();
    let done = place.restore(&id, &manifest, dir_of, &stop, &|_| {}).await;
    if let Err(error) = done {
        let last = manifest.parts.last().unwrap();
        assert!(!dir_of(last).join("MANIFEST").exists(), "{error}");
        return Err(error);
    }
    assert_eq!(manifest.beside, [1, 2, 3]);
    let prints = manifest.parts.iter().map(|part| {
        let collection = Collection::open(&dir_of(part), quiet()).unwrap();
        assert_eq!(
            (collection.seq(), collection.len() as u64),
            (part.seq, part.rows)
        );
        print(&collection)
    });
    Ok(prints.collect())
}

pub fn keep(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

/// How many files of a snapshot are its own, or shared.
fn files_of(manifest: &Manifest, shared: bool) -> u64 {
    let files = manifest.parts.iter().flat_map(|part| &part.files);
    let files = files.filter(|file| file.identity.is_some() == shared);
    files.count() as u64
}

/// The life of a place, from nothing to the last pruning.
pub async fn lives(place: &Snapshots, large: bool) {
    let root = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| root.path().join(name));
    // Of a large one the segment goes in parts.
    let (dim, rows) = if large { (1_024, 2_500) } else { (8, 200) };
    let (one, two) = (collection(&one, dim), collection(&two, dim));
    let both = [&one, &two];
    assert_eq!(place.list().await.err().unwrap().code(), "backup_missing");
    put(&one, 0..rows, 0);
    put(&two, 0..9, 0);
    one.seal().unwrap();
    put(&one, rows..rows + 10, 0);
    let (first, of_first, sent) = take(place, "n1", &both, 1).await.unwrap();
    assert_eq!(sent.bytes_moved, sent.bytes_total);
    let first_prints = both.map(print);
    assert_eq!(restored(place, None).await.unwrap(), first_prints);

    put(&one, 0..10, 1);
    one.write(vec![Write::Delete("11".into())]).unwrap();
    one.seal().unwrap();
    put(&two, 3..30, 2);
    let (second, of_second, sent) = take(place, "n1", &both, 2).await.unwrap();
    let reused = sent.bytes_total - sent.bytes_moved;
    let segment = u64::from(rows) * dim as u64 * 4;
    assert!(
        reused > segment,
        "{reused} bytes of {segment} were not sent again"
    );
    let second_prints = both.map(print);
    assert_ne!(first_prints, second_prints);
    let (third, ..) = take(place, "n2", &[&two], 3).await.unwrap();
    let ids = |all: Vec<skerry_vector_backup::Listed>| {
        let ids = all.into_iter().map(|one| (one.manifest.is_ok(), one.id));
        ids.collect::<Vec<_>>()
    };
    let all = [&first, &second, &third].map(|id| (true, id.clone()));
    assert_eq!(ids(place.list().await.unwrap()), all);
    for (id, want) in [(&first, &first_prints), (&second, &second_prints)] {
        assert_eq!(restored(place, Some(id)).await.unwrap(), want);
    }
    // The last one of whom?
    let error = restored(place, None).await.unwrap_err();
    assert_eq!(error.code(), "backup_missing");
    assert!(error.to_string().contains("n1, n2"), "{error}");

    // Each node keeps one; the second needs a segment that the first brought.
    assert_eq!(place.prune(keep(2), stamp(4)).await.unwrap().snapshots, []);
    let pruned = place.prune(keep(1), stamp(5)).await.unwrap();
    assert_eq!(pruned.snapshots, std::slice::from_ref(&first));
    assert_eq!(pruned.objects, files_of(&of_first, false));
    let gone = restored(place, Some(&first)).await.unwrap_err();
    assert_eq!(gone.code(), "backup_missing");
    assert_eq!(restored(place, Some(&second)).await.unwrap(), second_prints);
    assert_eq!(restored(place, Some(&third)).await.unwrap(), [print(&two)]);

    // What was compacted goes when no snapshot needs it any more.
    one.compact().unwrap();
    let (fourth, ..) = take(place, "n1", &both, 6).await.unwrap();
    let pruned = place.prune(keep(1), stamp(7)).await.unwrap();
    assert_eq!(pruned.snapshots, [second]);
    let all = files_of(&of_second, false) + files_of(&of_second, true);
    assert_eq!((pruned.objects, files_of(&of_second, true)), (all, 2));
    assert_eq!(
        restored(place, Some(&fourth)).await.unwrap(),
        both.map(print)
    );
}
