//! (B) Expected rows against those that the hot store has.
//!
//! A pipeline that runs is ahead of the archive's listing, and what it has not yet committed may not all be written. So
//! a row is held exactly to what the archive says only as far as both sides are settled: the row is true up to a log
//! position (`version`), and everything before the committed offset must be in it. Rows in between are *provisional*:
//! they may lack late events, never have other ones.

use std::collections::HashMap;
use std::sync::Arc;

use kappa_core::anomaly::score_of;
use kappa_core::rows::{OWN_ROW, SeriesKey};

use super::flags::{Flagged, difference, nearly, shown_series};
use super::hot_rows::FoundRow;
use super::replay::{ExpectedRow, Standing};
use super::report::{Check, Report, shown_time};

/// How far each side of a partition has got.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progressed {
    /// Everything before this position is written.
    pub(super) committed: i64,
    /// The archive was read up to here.
    pub(super) end: i64,
}

/// Compares rows of one partition.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub(super) report: &'a Report,
    pub(super) partition: i32,
    pub(super) progressed: Progressed,
    /// Whether all segments are gone through, so that flags, scores and duplicates can be told again.
    pub(super) is_whole: bool,
    /// Rows of windows that start before may have expired.
    pub(super) windows_expired_before_ms: i64,
    /// Flags of events before may have expired.
    pub(super) anomalies_expired_before_ms: i64,
}

/// How a row is to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Exactly,
    /// The row is behind the archive.
    AtMost,
    /// The row is ahead of the archive.
    AtLeast,
}

