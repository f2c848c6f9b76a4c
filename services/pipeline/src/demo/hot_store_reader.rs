//! What is found in ClickHouse: plain SQL over HTTP, as any user of the hot store would ask it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// A demo must not hang on a question.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Asks one ClickHouse.
#[derive(Debug, Clone)]
pub struct HotStoreReader {
    client: Client,
    url: String,
    database: String,
}

/// What the windows hold, all in all.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct WindowTotals {
    /// Windows of series.
    #[serde(deserialize_with = "number")]
    pub windows: u64,
    /// Events in them.
    #[serde(deserialize_with = "number")]
    pub events: u64,
    /// Different series.
    #[serde(deserialize_with = "number")]
    pub series: u64,
    /// Events that came when their window was closed, and are in it all the same.
    #[serde(deserialize_with = "number")]
    pub late: u64,
}

/// One flagged event.
#[derive(Debug, Clone, Deserialize)]
pub struct FoundAnomaly {
    /// Which sensor.
    pub sensor_id: String,
    /// Which of its metrics.
    pub metric: String,
    /// What kind of anomaly.
    pub kind: String,
    /// When, milliseconds since the epoch.
    #[serde(deserialize_with = "number")]
    pub event_time_ms: i64,
    /// The measured value.
    pub value: f64,
    /// What the detector expected.
    pub expected: f64,
    /// How improbable.
    pub score: f64,
}

/// What the living screen shows of ClickHouse.
#[derive(Debug, Clone, Default)]
pub struct HotStoreGlance {
    /// The newest event time in a window.
    pub newest_event_ms: Option<i64>,
    /// Flagged events by kind.
    pub anomalies_by_kind: BTreeMap<String, u64>,
    /// The last few flagged events, newest first.
    pub latest: Vec<FoundAnomaly>,
}

#[derive(Deserialize)]
struct Newest {
    #[serde(deserialize_with = "number")]
    newest_event_ms: i64,
}

#[derive(Deserialize)]
struct KindCount {
    kind: String,
    #[serde(deserialize_with = "number")]
    count: u64,
}

const ANOMALY_COLUMNS: &str = "sensor_id, toString(metric) AS metric, toString(kind) AS kind, \
     toUnixTimestamp64Milli(event_time) AS event_time_ms, value, expected, score";

impl HotStoreReader {
    /// A reader of that database.
    pub fn new(url: &str, database: &str) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(TIMEOUT).build().context("create an HTTP client")?;
        Ok(Self { client, url: url.to_owned(), database: database.to_owned() })
    }

    /// What the windows hold.
    pub async fn window_totals(&self) -> anyhow::Result<WindowTotals> {
        let sql = "SELECT count() AS windows, sum(count) AS events, uniqExact(sensor_id, metric) AS series, \
                   sum(late) AS late FROM windows";
        self.rows(sql).await?.pop().context("no totals")
    }

    /// All flagged events.
    pub async fn anomalies(&self) -> anyhow::Result<Vec<FoundAnomaly>> {
        self.rows(&format!("SELECT {ANOMALY_COLUMNS} FROM anomalies FINAL")).await
    }

    /// What the living screen shows.
    pub async fn glance(&self, latest: usize) -> anyhow::Result<HotStoreGlance> {
        let newest: Vec<Newest> = self
            .rows(
                "SELECT toUnixTimestamp64Milli(max(last_time)) AS newest_event_ms FROM windows_1m \
                 WHERE window_start >= now() - INTERVAL 5 MINUTE",
            )
            .await?;
        let kinds: Vec<KindCount> = self
            .rows("SELECT toString(kind) AS kind, count() AS count FROM anomalies FINAL GROUP BY kind ORDER BY kind")
            .await?;
        let latest = self
            .rows(&format!(
                "SELECT {ANOMALY_COLUMNS} FROM anomalies \
                 WHERE event_time >= now() - INTERVAL 5 MINUTE ORDER BY event_time DESC LIMIT {latest}"
            ))
            .await?;
        Ok(HotStoreGlance {
            newest_event_ms: newest.first().map(|row| row.newest_event_ms).filter(|newest| *newest > 0),
            anomalies_by_kind: kinds.into_iter().map(|row| (row.kind, row.count)).collect(),
            latest,
        })
    }

    async fn rows<T: DeserializeOwned>(&self, sql: &str) -> anyhow::Result<Vec<T>> {
        let response = self
            .client
            .post(&self.url)
            .query(&[("database", self.database.as_str())])
            .body(format!("{sql} FORMAT JSONEachRow"))
            .send()
            .await
            .context("ask ClickHouse")?;
        let status = response.status();
        let text = response.text().await.context("read ClickHouse's answer")?;
        if !status.is_success() {
            bail!("ClickHouse answers {status}: {}", text.trim());
        }
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("ClickHouse's row {line}"));
        text.lines().filter(|line| !line.is_empty()).map(parse).collect()
    }
}

/// ClickHouse writes 64-bit integers with or without quotes, depending on its version and settings.
fn number<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr + Deserialize<'de>,
    T::Err: std::fmt::Display,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Number(T),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_with_and_without_quotes() {
        for row in [r#"{"kind":"spike","count":"12345678901234"}"#, r#"{"kind":"spike","count":12345678901234}"#] {
            assert_eq!(serde_json::from_str::<KindCount>(row).unwrap().count, 12_345_678_901_234);
        }
    }
}
