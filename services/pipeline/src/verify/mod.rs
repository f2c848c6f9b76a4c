//! `kappa verify`: whether what the pipeline has written is what the log says. Reads only, of a deployment that runs or
//! that was stopped.
//!
//! | module | what is verified |
//! |---|---|
//! | [`chain`] | (A) the segments of a partition follow one another from its first position on; keys agree with footers |
//! | [`contents`] | goes through a partition's segments, one in memory; (A) rows + rejects are all of a segment |
//! | [`contract`] | (A) no row breaks a rule of the data contract that its footer names |
//! | [`replay`] | (B) the windows, recomputed by an implementation of its own |
//! | [`flags`] | (B) which events are flagged, by the detector |
//! | [`hot_rows`], [`compare`] | (B) rows of the hot store, read in slices and held against those expected |
//! | [`view`] | (B) a sample of windows through the view that people query |
//! | [`dead_letters`] | (D) every reject once, for the footer's reason |
//! | [`redrives`] | (D) no dead letter was sent again twice |
//! | [`log`] | (A, D) number, digest and raw bytes, where the log still has the records |
//! | [`strays`] | (C) committed <= durable, (E) nothing else lies about |
//! | [`report`] | differences in sentences |
//!
//! On a running deployment the order of looking matters: what is written later is looked at later. First the committed
//! offsets, then snapshots, then dead letters, then the archive, then the hot store: so each of them can only be
//! further than the one before, and what is missing is missing.

mod chain;
mod compare;
mod contents;
mod contract;
mod dead_letters;
mod flags;
mod hot_rows;
pub(crate) mod kafka;
pub(crate) mod listing;
mod log;
mod message;
pub(crate) mod progress;
mod quality;
mod redrives;
mod repeats;
mod replay;
pub(crate) mod report;
mod scope;
mod segment_rows;
mod strays;
mod totals;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use kappa_core::anomaly::ConfiguredDetector;
use kappa_core::contract::rules::ContractRules;
use kappa_core::windows::WindowSettings;

use self::chain::{Chain, Footers};
use self::hot_rows::HotReader;
use self::kafka::LogFacts;
use self::log::LogCheck;
use self::progress::Progress;
use self::report::{Check, Report};
use self::scope::Scope;
use self::segment_rows::EventColumns;
use self::view::Sample;
use crate::config::{Config, KafkaConfig, StoreUrl};
use crate::dlq::{self, purges};
use crate::ops::advice::advised;
use crate::ops::object_stores;
use crate::partition::Stores;
use crate::run::partition_settings;

pub use report::Verification;
pub(crate) use report::shown_time;
pub use scope::parse_time;

/// A gap may be a segment that was written while the archive was listed.
const BEFORE_SECOND_LOOK: Duration = Duration::from_secs(1);

/// What to verify.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Windows that start at or after this.
    pub from: Option<DateTime<Utc>>,
    /// Windows that start before this.
    pub to: Option<DateTime<Utc>>,
    /// Only these partitions; none means all.
    pub partitions: BTreeSet<i32>,
    /// Leave the log alone.
    pub without_log: bool,
    /// The oldest segments may have been removed by a lifecycle rule.
    pub archive_expires: bool,
    /// Partitions gone through at once.
    pub parallel: usize,
}

/// What all tasks share.
#[derive(Debug)]
struct Shared {
    topic: String,
    kafka: KafkaConfig,
    stores: Stores,
    hot: HotReader,
    columns: EventColumns,
    contract: ContractRules,
    windows: WindowSettings,
    detector: ConfiguredDetector,
    max_future_skew_ms: i64,
    scope: Scope,
    selected: BTreeSet<i32>,
    windows_expired_before_ms: i64,
    quality_expired_before_ms: i64,
    anomalies_expired_before_ms: i64,
    /// Dead letters of hours before this one were purged on purpose.
    purged_before_hour: Option<i64>,
    report: Report,
    progress: Progress,
    sample: Sample,
}

