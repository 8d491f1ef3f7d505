//! Damage in the store: typed errors that name the object, and nothing half-restored.

use crate::support::{collection, print, put, restored, take};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use skerry_vector_backup::Snapshots;
use std::sync::Arc;

struct Kept {
    _root: tempfile::TempDir,
    store: Arc<InMemory>,
    place: Snapshots,
    objects: Vec<(Path, Vec<u8>)>,
}

impl Kept {
    /// One snapshot with segments, tombstones and a log.
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let one = collection(root.path(), 8);
        put(&one, 0..60, 0);
        one.seal().unwrap();
        put(&one, 30..90, 1);
        one.seal().unwrap();
        put(&one, 0..4, 2);
        let store = Arc::new(InMemory::new());
        let place = Snapshots::in_store(Arc::clone(&store) as Arc<dyn ObjectStore>);
        take(&place, "n1", &[&one], 1).await.unwrap();
        assert_eq!(restored(&place, None).await.unwrap(), [print(&one)]);
        let mut objects = Vec::new();
        let all: Vec<_> = store.list(None).try_collect().await.unwrap();
        for one in all {
            let bytes = store.get(&one.location).await.unwrap().bytes();
            objects.push((one.location, bytes.await.unwrap().to_vec()));
        }
        // Two segments, tombstones of one or both, a log, FORMAT, MANIFEST, the manifest, PLACE.
        assert!((8..=9).contains(&objects.len()), "{objects:?}");
        Self {
            _root: root,
            store,
            place,
            objects,
        }
    }

    async fn put(&self, object: &Path, bytes: &[u8]) {
        let put = self.store.put(object, bytes.to_vec().into());
        put.await.unwrap();
    }

    /// The code of what restoring says, and whether it names the object.
    async fn code(&self, object: &Path) -> (&'static str, bool) {
        let error = restored(&self.place, None).await.unwrap_err();
        (error.code(), error.to_string().contains(object.as_ref()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_that_is_cut_changed_or_lost_is_named() {
    let kept = Kept::new().await;
    for (object, whole) in &kept.objects {
        let half = whole.len() / 2;
        let mut flipped = whole.clone();
        flipped[half] ^= 0x10;
        let mut longer = whole.clone();
        longer.push(0);
        for (what, bytes) in [
            ("cut", &whole[..half]),
            ("emptied", &[]),
            ("flipped", &flipped),
            ("longer", &longer),
        ] {
            kept.put(object, bytes).await;
            let found = kept.code(object).await;
            assert_eq!(found, ("backup_corrupt", true), "{object} {what}");
        }
        kept.store.delete(object).await.unwrap();
        let lost = kept.code(object).await;
        let own = object.as_ref() == "PLACE" || object.as_ref().ends_with(".manifest");
        // Without its manifest it is no snapshot.
        let want = if own {
            ("backup_missing", false)
        } else {
            ("backup_corrupt", true)
        };
        assert_eq!(lost, want, "{object} lost");
        kept.put(object, whole).await;
    }
    restored(&kept.place, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_others_is_refused() {
    let (kept, other) = (Kept::new().await, Kept::new().await);
    let is_manifest = |one: &&(Path, Vec<u8>)| one.0.as_ref().ends_with(".manifest");
    let (object, own) = kept.objects.iter().find(is_manifest).unwrap();
    let (_, theirs) = other.objects.iter().find(is_manifest).unwrap();
    // Places have names of their own: here the two tests drew one number.
    let place = Path::from("PLACE");
    let whole = kept.store.get(&place).await.unwrap().bytes().await.unwrap();
    kept.store.delete(&place).await.unwrap();
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 8);
    put(&one, 0..5, 0);
    take(&kept.place, "n1", &[&one], 9).await.unwrap();
    kept.put(object, theirs).await;
    let id = object
        .filename()
        .unwrap()
        .strip_suffix(".manifest")
        .unwrap();
    let error = restored(&kept.place, Some(&id.parse().unwrap())).await;
    assert_eq!(error.unwrap_err().code(), "backup_foreign");
    kept.put(&place, &whole).await;
    kept.put(object, own).await;

    // Under another snapshot's name.
    let wrong = Path::from("snapshots/20990101T000000Z-00000000.manifest");
    kept.put(&wrong, own).await;
    assert_eq!(kept.code(&wrong).await, ("backup_corrupt", true));
    // A place that another kind of collection has.
    let root = tempfile::tempdir().unwrap();
    let one = collection(root.path(), 9);
    put(&one, 0..5, 0);
    let error = take(&kept.place, "n1", &[&one], 2).await.unwrap_err();
    assert_eq!(error.code(), "backup_foreign");
    assert!(error.to_string().contains("--dim 8"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_version_wrote_is_told_from_damage() {
    let kept = Kept::new().await;
    for (object, whole) in &kept.objects {
        let own = object.as_ref() == "PLACE" || object.as_ref().ends_with(".manifest");
        if !own {
            continue;
        }
        // Another schema, with the checksum that it would have.
        let mut later = whole[..whole.len() - 4].to_vec();
        later[2] ^= 0x40;
        let crc = crc32c::crc32c(&later);
        later.extend_from_slice(&crc.to_le_bytes());
        kept.put(object, &later).await;
        assert_eq!(kept.code(object).await, ("backup_newer", true));
        kept.put(object, whole).await;
    }
}

/// Any bit of any object.
#[test]
fn no_bit_can_change_unseen() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept = runtime.block_on(Kept::new());
    let places = (0..kept.objects.len(), any::<prop::sample::Index>(), 0u8..8);
    let mut runner = TestRunner::new(Config::with_cases(120));
    let checked = runner.run(&places, |(at, place, bit)| {
        let (object, whole) = &kept.objects[at];
        let mut changed = whole.clone();
        changed[place.index(whole.len())] ^= 1 << bit;
        let found = runtime.block_on(async {
            kept.put(object, &changed).await;
            let found = kept.code(object).await;
            kept.put(object, whole).await;
            found
        });
        prop_assert_eq!(found, ("backup_corrupt", true));
        Ok(())
    });
    checked.unwrap();
}
