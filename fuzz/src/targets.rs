//! What is fuzzed.

use std::fmt::Write as _;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow_array::{Array as _, Int32Array, RecordBatch};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use futures::executor::block_on;
use kappa_core::decode::{DecodeLimits, Decoder, ReaderSchema, SchemaReference};
use kappa_core::partition::{PartitionSettings, PartitionState, Progress, RejectedOffsets, Replay, WriterSchema};
use kappa_core::record::LogBatch;
use kappa_core::reject::{Reason, Reject};
use kappa_pipeline::archive::{SegmentFooter, read_footer};
use kappa_pipeline::config::{BUILT_IN_SCHEMA, Config, Needs, Sources};
use kappa_pipeline::contract::{BUILT_IN_CONTRACT, check, page};
use kappa_pipeline::run::partition_settings;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use support::{Tape, evolve, random_record, random_value};
use xxhash_rust::xxh3::xxh3_64;

use crate::fuzzer::Target;
use crate::input::{Input, push_block};

#[path = "../../services/core/tests/support/decode.rs"]
mod support;

const MIB: usize = 1 << 20;
/// Small, so that an input can reach them.
const LIMITS: DecodeLimits = DecodeLimits { max_depth: 16, max_record_bytes: 64 << 10, max_schema_bytes: 64 << 10 };

/// Bodies of random writers' schemas, read as random readers' schemas that follow from them.
#[derive(Debug)]
pub struct Payload;

impl Payload {
    fn tape(input: &mut Input<'_>) -> Tape {
        let choices = input.block();
        Tape::new(choices.chunks(2).map(|two| u32::from(two[0]) | u32::from(*two.get(1).unwrap_or(&0)) << 8).collect())
    }
}

impl Target for Payload {
    fn name(&self) -> &'static str {
        "payload"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        // What the first bytes choose is written down by the reference.
        let seed = |number: u64| {
            let choices: Vec<u8> =
                (0..40_u64).map(|at| xxh3_64(&[number.to_le_bytes(), at.to_le_bytes()].concat()) as u8).collect();
            let mut input = Vec::new();
            push_block(&mut input, &choices);
            let mut tape = Self::tape(&mut Input::new(&input));
            let writer = random_record(&mut tape, 0);
            _ = evolve(&mut tape, &writer, false);
            let schema = Schema::parse(&writer.json()).ok()?;
            let encoder = GenericDatumWriter::builder(&schema).build().ok()?;
            for _ in 0..3 {
                push_block(&mut input, &encoder.write_value_to_vec(random_value(&mut tape, &writer)).ok()?);
            }
            Some(input)
        };
        (0..150).filter_map(seed).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        let mut input = Input::new(input);
        let mut tape = Self::tape(&mut input);
        let writer = random_record(&mut tape, 0);
        let evolved = evolve(&mut tape, &writer, false);
        let reader = match evolved.reader {
            support::Type::Union(mut branches) => branches.remove(1),
            other => other,
        };
        let reader = match ReaderSchema::parse(&reader.json().to_string()) {
            Ok(reader) => reader,
            Err(error) => return format!("reader: {error}"),
        };
        let decoder = match Decoder::compile(&writer.json().to_string(), &[], &reader, &LIMITS) {
            Ok(decoder) => decoder,
            Err(error) => return format!("writer: {error}"),
        };
        let mut columns = reader.new_columns(&LIMITS);
        let mut answer = String::new();
        let mut rows = 0;
        while !input.is_empty() && rows < 64 {
            let body = input.block();
            match decoder.decode(body, &mut columns) {
                Ok(()) => rows += 1,
                Err(reject) => _ = write!(answer, "{reject};"),
            }
            assert_eq!(columns.rows(), rows, "a record is one row or none");
        }
        let (arrays, extra) = columns.take();
        for array in arrays.iter().chain([&extra]) {
            assert_eq!(array.len(), rows, "all columns are of one length");
            array.to_data().validate_full().expect("what was decoded is valid Arrow");
        }
        answer
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 64 * input.len()
    }
}

/// Texts in place of schemas: the writer's from the registry, and the reader's.
#[derive(Debug)]
pub struct SchemaText {
    reader: ReaderSchema,
}