impl Shared {
    async fn new(config: &Config, selection: &Selection) -> anyhow::Result<Self> {
        let settings = partition_settings(config)?;
        for (key, url) in [
            ("archive.url", &config.archive.url),
            ("dead_letter.url", &config.dead_letter.url),
            ("state.url", &config.state.url),
        ] {
            require_place(key, url)?;
        }
        let hot = HotReader::new(config)?;
        let stores = object_stores::open_all(config)?;
        let horizon = |expired: Option<i64>| expired.unwrap_or(i64::MIN);
        Ok(Self {
            topic: config.kafka.topic.clone(),
            kafka: config.kafka.clone(),
            purged_before_hour: purges::horizon(&stores.dead_letters, &config.kafka.topic).await?,
            stores,
            columns: EventColumns::new(&config.event, &settings.reader),
            contract: settings.contract,
            scope: Scope::new(selection.from, selection.to, settings.windows.length_ms),
            windows: settings.windows,
            detector: settings.detector,
            max_future_skew_ms: settings.time_limits.max_future_skew_ms,
            selected: selection.partitions.clone(),
            windows_expired_before_ms: horizon(hot.expired_before_ms("windows_1m").await?),
            quality_expired_before_ms: horizon(hot.expired_before_ms("quality_1m").await?),
            anomalies_expired_before_ms: horizon(hot.expired_before_ms("anomalies").await?),
            hot,
            report: Report::default(),
            progress: Progress::new(),
            sample: Sample::new(),
        })
    }

    fn selects(&self, partition: i32) -> bool {
        self.selected.is_empty() || self.selected.contains(&partition)
    }
}

/// A directory that is not there would be made, empty: a mistyped address is no archive without differences.
pub(crate) fn require_place(key: &str, url: &StoreUrl) -> anyhow::Result<()> {
    let Ok(path) = url.as_url().to_file_path() else { return Ok(()) };
    if url.as_url().scheme() != "file" || path.is_dir() {
        return Ok(());
    }
    Err(advised(format!("{key}: there is no directory {}", path.display()), format!("correct {key}")))
}

/// Verifies a deployment.
///
/// # Errors
/// If something does not answer, so that there is no verdict.
pub async fn verify(config: &Config, selection: &Selection) -> anyhow::Result<Verification> {
    let started = Instant::now();
    let shared = Arc::new(Shared::new(config, selection).await?);
    let outcome = look(&shared, selection).await;
    shared.progress.finish();
    let events = outcome?;
    let subject = format!("kappa verify: topic {}, group {}", shared.topic, shared.kafka.group);
    Ok(shared.report.finish(subject, events, started.elapsed()))
}

/// Looks at everything in the order that the tour gives a reason for; says how many events it went through.
async fn look(shared: &Arc<Shared>, selection: &Selection) -> anyhow::Result<u64> {
    shared.progress.phase("asking Kafka, listing objects");
    let log = kafka::ask(&shared.kafka).await?;
    if let Some(unknown) = selection.partitions.iter().find(|partition| !log.bounds.contains_key(partition)) {
        return Err(advised(format!("the topic has no partition {unknown}"), "correct --partition"));
    }
    let state = listing::list_state(&shared.stores.state, &shared.topic, &shared.report).await?;
    let mut letters = listing::list_segments(&shared.stores.dead_letters, &shared.topic).await?;
    letters.claim(|key| dlq::is_beside_dead_letters(&shared.stores.dead_letters.prefix, &shared.topic, key));
    letters.tell("dead letters", &shared.report);
    let footers = list_archive(shared, &log).await?;
    let partitions: BTreeSet<i32> = log.bounds.keys().copied().filter(|partition| shared.selects(*partition)).collect();
    let chains = footers.into_chains(&state.starts, &partitions, selection.archive_expires, &shared.report);

    shared.progress.phase("windows, flags, dead letters and log");
    tell_scope(shared, selection, &log);
    let events = go_through(shared, selection, &chains, &state, &log).await?;

    shared.progress.phase("the view, and what is left over");
    compare_view(shared, selection, &chains).await?;
    strays::check_committed(shared, &chains, &state, &log).await?;
    strays::check_objects(shared, &chains, &state, &letters.objects);
    strays::check_tables(shared, &log).await?;
    redrives::check(shared).await?;
    Ok(events)
}

