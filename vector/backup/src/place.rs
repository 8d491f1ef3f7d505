//! A place for snapshots: where it is, whose it is, and which snapshots it has.

use crate::error::Error;
use crate::manifest::{Kind, Manifest, Place};
use crate::names::{self, SnapshotId};
use crate::{REQUESTS_MAX, Stamp, some_of};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::sync::Arc;
use url::Url;

/// Largest manifest, in bytes.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// The snapshots of a place.
#[derive(Debug, Clone)]
pub struct Snapshots {
    pub(crate) store: Arc<dyn ObjectStore>,
    url: Box<str>,
}

/// A snapshot of a place, as far as it can be read.
#[derive(Debug)]
pub struct Listed {
    pub id: SnapshotId,
    pub manifest: Result<Manifest, Error>,
}

impl Snapshots {
    /// A folder (`file:///folder`, or a path) or a bucket (`s3://bucket/prefix`). Blocks a little.
    pub fn open(url: &str) -> Result<Self, Error> {
        Ok(Self {
            store: store_of(url, false)?,
            url: url.into(),
        })
    }

    /// The same, to put something there: a folder is made where it is missing.
    pub fn open_or_make(url: &str) -> Result<Self, Error> {
        Ok(Self {
            store: store_of(url, true)?,
            url: url.into(),
        })
    }

    /// In a store of the caller's own.
    #[must_use]
    pub fn in_store(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            url: store.to_string().into(),
            store,
        }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A small object; nothing where there is none.
    pub(crate) async fn small(&self, object: &Path) -> Result<Option<Bytes>, Error> {
        let found = match self.store.get(object).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::store(object)(error)),
        };
        if found.meta.size > MANIFEST_BYTES_MAX {
            return Err(Error::corrupt(object, "it is far too long"));
        }
        found.bytes().await.map(Some).map_err(Error::store(object))
    }

    /// Whose this place is; made this collection's where it is nobody's.
    pub(crate) async fn claim(&self, kind: &Kind, stamp: Stamp) -> Result<Place, Error> {
        let object = names::place();
        if self.small(&object).await?.is_none() {
            let place = Place {
                id: stamp.chance,
                kind: kind.clone(),
            };
            let bytes = place.encode(&object)?;
            let mode = PutOptions::from(PutMode::Create);
            let put = self.store.put_opts(&object, bytes.into(), mode).await;
            match put {
                // Another was quicker.
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(Error::store(&object)(error)),
            }
        }
        let place = self.place().await?;
        if place.kind != *kind {
            let what = format!("it has {}, this one {kind}", place.kind);
            let object = object.to_string();
            return Err(Error::Foreign { object, what });
        }
        Ok(place)
    }

    async fn place(&self) -> Result<Place, Error> {
        let object = names::place();
        match self.small(&object).await? {
            Some(bytes) => Place::decode(&object, &bytes),
            None => Err(Error::Missing(format!(
                "there are no snapshots at {}",
                self.url
            ))),
        }
    }

    /// All snapshots, oldest first. One that cannot be read is among them.
    pub async fn list(&self) -> Result<Vec<Listed>, Error> {
        let place = self.place().await?;
        let prefix = Path::from(names::SNAPSHOTS);
        let found = self.store.list_with_delimiter(Some(&prefix)).await;
        let objects = found.map_err(Error::store(&prefix))?.objects;
        let ids = objects.iter();
        let mut ids: Vec<_> = ids
            .filter_map(|one| names::of_manifest(&one.location))
            .collect();
        ids.sort_unstable();
        let read = ids.into_iter().map(|id| self.listed(&place, id).boxed());
        let read = some_of(read).buffered(REQUESTS_MAX);
        read.try_collect().await
    }

    async fn listed(&self, place: &Place, id: SnapshotId) -> Result<Listed, Error> {
        match self.read(place, &id).await {
            // The store's own failure says nothing of the snapshot.
            Err(error @ (Error::Store { .. } | Error::Denied { .. })) => Err(error),
            manifest => Ok(Listed { id, manifest }),
        }
    }

    async fn read(&self, place: &Place, id: &SnapshotId) -> Result<Manifest, Error> {
        let object = names::manifest(id);
        match self.small(&object).await? {
            Some(bytes) => Manifest::decode(id, place, &bytes),
            None => Err(Error::Missing(format!(
                "there is no snapshot {id} at {}",
                self.url
            ))),
        }
    }

    /// A snapshot by its name, or the last one: of all, where they are of one node.
    pub async fn find(&self, id: Option<&SnapshotId>) -> Result<(SnapshotId, Manifest), Error> {
        if let Some(id) = id {
            let manifest = self.read(&self.place().await?, id).await?;
            return Ok((id.clone(), manifest));
        }
        let mut all = self.list().await?;
        let readable = all.iter().filter_map(|one| one.manifest.as_ref().ok());
        let mut nodes: Vec<&str> = readable.map(|manifest| &*manifest.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.len() > 1 {
            let nodes = nodes.join(", ");
            let what = format!("there are snapshots of several nodes ({nodes}): name the one");
            return Err(Error::Missing(what));
        }
        match all.pop() {
            Some(last) => Ok((last.id, last.manifest?)),
            None => Err(Error::Missing(format!(
                "there are no snapshots at {}",
                self.url
            ))),
        }
    }
}

fn store_of(text: &str, make: bool) -> Result<Arc<dyn ObjectStore>, Error> {
    let refuse = |reason: String| Error::Url {
        url: text.to_owned(),
        reason,
    };
    let folder = if text.contains("://") {
        let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
        match url.scheme() {
            "file" => url.to_file_path(),
            "s3" => return bucket(&url),
            other => return Err(refuse(format!("{other:?} is neither file nor s3"))),
        }
        .map_err(|()| refuse("it names no folder of this machine".to_owned()))?
    } else {
        text.into()
    };
    if make {
        std::fs::create_dir_all(&folder).map_err(|error| refuse(error.to_string()))?;
    } else if !folder.is_dir() {
        return Err(refuse("there is no such folder".to_owned()));
    }
    let files = LocalFileSystem::new_with_prefix(&folder);
    let files = files.map_err(|error| refuse(error.to_string()))?;
    Ok(Arc::new(
        files.with_fsync(true).with_automatic_cleanup(true),
    ))
}

#[cfg(feature = "s3")]
fn bucket(url: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
    crate::s3::open(url)
}

#[cfg(not(feature = "s3"))]
fn bucket(_: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
    Err(Error::NotBuiltIn {
        what: "S3",
        feature: "s3",
    })
}
