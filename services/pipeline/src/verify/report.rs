//! What was examined, what differs, and what could not be checked: collected by all tasks, printed once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// Differences of one check that are told in full; the others are counted.
const TOLD: usize = 20;

/// What is verified. The order is that of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Check {
    /// Segments follow one another from the first position on; rows and rejects of each are all of its range.
    Chain,
    /// The log, where it still has the records, holds what the segments say.
    Log,
    /// Every window equals one recomputed from the archive.
    Windows,
    /// So does the view that people query.
    View,
    /// Every flagged event is one that the detector flags in the archived stream.
    Anomalies,
    /// Every duplicate, and nothing else, is marked in the archive.
    Duplicates,
    /// What the hot store says of the quality of each segment adds up.
    Quality,
    /// The committed offset is not ahead of what is durable.
    Committed,
    /// Every reject is exactly once in the dead letters.
    DeadLetters,
    /// Nothing lies about that no segment explains.
    Strays,
}

impl Check {
    const ALL: [Self; 10] = [
        Self::Chain,
        Self::Log,
        Self::Windows,
        Self::View,
        Self::Anomalies,
        Self::Duplicates,
        Self::Quality,
        Self::Committed,
        Self::DeadLetters,
        Self::Strays,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Chain => "A  archive: one chain, rows + rejects = records",
            Self::Log => "A  archive against the log",
            Self::Windows => "B  windows against the archive",
            Self::View => "B  the view `windows`",
            Self::Anomalies => "B  anomalies",
            Self::Duplicates => "B  duplicates: all marked, nothing else",
            Self::Quality => "B  quality of each segment",
            Self::Committed => "C  committed <= durable",
            Self::DeadLetters => "D  dead letters: every reject once",
            Self::Strays => "E  nothing else",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Difference {
    /// The partition, where it is about one.
    partition: Option<i32>,
    /// Log position or time, for the order.
    #[serde(skip)]
    order: i64,
    /// Where, what was expected, what was found.
    sentence: String,
}

/// Everything about one check.
#[derive(Debug, Default, Serialize)]
struct CheckFindings {
    /// How many of what were looked at.
    #[serde(serialize_with = "as_map")]
    examined: Vec<(&'static str, u64)>,
    /// How many differences there are.
    differences: u64,
    /// The first of them.
    first: Vec<Difference>,
    /// What could not be checked, and why.
    not_checked: Vec<String>,
    /// What is no difference, but worth knowing.
    notes: Vec<String>,
}

/// Collects findings from all tasks.
#[derive(Debug, Default)]
pub(super) struct Report(Mutex<BTreeMap<Check, CheckFindings>>);

impl Report {
    fn with(&self, check: Check, change: impl FnOnce(&mut CheckFindings)) {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(checks.entry(check).or_default());
    }

    /// So many more of something were looked at.
    pub(super) fn examined(&self, check: Check, what: &'static str, count: u64) {
        self.with(check, |findings| match findings.examined.iter_mut().find(|(name, _)| *name == what) {
            Some((_, so_far)) => *so_far += count,
            None => findings.examined.push((what, count)),
        });
    }

    /// Something is not as it should be. `order`: log position or time.
    pub(super) fn differs(&self, check: Check, partition: Option<i32>, order: i64, sentence: impl Into<String>) {
        let difference = Difference { partition, order, sentence: sentence.into() };
        self.with(check, |findings| {
            findings.differences += 1;
            let place = findings.first.partition_point(|other| *other <= difference);
            if place < TOLD {
                findings.first.insert(place, difference);
                findings.first.truncate(TOLD);
            }
        });
    }

    /// Something could not be checked.
    pub(super) fn not_checked(&self, check: Check, because: impl Into<String>) {
        self.with(check, |findings| findings.not_checked.push(because.into()));
    }

    /// Something worth knowing that is no difference.
    pub(super) fn note(&self, check: Check, note: impl Into<String>) {
        self.with(check, |findings| findings.notes.push(note.into()));
    }

    /// Closes the report.
    pub(super) fn finish(&self, subject: String, events: u64, elapsed: Duration) -> Verification {
        let mut checks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let checks: Vec<FinishedCheck> = Check::ALL
            .into_iter()
            .filter_map(|check| {
                let mut findings = checks.remove(&check)?;
                findings.not_checked.sort();
                findings.notes.sort();
                Some(FinishedCheck { check, title: check.title(), findings })
            })
            .collect();
        let differences = checks.iter().map(|check| check.findings.differences).sum();
        let is_complete = checks.iter().all(|check| check.findings.not_checked.is_empty());
        Verification { subject, verified: differences == 0, is_complete, differences, events, elapsed, checks }
    }
}

/// The end of it.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// What was looked at.
    subject: String,
    /// No difference was found.
    pub verified: bool,
    /// Nothing was left out.
    #[serde(rename = "complete")]
    is_complete: bool,
    /// How many differences.
    differences: u64,
    /// Archived events that were gone through.
    events: u64,
    #[serde(rename = "seconds", serialize_with = "seconds")]
    elapsed: Duration,
    checks: Vec<FinishedCheck>,
}

#[derive(Debug, Serialize)]
struct FinishedCheck {
    check: Check,
    title: &'static str,
    #[serde(flatten)]
    findings: CheckFindings,
}

fn as_map<S: serde::Serializer>(examined: &[(&'static str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(examined.iter().copied())
}

fn seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((elapsed.as_secs_f64() * 1e3).round() / 1e3)
}

impl fmt::Display for Verification {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}\n", self.subject)?;
        for FinishedCheck { title, findings, .. } in &self.checks {
            let outcome = match findings.differences {
                0 if findings.examined.is_empty() && !findings.not_checked.is_empty() => "skipped".to_owned(),
                0 => "ok".to_owned(),
                1 => "1 DIFFERENCE".to_owned(),
                many => format!("{} DIFFERENCES", grouped(many)),
            };
            writeln!(out, "{title:<50} {outcome}")?;
            let examined = findings.examined.iter().filter(|(_, count)| *count > 0);
            let examined: Vec<_> = examined.map(|(what, count)| format!("{} {what}", grouped(*count))).collect();
            if !examined.is_empty() {
                writeln!(out, "     {}", examined.join(", "))?;
            }
            for difference in &findings.first {
                writeln!(out, "   - {}", difference.sentence)?;
            }
            let untold = findings.differences - findings.first.len() as u64;
            if untold > 0 {
                writeln!(out, "   - and {} more", grouped(untold))?;
            }
            for because in &findings.not_checked {
                writeln!(out, "   ! not checked: {because}")?;
            }
            for note in &findings.notes {
                writeln!(out, "     note: {note}")?;
            }
        }
        let rate = self.events as f64 / self.elapsed.as_secs_f64().max(1e-3);
        let cost = format!(
            "{} events in {:.1} s, {} a second",
            grouped(self.events),
            self.elapsed.as_secs_f64(),
            grouped(rate as u64)
        );
        match (self.verified, self.is_complete) {
            (true, true) => write!(out, "\nverified: no difference ({cost})"),
            (true, false) => write!(out, "\nno difference in what was checked; see what was not ({cost})"),
            (false, _) => write!(out, "\nNOT AS IT SHOULD BE: {} differences ({cost})", grouped(self.differences)),
        }
    }
}

/// A number with separators, for people.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A point in time, for people.
pub(crate) fn shown_time(time_ms: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(time_ms) {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => format!("{time_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_differences_are_told_in_order_and_the_others_counted() {
        let report = Report::default();
        for offset in (0..50).rev() {
            report.differs(Check::Windows, Some(0), offset, format!("at {offset}"));
        }
        report.examined(Check::Windows, "windows", 1_234_567);
        report.not_checked(Check::Log, "--no-log");
        let verification = report.finish("topic t".to_owned(), 10, Duration::from_secs(1));
        assert!(!verification.verified && !verification.is_complete);
        let text = verification.to_string();
        assert!(text.contains("   - at 0\n   - at 1\n"), "{text}");
        assert!(text.contains("at 19\n   - and 30 more"), "{text}");
        assert!(text.contains("1,234,567 windows") && text.contains("not checked: --no-log"), "{text}");
        let json = serde_json::to_value(&verification).expect("serializes");
        assert_eq!(json["differences"], 50);
        assert_eq!(json["checks"][1]["check"], "windows");
        assert_eq!(json["checks"][1]["first"][0]["sentence"], "at 0");
    }

    #[test]
    fn without_differences_it_says_so() {
        let report = Report::default();
        report.examined(Check::Chain, "segments", 3);
        let verification = report.finish("topic t".to_owned(), 10, Duration::from_secs(1));
        assert!(verification.verified);
        assert!(verification.to_string().contains("verified: no difference"), "{verification}");
    }
}
