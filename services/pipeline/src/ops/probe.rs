//! Is create-only really atomic on this store? Everything rests on it, and not every store that takes the header keeps
//! the promise.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode};

use super::advice::Advise;
use crate::storage::StoreRoot;

/// How many create at once.
const RACERS: usize = 32;

/// A race without a winner, or whose winner cannot be seen, says nothing; so often another is run.
const ROUNDS: usize = 5;

/// Pause before the next race.
const PAUSE: Duration = Duration::from_millis(200);

/// Longest time for all of it.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Where the probes' objects are, below the prefix. Listings of topics never look there.
const PLACE: &str = "_create_only_probe";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// More than one creator was told that it had won, or a loser's content is there. It never gets better.
    #[error("{store} does not create atomically: {detail}")]
    NotAtomic {
        /// The store and the prefix.
        store: String,
        /// What was seen.
        detail: String,
    },
    /// The probe could not be carried out. It may get better.
    #[error("{store} could not be probed")]
    Unusable {
        /// The store and the prefix.
        store: String,
        /// The last failure.
        #[source]
        source: Error,
    },
    /// No race came to a result in the time.
    #[error("{store} could not be probed: {detail}")]
    Inconclusive {
        /// The store and the prefix.
        store: String,
        /// What was seen.
        detail: String,
    },
}

impl ProbeError {
    /// Whether it is of any use to try again.
    pub fn may_get_better(&self) -> bool {
        !matches!(self, Self::NotAtomic { .. })
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::NotAtomic { .. } => {
                "use a store with conditional writes (AWS S3; a current versitygw, SeaweedFS or RustFS; or file://): \
                 without them two processes could overwrite each other's segments"
            }
            Self::Unusable { source: Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, .. } => {
                "check the AWS_ credentials, and that they may put, get and list objects there"
            }
            Self::Unusable { source: Error::NotFound { .. }, .. } => "create the bucket",
            _ => "check the URL, object_store.endpoint, and that the store is reachable from here",
        }
    }
}

/// Runs races until one has a result, and refuses a store on which more than one creator can win.
///
/// # Errors
/// With advice for the person who reads it; the cause is a [`ProbeError`].
pub async fn create_only(root: &StoreRoot) -> anyhow::Result<()> {
    probe(root).await.or_else(|error| {
        let advice = error.advice();
        Err(error).advise("the object store cannot be used", advice)
    })
}

/// As [`create_only`], for callers that decide by the kind of the error.
pub async fn probe(root: &StoreRoot) -> Result<(), ProbeError> {
    let name = || format!("{} (prefix {:?})", root.store, root.prefix.as_ref());
    let mut last = Race::default();
    let races = async {
        for _ in 0..ROUNDS {
            last = race(root).await;
            if let Some(detail) = &last.violation {
                return Err(ProbeError::NotAtomic { store: name(), detail: detail.clone() });
            }
            if last.conclusive {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        match last.failure.take() {
            Some(source) => Err(ProbeError::Unusable { store: name(), source }),
            None => {
                Err(ProbeError::Inconclusive { store: name(), detail: format!("no creator won in {ROUNDS} races") })
            }
        }
    };
    tokio::time::timeout(TIMEOUT, races).await.unwrap_or_else(|_| {
        Err(ProbeError::Inconclusive { store: name(), detail: format!("no answer in {} s", TIMEOUT.as_secs()) })
    })
}

/// What one race has shown.
#[derive(Debug, Default)]
struct Race {
    /// Exactly one won, and its content is there.
    conclusive: bool,
    /// What must not be.
    violation: Option<String>,
    failure: Option<Error>,
}

/// All racers create one fresh key at once, each with another content.
async fn race(root: &StoreRoot) -> Race {
    let key = root.prefix.clone().join(PLACE).join(format!("{:016x}", rand::random::<u64>()));
    let creations = (0..RACERS).map(|racer| {
        let key = &key;
        async move {
            let content = content_of(racer);
            root.store.put_opts(key, content.into(), PutMode::Create.into()).await
        }
    });
    let results = join_all(creations).await;
    let mut race = judge(root, &key, results).await;
    // Where the policy forbids deletion, a small object stays behind each start; it is in nobody's way.
    if let Err(error) = root.store.delete(&key).await
        && !matches!(error, Error::NotFound { .. })
    {
        tracing::debug!(%key, %error, "the probe's object could not be deleted");
        race.failure.get_or_insert(error);
    }
    race
}

async fn judge(root: &StoreRoot, key: &Path, results: Vec<Result<object_store::PutResult, Error>>) -> Race {
    let mut race = Race::default();
    let mut winners = Vec::new();
    for (racer, result) in results.into_iter().enumerate() {
        match result {
            Ok(_) => winners.push(racer),
            // S3's "conflict, try again" looks the same, so this alone does not prove that the object is there.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(error @ (Error::NotImplemented { .. } | Error::NotSupported { .. })) => {
                race.violation = Some(format!("it has no create-only writes: {error}"));
                return race;
            }
            Err(error) => race.failure = Some(error),
        }
    }
    if winners.len() > 1 {
        race.violation = Some(format!("{} of {RACERS} creators of one key were told that they had won", winners.len()));
        return race;
    }
    let found = match read(root, key).await {
        Ok(found) => found,
        // Nobody won and nothing is there: what kept the creators from it is the failure, not this.
        Err(Error::NotFound { .. }) if winners.is_empty() => return race,
        Err(error) => {
            race.failure = Some(error);
            return race;
        }
    };
    match (winners.first(), found) {
        (Some(winner), found) if found == content_of(*winner) => race.conclusive = true,
        (Some(_), _) => race.violation = Some("the winner's content was replaced by a loser's".to_owned()),
        // The winner's answer was lost on the way, or came as a failure: another race will tell.
        (None, _) => {}
    }
    if race.conclusive {
        let late = root.store.put_opts(key, "late".into(), PutMode::Create.into()).await;
        if late.is_ok() {
            race.violation = Some("an object that had been there for a while was created again".to_owned());
        }
    }
    race
}

async fn read(root: &StoreRoot, key: &Path) -> Result<Bytes, Error> {
    root.store.get(key).await?.bytes().await
}

fn content_of(racer: usize) -> Bytes {
    format!("racer {racer}").into()
}

#[cfg(test)]
mod tests;
