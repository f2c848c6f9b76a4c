//! Every metric in one table, and the text that `/metrics` answers with.
//!
//! Two kinds of metrics are told apart by where they live. What the [`StatusBoard`] knows is read off it at each scrape,
//! so a partition that is gone leaves no stale gauge behind. Durations are histograms of a process-wide recorder, to be
//! recorded where they arise: `metrics::histogram!(SEAL_DURATION, "step" => "archive").record(elapsed)`.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use metrics::{Label, Unit, counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::status::{PartitionState, PartitionStatus, StatusBoard};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct MetricSpec {
    /// Its name, by Prometheus' conventions: base units, `_total` for counters.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// All metrics.
        pub const METRICS: &[MetricSpec] = &[$(MetricSpec {
            name: $name,
            kind: MetricKind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
        }),*];
    };
}

metrics_table! {
    EVENTS = "kappa_events_total", Counter, Count, ["topic"], "Events accepted";
    INPUT_BYTES = "kappa_input_bytes_total", Counter, Bytes, ["topic"], "Bytes of keys and values read from the log";
    DEAD_LETTERS = "kappa_dead_letters_total", Counter, Count, ["topic", "reason"], "Records refused, by reason";
    LATE_EVENTS = "kappa_late_events_total", Counter, Count, ["topic"], "Events that came after their window had closed";
    ANOMALIES = "kappa_anomalies_total", Counter, Count, ["topic"], "Events flagged as anomalies";
    WINDOWS_WRITTEN = "kappa_windows_written_total", Counter, Count, ["topic"], "Window rows written to the hot store";
    ARCHIVE_FILES = "kappa_archive_files_total", Counter, Count, ["topic"], "Segments written to the archive";
    ARCHIVE_BYTES = "kappa_archive_bytes_total", Counter, Bytes, ["topic"], "Bytes written to the archive";
    ADOPTED_SEGMENTS = "kappa_adopted_segments_total", Counter, Count, ["topic"], "Segments whose cut was another process's";
    DEPENDENCY_FAILURES = "kappa_dependency_failures_total", Counter, Count, ["dependency"], "Failed calls of a dependency";
    DEPENDENCY_UP = "kappa_dependency_up", Gauge, Count, ["dependency"], "1 if the last call succeeded, 0 if it failed";
    LAG = "kafka_consumergroup_lag", Gauge, Count, ["consumergroup", "topic", "partition"], "Records not yet processed";
    LAG_SECONDS = "kafka_consumergroup_lag_seconds", Gauge, Seconds, ["consumergroup", "topic", "partition"],
        "Age of the newest processed record while others are behind it, else 0";
    POSITION = "kappa_partition_position", Gauge, Count, ["topic", "partition"], "Log position up to which records are processed";
    COMMITTED = "kappa_partition_committed", Gauge, Count, ["topic", "partition"], "Log position up to which everything is durable";
    COMMIT_AGE = "kappa_commit_age_seconds", Gauge, Seconds, ["topic", "partition"], "Time since the committed position last moved";
    WATERMARK = "kappa_watermark_seconds", Gauge, Seconds, ["topic", "partition"], "Largest valid event time, as Unix time";
    SEGMENT_AGE = "kappa_segment_age_seconds", Gauge, Seconds, ["topic", "partition"], "Age of the open segment";
    SEGMENT_BYTES = "kappa_segment_bytes", Gauge, Bytes, ["topic", "partition"], "Encoded size of the open segment";
    OPEN_WINDOWS = "kappa_open_windows", Gauge, Count, ["topic", "partition"], "Windows that are not closed yet";
    SERIES = "kappa_series", Gauge, Count, ["topic", "partition"], "Series with state in memory";
    PARTITION_STATE = "kappa_partition_state", Gauge, Count, ["topic", "partition", "state"], "1 for the state that the partition is in";
    MEMORY_USED = "kappa_memory_used_bytes", Gauge, Bytes, [], "Memory that grows with the load, in use";
    MEMORY_BUDGET = "kappa_memory_budget_bytes", Gauge, Bytes, [], "Its limit, limits.memory";
    UPTIME = "kappa_uptime_seconds", Gauge, Seconds, [], "Time since the start";
    BUILD_INFO = "kappa_build_info", Gauge, Count, ["version"], "Always 1";
    PROCESS_MEMORY = "process_resident_memory_bytes", Gauge, Bytes, [], "Resident memory of the process";
    PROCESS_CPU = "process_cpu_seconds_total", Counter, Seconds, [], "CPU time of the process, user and system";
    SEAL_DURATION = "kappa_seal_duration_seconds", Histogram, Seconds, ["step"], "Time that a step of sealing a segment took";
    HOT_WRITE_DURATION = "kappa_hot_store_write_duration_seconds", Histogram, Seconds, [],
        "Time from handing rows to the hot store to its durable acknowledgement";
    FRESHNESS = "kappa_freshness_seconds", Histogram, Seconds, [],
        "Time from the Kafka timestamp of the newest event of a row to the row's acknowledgement by the hot store";
    FETCH_DURATION = "kappa_ingest_fetch_duration_seconds", Histogram, Seconds, [],
        "Time from a request for records to the broker's answer; the native fetcher only";
    RESTORE_DURATION = "kappa_restore_duration_seconds", Histogram, Seconds, [], "Time from the start of a partition to a state from which it goes on";
}

