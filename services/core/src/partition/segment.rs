//! The open segment of a partition, and what is left of it when it is cut.

use crate::digest::LogDigest;
use crate::record::{LogBatch, LogRecord};
use crate::reject::{Reason, Reject};
use crate::rows::{AnomalyRow, QualityRow, SensorRow, WindowRow};

use super::rejects::RejectedOffsets;

/// Milliseconds of an hour: archives are laid out by the UTC hour.
const HOUR_MS: i64 = 3_600_000;

/// `[start, position)` of the log, not yet cut.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) start: i64,
    /// Kafka timestamp of the first record: it names the archive's hour.
    pub(super) first_timestamp_ms: Option<i64>,
    pub(super) rows: u64,
    /// Of the rows, those whose reading was there already.
    pub(super) duplicates: u64,
    pub(super) digest: LogDigest,
    pub(super) rejected_offsets: RejectedOffsets,
    /// Not yet taken.
    pub(super) rejects: RejectedRecords,
    /// Holds a fresh decision of the registry's, see [`super::unknown_schemas`].
    pub(super) is_undecided: bool,
}

/// Rejected records whole, with why. In few allocations, since another thread frees them, and all records may be poison.
#[derive(Debug, Default)]
pub struct RejectedRecords {
    records: LogBatch,
    causes: Vec<StoredCause>,
    /// All sentences, back to back.
    details: String,
}

#[derive(Debug)]
struct StoredCause {
    reason: Reason,
    schema_id: Option<i32>,
    /// Where its sentence ends in `details`.
    detail_end: usize,
}

/// Why a record was rejected, and by which schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectCause<'a> {
    /// From the closed list.
    pub reason: &'a Reason,
    /// The sentence for a person.
    pub detail: &'a str,
    /// The schema id of its framing; `None` if unreadable.
    pub schema_id: Option<i32>,
}

/// A segment, cut: everything that sealing it needs. A pure function of the log prefix up to `end`.
#[derive(Debug)]
pub struct SegmentCut {
    /// First log position.
    pub start: i64,
    /// The log position behind the last.
    pub end: i64,
    /// Kafka timestamp of the first record.
    pub first_timestamp_ms: i64,
    /// Accepted records.
    pub rows: u64,
    /// Of them, those whose reading was there already: marked in the archive, not in the windows.
    pub duplicates: u64,
    /// Digest of all records of the range.
    pub digest: String,
    /// The rejected offsets, for the footer.
    pub rejected_offsets: RejectedOffsets,
    /// Rejected records that were not taken before, for the dead letters.
    pub rejects: RejectedRecords,
    /// Whether later rows must wait until this segment's footer is durable.
    pub is_undecided: bool,
    /// Rows for the hot store that were not taken before: all of them are true up to `end`.
    pub window_rows: Vec<WindowRow>,
    /// Flagged events that were not taken before.
    pub anomalies: Vec<AnomalyRow>,
    /// Sensors whose site is new or has changed, not taken before.
    pub sensors: Vec<SensorRow>,
    /// What the records of the range are worth.
    pub quality: Vec<QualityRow>,
    /// The state at `end`, ready to be stored.
    pub snapshot: Vec<u8>,
}

impl OpenSegment {
    pub(super) fn new(start: i64) -> Self {
        Self {
            start,
            first_timestamp_ms: None,
            rows: 0,
            duplicates: 0,
            digest: LogDigest::new(),
            rejected_offsets: RejectedOffsets::default(),
            rejects: RejectedRecords::default(),
            is_undecided: false,
        }
    }

    /// Whether a record of that timestamp belongs to a later UTC hour than the segment.
    #[inline]
    pub(super) fn is_of_a_later_hour(&self, timestamp_ms: i64) -> bool {
        self.first_timestamp_ms.is_some_and(|first| timestamp_ms.div_euclid(HOUR_MS) > first.div_euclid(HOUR_MS))
    }

    pub(super) fn reject(&mut self, record: &LogRecord<'_>, reject: Reject, schema_id: Option<i32>) {
        self.rejected_offsets.push(record.offset, &reject.reason);
        self.rejects.push(record, reject, schema_id);
    }
}

impl RejectedRecords {
    fn push(&mut self, record: &LogRecord<'_>, reject: Reject, schema_id: Option<i32>) {
        self.records.push(record.offset, record.timestamp_ms, record.key, record.value, record.headers.iter());
        self.details.push_str(&reject.detail);
        self.causes.push(StoredCause { reason: reject.reason, schema_id, detail_end: self.details.len() });
    }

    /// Takes all out. Room stays for as many again: where one record is poison, many are.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self {
            records: LogBatch::with_capacity(self.records.len(), self.records.byte_len()),
            causes: Vec::with_capacity(self.causes.len()),
            details: String::with_capacity(self.details.len()),
        };
        std::mem::replace(self, empty)
    }

    /// Records with their causes, in offset order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (LogRecord<'_>, RejectCause<'_>)> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The record at that index, with its cause.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, index: usize) -> (LogRecord<'_>, RejectCause<'_>) {
        (self.records.get(index), self.cause(index))
    }

    /// Why the record at that index was rejected.
    ///
    /// # Panics
    /// If there is none.
    pub fn cause(&self, index: usize) -> RejectCause<'_> {
        let StoredCause { reason, schema_id, detail_end } = &self.causes[index];
        let detail_start = index.checked_sub(1).map_or(0, |before| self.causes[before].detail_end);
        let detail = &self.details[detail_start..*detail_end];
        RejectCause { reason, detail, schema_id: *schema_id }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.causes.len()
    }

    /// Whether nothing was rejected.
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// Bytes of the records.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.records.byte_len()
    }

    /// Bytes of the sentences.
    pub fn detail_bytes(&self) -> usize {
        self.details.len()
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.records.memory() + self.causes.capacity() * size_of::<StoredCause>() + self.details.capacity()
    }
}
