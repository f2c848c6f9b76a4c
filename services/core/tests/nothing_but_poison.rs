//! A partition of nothing but records that decode and are refused: there are never rows to be taken, and it goes on all the
//! same.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use kappa_core::anomaly::ConfiguredDetector;
use kappa_core::archive::archive_schema;
use kappa_core::contract::{EventFields, TimeLimits};
use kappa_core::decode::{DecodeLimits, Decoder, NaturalSchema, ReaderSchema, SchemaReference};
use kappa_core::partition::{PartitionSettings, PartitionState, Progress, WriterSchema};
use kappa_core::record::LogBatch;
use kappa_core::windows::WindowSettings;
use serde_json::json;

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "event_time", "type": "long"},
    {"name": "value", "type": "double"}
]}"#;
const BYTES_PER_BATCH: usize = 10_000;
const RECORDS: i64 = 5_000;

fn state() -> PartitionState {
    let reader = ReaderSchema::parse(SCHEMA).unwrap();
    let key = ["sensor_id".to_owned()];
    let settings = Arc::new(PartitionSettings {
        topic: "t".to_owned(),
        archive_schema: archive_schema(&reader),
        event: EventFields::bind(&reader, &key, "event_time", "value", None).unwrap(),
        reader,
        time_limits: TimeLimits { max_event_age_ms: 86_400_000, max_future_skew_ms: 60_000 },
        decode_limits: DecodeLimits::default(),
        windows: WindowSettings { length_ms: 60_000, allowed_lateness_ms: 30_000, forget_after_ms: 86_400_000 },
        detector: ConfiguredDetector::Off,
        rows_per_batch: 1_000,
        bytes_per_batch: BYTES_PER_BATCH,
        hash_seed: 1,
    });
    let decoder = Decoder::compile(SCHEMA, &[], &settings.reader, &settings.decode_limits).unwrap();
    let mut state = PartitionState::empty(settings, 0, 0, None);
    state.learn(SchemaReference::Id(1), WriterSchema::Readable { decoder: Arc::new(decoder), id: Some(1) });
    state
}

#[test]
fn no_rows_are_waited_for_where_none_are() {
    let schema = NaturalSchema::parse(SCHEMA, &[], &DecodeLimits::default()).unwrap();
    let mut batch = LogBatch::default();
    for offset in 0..RECORDS {
        let event = json!({"sensor_id": format!("sensor-{offset}"), "event_time": 1_000, "value": "NaN"});
        let value = [&[0, 0, 0, 0, 1], schema.write(&event).unwrap().as_slice()].concat();
        batch.push(offset, 1_000, None, Some(&value), []);
    }
    assert!(batch.byte_len() > 10 * BYTES_PER_BATCH);
    let mut state = state();
    let (mut index, mut rejects) = (0, 0);
    while let Progress::RowsWait { index: next } = state.process(&batch, index) {
        let waiting = state.take_rejects().len();
        assert!(waiting > 0, "it waits for rows to be taken that there are not");
        (index, rejects) = (next, rejects + waiting);
    }
    rejects += state.take_rejects().len();
    assert_eq!(rejects as i64, RECORDS);
    assert_eq!((state.position(), state.waiting_rows(), state.waiting_bytes()), (RECORDS, 0, 0));
}
