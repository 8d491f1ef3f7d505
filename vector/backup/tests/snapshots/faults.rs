//! A store in memory that fails on cue.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

/// Changes are counted: puts, parts, ends of uploads, removals.
#[derive(Debug, Default)]
struct Cue {
    /// Changes until one fails.
    left: AtomicI64,
    /// That one alone, or all after it too.
    dies: AtomicBool,
    aborted: AtomicUsize,
}

impl Cue {
    fn change(&self) -> Result<()> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 || (left < 0 && self.dies.load(Ordering::SeqCst)) {
            return Err(Error::Generic {
                store: "faults",
                source: "on cue".into(),
            });
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub inner: Arc<InMemory>,
    cue: Arc<Cue>,
}

impl Faults {
    /// The `n`th change from now fails, and all after it where the process `dies`.
    pub fn fail(&self, n: i64, dies: bool) {
        self.cue.left.store(n, Ordering::SeqCst);
        self.cue.dies.store(dies, Ordering::SeqCst);
    }

    pub fn never(&self) {
        self.fail(i64::MAX, false);
    }

    /// Whether the change that was to fail has come.
    pub fn has_failed(&self) -> bool {
        self.cue.left.load(Ordering::SeqCst) < 0
    }

    pub fn aborted(&self) -> usize {
        self.cue.aborted.load(Ordering::SeqCst)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faults")
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    cue: Arc<Cue>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let change = self.cue.change();
        let part = self.inner.put_part(data);
        Box::pin(async move {
            change?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.cue.change()?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.cue.aborted.fetch_add(1, Ordering::SeqCst);
        self.inner.abort().await
    }
}

#[async_trait]
impl ObjectStore for Faults {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.cue.change()?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.cue.change()?;
        Ok(Box::new(Upload {
            inner: self.inner.put_multipart_opts(location, options).await?,
            cue: Arc::clone(&self.cue),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.then(move |location| {
            let this = this.clone();
            async move {
                let location = location?;
                this.cue.change()?;
                let one = futures::stream::iter([Ok(location.clone())]).boxed();
                this.inner
                    .delete_stream(one)
                    .next()
                    .await
                    .unwrap_or(Ok(location))
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.cue.change()?;
        self.inner.copy_opts(from, to, options).await
    }
}
