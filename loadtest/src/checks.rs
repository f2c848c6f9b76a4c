//! Whether everything that was sent is found, once, in its place: the harness's own books against what is there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::click_house::{ClickHouse, quoted};
use crate::fleet::Sent;
use crate::objects::{Archived, LogRange};

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is compared.
    pub what: String,
    /// As sent.
    pub expected: u64,
    /// As found.
    pub found: u64,
}

impl Check {
    fn new(what: impl Into<String>, expected: u64, found: u64) -> Self {
        Self { what: what.into(), expected, found }
    }

    /// Whether it agrees.
    pub fn is_ok(&self) -> bool {
        self.expected == self.found
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The part of the log that the run has written.
    pub range: LogRange,
    /// Events counted in ClickHouse.
    pub counted: u64,
    /// What the archive's footers prove.
    pub archived: Archived,
    /// Rows of the dead letters, by reason.
    pub dead_letters: BTreeMap<String, u64>,
}

/// Compares.
pub fn compare(sent: &Sent, found: &Found) -> Vec<Check> {
    let in_log: i64 = found.range.iter().map(|(from, to)| to - from).sum();
    let total = |reasons: &BTreeMap<String, u64>| reasons.values().sum::<u64>();
    let mut checks = vec![
        Check::new("records in the log", sent.records(), in_log.max(0) as u64),
        Check::new("events counted in ClickHouse's windows", sent.valid, found.counted),
        Check::new("events in the archive, by its footers", sent.valid, found.archived.rows),
        Check::new("gaps and overlaps between segments", 0, found.archived.gaps.len() as u64),
        Check::new("refused records, by the footers", sent.invalid_records(), total(&found.archived.rejects)),
        Check::new("dead letters", sent.invalid_records(), total(&found.dead_letters)),
    ];
    let reasons: BTreeSet<&str> =
        sent.invalid.keys().copied().chain(found.dead_letters.keys().map(String::as_str)).collect();
    for reason in reasons {
        let expected = sent.invalid.get(reason).copied().unwrap_or(0);
        checks.push(Check::new(
            format!("dead letters: {reason}"),
            expected,
            found.dead_letters.get(reason).copied().unwrap_or(0),
        ));
    }
    checks
}

/// Events of the topic counted in windows since a time.
pub async fn counted(click_house: &ClickHouse, topic: &str, since_ms: i64) -> anyhow::Result<u64> {
    let question = format!(
        "SELECT sum(count) FROM `{}`.windows_1m FINAL WHERE topic = {} AND window_start >= fromUnixTimestamp64Milli({since_ms})",
        click_house.database(),
        quoted(topic)
    );
    Ok(click_house.number(&question).await? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_has_a_line() {
        let sent = Sent { valid: 90, late: 3, invalid: BTreeMap::from([("tombstone", 6), ("bad_magic", 4)]) };
        let reasons = BTreeMap::from([("tombstone".to_owned(), 6), ("bad_magic".to_owned(), 4)]);
        let found = Found {
            range: vec![(10, 60), (0, 50)],
            counted: 90,
            archived: Archived { rows: 90, rejects: reasons.clone(), gaps: Vec::new() },
            dead_letters: reasons,
        };
        let checks = compare(&sent, &found);
        assert!(checks.iter().all(Check::is_ok), "{checks:?}");
        let differing = |change: &dyn Fn(&mut Found)| {
            let mut found = found.clone();
            change(&mut found);
            let checks = compare(&sent, &found).into_iter().filter(|check| !check.is_ok());
            checks.map(|check| check.what).collect::<Vec<_>>()
        };
        assert_eq!(differing(&|found| found.counted += 1), ["events counted in ClickHouse's windows"]);
        assert_eq!(differing(&|found| found.range[0].1 += 1), ["records in the log"]);
        assert_eq!(differing(&|found| found.archived.gaps.push(String::new())), ["gaps and overlaps between segments"]);
        assert_eq!(
            differing(&|found| *found.dead_letters.entry("too_deep".to_owned()).or_default() += 1),
            ["dead letters", "dead letters: too_deep"]
        );
    }
}
