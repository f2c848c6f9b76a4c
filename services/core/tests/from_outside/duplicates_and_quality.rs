//! What comes twice is marked and left out; what a segment brought is counted by site and metric, the same in a replay.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow_array::cast::AsArray as _;
use kappa_core::decode::SchemaReference;
use kappa_core::partition::{PartitionSettings, PartitionState, Progress, Replay, SegmentCut};
use kappa_core::record::LogBatch;
use kappa_core::rows::{QualityCounts, QualityRow};

use crate::support::partition::{known_writer, new_state, payload, settings};

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "metric", "type": {"type": "enum", "name": "Metric", "symbols": ["T", "H"]}},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "double"},
    {"name": "site", "type": ["null", "string"]},
    {"name": "sequence", "type": "long"}
]}"#;
const START_MS: i64 = 1_767_225_600_000;

/// Sensor, metric, site, sequence, seconds of the event, seconds of the arrival, value.
type Reading = (&'static str, u32, Option<&'static str>, i64, i64, i64, f64);

fn partition_settings(rows_per_batch: usize, sequence: Option<&str>) -> Arc<PartitionSettings> {
    let plain = settings(SCHEMA, &["sensor_id", "metric"]);
    let event = plain.event.clone().with_site(&plain.reader, Some("site")).unwrap();
    let event = event.with_sequence(&plain.reader, sequence).unwrap();
    Arc::new(PartitionSettings { event, rows_per_batch, ..plain })
}

