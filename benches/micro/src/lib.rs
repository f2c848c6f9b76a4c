//! Records to measure with: schemas of several shapes, values as sensors send them, encoded by `apache-avro`, so that a
//! decoder is never measured on what an encoder of its own has made easy for it.

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use kappa_core::record::LogBatch;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Time of the first record: 2026-01-01T00:00:00Z.
pub const START_MS: i64 = 1_767_225_600_000;

/// The default contract.
pub const SENSOR_READING: &str = include_str!("../../../schemas/sensor-reading.avsc");

/// A writer's schema and its records.
#[derive(Debug)]
pub struct Shape {
    /// The schema as JSON.
    pub avsc: String,
    /// Makes one record's fields of a sensor and a number.
    value: fn(&mut ChaCha8Rng, usize, i64) -> Vec<(String, Value)>,
}

impl Shape {
    /// [`SENSOR_READING`].
    pub fn default_contract() -> Self {
        Self { avsc: SENSOR_READING.to_owned(), value: reading }
    }

    /// The default contract as a later writer has it: two more fields, which go to `_extra`.
    pub fn evolved() -> Self {
        Self { avsc: include_str!("../../schemas/evolved.avsc").to_owned(), value: evolved_reading }
    }

    /// Forty fields, some of them nested.
    pub fn wide() -> Self {
        Self { avsc: include_str!("../../schemas/wide.avsc").to_owned(), value: wide_reading }
    }

    /// Framed payloads of `records` readings, sensors in no order.
    ///
    /// # Panics
    /// If the values do not fit the schema.
    pub fn payloads(&self, records: usize, sensors: usize) -> Vec<(String, Vec<u8>)> {
        let schema = Schema::parse_str(&self.avsc).expect("the schema is valid");
        let writer = GenericDatumWriter::builder(&schema).build().expect("the schema can be written");
        let mut random = ChaCha8Rng::seed_from_u64(1);
        (0..records)
            .map(|number| {
                let sensor = random.random_range(0..sensors);
                let mut payload = vec![0, 0, 0, 0, 1];
                let record = Value::Record((self.value)(&mut random, sensor, number as i64));
                payload.extend(writer.write_value_to_vec(record).expect("the value fits"));
                (sensor_id(sensor), payload)
            })
            .collect()
    }

    /// The same as the log delivers them, in batches, a millisecond apart, from `START_MS` on.
    pub fn batches(&self, records: usize, sensors: usize, per_batch: usize) -> Vec<LogBatch> {
        let payloads = self.payloads(records, sensors);
        let mut offset = 0;
        let batch = |records: &[(String, Vec<u8>)]| {
            let bytes = records.iter().map(|(key, payload)| key.len() + payload.len()).sum();
            let mut batch = LogBatch::with_capacity(records.len(), bytes);
            for (key, payload) in records {
                batch.push(offset, START_MS + offset, Some(key.as_bytes()), Some(payload), []);
                offset += 1;
            }
            batch
        };
        payloads.chunks(per_batch).map(batch).collect()
    }
}

fn sensor_id(sensor: usize) -> String {
    format!("sensor-{sensor:06}")
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn nullable(value: Option<Value>) -> Value {
    match value {
        Some(value) => Value::Union(1, Box::new(value)),
        None => Value::Union(0, Box::new(Value::Null)),
    }
}

fn reading(random: &mut ChaCha8Rng, sensor: usize, number: i64) -> Vec<(String, Value)> {
    let sites = ["site-north", "site-south", "site-east", "site-west"];
    let metrics = ["TEMPERATURE", "HUMIDITY", "PRESSURE", "VIBRATION", "VOLTAGE"];
    let metric = sensor % metrics.len();
    let value = f64::from(random.random_range(2_000..2_600)) / 10.0;
    let fields = [
        ("sensor_id", text(&sensor_id(sensor))),
        ("metric", Value::Enum(metric as u32, metrics[metric].to_owned())),
        ("event_time", Value::TimestampMillis(START_MS + number)),
        ("value", Value::Double(value)),
        ("unit", text("Cel")),
        ("quality", Value::Enum(0, "GOOD".to_owned())),
        ("sequence", Value::Long(number)),
        ("battery", nullable((!sensor.is_multiple_of(3)).then_some(Value::Double(0.87)))),
        ("rssi", nullable(sensor.is_multiple_of(2).then_some(Value::Double(-67.0)))),
        ("site", nullable(Some(text(sites[sensor % sites.len()])))),
        ("attributes", Value::Map(std::collections::HashMap::new())),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn evolved_reading(random: &mut ChaCha8Rng, sensor: usize, number: i64) -> Vec<(String, Value)> {
    let mut fields = reading(random, sensor, number);
    fields.push(("firmware".to_owned(), text("2.4.1")));
    fields.push(("calibrated".to_owned(), nullable(sensor.is_multiple_of(2).then_some(Value::Long(number)))));
    fields
}

fn wide_reading(random: &mut ChaCha8Rng, sensor: usize, number: i64) -> Vec<(String, Value)> {
    let mut fields = reading(random, sensor, number);
    for index in 0..18 {
        fields.push((format!("d{index}"), Value::Double(f64::from(random.random_range(0..100_000)) / 100.0)));
    }
    for index in 0..6 {
        fields.push((format!("n{index}"), nullable((number % 4 > 0).then_some(Value::Long(number + index)))));
    }
    for index in 0..3 {
        fields.push((format!("t{index}"), text(["idle", "running", "stopped", "fault"][sensor % 4])));
    }
    let degree = |value: f64| Value::Double(value + sensor as f64 * 1e-5);
    let position = vec![("latitude".to_owned(), degree(47.0)), ("longitude".to_owned(), degree(8.0))];
    fields.push(("position".to_owned(), Value::Record(position)));
    let spectrum = (0..8).map(|band| Value::Float(band as f32 * 0.5)).collect();
    fields.push(("spectrum".to_owned(), Value::Array(spectrum)));
    fields
}
