//! Restoring: a part of a snapshot becomes a collection in a folder.
//!
//! Invariants: every object is checked, its length before it is fetched and its checksum while it
//! comes; the folder is a collection only when all of it is there.

use crate::error::Error;
use crate::manifest::{Manifest, Part, PartFile};
use crate::names::{self, SnapshotId};
use crate::{CHUNK_BYTES, OBJECTS_MAX, OnProgress, Progress, Snapshots, some_of};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use skerry_vector_index::store::{Restore, StoreError};
use std::path::Path as Folder;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Chunks of one object that are fetched at a time.
const CHUNKS_MAX: usize = 2;

impl Snapshots {
    /// Makes of each part the collection in the folder that `dir_of` says for it. A folder that has a
    /// collection is refused. What an error leaves is no collection.
    pub async fn restore(
        &self,
        id: &SnapshotId,
        manifest: &Manifest,
        dir_of: impl Fn(&Part) -> std::path::PathBuf,
        stop: &CancellationToken,
        progress: OnProgress<'_>,
    ) -> Result<(), Error> {
        let fetching = Fetching {
            store: &self.store,
            done: Mutex::new(Progress {
                bytes_total: manifest.bytes(),
                ..Progress::default()
            }),
            progress,
        };
        for part in &manifest.parts {
            let dir = dir_of(part);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Error::Cancelled),
                done = fetching.part(id, part, &dir) => done?,
            }
        }
        Ok(())
    }
}

struct Fetching<'a> {
    store: &'a Arc<dyn ObjectStore>,
    done: Mutex<Progress>,
    progress: OnProgress<'a>,
}

impl Fetching<'_> {
    async fn part(&self, id: &SnapshotId, part: &Part, dir: &Folder) -> Result<(), Error> {
        let folder = dir.to_owned();
        let restore = blocking(move || Restore::begin(&folder)).await?;
        let restore = Arc::new(restore);
        let files = part.files.iter().map(|file| {
            let object = names::of_file(id, part, file);
            self.file(object, file, &restore).boxed()
        });
        let files = some_of(files).buffer_unordered(OBJECTS_MAX);
        files.try_collect::<()>().await?;
        // What the pieces are, they are; that they belong together is checked here.
        let finished = blocking(move || restore.finish()).await;
        finished.map_err(|error| match error {
            Error::Collection(StoreError::Corrupt { what, .. }) => {
                Error::corrupt(&names::manifest(id), format!("part {}: {what}", part.name))
            }
            error => error,
        })
    }

    async fn file(
        &self,
        object: Path,
        file: &PartFile,
        restore: &Arc<Restore>,
    ) -> Result<(), Error> {
        let object = &object;
        let found = self
            .store
            .head(object)
            .await
            .map_err(Error::named(object))?;
        if found.size != file.bytes {
            let what = format!("it has {} bytes of {}", found.size, file.bytes);
            return Err(Error::corrupt(object, what));
        }
        let (name, mine) = (file.name.clone(), Arc::clone(restore));
        let mut to = blocking(move || mine.file(&name)).await?;
        let chunk = CHUNK_BYTES as u64;
        let ranges = (0..file.bytes.div_ceil(chunk)).map(|at| {
            let from = at * chunk;
            from..file.bytes.min(from + chunk)
        });
        let (store, from) = (Arc::clone(self.store), object.clone());
        let chunks = ranges.map(move |range| {
            let (store, from) = (Arc::clone(&store), from.clone());
            async move { store.get_range(&from, range).await }
        });
        let mut chunks = futures::stream::iter(chunks).buffered(CHUNKS_MAX);
        while let Some(bytes) = chunks.next().await {
            let bytes = bytes.map_err(Error::named(object))?;
            let count = bytes.len() as u64;
            to = blocking(move || {
                to.write(&bytes)?;
                Ok(to)
            })
            .await?;
            self.came(count);
        }
        if blocking(move || to.end()).await? != (file.bytes, file.crc32c) {
            return Err(Error::corrupt(object, "its checksum is wrong"));
        }
        Ok(())
    }

    fn came(&self, bytes: u64) {
        let mut done = self.done.lock();
        done.bytes_done += bytes;
        done.bytes_moved += bytes;
        (self.progress)(&done);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| Error::Cancelled)??)
}
