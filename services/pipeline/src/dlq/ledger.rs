//! What was sent again: create-only objects beside the dead letters, two for each batch.
//!
//! `<dead_letter.url>/<topic>/_redrive/<number %010d>.intent.json` names the records before any of them is sent,
//! `….outcome.json` says whether the transaction that carried them counted. An intent without outcome is of a process
//! that runs or has died; [`super::redrive`] settles it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bytes::Bytes;
use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::selection::Address;
use crate::storage::StoreRoot;
use crate::verify::listing::{list, read, retried};

/// Objects that are read at once.
const READ_AT_ONCE: usize = 16;
/// Beside `date=…`; query engines leave out what begins with an underscore.
const FOLDER: &str = "_redrive";
const VERSION: u32 = 1;

/// The two objects of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "explained above")]
pub enum Kind {
    Intent,
    Outcome,
}

/// The records of a batch, written before any of them is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    version: u32,
    /// The number of the batch, from 1 on.
    pub sequence: u64,
    /// Tells processes apart that want the same number.
    run: String,
    /// When, RFC 3339.
    pub at: String,
    /// Runs of neighbours: partition, first offset, how many offsets from it on.
    pub records: Vec<(i32, i64, i64)>,
    /// What was changed on the way, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Whether the transaction of a batch counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of its records are in the log.
    Sent,
    /// None of them is.
    Unsent,
}

#[derive(Debug, Serialize, Deserialize)]
struct OutcomeObject {
    version: u32,
    sequence: u64,
    outcome: Outcome,
    at: String,
}

/// A batch as the ledger knows it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its records.
    pub intent: Intent,
    /// `None` while it is under way, or was interrupted.
    pub outcome: Option<Outcome>,
}

/// All batches, by number.
#[derive(Debug, Clone, Default)]
pub struct Ledger(pub BTreeMap<u64, Batch>);

/// The records that were sent again.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// By partition: first offset, and the one behind the last.
    ranges: BTreeMap<i32, Vec<(i64, i64)>>,
}

/// Whether an object is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Creation {
    Ours,
    Theirs,
}

fn key(prefix: &Path, topic: &str, sequence: u64, kind: Kind) -> Path {
    let kind = match kind {
        Kind::Intent => "intent",
        Kind::Outcome => "outcome",
    };
    prefix.clone().join(topic).join(FOLDER).join(format!("{sequence:010}.{kind}.json").as_str())
}

/// Number and kind of a ledger's key.
pub(super) fn parse_key(prefix: &Path, topic: &str, candidate: &Path) -> Option<(u64, Kind)> {
    let (digits, rest) = candidate.filename()?.split_once('.')?;
    let kind = match rest {
        "intent.json" => Kind::Intent,
        "outcome.json" => Kind::Outcome,
        _ => return None,
    };
    let sequence = digits.parse().ok()?;
    (key(prefix, topic, sequence, kind) == *candidate).then_some((sequence, kind))
}

impl Ledger {
    /// Reads it whole: two small objects for each batch of up to some thousand records.
    pub async fn read(bucket: &Bucket) -> anyhow::Result<Self> {
        Self::read_at(&bucket.root, &bucket.topic).await
    }

    pub(crate) async fn read_at(root: &StoreRoot, topic: &str) -> anyhow::Result<Self> {
        let folder = root.prefix.clone().join(topic).join(FOLDER);
        let keys = list(root, &folder, 1).await?;
        let known = keys.into_iter().filter_map(|(found, _)| Some((parse_key(&root.prefix, topic, &found)?, found)));
        let contents = futures::stream::iter(known).map(async |(of, key)| {
            let content = read(root, &key).await?.unwrap_or_default();
            anyhow::Ok((of, key, content))
        });
        let mut ledger = Self::default();
        let mut outcomes = BTreeMap::new();
        let mut contents = std::pin::pin!(contents.buffer_unordered(READ_AT_ONCE));
        while let Some(((sequence, kind), key, content)) = contents.try_next().await? {
            let damaged = || format!("{key} cannot be read as part of the ledger");
            if kind == Kind::Outcome {
                let object: OutcomeObject = serde_json::from_slice(&content).with_context(damaged)?;
                outcomes.insert(sequence, object.outcome);
                continue;
            }
            let intent = serde_json::from_slice(&content).with_context(damaged)?;
            ledger.0.insert(sequence, Batch { intent, outcome: None });
        }
        for (sequence, outcome) in outcomes {
            if let Some(batch) = ledger.0.get_mut(&sequence) {
                batch.outcome = Some(outcome);
            }
        }
        Ok(ledger)
    }

