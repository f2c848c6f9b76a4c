//! (B) Which events are flagged: recomputed with the detector, which is the definition of a flag, or, where its memory
//! cannot be known, as the hot store says.

use std::collections::HashMap;
use std::sync::Arc;

use kappa_core::anomaly::{AnomalyDetector as _, ConfiguredDetector, score_of};
use kappa_core::rows::SeriesKey;

use super::report::shown_time;
use super::totals::ArchivedEvent;

/// What the detector remembers of a series.
pub(super) type Memory = <ConfiguredDetector as kappa_core::anomaly::AnomalyDetector>::Memory;

/// A flagged event, expected or found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Flagged {
    pub(super) series: Arc<SeriesKey>,
    pub(super) offset: i64,
    pub(super) time_ms: i64,
    pub(super) value: f64,
    pub(super) expected: f64,
    pub(super) score: f64,
    pub(super) kind: String,
}

/// Where flags come from.
#[derive(Debug)]
pub(super) enum Flags {
    /// The detector saw every event of the partition.
    Recomputed(ConfiguredDetector),
    /// Segments were skipped, or have expired: the flags that the hot store has for the segment at hand, by offset.
    AsStored(HashMap<i64, Flagged>),
}

impl Flags {
    /// Looks at the next event of a series: its distance from the expectation, and the flag.
    pub(super) fn observe(
        &mut self,
        memory: &mut Memory,
        series: &Arc<SeriesKey>,
        event: &ArchivedEvent,
    ) -> (f64, Option<Flagged>) {
        match self {
            Self::Recomputed(detector) => {
                let verdict = detector.observe(memory, event.time_ms, event.value);
                let flagged = verdict.kind.map(|kind| Flagged {
                    series: Arc::clone(series),
                    offset: event.offset,
                    time_ms: event.time_ms,
                    value: event.value,
                    expected: verdict.expected,
                    score: score_of(verdict.distance),
                    kind: kind.name().to_owned(),
                });
                (verdict.distance, flagged)
            }
            Self::AsStored(stored) => {
                let of_the_event = stored.get(&event.offset).map(|stored| Flagged {
                    series: Arc::clone(series),
                    time_ms: event.time_ms,
                    value: event.value,
                    ..stored.clone()
                });
                (0.0, of_the_event)
            }
        }
    }
}

/// What differs between an expected flag and the one found at its offset.
#[expect(clippy::float_cmp, reason = "the value is a copy, not a result")]
pub(super) fn difference(expected: &Flagged, found: &Flagged) -> Option<String> {
    let mut differing = Vec::new();
    let mut tell = |what: &str, expected: String, found: String| {
        differing.push(format!("{what} {expected} expected, {found} found"));
    };
    if expected.series != found.series {
        tell("series", shown_series(&expected.series), shown_series(&found.series));
    }
    if expected.time_ms != found.time_ms {
        tell("event time", shown_time(expected.time_ms), shown_time(found.time_ms));
    }
    if expected.kind != found.kind {
        tell("kind", expected.kind.clone(), found.kind.clone());
    }
    if expected.value != found.value {
        tell("value", expected.value.to_string(), found.value.to_string());
    }
    for (what, expected, found) in
        [("expectation", expected.expected, found.expected), ("score", expected.score, found.score)]
    {
        if !nearly(expected, found, expected.abs()) {
            tell(what, expected.to_string(), found.to_string());
        }
    }
    (!differing.is_empty()).then(|| differing.join("; "))
}

/// Equal within 1e-9 of a scale.
pub(super) fn nearly(left: f64, right: f64, scale: f64) -> bool {
    (left - right).abs() <= 1e-9 * scale
}

/// A series, for people.
pub(super) fn shown_series(series: &SeriesKey) -> String {
    series.parts().collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flagged() -> Flagged {
        let series = Arc::new(SeriesKey::new(["a", "b"]));
        Flagged { series, offset: 7, time_ms: 1_000, value: 3.0, expected: 1.0, score: 9.0, kind: "spike".to_owned() }
    }

    #[test]
    fn each_field_is_compared() {
        assert_eq!(difference(&flagged(), &flagged()), None);
        let other = |change: fn(&mut Flagged)| {
            let mut found = flagged();
            change(&mut found);
            difference(&flagged(), &found)
        };
        assert_eq!(other(|found| found.score += 1e-12), None);
        assert_eq!(other(|found| found.kind = "drift".to_owned()).as_deref(), Some("kind spike expected, drift found"));
        for change in [
            |found: &mut Flagged| found.value = 4.0,
            |found: &mut Flagged| found.expected += 1e-3,
            |found: &mut Flagged| found.score += 1e-3,
            |found: &mut Flagged| found.time_ms += 1,
            |found: &mut Flagged| found.series = Arc::new(SeriesKey::new(["ab", ""])),
        ] {
            assert!(other(change).is_some());
        }
    }
}
