//! Every metric in one table. Names follow Prometheus' conventions: base units, `_total` for counters.

use metrics::Unit;
use serde::Serialize;

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

impl MetricKind {
    /// As Prometheus writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Where the value of a metric is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The [`StatusBoard`](crate::ops::status::StatusBoard); it is read off at each scrape.
    Board,
    /// The process-wide recorder; it is recorded where it arises.
    Recorder,
    /// The operating system.
    System,
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct MetricSpec {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
    pub(super) keeper: Keeper,
}

macro_rules! metrics_table {
    ($($keeper:ident { $($constant:ident = $name:literal, $kind:ident, $unit:ident, [$($label:literal),*], $help:literal;)* })*) => {
        $($(#[doc = $help] pub const $constant: &str = $name;)*)*

        /// All metrics.
        pub const METRICS: &[MetricSpec] = &[$($(MetricSpec {
            name: $name,
            kind: MetricKind::$kind,
            unit: Unit::$unit,
            labels: &[$($label),*],
            help: $help,
            keeper: Keeper::$keeper,
        }),*),*];
    };
}

metrics_table! {
    Board {
        EVENTS = "kappa_events_total", Counter, Count, ["topic"], "Events accepted";
        INPUT_BYTES = "kappa_input_bytes_total", Counter, Bytes, ["topic"], "Bytes of keys and values read from the log";
        DEAD_LETTERS = "kappa_dead_letters_total", Counter, Count, ["topic", "reason"], "Records refused, by reason";
        CONTRACT_VIOLATIONS = "kappa_contract_violations_total", Counter, Count, ["topic", "rule", "action"],
            "Records that broke a rule of the data contract, by what became of them: rejected (to the dead letters) or warned (accepted)";
        REFUSED_SCHEMA_SEEN = "kappa_refused_schema_last_seen_timestamp_seconds", Gauge, Seconds, ["topic", "schema", "reason", "field", "rule"],
            "When a record was last refused because of its schema, as Unix time; with the field at fault and the rule that it breaks. Gone after an hour without one";
        DUPLICATE_EVENTS = "kappa_duplicate_events_total", Counter, Count, ["topic"], "Readings that were there already: archived with a mark, in no window";
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
        WATERMARK = "kappa_watermark_timestamp_seconds", Gauge, Seconds, ["topic", "partition"], "Largest valid event time, as Unix time";
        SEGMENT_AGE = "kappa_segment_age_seconds", Gauge, Seconds, ["topic", "partition"], "Age of the open segment";
        SEGMENT_BYTES = "kappa_segment_bytes", Gauge, Bytes, ["topic", "partition"], "Encoded size of the open segment";
        SEALING = "kappa_segments_sealing", Gauge, Count, ["topic", "partition"], "Segments that are cut and not yet committed";
        SEAL_AGE = "kappa_seal_age_seconds", Gauge, Seconds, ["topic", "partition"],
            "Time since the oldest segment that is not yet committed was cut, 0 if there is none";
        OPEN_WINDOWS = "kappa_open_windows", Gauge, Count, ["topic", "partition"], "Windows that are not closed yet";
        SERIES = "kappa_series", Gauge, Count, ["topic", "partition"], "Series with state in memory";
        PARTITION_STATE = "kappa_partition_state", Gauge, Count, ["topic", "partition", "state"], "1 for the state that the partition is in";
        MEMORY_USED = "kappa_memory_used_bytes", Gauge, Bytes, [], "Memory that grows with the load, in use";
        MEMORY_BUDGET = "kappa_memory_budget_bytes", Gauge, Bytes, [], "Its limit, limits.memory";
        UPTIME = "kappa_uptime_seconds", Gauge, Seconds, [], "Time since the start";
        BUILD_INFO = "kappa_build_info", Gauge, Count, ["version", "revision", "rustc"],
            "Always 1; version, commit and compiler of the program";
    }
    Recorder {
        CHECKPOINT_INTERVAL = "kappa_checkpoint_interval_seconds", Gauge, Seconds, [], "Longest time that a segment stays open, checkpoint.interval";
        STORE_PROBE = "kappa_object_store_probe_success", Gauge, Count, ["store"],
            "At the start, whether the archive, dead_letter or state store was found to create atomically: 0 while it is waited for";
        INGEST_RECORDS = "kappa_ingest_records_total", Counter, Count, [], "Records handed to partitions, replayed ones too";
        INGEST_BYTES = "kappa_ingest_bytes_total", Counter, Bytes, [], "Memory of these records";
        INGEST_BATCHES = "kappa_ingest_batches_total", Counter, Count, [], "Batches of records handed to partitions";
        INGEST_PAUSES = "kappa_ingest_pauses_total", Counter, Count, [], "Times that a partition was paused because it took nothing";
        INGEST_HOLDING_BACK = "kappa_ingest_holding_back", Gauge, Count, [],
            "1 while records are left in Kafka because memory is short or the workers are behind";
        INGEST_UNDELIVERED = "kappa_ingest_undelivered_bytes", Gauge, Bytes, [], "Memory of records that wait for their partition's worker";
        FETCH_DURATION = "kappa_ingest_fetch_duration_seconds", Histogram, Seconds, [],
            "Time from a request for records to the broker's answer; the native fetcher only";
        STAGE_DURATION = "kappa_stage_duration_seconds", Histogram, Seconds, ["stage"],
            "Time that one batch spent in a stage of the record path: fetch (from the Kafka client, or a broker's answer, to the partitions), decode (decoded, judged, digested), windows (windows and anomalies), encode (Parquet)";
        SEAL_DURATION = "kappa_seal_duration_seconds", Histogram, Seconds, ["step"],
            "Time that a step of sealing a segment took: archive, dead_letters, hot_store, snapshot, commit";
        HOT_WRITE_DURATION = "kappa_hot_store_write_duration_seconds", Histogram, Seconds, [],
            "Time from handing rows to the hot store to its durable acknowledgement, tries included";
        FRESHNESS = "kappa_freshness_seconds", Histogram, Seconds, [],
            "Time from the Kafka timestamp of the newest event of a row to the row's acknowledgement by the hot store";
        RESTORE_DURATION = "kappa_restore_duration_seconds", Histogram, Seconds, [], "Time from the start of a partition to a state from which it goes on";
    }
    System {
        PROCESS_CPU = "process_cpu_seconds_total", Counter, Seconds, [], "CPU time of the process, user and system";
        PROCESS_RESIDENT = "process_resident_memory_bytes", Gauge, Bytes, [], "Resident memory of the process";
        PROCESS_VIRTUAL = "process_virtual_memory_bytes", Gauge, Bytes, [], "Virtual memory of the process";
        PROCESS_FDS = "process_open_fds", Gauge, Count, [], "File descriptors that the process has open";
        PROCESS_MAX_FDS = "process_max_fds", Gauge, Count, [], "File descriptors that it may have open";
        PROCESS_THREADS = "process_threads", Gauge, Count, [], "Threads of the process";
        PROCESS_START = "process_start_time_seconds", Gauge, Seconds, [], "When the process was started, as Unix time";
    }
}

/// Bounds of the histograms of what takes milliseconds to minutes, seconds.
pub(super) const BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Bounds for a batch's time in a stage of the record path: microseconds for a few records, milliseconds for thousands.
pub(super) const STAGE_BUCKETS: [f64; 14] =
    [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5];

/// The line of a metric.
pub fn spec(name: &str) -> Option<&'static MetricSpec> {
    METRICS.iter().find(|metric| metric.name == name)
}
