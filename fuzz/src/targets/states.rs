//! Readers of what the pipeline keeps of a partition: records on their way into a state, and states.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow_array::Array as _;
use kappa_core::decode::{Decoder, SchemaReference};
use kappa_core::partition::{PartitionSettings, PartitionState, Progress, Replay, WriterSchema};
use kappa_core::record::LogBatch;
use kappa_core::reject::{Reason, Reject};
use kappa_pipeline::config::Config;
use kappa_pipeline::run::partition_settings;
use xxhash_rust::xxh3::xxh3_64;

use super::{MIB, MINIMAL};
use crate::fuzzer::Target;
use crate::input::{Input, push_block};

/// Records as the log delivers them, into a partition's state and out again: rows, rejects, windows, snapshots, a replay.
#[derive(Debug)]
pub struct Records {
    settings: Arc<PartitionSettings>,
    readable: WriterSchema,
}

/// The only schema that is known.
const KNOWN: SchemaReference = SchemaReference::Id(1);
const NOW_MS: i64 = 1_790_000_000_000;

impl Records {
    /// With the built-in schema.
    pub fn new() -> Self {
        let settings = Arc::new(settings());
        let decoder = Decoder::compile(settings.reader.json(), &[], &settings.reader, &settings.decode_limits);
        let readable = WriterSchema::Readable { decoder: Arc::new(decoder.expect("the built-in schema")), id: Some(1) };
        Self { settings, readable }
    }

    fn empty(&self) -> PartitionState {
        let mut state = PartitionState::empty(Arc::clone(&self.settings), 3, 100, Some("topic-id".to_owned()));
        state.learn(KNOWN, self.readable.clone());
        state
    }

    /// Offsets and timestamps rise, as a broker takes care.
    fn batch(input: &[u8]) -> LogBatch {
        let mut input = Input::new(input);
        let mut batch = LogBatch::with_capacity(0, 0);
        let (mut offset, mut timestamp) = (100, NOW_MS);
        while !input.is_empty() && batch.len() < 300 {
            let kind = input.byte();
            offset += 1 + i64::from(kind >> 6);
            timestamp += if kind & 32 == 0 { input.short() as i64 } else { input.long() % 10_000_000 };
            let key = (kind & 1 == 0).then(|| input.take(4));
            let header = (kind & 2 != 0).then(|| ("__value_schema_id", Some(input.take(5))));
            let value = input.block();
            let framed = [&[0, 0, 0, 0, 1][..], value].concat();
            let value = match kind >> 2 & 3 {
                0 | 1 => Some(framed.as_slice()),
                2 => Some(value),
                _ => None,
            };
            batch.push(offset, timestamp, key, value, header);
        }
        batch
    }

    /// Takes all in; the schemas that are asked for are unknown or of no use.
    fn take_in(&self, state: &mut PartitionState, batch: &LogBatch) -> String {
        let (mut index, mut answer) = (0, String::new());
        loop {
            match state.process(batch, index) {
                Progress::Consumed => return answer,
                Progress::RowsWait { index: next } => {
                    _ = state.take_rows().expect("rows are valid");
                    _ = state.take_rejects();
                    index = next;
                }
                Progress::SegmentEnds { index: next } => {
                    answer.push_str(&self.cut(state));
                    index = next;
                }
                Progress::NeedsSchema { index: next, reference } => {
                    index = next;
                    match reference {
                        KNOWN => state.learn(KNOWN, self.readable.clone()),
                        SchemaReference::Id(id) if id % 2 == 0 => {
                            let reject = Reject::new(Reason::SchemaNotAvro, "registered as JSON");
                            state.learn(reference, WriterSchema::Refused(reject));
                        }
                        _ => state.learn_unknown(reference),
                    }
                }
                Progress::Contradiction { reject, .. } => return format!("{answer} contradiction: {reject}"),
            }
        }
    }