/// Bounds of the histograms, seconds.
const BUCKETS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// The kernel counts CPU time of processes in hundredths of a second on every Linux.
const CLOCK_TICKS: f64 = 100.0;

/// What `/metrics` is made of.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The process-wide recorder's, for histograms.
    recorded: PrometheusHandle,
}

impl Metrics {
    /// The process-wide recorder's; it is installed at the first call.
    pub fn shared() -> anyhow::Result<Self> {
        static SHARED: Mutex<Option<Metrics>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = shared.as_ref() {
            return Ok(metrics.clone());
        }
        let recorder = builder()?.build_recorder();
        let recorded = recorder.handle();
        metrics::set_global_recorder(recorder).ok().context("another metrics recorder is installed already")?;
        describe(|kind| kind == MetricKind::Histogram);
        Ok(shared.insert(Self { recorded }).clone())
    }

    /// Metrics without a process-wide recorder, for tests: histograms are lost.
    pub fn detached() -> anyhow::Result<Self> {
        Ok(Self { recorded: builder()?.build_recorder().handle() })
    }

    /// The text of `/metrics`.
    pub fn render(&self, board: &StatusBoard) -> anyhow::Result<String> {
        let scrape = builder()?.build_recorder();
        metrics::with_local_recorder(&scrape, || {
            describe(|kind| kind != MetricKind::Histogram);
            publish(board);
        });
        Ok(scrape.handle().render() + &self.recorded.render())
    }

    /// Makes room: histograms keep each sample until they are looked at. To be called every few seconds.
    pub fn upkeep(&self) {
        self.recorded.run_upkeep();
    }
}

fn builder() -> anyhow::Result<PrometheusBuilder> {
    // All our histograms are durations; the suffix matcher leaves those of libraries alone.
    Ok(PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?)
}