    /// The records of all batches that count.
    pub fn sent(&self) -> Sent {
        let mut sent = Sent::default();
        for batch in self.0.values().filter(|batch| batch.outcome == Some(Outcome::Sent)) {
            sent.add(&batch.intent);
        }
        sent.sort();
        sent
    }

    /// The batch that sent a record, if one did.
    pub fn batch_of(&self, address: Address) -> Option<&Batch> {
        self.0.values().find(|batch| batch.outcome == Some(Outcome::Sent) && batch.intent.holds(address))
    }

    /// Batches whose outcome nobody has written down.
    pub fn unsettled(&self) -> impl Iterator<Item = &Batch> {
        self.0.values().filter(|batch| batch.outcome.is_none())
    }
}

impl Intent {
    /// For these records.
    pub(super) fn new(sequence: u64, records: &[Address], fix: Option<String>) -> Self {
        Self {
            version: VERSION,
            sequence,
            run: format!("{:016x}", rand::random::<u64>()),
            at: now(),
            records: runs_of(records),
            fix,
        }
    }

    fn holds(&self, address: Address) -> bool {
        self.records.iter().any(|(partition, first, count)| {
            *partition == address.partition && (*first..first.saturating_add(*count)).contains(&address.offset)
        })
    }

    /// How many records.
    pub fn count(&self) -> u64 {
        self.records.iter().map(|(_, _, count)| (*count).max(0) as u64).sum()
    }

    /// Creates it; false if another process has that number already.
    pub(super) async fn create(&self, bucket: &Bucket) -> anyhow::Result<bool> {
        let key = key(&bucket.root.prefix, &bucket.topic, self.sequence, Kind::Intent);
        Ok(create(&bucket.root, &key, serde_json::to_vec(self)?.into()).await? == Creation::Ours)
    }
}

impl Outcome {
    /// Writes it down, for good. Whoever else may do so comes to the same.
    pub(super) async fn create(self, bucket: &Bucket, sequence: u64) -> anyhow::Result<()> {
        let key = key(&bucket.root.prefix, &bucket.topic, sequence, Kind::Outcome);
        let object = OutcomeObject { version: VERSION, sequence, outcome: self, at: now() };
        create(&bucket.root, &key, serde_json::to_vec(&object)?.into()).await?;
        Ok(())
    }
}

impl Sent {
    fn add(&mut self, intent: &Intent) {
        for (partition, first, count) in &intent.records {
            self.ranges.entry(*partition).or_default().push((*first, first.saturating_add(*count)));
        }
    }

    fn sort(&mut self) {
        self.ranges.values_mut().for_each(|ranges| ranges.sort_unstable());
    }

    /// Whether a record was sent again.
    pub fn contains(&self, address: Address) -> bool {
        let Some(ranges) = self.ranges.get(&address.partition) else { return false };
        let behind = ranges.partition_point(|(first, _)| *first <= address.offset);
        behind.checked_sub(1).is_some_and(|last| address.offset < ranges[last].1)
    }

    /// Records that were sent more than once: partition and offset of the first of each run.
    pub fn twice(&self) -> impl Iterator<Item = Address> {
        self.ranges.iter().flat_map(|(partition, ranges)| {
            let overlapping = ranges.windows(2).filter(|pair| pair[1].0 < pair[0].1);
            overlapping.map(|pair| Address { partition: *partition, offset: pair[1].0 })
        })
    }
}