fn batch(first: i64, readings: &[Reading]) -> LogBatch {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let encoder = GenericDatumWriter::builder(&schema).build().unwrap();
    let mut batch = LogBatch::default();
    for (offset, (sensor, metric, site, sequence, event_s, arrival_s, value)) in (first..).zip(readings) {
        let site = match site {
            Some(site) => Value::Union(1, Box::new(Value::String((*site).to_owned()))),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let fields = [
            ("sensor_id", Value::String((*sensor).to_owned())),
            ("metric", Value::Enum(*metric, ["T", "H"][*metric as usize].to_owned())),
            ("event_time", Value::TimestampMillis(START_MS + event_s * 1_000)),
            ("value", Value::Double(*value)),
            ("site", site),
            ("sequence", Value::Long(*sequence)),
        ];
        batch.push(offset, START_MS + arrival_s * 1_000, Some(sensor.as_bytes()), Some(&payload(&encoder, fields)), []);
    }
    batch
}

/// Goes through a batch; gives the marks of the rows.
fn process(state: &mut PartitionState, batch: &LogBatch) -> Vec<bool> {
    let (mut index, mut marks) = (0, Vec::new());
    loop {
        let progress = state.process(batch, index);
        if let Some(rows) = state.take_rows().unwrap() {
            let column = rows.column_by_name("_duplicate").unwrap().as_boolean().clone();
            marks.extend(column.iter().map(Option::unwrap));
        }
        drop(state.take_rejects());
        index = match progress {
            Progress::RowsWait { index } => index,
            Progress::Consumed => return marks,
            other => panic!("{other:?}"),
        };
    }
}

fn readings() -> Vec<Reading> {
    vec![
        ("a", 0, Some("north"), 1, 0, 1, 1.0),
        ("a", 1, Some("north"), 2, 0, 1, 2.0),
        // Sent again, with another value even: the number decides.
        ("a", 0, Some("north"), 1, 0, 2, 9.0),
        ("a", 0, Some("north"), 5, 4, 6, 3.0),
        ("b", 0, None, 0, 4, 6, 4.0),
        ("b", 0, None, 0, 4, 6, 4.0),
        ("a", 0, Some("north"), 6, 5, 6, f64::NAN),
        // A minute later; one that was missing, and a sensor that begins anew.
        ("a", 0, Some("north"), 4, 3, 61, 5.0),
        ("a", 0, Some("north"), 1, 60, 62, 6.0),
    ]
}

#[test]
fn duplicates_are_marked_and_in_no_window() {
    for rows_per_batch in [1, 2, 100] {
        let mut state = new_state(SCHEMA, partition_settings(rows_per_batch, Some("sequence")), 0);
        let marks = process(&mut state, &batch(0, &readings()));
        assert_eq!(marks, [false, false, true, false, false, false, false, false]);
        let cut = state.cut().unwrap();
        assert_eq!((cut.rows, cut.duplicates), (8, 1));
        let (count, sum) =
            cut.window_rows.iter().fold((0, 0.0), |(count, sum), row| (count + row.count, sum + row.sum));
        assert_eq!((count, sum), (7, 25.0));
    }
}

#[test]
fn without_a_field_that_numbers_them_nothing_is_a_duplicate() {
    let mut state = new_state(SCHEMA, partition_settings(100, None), 0);
    assert!(process(&mut state, &batch(0, &readings())).iter().all(|mark| !mark));
    assert_eq!(state.cut().unwrap().duplicates, 0);
}

fn row(site: &str, metric: &str, minute: i64, counts: QualityCounts) -> QualityRow {
    QualityRow { site: site.into(), metric: metric.into(), minute_ms: START_MS + minute * 60_000, counts }
}

#[test]
fn quality_is_counted_by_site_metric_and_minute_of_arrival() {
    let expected = [
        row("", "T", 0, QualityCounts { accepted: 2, delay_sum_ms: 4_000, delay_max_ms: 2_000, ..Default::default() }),
        row(
            "north",
            "H",
            0,
            QualityCounts { accepted: 1, delay_sum_ms: 1_000, delay_max_ms: 1_000, ..Default::default() },
        ),
        row(
            "north",
            "T",
            0,
            QualityCounts {
                accepted: 2,
                rejected: 1,
                duplicates: 1,
                missing: 2,
                delay_sum_ms: 3_000,
                delay_max_ms: 2_000,
                ..Default::default()
            },
        ),
        row(
            "north",
            "T",
            1,
            QualityCounts {
                accepted: 2,
                missing: -1,
                restarts: 1,
                delay_sum_ms: 60_000,
                delay_max_ms: 58_000,
                ..Default::default()
            },
        ),
    ];
    for rows_per_batch in [1, 3, 100] {
        let mut state = new_state(SCHEMA, partition_settings(rows_per_batch, Some("sequence")), 0);
        process(&mut state, &batch(0, &readings()));
        assert_eq!(state.cut().unwrap().quality, expected);
        assert!(state.cut().is_none(), "a segment counts for itself");
    }
}

#[test]
fn a_site_that_only_a_refused_record_names_is_not_taken_for_the_next_one() {
    let mut state = new_state(SCHEMA, partition_settings(100, Some("sequence")), 0);
    let readings = [("a", 0, Some("north"), 1, 0, 0, f64::NAN), ("a", 0, Some("south"), 2, 0, 0, 1.0)];
    process(&mut state, &batch(0, &readings));
    let expected = [
        row("north", "T", 0, QualityCounts { rejected: 1, ..Default::default() }),
        row("south", "T", 0, QualityCounts { accepted: 1, ..Default::default() }),
    ];
    assert_eq!(state.cut().unwrap().quality, expected);
}

#[test]
fn records_that_cannot_be_read_count_for_no_site() {
    let mut state = new_state(SCHEMA, partition_settings(100, Some("sequence")), 0);
    let mut poison = LogBatch::default();
    poison.push(0, START_MS, None, Some(b"\x07"), []);
    process(&mut state, &poison);
    assert_eq!(state.cut().unwrap().quality, [row("", "", 0, QualityCounts { rejected: 1, ..Default::default() })]);
}

/// Everything of a cut that somebody else would write too.
fn said(cut: SegmentCut) -> (u64, u64, Vec<QualityRow>, Vec<u8>) {
    (cut.rows, cut.duplicates, cut.quality, cut.snapshot)
}

#[test]
fn whoever_adopts_a_segment_comes_to_the_same() {
    let settings = partition_settings(2, Some("sequence"));
    let mut owner = new_state(SCHEMA, Arc::clone(&settings), 0);
    process(&mut owner, &batch(0, &readings()[..3]));
    let before = owner.cut().unwrap();
    let rest = batch(3, &readings()[3..]);
    process(&mut owner, &rest);
    let cut = owner.cut().unwrap();

    let (mut next, _) = PartitionState::restore(Arc::clone(&settings), &before.snapshot).unwrap();
    next.begin_replay(Replay { end: cut.end, rejected: cut.rejected_offsets.clone() });
    // What was refused for what it said is read again, so its schema is asked for as that of any other.
    let mut index = 0;
    loop {
        let progress = next.process(&rest, index);
        drop((next.take_rows().unwrap(), next.take_rejects()));
        index = match progress {
            Progress::Consumed => break,
            Progress::RowsWait { index } => index,
            Progress::NeedsSchema { index, reference } => {
                next.learn(reference, known_writer(SCHEMA, &settings));
                index
            }
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(said(next.cut().unwrap()), said(cut));
}

#[test]
fn a_replay_of_nothing_but_refused_records_asks_for_their_schema_once() {
    let settings = partition_settings(100, Some("sequence"));
    let refused = batch(0, &[("a", 0, Some("north"), 1, 0, 0, f64::NAN), ("a", 0, Some("north"), 2, 1, 1, f64::NAN)]);
    let mut owner = new_state(SCHEMA, Arc::clone(&settings), 0);
    process(&mut owner, &refused);
    let cut = owner.cut().unwrap();
    let replay = Replay { end: cut.end, rejected: cut.rejected_offsets.clone() };

    let mut next = PartitionState::empty(Arc::clone(&settings), 0, 0, None);
    next.begin_replay(replay.clone());
    assert_eq!(next.process(&refused, 0), Progress::NeedsSchema { index: 0, reference: SchemaReference::Id(1) });
    next.learn(SchemaReference::Id(1), known_writer(SCHEMA, &settings));
    assert_eq!(next.process(&refused, 0), Progress::Consumed);
    assert_eq!(said(next.cut().unwrap()), said(cut));

    // A registry that has lost it: the records stay rejected, for no site.
    let mut lost = PartitionState::empty(settings, 0, 0, None);
    lost.begin_replay(replay);
    for _ in 0..2 {
        assert!(matches!(lost.process(&refused, 0), Progress::NeedsSchema { .. }));
        lost.learn_unknown(SchemaReference::Id(1));
    }
    assert_eq!(lost.process(&refused, 0), Progress::Consumed);
    assert_eq!(lost.cut().unwrap().rejected_offsets.count(), 2);
}
