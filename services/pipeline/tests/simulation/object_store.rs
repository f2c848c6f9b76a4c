//! An object store in memory that fails, loses acknowledgements and reports conflicts that are none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, Extensions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::mutation::{Mutation, without_readings, without_watermark};
use crate::world::{World, lock};

#[derive(Debug, Clone)]
pub(crate) struct SimStore {
    pub(crate) world: Arc<World>,
    /// Without faults, for the invariants.
    pub(crate) inner: Arc<InMemory>,
    /// What was last refused at a place, for [`Mutation::UncheckedConflict`].
    refused: Arc<Mutex<BTreeMap<Path, PutPayload>>>,
}

impl SimStore {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), inner: Arc::new(InMemory::new()), refused: Arc::default() }
    }

    fn fault(&self, what: &'static str) -> Error {
        self.world.count(|outcome| outcome.store_faults += 1);
        Error::Generic { store: "simulated", source: what.into() }
    }

    /// The options that a mutated protocol would use, or `None` if it would not write now.
    fn mutate_put(&self, location: &Path, payload: &PutPayload, mut options: PutOptions) -> Option<PutOptions> {
        let is_below = |prefix: &str| location.as_ref().starts_with(prefix);
        if self.world.breaks_rule(Mutation::OverwritingPut) && is_below("archive/") {
            options.mode = PutMode::Overwrite;
        }
        let is_late = (self.world.breaks_rule(Mutation::CommitBeforeSnapshot) && is_below("state/"))
            || (self.world.breaks_rule(Mutation::CommitBeforeDeadLetters) && is_below("dead/"));
        if is_late && !location.as_ref().ends_with("/start") {
            let (inner, location, payload) = (Arc::clone(&self.inner), location.clone(), payload.clone());
            self.world.later(async move { _ = inner.put_opts(&location, payload, options).await });
            return None;
        }
        Some(options)
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
        let Some(options) = self.mutate_put(location, &payload, options) else {
            return Ok(PutResult { e_tag: None, version: None, extensions: Extensions::default() });
        };
        if self.world.happens(self.world.faults().false_conflicts) {
            // S3's retryable 409, as object_store reports it: nothing was written.
            let source = self.fault("409 conflicting conditional operation");
            return Err(Error::AlreadyExists { path: location.to_string(), source: Box::new(source) });
        }
        let result = self.inner.put_opts(location, payload.clone(), options).await;
        if matches!(result, Err(Error::AlreadyExists { .. })) {
            lock(&self.refused).insert(location.clone(), payload);
        }
        let result = result?;
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
        let refused = lock(&self.refused).get(location).cloned();
        if self.world.breaks_rule(Mutation::UncheckedConflict)
            && let Some(refused) = refused
        {
            return serve(location, refused, options).await;
        }
        let found = self.inner.get_opts(location, options).await?;
        let mutations: [(Mutation, fn(&[u8]) -> Option<Vec<u8>>); 2] = [
            (Mutation::ReplayWithoutWatermark, without_watermark),
            (Mutation::ReplayWithoutReadings, without_readings),
        ];
        let broken = mutations.into_iter().find(|(rule, _)| self.world.breaks_rule(*rule));
        let Some((_, without)) = broken.filter(|_| location.as_ref().ends_with(".snapshot")) else { return Ok(found) };
        let mutated = without(&found.bytes().await?).ok_or_else(|| self.fault("not a snapshot"))?;
        serve(location, mutated.into(), GetOptions::default()).await
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

/// As if `payload` were what is kept at `location`.
async fn serve(location: &Path, payload: PutPayload, options: GetOptions) -> Result<GetResult> {
    let store = InMemory::new();
    store.put_opts(location, payload, PutOptions::default()).await?;
    store.get_opts(location, options).await
}
