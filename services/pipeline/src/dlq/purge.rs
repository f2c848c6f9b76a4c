//! Deletes old dead letters, where the bucket lets anybody.

use anyhow::Context as _;
use object_store::{Error, ObjectStoreExt as _, PutMode, PutPayload};
use serde::Serialize;

use super::bucket::Bucket;
use super::purges;
use super::selection::Selection;
use crate::ops::advice::advised;
use crate::verify::listing::{ListedObject, retried};

/// What would be deleted.
#[derive(Debug, Serialize)]
pub struct PurgePlan {
    topic: String,
    /// Whole hours before this one, UTC.
    pub before: String,
    /// Objects; each holds the rejects of one segment.
    pub objects: usize,
    /// Their size.
    pub bytes: u64,
    /// The oldest hour and the newest.
    pub hours: Option<(String, String)>,
    #[serde(skip)]
    hour: i64,
    #[serde(skip)]
    found: Vec<ListedObject>,
}

/// What was deleted.
#[derive(Debug, Serialize)]
pub struct Purge {
    /// Objects.
    pub deleted: usize,
    /// See [`PurgePlan::before`].
    pub before: String,
}

impl PurgePlan {
    /// All objects of hours that ended before `before_ms`: no record in them is younger.
    pub async fn new(bucket: &Bucket, before_ms: i64) -> anyhow::Result<Self> {
        let hour = before_ms.div_euclid(3_600_000);
        let mut found = bucket.objects(&Selection::default()).await?;
        found.retain(|object| object.hour < hour);
        let oldest = found.iter().map(|object| object.hour).min();
        let newest = found.iter().map(|object| object.hour).max();
        Ok(Self {
            topic: bucket.topic.clone(),
            before: purges::shown(hour),
            objects: found.len(),
            bytes: found.iter().map(|object| object.size).sum(),
            hours: oldest.zip(newest).map(|(oldest, newest)| (purges::shown(oldest), purges::shown(newest))),
            hour,
            found,
        })
    }

    /// Deletes them. The mark comes first, so that nobody takes for damage what is missing from then on.
    pub async fn carry_out(self, bucket: &Bucket) -> anyhow::Result<Purge> {
        if self.found.is_empty() {
            return Ok(Purge { deleted: 0, before: self.before });
        }
        self.mark(bucket).await?;
        let mut deleted = 0;
        for object in &self.found {
            let delete = || bucket.root.store.delete(&object.key);
            let is_passing = |error: &Error| !is_denied(error) && !matches!(error, Error::NotFound { .. });
            match retried(&object.key, delete, is_passing).await {
                Ok(()) | Err(Error::NotFound { .. }) => deleted += 1,
                Err(error) if is_denied(&error) => return Err(write_once(&error, deleted)),
                Err(error) => return Err(error).with_context(|| format!("cannot delete {}", object.key)),
            }
        }
        Ok(Purge { deleted, before: self.before })
    }

    async fn mark(&self, bucket: &Bucket) -> anyhow::Result<()> {
        let key = purges::key(&bucket.root.prefix, &self.topic, self.hour);
        let content = serde_json::to_vec(&serde_json::json!({
            "version": 1,
            "before": self.before,
            "at": chrono::Utc::now().to_rfc3339(),
        }))?;
        let put = || bucket.root.store.put_opts(&key, PutPayload::from(content.clone()), PutMode::Create.into());
        let is_passing = |error: &Error| !matches!(error, Error::AlreadyExists { .. } | Error::PermissionDenied { .. });
        match retried(&key, put, is_passing).await {
            // The same purge was begun before.
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
            // A guarded bucket answers so of what is there already, too; without a mark nothing may be deleted.
            Err(error @ Error::PermissionDenied { .. }) => match bucket.root.store.head(&key).await {
                Ok(_) => Ok(()),
                Err(_) => Err(advised(
                    format!("the mark {key} cannot be created: {error}"),
                    "let this user put objects there: the mark tells `kappa verify` that what is missing was purged on purpose",
                )),
            },
            Err(error) => Err(error).with_context(|| format!("cannot create {key}")),
        }
    }
}

/// S3 is asked to delete several at once, and answers for each; `object_store` hands that answer on as text.
fn is_denied(error: &Error) -> bool {
    matches!(error, Error::PermissionDenied { .. }) || error.to_string().contains("AccessDenied")
}

fn write_once(error: &Error, deleted: usize) -> anyhow::Error {
    advised(
        format!("the bucket does not let this user delete ({deleted} objects were deleted): {error}"),
        "a write-once bucket (object lock, or a policy without delete) keeps dead letters on purpose: let its own \
         retention or lifecycle rule remove them, or run this as a user who may delete",
    )
}
