//! Everything that a run has measured, and the figures that follow from it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::canary::{self, Arrival, PollQuality};
use crate::checks::Check;
use crate::detection::Detection;
use crate::objects::Stock;
use crate::process::Usage;
use crate::scenario::Scenario;
use crate::send::Outcome;
use crate::statistics::{growth_between_halves, largest, median, quantile, slope};
use crate::timeline::{Sample, within};

/// The pipeline's name among the processes.
pub const PIPELINE: &str = "kappa";

/// Memory rises and falls with every checkpoint, and the first minutes fill buffers: samples, one a second, below which
/// its growth tells nothing.
const SAMPLES_FOR_GROWTH: usize = 120;

/// What a run has measured.
#[derive(Debug)]
pub struct Measured {
    /// Name of the scenario.
    pub name: String,
    /// As it was run.
    pub scenario: Scenario,
    /// When the schedule started, milliseconds since the epoch.
    pub start_ms: i64,
    /// What the generator did.
    pub outcome: Outcome,
    /// Second by second.
    pub samples: Vec<Sample>,
    /// Canaries that became visible.
    pub arrivals: Vec<Arrival>,
    /// Canaries that did not.
    pub canaries_missing: u64,
    /// The measuring error.
    pub polls: PollQuality,
    /// From the last record acknowledged to everything processed; `None` if that never came.
    pub drain: Option<Duration>,
    /// Ended by hand.
    pub ended_early: bool,
    /// Usage of the processes at the start of the schedule and when everything was processed.
    pub usages: (BTreeMap<String, Usage>, BTreeMap<String, Usage>),
    /// Writes of the pipeline and inserts into ClickHouse during the run.
    pub requests: BTreeMap<String, f64>,
    /// Objects that came to archive, dead letters and state.
    pub stocks: BTreeMap<&'static str, Stock>,
    /// Active rows, parts and bytes of the pipeline's tables in ClickHouse at the end.
    pub tables: BTreeMap<String, f64>,
    /// The books against what is there; empty if it could not be judged.
    pub checks: Vec<Check>,
    /// Why they are empty.
    pub unchecked: Option<String>,
    /// Anomalies.
    pub detection: Option<Detection>,
}

/// A number of the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Stable; runs are compared by it.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// Whether more is better.
    pub better: Better,
}

/// Which way a figure should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// It only tells.
    Neither,
}

impl Measured {
    /// The part that is judged, seconds from the start: from the end of the warm-up to the end of the load.
    pub fn steady(&self) -> Range<f64> {
        self.scenario.warm_up().as_secs_f64()..self.outcome.sending.as_secs_f64() + 1e-3
    }

    /// Samples of that part.
    pub fn steady_samples(&self) -> Vec<&Sample> {
        within(&self.samples, self.steady())
    }

    /// Latencies of the canaries that were meant to happen in that part, microseconds.
    pub fn steady_latency(&self) -> anyhow::Result<Histogram<u64>> {
        let steady = self.steady();
        let is_steady = |arrival: &&Arrival| {
            let at = (arrival.intended_ms - self.start_ms) as f64 / 1_000.0;
            steady.contains(&at)
        };
        canary::histogram(self.arrivals.iter().filter(is_steady))
    }

    /// Records that the lag grows by in a second of that part.
    pub fn lag_growth(&self) -> f64 {
        let points: Vec<_> = self.steady_samples().iter().map(|sample| (sample.at, sample.lag_records)).collect();
        slope(&points)
    }

    /// Events a second that were really sent.
    pub fn rate_sent(&self) -> f64 {
        self.outcome.sent.records() as f64 / self.outcome.sending.as_secs_f64().max(1e-3)
    }

    /// By which share the pipeline's memory grew from the first to the second half of that part; nothing of a short one.
    pub fn memory_growth(&self) -> Option<f64> {
        let memory = self.memory_of(PIPELINE);
        (memory.len() >= SAMPLES_FOR_GROWTH).then(|| growth_between_halves(&memory))
    }

    fn memory_of(&self, process: &str) -> Vec<f64> {
        let usages = self.steady_samples().into_iter().filter_map(|sample| sample.usages.get(process));
        usages.map(|usage| usage.rss_mib).collect()
    }

