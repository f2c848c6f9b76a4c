//! `cargo bench --bench stages [-- filter]`: what each stage costs an event. The table of `docs/performance.md`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a measurement: it may panic, and criterion's macros document nothing"
)]

use std::hint::black_box;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kappa_core::anomaly::{AnomalyDetector, ConfiguredDetector, Robust};
use kappa_core::archive::archive_schema;
use kappa_core::contract::judge::RuleJudge;
use kappa_core::contract::rules::ContractRules;
use kappa_core::contract::{EventFields, TimeLimits};
use kappa_core::decode::{DecodeLimits, Decoder, ReaderSchema, SchemaReference, unframe};
use kappa_core::partition::{
    AwaitedAnswers, PartitionSettings, PartitionState, Progress, RejectedOffsets, WriterSchema,
};
use kappa_core::record::LogBatch;
use kappa_core::rows::WindowRow;
use kappa_core::windows::{SeriesTable, WindowSettings, Windows};
use kappa_micro::{SENSOR_READING, START_MS, Shape};
use kappa_pipeline::archive::{EncoderLane, SegmentEncoder, SegmentFile, SegmentFooter, SegmentFormat};
use kappa_pipeline::contract::{BUILT_IN_CONTRACT, read, rules_for};
use kappa_pipeline::hot_store::row_binary;
use kappa_pipeline::memory::MemoryBudget;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of a measurement, and of a batch of the log.
const RECORDS: usize = 100_000;
const PER_BATCH: usize = 2_000;

fn settings() -> Arc<PartitionSettings> {
    let reader = ReaderSchema::parse(SENSOR_READING).unwrap();
    let key = ["sensor_id".to_owned(), "metric".to_owned()];
    Arc::new(PartitionSettings {
        topic: "bench".to_owned(),
        archive_schema: archive_schema(&reader),
        event: EventFields::bind(&reader, &key, "event_time", "value", Some(("quality", "BAD"))).unwrap(),
        reader,
        time_limits: TimeLimits { max_event_age_ms: 86_400_000, max_future_skew_ms: 60_000 },
        contract: ContractRules::default(),
        decode_limits: DecodeLimits::default(),
        windows: window_settings(),
        detector: detector(),
        rows_per_batch: 8_192,
        bytes_per_batch: 4 << 20,
        hash_seed: 1,
        awaited: AwaitedAnswers::BOTH,
    })
}

fn window_settings() -> WindowSettings {
    WindowSettings { length_ms: 60_000, allowed_lateness_ms: 30_000, forget_after_ms: 86_400_000 }
}

fn detector() -> ConfiguredDetector {
    ConfiguredDetector::Robust(Robust::new(60, 60, 12.0, 60))
}

fn state_with(settings: &Arc<PartitionSettings>, writer: &str) -> PartitionState {
    let decoder = Decoder::compile(writer, &[], &settings.reader, &settings.decode_limits).unwrap();
    let mut state = PartitionState::empty(Arc::clone(settings), 0, 0, None);
    state.learn(SchemaReference::Id(1), WriterSchema::Readable { decoder: Arc::new(decoder), id: Some(1) });
    state
}

/// Takes all batches in, and throws the archive rows away.
fn process_all(state: &mut PartitionState, batches: &[LogBatch]) {
    for batch in batches {
        let mut index = 0;
        while let Progress::RowsWait { index: next } = state.process(batch, index) {
            black_box(state.take_rows().unwrap());
            index = next;
        }
    }
}

