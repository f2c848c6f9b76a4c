//! What the whole process has done since its start.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::status::lock;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Total(AtomicU64);

impl Total {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How much it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the whole process has done since its start, whatever became of the partitions.
#[derive(Debug, Default)]
pub struct Totals {
    /// Accepted events.
    pub events: Total,
    /// Bytes of their keys and values in the log.
    pub bytes_in: Total,
    /// Rows written to `windows_1m`, provisional ones too.
    pub windows_written: Total,
    /// Readings that were there already.
    pub duplicate_events: Total,
    /// Events that came after their window had closed.
    pub late_events: Total,
    /// Flagged events.
    pub anomalies: Total,
    /// Segments written to the archive.
    pub archive_files: Total,
    /// Their bytes.
    pub archive_bytes: Total,
    /// Segments whose cut was someone else's.
    pub adopted_segments: Total,
    /// Refused records by reason.
    dead_letters: Mutex<BTreeMap<String, u64>>,
    /// Records that broke a rule of the data contract; also rules that none has broken yet.
    violations: Mutex<BTreeMap<(String, ViolationAction), u64>>,
}

/// What became of a record that broke a rule of the data contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationAction {
    /// It was refused.
    Rejected,
    /// It was accepted, and counted.
    Warned,
}

impl ViolationAction {
    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Warned => "warned",
        }
    }
}

impl Totals {
    /// Counts refused records.
    pub fn add_dead_letters(&self, reason: &str, count: u64) {
        let mut reasons = lock(&self.dead_letters);
        match reasons.get_mut(reason) {
            Some(total) => *total += count,
            None => {
                reasons.insert(reason.to_owned(), count);
            }
        }
    }

    /// Counts records that broke a rule of the data contract; with 0 it tells that there is such a rule.
    pub fn add_violations(&self, rule: &str, action: ViolationAction, count: u64) {
        *lock(&self.violations).entry((rule.to_owned(), action)).or_default() += count;
    }

    /// Records that broke a rule of the data contract, by the rule and what became of them.
    pub fn violations(&self) -> BTreeMap<(String, ViolationAction), u64> {
        lock(&self.violations).clone()
    }

    /// Refused records by reason.
    pub fn dead_letters(&self) -> BTreeMap<String, u64> {
        lock(&self.dead_letters).clone()
    }

    /// A copy of all of it.
    pub fn report(&self) -> TotalsReport {
        let by_reason = self.dead_letters();
        TotalsReport {
            events: self.events.get(),
            bytes_in: self.bytes_in.get(),
            windows_written: self.windows_written.get(),
            duplicate_events: self.duplicate_events.get(),
            late_events: self.late_events.get(),
            anomalies: self.anomalies.get(),
            archive_files: self.archive_files.get(),
            archive_bytes: self.archive_bytes.get(),
            adopted_segments: self.adopted_segments.get(),
            dead_letters: by_reason.values().sum(),
            dead_letters_by_reason: by_reason,
        }
    }
}

/// Totals in `/status`; see [`Totals`].
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "the fields of `Totals`")]
pub struct TotalsReport {
    pub events: u64,
    pub bytes_in: u64,
    pub windows_written: u64,
    pub duplicate_events: u64,
    pub late_events: u64,
    pub anomalies: u64,
    pub archive_files: u64,
    pub archive_bytes: u64,
    pub adopted_segments: u64,
    pub dead_letters: u64,
    pub dead_letters_by_reason: BTreeMap<String, u64>,
}
