//! How the anomalies that were flagged compare with those that were put in.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::click_house::{ClickHouse, quoted};
use crate::signal::{AnomalyKind, Label};
use crate::statistics::{median, quantile};

/// A flag counts as a hit up to so long after the last reading concerned: a sensor may notice the way back.
const GRACE_MS: i64 = 5_000;

/// A flagged event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The sensor.
    pub sensor_id: String,
    /// Its event time.
    pub time_ms: i64,
}

/// The comparison.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Detection {
    /// By kind of anomaly.
    pub by_kind: BTreeMap<AnomalyKind, Hits>,
    /// Flagged events.
    pub flags: u64,
    /// Flagged events where nothing had been put in.
    pub false_alarms: u64,
    /// Events for one false alarm.
    pub events_per_false_alarm: f64,
    /// Share of the flags that were right.
    pub precision: Option<f64>,
    /// Share of the anomalies that were flagged.
    pub recall: Option<f64>,
}

/// One kind.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Hits {
    /// Put in, and sent to their end.
    pub injected: u64,
    /// Of these, flagged at least once.
    pub found: u64,
    /// From the first reading concerned to the first flag, in event time: median.
    pub delay_p50_seconds: f64,
    /// The same, 90th percentile.
    pub delay_p90_seconds: f64,
}

/// All flags of the topic since a time, those of the canaries left out.
pub async fn read_flags(click_house: &ClickHouse, topic: &str, since_ms: i64) -> anyhow::Result<Vec<Flag>> {
    let question = format!(
        "SELECT sensor_id, toUnixTimestamp64Milli(event_time) FROM `{}`.anomalies FINAL \
         WHERE topic = {} AND event_time >= fromUnixTimestamp64Milli({since_ms}) AND NOT startsWith(sensor_id, 'canary-')",
        click_house.database(),
        quoted(topic)
    );
    let rows = click_house.rows(&question).await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some(Flag { sensor_id: row.first()?.clone(), time_ms: row.get(1)?.parse().ok()? }))
        .collect())
}

/// Compares flags with labels. `events` is the number of all.
pub fn compare(labels: &[Label], flags: &[Flag], events: u64) -> Detection {
    let mut by_sensor: HashMap<&str, Vec<(i64, bool)>> = HashMap::new();
    for flag in flags {
        by_sensor.entry(&flag.sensor_id).or_default().push((flag.time_ms, false));
    }
    let mut delays: BTreeMap<AnomalyKind, Vec<f64>> = BTreeMap::new();
    let mut by_kind: BTreeMap<AnomalyKind, Hits> =
        AnomalyKind::ALL.into_iter().map(|kind| (kind, Hits::default())).collect();
    for label in labels.iter().filter(|label| label.first_ms <= label.last_ms) {
        let concerned = label.first_ms..=label.last_ms + GRACE_MS;
        let mut first_flag = None;
        for (time, is_explained) in by_sensor.get_mut(label.sensor_id.as_str()).into_iter().flatten() {
            if concerned.contains(time) {
                *is_explained = true;
                first_flag = Some(first_flag.map_or(*time, |first: i64| first.min(*time)));
            }
        }
        // One that the end of the run cut off is no miss, but what was flagged of it is no false alarm.
        if !label.complete {
            continue;
        }
        let hits = by_kind.entry(label.kind).or_default();
        hits.injected += 1;
        if let Some(first_flag) = first_flag {
            hits.found += 1;
            delays.entry(label.kind).or_default().push((first_flag - label.first_ms) as f64 / 1_000.0);
        }
    }
    for (kind, delays) in delays {
        let hits = by_kind.entry(kind).or_default();
        (hits.delay_p50_seconds, hits.delay_p90_seconds) = (median(&delays), quantile(&delays, 0.9));
    }
    let false_alarms = by_sensor.values().flatten().filter(|(_, is_explained)| !is_explained).count() as u64;
    let (injected, found) = by_kind.values().fold((0, 0), |sum, hits| (sum.0 + hits.injected, sum.1 + hits.found));
    let flagged = flags.len() as u64;
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    Detection {
        by_kind,
        flags: flagged,
        false_alarms,
        events_per_false_alarm: events as f64 / false_alarms.max(1) as f64,
        precision: share(flagged - false_alarms, flagged),
        recall: share(found, injected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(sensor: &str, kind: AnomalyKind, first_ms: i64, last_ms: i64, complete: bool) -> Label {
        Label { sensor_id: sensor.to_owned(), kind, first_ms, last_ms, complete }
    }

    #[test]
    fn flags_are_matched_by_sensor_and_time() {
        let labels = [
            label("a", AnomalyKind::Spike, 1_000, 1_000, true),
            label("b", AnomalyKind::Spike, 1_000, 1_000, true),
            label("b", AnomalyKind::Drift, 50_000, 60_000, true),
            label("c", AnomalyKind::Flatline, 70_000, 71_000, false),
            // Never began.
            label("d", AnomalyKind::Spike, i64::MAX, i64::MIN, false),
        ];
        let flag = |sensor: &str, time_ms| Flag { sensor_id: sensor.to_owned(), time_ms };
        let flags = [flag("a", 1_000), flag("a", 90_000), flag("b", 55_000), flag("b", 64_000), flag("c", 70_500)];
        let detection = compare(&labels, &flags, 1_000);
        let hits = |kind| (detection.by_kind[&kind].injected, detection.by_kind[&kind].found);
        assert_eq!(hits(AnomalyKind::Spike), (2, 1));
        assert_eq!(hits(AnomalyKind::Drift), (1, 1));
        assert_eq!(hits(AnomalyKind::Flatline), (0, 0));
        assert!((detection.by_kind[&AnomalyKind::Drift].delay_p50_seconds - 5.0).abs() < 1e-9);
        assert_eq!((detection.flags, detection.false_alarms), (5, 1));
        assert!((detection.precision.unwrap() - 0.8).abs() < 1e-9);
        assert!((detection.recall.unwrap() - 2.0 / 3.0).abs() < 1e-9);
        assert!(compare(&[], &[], 0).recall.is_none());
    }
}
