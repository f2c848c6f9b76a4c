//! A partition: its settings, of which a test changes what it is about, its state, and payloads for it.

use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use kappa_core::anomaly::ConfiguredDetector;
use kappa_core::archive::archive_schema;
use kappa_core::contract::rules::ContractRules;
use kappa_core::contract::{EventFields, TimeLimits};
use kappa_core::decode::{DecodeLimits, Decoder, ReaderSchema, SchemaReference};
use kappa_core::partition::{AwaitedAnswers, PartitionSettings, PartitionState, WriterSchema};
use kappa_core::windows::WindowSettings;

/// Fields `event_time` and `value`, minutes, no detector.
pub(crate) fn settings(schema: &str, key: &[&str]) -> PartitionSettings {
    let reader = ReaderSchema::parse(schema).unwrap();
    let key: Vec<String> = key.iter().map(|&field| field.to_owned()).collect();
    PartitionSettings {
        topic: "t".to_owned(),
        archive_schema: archive_schema(&reader),
        event: EventFields::bind(&reader, &key, "event_time", "value", None).unwrap(),
        reader,
        time_limits: TimeLimits { max_event_age_ms: 86_400_000, max_future_skew_ms: 60_000 },
        contract: ContractRules::default(),
        decode_limits: DecodeLimits::default(),
        windows: WindowSettings { length_ms: 60_000, allowed_lateness_ms: 30_000, forget_after_ms: 86_400_000 },
        detector: ConfiguredDetector::Off,
        rows_per_batch: 8_192,
        bytes_per_batch: 4 << 20,
        hash_seed: 1,
        awaited: AwaitedAnswers::BOTH,
    }
}

/// A writer that has `schema`, number 1 of the registry.
pub(crate) fn known_writer(schema: &str, settings: &PartitionSettings) -> WriterSchema {
    let decoder = Decoder::compile(schema, &[], &settings.reader, &settings.decode_limits).unwrap();
    WriterSchema::Readable { decoder: Arc::new(decoder), id: Some(1) }
}

/// Partition 0 from `position` on, without a past; it knows the writer that has `schema`.
pub(crate) fn new_state(schema: &str, settings: Arc<PartitionSettings>, position: i64) -> PartitionState {
    let writer = known_writer(schema, &settings);
    let mut state = PartitionState::empty(settings, 0, position, None);
    state.learn(SchemaReference::Id(1), writer);
    state
}

/// As it lies in the log: the frame with number 1 of the registry, and the record.
pub(crate) fn payload<const N: usize>(writer: &GenericDatumWriter<'_>, fields: [(&str, Value); N]) -> Vec<u8> {
    let record = Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).into());
    let mut payload = vec![0, 0, 0, 0, 1];
    payload.extend(writer.write_value_to_vec(record).unwrap());
    payload
}