/// Neighbours as one run each; of records in order.
fn runs_of(records: &[Address]) -> Vec<(i32, i64, i64)> {
    let mut runs: Vec<(i32, i64, i64)> = Vec::new();
    for address in records {
        match runs.last_mut() {
            Some((partition, first, count)) if *partition == address.partition && *first + *count == address.offset => {
                *count += 1;
            }
            _ => runs.push((address.partition, address.offset, 1)),
        }
    }
    runs
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Creates an object that must not exist yet. Passing failures are tried again, and a lost answer is found out by what
/// the object holds.
async fn create(root: &StoreRoot, key: &Path, content: Bytes) -> anyhow::Result<Creation> {
    let put = || root.store.put_opts(key, PutPayload::from(content.clone()), PutMode::Create.into());
    let is_passing = |error: &Error| !matches!(error, Error::AlreadyExists { .. } | Error::PermissionDenied { .. });
    let Err(error) = retried(key, put, is_passing).await else { return Ok(Creation::Ours) };
    // A bucket that guards what is there may answer "denied" before it looks at the condition.
    if matches!(error, Error::AlreadyExists { .. } | Error::PermissionDenied { .. })
        && let Some(found) = read(root, key).await?
    {
        return Ok(if found == content { Creation::Ours } else { Creation::Theirs });
    }
    Err(error).with_context(|| format!("cannot create {key}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    fn bucket() -> Bucket {
        let root = StoreRoot { store: Arc::new(InMemory::new()), prefix: Path::from("dead") };
        Bucket { root, topic: "t".to_owned() }
    }

    fn addresses(offsets: &[(i32, i64)]) -> Vec<Address> {
        offsets.iter().map(|(partition, offset)| Address { partition: *partition, offset: *offset }).collect()
    }

    #[tokio::test]
    async fn what_was_sent_is_found_again() {
        let bucket = bucket();
        let records = addresses(&[(0, 5), (0, 6), (0, 9), (2, 1)]);
        let intent = Intent::new(1, &records, None);
        assert!(intent.create(&bucket).await.unwrap() && intent.create(&bucket).await.unwrap());
        assert_eq!((intent.records.len(), intent.count()), (3, 4));
        let ledger = Ledger::read(&bucket).await.unwrap();
        assert_eq!(ledger.unsettled().count(), 1);
        assert!(!ledger.sent().contains(records[0]));
        Outcome::Sent.create(&bucket, 1).await.unwrap();
        let ledger = Ledger::read(&bucket).await.unwrap();
        assert_eq!(ledger.unsettled().count(), 0);
        let sent = ledger.sent();
        assert!(records.iter().all(|record| sent.contains(*record)));
        let others = addresses(&[(0, 4), (0, 7), (0, 8), (0, 10), (1, 5), (2, 0), (2, 2)]);
        assert!(others.iter().all(|record| !sent.contains(*record)));
        assert_eq!(ledger.batch_of(records[3]).map(|batch| batch.intent.sequence), Some(1));
    }

    #[tokio::test]
    async fn a_number_is_given_once_and_an_outcome_stays() {
        let bucket = bucket();
        let records = addresses(&[(0, 5)]);
        assert!(Intent::new(1, &records, None).create(&bucket).await.unwrap());
        assert!(!Intent::new(1, &records, None).create(&bucket).await.unwrap());
        Outcome::Unsent.create(&bucket, 1).await.unwrap();
        Outcome::Sent.create(&bucket, 1).await.unwrap();
        let ledger = Ledger::read(&bucket).await.unwrap();
        assert_eq!(ledger.0[&1].outcome, Some(Outcome::Unsent));
        assert!(!ledger.sent().contains(records[0]));
    }

    #[test]
    fn twice_is_noticed() {
        let mut sent = Sent::default();
        sent.add(&Intent::new(1, &addresses(&[(0, 5), (0, 6)]), None));
        sent.add(&Intent::new(2, &addresses(&[(0, 7), (1, 6)]), None));
        sent.sort();
        assert_eq!(sent.twice().count(), 0);
        sent.add(&Intent::new(3, &addresses(&[(0, 6)]), None));
        sent.sort();
        assert_eq!(sent.twice().collect::<Vec<_>>(), addresses(&[(0, 6)]));
    }

    #[test]
    fn keys_are_read_strictly() {
        let prefix = Path::from("dead");
        let key = key(&prefix, "t", 12, Kind::Intent);
        assert_eq!(key.as_ref(), "dead/t/_redrive/0000000012.intent.json");
        assert_eq!(parse_key(&prefix, "t", &key), Some((12, Kind::Intent)));
        for bad in ["dead/t/_redrive/12.intent.json", "dead/t/_redrive/0000000012.json", "dead/0000000012.intent.json"]
        {
            assert_eq!(parse_key(&prefix, "t", &Path::from(bad)), None, "{bad}");
        }
    }
}
