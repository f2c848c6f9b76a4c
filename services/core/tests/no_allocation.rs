//! In the steady state no event costs an allocation: what a batch needs is made once for all of its rows.
//!
//! A test binary of its own, since it counts what the whole process allocates.
#![allow(unsafe_code, reason = "a counting allocator")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "from_outside/support/partition.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use kappa_core::anomaly::{ConfiguredDetector, Robust};
use kappa_core::contract::rules::{Bounds, ContractRules, Demand, Rule, Severity};
use kappa_core::decode::ReaderSchema;
use kappa_core::partition::{PartitionSettings, PartitionState, Progress};
use kappa_core::record::LogBatch;

use support::{new_state, payload, settings};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "metric", "type": {"type": "enum", "name": "Metric", "symbols": ["TEMPERATURE", "HUMIDITY"]}},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "double"},
    {"name": "site", "type": ["null", "string"]},
    {"name": "attributes", "type": {"type": "map", "values": "string"}}
]}"#;

const SENSORS: i64 = 1_000;
const PER_BATCH: i64 = 2_000;
const ROWS_PER_BATCH: usize = 8_192;
const START_MS: i64 = 1_767_225_600_000;

/// Of each kind, refusing and warning; two of the warnings are broken all the time.
fn contract(reader: &ReaderSchema) -> ContractRules {
    let bounds = |max| Bounds { min: 0.0, max };
    let by_metric = Demand::RangeBy { by: "metric".to_owned(), bounds: vec![("HUMIDITY".to_owned(), bounds(100.0))] };
    let rules = [
        ("sensor_id", Demand::Length { min: 1, max: 64 }, Severity::Error),
        ("value", by_metric, Severity::Error),
        ("site", Demand::Required, Severity::Error),
        ("site", Demand::Allowed(vec!["north".to_owned()]), Severity::Error),
        ("value", Demand::Range(bounds(25.0)), Severity::Warning),
        ("metric", Demand::Allowed(vec!["HUMIDITY".to_owned()]), Severity::Warning),
    ];
    let rules = rules.into_iter().enumerate().map(|(number, (field, demand, severity))| Rule {
        name: format!("rule_{number}"),
        field: field.to_owned(),
        severity,
        demand,
    });
    ContractRules::compile("c 1", rules.collect(), reader).unwrap()
}

fn partition_settings() -> Arc<PartitionSettings> {
    let plain = settings(SCHEMA, &["sensor_id", "metric"]);
    Arc::new(PartitionSettings {
        contract: contract(&plain.reader),
        // Flags cost an allocation; this test is about what does not stand out.
        detector: ConfiguredDetector::Robust(Robust::new(u32::MAX, 60, 12.0, 60)),
        rows_per_batch: ROWS_PER_BATCH,
        ..plain
    })
}

/// A hundred events a second of event time for each sensor once in ten seconds, so that windows close too.
fn batch(first: i64, writer: &GenericDatumWriter<'_>) -> LogBatch {
    let mut batch = LogBatch::default();
    for offset in first..first + PER_BATCH {
        let sensor = format!("sensor-{:06}", offset.wrapping_mul(7_919) % SENSORS);
        let time_ms = START_MS + offset * 10;
        let metric = (offset % 2) as usize;
        let fields = [
            ("sensor_id", Value::String(sensor.clone())),
            ("metric", Value::Enum(metric as u32, ["TEMPERATURE", "HUMIDITY"][metric].to_owned())),
            ("event_time", Value::TimestampMillis(time_ms)),
            ("value", Value::Double(20.0 + (offset % 13) as f64)),
            ("site", Value::Union(1, Box::new(Value::String("north".to_owned())))),
            ("attributes", Value::Map(HashMap::new())),
        ];
        batch.push(offset, time_ms, Some(sensor.as_bytes()), Some(&payload(writer, fields)), []);
    }
    batch
}

fn process(state: &mut PartitionState, batches: &[LogBatch]) {
    for batch in batches {
        let mut index = 0;
        while let Progress::RowsWait { index: next } = state.process(batch, index) {
            drop(state.take_rows().unwrap());
            index = next;
        }
    }
}

#[test]
fn an_event_costs_no_allocation() {
    let mut state = new_state(SCHEMA, partition_settings(), 0);
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let batches: Vec<LogBatch> = (0..60).map(|number| batch(number * PER_BATCH, &writer)).collect();
    let (known, measured) = batches.split_at(20);
    process(&mut state, known);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    process(&mut state, measured);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let events = measured.len() * PER_BATCH as usize;
    assert_eq!(state.take_warnings().len(), 2, "the rules were judged");
    assert_eq!((state.segment_rows(), state.waiting_rejects().len()), (batches.len() as u64 * PER_BATCH as u64, 0));
    // Each batch that is handed to the archive takes some for its columns, however many rows it has.
    let batches = events / ROWS_PER_BATCH + 1;
    assert!(allocations < 150 * batches, "{allocations} allocations for {events} events");
}
