//! What the pipelines say of themselves: `/status` of each, taken in bounded form, and the rates that follow from two of
//! them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use url::Url;

use crate::click_house::causes;

/// How long a pipeline may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The largest status that is read.
const MAX_STATUS_BYTES: usize = 4 << 20;

/// Partitions, reasons and samples of one pipeline that are shown.
const MAX_LISTED: usize = 1_024;

/// Rates are averages over about so long.
const RATE_OVER: Duration = Duration::from_secs(5);

/// The part of `/status` that is shown. What is missing there is empty here: pipelines may be older or newer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the pipeline's `StatusReport`")]
pub struct Status {
    pub version: String,
    pub topic: String,
    pub group: String,
    pub uptime_seconds: f64,
    pub ready: bool,
    pub not_ready_because: Vec<String>,
    pub memory: Memory,
    pub totals: Totals,
    pub dependencies: Vec<Dependency>,
    pub partitions: Vec<Partition>,
    #[serde(skip_serializing)]
    pub recent_rejects: Vec<RejectSample>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the pipeline's `MemoryReport`")]
pub struct Memory {
    pub used_bytes: u64,
    pub budget_bytes: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the pipeline's `TotalsReport`")]
pub struct Totals {
    pub events: u64,
    pub bytes_in: u64,
    pub windows_written: u64,
    pub late_events: u64,
    pub anomalies: u64,
    pub archive_files: u64,
    pub archive_bytes: u64,
    pub adopted_segments: u64,
    pub dead_letters: u64,
    pub dead_letters_by_reason: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the pipeline's `DependencyReport`")]
pub struct Dependency {
    pub dependency: String,
    pub ok: Option<bool>,
    pub failing_for_seconds: Option<f64>,
    pub last_error: Option<String>,
    pub failures: u64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the pipeline's `PartitionStatus`")]
pub struct Partition {
    pub partition: i32,
    pub state: String,
    pub position: Option<i64>,
    pub committed: Option<i64>,
    pub committed_at_ms: Option<i64>,
    pub end_offset: Option<i64>,
    pub lag_records: Option<i64>,
    pub lag_seconds: Option<f64>,
    pub watermark_ms: Option<i64>,
    pub segment_start: Option<i64>,
    pub segment_age_seconds: Option<f64>,
    pub segment_rows: u64,
    pub segment_bytes: u64,
    pub open_windows: u64,
    pub series: u64,
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields of the pipeline's `RejectSample`")]
pub struct RejectSample {
    pub reason: String,
    pub detail: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub schema_id: Option<i32>,
    pub key_hex: Option<String>,
    pub value_hex: Option<String>,
    pub value_bytes: u64,
}

/// One pipeline as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Pipeline {
    /// Host and port.
    pub name: String,
    /// Why it does not answer, if it does not.
    pub error: Option<String>,
    /// Accepted events a second; null until two answers came.
    pub rate: Option<f64>,
    /// Its last answer; null before the first, and while it does not answer.
    pub status: Option<Status>,
}

/// Asks one pipeline again and again.
#[derive(Debug)]
pub struct Watch {
    http: reqwest::Client,
    url: Url,
    /// Moments with the events accepted by then, oldest first.
    moments: Vec<(Instant, u64)>,
}

impl Watch {
    /// Nothing is asked yet.
    pub fn new(http: reqwest::Client, url: Url) -> Self {
        Self { http, url, moments: Vec::new() }
    }

    /// Asks now.
    pub async fn look(&mut self) -> Pipeline {
        let name = self.name();
        match self.ask().await {
            Ok(status) => {
                let rate = self.rate(Instant::now(), status.totals.events);
                Pipeline { name, error: None, rate, status: Some(status) }
            }
            Err(error) => {
                self.moments.clear();
                Pipeline { name, error: Some(error), rate: None, status: None }
            }
        }
    }

    fn name(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    async fn ask(&self) -> Result<Status, String> {
        let mut response = self.http.get(self.url.clone()).timeout(PATIENCE).send().await.map_err(causes)?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(causes)? {
            if bytes.len() + chunk.len() > MAX_STATUS_BYTES {
                return Err(format!("its status has more than {MAX_STATUS_BYTES} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut status: Status = serde_json::from_slice(&bytes)
            .map_err(|error| format!("its answer is not a pipeline's status: {error}"))?;
        status.partitions.truncate(MAX_LISTED);
        status.recent_rejects.truncate(MAX_LISTED);
        Ok(status)
    }

    /// Events a second over the last few seconds.
    fn rate(&mut self, now: Instant, events: u64) -> Option<f64> {
        if self.moments.last().is_some_and(|(_, before)| events < *before) {
            // It has started anew.
            self.moments.clear();
        }
        self.moments.push((now, events));
        // The oldest stays until the next one is old enough by itself.
        while self.moments.len() > 2 && now.duration_since(self.moments[1].0) >= RATE_OVER {
            self.moments.remove(0);
        }
        let (then, before) = *self.moments.first()?;
        let seconds = now.duration_since(then).as_secs_f64();
        (seconds > 0.5).then(|| (events - before) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch::new(reqwest::Client::new(), Url::parse("http://127.0.0.1:9464/status").unwrap())
    }

    #[test]
    fn rates_are_averages_and_start_anew_with_the_pipeline() {
        let mut watch = watch();
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(watch.rate(at(0), 100), None);
        assert_eq!(watch.rate(at(1), 200), Some(100.0));
        for second in 2..20 {
            watch.rate(at(second), 100 + second * 100);
        }
        assert_eq!(watch.rate(at(20), 2_100), Some(100.0));
        assert!(watch.moments.len() <= 7, "{:?}", watch.moments.len());
        assert_eq!(watch.rate(at(21), 5), None, "a restart is not a negative rate");
        assert_eq!(watch.rate(at(22), 55), Some(50.0));
    }

    #[test]
    fn a_status_may_lack_anything_and_have_more() {
        let status: Status = serde_json::from_str(r#"{"topic":"t","totals":{"events":7},"new":{"a":1}}"#).unwrap();
        assert_eq!((status.topic.as_str(), status.totals.events, status.partitions.len()), ("t", 7, 0));
        assert!(serde_json::from_str::<Status>(r#"{"totals":7}"#).is_err());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_named_with_the_reason() {
        let url = Url::parse("http://127.0.0.1:1/status").unwrap();
        let pipeline = Watch::new(reqwest::Client::new(), url).look().await;
        assert_eq!(pipeline.name, "127.0.0.1:1");
        assert!(pipeline.error.is_some_and(|error| error.contains("refused")));
    }
}
