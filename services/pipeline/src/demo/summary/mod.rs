//! The end of a demo: what was produced against what is found in the log, ClickHouse, Parquet and the dead letters.

mod detection;
mod parquet_files;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub use detection::{Detection, compare};
pub use parquet_files::{ArchiveFindings, DeadLetterFindings, SchemaRows, rows_by_schema};
pub use report::{Outlook, print};

use super::hot_store_reader::{FoundAnomaly, HotStoreReader, WindowTotals};
use super::produced::ProducedCounts;

/// How long the broker may take to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);

/// Where to look.
#[derive(Debug)]
pub struct Places {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The pipeline's consumer group.
    pub group: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Directory of the archive.
    pub archive: PathBuf,
    /// Directory of the dead letters.
    pub dead_letters: PathBuf,
    /// ClickHouse.
    pub hot_store: HotStoreReader,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// By partition: the log's end, and what the group has committed.
    pub offsets: Vec<(i64, Option<i64>)>,
    /// In the windows.
    pub windows: WindowTotals,
    /// The flagged events.
    pub anomalies: Vec<FoundAnomaly>,
    /// In the archive.
    pub archive: ArchiveFindings,
    /// In the dead letters.
    pub dead_letters: DeadLetterFindings,
}

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is compared.
    pub what: String,
    /// As produced.
    pub produced: u64,
    /// As found.
    pub found: u64,
}

impl Check {
    fn new(what: impl Into<String>, produced: u64, found: u64) -> Self {
        Self { what: what.into(), produced, found }
    }

    /// Whether it is as it should be.
    pub fn is_ok(&self) -> bool {
        self.produced == self.found
    }
}

/// Looks everywhere.
pub async fn gather(places: Places) -> anyhow::Result<Findings> {
    let windows = places.hot_store.window_totals().await.context("count the windows")?;
    let anomalies = places.hot_store.anomalies().await.context("list the anomalies")?;
    let files = move || -> anyhow::Result<Findings> {
        Ok(Findings {
            offsets: read_offsets(&places)?,
            windows,
            anomalies,
            archive: parquet_files::read_archive(&places.archive)?,
            dead_letters: parquet_files::read_dead_letters(&places.dead_letters)?,
        })
    };
    tokio::task::spawn_blocking(files).await.context("look for what was written")?
}

/// Compares. Every line must be as it should be.
pub fn compare_counts(produced: &ProducedCounts, found: &Findings) -> Vec<Check> {
    let total = produced.total();
    let sum = |offsets: &mut dyn Iterator<Item = i64>| offsets.sum::<i64>().max(0) as u64;
    let log_end = sum(&mut found.offsets.iter().map(|(end, _)| *end));
    let committed = sum(&mut found.offsets.iter().map(|(_, committed)| committed.unwrap_or(0)));
    let contiguous = sum(&mut found.archive.contiguous_to.values().copied());
    let dead_letters = found.dead_letters.by_reason.values().sum();
    let mut checks = vec![
        Check::new("records in the log", total, log_end),
        Check::new("offsets committed", total, committed),
        Check::new("offsets archived, without gap or overlap", total, contiguous),
        Check::new("valid events: rows in Parquet", produced.valid() + produced.repeated, found.archive.rows),
        Check::new("  sent twice: marked there", produced.repeated, found.archive.duplicates),
        Check::new("  each once: counted in ClickHouse's windows", produced.valid(), found.windows.events),
        Check::new("series with windows in ClickHouse", produced.series, found.windows.series),
        Check::new("invalid records: dead letters", produced.invalid_total(), dead_letters),
    ];
    for (reason, count) in &produced.invalid {
        let found = found.dead_letters.by_reason.get(reason).copied().unwrap_or(0);
        checks.push(Check::new(format!("  {reason}"), *count, found));
    }
    let unexpected = found.dead_letters.by_reason.iter().filter(|(reason, _)| !produced.invalid.contains_key(*reason));
    checks.extend(unexpected.map(|(reason, count)| Check::new(format!("  {reason}"), 0, *count)));
    checks
}