/// Lists the archive and reads all footers; again if there seems to be a gap.
async fn list_archive(shared: &Shared, log: &LogFacts) -> anyhow::Result<Footers> {
    let mut second_look = false;
    loop {
        let mut listed = listing::list_segments(&shared.stores.archive, &shared.topic).await?;
        let objects = std::mem::take(&mut listed.objects);
        let (known, unknown): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .filter(|object| shared.selects(object.partition))
            .partition(|object| log.bounds.contains_key(&object.partition));
        let count = known.len();
        let archive = &shared.stores.archive.store;
        let footers = chain::read_footers(archive, &shared.topic, known, &shared.columns).await?;
        if footers.have_gaps() && !second_look {
            second_look = true;
            tokio::time::sleep(BEFORE_SECOND_LOOK).await;
            continue;
        }
        listed.tell("archive", &shared.report);
        shared.report.examined(Check::Strays, "objects", count as u64);
        for object in unknown {
            let sentence = format!("archive: {}: the topic has no partition {}", object.key, object.partition);
            shared.report.differs(Check::Strays, Some(object.partition), object.start, sentence);
        }
        return Ok(footers);
    }
}

/// What was asked to be left out is not checked, and the report says so.
fn tell_scope(shared: &Shared, selection: &Selection, log: &LogFacts) {
    if selection.without_log {
        shared.report.not_checked(Check::Log, "--no-log");
    } else if log.is_compacted {
        shared.report.not_checked(Check::Log, "the topic is compacted: the log does not have all that it once had");
    }
    if shared.scope != Scope::ALL {
        for check in [Check::Windows, Check::DeadLetters, Check::Log] {
            shared.report.not_checked(check, "what --from and --to leave out");
        }
    }
    if !shared.selected.is_empty() {
        shared.report.not_checked(Check::Chain, "what --partition leaves out, here and below");
    }
}

type Job<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// Partitions in parallel: their archive, and the log beside it.
async fn go_through(
    shared: &Arc<Shared>,
    selection: &Selection,
    chains: &BTreeMap<i32, Chain>,
    state: &listing::ListedState,
    log: &LogFacts,
) -> anyhow::Result<u64> {
    let with_log = !selection.without_log && !log.is_compacted;
    let client = kafka::client_config(&shared.kafka)?;
    let mut jobs: Vec<Job<'_>> = Vec::new();
    let mut events = 0;
    for (partition, chain) in chains {
        let partition = *partition;
        let rows: u64 = chain.unbroken_segments().iter().map(|segment| segment.rows).sum();
        events += rows;
        shared.progress.expect(rows);
        // Without a committed offset, what has a snapshot is durable.
        let end = chain.end().unwrap_or(i64::MAX);
        let newest_snapshot = state.snapshots.get(&partition).into_iter().flatten().rfind(|position| **position <= end);
        let durable = log.committed.get(&partition).or(newest_snapshot).copied().unwrap_or_default();
        jobs.push(Box::pin(contents::check(shared, partition, chain, durable)));
        if !with_log {
            continue;
        }
        let needed = chain.segments.iter().filter(|segment| shared.scope.needs(segment));
        shared.progress.expect(needed.map(|segment| segment.rows + segment.rejects).sum());
        jobs.push(Box::pin(check_log(shared, &client, partition, chain)));
    }
    futures::stream::iter(jobs).buffer_unordered(selection.parallel.max(1)).try_collect::<()>().await?;
    Ok(events)
}

async fn check_log(
    shared: &Arc<Shared>,
    client: &rdkafka::ClientConfig,
    partition: i32,
    chain: &Chain,
) -> anyhow::Result<()> {
    let (shared, client, chain) = (Arc::clone(shared), client.clone(), chain.clone());
    let runtime = tokio::runtime::Handle::current();
    let check = move || {
        let check = LogCheck { shared: &shared, client: &client, runtime: &runtime, partition };
        check.run(&chain)
    };
    tokio::task::spawn_blocking(check).await?
}

async fn compare_view(shared: &Shared, selection: &Selection, chains: &BTreeMap<i32, Chain>) -> anyhow::Result<()> {
    let because = if !selection.partitions.is_empty() {
        "it merges all partitions, and only some were gone through"
    } else if chains.values().any(Chain::is_broken) || !shared.sample.is_whole(chains.len()) {
        "it merges all partitions, and not all could be gone through"
    } else {
        return shared
            .sample
            .compare(&shared.hot, &shared.kafka, shared.windows_expired_before_ms, &shared.report)
            .await;
    };
    shared.report.not_checked(Check::View, because);
    Ok(())
}