impl Comparison<'_> {
    /// Compares rows of a slice. `closed_before_ms`: windows that start before are closed.
    pub(super) fn windows(
        &self,
        expected: Vec<ExpectedRow>,
        found: Vec<FoundRow>,
        is_all: bool,
        closed_before_ms: i64,
    ) {
        self.report.examined(Check::Windows, "rows", found.len() as u64);
        let key_of = |row: ExpectedRow| {
            let segment = match row.standing {
                Standing::Late { segment, .. } => segment,
                Standing::Closed { .. } | Standing::Open => OWN_ROW,
            };
            ((Arc::clone(&row.series), row.window_start_ms, segment), row)
        };
        let mut expected: HashMap<(Arc<SeriesKey>, i64, i64), ExpectedRow> = expected.into_iter().map(key_of).collect();
        for row in found {
            match expected.remove(&(Arc::clone(&row.series), row.window_start_ms, row.segment)) {
                Some(expected) => self.judge(&expected, &row),
                None => self.surplus(&row, closed_before_ms),
            }
        }
        if !is_all {
            let sentence = format!("partition {}: windows_1m has far too many rows; not all were read", self.partition);
            self.report.differs(Check::Windows, Some(self.partition), i64::MAX, sentence);
            return;
        }
        for row in expected.values() {
            self.missing(row);
        }
    }

    fn judge(&self, expected: &ExpectedRow, found: &FoundRow) {
        let Progressed { committed, end } = self.progressed;
        let last_offset = expected.totals.offsets.1;
        let version = found.version as i64;
        let measure = match expected.standing {
            Standing::Late { end, .. } if version != end => {
                return self.tell(expected, &format!("it is true up to {version}, its segment ends at {end}"));
            }
            Standing::Late { .. } => Measure::Exactly,
            Standing::Closed { .. } if found.is_closed && version <= last_offset => {
                let sentence =
                    format!("it is closed and true up to {version}, but has an event at offset {last_offset}");
                return self.tell(expected, &sentence);
            }
            Standing::Closed { .. } if found.is_closed => Measure::Exactly,
            Standing::Closed { by } if by < committed => {
                let sentence = format!(
                    "it is not closed (true up to {version}), though offset {by} closed it and {committed} is committed"
                );
                return self.tell(expected, &sentence);
            }
            Standing::Open if found.is_closed && version <= end => {
                return self.tell(expected, &format!("it is closed at {version}; nothing up to {end} closes it"));
            }
            Standing::Open if version > end => Measure::AtLeast,
            Standing::Open | Standing::Closed { .. } if version > last_offset => Measure::Exactly,
            Standing::Open | Standing::Closed { .. } if last_offset < committed => {
                let sentence = format!(
                    "it is true up to {version} and lacks the event at offset {last_offset}, though {committed} is committed"
                );
                return self.tell(expected, &sentence);
            }
            Standing::Open | Standing::Closed { .. } => Measure::AtMost,
        };
        if measure != Measure::Exactly {
            self.report.examined(Check::Windows, "provisional rows", 1);
        }
        if let Some(sentence) = self.differing_fields(expected, found, measure) {
            self.tell(expected, &sentence);
        }
    }

    fn differing_fields(&self, expected: &ExpectedRow, found: &FoundRow, measure: Measure) -> Option<String> {
        let totals = &expected.totals;
        let mut fields = Fields { measure, differing: Vec::new() };
        fields.growing("count", totals.count, found.count);
        fields.growing("bad_quality", totals.bad_quality, found.bad_quality);
        fields.growing("anomalies", totals.anomalies, found.anomalies);
        fields.shrinking("min", totals.min, found.min);
        fields.growing("max", totals.max, found.max);
        fields.shrinking("first_time", totals.first.time_ms, found.first_time_ms);
        fields.growing("last_time", totals.last.time_ms, found.last_time_ms);
        if self.is_whole {
            let score = score_of(totals.max_distance);
            // The same digits twice where they agree closely enough.
            let found = if nearly(score, found.max_score, score.abs()) { score } else { found.max_score };
            fields.growing("max_score", score, found);
        }
        if measure == Measure::Exactly {
            fields.equal("first_value", totals.first.value, found.first_value);
            fields.equal("last_value", totals.last.value, found.last_value);
            fields.close("sum", totals.sum(), found.sum, totals.sum_tolerance());
            fields.close("m2", totals.m2, found.m2, totals.m2_tolerance());
        }
        (!fields.differing.is_empty()).then(|| fields.differing.join("; "))
    }

    fn missing(&self, expected: &ExpectedRow) {
        if expected.window_start_ms < self.windows_expired_before_ms {
            return self.report.examined(Check::Windows, "expired rows", 1);
        }
        let committed = self.progressed.committed;
        let must_be_there = match expected.standing {
            Standing::Late { end, .. } => end <= committed,
            Standing::Closed { .. } | Standing::Open => expected.totals.offsets.0 < committed,
        };
        if must_be_there {
            let count = expected.totals.count;
            self.tell(expected, &format!("the row is missing; {count} events are in the archive"));
        } else {
            self.report.examined(Check::Windows, "rows not yet written", 1);
        }
    }

    fn surplus(&self, found: &FoundRow, closed_before_ms: i64) {
        let end = self.progressed.end;
        let may_be_newer = if found.segment == OWN_ROW {
            found.version as i64 > end && found.window_start_ms >= closed_before_ms
        } else {
            found.segment >= end
        };
        if may_be_newer {
            return self.report.examined(Check::Windows, "provisional rows", 1);
        }
        let place = self.place(&found.series, found.window_start_ms, found.segment);
        let sentence = format!(
            "{place}: a row of {} events, true up to {}, that nothing in the archive explains",
            found.count, found.version
        );
        self.report.differs(Check::Windows, Some(self.partition), found.window_start_ms, sentence);
    }

    fn tell(&self, expected: &ExpectedRow, what: &str) {
        let segment = match expected.standing {
            Standing::Late { segment, .. } => segment,
            Standing::Closed { .. } | Standing::Open => OWN_ROW,
        };
        let place = self.place(&expected.series, expected.window_start_ms, segment);
        self.report.differs(Check::Windows, Some(self.partition), expected.window_start_ms, format!("{place}: {what}"));
    }

    fn place(&self, series: &SeriesKey, window_start_ms: i64, segment: i64) -> String {
        let row =
            if segment == OWN_ROW { "own row".to_owned() } else { format!("late contribution of segment {segment}") };
        format!("partition {}, {}, window {}, {row}", self.partition, shown_series(series), shown_time(window_start_ms))
    }

    /// Compares flagged events, both sides by offset.
    pub(super) fn anomalies(&self, expected: Vec<Flagged>, found: Vec<Flagged>, is_all: bool) {
        self.report.examined(Check::Anomalies, "flagged events", found.len() as u64);
        let Progressed { committed, end } = self.progressed;
        let differs = |offset: i64, sentence: String| {
            let sentence = format!("partition {}, offset {offset}: {sentence}", self.partition);
            self.report.differs(Check::Anomalies, Some(self.partition), offset, sentence);
        };
        let mut expected: HashMap<i64, Flagged> = expected.into_iter().map(|flag| (flag.offset, flag)).collect();
        for flag in found {
            match expected.remove(&flag.offset) {
                Some(expected) => {
                    if let Some(sentence) = difference(&expected, &flag) {
                        differs(flag.offset, format!("flagged {}: {sentence}", shown_series(&flag.series)));
                    }
                }
                None if flag.offset >= end => self.report.examined(Check::Anomalies, "provisional flags", 1),
                None => differs(
                    flag.offset,
                    format!(
                        "flagged as {} of {} at {}, but the archived event is not, or is not there",
                        flag.kind,
                        shown_series(&flag.series),
                        shown_time(flag.time_ms)
                    ),
                ),
            }
        }
        if !is_all {
            return differs(i64::MAX, "anomalies has far too many rows; not all were read".to_owned());
        }
        for flag in expected.into_values() {
            if flag.time_ms < self.anomalies_expired_before_ms {
                self.report.examined(Check::Anomalies, "expired flags", 1);
            } else if flag.offset < committed {
                let series = shown_series(&flag.series);
                differs(
                    flag.offset,
                    format!("{series} at {} is a {}, but not flagged", shown_time(flag.time_ms), flag.kind),
                );
            } else {
                self.report.examined(Check::Anomalies, "flags not yet written", 1);
            }
        }
    }
}

