//! Where the sensors stand: told when it is new or has changed, by the newest event, whoever asks and however often.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use kappa_core::contract::EventFields;
use kappa_core::decode::ReaderSchema;
use kappa_core::partition::{PartitionSettings, PartitionState, Progress};
use kappa_core::record::LogBatch;

use crate::support::partition::{new_state, payload, settings};

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "double"},
    {"name": "site", "type": ["null", "string"]}
]}"#;
const START_MS: i64 = 1_767_225_600_000;

fn state(site: Option<&str>, rows_per_batch: usize) -> PartitionState {
    let plain = settings(SCHEMA, &["sensor_id"]);
    let event = plain.event.clone().with_site(&plain.reader, site).unwrap();
    let settings = Arc::new(PartitionSettings { event, rows_per_batch, ..plain });
    let mut state = new_state(SCHEMA, settings, -1);
    // Nothing is told before a segment with a record of the schema was cut.
    process(&mut state, &batch(-1, &[("before", None, 1.0)]));
    assert_eq!(told(&mut state), []);
    drop(state.take_rows().unwrap());
    drop(state.cut().unwrap());
    state
}

/// Events of sensor and site; `f64::NAN` as a value makes an invalid one.
fn batch(first: i64, events: &[(&str, Option<&str>, f64)]) -> LogBatch {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let mut batch = LogBatch::default();
    for (offset, (sensor, site, value)) in (first..).zip(events) {
        let site = match site {
            Some(site) => Value::Union(1, Box::new(Value::String((*site).to_owned()))),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let fields = [
            ("sensor_id", Value::String((*sensor).to_owned())),
            ("event_time", Value::TimestampMillis(START_MS + offset)),
            ("value", Value::Double(*value)),
            ("site", site),
        ];
        batch.push(offset, START_MS + offset, Some(sensor.as_bytes()), Some(&payload(&writer, fields)), []);
    }
    batch
}

fn process(state: &mut PartitionState, batch: &LogBatch) {
    let mut index = 0;
    while let Progress::RowsWait { index: next } = state.process(batch, index) {
        drop(state.take_rows().unwrap());
        index = next;
    }
}

/// Sensor, site and version.
fn told(state: &mut PartitionState) -> Vec<(String, String, i64)> {
    let rows = state.take_sensors();
    assert!(rows.iter().all(|row| row.seen_at_ms == START_MS + row.version - 1));
    rows.into_iter().map(|row| (row.sensor.into(), row.site.into(), row.version)).collect()
}

fn expected(rows: &[(&str, &str, i64)]) -> Vec<(String, String, i64)> {
    rows.iter().map(|(sensor, site, version)| ((*sensor).to_owned(), (*site).to_owned(), *version)).collect()
}

#[test]
fn what_is_new_or_has_changed_is_told_once() {
    // Batches of two rows, and one that takes all: where rows are taken in between makes no difference.
    for rows_per_batch in [2, 1_000] {
        let mut state = state(Some("site"), rows_per_batch);
        let first = [
            ("b", Some("north"), 1.0),
            ("a", None, 1.0),
            ("b", Some("north"), 1.0),
            ("c", Some("south"), f64::NAN),
            ("b", Some("south"), 1.0),
            ("a", Some(""), 1.0),
        ];
        process(&mut state, &batch(0, &first));
        assert_eq!(told(&mut state), expected(&[("a", "", 2), ("b", "south", 5)]), "{rows_per_batch}");
        assert_eq!(told(&mut state), []);
        process(&mut state, &batch(6, &[("b", Some("south"), 1.0), ("a", Some("north"), 1.0)]));
        assert_eq!(told(&mut state), expected(&[("a", "north", 8)]));
        drop(state.take_rows().unwrap());
        assert_eq!(told(&mut state), []);
    }
}

#[test]
fn a_cut_takes_along_what_was_not_told_yet() {
    let mut state = state(Some("site"), 1_000);
    process(&mut state, &batch(0, &[("a", Some("north"), 1.0)]));
    drop(state.take_rows().unwrap());
    let cut = state.cut().unwrap();
    assert_eq!((cut.sensors.len(), &*cut.sensors[0].site, cut.sensors[0].version), (1, "north", 1));
    assert_eq!(told(&mut state), []);
}

#[test]
fn without_a_field_for_it_sensors_are_told_without_a_site() {
    let mut state = state(None, 1_000);
    process(&mut state, &batch(0, &[("a", Some("north"), 1.0), ("a", Some("south"), 1.0)]));
    assert_eq!(told(&mut state), expected(&[("a", "", 1)]));
    let reader = ReaderSchema::parse(SCHEMA).unwrap();
    let event = EventFields::bind(&reader, &["sensor_id".to_owned()], "event_time", "value", None).unwrap();
    assert!(event.with_site(&reader, Some("place")).unwrap_err().to_string().contains("event.site"));
}

#[test]
fn a_site_that_changes_with_every_event_takes_no_more_room() {
    let mut state = state(Some("site"), 100_000);
    let sites: Vec<String> = (0..5_000).map(|site| format!("site-{site}")).collect();
    let events: Vec<_> = sites.iter().map(|site| ("a", Some(site.as_str()), 1.0)).collect();
    process(&mut state, &batch(0, &events));
    assert_eq!(told(&mut state), expected(&[("a", "site-4999", 5_000)]));
}
