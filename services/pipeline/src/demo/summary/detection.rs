//! How the anomalies that were found compare with those that were put in.
//!
//! Not part of the verdict: a detector has its misses and its false alarms, and this says how many.

use std::collections::{BTreeMap, HashMap};

use crate::demo::fleet::reading::Metric;
use crate::demo::fleet::signal::{AnomalyKind, InjectedAnomaly};
use crate::demo::hot_store_reader::FoundAnomaly;

/// A flag counts as a hit up to so long after the last reading concerned: a series may notice the way back.
const GRACE_MS: i64 = 5_000;

/// The comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detection {
    /// Of each kind: how many were put in, and how many of them were flagged.
    pub by_kind: BTreeMap<AnomalyKind, Hits>,
    /// Flagged events.
    pub flagged: u64,
    /// Flagged events where nothing had been put in.
    pub false_alarms: u64,
}

/// Put in and flagged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hits {
    /// Put in.
    pub injected: u64,
    /// Of these, flagged at least once.
    pub found: u64,
}

/// Compares flags with labels; `series` are the names of the series by index.
pub fn compare(series: &[(String, Metric)], injected: &[InjectedAnomaly], found: &[FoundAnomaly]) -> Detection {
    let mut flags: HashMap<(&str, &str), Vec<(i64, bool)>> = HashMap::new();
    for flag in found {
        flags.entry((&flag.sensor_id, &flag.metric)).or_default().push((flag.event_time_ms, false));
    }
    let mut detection = Detection { flagged: found.len() as u64, ..Detection::default() };
    for kind in AnomalyKind::ALL {
        detection.by_kind.insert(kind, Hits::default());
    }
    for label in injected {
        let hits = detection.by_kind.entry(label.kind).or_default();
        hits.injected += 1;
        let Some((sensor_id, metric)) = series.get(label.series as usize) else {
            continue;
        };
        let Some(flags) = flags.get_mut(&(sensor_id.as_str(), metric.symbol())) else {
            continue;
        };
        let concerned = label.first_ms..=label.last_ms + GRACE_MS;
        let mut is_found = false;
        for (_, explained) in flags.iter_mut().filter(|(time, _)| concerned.contains(time)) {
            *explained = true;
            is_found = true;
        }
        hits.found += u64::from(is_found);
    }
    detection.false_alarms = flags.values().flatten().filter(|(_, explained)| !explained).count() as u64;
    detection
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;
    use kappa_core::anomaly::{AnomalyDetector as _, Robust, RobustMemory};

    use super::*;
    use crate::demo::embedded::registry::SENSOR_READING_SCHEMA;
    use crate::demo::evolution::Rollout;
    use crate::demo::fleet::message::{Message, Nature, SchemaIds};
    use crate::demo::fleet::{Fleet, FleetOptions};

    fn time_and_value(reader: &GenericDatumReader<'_>, message: &Message) -> (i64, f64) {
        let framing = if message.schema_guid.is_some() { 0 } else { 5 };
        let Value::Record(fields) = reader.read_value(&mut &message.value[framing..]).unwrap() else {
            panic!("not a record");
        };
        match (&fields[2].1, &fields[3].1) {
            (Value::TimestampMillis(time), Value::Double(value)) => (*time, *value),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_default_detector_finds_most_of_what_is_put_in() {
        let schema = Schema::parse_str(SENSOR_READING_SCHEMA).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let schemas = SchemaIds { reading: 1, reading_guid: [7; 16], not_avro: 2, incompatible: 3, unknown: 9 };
        let mut fleet = Fleet::new(FleetOptions { sensors: 40, seed: 3, schemas, rollout: Rollout::default() });
        let names = fleet.series_names();
        let detector = Robust::new(30, 10, 6.0, 60);
        let mut memories = vec![RobustMemory::default(); names.len()];
        let mut message = Message::default();
        let mut found = Vec::new();
        for index in 0..400_000 {
            let ticket = fleet.next(1_790_000_000_000 + index * 5, &mut message);
            if matches!(ticket.nature, Nature::Flawed(_) | Nature::Repeated) {
                continue;
            }
            let (event_time_ms, value) = time_and_value(&reader, &message);
            let series = ticket.series as usize;
            let verdict = detector.observe(&mut memories[series], event_time_ms, value);
            if let Some(kind) = verdict.kind {
                found.push(FoundAnomaly {
                    sensor_id: names[series].0.clone(),
                    metric: names[series].1.symbol().to_owned(),
                    kind: kind.name().to_owned(),
                    event_time_ms,
                    value,
                    expected: verdict.expected,
                    score: verdict.distance,
                });
            }
        }
        let detection = compare(&names, fleet.anomalies(), &found);
        for (kind, hits) in &detection.by_kind {
            assert!(hits.injected > 10 && hits.found * 10 >= hits.injected * 8, "{kind:?}: {hits:?}");
        }
        assert!(detection.false_alarms * 10 <= detection.flagged, "{detection:?}");
    }

    #[test]
    fn flags_are_matched_by_series_and_time() {
        let series = vec![("a".to_owned(), Metric::Humidity), ("a".to_owned(), Metric::Voltage)];
        let label = |series, kind, first_ms, last_ms| InjectedAnomaly { series, kind, first_ms, last_ms };
        let injected = [
            label(0, AnomalyKind::Spike, 1_000, 1_000),
            label(1, AnomalyKind::Spike, 1_000, 1_000),
            label(1, AnomalyKind::Drift, 50_000, 60_000),
        ];
        let flag = |metric: &str, event_time_ms| FoundAnomaly {
            sensor_id: "a".to_owned(),
            metric: metric.to_owned(),
            kind: "spike".to_owned(),
            event_time_ms,
            value: 0.0,
            expected: 0.0,
            score: 9.0,
        };
        let found =
            [flag("HUMIDITY", 1_000), flag("HUMIDITY", 90_000), flag("VOLTAGE", 55_000), flag("VOLTAGE", 64_000)];
        let detection = compare(&series, &injected, &found);
        assert_eq!(detection.by_kind[&AnomalyKind::Spike], Hits { injected: 2, found: 1 });
        assert_eq!(detection.by_kind[&AnomalyKind::Drift], Hits { injected: 1, found: 1 });
        assert_eq!((detection.flagged, detection.false_alarms), (4, 1));
    }
}
