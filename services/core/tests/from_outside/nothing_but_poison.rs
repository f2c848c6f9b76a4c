//! A partition of nothing but records that decode and are refused: there are never rows to be taken, and it goes on all the
//! same.

use std::sync::Arc;

use kappa_core::decode::{DecodeLimits, NaturalSchema};
use kappa_core::partition::{PartitionSettings, PartitionState, Progress};
use kappa_core::record::LogBatch;
use serde_json::json;

use crate::support::partition::{new_state, settings};

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "event_time", "type": "long"},
    {"name": "value", "type": "double"}
]}"#;
const BYTES_PER_BATCH: usize = 10_000;
const RECORDS: i64 = 5_000;

fn state() -> PartitionState {
    let settings = PartitionSettings {
        rows_per_batch: 1_000,
        bytes_per_batch: BYTES_PER_BATCH,
        ..settings(SCHEMA, &["sensor_id"])
    };
    new_state(SCHEMA, Arc::new(settings), 0)
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
