//! What a partition tells the outside: status, logs, counters. Nothing here changes what it does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use kappa_core::decode::unframe;
use kappa_core::partition::{PartitionState, RejectedRecords, SegmentCut};
use kappa_core::reject::{Reason, Reject};
use metrics::Histogram;
use object_store::path::Path;
use tracing::Span;

use super::seams::Delivery;
use crate::ops::Dependency;
use crate::ops::metrics::STAGE_DURATION;
use crate::ops::status::{
    PartitionHandle, PartitionState as Phase, RefusedSchema, RejectSample, StatusBoard, is_of_schemas,
};
use crate::ops::totals::ViolationAction;
use crate::storage::StoreHealth;

/// One partition's line on the board, and the board.
#[derive(Debug, Clone)]
pub struct Observer {
    partition: i32,
    board: Arc<StatusBoard>,
    line: PartitionHandle,
    decode: Histogram,
    windows: Histogram,
}

/// How far a worker has come, beside its state.
#[derive(Debug, Clone, Default)]
pub(super) struct Sighting {
    pub(super) high_watermark: Option<i64>,
    /// See [`super::seams::PartitionLog::without_records`].
    pub(super) without_records: Option<(i64, i64)>,
    /// Kafka timestamp of the newest record taken in.
    pub(super) last_timestamp_ms: Option<i64>,
    pub(super) segment_opened_at_ms: Option<i64>,
    pub(super) segment_bytes: usize,
    /// Segments that are cut and not yet committed, and when the oldest of them was cut.
    pub(super) sealing: usize,
    pub(super) sealing_since_ms: Option<i64>,
    pub(super) now_ms: i64,
}

impl Sighting {
    /// Notes how far the log goes.
    pub(super) fn see(&mut self, delivery: &Delivery) {
        self.high_watermark = delivery.high_watermark.or(self.high_watermark);
        if let Some(last) = delivery.batch.len().checked_sub(1) {
            self.last_timestamp_ms = Some(delivery.batch.get(last).timestamp_ms);
        }
    }

    /// The end of the log as far as it holds records: markers of transactions behind the position are none.
    fn end_offset(&self, position: i64) -> Option<i64> {
        let is_empty = |from: i64, to: i64| self.without_records.is_some_and(|(start, end)| start <= from && to <= end);
        self.high_watermark.map(|end| if position < end && is_empty(position, end) { position } else { end })
    }

    /// How old the newest record taken in is, while there are others behind it.
    pub(super) fn lag_ms(&self, position: i64) -> i64 {
        let behind = self.end_offset(position).is_some_and(|end| position < end);
        self.last_timestamp_ms.filter(|_| behind).map_or(0, |last| (self.now_ms - last).max(0))
    }
}

impl Observer {
    /// For a newly assigned partition.
    pub fn new(board: &Arc<StatusBoard>, partition: i32) -> Self {
        let stage = |name: &'static str| metrics::histogram!(STAGE_DURATION, "stage" => name);
        let line = board.add_partition(partition);
        Self { partition, board: Arc::clone(board), line, decode: stage("decode"), windows: stage("windows") }
    }

    /// The log position up to which records were processed, as far as is known.
    pub fn position(&self) -> Option<i64> {
        self.line.snapshot().position
    }

    /// Takes the partition's line off the board.
    pub fn remove(&self, partition: i32) {
        self.board.remove_partition(partition, &self.line);
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.line.set_state(phase);
    }

    pub(super) fn stopped(&self, error: &impl std::fmt::Display) {
        self.line.update(|line| {
            line.state = Phase::StoppedLoudly;
            line.last_error = Some(error.to_string());
        });
    }

    pub(super) fn progress(&self, state: &PartitionState, sighting: &Sighting) {
        let windows = state.windows();
        self.line.update(|line| {
            line.position = Some(state.position());
            line.end_offset = sighting.end_offset(state.position());
            line.lag_seconds = Some(sighting.lag_ms(state.position()) as f64 / 1e3);
            line.watermark_ms = windows.watermark_ms();
            line.segment_start = Some(state.segment().start);
            line.segment_age_seconds =
                sighting.segment_opened_at_ms.map(|opened| (sighting.now_ms - opened).max(0) as f64 / 1e3);
            line.segment_rows = state.segment_rows();
            line.segment_bytes = sighting.segment_bytes as u64;
            line.segments_sealing = sighting.sealing as u64;
            line.sealing_since_ms = sighting.sealing_since_ms;
            line.open_windows = windows.open_windows() as u64;
            line.series = windows.series_count() as u64;
            line.late_total = windows.late_events();
        });
    }

    /// Records came from the log.
    pub(super) fn fetched(&self, bytes: usize) {
        self.board.totals().bytes_in.add(bytes as u64);
    }

    /// How long a batch took to be decoded, and to be added to the windows.
    pub(super) fn processed(&self, decoding: Duration, counting: Duration) {
        self.decode.record(decoding);
        self.windows.record(counting);
    }

