//! Is create-only really atomic on this store? Everything rests on it, and not every store that takes the header keeps
//! the promise.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode};
use tokio::time::Instant;

use super::Dependency;
use super::advice::{Advise, causes};
use super::status::StatusBoard;
use crate::storage::{Backoff, StoreRoot};

/// How many create at once.
const RACERS: usize = 32;

/// A race without a winner, or whose winner cannot be seen, says nothing; so often another is run.
const ROUNDS: usize = 5;

/// Pause before the next race.
const PAUSE: Duration = Duration::from_millis(200);

/// Longest time for one race.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How often it is said again that the start waits for a store.
const SAY_AGAIN: Duration = Duration::from_secs(30);

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
    /// Whether it is of any use to try again. Access that is denied and a bucket that is missing are answers: the store
    /// is there, and a person must do something.
    pub fn may_get_better(&self) -> bool {
        match self {
            Self::NotAtomic { .. } => false,
            Self::Inconclusive { .. } => true,
            Self::Unusable { source, .. } => {
                !is_denied(source) && !is_forbidden(source) && !matches!(source, Error::NotFound { .. })
            }
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::NotAtomic { .. } => {
                "use a store with conditional writes (AWS S3; a current versitygw, SeaweedFS or RustFS; or file://): \
                 without them two processes could overwrite each other's segments"
            }
            Self::Unusable { source, .. } if is_denied(source) => {
                "check the AWS_ credentials, and that they may put, get and list objects there"
            }
            Self::Unusable { source: Error::NotFound { .. }, .. } => "create the bucket",
            Self::Unusable { source, .. } if is_forbidden(source) => {
                "give this user the right to write into the directory"
            }
            _ => "check the URL, object_store.endpoint, and that the store is reachable from here",
        }
    }
}

/// Whether the store denies us access.
fn is_denied(error: &Error) -> bool {
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. })
}

/// Whether the file system forbids it. `object_store` has no kind of its own for that.
fn is_forbidden(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
        }
        cause = error.source();
    }
    false
}

/// Runs races until one has a result, and refuses a store on which more than one creator can win.
///
/// # Errors
/// With advice for the person who reads it; the cause is a [`ProbeError`].
pub async fn create_only(root: &StoreRoot) -> anyhow::Result<()> {
    probe(root).await.or_else(with_advice)
}

/// As [`create_only`], for a start that must not fail because a store is away: waits for it, for ever, and says so in
/// the log and on the board. `key` is the key of the configuration that names the store.
///
/// # Errors
/// If waiting is of no use; with advice.
pub async fn wait_until_usable(key: &str, root: &StoreRoot, board: &StatusBoard) -> anyhow::Result<()> {
    let (mut backoff, mut said_at) = (Backoff::new(key), Instant::now());
    loop {
        let error = match run_race(root).await {
            Ok(()) => {
                board.dependency_ok(Dependency::ObjectStore);
                return Ok(());
            }
            Err(error) if !error.may_get_better() => return with_advice(error),
            Err(error) => format!("{key}: {}", causes(&error.into()).join(": ")),
        };
        if said_at.elapsed() >= SAY_AGAIN {
            said_at = Instant::now();
            tracing::warn!(error, "still waiting for the object store before records are taken in");
        }
        board.dependency_failing(Dependency::ObjectStore, error);
        backoff.pause().await;
    }
}

fn with_advice(error: ProbeError) -> anyhow::Result<()> {
    let advice = error.advice();
    Err(error).advise("the object store cannot be used", advice)
}

/// As [`create_only`], for callers that decide by the kind of the error.
pub async fn probe(root: &StoreRoot) -> Result<(), ProbeError> {
    let mut round = 1;
    loop {
        match run_race(root).await {
            Err(error) if error.may_get_better() && round < ROUNDS => tokio::time::sleep(PAUSE).await,
            result => return result,
        }
        round += 1;
    }
}

/// One race, and what it says of the store.
async fn run_race(root: &StoreRoot) -> Result<(), ProbeError> {
    let store = format!("{} (prefix {:?})", root.store, root.prefix.as_ref());
    let Ok(race) = tokio::time::timeout(TIMEOUT, race(root)).await else {
        return Err(ProbeError::Inconclusive { store, detail: format!("no answer in {} s", TIMEOUT.as_secs()) });
    };
    match race {
        Race { violation: Some(detail), .. } => Err(ProbeError::NotAtomic { store, detail }),
        Race { conclusive: true, .. } => Ok(()),
        Race { failure: Some(source), .. } => Err(ProbeError::Unusable { store, source }),
        Race { .. } => Err(ProbeError::Inconclusive {
            store,
            detail: "of many that created an object at once none won".to_owned(),
        }),
    }
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
