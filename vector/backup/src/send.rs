//! Taking a snapshot: what is not there yet is sent, then the manifest.
//!
//! Invariants: the manifest is written when every object that it names is there; a segment is read
//! past no damage; when one object fails the others stop, and uploads that were begun are given up.

use crate::error::Error;
use crate::locks::Lock;
use crate::manifest::{Kind, Manifest, Part, PartFile};
use crate::names::{self, SnapshotId};
use crate::{CHUNK_BYTES, OBJECTS_MAX, OnProgress, Progress, Snapshots, Stamp, some_of};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use skerry_vector_index::store::{Capture, CapturedFile, CapturedReader};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Memory for what is on its way, in MiB; one chunk is let through whatever its size.
const ROOM_MIB: u32 = 64;
/// Parts of a multipart upload: stores take 10,000.
const PARTS_MAX: u64 = 9_000;

/// What a snapshot is taken of.
pub struct Take {
    pub node: Box<str>,
    /// By their names; all of one kind.
    pub parts: Vec<(Box<str>, Capture)>,
    /// What is kept beside them.
    pub beside: Vec<u8>,
}

impl Snapshots {
    /// Takes a snapshot. Called off by `stop`, it cleans up as far as it can, which dropping it does
    /// not.
    pub async fn take(
        &self,
        take: Take,
        stamp: Stamp,
        stop: &CancellationToken,
        progress: OnProgress<'_>,
    ) -> Result<(SnapshotId, Manifest), Error> {
        let spec = take.parts.first().map(|(_, capture)| capture.spec());
        let spec = spec.ok_or_else(|| Error::Missing("there is nothing to keep".to_owned()))?;
        let place = self.claim(&Kind::from(spec), stamp).await?;
        let lock = Lock::write(&self.store, &take.node, stamp).await?;
        let id = SnapshotId::new(stamp.now_ms, stamp.chance);
        let mut manifest = Manifest::new(&place, &id, stamp.now_ms, &take.node);
        let done = self.fill(&mut manifest, &id, take, stop, progress).await;
        let released = lock.release().await;
        done?;
        released?;
        Ok((id, manifest))
    }

    async fn fill(
        &self,
        manifest: &mut Manifest,
        id: &SnapshotId,
        take: Take,
        stop: &CancellationToken,
        progress: OnProgress<'_>,
    ) -> Result<(), Error> {
        let files = take.parts.iter().flat_map(|(_, capture)| capture.files());
        let total = Progress {
            bytes_total: files.map(|file| file.bytes()).sum(),
            ..Progress::default()
        };
        progress(&total);
        let sending = Sending {
            store: &self.store,
            known: self.known().await?,
            room: Arc::new(Semaphore::new(ROOM_MIB as usize)),
            stop: stop.child_token(),
            done: Mutex::new(total),
            progress,
        };
        for (name, capture) in &take.parts {
            manifest.parts.push(Part {
                name: name.clone(),
                seq: capture.seq(),
                rows: capture.rows() as u64,
                files: sending.part(id, name, capture).await?,
            });
        }
        manifest.beside = take.beside;
        let object = names::manifest(id);
        let bytes = manifest.encode(&object)?;
        let put = self.store.put(&object, bytes.into()).await;
        put.map_err(Error::store(&object))?;
        Ok(())
    }

    /// The segments that snapshots have, and their checksums.
    async fn known(&self) -> Result<HashMap<Path, PartFile>, Error> {
        let mut known = HashMap::new();
        for listed in self.list().await? {
            match &listed.manifest {
                Ok(manifest) => {
                    let shared = manifest.objects(&listed.id);
                    let shared = shared.filter(|(_, file)| file.identity.is_some());
                    known.extend(shared.map(|(object, file)| (object, file.clone())));
                }
                // It costs the sending of what only it knows.
                Err(error) => {
                    tracing::warn!(snapshot = %listed.id, code = error.code(), %error, "passed over");
                }
            }
        }
        Ok(known)
    }
}

struct Sending<'a> {
    store: &'a Arc<dyn ObjectStore>,
    known: HashMap<Path, PartFile>,
    /// For chunks in memory, in MiB.
    room: Arc<Semaphore>,
    stop: CancellationToken,
    done: Mutex<Progress>,
    progress: OnProgress<'a>,
}

