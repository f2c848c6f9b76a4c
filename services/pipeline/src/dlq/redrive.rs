//! Sends refused records again: each at most once, none that would be refused again unless one insists.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use serde::Serialize;

use super::bucket::Bucket;
use super::export::Export;
use super::fix::{Fix, Fixed};
use super::judge::{Judge, Verdict};
use super::ledger::{Intent, Ledger, Outcome, Sent};
use super::producer::{Outgoing, SendError, TransactionalProducer};
use super::selection::{Address, Selection};
use super::summary::shortened;
use crate::config::Config;
use crate::dead_letters::{ATTEMPT_HEADER, DeadLetter};
use crate::ops::advice::advised;
use crate::partition::fail_point::{self, FailPoint};
use crate::verify::progress::Progress;

/// A transaction holds consumers up until it ends, so it stays small.
const MOST_RECORDS: usize = 2_000;
const MOST_BYTES: usize = 8 << 20;
/// An empty group keeps its offsets for `offsets.retention.minutes`, a week by default; within this time a group
/// without an offset has never had one.
const OFFSET_IS_KEPT: chrono::Duration = chrono::Duration::hours(24);
/// All headers of a redrive begin so; those of the one before are replaced.
const HEADERS: &str = "kappa.redrive.";
const ORIGIN_HEADER: &str = "kappa.redrive.origin";
/// Bytes of the fix that go into a header.
const FIX_HEADER_BYTES: usize = 200;

/// What to send, and how.
#[derive(Debug)]
pub struct RedriveOptions {
    /// Which dead letters.
    pub selection: Selection,
    /// What to change in them.
    pub fix: Fix,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Records a second.
    pub rate: Option<u32>,
    /// No more than so many.
    pub limit: Option<u64>,
    /// A record that was redriven so often stays where it is.
    pub max_attempts: i32,
    /// With the Kafka timestamp that it had.
    pub keep_timestamp: bool,
    /// Also what would be refused again.
    pub even_if_refused: bool,
    /// Into this file in place of the log.
    pub to_file: Option<PathBuf>,
    /// What a person has found out of batches that Kafka has forgotten.
    pub settle: Option<Outcome>,
}

/// Records that were left out for one reason.
#[derive(Debug, Default, Clone, Serialize)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// The first of them, and the sentence about it.
    pub example: String,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
pub struct RedriveReport {
    /// Topic.
    pub topic: String,
    /// Nothing was done.
    pub dry_run: bool,
    /// Dead letters of the selection.
    pub selected: u64,
    /// Sent, written to the file, or what would be.
    pub sent: u64,
    /// Batches that they went in.
    pub batches: u64,
    /// Sent by an earlier redrive.
    pub already_sent: u64,
    /// Dropped by the expression.
    pub dropped: u64,
    /// Not sent, by reason.
    pub left_out: BTreeMap<String, LeftOut>,
    /// Batches of a redrive that was interrupted, and what became of them.
    pub settled: BTreeMap<u64, Outcome>,
}

impl RedriveReport {
    /// Whether all that was selected is sent.
    pub fn is_complete(&self) -> bool {
        self.left_out.is_empty()
    }

    fn leave_out(&mut self, why: &str, letter: &DeadLetter, sentence: &str) {
        let left_out = self.left_out.entry(why.to_owned()).or_default();
        left_out.count += 1;
        if left_out.count == 1 {
            left_out.example = format!("{}: {}", Address::of(letter), shortened(sentence));
        }
    }
}

/// Where the records go.
enum Target {
    Nowhere,
    File(Export),
    Log { producer: TransactionalProducer, next_sequence: u64 },
}

struct Redrive<'a> {
    bucket: &'a Bucket,
    options: &'a RedriveOptions,
    judge: Judge,
    sent: Sent,
    target: Target,
    batch: Vec<Outgoing>,
    batch_bytes: usize,
    report: RedriveReport,
    started: Instant,
}

/// Redrives the dead letters of a selection.
pub async fn redrive(config: &Config, bucket: &Bucket, options: &RedriveOptions) -> anyhow::Result<RedriveReport> {
    let judge = Judge::new(config)?;
    let mut report =
        RedriveReport { topic: bucket.topic.clone(), dry_run: options.dry_run, ..RedriveReport::default() };
    let (target, ledger) = match &options.to_file {
        _ if options.dry_run => (Target::Nowhere, Ledger::read(bucket).await?),
        Some(path) => (Target::File(Export::create(path)?), Ledger::read(bucket).await?),
        None => take_over(config, bucket, options, &mut report).await?,
    };
    let progress = Progress::new();
    progress.phase("counting");
    let objects = bucket.objects(&options.selection).await?;
    progress.expect(bucket.count(&objects).await?);
    progress.phase(if options.dry_run { "judging" } else { "sending" });
    let mut redrive = Redrive {
        bucket,
        options,
        judge,
        sent: ledger.sent(),
        target,
        batch: Vec::new(),
        batch_bytes: 0,
        report,
        started: Instant::now(),
    };
    let outcome = redrive.run(objects, &progress).await;
    progress.finish();
    outcome?;
    if let Target::File(file) = redrive.target {
        file.finish()?;
    }
    Ok(redrive.report)
}

