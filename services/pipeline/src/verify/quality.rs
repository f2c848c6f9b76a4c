//! (B) Quality: what the hot store says of each segment, by site, metric and minute of arrival, is what its rows say; what it says of
//! rejected records adds up to its footer.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::repeats::Told;
use super::report::{Check, Report, shown_time};
use super::totals::ArchivedEvent;

/// Site, metric, and the minute of arrival, milliseconds since the epoch.
pub(super) type Cell = (String, String, i64);

/// What one segment brought of one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) accepted: u64,
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

    fn fields(&self) -> [(&'static str, i64); 7] {
        [
            ("accepted", self.accepted as i64),
            ("duplicates", self.duplicates as i64),
            ("bad_quality", self.bad_quality as i64),
            ("delay_sum_ms", self.delay_sum_ms),
            ("delay_max_ms", self.delay_max_ms),
            ("missing", self.missing),
            ("restarts", self.restarts as i64),
        ]
    }
}

/// What one segment brought, so far.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// By minute, site and metric: in that order, so that a row costs no allocation.
    by_minute: HashMap<i64, HashMap<String, HashMap<String, Sums>>>,
}

impl Cells {
    pub(super) fn of(&mut self, site: &str, metric: &str, arrived_ms: i64) -> &mut Sums {
        let minute_ms = arrived_ms - arrived_ms.rem_euclid(60_000);
        self.by_minute.entry(minute_ms).or_default().entry_ref(site).or_default().entry_ref(metric).or_default()
    }

    pub(super) fn by_name(self) -> BTreeMap<Cell, Sums> {
        let sites = self
            .by_minute
            .into_iter()
            .flat_map(|(minute_ms, sites)| sites.into_iter().map(move |(site, metrics)| (minute_ms, site, metrics)));
        let cells = sites.flat_map(|(minute_ms, site, metrics)| {
            metrics.into_iter().map(move |(metric, sums)| ((site.clone(), metric, minute_ms), sums))
        });
        cells.collect()
    }
}

/// A segment with what it should have brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExpectedQuality {
    pub(super) start: i64,
    pub(super) end: i64,
    /// Cells that it has rows of.
    pub(super) cells: BTreeMap<Cell, Sums>,
    pub(super) rejected: u64,
    /// Whether its rows may have expired.
    pub(super) is_expired: bool,
}

/// A row of the hot store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundQuality {
    pub(super) segment: i64,
    pub(super) version: u64,
    pub(super) cell: Cell,
    pub(super) sums: Sums,
    pub(super) rejected: u64,
}

/// Compares segments of one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct QualityComparison<'a> {
    pub(super) report: &'a Report,
    pub(super) partition: i32,
    /// Everything before this position is written.
    pub(super) committed: i64,
    /// The archive was read up to here.
    pub(super) end: i64,
    /// Whether missing readings and restarts were told again.
    pub(super) has_marks: bool,
}

