//! (B) Quality: what the hot store says of each segment adds up to what its rows and footer say.

use std::collections::HashMap;

use super::repeats::Told;
use super::report::{Check, Report};
use super::totals::ArchivedEvent;

/// What one segment brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    pub(super) duplicates: u64,
    pub(super) bad_quality: u64,
    pub(super) delay_sum_ms: i64,
    /// The longest; 0 where no event counts.
    pub(super) delay_max_ms: i64,
    pub(super) missing: i64,
    pub(super) restarts: u64,
}

impl Sums {
    pub(super) fn add(&mut self, event: &ArchivedEvent, arrived_ms: i64, told: Told) {
        if event.is_marked {
            self.duplicates += 1;
            return;
        }
        match told {
            Told::New(missing) => self.missing += missing,
            Told::Restart => self.restarts += 1,
            Told::Duplicate | Told::Untold => {}
        }
        let delay_ms = arrived_ms.saturating_sub(event.time_ms);
        self.delay_max_ms = if self.accepted == 0 { delay_ms } else { self.delay_max_ms.max(delay_ms) };
        self.delay_sum_ms = self.delay_sum_ms.saturating_add(delay_ms);
        self.accepted += 1;
        self.bad_quality += u64::from(event.is_bad);
    }

    fn fields(&self) -> [(&'static str, i64); 8] {
        [
            ("accepted", self.accepted as i64),
            ("rejected", self.rejected as i64),
            ("duplicates", self.duplicates as i64),
            ("bad_quality", self.bad_quality as i64),
            ("delay_sum_ms", self.delay_sum_ms),
            ("delay_max_ms", self.delay_max_ms),
            ("missing", self.missing),
            ("restarts", self.restarts as i64),
        ]
    }
}

/// A segment with what it should have brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpectedQuality {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) sums: Sums,
    /// Whether its rows may have expired.
    pub(super) is_expired: bool,
}

/// What the hot store has of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundQuality {
    pub(super) start: i64,
    /// Smallest and largest of its rows.
    pub(super) versions: (u64, u64),
    pub(super) sums: Sums,
}

/// Compares segments of one partition. `has_marks`: whether missing readings and restarts were told again; `end`: where the
/// archive ends.
pub(super) fn compare(
    report: &Report,
    partition: i32,
    (committed, end): (i64, i64),
    has_marks: bool,
    expected: &[ExpectedQuality],
    found: Vec<FoundQuality>,
) {
    let differs = |segment: i64, sentence: String| {
        let sentence = format!("partition {partition}, segment {segment}: {sentence}");
        report.differs(Check::Quality, Some(partition), segment, sentence);
    };
    let mut found: HashMap<i64, FoundQuality> = found.into_iter().map(|found| (found.start, found)).collect();
    for expected in expected {
        let Some(found) = found.remove(&expected.start) else {
            if !expected.is_expired && expected.end <= committed {
                differs(expected.start, "quality_1m has no row of it, though it is committed".to_owned());
            }
            continue;
        };
        report.examined(Check::Quality, "segments", 1);
        if expected.is_expired {
            continue;
        }
        let version = expected.end as u64;
        if found.versions != (version, version) {
            differs(expected.start, format!("its rows have the versions {:?}, it ends at {version}", found.versions));
        }
        let pairs = expected.sums.fields().into_iter().zip(found.sums.fields());
        let differing: Vec<String> = pairs
            .filter(|((name, _), _)| has_marks || !matches!(*name, "missing" | "restarts"))
            .filter(|((_, expected), (_, found))| expected != found)
            .map(|((name, expected), (_, found))| format!("{name} {expected} expected, {found} found"))
            .collect();
        if !differing.is_empty() {
            differs(expected.start, differing.join("; "));
        }
    }
    for surplus in found.into_values().filter(|found| found.start < end) {
        differs(surplus.start, "quality_1m has rows of it, but there is no such segment".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sums() -> Sums {
        Sums {
            accepted: 5,
            rejected: 1,
            duplicates: 2,
            delay_sum_ms: 50,
            delay_max_ms: 20,
            missing: 3,
            ..Sums::default()
        }
    }

    fn expected(start: i64) -> ExpectedQuality {
        ExpectedQuality { start, end: start + 10, sums: sums(), is_expired: false }
    }

    fn found(start: i64) -> FoundQuality {
        FoundQuality { start, versions: (start as u64 + 10, start as u64 + 10), sums: sums() }
    }

    fn differences(expected: &[ExpectedQuality], found: Vec<FoundQuality>, committed: i64, has_marks: bool) -> usize {
        let report = Report::default();
        compare(&report, 0, (committed, 20), has_marks, expected, found);
        let told = report.finish(String::new(), 0, Duration::ZERO).to_string();
        told.lines().filter(|line| line.trim().starts_with("- ")).count()
    }

    #[test]
    fn what_agrees_is_no_difference() {
        assert_eq!(differences(&[expected(0), expected(10)], vec![found(10), found(0)], 20, true), 0);
    }

    #[test]
    fn each_field_counts() {
        let changes: [fn(&mut FoundQuality); 6] = [
            |found| found.sums.accepted += 1,
            |found| found.sums.rejected -= 1,
            |found| found.sums.duplicates = 0,
            |found| found.sums.delay_max_ms = 0,
            |found| found.sums.missing = 0,
            |found| found.versions.0 -= 1,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut found = found(0);
            change(&mut found);
            assert_eq!(differences(&[expected(0)], vec![found.clone()], 20, true), 1, "change {index}");
            let is_told_again = index == 4;
            assert_eq!(
                differences(&[expected(0)], vec![found], 20, false),
                usize::from(!is_told_again),
                "change {index}"
            );
        }
    }

    #[test]
    fn a_segment_may_lack_rows_until_it_is_committed() {
        assert_eq!(differences(&[expected(0)], Vec::new(), 9, true), 0);
        assert_eq!(differences(&[expected(0)], Vec::new(), 10, true), 1);
        let expired = ExpectedQuality { is_expired: true, ..expected(0) };
        assert_eq!(differences(&[expired], Vec::new(), 10, true), 0);
    }

    #[test]
    fn rows_of_no_segment_are_told_unless_they_may_be_newer() {
        assert_eq!(differences(&[], vec![found(7)], 20, true), 1);
        assert_eq!(differences(&[], vec![found(20)], 20, true), 0);
    }
}
