//! Pruning: old snapshots go, and what no other needs.
//!
//! Invariants: manifests go first, so that no snapshot is there without what it names; nothing goes
//! while a snapshot is taken, or while a manifest cannot be read: what it needs is not known.

use crate::error::Error;
use crate::locks::Lock;
use crate::names::{self, SnapshotId};
use crate::{REQUESTS_MAX, Snapshots, Stamp, some_of};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

/// What went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    pub snapshots: Vec<SnapshotId>,
    /// Manifests aside.
    pub objects: u64,
    pub bytes: u64,
}

impl Snapshots {
    /// Keeps the last `keep` snapshots of each node and what they need; removes all else.
    pub async fn prune(&self, keep: NonZeroUsize, stamp: Stamp) -> Result<Pruned, Error> {
        let lock = Lock::prune(&self.store, stamp).await?;
        let pruned = self.prune_alone(keep).await;
        let released = lock.release().await;
        let pruned = pruned?;
        released?;
        Ok(pruned)
    }

    async fn prune_alone(&self, keep: NonZeroUsize) -> Result<Pruned, Error> {
        let mut left: HashMap<Box<str>, usize> = HashMap::new();
        let mut needed = HashSet::new();
        let mut gone = Vec::new();
        // The last ones first.
        for listed in self.list().await?.into_iter().rev() {
            let manifest = listed.manifest?;
            let left = left.entry(manifest.node.clone()).or_insert(keep.get());
            if *left > 0 {
                *left -= 1;
                needed.insert(names::manifest(&listed.id));
                needed.extend(manifest.objects(&listed.id).map(|(object, _)| object));
            } else {
                gone.push(listed.id);
            }
        }
        gone.reverse();
        self.remove(gone.iter().map(names::manifest).collect())
            .await?;
        let mut pruned = Pruned {
            snapshots: gone,
            ..Pruned::default()
        };
        let mut unneeded = Vec::new();
        for folder in [names::SNAPSHOTS, names::SEGMENTS] {
            let folder = Path::from(folder);
            let found = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
            for one in found.map_err(Error::store(&folder))? {
                if !needed.contains(&one.location) {
                    pruned.objects += 1;
                    pruned.bytes += one.size;
                    unneeded.push(one.location);
                }
            }
        }
        self.remove(unneeded).await?;
        Ok(pruned)
    }

    async fn remove(&self, objects: Vec<Path>) -> Result<(), Error> {
        let removed = objects.into_iter().map(|object| self.gone(object).boxed());
        let removed = some_of(removed).buffer_unordered(REQUESTS_MAX);
        removed.try_collect::<()>().await
    }

    async fn gone(&self, object: Path) -> Result<(), Error> {
        match self.store.delete(&object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::store(&object)(error)),
        }
    }
}