/// Becomes the one who may redrive this topic, and settles what the one before has left open.
async fn take_over(
    config: &Config,
    bucket: &Bucket,
    options: &RedriveOptions,
    report: &mut RedriveReport,
) -> anyhow::Result<(Target, Ledger)> {
    let producer = tokio::task::block_in_place(|| TransactionalProducer::connect(&config.kafka))?;
    // Asked after the take-over, which has ended every transaction before.
    let last_sent = tokio::task::block_in_place(|| producer.last_sent())?;
    let mut ledger = Ledger::read(bucket).await?;
    for batch in ledger.0.values_mut().filter(|batch| batch.outcome.is_none()) {
        let sequence = batch.intent.sequence;
        let outcome = settle(&batch.intent, last_sent, options.settle)?;
        outcome.create(bucket, sequence).await?;
        batch.outcome = Some(outcome);
        report.settled.insert(sequence, outcome);
    }
    let newest = ledger.0.keys().next_back().copied();
    let next_sequence = newest.max(last_sent).unwrap_or(0) + 1;
    Ok((Target::Log { producer, next_sequence }, ledger))
}

/// Whether an interrupted batch counts.
fn settle(intent: &Intent, last_sent: Option<u64>, known: Option<Outcome>) -> anyhow::Result<Outcome> {
    let age = DateTime::parse_from_rfc3339(&intent.at).map(|at| Utc::now().signed_duration_since(at));
    let is_young = age.is_ok_and(|age| age < OFFSET_IS_KEPT);
    match (last_sent, known) {
        (Some(last), _) if last >= intent.sequence => Ok(Outcome::Sent),
        (Some(_), _) => Ok(Outcome::Unsent),
        // Before the first batch there is no offset.
        (None, _) if is_young => Ok(Outcome::Unsent),
        (None, Some(outcome)) => Ok(outcome),
        (None, None) => Err(advised(
            format!(
                "batch {} was interrupted at {}, and Kafka has forgotten since whether it counts",
                intent.sequence, intent.at
            ),
            format!(
                "look in the topic for records with the header {HEADERS}batch = {}; then say --settle sent or --settle \
                 unsent",
                intent.sequence
            ),
        )),
    }
}

impl Redrive<'_> {
    async fn run(
        &mut self,
        objects: Vec<crate::verify::listing::ListedObject>,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let (bucket, selection) = (self.bucket, &self.options.selection);
        let mut letters = std::pin::pin!(bucket.letters(objects, selection));
        'all: while let Some(batch) = letters.try_next().await? {
            progress.done(batch.read - batch.letters.len() as u64);
            for letter in &batch.letters {
                if self.is_enough() {
                    break 'all;
                }
                self.take(letter).await?;
                progress.done(1);
            }
        }
        self.send_batch().await
    }

    fn is_enough(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.report.sent + self.batch.len() as u64 >= limit)
    }

    async fn take(&mut self, letter: &DeadLetter) -> anyhow::Result<()> {
        self.report.selected += 1;
        let address = Address::of(letter);
        if self.sent.contains(address) {
            self.report.already_sent += 1;
            return Ok(());
        }
        if letter.attempt >= self.options.max_attempts {
            let sentence = format!("sent again {} times, and refused each time", letter.attempt);
            self.report.leave_out("max_attempts", letter, &sentence);
            return Ok(());
        }
        let (value, headers) = match self.options.fix.apply(letter, &mut self.judge).await? {
            Fixed::Record { value, headers } => (value, headers),
            Fixed::Dropped => {
                self.report.dropped += 1;
                return Ok(());
            }
            Fixed::Impossible(sentence) => {
                self.report.leave_out("not_fixable", letter, &sentence);
                return Ok(());
            }
        };
        let timestamp_ms =
            if self.options.keep_timestamp { letter.timestamp_ms } else { Utc::now().timestamp_millis() };
        let verdict = self.judge.verdict(value.as_deref(), &headers, timestamp_ms).await?;
        if let Verdict::Refused { reason, detail } = verdict
            && !self.options.even_if_refused
        {
            self.report.leave_out(&reason, letter, &detail);
            return Ok(());
        }
        let record = Outgoing {
            from: address,
            partition: letter.partition,
            timestamp_ms,
            key: letter.key.clone(),
            value,
            headers,
        };
        match &mut self.target {
            Target::Nowhere => self.report.sent += 1,
            Target::File(file) => {
                file.write(letter, &record)?;
                self.report.sent += 1;
            }
            Target::Log { next_sequence, .. } => {
                let record = with_provenance(record, letter, *next_sequence, self.options.fix.text().as_deref());
                self.batch_bytes += letter.size();
                self.batch.push(record);
                let most = self.options.rate.map_or(MOST_RECORDS, |rate| (rate as usize).clamp(1, MOST_RECORDS));
                if self.batch.len() >= most || self.batch_bytes >= MOST_BYTES {
                    self.send_batch().await?;
                }
            }
        }
        Ok(())
    }

    /// Intent, transaction, outcome.
    async fn send_batch(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Target::Log { producer, next_sequence } = &mut self.target else { return Ok(()) };
        if batch.is_empty() {
            return Ok(());
        }
        let sequence = *next_sequence;
        *next_sequence += 1;
        let addresses: Vec<Address> = batch.iter().map(|record| record.from).collect();
        if !Intent::new(sequence, &addresses, self.options.fix.text()).create(self.bucket).await? {
            return Err(advised(
                format!("another redrive of this topic has taken the number {sequence}"),
                "let it finish, then run this one again",
            ));
        }
        fail_point::pass(FailPoint::RedriveIntended);
        let sent = tokio::task::block_in_place(|| {
            producer.send(sequence, &batch, || fail_point::pass(FailPoint::RedriveProduced))
        });
        match sent {
            Ok(()) => {
                fail_point::pass(FailPoint::RedriveCommitted);
                Outcome::Sent.create(self.bucket, sequence).await?;
            }
            Err(SendError::Aborted(error)) => {
                Outcome::Unsent.create(self.bucket, sequence).await?;
                return Err(error.context(format!("batch {sequence} was not sent")));
            }
            Err(SendError::Undecided(error)) => {
                return Err(error.context(format!("batch {sequence} was interrupted; the next redrive settles it")));
            }
        }
        self.report.sent += batch.len() as u64;
        self.report.batches += 1;
        if let Some(rate) = self.options.rate {
            let due = Duration::from_secs_f64(self.report.sent as f64 / f64::from(rate.max(1)));
            tokio::time::sleep(due.saturating_sub(self.started.elapsed())).await;
        }
        Ok(())
    }
}