impl Sending<'_> {
    /// Sends the files of a collection, several at a time.
    async fn part(
        &self,
        id: &SnapshotId,
        part: &str,
        capture: &Capture,
    ) -> Result<Vec<PartFile>, Error> {
        let sent = capture.files().iter().map(|file| {
            let object = names::file(id, part, file.name(), file.bytes(), file.identity());
            self.file_or_stop(object, file).boxed()
        });
        // All of them to their ends: who stops gives up what it began.
        let sent = some_of(sent).buffered(OBJECTS_MAX);
        let sent: Vec<Result<PartFile, Error>> = sent.collect().await;
        let mut files = Vec::new();
        let mut stopped = false;
        for one in sent {
            match one {
                Ok(file) => files.push(file),
                Err(Error::Cancelled) => stopped = true,
                Err(error) => return Err(error),
            }
        }
        if stopped {
            return Err(Error::Cancelled);
        }
        Ok(files)
    }

    async fn file_or_stop(
        &self,
        object: Path,
        file: &Arc<CapturedFile>,
    ) -> Result<PartFile, Error> {
        let sent = self.file(&object, file).await;
        if sent.is_err() {
            self.stop.cancel();
        }
        sent
    }

    async fn file(&self, object: &Path, file: &Arc<CapturedFile>) -> Result<PartFile, Error> {
        let entry = |crc32c| PartFile {
            name: file.name().into(),
            bytes: file.bytes(),
            crc32c,
            identity: file.identity(),
        };
        if file.identity().is_some() && self.is_there(object, file.bytes()).await? {
            if let Some(known) = self.known.get(object) {
                self.went(file.bytes(), 0);
                return Ok(known.clone());
            }
            // Of a snapshot that came to no end: whole, or it would not be there.
            return self.read_through(file).await.map(entry);
        }
        if file.bytes() <= CHUNK_BYTES as u64 {
            let chunk = self.chunk(file.reader(), CHUNK_BYTES).await?;
            let crc = crc32c::crc32c(&chunk.bytes);
            let put = self.store.put(object, chunk.bytes.into()).await;
            put.map_err(Error::store(object))?;
            self.went(file.bytes(), file.bytes());
            return Ok(entry(crc));
        }
        let upload = self.store.put_multipart(object).await;
        let mut upload = upload.map_err(Error::store(object))?;
        match self.parts(object, file, upload.as_mut()).await {
            Ok(crc) => {
                upload.complete().await.map_err(Error::store(object))?;
                Ok(entry(crc))
            }
            Err(error) => {
                // What cannot be given up now is the store's to clean up.
                if let Err(left) = upload.abort().await {
                    tracing::warn!(%object, error = %left, "parts of an upload may be left");
                }
                Err(error)
            }
        }
    }

    /// Sends the parts of a large object; its checksum.
    async fn parts(
        &self,
        object: &Path,
        file: &Arc<CapturedFile>,
        upload: &mut dyn MultipartUpload,
    ) -> Result<u32, Error> {
        let part_bytes = part_bytes(file.bytes());
        let mut reader = file.reader();
        let mut crc = 0;
        let mut left = file.bytes();
        let mut sent = JoinSet::new();
        while left > 0 {
            let chunk = self.chunk(reader, part_bytes).await?;
            reader = chunk.reader;
            let count = chunk.bytes.len() as u64;
            crc = crc32c::crc32c_append(crc, &chunk.bytes);
            left = left.saturating_sub(count);
            let part = upload.put_part(chunk.bytes.into());
            let room = chunk.room;
            sent.spawn(async move {
                let _room = room;
                part.await.map(|()| count)
            });
            while let Some(one) = sent.try_join_next() {
                self.arrived(object, one)?;
            }
        }
        while let Some(one) = sent.join_next().await {
            self.arrived(object, one)?;
        }
        Ok(crc)
    }

    fn arrived(
        &self,
        object: &Path,
        part: Result<object_store::Result<u64>, tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let part = part
            .map_err(object_store::Error::from)
            .and_then(|part| part);
        let bytes = part.map_err(Error::store(object))?;
        self.went(bytes, bytes);
        Ok(())
    }

    async fn is_there(&self, object: &Path, bytes: u64) -> Result<bool, Error> {
        match self.store.head(object).await {
            Ok(meta) => Ok(meta.size == bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::store(object)(error)),
        }
    }

    async fn read_through(&self, file: &Arc<CapturedFile>) -> Result<u32, Error> {
        let mut reader = file.reader();
        let (mut crc, mut left) = (0, file.bytes());
        while left > 0 {
            let chunk = self.chunk(reader, CHUNK_BYTES).await?;
            reader = chunk.reader;
            crc = crc32c::crc32c_append(crc, &chunk.bytes);
            left = left.saturating_sub(chunk.bytes.len() as u64);
            self.went(chunk.bytes.len() as u64, 0);
        }
        Ok(crc)
    }

    /// Reads the next `most` bytes of a file, or what is left of it, when there is room for them.
    async fn chunk(&self, reader: CapturedReader, most: usize) -> Result<Chunk, Error> {
        let mib = u32::try_from(most.div_ceil(1 << 20)).unwrap_or(ROOM_MIB);
        let room = Arc::clone(&self.room).acquire_many_owned(mib.clamp(1, ROOM_MIB));
        let room = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Error::Cancelled),
            room = room => room.map_err(|_| Error::Cancelled)?,
        };
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = reader;
            let mut bytes = vec![0; most];
            let mut filled = 0;
            while let Some(into) = bytes.get_mut(filled..).filter(|into| !into.is_empty()) {
                match reader.read(into)? {
                    0 => break,
                    count => filled += count,
                }
            }
            bytes.truncate(filled);
            Ok::<_, Error>((reader, Bytes::from(bytes)))
        });
        let (reader, bytes) = read.await.map_err(|_| Error::Cancelled)??;
        Ok(Chunk {
            reader,
            bytes,
            room,
        })
    }

    fn went(&self, bytes: u64, moved: u64) {
        let mut done = self.done.lock();
        done.bytes_done += bytes;
        done.bytes_moved += moved;
        (self.progress)(&done);
    }
}

/// Bytes of a file, and where the next are read. Room is held for them until they are gone.
struct Chunk {
    reader: CapturedReader,
    bytes: Bytes,
    room: tokio::sync::OwnedSemaphorePermit,
}

/// So that an object has no more than [`PARTS_MAX`] parts.
fn part_bytes(bytes: u64) -> usize {
    let least = bytes.div_ceil(PARTS_MAX).next_multiple_of(1 << 20);
    usize::try_from(least)
        .unwrap_or(usize::MAX)
        .max(CHUNK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_upload_has_too_many_parts(bytes in 1u64..1 << 42) {
            let part = part_bytes(bytes) as u64;
            prop_assert!(bytes.div_ceil(part) <= PARTS_MAX);
            prop_assert!(part >= 8 << 20 && part.is_multiple_of(1 << 20));
            prop_assert!(bytes > 70 << 30 || part == 8 << 20);
        }
    }
}