    fn cut(&self, state: &mut PartitionState) -> String {
        let rows = state.segment_rows();
        let mut taken = 0;
        if let Some(rows) = state.take_rows().expect("rows are valid") {
            for column in rows.columns() {
                column.to_data().validate_full().expect("rows are valid Arrow");
            }
            taken = rows.num_rows() as u64;
        }
        assert!(taken <= rows);
        let Some(cut) = state.cut() else { return String::new() };
        assert_eq!(cut.rows, rows);
        let (restored, header) =
            PartitionState::restore(Arc::clone(&self.settings), &cut.snapshot).expect("our own snapshot");
        assert_eq!(header.position, cut.end);
        assert_eq!(restored.snapshot(), cut.snapshot, "a snapshot comes back as it was");
        let reasons: Vec<_> =
            (cut.start..cut.end).filter_map(|offset| Some(cut.rejected_offsets.reason_of(offset)?.name())).collect();
        format!("{reasons:?} {} windows {} anomalies;", cut.window_rows.len().min(3), cut.anomalies.len().min(2))
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for Records {
    fn name(&self) -> &'static str {
        "records"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let schema = Schema::parse_str(self.settings.reader.json()).expect("the built-in schema");
        let encoder = GenericDatumWriter::builder(&schema).build().expect("a writer");
        let body = |number: i64| encoder.write_value_to_vec(event(number)).expect("an event");
        let one = |number: i64| {
            let mut input = vec![0, 100, 0, 1, 2, 3, 4];
            push_block(&mut input, &body(number));
            input
        };
        // One event, a stream of them, and each other kind of record.
        let stream = (0..60).flat_map(one).collect();
        let others = (0..16).map(|kind| {
            let mut input = one(1);
            input[0] = kind * 4 + 1;
            input
        });
        [one(0), stream].into_iter().chain(others).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        let batch = Self::batch(input);
        let mut state = self.empty();
        let mut answer = self.take_in(&mut state, &batch);
        let (windows, anomalies) = state.take_hot_rows(true);
        assert!(windows.len() <= batch.len() && anomalies.len() <= batch.len());
        answer.push_str(&self.cut(&mut state));
        // Whoever adopts the first segment comes to the same.
        let mut first = self.empty();
        _ = self.take_in(&mut first, &batch);
        if let Some(cut) = first.cut() {
            let mut again = self.empty();
            if cut.start == 100 {
                again.begin_replay(Replay { end: cut.end, rejected: cut.rejected_offsets.clone() });
                _ = self.take_in(&mut again, &batch);
                let replayed = again.cut().expect("the same records");
                assert_eq!(
                    (replayed.rows, &replayed.digest, &replayed.rejected_offsets),
                    (cut.rows, &cut.digest, &cut.rejected_offsets)
                );
                assert_eq!(replayed.snapshot, cut.snapshot, "a replay comes to the same state");
            }
        }
        answer
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        64 * MIB + 1_000 * input.len()
    }
}

/// The content of a snapshot; the checksum is made to fit, so that what lies behind it is reached.
#[derive(Debug)]
pub struct Snapshot {
    records: Records,
}

impl Snapshot {
    /// Of a small state.
    pub fn new() -> Self {
        Self { records: Records::new() }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for Snapshot {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let snapshot = |input: Vec<u8>| {
            let mut state = self.records.empty();
            _ = self.records.take_in(&mut state, &Records::batch(&input));
            _ = state.take_rows();
            let mut bytes = state.cut().map_or_else(|| state.snapshot(), |cut| cut.snapshot);
            bytes.truncate(bytes.len() - size_of::<u64>());
            bytes
        };
        self.records.seeds().into_iter().map(snapshot).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        // As it came: almost always damaged.
        let as_it_is = PartitionState::restore(Arc::clone(&self.records.settings), input).map(|_| ());
        _ = kappa_pipeline::checkpoint::decompress(input);
        let closed = [input, &xxh3_64(input).to_le_bytes()].concat();
        let (mut state, header) = match PartitionState::restore(Arc::clone(&self.records.settings), &closed) {
            Ok(restored) => restored,
            Err(error) => return format!("{error} {}", as_it_is.is_ok()),
        };
        let again = state.snapshot();
        let (restored, second) =
            PartitionState::restore(Arc::clone(&self.records.settings), &again).expect("our own snapshot");
        assert_eq!(
            (restored.snapshot(), second.position),
            (again, header.position),
            "what was read is written the same"
        );
        // A state that could be read can be gone on with.
        state.learn(KNOWN, self.records.readable.clone());
        let seeds = self.records.seeds();
        let batch = Records::batch(&seeds[1]);
        if header.position < i64::MAX / 2 {
            _ = self.records.take_in(&mut state, &batch);
            _ = state.take_hot_rows(true);
            _ = state.take_rows();
            _ = state.cut();
        }
        "restored".to_owned()
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        64 * MIB + 1_000 * input.len()
    }
}

fn settings() -> PartitionSettings {
    let config = Config::from_toml(MINIMAL).expect("a configuration");
    let settings = partition_settings(&config).expect("settings");
    // The same whenever it runs.
    PartitionSettings { hash_seed: 1, rows_per_batch: 16, ..settings }
}

fn event(number: i64) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let fields = [
        ("sensor_id", text(&format!("sensor-{}", number % 3))),
        ("metric", Value::Enum(0, "TEMPERATURE".to_owned())),
        ("event_time", Value::TimestampMillis(NOW_MS + number * 2_000)),
        ("value", Value::Double(20.0 + number as f64)),
        ("unit", text("Cel")),
        ("quality", Value::Enum(0, "GOOD".to_owned())),
        ("sequence", Value::Long(number)),
        ("battery", Value::Union(0, Box::new(Value::Null))),
        ("rssi", Value::Union(1, Box::new(Value::Double(-70.0)))),
        ("site", Value::Union(1, Box::new(text("north")))),
        ("attributes", Value::Map([("a".to_owned(), text("b"))].into())),
    ];
    Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
}
