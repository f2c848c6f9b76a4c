//! What a window adds up to, by other formulas than the pipeline's: sums with Neumaier's compensation (1974), the second
//! moment by Welford's recurrence (1962), first and last as the extremes of (time, offset).

/// One event, as it stands in the archive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ArchivedEvent {
    pub(super) offset: i64,
    pub(super) time_ms: i64,
    pub(super) value: f64,
    pub(super) is_bad: bool,
    /// The sensor's number for it; none from below 1.
    pub(super) sequence: i64,
    /// Whether it is marked as a duplicate.
    pub(super) is_marked: bool,
}

/// An event's place in its series: earlier times first; of equal ones the log decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) time_ms: i64,
    pub(super) offset: i64,
    pub(super) value: f64,
}

impl Sample {
    fn place(&self) -> (i64, i64) {
        (self.time_ms, self.offset)
    }
}

/// What one or more events of one window add up to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Totals {
    pub(super) count: u64,
    sum: f64,
    /// What rounding has cut off `sum` so far.
    compensation: f64,
    /// Sum of the absolute values: what an error of `sum` is measured against.
    pub(super) magnitude: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    mean: f64,
    /// Sum of squared deviations from the mean.
    pub(super) m2: f64,
    /// The value that came first in the log.
    first_added: f64,
    pub(super) first: Sample,
    pub(super) last: Sample,
    /// The smallest and the largest offset.
    pub(super) offsets: (i64, i64),
    pub(super) anomalies: u64,
    pub(super) bad_quality: u64,
    pub(super) max_distance: f64,
}

impl Totals {
    pub(super) fn of(event: &ArchivedEvent, distance: f64, is_flagged: bool) -> Self {
        let sample = Sample { time_ms: event.time_ms, offset: event.offset, value: event.value };
        Self {
            count: 1,
            sum: event.value,
            compensation: 0.0,
            magnitude: event.value.abs(),
            min: event.value,
            max: event.value,
            mean: event.value,
            m2: 0.0,
            first_added: event.value,
            first: sample,
            last: sample,
            offsets: (event.offset, event.offset),
            anomalies: u64::from(is_flagged),
            bad_quality: u64::from(event.is_bad),
            max_distance: distance,
        }
    }

    /// Adds the next event in log order.
    pub(super) fn add(&mut self, event: &ArchivedEvent, distance: f64, is_flagged: bool) {
        let value = event.value;
        self.count += 1;
        let sum = self.sum + value;
        let (large, small) = if self.sum.abs() >= value.abs() { (self.sum, value) } else { (value, self.sum) };
        self.compensation += (large - sum) + small;
        self.sum = sum;
        self.magnitude += value.abs();
        if value < self.min {
            self.min = value;
        }
        if value > self.max {
            self.max = value;
        }
        let from_old_mean = value - self.mean;
        self.mean += from_old_mean / self.count as f64;
        self.m2 += from_old_mean * (value - self.mean);
        let sample = Sample { time_ms: event.time_ms, offset: event.offset, value };
        if sample.place() < self.first.place() {
            self.first = sample;
        }
        if sample.place() > self.last.place() {
            self.last = sample;
        }
        self.offsets.1 = event.offset;
        self.anomalies += u64::from(is_flagged);
        self.bad_quality += u64::from(event.is_bad);
        self.max_distance = self.max_distance.max(distance);
    }

    /// The sum of the values.
    pub(super) fn sum(&self) -> f64 {
        self.sum + self.compensation
    }

    /// How far the pipeline's `sum`, added up plainly, may be off.
    pub(super) fn sum_tolerance(&self) -> f64 {
        1e-9 * self.magnitude
    }

    /// How far the pipeline's second moment may be off: it is a difference of squared distances from the first value.
    pub(super) fn m2_tolerance(&self) -> f64 {
        let count = self.count as f64;
        let from_first = (self.mean - self.first_added).abs();
        let mean_error = 1e-12 * self.magnitude / count;
        1e-9 * (self.m2 + count * from_first * from_first)
            + 2.0 * count * from_first * mean_error
            + count * mean_error * mean_error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals_of(events: &[(i64, f64)]) -> Totals {
        let mut events = events.iter().zip(0..).map(|((time_ms, value), offset)| ArchivedEvent {
            offset,
            time_ms: *time_ms,
            value: *value,
            is_bad: false,
            sequence: 0,
            is_marked: false,
        });
        let mut totals = Totals::of(&events.next().expect("an event"), 0.0, false);
        events.for_each(|event| totals.add(&event, 0.0, false));
        totals
    }

    #[test]
    fn first_and_last_go_by_time_then_by_offset() {
        let totals = totals_of(&[(5, 1.0), (3, 2.0), (3, 3.0), (9, 4.0), (9, 5.0), (7, 6.0)]);
        assert_eq!((totals.first.time_ms, totals.first.value), (3, 2.0));
        assert_eq!((totals.last.time_ms, totals.last.value), (9, 5.0));
        assert_eq!((totals.count, totals.min, totals.max, totals.sum()), (6, 1.0, 6.0, 21.0));
    }

    #[test]
    fn small_values_survive_beside_large_ones() {
        let totals = totals_of(&[(0, 1e16), (1, 1.0), (2, 1.0), (3, -1e16)]);
        assert_eq!((totals.count, totals.sum()), (4, 2.0));
        let totals = totals_of(&[(0, 1e9), (1, 1e9 + 1.0), (2, 1e9 + 2.0)]);
        assert!((totals.m2 - 2.0).abs() < 1e-6, "{}", totals.m2);
        assert!(totals.m2_tolerance() < 0.02, "{}", totals.m2_tolerance());
    }
}
