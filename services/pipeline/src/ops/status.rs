//! What the process is doing right now, for people and for `/status`, `/readyz` and `/metrics`.
//!
//! Workers write, HTTP handlers read. A worker holds the [`PartitionHandle`] of its partition: an update takes one
//! uncontended lock, a few times a second. Nothing in the pipeline reads the board to decide anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kappa_core::reject::Reject;
use serde::Serialize;

use super::dependencies::{Dependencies, Dependency, DependencyReport};
use super::refused_schemas::RefusedSchemas;
pub use super::refused_schemas::{RefusedSchema, is_of_schemas};
pub use super::reject_samples::RejectSample;
use super::reject_samples::RejectSamples;
pub use super::totals::{Total, Totals, TotalsReport};

/// After this long without [`StatusBoard::beat`] the process counts as hung.
const HUNG_AFTER: Duration = Duration::from_mins(1);

/// What a partition is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// Assigned; its committed offset is looked up.
    #[default]
    Starting,
    /// Its snapshot is loaded.
    Restoring,
    /// It follows a segment that someone else cut.
    Adopting,
    /// Records flow.
    Running,
    /// A schema is awaited; the registry does not answer, or does not know it yet.
    WaitingForSchema,
    /// The memory budget is used up; nothing is read until something is written.
    Backpressure,
    /// It cannot go on without a person; `last_error` says why.
    StoppedLoudly,
    /// Someone else has it now.
    Revoked,
}

impl PartitionState {
    /// All states, for metrics that show one of them.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Restoring,
        Self::Adopting,
        Self::Running,
        Self::WaitingForSchema,
        Self::Backpressure,
        Self::StoppedLoudly,
        Self::Revoked,
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Restoring => "restoring",
            Self::Adopting => "adopting",
            Self::Running => "running",
            Self::WaitingForSchema => "waiting_for_schema",
            Self::Backpressure => "backpressure",
            Self::StoppedLoudly => "stopped_loudly",
            Self::Revoked => "revoked",
        }
    }
}

/// One partition.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// What it is doing.
    pub state: PartitionState,
    /// The log position up to which records were processed.
    pub position: Option<i64>,
    /// The log position up to which everything is durable.
    pub committed: Option<i64>,
    /// When `committed` last moved, or the partition was assigned: milliseconds since the epoch.
    pub committed_at_ms: Option<i64>,
    /// The high watermark of the log, as last seen.
    pub end_offset: Option<i64>,
    /// Records between `position` and `end_offset`.
    pub lag_records: Option<i64>,
    /// How long ago the newest processed record was written to the log, while there are others behind it.
    pub lag_seconds: Option<f64>,
    /// The largest valid event time, milliseconds since the epoch.
    pub watermark_ms: Option<i64>,
    /// Where the open segment starts.
    pub segment_start: Option<i64>,
    /// Since when it is open.
    pub segment_age_seconds: Option<f64>,
    /// Its rows so far.
    pub segment_rows: u64,
    /// Its encoded size so far.
    pub segment_bytes: u64,
    /// Accepted events since the assignment.
    pub rows_total: u64,
    /// Refused records since the assignment, by reason.
    pub rejects_by_reason: BTreeMap<String, u64>,
    /// Segments that are cut and not yet committed.
    pub segments_sealing: u64,
    /// When the oldest of them was cut, milliseconds since the epoch.
    pub sealing_since_ms: Option<i64>,
    /// Windows that are not closed yet.
    pub open_windows: u64,
    /// Series with state.
    pub series: u64,
    /// Flagged events since the assignment.
    pub anomalies_total: u64,
    /// Events that came after their window had closed, since the assignment.
    pub late_total: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// A worker's way to its partition's line on the board.
#[derive(Debug, Clone)]
pub struct PartitionHandle(Arc<Mutex<PartitionStatus>>);

impl PartitionHandle {
    /// Changes the line.
    pub fn update(&self, change: impl FnOnce(&mut PartitionStatus)) {
        let mut status = lock(&self.0);
        change(&mut status);
        status.lag_records = match (status.position, status.end_offset) {
            (Some(position), Some(end)) => Some((end - position).max(0)),
            _ => status.lag_records,
        };
    }

