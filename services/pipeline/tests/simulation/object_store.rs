//! An object store in memory that fails, loses acknowledgements and reports conflicts that are none.

use std::fmt;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::world::World;

#[derive(Debug, Clone)]
pub(crate) struct SimStore {
    pub(crate) world: Arc<World>,
    /// Without faults, for the invariants.
    pub(crate) inner: Arc<InMemory>,
}

impl SimStore {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), inner: Arc::new(InMemory::new()) }
    }

    fn fault(&self, what: &'static str) -> Error {
        self.world.count(|outcome| outcome.store_faults += 1);
        Error::Generic { store: "simulated", source: what.into() }
    }

    async fn may_fail(&self) -> Result<()> {
        self.world.delay().await;
        if self.world.happens(self.world.faults().store_errors) {
            return Err(self.fault("503 slow down"));
        }
        Ok(())
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("simulated store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if !matches!(options.mode, PutMode::Create) {
            self.world.breaks(format!("{location} was written without create-only"));
        }
        self.may_fail().await?;
        if self.world.happens(self.world.faults().false_conflicts) {
            // S3's retryable 409, as object_store reports it: nothing was written.
            let source = self.fault("409 conflicting conditional operation");
            return Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(source) });
        }
        let result = self.inner.put_opts(location, payload, options).await?;
        self.world.delay().await;
        if self.world.happens(self.world.faults().lost_acknowledgements) {
            return Err(self.fault("connection reset after the write"));
        }
        Ok(result)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(self.fault("multipart uploads cannot be create-only"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.may_fail().await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.may_fail().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.fault("nothing is ever copied"))
    }
}