impl QualityComparison<'_> {
    pub(super) fn compare(&self, expected: &[ExpectedQuality], found: Vec<FoundQuality>) {
        let mut by_segment: HashMap<i64, Vec<FoundQuality>> = HashMap::new();
        for row in found {
            by_segment.entry(row.segment).or_default().push(row);
        }
        for expected in expected {
            match by_segment.remove(&expected.start) {
                Some(found) => self.segment(expected, found),
                None if !expected.is_expired && expected.end <= self.committed => {
                    self.differs(expected.start, "quality_1m has no row of it, though it is committed");
                }
                None => {}
            }
        }
        for surplus in by_segment.into_keys().filter(|start| *start < self.end) {
            self.differs(surplus, "quality_1m has rows of it, but there is no such segment");
        }
    }

    fn segment(&self, expected: &ExpectedQuality, found: Vec<FoundQuality>) {
        self.report.examined(Check::Quality, "segments", 1);
        self.report.examined(Check::Quality, "rows", found.len() as u64);
        if expected.is_expired {
            return;
        }
        let (start, end) = (expected.start, expected.end as u64);
        let rejected: u64 = found.iter().map(|row| row.rejected).sum();
        if rejected != expected.rejected {
            self.differs(start, &format!("rejected {} expected, {rejected} found", expected.rejected));
        }
        let mut cells = expected.cells.clone();
        for row in found {
            if row.version != end {
                self.differs(
                    start,
                    &format!("{}: its version is {}, the segment ends at {end}", shown(&row.cell), row.version),
                );
            }
            // A cell of nothing but rejected records is not known from the archive.
            let sums = cells.remove(&row.cell).unwrap_or_default();
            if let Some(sentence) = self.differing(&sums, &row.sums) {
                self.differs(start, &format!("{}: {sentence}", shown(&row.cell)));
            }
        }
        for cell in cells.keys() {
            self.differs(start, &format!("{}: the row is missing", shown(cell)));
        }
    }

    fn differing(&self, expected: &Sums, found: &Sums) -> Option<String> {
        let pairs = expected.fields().into_iter().zip(found.fields());
        let differing: Vec<String> = pairs
            .filter(|((name, _), _)| self.has_marks || !matches!(*name, "missing" | "restarts"))
            .filter(|((_, expected), (_, found))| expected != found)
            .map(|((name, expected), (_, found))| format!("{name} {expected} expected, {found} found"))
            .collect();
        (!differing.is_empty()).then(|| differing.join("; "))
    }

    fn differs(&self, segment: i64, sentence: &str) {
        let sentence = format!("partition {}, segment {segment}: {sentence}", self.partition);
        self.report.differs(Check::Quality, Some(self.partition), segment, sentence);
    }
}

fn shown((site, metric, minute_ms): &Cell) -> String {
    format!("site {site:?}, {metric}, {}", shown_time(*minute_ms))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cell(site: &str) -> Cell {
        (site.to_owned(), "T".to_owned(), 60_000)
    }

    fn sums() -> Sums {
        Sums { accepted: 5, duplicates: 2, delay_sum_ms: 50, delay_max_ms: 20, missing: 3, ..Sums::default() }
    }

    fn expected(start: i64) -> ExpectedQuality {
        let cells = BTreeMap::from([(cell("north"), sums())]);
        ExpectedQuality { start, end: start + 10, cells, rejected: 1, is_expired: false }
    }

    fn found(start: i64) -> Vec<FoundQuality> {
        let row = |site: &str, sums: Sums, rejected| {
            let version = start as u64 + 10;
            FoundQuality { segment: start, version, cell: cell(site), sums, rejected }
        };
        vec![row("north", sums(), 0), row("", Sums::default(), 1)]
    }

    fn differences(expected: &[ExpectedQuality], found: Vec<FoundQuality>, committed: i64, has_marks: bool) -> usize {
        let report = Report::default();
        let comparison = QualityComparison { report: &report, partition: 0, committed, end: 20, has_marks };
        comparison.compare(expected, found);
        let told = report.finish(String::new(), 0, Duration::ZERO).to_string();
        told.lines().filter(|line| line.trim().starts_with("- ")).count()
    }

    #[test]
    fn what_agrees_is_no_difference() {
        assert_eq!(differences(&[expected(0), expected(10)], [found(10), found(0)].concat(), 20, true), 0);
    }

    #[test]
    fn each_field_counts() {
        let changes: [fn(&mut Vec<FoundQuality>); 8] = [
            |found| found[0].sums.accepted += 1,
            |found| found[1].rejected += 1,
            |found| found[0].sums.duplicates = 0,
            |found| found[0].sums.delay_max_ms = 0,
            |found| found[0].sums.missing = 0,
            |found| found[0].version -= 1,
            |found| found[1].sums.accepted += 1,
            |found| drop(found.remove(0)),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut found = found(0);
            change(&mut found);
            assert_eq!(differences(&[expected(0)], found.clone(), 20, true), 1, "change {index}");
            let is_told_again = index == 4;
            assert_eq!(differences(&[expected(0)], found, 20, false), usize::from(!is_told_again), "change {index}");
        }
    }

    #[test]
    fn what_is_counted_for_another_site_is_a_difference_of_both() {
        let mut found = found(0);
        found[0].cell = cell("south");
        assert_eq!(differences(&[expected(0)], found, 20, true), 2);
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
        assert_eq!(differences(&[], found(7), 20, true), 1);
        assert_eq!(differences(&[], found(20), 20, true), 0);
    }
}