    /// Only the state.
    pub fn set_state(&self, state: PartitionState) {
        lock(&self.0).state = state;
    }

    /// A copy of the line.
    pub fn snapshot(&self) -> PartitionStatus {
        lock(&self.0).clone()
    }
}

/// The board. One per process, shared by `Arc`.
#[derive(Debug)]
pub struct StatusBoard {
    topic: String,
    group: String,
    started: Instant,
    partitions: Mutex<BTreeMap<i32, PartitionHandle>>,
    /// Whether the group has ever given us an assignment, an empty one included.
    assigned: AtomicBool,
    /// Whether the process is on its way out.
    stopping: AtomicBool,
    /// Milliseconds from `started` to the last beat of the consumer loop; -1 before the first.
    last_beat: AtomicI64,
    memory_used: AtomicU64,
    memory_budget: AtomicU64,
    memory_exhausted: AtomicBool,
    totals: Totals,
    dependencies: Dependencies,
    reject_samples: RejectSamples,
    refused_schemas: RefusedSchemas,
}

/// `/status`.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// Version of the program.
    pub version: &'static str,
    /// The topic it reads.
    pub topic: String,
    /// Its consumer group.
    pub group: String,
    /// Seconds since its start.
    pub uptime_seconds: f64,
    /// Whether it is ready.
    pub ready: bool,
    /// Why not.
    pub not_ready_because: Vec<String>,
    /// Memory that grows with the load.
    pub memory: MemoryReport,
    /// Since the start of the process.
    pub totals: TotalsReport,
    /// What it depends on.
    pub dependencies: Vec<DependencyReport>,
    /// The partitions that it has, and those that stopped loudly.
    pub partitions: Vec<PartitionStatus>,
    /// Schemas whose records were refused within the last hour, with the field and the rule.
    pub refused_schemas: Vec<RefusedSchema>,
    /// The newest refused records of each reason, cut short.
    pub recent_rejects: Vec<RejectSample>,
}

/// Memory in `/status`.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryReport {
    /// Bytes in use.
    pub used_bytes: u64,
    /// `limits.memory`.
    pub budget_bytes: u64,
}

impl StatusBoard {
    /// An empty board without a consumer group.
    pub fn new(topic: impl Into<String>) -> Arc<Self> {
        Self::for_group(topic, "")
    }