/// Compares what was sent by the second version of the schema with the rows of its id. It must have been sent at all.
pub fn compare_evolved(
    produced: &ProducedCounts,
    schema_id: Option<u32>,
    rows: &BTreeMap<i32, SchemaRows>,
) -> Vec<Check> {
    let of_evolved = schema_id.and_then(|id| rows.get(&i32::try_from(id).ok()?)).copied().unwrap_or_default();
    vec![
        Check::new("the schema has changed under load", 1, u64::from(produced.evolved > 0)),
        Check::new("events by the new schema: rows in Parquet", produced.evolved, of_evolved.rows),
        Check::new("  with the fields that the reader does not know", produced.evolved, of_evolved.with_extra),
    ]
}

fn read_offsets(places: &Places) -> anyhow::Result<Vec<(i64, Option<i64>)>> {
    let reader: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &places.brokers)
        .set("group.id", &places.group)
        .create()
        .context("create a consumer to ask for offsets")?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(&places.topic, 0, places.partitions - 1);
    let committed = reader.committed_offsets(asked, BROKER_TIMEOUT).context("ask for the committed offsets")?;
    let of_partition = |partition| {
        let (_, end) = reader
            .fetch_watermarks(&places.topic, partition, BROKER_TIMEOUT)
            .with_context(|| format!("ask for the end of partition {partition}"))?;
        let offset = committed.find_partition(&places.topic, partition).map(|found| found.offset());
        let offset = offset.and_then(|offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None });
        Ok((end, offset))
    };
    (0..places.partitions).map(of_partition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
    }

    #[test]
    fn anything_missing_or_too_much_is_noticed() {
        let produced = ProducedCounts {
            on_time: 90,
            late: 4,
            very_late: 3,
            repeated: 2,
            evolved: 0,
            invalid: reasons(&[("tombstone", 2), ("bad_magic", 1)]),
            failed: 0,
            series: 7,
            end_offsets: vec![60, 42],
        };
        let found = Findings {
            offsets: vec![(60, Some(60)), (42, Some(42))],
            windows: WindowTotals { windows: 9, events: 97, series: 7, late: 3 },
            archive: ArchiveFindings {
                files: 2,
                bytes: 1,
                rows: 99,
                duplicates: 2,
                contiguous_to: [(0, 60), (1, 42)].into(),
            },
            dead_letters: DeadLetterFindings { files: 1, by_reason: reasons(&[("tombstone", 2), ("bad_magic", 1)]) },
            ..Findings::default()
        };
        assert!(compare_counts(&produced, &found).iter().all(Check::is_ok));

        let differing = |change: &dyn Fn(&mut Findings)| {
            let mut found = found.clone();
            change(&mut found);
            let checks = compare_counts(&produced, &found);
            checks.into_iter().filter(|check| !check.is_ok()).map(|check| check.what).collect::<Vec<_>>()
        };
        assert_eq!(differing(&|found| found.offsets[0].1 = None), ["offsets committed"]);
        assert_eq!(differing(&|found| found.windows.events += 1), ["  each once: counted in ClickHouse's windows"]);
        assert_eq!(differing(&|found| found.archive.duplicates = 0), ["  sent twice: marked there"]);
        let moved = |found: &mut Findings| found.dead_letters.by_reason = reasons(&[("tombstone", 2), ("too_deep", 1)]);
        assert_eq!(differing(&moved), ["  bad_magic", "  too_deep"]);
    }

    #[test]
    fn a_change_of_schema_that_did_not_happen_is_noticed() {
        let produced = |evolved| ProducedCounts { on_time: 90, evolved, ..ProducedCounts::default() };
        let rows = |rows, with_extra| {
            BTreeMap::from([(1, SchemaRows { rows: 80, with_extra: 0 }), (5, SchemaRows { rows, with_extra })])
        };
        let differing = |produced: &ProducedCounts, id, rows: &BTreeMap<i32, SchemaRows>| {
            compare_evolved(produced, id, rows).iter().filter(|check| !check.is_ok()).count()
        };
        assert_eq!(differing(&produced(10), Some(5), &rows(10, 10)), 0);
        assert_eq!(differing(&produced(0), None, &rows(0, 0)), 1);
        assert_eq!(differing(&produced(10), Some(5), &rows(9, 9)), 2);
        assert_eq!(differing(&produced(10), Some(5), &rows(10, 9)), 1);
    }
}