impl SchemaText {
    /// Against the built-in reader schema.
    pub fn new() -> Self {
        Self { reader: ReaderSchema::parse(&text_of("schemas/sensor-reading.avsc")).expect("the built-in schema") }
    }
}

impl Default for SchemaText {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for SchemaText {
    fn name(&self) -> &'static str {
        "schema"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let random = |number: u32| {
            let mut tape = Tape::new(
                (0..60).map(|at| xxh3_64(&[number.to_le_bytes(), u32::to_le_bytes(at)].concat()) as u32).collect(),
            );
            random_record(&mut tape, 0).json().to_string().into_bytes()
        };
        let own = text_of("schemas/sensor-reading.avsc").into_bytes();
        std::iter::once(own).chain((0..40).map(random)).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        let text = String::from_utf8_lossy(input);
        let written = Decoder::compile(&text, &[], &self.reader, &LIMITS);
        let compiled = match &written {
            Ok(decoder) => {
                let mut columns = self.reader.new_columns(&LIMITS);
                decoder
                    .decode(&input[..input.len().min(64)], &mut columns)
                    .map_or_else(|reject| reject.to_string(), |()| "a row".to_owned())
            }
            Err(error) => error.to_string(),
        };
        let read = match ReaderSchema::parse(&text) {
            // What may be written may be read by itself.
            Ok(reader) => Decoder::compile(reader.json(), &[], &reader, &LIMITS)
                .map_or_else(|error| error.to_string(), |_| "read".to_owned()),
            Err(error) => error.to_string(),
        };
        format!("{compiled} | {read}")
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 2_000 * input.len()
    }
}

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

/// An object where a segment should be.
#[derive(Debug)]
pub struct Footer {
    store: Arc<dyn ObjectStore>,
}

impl Footer {
    /// In memory.
    pub fn new() -> Self {
        Self { store: Arc::new(InMemory::new()) }
    }
}

impl Default for Footer {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for Footer {
    fn name(&self) -> &'static str {
        "footer"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut rejected = RejectedOffsets::default();
        rejected.push(7, &Reason::BadMagic);
        let footer = SegmentFooter {
            topic: "readings".to_owned(),
            partition: 3,
            start: 5,
            end: 12,
            rows: 6,
            sequence: None,
            duplicates: Some(0),
            rejected,
            digest: "00112233445566778899aabbccddeeff".to_owned(),
            reader_schema: "{}".to_owned(),
            contract: None,
        };
        let properties = WriterProperties::builder().set_key_value_metadata(Some(footer.key_values())).build();
        let schema = Arc::new(arrow_schema::Schema::new(vec![Field::new("a", DataType::Int32, false)]));
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, Arc::clone(&schema), Some(properties)).expect("a writer");
        let column = Arc::new(Int32Array::from(vec![1, 2, 3]));
        writer.write(&RecordBatch::try_new(schema, vec![column]).expect("a batch")).expect("a row group");
        writer.close().expect("a file");
        vec![file, b"PAR1PAR1PAR1".to_vec(), vec![0; 12]]
    }

    #[allow(clippy::disallowed_methods, reason = "one object in memory after the other, under one key")]
    fn run(&self, input: &[u8]) -> String {
        let key = Path::from("segment");
        let read = async {
            self.store.put(&key, Bytes::copy_from_slice(input).into()).await?;
            read_footer(&self.store, &key).await
        };
        match block_on(read) {
            Ok(footer) => format!("read, {} rejects", footer.rejected.count().min(2)),
            Err(error) => error.to_string(),
        }
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 1_000 * input.len()
    }
}

/// The list of rejects in a footer.
#[derive(Debug)]
pub struct RejectedInFooter;

impl Target for RejectedInFooter {
    fn name(&self) -> &'static str {
        "rejects"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        vec![
            br#"[[5,1,"bad_magic"],[9,3,"tombstone"]]"#.to_vec(),
            b"[]".to_vec(),
            br#"[[9223372036854775807,1,"too_deep"]]"#.to_vec(),
        ]
    }

    fn run(&self, input: &[u8]) -> String {
        let text = String::from_utf8_lossy(input);
        let Some(rejected) = RejectedOffsets::from_json(&text) else { return "none".to_owned() };
        let again = RejectedOffsets::from_json(&rejected.to_json());
        assert_eq!(again.as_ref(), Some(&rejected), "what was read is written the same");
        _ = (rejected.count(), rejected.reason_of(0), rejected.reason_of(i64::MAX), rejected.reason_of(i64::MIN));
        rejected.to_json()
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        MIB + 1_000 * input.len()
    }
}

