//! Create-only writes and patient reads, on top of any [`ObjectStore`].
//!
//! All passing failures are waited out here, for ever, with backoff: a store that is away costs memory and time, never
//! data. What comes back is an answer.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use xxhash_rust::xxh3::Xxh3;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An object store, and the prefix below which this program keeps its things.
#[derive(Debug, Clone)]
pub struct StoreRoot {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The prefix, empty for the root.
    pub prefix: Path,
}

/// How a create-only write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there, and ours.
    ByUs,
    /// The object was there already; perhaps by an earlier try of ours whose answer was lost.
    Already,
}

/// Pauses between tries: doubling, with jitter, up to five seconds: so long can it take to notice that all is well.
///
/// The jitter comes from a hash of what is tried, not from a random number, so that a simulation repeats exactly; it
/// still spreads partitions and instances that fail together.
#[derive(Debug)]
pub struct Backoff {
    seed: u64,
    tries: u32,
}

impl Backoff {
    /// For tries of one thing.
    pub fn new(what: &(impl std::hash::Hash + ?Sized)) -> Self {
        let mut hasher = Xxh3::new();
        what.hash(&mut hasher);
        Self { seed: hasher.finish(), tries: 0 }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let full = FIRST_PAUSE.saturating_mul(1 << self.tries.min(10)).min(LONGEST_PAUSE);
        self.tries += 1;
        let mut hasher = Xxh3::with_seed(self.seed);
        self.tries.hash(&mut hasher);
        let share = (hasher.finish() >> 40) as f64 / f64::from(1 << 24);
        full.mul_f64(0.5 + share / 2.0)
    }

    /// Sleeps for the next pause.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }
}

/// Hears of each failure and recovery of a store, for logs, status and metrics.
pub trait StoreHealth {
    /// A call failed and will be tried again.
    fn failing(&self, key: &Path, error: &Error);
    /// A call was answered.
    fn ok(&self);
}

/// Creates an object that must not exist yet.
///
/// `object_store` reports S3's retryable 409 as "already exists" even when nothing was written
/// (apache/arrow-rs-object-store#852), so that answer is believed only if the object can be found.
pub async fn create(root: &StoreRoot, key: &Path, content: Bytes, health: &impl StoreHealth) -> Created {
    let mut backoff = Backoff::new(key.as_ref());
    loop {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let error = match root.store.put_opts(key, PutPayload::from(content.clone()), options).await {
            Ok(_) => {
                health.ok();
                return Created::ByUs;
            }
            Err(error @ Error::AlreadyExists { .. }) => {
                if exists(root, key, health).await {
                    return Created::Already;
                }
                // A conflict passes. A store that ended in the middle of a write may say so until somebody mends it.
                error
            }
            // A store that guards what is there (object lock, a policy against overwriting) may refuse before it looks at
            // the condition. No rights at all look the same, so here too it counts only that the object can be found.
            Err(error @ Error::PermissionDenied { .. }) => {
                if root.store.head(key).await.is_ok() {
                    health.ok();
                    return Created::Already;
                }
                error
            }
            Err(error) => error,
        };
        health.failing(key, &error);
        backoff.pause().await;
    }
}

/// Whether an object exists.
pub async fn exists(root: &StoreRoot, key: &Path, health: &impl StoreHealth) -> bool {
    let found = patiently(key, health, || root.store.head(key)).await;
    found.is_some()
}

/// Reads an object; `None` if there is none.
pub async fn read(root: &StoreRoot, key: &Path, health: &impl StoreHealth) -> Option<Bytes> {
    patiently(key, health, || async { root.store.get(key).await?.bytes().await }).await
}

/// Tries until there is an answer; "not found" is one.
pub async fn patiently<T, F>(key: &Path, health: &impl StoreHealth, mut call: impl FnMut() -> F) -> Option<T>
where
    F: Future<Output = object_store::Result<T>>,
{
    let mut backoff = Backoff::new(key.as_ref());
    loop {
        match call().await {
            Ok(found) => {
                health.ok();
                return Some(found);
            }
            Err(Error::NotFound { .. }) => {
                health.ok();
                return None;
            }
            Err(error) => health.failing(key, &error),
        }
        backoff.pause().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_repeat_exactly() {
        let pauses = |what: &str| {
            let mut backoff = Backoff::new(what);
            (0..12).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        let first = pauses("a");
        assert_eq!(first, pauses("a"));
        assert_ne!(first, pauses("b"));
        assert!(first[0] <= FIRST_PAUSE && first[11] <= LONGEST_PAUSE && first[11] >= LONGEST_PAUSE / 2);
    }
}
