//! Every metric in one table ([`METRICS`]), and the text that `/metrics` answers with.
//!
//! Metrics are told apart by where they are kept. What the [`StatusBoard`] knows is read off it at each scrape, so a
//! partition that is gone leaves no stale gauge behind. Durations are histograms of a process-wide recorder, to be
//! recorded where they arise, once a batch or a segment and never once an event:
//! `metrics::histogram!(SEAL_DURATION, "step" => "archive").record(elapsed)`. The rest is the system's ([`process`]).

mod catalogue;
mod document;
mod process;

use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use kappa_core::reject::Reason;
use metrics::{Label, counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use catalogue::*;
use catalogue::{BUCKETS, Keeper, STAGE_BUCKETS};
pub use document::{TableFormat, document};

use super::now_ms;
use super::status::{PartitionState, PartitionStatus, StatusBoard};
use super::totals::ViolationAction;

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
        describe(Keeper::Recorder);
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
            describe(Keeper::Board);
            publish(board);
        });
        Ok(scrape.handle().render() + &self.recorded.render() + &process::render())
    }

    /// Makes room: histograms keep each sample until they are looked at. To be called every few seconds.
    pub fn upkeep(&self) {
        self.recorded.run_upkeep();
    }
}

fn builder() -> anyhow::Result<PrometheusBuilder> {
    // All our histograms are durations; the suffix matcher leaves those of libraries alone.
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(STAGE_DURATION.to_owned()), &STAGE_BUCKETS)?)
}

fn describe(keeper: Keeper) {
    for metric in METRICS.iter().filter(|metric| metric.keeper == keeper) {
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
    publish_refused_schemas(board);
    for status in board.partitions() {
        publish_partition(board, &status);
    }
    let memory = board.memory();
    gauge!(MEMORY_USED).set(memory.used_bytes as f64);
    gauge!(MEMORY_BUDGET).set(memory.budget_bytes as f64);
    gauge!(UPTIME).set(board.uptime());
    let build =
        [("version", env!("CARGO_PKG_VERSION")), ("revision", env!("KAPPA_REVISION")), ("rustc", env!("KAPPA_RUSTC"))];
    gauge!(BUILD_INFO, &build).set(1.0);
}

fn publish_totals(board: &StatusBoard) {
    let totals = board.totals();
    let topic = Label::new("topic", board.topic().to_owned());
    let counts = [
        (EVENTS, &totals.events),
        (INPUT_BYTES, &totals.bytes_in),
        (DUPLICATE_EVENTS, &totals.duplicate_events),
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
    // Of a counter that is not there before its first event, Prometheus does not see that event.
    let none_yet = Reason::names().map(|name| (name.to_owned(), 0));
    let of_contract = totals.violations();
    let rejecting = of_contract.keys().filter(|(_, action)| *action == ViolationAction::Rejected);
    let none_yet = none_yet.chain(rejecting.map(|(rule, _)| (Reason::contract(rule).name().into_owned(), 0)));
    for (reason, count) in none_yet.chain(totals.dead_letters()) {
        counter!(DEAD_LETTERS, vec![topic.clone(), Label::new("reason", reason)]).absolute(count);
    }
    for ((rule, action), count) in of_contract {
        let labels = vec![topic.clone(), Label::new("rule", rule), Label::new("action", action.name())];
        counter!(CONTRACT_VIOLATIONS, labels).absolute(count);
    }
}

fn publish_refused_schemas(board: &StatusBoard) {
    for refused in board.refused_schemas() {
        let labels = vec![
            Label::new("topic", board.topic().to_owned()),
            Label::new("schema", refused.schema),
            Label::new("reason", refused.reason),
            Label::new("field", refused.field),
            Label::new("rule", refused.rule),
        ];
        gauge!(REFUSED_SCHEMA_SEEN, labels).set(refused.last_seen_ms as f64 / 1000.0);
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
    set(SEALING, &labels, Some(status.segments_sealing as f64));
    let seal_age = status.sealing_since_ms.map_or(0.0, |since| (now_ms() - since).max(0) as f64 / 1000.0);
    set(SEAL_AGE, &labels, Some(seal_age));
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

#[cfg(test)]
mod tests {
    use kappa_core::reject::Reject;
    use metrics::Unit;

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
        board.totals().add_violations("range", ViolationAction::Rejected, 0);
        board.totals().add_violations("trusted", ViolationAction::Warned, 5);
        board.dependency_failing(Dependency::Registry, "refused");
        let rule = "field `value`: the writer's string cannot be read as double";
        board.refuse_schema("7", &Reject::new(Reason::IncompatibleSchema, rule), 1);
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
            "kappa_dead_letters_total{topic=\"readings\",reason=\"bad_magic\"} 0",
            "kappa_dead_letters_total{topic=\"readings\",reason=\"contract_range\"} 0",
            "kappa_contract_violations_total{topic=\"readings\",rule=\"range\",action=\"rejected\"} 0",
            "kappa_contract_violations_total{topic=\"readings\",rule=\"trusted\",action=\"warned\"} 5",
            "kappa_dependency_up{dependency=\"registry\"} 0",
            "kappa_refused_schema_last_seen_timestamp_seconds{topic=\"readings\",schema=\"7\",\
             reason=\"incompatible_schema\",field=\"value\",rule=\"the writer's string cannot be read as double\"} ",
            "kafka_consumergroup_lag{consumergroup=\"kappa\",topic=\"readings\",partition=\"4\"} 2",
            "kappa_watermark_timestamp_seconds{topic=\"readings\",partition=\"4\"} 1.5",
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
        board.refuse_schema("7", &Reject::new(Reason::SchemaNotAvro, "registered as JSON"), 1);
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
