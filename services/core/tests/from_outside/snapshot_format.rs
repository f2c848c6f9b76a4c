//! Snapshots are read by later versions of the program, and written by two versions side by side: the bytes for a state are
//! fixed by the number of the format, and what version 1 wrote is kept here for good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kappa_core::anomaly::{ConfiguredDetector, Robust};
use kappa_core::decode::SchemaReference;
use kappa_core::partition::{PartitionSettings, PartitionState, Progress};
use kappa_core::record::LogBatch;
use kappa_core::snapshot::FORMAT_VERSION;

use crate::support::partition::{known_writer, settings};

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "double"}
]}"#;
const START_MS: i64 = 1_767_225_600_000;
const RECORDS: i64 = 400;

fn partition_settings() -> Arc<PartitionSettings> {
    Arc::new(PartitionSettings {
        topic: "readings".to_owned(),
        detector: ConfiguredDetector::Robust(Robust::new(20, 5, 6.0, 30)),
        rows_per_batch: 64,
        ..settings(SCHEMA, &["sensor_id"])
    })
}

/// Five sensors, ten minutes, a spike, a late event, and one schema that nobody knows.
fn state(settings: &Arc<PartitionSettings>) -> PartitionState {
    let mut state = PartitionState::empty(Arc::clone(settings), 7, 1_000, Some("AAECAwQFBgcICQoLDA0ODw".to_owned()));
    state.learn(SchemaReference::Id(1), known_writer(SCHEMA, settings));
    let mut batch = LogBatch::default();
    for number in 0..RECORDS {
        let late_ms = if number == 300 { 240_000 } else { 0 };
        let value = if number == 350 { 9_000.0 } else { 20.0 + (number * 7 % 13) as f64 / 8.0 };
        let mut payload = vec![0, 0, 0, 0, if number == 200 { 9 } else { 1 }];
        payload.extend_from_slice(&[16, b's', b'e', b'n', b's', b'o', b'r', b'-', b'0' + (number % 5) as u8]);
        payload.extend(varint(START_MS + number * 1_500 - late_ms));
        payload.extend(f64::to_le_bytes(value));
        batch.push(1_000 + number, START_MS + number * 1_500, None, Some(&payload), []);
    }
    let mut index = 0;
    loop {
        index = match state.process(&batch, index) {
            Progress::Consumed => break,
            Progress::NeedsSchema { index, reference } => {
                state.learn_unknown(reference);
                index
            }
            Progress::RowsWait { index } => index,
            other => panic!("{other:?}"),
        };
        _ = state.take_rows().unwrap();
    }
    _ = state.take_rows().unwrap();
    state
}

fn varint(number: i64) -> Vec<u8> {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn golden(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/from_outside/golden/version-{version}.snapshot"))
}

/// `KAPPA_WRITE_GOLDEN=1` writes it, when the format gets a new number.
#[test]
fn this_version_writes_what_it_always_wrote() {
    let file = golden(FORMAT_VERSION);
    let written = state(&partition_settings()).cut().unwrap().snapshot;
    if std::env::var_os("KAPPA_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &written).unwrap();
    }
    let golden = std::fs::read(&file).unwrap();
    assert!(
        written == golden,
        "other bytes than {}: raise FORMAT_VERSION, and go on reading the old ones",
        file.display()
    );
}

#[test]
fn every_version_that_there_was_is_read() {
    let settings = partition_settings();
    for version in 1..=FORMAT_VERSION {
        let (restored, header) =
            PartitionState::restore(Arc::clone(&settings), &std::fs::read(golden(version)).unwrap()).unwrap();
        assert_eq!((header.topic.as_str(), header.partition, header.position), ("readings", 7, 1_000 + RECORDS));
        let expected = state(&settings).cut().unwrap().snapshot;
        assert!(restored.snapshot() == expected, "version {version} is read as another state");
    }
}