    /// An empty board.
    pub fn for_group(topic: impl Into<String>, group: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            topic: topic.into(),
            group: group.into(),
            started: Instant::now(),
            partitions: Mutex::default(),
            assigned: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            last_beat: AtomicI64::new(-1),
            memory_used: AtomicU64::new(0),
            memory_budget: AtomicU64::new(0),
            memory_exhausted: AtomicBool::new(false),
            totals: Totals::default(),
            dependencies: Dependencies::default(),
            reject_samples: RejectSamples::default(),
            refused_schemas: RefusedSchemas::default(),
        })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The consumer group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Puts up a fresh line for a newly assigned partition.
    pub fn add_partition(&self, partition: i32) -> PartitionHandle {
        self.assigned.store(true, Ordering::Relaxed);
        let status = PartitionStatus { partition, ..PartitionStatus::default() };
        let handle = PartitionHandle(Arc::new(Mutex::new(status)));
        lock(&self.partitions).insert(partition, handle.clone());
        handle
    }

    /// Takes a partition's line down, if it is still this one.
    pub fn remove_partition(&self, partition: i32, handle: &PartitionHandle) {
        let mut partitions = lock(&self.partitions);
        if partitions.get(&partition).is_some_and(|current| Arc::ptr_eq(&current.0, &handle.0)) {
            partitions.remove(&partition);
        }
    }

    /// The group has answered, even if there was no partition for us.
    pub fn set_assigned(&self) {
        self.assigned.store(true, Ordering::Relaxed);
    }

    /// The process seals what it has and leaves: from now on it is not ready.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The consumer loop is alive.
    pub fn beat(&self) {
        self.last_beat.store(self.started.elapsed().as_millis() as i64, Ordering::Relaxed);
    }

    /// Memory in use and its budget, bytes.
    pub fn set_memory(&self, used: u64, budget: u64) {
        self.memory_used.store(used, Ordering::Relaxed);
        self.memory_budget.store(budget, Ordering::Relaxed);
    }

    /// Whether so much memory is in use that no records are taken.
    pub fn set_memory_exhausted(&self, exhausted: bool) {
        self.memory_exhausted.store(exhausted, Ordering::Relaxed);
    }

    /// What the whole process has done.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Shows a refused record to people.
    pub fn show_reject(&self, sample: RejectSample) {
        self.reject_samples.add(sample);
    }

    /// Counts records that were refused because of their schema. Gives the entry if there was none of it lately.
    pub fn refuse_schema(&self, schema: &str, reject: &Reject, records: u64) -> Option<RefusedSchema> {
        self.refused_schemas.add(schema, reject, records)
    }

    /// Schemas whose records were refused lately.
    pub fn refused_schemas(&self) -> Vec<RefusedSchema> {
        self.refused_schemas.report()
    }

    /// Says that a dependency answered. Logged only when it had not before.
    pub fn dependency_ok(&self, dependency: Dependency) {
        self.dependencies.ok(dependency);
    }

    /// Says that a dependency failed. Logged only when it had not before.
    pub fn dependency_failing(&self, dependency: Dependency, error: impl std::fmt::Display) {
        self.dependencies.failing(dependency, &error.to_string());
    }

    /// Copies of all lines.
    pub fn partitions(&self) -> Vec<PartitionStatus> {
        let handles: Vec<_> = lock(&self.partitions).values().cloned().collect();
        let exhausted = self.memory_exhausted.load(Ordering::Relaxed);
        let line = |handle: &PartitionHandle| {
            let mut status = handle.snapshot();
            if exhausted && status.state == PartitionState::Running {
                status.state = PartitionState::Backpressure;
            }
            status
        };
        handles.iter().map(line).collect()
    }

    /// What the dependencies are like.
    pub fn dependencies(&self) -> Vec<DependencyReport> {
        self.dependencies.report()
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Memory in use and its budget.
    pub fn memory(&self) -> MemoryReport {
        MemoryReport {
            used_bytes: self.memory_used.load(Ordering::Relaxed),
            budget_bytes: self.memory_budget.load(Ordering::Relaxed),
        }
    }

    /// Why the process should be restarted, if it should.
    pub fn hung(&self) -> Option<String> {
        let last = self.last_beat.load(Ordering::Relaxed);
        if last < 0 {
            return None;
        }
        let silent = self.started.elapsed().saturating_sub(Duration::from_millis(last.unsigned_abs()));
        (silent > HUNG_AFTER).then(|| format!("the consumer loop has not come round for {} s", silent.as_secs()))
    }

    /// Why the process is not ready; empty if it is.
    pub fn not_ready_because(&self, max_lag: Duration) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the pipeline is stopping".to_owned());
        }
        if !self.assigned.load(Ordering::Relaxed) {
            reasons.push("the consumer group has not assigned anything yet".to_owned());
            reasons.extend(self.dependencies().iter().filter_map(missing));
        }
        for status in self.partitions() {
            reasons.extend(not_ready(&status, max_lag));
        }
        reasons.extend(self.hung());
        reasons
    }

    /// Everything.
    pub fn report(&self, max_lag: Duration) -> StatusReport {
        let not_ready_because = self.not_ready_because(max_lag);
        StatusReport {
            version: env!("CARGO_PKG_VERSION"),
            topic: self.topic.clone(),
            group: self.group.clone(),
            uptime_seconds: self.uptime().as_secs_f64(),
            ready: not_ready_because.is_empty(),
            not_ready_because,
            memory: self.memory(),
            totals: self.totals.report(),
            dependencies: self.dependencies(),
            partitions: self.partitions(),
            refused_schemas: self.refused_schemas(),
            recent_rejects: self.reject_samples.report(),
        }
    }
}

/// Only of interest before the first assignment: later a dependency that is away delays, and nothing more.
fn missing(report: &DependencyReport) -> Option<String> {
    let error = report.last_error.as_deref().filter(|_| report.ok == Some(false))?;
    Some(format!("waiting for the {}: {error}", report.dependency.name()))
}