/// A configuration file, and variables beside it.
#[derive(Debug)]
pub struct Configuration;

impl Target for Configuration {
    fn name(&self) -> &'static str {
        "configuration"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let seed = |toml: &str, variable: &str, value: &str| {
            let mut input = Vec::new();
            for part in [variable, value, toml] {
                push_block(&mut input, part.as_bytes());
            }
            input
        };
        let whole = "[event]\nkey = [\"sensor_id\", \"metric\"]\n[limits]\nmemory = \"1GiB\"\nmax_event_age = \"30d\"\n[pipeline]\nworkers = 2\n\
            [anomaly]\nthreshold = 6.5\n[log]\nformat = \"json\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
        vec![
            seed(MINIMAL, "KAPPA__KAFKA__TOPIC", "other"),
            seed(&format!("{MINIMAL}{whole}"), "KAPPA__LIMITS__MEMORY", "256MiB"),
            seed(MINIMAL, "KAPPA__WINDOWS__LENGTH", "1h 30m"),
            seed("[kafka.properties]\n\"a.b\" = 1\n", "KAPPA__KAFKA__START", "2026-01-01T00:00:00Z"),
        ]
    }

    fn run(&self, input: &[u8]) -> String {
        let mut input = Input::new(input);
        let (variable, value) =
            (String::from_utf8_lossy(input.block()).into_owned(), String::from_utf8_lossy(input.block()).into_owned());
        let toml = String::from_utf8_lossy(input.block()).into_owned();
        match Sources::of_text(toml).with_variable(variable, value).load(Needs::Everything) {
            Ok(_) => "a configuration".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 2_000 * input.len()
    }
}

/// A data contract, held against the built-in schema and the defaults.
#[derive(Debug)]
pub struct ContractText {
    reader: ReaderSchema,
    config: Config,
}

impl ContractText {
    /// With the built-in schema.
    pub fn new() -> Self {
        let config = Config::from_toml(MINIMAL).expect("a configuration");
        Self { reader: ReaderSchema::parse(BUILT_IN_SCHEMA).expect("the built-in schema"), config }
    }
}

impl Default for ContractText {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for ContractText {
    fn name(&self) -> &'static str {
        "contract"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let rule = |implementation: &str| {
            let head = "apiVersion: v3.1.0\nkind: DataContract\nid: c\nversion: 1.0.0\nstatus: draft\ndescription: {purpose: x}\n\
                team: {name: t, members: [{username: u}]}\nschema:\n- name: o\n  properties:\n  - name: value\n    description: d\n\
                \x20   classification: c\n    quality:\n    - {name: r, description: d, type: custom, engine: kappa, severity: error, ";
            format!("{head}implementation: {implementation}}}\n").into_bytes()
        };
        let mut seeds = vec![BUILT_IN_CONTRACT.as_bytes().to_vec(), b"a: &a [1, 2]\nb: *a\n".to_vec()];
        seeds.extend(
            ["{rule: range, min: 0}", "{rule: range, by: metric, values: {OTHER: {max: 1.5e3}}}", "{rule: required}"]
                .map(rule),
        );
        seeds.extend(
            ["{rule: length, max: 9}", "{rule: allowed, values: [a, b]}", "{rule: max_event_age, duration: 3d}"]
                .map(rule),
        );
        seeds
    }

    fn run(&self, input: &[u8]) -> String {
        let (contract, problems) = check(&String::from_utf8_lossy(input), &self.reader, &self.config);
        _ = page(&contract);
        problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 4_000 * input.len()
    }
}

const MINIMAL: &str = "[kafka]\nbrokers = [\"a:9092\"]\ntopic = \"readings\"\n[registry]\nurl = \"http://r:8081\"\n[archive]\nurl = \"s3://archive/a\"\n\
    [dead_letter]\nurl = \"s3://dead/a\"\n[state]\nurl = \"s3://state/a\"\n[hot_store]\nurl = \"http://c:8123\"\n";

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

fn text_of(path: &str) -> String {
    let file: PathBuf = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}