    /// So many records more were accepted, some of them duplicates, up to that log position.
    pub(super) fn taken_in(&self, rows: u64, duplicates: u64, position: i64) {
        self.board.totals().events.add(rows);
        self.board.totals().duplicate_events.add(duplicates);
        self.line.update(|line| {
            line.rows_total += rows;
            line.position = Some(position);
        });
    }

    pub(super) fn rejected(&self, rejects: &RejectedRecords, from: usize) {
        let mut by_reason: BTreeMap<&Reason, (u64, usize)> = BTreeMap::new();
        let mut by_schema: BTreeMap<(Option<i32>, &str), (u64, usize)> = BTreeMap::new();
        for index in from..rejects.len() {
            let cause = rejects.cause(index);
            let (count, last) = by_reason.entry(cause.reason).or_default();
            (*count, *last) = (*count + 1, index);
            if is_of_schemas(cause.reason) {
                let (count, last) = by_schema.entry((cause.schema_id, cause.detail)).or_default();
                (*count, *last) = (*count + 1, index);
            }
        }
        for (count, last) in by_schema.into_values() {
            self.schema_refused(rejects, last, count);
        }
        for (reason, (count, last)) in by_reason {
            let (record, cause) = rejects.get(last);
            self.board.show_reject(RejectSample::of(self.partition, &record, cause));
            if let Reason::Contract(rule) = reason {
                self.board.totals().add_violations(rule, ViolationAction::Rejected, count);
            }
            let reason = reason.name().into_owned();
            self.board.totals().add_dead_letters(&reason, count);
            self.line.update(|line| *line.rejects_by_reason.entry(reason).or_default() += count);
        }
    }

    /// Accepted records broke rules of the data contract.
    pub(super) fn warned(&self, by_rule: Vec<(String, u64)>) {
        for (rule, count) in by_rule {
            self.board.totals().add_violations(&rule, ViolationAction::Warned, count);
        }
    }

    /// Records of one schema were refused, for what is wrong with the one at that index.
    fn schema_refused(&self, rejects: &RejectedRecords, index: usize, count: u64) {
        let (record, cause) = rejects.get(index);
        let Ok((schema, _)) = unframe(record.value, record.headers) else { return };
        let reject = Reject::new(cause.reason.clone(), cause.detail);
        if let Some(refused) = self.board.refuse_schema(&schema.to_string(), &reject, count) {
            let (topic, partition, offset) = (self.board.topic(), self.partition, record.offset);
            let RefusedSchema { schema, reason, field, rule, .. } = refused;
            tracing::warn!(
                topic,
                partition,
                offset,
                schema,
                reason,
                field,
                rule,
                "records of a schema go to the dead letters; told once for each field"
            );
        }
    }

    pub(super) fn flagged(&self, anomalies: usize) {
        self.board.totals().anomalies.add(anomalies as u64);
        self.line.update(|line| line.anomalies_total += anomalies as u64);
    }

    pub(super) fn late(&self, events: u64) {
        self.board.totals().late_events.add(events);
    }

    pub(super) fn archived(&self, bytes: usize) {
        self.board.totals().archive_files.add(1);
        self.board.totals().archive_bytes.add(bytes as u64);
    }

    pub(super) fn adopted(&self) {
        self.board.totals().adopted_segments.add(1);
    }

    pub(super) fn committed(&self, offset: i64, now_ms: i64) {
        self.line.update(|line| {
            line.committed = Some(offset);
            line.committed_at_ms = Some(now_ms);
        });
    }
}

/// The span of a segment from its cut to its commit; the steps of the seal are its children. A trace of its own: the
/// partition lives for weeks.
pub(crate) fn seal_span(topic: &str, partition: i32, segment: Range<i64>) -> Span {
    let Range { start, end } = segment;
    tracing::info_span!(parent: None, "seal", topic, partition, offset = start, end)
}

pub(super) fn log_cut(topic: &str, partition: i32, cut: &SegmentCut, because: &'static str) {
    let SegmentCut { start, end, rows, .. } = cut;
    let rejects = cut.rejected_offsets.count();
    tracing::debug!(topic, partition, offset = start, end, rows, rejects, because, "segment cut");
}

impl StoreHealth for Observer {
    fn failing(&self, key: &Path, error: &object_store::Error) {
        self.board.dependency_failing(Dependency::ObjectStore, format!("{key}: {error}"));
    }

    fn ok(&self) {
        self.board.dependency_ok(Dependency::ObjectStore);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_transactions_are_no_lag() {
        let mut sighting =
            Sighting { high_watermark: Some(12), last_timestamp_ms: Some(1_000), now_ms: 5_000, ..Sighting::default() };
        assert_eq!((sighting.lag_ms(10), sighting.end_offset(10)), (4_000, Some(12)));
        sighting.without_records = Some((10, 12));
        assert_eq!((sighting.lag_ms(10), sighting.end_offset(10)), (0, Some(10)));
        // Records before them are still on their way.
        assert_eq!((sighting.lag_ms(9), sighting.end_offset(9)), (4_000, Some(12)));
        // Others came behind them.
        sighting.high_watermark = Some(13);
        assert_eq!((sighting.lag_ms(10), sighting.end_offset(10)), (4_000, Some(13)));
    }
}
