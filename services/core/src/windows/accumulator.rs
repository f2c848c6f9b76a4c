//! What one window of one series adds up to.

use std::sync::Arc;

use crate::rows::{SeriesKey, WindowRow};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};

/// One event, as the windows see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// Event time, milliseconds since the epoch.
    pub time_ms: i64,
    /// The measured value, finite.
    pub value: f64,
    /// Whether its quality is the configured bad one.
    pub bad_quality: bool,
    /// Distance from the detector's expectation, in robust standard deviations.
    pub distance: f64,
    /// Whether the detector flagged it.
    pub anomaly: bool,
}

/// Sums over the accepted events of a window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accumulator {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// The first value added: squares are taken of the distance from it, so that a large mean costs no digits.
    shift: f64,
    /// Sum of squared distances from `shift`.
    shifted_squares: f64,
    first_value: f64,
    first_time_ms: i64,
    last_value: f64,
    last_time_ms: i64,
    anomalies: u32,
    bad_quality: u32,
    max_distance: f64,
}

/// Where a row belongs: everything of it that is not a sum.
#[derive(Debug, Clone)]
pub struct RowIdentity<'a> {
    /// Which series.
    pub series: &'a Arc<SeriesKey>,
    /// Start of the window, milliseconds since the epoch.
    pub window_start_ms: i64,
    /// [`crate::rows::OWN_ROW`] or the start of a segment.
    pub segment: i64,
    /// Whether the window is closed.
    pub closed: bool,
    /// The log position up to which the row is true.
    pub version: i64,
}

impl Accumulator {
    /// Bytes of a snapshot that one accumulator takes.
    pub const SNAPSHOT_BYTES: usize = 8 * 11 + 4 * 2;

    /// Adds the next event in log order.
    #[inline]
    pub fn add(&mut self, event: &Event) {
        if self.count == 0 {
            *self = Self::of_first(event);
            return;
        }
        self.count += 1;
        self.sum += event.value;
        self.min = self.min.min(event.value);
        self.max = self.max.max(event.value);
        let distance = event.value - self.shift;
        self.shifted_squares += distance * distance;
        if event.time_ms < self.first_time_ms {
            self.first_time_ms = event.time_ms;
            self.first_value = event.value;
        }
        if event.time_ms >= self.last_time_ms {
            self.last_time_ms = event.time_ms;
            self.last_value = event.value;
        }
        self.anomalies += u32::from(event.anomaly);
        self.bad_quality += u32::from(event.bad_quality);
        self.max_distance = self.max_distance.max(event.distance);
    }

    fn of_first(event: &Event) -> Self {
        Self {
            count: 1,
            sum: event.value,
            min: event.value,
            max: event.value,
            shift: event.value,
            shifted_squares: 0.0,
            first_value: event.value,
            first_time_ms: event.time_ms,
            last_value: event.value,
            last_time_ms: event.time_ms,
            anomalies: u32::from(event.anomaly),
            bad_quality: u32::from(event.bad_quality),
            max_distance: event.distance,
        }
    }

    /// Number of events.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The row as it stands.
    pub fn row(&self, identity: &RowIdentity<'_>) -> WindowRow {
        let count = self.count as f64;
        let from_shift = self.sum / count - self.shift;
        WindowRow {
            series: Arc::clone(identity.series),
            window_start_ms: identity.window_start_ms,
            segment: identity.segment,
            count: self.count,
            sum: self.sum,
            min: self.min,
            max: self.max,
            m2: (self.shifted_squares - count * from_shift * from_shift).max(0.0),
            first_value: self.first_value,
            first_time_ms: self.first_time_ms,
            last_value: self.last_value,
            last_time_ms: self.last_time_ms,
            anomalies: u64::from(self.anomalies),
            max_score: crate::anomaly::score_of(self.max_distance),
            bad_quality: u64::from(self.bad_quality),
            closed: identity.closed,
            version: identity.version,
        }
    }

    /// Writes the sums into a snapshot.
    pub fn save(&self, into: &mut SnapshotWriter) {
        into.u64(self.count);
        for number in [self.sum, self.min, self.max, self.shift, self.shifted_squares, self.first_value] {
            into.f64(number);
        }
        into.i64(self.first_time_ms);
        into.f64(self.last_value);
        into.i64(self.last_time_ms);
        into.u32(self.anomalies);
        into.u32(self.bad_quality);
        into.f64(self.max_distance);
    }

    /// Reads them back.
    pub fn load(from: &mut SnapshotReader<'_>) -> Result<Self, SnapshotError> {
        Ok(Self {
            count: from.u64()?,
            sum: from.f64()?,
            min: from.f64()?,
            max: from.f64()?,
            shift: from.f64()?,
            shifted_squares: from.f64()?,
            first_value: from.f64()?,
            first_time_ms: from.i64()?,
            last_value: from.f64()?,
            last_time_ms: from.i64()?,
            anomalies: from.u32()?,
            bad_quality: from.u32()?,
            max_distance: from.f64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time_ms: i64, value: f64) -> Event {
        Event { time_ms, value, bad_quality: false, distance: 0.0, anomaly: false }
    }

    fn row_of(events: &[Event]) -> WindowRow {
        let mut accumulator = Accumulator::default();
        for event in events {
            accumulator.add(event);
        }
        let series = Arc::new(SeriesKey::new(["s"]));
        accumulator.row(&RowIdentity { series: &series, window_start_ms: 0, segment: -1, closed: false, version: 9 })
    }

    #[test]
    fn first_and_last_go_by_event_time_then_by_log_order() {
        let row = row_of(&[event(5, 1.0), event(3, 2.0), event(3, 3.0), event(9, 4.0), event(9, 5.0), event(7, 6.0)]);
        assert_eq!((row.first_time_ms, row.first_value), (3, 2.0));
        assert_eq!((row.last_time_ms, row.last_value), (9, 5.0));
        assert_eq!((row.count, row.min, row.max, row.sum), (6, 1.0, 6.0, 21.0));
    }

    #[test]
    fn the_second_moment_keeps_its_digits_under_a_large_mean() {
        let row = row_of(&[event(0, 1e9), event(1, 1e9 + 1.0), event(2, 1e9 + 2.0)]);
        assert!((row.m2 - 2.0).abs() < 1e-6, "{}", row.m2);
    }
}
