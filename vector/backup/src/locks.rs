//! Who is at work: snapshots of different nodes may be taken at once, but nothing is pruned meanwhile.
//!
//! Invariant: one who begins leaves a mark first and looks for others' then, so that of a writer and a
//! pruner at least one sees the other, and steps back. A mark that is older than [`DEAD_MS`] was left
//! by a process that died; a writer also removes those of its own node, which takes one snapshot at a
//! time.

use crate::Stamp;
use crate::error::Error;
use crate::names::{LOCKS, SnapshotId};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;

/// A mark counts for a day.
const DEAD_MS: u64 = 24 * 3_600 * 1_000;

/// A mark, until it is let go of.
pub struct Lock {
    store: Arc<dyn ObjectStore>,
    mark: Path,
}

impl Lock {
    /// For a snapshot of a node.
    pub async fn write(
        store: &Arc<dyn ObjectStore>,
        node: &str,
        stamp: Stamp,
    ) -> Result<Self, Error> {
        let id = SnapshotId::new(stamp.now_ms, stamp.chance);
        let own = Path::from(format!("{LOCKS}/write/{node}"));
        let lock = Self::mark(store, own.clone().join(id.as_str())).await?;
        for other in marks(store, &own, 0).await? {
            if other != lock.mark {
                store.delete(&other).await.map_err(Error::store(&other))?;
            }
        }
        lock.alone(&Path::from(format!("{LOCKS}/prune")), stamp)
            .await
    }

    /// For pruning.
    pub async fn prune(store: &Arc<dyn ObjectStore>, stamp: Stamp) -> Result<Self, Error> {
        let id = SnapshotId::new(stamp.now_ms, stamp.chance);
        let lock = Self::mark(store, Path::from(format!("{LOCKS}/prune/{id}"))).await?;
        lock.alone(&Path::from(LOCKS), stamp).await
    }

    async fn mark(store: &Arc<dyn ObjectStore>, mark: Path) -> Result<Self, Error> {
        let put = store.put(&mark, mark.to_string().into()).await;
        put.map_err(Error::store(&mark))?;
        Ok(Self {
            store: Arc::clone(store),
            mark,
        })
    }

    /// Steps back where another is at work.
    async fn alone(self, folder: &Path, stamp: Stamp) -> Result<Self, Error> {
        let since_ms = stamp.now_ms.saturating_sub(DEAD_MS);
        let found = marks(&self.store, folder, since_ms).await;
        let other = found.map(|marks| marks.into_iter().find(|mark| *mark != self.mark));
        match other {
            Ok(None) => Ok(self),
            Ok(Some(other)) => {
                self.release().await?;
                let holder = other.to_string();
                Err(Error::Busy { holder })
            }
            Err(error) => {
                self.release().await?;
                Err(error)
            }
        }
    }

    pub async fn release(self) -> Result<(), Error> {
        let deleted = self.store.delete(&self.mark).await;
        match deleted {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(Error::store(&self.mark)(error)),
        }
    }
}

/// Marks of a folder and below that are not older.
async fn marks(
    store: &Arc<dyn ObjectStore>,
    folder: &Path,
    since_ms: u64,
) -> Result<Vec<Path>, Error> {
    let found = store.list(Some(folder)).try_collect::<Vec<_>>().await;
    let found = found.map_err(Error::store(folder))?.into_iter();
    let alive = found.filter(|one| {
        let made_ms = u64::try_from(one.last_modified.timestamp_millis());
        made_ms.unwrap_or_default() >= since_ms
    });
    Ok(alive.map(|one| one.location).collect())
}
