//! What the core hands to the hot store: plain rows, each a pure function of a log prefix.

use std::sync::Arc;

use crate::anomaly::AnomalyKind;

/// The identity of a series: the texts of the key fields, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey(Box<[Box<str>]>);

impl SeriesKey {
    /// A key of these parts.
    pub fn new(parts: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        Self(parts.into_iter().map(Into::into).collect())
    }

    /// The texts of the key fields.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.0.iter().map(|part| part.len() + size_of::<Box<str>>()).sum()
    }
}

/// The segment number of a window's own row; late contributions carry the start offset of their segment.
pub const OWN_ROW: i64 = -1;

/// One row of `windows_1m`: a window of a series as the log prefix up to `version` says, or what one segment had to
/// add to a window that was already closed.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowRow {
    /// Which series; shared, so that a row costs no allocation.
    pub series: Arc<SeriesKey>,
    /// Start of the window, milliseconds since the epoch.
    pub window_start_ms: i64,
    /// [`OWN_ROW`], or the start offset of the segment whose late contribution this is.
    pub segment: i64,
    /// Accepted events.
    pub count: u64,
    /// Sum of the values, added in log order.
    pub sum: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Sum of squared deviations from this row's mean. Unlike a sum of squares it loses no digits to the mean, and rows
    /// merge by Chan's formula (Chan, Golub, LeVeque 1979).
    pub m2: f64,
    /// Value of the event with the smallest event time; the lowest offset of several.
    pub first_value: f64,
    /// Its event time, milliseconds since the epoch.
    pub first_time_ms: i64,
    /// Value of the event with the largest event time; the highest offset of several.
    pub last_value: f64,
    /// Its event time, milliseconds since the epoch.
    pub last_time_ms: i64,
    /// Events that the detector flagged.
    pub anomalies: u64,
    /// The largest score of any event: minus the decimal logarithm of a tail probability.
    pub max_score: f64,
    /// Events whose quality is the configured bad one.
    pub bad_quality: u64,
    /// Whether the watermark has passed the window and its allowed lateness.
    pub closed: bool,
    /// The log position up to which this row is true; the highest wins.
    pub version: i64,
}

/// Where a sensor stands, as the newest event that it was told by says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensorRow {
    /// Text of the first key field.
    pub sensor: Box<str>,
    /// Text of the site field; empty where the event has none.
    pub site: Box<str>,
    /// Event time of that event, milliseconds since the epoch.
    pub seen_at_ms: i64,
    /// The log position behind that event; the highest wins.
    pub version: i64,
}

/// What the records of one segment brought, of one site and metric in one minute of arrival. Rows of several segments add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QualityRow {
    /// Text of the site field; empty where the event does not say, or the record could not be read.
    pub site: Box<str>,
    /// Text of the second key field; empty likewise.
    pub metric: Box<str>,
    /// The minute of the record timestamps, milliseconds since the epoch.
    pub minute_ms: i64,
    /// What was counted.
    pub counts: QualityCounts,
}

/// See [`QualityRow`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QualityCounts {
    /// Events that count: accepted, and no duplicates.
    pub accepted: u64,
    /// Records in the dead letters.
    pub rejected: u64,
    /// Readings that were there already.
    pub duplicates: u64,
    /// Readings that the sensors' numbers say are missing, more than before; below zero where late ones filled gaps.
    pub missing: i64,
    /// Sensors that began to count anew.
    pub restarts: u64,
    /// Events whose quality is the configured bad one.
    pub bad_quality: u64,
    /// From event time to record timestamp, added up over the events, milliseconds.
    pub delay_sum_ms: i64,
    /// The longest; 0 where no event counts.
    pub delay_max_ms: i64,
}

/// One flagged event.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyRow {
    /// Which series.
    pub series: Arc<SeriesKey>,
    /// Event time, milliseconds since the epoch.
    pub event_time_ms: i64,
    /// The measured value.
    pub value: f64,
    /// What the detector expected.
    pub expected: f64,
    /// Minus the decimal logarithm of the tail probability.
    pub score: f64,
    /// What kind of anomaly.
    pub kind: AnomalyKind,
    /// Where the event is in the log.
    pub offset: i64,
}