/// Collects the fields that differ.
struct Fields {
    measure: Measure,
    differing: Vec<String>,
}

impl Fields {
    fn tell<T: std::fmt::Display>(&mut self, name: &str, bound: &str, expected: T, found: T) {
        self.differing.push(format!("{name} {bound}{expected} expected, {found} found"));
    }

    /// A field that later events can only raise.
    fn growing<T: PartialOrd + std::fmt::Display>(&mut self, name: &str, expected: T, found: T) {
        match self.measure {
            Measure::Exactly => self.equal(name, expected, found),
            Measure::AtMost if found > expected => self.tell(name, "at most ", expected, found),
            Measure::AtLeast if found < expected => self.tell(name, "at least ", expected, found),
            Measure::AtMost | Measure::AtLeast => {}
        }
    }

    /// A field that later events can only lower.
    fn shrinking<T: PartialOrd + std::fmt::Display>(&mut self, name: &str, expected: T, found: T) {
        match self.measure {
            Measure::Exactly => self.equal(name, expected, found),
            Measure::AtMost if found < expected => self.tell(name, "at least ", expected, found),
            Measure::AtLeast if found > expected => self.tell(name, "at most ", expected, found),
            Measure::AtMost | Measure::AtLeast => {}
        }
    }

    fn equal<T: PartialEq + std::fmt::Display>(&mut self, name: &str, expected: T, found: T) {
        if expected != found {
            self.tell(name, "", expected, found);
        }
    }

    fn close(&mut self, name: &str, expected: f64, found: f64, tolerance: f64) {
        // Not a number is never close.
        let is_close = (expected - found).abs() <= tolerance;
        if !is_close {
            self.tell(name, "", expected, found);
        }
    }
}

#[cfg(test)]
mod tests;