fn describe(wanted: impl Fn(MetricKind) -> bool) {
    for metric in METRICS.iter().filter(|metric| wanted(metric.kind)) {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// Copies the board into the current recorder.
fn publish(board: &StatusBoard) {
    publish_totals(board);
    for dependency in board.dependencies() {
        let name = dependency.dependency.name();
        counter!(DEPENDENCY_FAILURES, "dependency" => name).absolute(dependency.failures);
        if let Some(ok) = dependency.ok {
            gauge!(DEPENDENCY_UP, "dependency" => name).set(f64::from(u8::from(ok)));
        }
    }
    for status in board.partitions() {
        publish_partition(board, &status);
    }
    let memory = board.memory();
    gauge!(MEMORY_USED).set(memory.used_bytes as f64);
    gauge!(MEMORY_BUDGET).set(memory.budget_bytes as f64);
    gauge!(UPTIME).set(board.uptime());
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    publish_process();
}

fn publish_totals(board: &StatusBoard) {
    let totals = board.totals();
    let topic = Label::new("topic", board.topic().to_owned());
    let counts = [
        (EVENTS, &totals.events),
        (INPUT_BYTES, &totals.bytes_in),
        (LATE_EVENTS, &totals.late_events),
        (ANOMALIES, &totals.anomalies),
        (WINDOWS_WRITTEN, &totals.windows_written),
        (ARCHIVE_FILES, &totals.archive_files),
        (ARCHIVE_BYTES, &totals.archive_bytes),
        (ADOPTED_SEGMENTS, &totals.adopted_segments),
    ];
    for (name, total) in counts {
        counter!(name, vec![topic.clone()]).absolute(total.get());
    }
    for (reason, count) in totals.dead_letters() {
        counter!(DEAD_LETTERS, vec![topic.clone(), Label::new("reason", reason)]).absolute(count);
    }
}

fn publish_partition(board: &StatusBoard, status: &PartitionStatus) {
    let topic = Label::new("topic", board.topic().to_owned());
    let partition = Label::new("partition", status.partition.to_string());
    let group = Label::new("consumergroup", board.group().to_owned());
    let labels = vec![topic, partition];
    let group_labels = [vec![group], labels.clone()].concat();

    let lag_seconds = status.lag_seconds.or((status.lag_records == Some(0)).then_some(0.0));
    set(LAG, &group_labels, status.lag_records.map(|lag| lag as f64));
    set(LAG_SECONDS, &group_labels, lag_seconds);
    set(POSITION, &labels, status.position.map(|position| position as f64));
    set(COMMITTED, &labels, status.committed.map(|position| position as f64));
    set(COMMIT_AGE, &labels, status.committed_at_ms.map(|at| (now_ms() - at).max(0) as f64 / 1000.0));
    set(WATERMARK, &labels, status.watermark_ms.map(|watermark| watermark as f64 / 1000.0));
    set(SEGMENT_AGE, &labels, Some(status.segment_age_seconds.unwrap_or(0.0)));
    set(SEGMENT_BYTES, &labels, Some(status.segment_bytes as f64));
    set(OPEN_WINDOWS, &labels, Some(status.open_windows as f64));
    set(SERIES, &labels, Some(status.series as f64));
    for state in PartitionState::ALL {
        let labels = [labels.clone(), vec![Label::new("state", state.name())]].concat();
        set(PARTITION_STATE, &labels, Some(f64::from(u8::from(status.state == state))));
    }
}

fn set(name: &'static str, labels: &[Label], value: Option<f64>) {
    if let Some(value) = value {
        gauge!(name, labels.to_vec()).set(value);
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Memory and CPU of this process, where the system tells.
fn publish_process() {
    if let Some(bytes) = resident_memory() {
        gauge!(PROCESS_MEMORY).set(bytes as f64);
    }
    if let Some(seconds) = cpu_seconds() {
        counter!(PROCESS_CPU).absolute(seconds);
    }
}

fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn cpu_seconds() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may contain anything; the fields start behind its closing bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..13)?.iter().map(|ticks| ticks.parse().unwrap_or(0.0)).sum();
    Some((ticks / CLOCK_TICKS) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Dependency;

    #[test]
    fn names_follow_the_conventions() {
        for metric in METRICS {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
            let base_unit = match metric.unit {
                Unit::Seconds => metric.name.contains("_seconds"),
                Unit::Bytes => metric.name.contains("_bytes"),
                _ => true,
            };
            assert!(base_unit && !metric.help.is_empty() && !metric.help.ends_with('.'), "{}", metric.name);
        }
    }

    #[test]
    fn the_board_is_published_and_what_is_gone_is_gone() {
        let board = StatusBoard::for_group("readings", "kappa");
        board.totals().events.add(12);
        board.totals().add_dead_letters("tombstone", 3);
        board.dependency_failing(Dependency::Registry, "refused");
        let handle = board.add_partition(4);
        handle.update(|status| {
            status.state = PartitionState::Running;
            (status.position, status.end_offset) = (Some(10), Some(12));
            status.watermark_ms = Some(1_500);
        });
        let metrics = Metrics::detached().unwrap();
        let text = metrics.render(&board).unwrap();
        for line in [
            "# TYPE kappa_events_total counter",
            "# HELP kappa_events_total Events accepted",
            "kappa_events_total{topic=\"readings\"} 12",
            "kappa_dead_letters_total{topic=\"readings\",reason=\"tombstone\"} 3",
            "kappa_dependency_up{dependency=\"registry\"} 0",
            "kafka_consumergroup_lag{consumergroup=\"kappa\",topic=\"readings\",partition=\"4\"} 2",
            "kappa_watermark_seconds{topic=\"readings\",partition=\"4\"} 1.5",
            "kappa_partition_state{topic=\"readings\",partition=\"4\",state=\"running\"} 1",
            "kappa_partition_state{topic=\"readings\",partition=\"4\",state=\"starting\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        board.remove_partition(4, &handle);
        assert!(!metrics.render(&board).unwrap().contains("partition=\"4\""));
    }

    #[test]
    fn every_published_metric_is_in_the_table_with_its_labels() {
        let board = StatusBoard::new("t");
        board.add_partition(0).update(|status| (status.position, status.end_offset) = (Some(1), Some(1)));
        let text = Metrics::detached().unwrap().render(&board).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let name = line.split(['{', ' ']).next().unwrap();
            let metric = METRICS.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}"));
            for label in metric.labels {
                assert!(line.contains(&format!("{label}=")), "{line} lacks {label}");
            }
        }
    }
}