/// The record with where it comes from, in place of what an earlier redrive has put there.
fn with_provenance(mut record: Outgoing, letter: &DeadLetter, sequence: u64, fix: Option<&str>) -> Outgoing {
    let from = format!("{}/{}", letter.topic, Address::of(letter));
    let origin = letter.header(ORIGIN_HEADER).map_or_else(|| from.clone().into_bytes(), <[u8]>::to_vec);
    record.headers.retain(|(name, _)| !name.starts_with(HEADERS));
    let mut add = |name: &str, content: Vec<u8>| record.headers.push((name.to_owned(), Some(content)));
    add(ATTEMPT_HEADER, letter.attempt.saturating_add(1).to_string().into_bytes());
    add(ORIGIN_HEADER, origin);
    add("kappa.redrive.from", from.into_bytes());
    add("kappa.redrive.reason", letter.reason.clone().into_bytes());
    add("kappa.redrive.batch", sequence.to_string().into_bytes());
    if let Some(fix) = fix {
        let end = fix.floor_char_boundary(FIX_HEADER_BYTES);
        add("kappa.redrive.fix", fix.as_bytes()[..end].to_vec());
    }
    record
}

#[cfg(test)]
mod tests {
    use super::super::selection::tests::letter;
    use super::*;

    fn sent_again(letter: &DeadLetter, sequence: u64) -> Outgoing {
        let record = Outgoing {
            from: Address::of(letter),
            partition: letter.partition,
            timestamp_ms: 2_000,
            key: letter.key.clone(),
            value: letter.value.clone(),
            headers: letter.headers.clone(),
        };
        with_provenance(record, letter, sequence, Some("schema 7"))
    }

    #[test]
    fn a_record_says_where_it_comes_from_and_headers_do_not_pile_up() {
        let first = letter(3, 9, "trailing_bytes");
        let once = sent_again(&first, 1);
        let again = DeadLetter { offset: 20, attempt: 1, headers: once.headers.clone(), ..first.clone() };
        let twice = sent_again(&again, 2);
        assert_eq!(twice.headers.len(), once.headers.len());
        let header = |name: &str| {
            let found = twice.headers.iter().find(|(candidate, _)| candidate == name).unwrap();
            String::from_utf8(found.1.clone().unwrap()).unwrap()
        };
        assert_eq!(header(ATTEMPT_HEADER), "2");
        assert_eq!((header(ORIGIN_HEADER), header("kappa.redrive.from")), ("t/3/9".to_owned(), "t/3/20".to_owned()));
        assert_eq!(header("team"), "plant");
    }

    #[test]
    fn an_interrupted_batch_is_settled_by_what_kafka_says() {
        let young = Intent::new(5, &[], None);
        let of = |last, known| settle(&young, last, known).map_err(|error| error.to_string());
        assert_eq!(of(Some(5), None), Ok(Outcome::Sent));
        assert_eq!(of(Some(4), None), Ok(Outcome::Unsent));
        assert_eq!(of(None, None), Ok(Outcome::Unsent));
        // What Kafka knows, nobody may overrule.
        assert_eq!(of(Some(5), Some(Outcome::Unsent)), Ok(Outcome::Sent));
        let mut old = young;
        "2020-01-01T00:00:00Z".clone_into(&mut old.at);
        assert!(settle(&old, None, None).is_err());
        assert_eq!(settle(&old, None, Some(Outcome::Sent)).ok(), Some(Outcome::Sent));
        assert_eq!(settle(&old, Some(9), None).ok(), Some(Outcome::Sent));
    }
}