fn framing(criterion: &mut Criterion) {
    let batches = Shape::default_contract().batches(RECORDS, 8_000, PER_BATCH);
    let mut group = criterion.benchmark_group("framing");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("unframe", |bencher| {
        bencher.iter(|| {
            for record in batches.iter().flat_map(LogBatch::iter) {
                black_box(unframe(record.value, record.headers).unwrap());
            }
        });
    });
    group.finish();
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, shape, reader) in [
        ("flat", Shape::default_contract(), None),
        ("evolved", Shape::evolved(), None),
        ("wide", Shape::wide(), Some(Shape::wide().avsc)),
    ] {
        let reader_avsc = reader.as_deref().unwrap_or(SENSOR_READING);
        let payloads = shape.payloads(RECORDS, 8_000);
        let bytes: usize = payloads.iter().map(|(_, payload)| payload.len()).sum();
        println!("decode/{name}: {} bytes a record", bytes / RECORDS);
        group.throughput(Throughput::Elements(RECORDS as u64));
        let reader = ReaderSchema::parse(reader_avsc).unwrap();
        let limits = DecodeLimits::default();
        let decoder = Decoder::compile(&shape.avsc, &[], &reader, &limits).unwrap();
        let mut columns = reader.new_columns(&limits);
        group.bench_function(format!("{name}/kappa"), |bencher| {
            bencher.iter(|| {
                for (number, (_, payload)) in payloads.iter().enumerate() {
                    decoder.decode(&payload[5..], &mut columns).unwrap();
                    if number % 8_192 == 8_191 {
                        black_box(columns.take());
                    }
                }
                black_box(columns.take());
            });
        });
        let (writer, reader) = (Schema::parse_str(&shape.avsc).unwrap(), Schema::parse_str(reader_avsc).unwrap());
        let datum = GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
        group.sample_size(10);
        group.bench_function(format!("{name}/apache-avro"), |bencher| {
            bencher.iter(|| {
                for (_, payload) in &payloads {
                    black_box(datum.read_value(&mut &payload[5..]).unwrap());
                }
            });
        });
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        store.set(Fingerprint::Id(1), AvroSchema::new(shape.avsc.clone())).unwrap();
        group.bench_function(format!("{name}/arrow-avro"), |bencher| {
            let builder = ReaderBuilder::new().with_batch_size(8_192).with_writer_schema_store(store.clone());
            let builder = builder.with_reader_schema(AvroSchema::new(reader_avsc.to_owned()));
            let mut decoder = builder.build_decoder().unwrap();
            bencher.iter(|| {
                for (_, payload) in &payloads {
                    decoder.decode(payload).unwrap();
                    if decoder.batch_is_full() {
                        black_box(decoder.flush().unwrap());
                    }
                }
                black_box(decoder.flush().unwrap());
            });
        });
        group.sample_size(100);
    }
    group.finish();
}

fn windows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("windows");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for sensors in [8_000, 100_000] {
        let payloads = Shape::default_contract().payloads(RECORDS, sensors);
        let mut table = SeriesTable::new(1);
        group.bench_function(format!("intern by text/{sensors} series"), |bencher| {
            bencher.iter(|| {
                for (sensor, _) in &payloads {
                    black_box(table.intern(&[sensor, "TEMPERATURE"]));
                }
            });
        });
        let mut windows = Windows::new(window_settings(), detector(), 1);
        let series: Vec<_> = payloads.iter().map(|(sensor, _)| windows.series_id(&[sensor, "TEMPERATURE"])).collect();
        let (mut now_ms, mut rows) = (START_MS, Vec::new());
        group.bench_function(format!("add with anomaly detection/{sensors} series"), |bencher| {
            bencher.iter(|| {
                for (number, id) in series.iter().enumerate() {
                    windows.add(*id, now_ms + number as i64 % 7, 20.0 + (number % 13) as f64, false, number as i64);
                }
                now_ms += 1_000;
                rows.clear();
                windows.take_closed(1, &mut rows);
            });
        });
    }
    let detector = detector();
    let mut memory = <ConfiguredDetector as AnomalyDetector>::Memory::default();
    group.bench_function("detector alone", |bencher| {
        bencher.iter(|| {
            for number in 0..RECORDS {
                let time_ms = START_MS + number as i64 * 1_000;
                black_box(detector.observe(&mut memory, time_ms, 20.0 + (number % 13) as f64));
            }
        });
    });
    group.finish();
}