    /// All figures.
    pub fn figures(&self) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Figures(Vec::new());
        self.add_flow(&mut figures);
        let latency = self.steady_latency()?;
        for (name, percent) in
            [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("p9999", 99.99), ("max", 100.0)]
        {
            let value = latency.value_at_percentile(percent) as f64 / 1_000.0;
            figures.add(format!("latency_{name}_ms"), value, "ms", Better::Lower);
        }
        self.add_lag(&mut figures);
        self.add_processes(&mut figures);
        self.add_storage(&mut figures);
        self.add_detection(&mut figures);
        Ok(figures.0)
    }

    fn add_flow(&self, figures: &mut Figures) {
        let punctuality = &self.outcome.punctuality;
        let (first, last) = (self.samples.first(), self.samples.last());
        let taken_in = first.zip(last).map_or(0, |(first, last)| last.taken_in.saturating_sub(first.taken_in));
        figures.add("events_sent", self.outcome.sent.records() as f64, "events", Better::Neither);
        figures.add("rate_sent", self.rate_sent(), "events/s", Better::Higher);
        let seconds = last.map_or(0.0, |sample| sample.at).max(1e-3);
        figures.add("rate_taken_in", taken_in as f64 / seconds, "events/s", Better::Higher);
        figures.add("slipped_share", punctuality.slipped_share() * 100.0, "%", Better::Lower);
        figures.add("slip_p99_ms", milliseconds(punctuality.delay_at(99.0)), "ms", Better::Lower);
        figures.add("slip_max_ms", milliseconds(punctuality.worst), "ms", Better::Lower);
        let waiting = self.outcome.waiting_seconds(&self.scenario.curve(), &self.steady());
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("max", 1.0)] {
            figures.add(format!("kafka_waiting_{name}_ms"), quantile(&waiting, share) * 1_000.0, "ms", Better::Lower);
        }
        figures.add("delivery_failures", self.outcome.failed as f64, "events", Better::Lower);
    }

    fn add_lag(&self, figures: &mut Figures) {
        let steady = self.steady_samples();
        let records: Vec<f64> = steady.iter().map(|sample| sample.lag_records).collect();
        let seconds: Vec<f64> = steady.iter().map(|sample| sample.lag_seconds).collect();
        figures.add("lag_records_p50", median(&records), "records", Better::Lower);
        figures.add("lag_records_max", largest(&records), "records", Better::Lower);
        let told: Vec<f64> = steady.iter().map(|sample| sample.lag_told).collect();
        figures.add("lag_told_by_pipeline_p50", median(&told), "records", Better::Neither);
        figures.add("lag_told_by_pipeline_max", largest(&told), "records", Better::Neither);
        figures.add("lag_seconds_max", largest(&seconds), "s", Better::Lower);
        figures.add("lag_growth_per_second", self.lag_growth(), "records/s", Better::Lower);
        if let Some(drain) = self.drain {
            figures.add("drain_seconds", drain.as_secs_f64(), "s", Better::Lower);
        }
    }

    fn add_processes(&self, figures: &mut Figures) {
        let millions = self.millions();
        let seconds = self.samples.last().map_or(0.0, |sample| sample.at).max(1e-3);
        for (name, after) in &self.usages.1 {
            let before = self.usages.0.get(name).copied().unwrap_or_default();
            let cpu = after.cpu_seconds - before.cpu_seconds;
            let memory = self.memory_of(name);
            figures.add(format!("{name}_cpu_cores"), cpu / seconds, "cores", Better::Lower);
            figures.add(format!("{name}_cpu_seconds_per_million"), cpu / millions, "s", Better::Lower);
            figures.add(format!("{name}_rss_p50_mib"), median(&memory), "MiB", Better::Lower);
            figures.add(format!("{name}_rss_max_mib"), quantile(&memory, 1.0), "MiB", Better::Lower);
            let written = (after.disk_written_mib - before.disk_written_mib) / millions;
            figures.add(format!("{name}_disk_written_mib_per_million"), written, "MiB", Better::Lower);
        }
        if let Some(growth) = self.memory_growth() {
            figures.add("kappa_memory_growth", growth * 100.0, "%", Better::Lower);
        }
        if let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) {
            let loopback = (last.network.loopback_mib - first.network.loopback_mib) / millions;
            let other = (last.network.other_mib - first.network.other_mib) / millions;
            figures.add("network_loopback_mib_per_million", loopback, "MiB", Better::Lower);
            figures.add("network_other_mib_per_million", other, "MiB", Better::Lower);
        }
    }

    fn add_storage(&self, figures: &mut Figures) {
        let millions = self.millions();
        for (place, stock) in &self.stocks {
            figures.add(format!("s3_{place}_objects"), stock.objects as f64, "objects", Better::Lower);
            figures.add(format!("s3_{place}_bytes"), stock.bytes as f64, "bytes", Better::Lower);
            let per_million = stock.objects as f64 / millions;
            figures.add(format!("s3_{place}_objects_per_million"), per_million, "objects", Better::Lower);
        }
        if let Some(archive) = self.stocks.get("archive") {
            let per_event = archive.bytes as f64 / self.outcome.sent.valid.max(1) as f64;
            figures.add("s3_archive_bytes_per_event", per_event, "bytes", Better::Lower);
        }
        for (name, count) in &self.requests {
            figures.add(format!("requests_{name}"), *count, "", Better::Lower);
            figures.add(format!("requests_{name}_per_million"), count / millions, "", Better::Lower);
        }
        for (name, value) in &self.tables {
            figures.add(format!("clickhouse_{name}"), *value, "", Better::Lower);
        }
    }

    fn add_detection(&self, figures: &mut Figures) {
        let Some(detection) = &self.detection else {
            return;
        };
        if let Some(recall) = detection.recall {
            figures.add("anomaly_recall", recall * 100.0, "%", Better::Higher);
        }
        if let Some(precision) = detection.precision {
            figures.add("anomaly_precision", precision * 100.0, "%", Better::Higher);
        }
    }

    fn millions(&self) -> f64 {
        (self.outcome.sent.records() as f64 / 1e6).max(1e-6)
    }
}

struct Figures(Vec<Figure>);

impl Figures {
    fn add(&mut self, name: impl Into<String>, value: f64, unit: &str, better: Better) {
        // Six digits are more than any of them is worth.
        let value = if value.is_finite() { (value * 1e4).round() / 1e4 } else { 0.0 };
        self.0.push(Figure { name: name.into(), value, unit: unit.to_owned(), better });
    }
}

/// For people.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