fn not_ready(status: &PartitionStatus, max_lag: Duration) -> Option<String> {
    let partition = status.partition;
    match status.state {
        PartitionState::Starting | PartitionState::Restoring | PartitionState::Adopting => {
            return Some(format!("partition {partition} is {}", status.state.name()));
        }
        PartitionState::StoppedLoudly => {
            let why = status.last_error.as_deref().unwrap_or("see the log");
            return Some(format!("partition {partition} has stopped: {why}"));
        }
        PartitionState::Revoked => return None,
        PartitionState::Running | PartitionState::WaitingForSchema | PartitionState::Backpressure => {}
    }
    let lag = status.lag_seconds.filter(|lag| *lag > max_lag.as_secs_f64())?;
    Some(format!("partition {partition} is {lag:.0} s behind, more than http.ready_max_lag"))
}

/// A panic while the lock was held can leave only numbers that are not quite right, not a broken board.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_mins(1);

    #[test]
    fn ready_means_assigned_restored_and_caught_up() {
        let board = StatusBoard::new("t");
        assert_eq!(board.not_ready_because(LAG), ["the consumer group has not assigned anything yet"]);
        board.dependency_failing(Dependency::ObjectStore, "connection refused");
        assert_eq!(board.not_ready_because(LAG)[1], "waiting for the object_store: connection refused");
        let handle = board.add_partition(3);
        assert_eq!(board.not_ready_because(LAG), ["partition 3 is starting"]);
        handle.update(|status| {
            status.state = PartitionState::Running;
            status.lag_seconds = Some(61.0);
        });
        assert_eq!(board.not_ready_because(LAG), ["partition 3 is 61 s behind, more than http.ready_max_lag"]);
        handle.update(|status| status.lag_seconds = Some(59.0));
        assert!(board.report(LAG).ready);
        handle.update(|status| {
            status.state = PartitionState::StoppedLoudly;
            status.last_error = Some("retention overran".to_owned());
        });
        assert_eq!(board.not_ready_because(LAG), ["partition 3 has stopped: retention overran"]);
    }

    #[test]
    fn partitions_that_run_wait_while_the_memory_is_used_up() {
        let board = StatusBoard::new("t");
        board.add_partition(0).set_state(PartitionState::Running);
        board.add_partition(1).set_state(PartitionState::Restoring);
        let states = || board.partitions().iter().map(|status| status.state).collect::<Vec<_>>();
        board.set_memory_exhausted(true);
        assert_eq!(states(), [PartitionState::Backpressure, PartitionState::Restoring]);
        board.set_memory_exhausted(false);
        assert_eq!(states(), [PartitionState::Running, PartitionState::Restoring]);
    }

    #[test]
    fn a_member_without_partitions_is_ready() {
        let board = StatusBoard::new("t");
        board.set_assigned();
        assert!(board.not_ready_because(LAG).is_empty());
        board.set_stopping();
        assert_eq!(board.not_ready_because(LAG), ["the pipeline is stopping"]);
    }

    #[test]
    fn lag_follows_from_the_offsets() {
        let board = StatusBoard::new("t");
        let handle = board.add_partition(0);
        handle.update(|status| (status.position, status.end_offset) = (Some(7), Some(10)));
        assert_eq!(handle.snapshot().lag_records, Some(3));
        handle.update(|status| status.position = Some(12));
        assert_eq!(handle.snapshot().lag_records, Some(0));
    }

    #[test]
    fn only_its_own_line_is_taken_down() {
        let board = StatusBoard::new("t");
        let before = board.add_partition(0);
        let after = board.add_partition(0);
        board.remove_partition(0, &before);
        assert_eq!(board.partitions().len(), 1);
        board.remove_partition(0, &after);
        assert!(board.partitions().is_empty());
    }

    #[test]
    fn totals_outlive_partitions() {
        let board = StatusBoard::new("t");
        board.totals().events.add(5);
        board.totals().add_dead_letters("tombstone", 2);
        board.totals().add_dead_letters("tombstone", 1);
        board.totals().add_dead_letters("bad_magic", 1);
        let json = serde_json::to_value(board.report(LAG)).unwrap();
        assert_eq!(json["totals"]["events"], 5);
        assert_eq!(json["totals"]["dead_letters"], 4);
        assert_eq!(json["totals"]["dead_letters_by_reason"]["tombstone"], 3);
    }
}
