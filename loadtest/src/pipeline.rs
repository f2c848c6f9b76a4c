//! What the pipeline under test says of itself: `/status` and `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use serde::Deserialize;
use url::Url;

/// A process that does not answer within this time counts as silent.
const TIMEOUT: Duration = Duration::from_millis(900);

/// The metrics that tell how often the pipeline wrote, and what the figure is called.
const REQUESTS: [(&str, &str, &str); 5] = [
    ("kappa_hot_store_write_duration_seconds_count", "", "clickhouse_writes"),
    ("kappa_seal_duration_seconds_count", "archive", "archive_puts"),
    ("kappa_seal_duration_seconds_count", "dead_letters", "dead_letter_puts"),
    ("kappa_seal_duration_seconds_count", "snapshot", "snapshot_puts"),
    ("kappa_seal_duration_seconds_count", "commit", "offset_commits"),
];

/// All processes of the pipeline.
#[derive(Debug, Clone)]
pub struct Pipelines {
    client: reqwest::Client,
    addresses: Vec<Url>,
}

#[derive(Debug, Deserialize)]
struct Report {
    totals: Totals,
    partitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
struct Totals {
    events: u64,
    #[serde(default)]
    dead_letters: u64,
    #[serde(default)]
    windows_written: u64,
}

/// One partition, as its owner tells.
#[derive(Debug, Clone, Deserialize)]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// What it is doing.
    #[serde(default)]
    pub state: String,
    /// The log position up to which records are processed.
    pub position: Option<i64>,
    /// The log position up to which everything is durable.
    pub committed: Option<i64>,
    /// Records behind the end of the log.
    pub lag_records: Option<i64>,
    /// How far behind in time.
    pub lag_seconds: Option<f64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// All processes at one time.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Accepted and refused records since the start of the processes.
    pub taken_in: u64,
    /// Rows written to ClickHouse.
    pub windows_written: u64,
    /// The partitions.
    pub partitions: BTreeMap<i32, Partition>,
}

impl Status {
    /// Records not processed yet, as the pipeline has it: of the end of the log it knows only what it has read.
    pub fn lag_records(&self) -> u64 {
        self.partitions.values().filter_map(|partition| partition.lag_records).sum::<i64>().max(0) as u64
    }

    /// How far behind the furthest partition is.
    pub fn lag_seconds(&self) -> f64 {
        self.partitions.values().filter_map(|partition| partition.lag_seconds).fold(0.0, f64::max)
    }

    /// Records that lie before the positions, behind these ones.
    pub fn processed_since(&self, begins: &[i64]) -> u64 {
        let of_partition = |(number, begin): (usize, &i64)| {
            let position = self.partitions.get(&(number as i32)).and_then(|partition| partition.position);
            position.map_or(0, |position| (position - begin).max(0))
        };
        begins.iter().enumerate().map(of_partition).sum::<i64>() as u64
    }

    /// Whether everything up to these log positions is processed, or with `durably`, committed.
    pub fn has_reached(&self, ends: &[i64], durably: bool) -> bool {
        ends.iter().enumerate().all(|(number, end)| {
            let Some(partition) = self.partitions.get(&(number as i32)) else {
                return *end == 0;
            };
            let reached = if durably { partition.committed } else { partition.position };
            // Of a partition that never got a record the position may be unknown.
            reached.unwrap_or(0) >= *end
        })
    }

    /// Partitions that can take records.
    pub fn running(&self) -> usize {
        self.partitions.values().filter(|partition| partition.state == "running").count()
    }

    /// What keeps the partitions from running.
    pub fn trouble(&self) -> Option<String> {
        let partition = self.partitions.values().find(|partition| partition.last_error.is_some())?;
        Some(format!("partition {}: {}", partition.partition, partition.last_error.as_deref().unwrap_or_default()))
    }
}

impl Pipelines {
    /// Of these addresses.
    pub fn new(addresses: &[Url]) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().context("cannot make an HTTP client")?;
        Ok(Self { client, addresses: addresses.to_vec() })
    }

    /// The sum over all processes; an error if one of them is silent.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let mut sum = Status::default();
        for report in join_all(self.addresses.iter().map(|address| self.report(address))).await {
            let report = report?;
            sum.taken_in += report.totals.events + report.totals.dead_letters;
            sum.windows_written += report.totals.windows_written;
            sum.partitions.extend(report.partitions.into_iter().map(|partition| (partition.partition, partition)));
        }
        Ok(sum)
    }

    async fn report(&self, address: &Url) -> anyhow::Result<Report> {
        let text = self.get(address, "status").await?;
        serde_json::from_str(&text).with_context(|| format!("{address}status is not the status of a pipeline"))
    }

    async fn get(&self, address: &Url, path: &str) -> anyhow::Result<String> {
        let address = format!("{}/{path}", address.as_str().trim_end_matches('/'));
        let answer = self.client.get(&address).send().await.with_context(|| format!("{address} does not answer"))?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// How often the pipeline has written so far, as far as it tells.
    pub async fn requests(&self) -> BTreeMap<&'static str, f64> {
        let mut sum = BTreeMap::new();
        for text in join_all(self.addresses.iter().map(|address| self.get(address, "metrics"))).await.iter().flatten() {
            for (name, count) in requests_in(text) {
                *sum.entry(name).or_insert(0.0) += count;
            }
        }
        sum
    }
}

fn requests_in(metrics: &str) -> Vec<(&'static str, f64)> {
    let mut found = Vec::new();
    for line in metrics.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        for (metric, step, name) in REQUESTS {
            let is_it = series == metric
                || (!step.is_empty() && series.starts_with(metric) && series.contains(&format!("step=\"{step}\"")));
            if let (true, Ok(value)) = (is_it, value.parse()) {
                found.push((name, value));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_adds_up() {
        let json = r#"{"ready": true, "totals": {"events": 90, "dead_letters": 3, "other": 1}, "partitions": [
            {"partition": 0, "state": "running", "position": 60, "committed": 40, "lag_records": 5, "lag_seconds": 0.5},
            {"partition": 1, "state": "restoring", "position": 33, "committed": 33, "lag_records": null, "lag_seconds": 2.5,
             "last_error": "no such bucket"}]}"#;
        let report: Report = serde_json::from_str(json).unwrap();
        let partitions = report.partitions.into_iter().map(|partition| (partition.partition, partition)).collect();
        let status = Status { taken_in: 93, windows_written: 0, partitions };
        assert_eq!((status.lag_records(), status.running()), (5, 1));
        assert_eq!(status.processed_since(&[50, 40, 0]), 10);
        assert!((status.lag_seconds() - 2.5).abs() < 1e-9);
        assert!(status.has_reached(&[60, 33, 0], false) && !status.has_reached(&[60, 33], true));
        assert!(!status.has_reached(&[60, 33, 1], false));
        assert_eq!(status.trouble().as_deref(), Some("partition 1: no such bucket"));
    }

    #[test]
    fn requests_are_read_off_the_metrics() {
        let text = "# TYPE x histogram\nkappa_hot_store_write_duration_seconds_count 12\n\
            kappa_seal_duration_seconds_count{step=\"archive\"} 5\nkappa_seal_duration_seconds_bucket{step=\"archive\",le=\"1\"} 4\n";
        assert_eq!(requests_in(text), [("clickhouse_writes", 12.0), ("archive_puts", 5.0)]);
    }
}