fn partition(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partition");
    group.throughput(Throughput::Elements(RECORDS as u64 / 2)).sample_size(20);
    let settings = settings();
    for (name, shape, sensors) in [
        ("8,000 sensors", Shape::default_contract(), 8_000),
        ("100,000 sensors", Shape::default_contract(), 100_000),
        ("evolved writer, 8,000 sensors", Shape::evolved(), 8_000),
    ] {
        let batches = shape.batches(RECORDS, sensors, PER_BATCH);
        group.bench_function(format!("decode, windows, anomalies/{name}"), |bencher| {
            // The first half makes the series known, as they are in the steady state.
            let (known, measured) = batches.split_at(batches.len() / 2);
            let warm = || {
                let mut state = state_with(&settings, &shape.avsc);
                process_all(&mut state, known);
                state
            };
            bencher.iter_batched_ref(warm, |state| process_all(state, measured), BatchSize::PerIteration);
        });
    }
    let judging = Arc::new(PartitionSettings { contract: built_in_rules(&settings.reader), ..(*settings).clone() });
    for sensors in [8_000, 100_000] {
        let batches = Shape::default_contract().batches(RECORDS, sensors, PER_BATCH);
        let (known, measured) = batches.split_at(batches.len() / 2);
        for (name, settings) in [("no contract", &settings), ("the built-in contract", &judging)] {
            group.bench_function(format!("{name}/{sensors} sensors"), |bencher| {
                let warm = || {
                    let mut state = state_with(settings, SENSOR_READING);
                    process_all(&mut state, known);
                    state
                };
                bencher.iter_batched_ref(warm, |state| process_all(state, measured), BatchSize::PerIteration);
            });
        }
    }
    let batches = Shape::default_contract().batches(RECORDS, 8_000, PER_BATCH);
    let mut state = state_with(&settings, SENSOR_READING);
    process_all(&mut state, &batches);
    state.take_rows().unwrap();
    let snapshot = state.cut().unwrap().snapshot;
    println!("snapshot: {} bytes for {} series", snapshot.len(), state.windows().series_count());
    group.throughput(Throughput::Elements(state.windows().series_count() as u64));
    group.bench_function("snapshot write, a series", |bencher| bencher.iter(|| black_box(state.snapshot())));
    group.bench_function("snapshot restore, a series", |bencher| {
        bencher.iter(|| black_box(PartitionState::restore(Arc::clone(&settings), &snapshot).unwrap()));
    });
    group.finish();
}

fn built_in_rules(reader: &ReaderSchema) -> ContractRules {
    rules_for(&read(BUILT_IN_CONTRACT).0, reader).unwrap()
}

/// The rules alone, on rows that are decoded already: all are good.
fn contract(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contract");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let (reader, limits) = (ReaderSchema::parse(SENSOR_READING).unwrap(), DecodeLimits::default());
    let decoder = Decoder::compile(SENSOR_READING, &[], &reader, &limits).unwrap();
    for sensors in [8_000, 100_000] {
        let mut columns = reader.new_columns(&limits);
        for (_, payload) in Shape::default_contract().payloads(RECORDS, sensors) {
            decoder.decode(&payload[5..], &mut columns).unwrap();
        }
        let mut judge = RuleJudge::new(built_in_rules(&reader));
        group.bench_function(format!("the built-in rules/{sensors} sensors"), |bencher| {
            bencher.iter(|| {
                for row in 0..columns.rows() {
                    judge.judge(&columns, row).unwrap();
                }
                judge.count_warnings(&columns, 0..columns.rows());
            });
        });
        assert!(judge.take_warnings().is_empty(), "what is measured is the good path");
    }
    group.finish();
}

fn archive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("archive");
    let settings = settings();
    let mut state = state_with(&settings, SENSOR_READING);
    let mut batches = Vec::new();
    for batch in &Shape::default_contract().batches(RECORDS, 8_000, PER_BATCH) {
        let mut index = 0;
        while let Progress::RowsWait { index: next } = state.process(batch, index) {
            batches.extend(state.take_rows().unwrap());
            index = next;
        }
    }
    batches.extend(state.take_rows().unwrap());
    let format = SegmentFormat::new(Arc::clone(&settings.archive_schema), &["sensor_id".to_owned()]);
    let budget = MemoryBudget::new(1 << 30);
    let footer = SegmentFooter {
        topic: "bench".to_owned(),
        partition: 0,
        start: 0,
        end: RECORDS as i64,
        rows: RECORDS as u64,
        sequence: None,
        duplicates: Some(0),
        rejected: RejectedOffsets::default(),
        digest: String::new(),
        reader_schema: String::new(),
        contract: None,
    };
    let encode = || {
        let mut encoder = SegmentEncoder::new(SegmentFile::new(format.clone()), EncoderLane::Inline, &budget);
        futures::executor::block_on(async {
            for batch in &batches {
                encoder.write(batch.clone()).await;
            }
            encoder.finish(footer.key_values()).await.unwrap().0
        })
    };
    println!("archive: {:.1} bytes a row", encode().len() as f64 / RECORDS as f64);
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("Parquet", |bencher| bencher.iter(|| black_box(encode())));
    let rows: Vec<WindowRow> = state.cut().unwrap().window_rows;
    group.throughput(Throughput::Elements(rows.len() as u64));
    group.bench_function("RowBinary, a window row", |bencher| {
        let mut body = Vec::new();
        bencher.iter(|| {
            body.clear();
            for row in &rows {
                row_binary::push_window(&mut body, row, "bench", 0);
            }
            black_box(&body);
        });
    });
    group.finish();
}

criterion_group!(stages, framing, decoding, windows, contract, partition, archive);
criterion_main!(stages);
