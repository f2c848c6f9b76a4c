//! Records of `schemas/sensor-reading.avsc`, encoded once for each sensor and patched in place for each event.
//!
//! Written by hand and on its own: what the harness counts must not depend on the code that it judges. A test holds it
//! against `apache-avro`.

use std::ops::Range;

/// Room for one record; the longest that [`Template::new`] makes is far below.
const ROOM: usize = 192;

/// Confluent's framing: magic 0 and the schema id.
const FRAMING: usize = 5;

/// Bytes of a time between 2004 and 2039 in milliseconds, as Avro encodes it.
const TIME_BYTES: usize = 6;

/// Names of the metrics in the order of the schema.
pub const METRICS: [&str; 6] = ["TEMPERATURE", "HUMIDITY", "PRESSURE", "VIBRATION", "VOLTAGE", "OTHER"];

/// What does not change from event to event of a sensor.
#[derive(Debug, Clone)]
pub struct SensorTraits {
    /// Stable identity, and the record key.
    pub sensor_id: String,
    /// Index into [`METRICS`].
    pub metric: u8,
    /// UCUM.
    pub unit: &'static str,
    /// Charge, 0 to 1; mains-powered sensors have none.
    pub battery: Option<f64>,
    /// Signal strength in dBm; wired sensors have none.
    pub rssi: Option<f64>,
    /// Where the sensor stands, if anybody wrote it down.
    pub site: Option<String>,
    /// Firmware of the sensor, if it tells.
    pub firmware: Option<&'static str>,
}

/// An encoded record whose changing parts are overwritten.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: [u8; ROOM],
    length: u8,
    key_end: u8,
    metric: u8,
    value: u8,
    sequence: u8,
    sequence_bytes: u8,
}

/// What changes from event to event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// By the sensor's clock, milliseconds since the epoch.
    pub time_ms: i64,
    /// The measurement.
    pub value: f64,
    /// 0 good, 1 uncertain, 2 bad.
    pub quality: u8,
    /// Counts up by one for each reading of the sensor.
    pub sequence: u64,
}

/// The sensor cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the record of sensor `{0}` is longer than {ROOM} bytes")]
pub struct TooLong(String);

impl Template {
    /// Encodes a sensor.
    pub fn new(schema_id: u32, sensor: &SensorTraits) -> Result<Self, TooLong> {
        let mut out = Vec::with_capacity(ROOM);
        out.push(0);
        out.extend_from_slice(&schema_id.to_be_bytes());
        push_text(&mut out, &sensor.sensor_id);
        let key_end = out.len();
        push_long(&mut out, i64::from(sensor.metric));
        let metric = key_end;
        push_long(&mut out, 1_800_000_000_000);
        let value = out.len();
        out.extend_from_slice(&0.0_f64.to_le_bytes());
        push_text(&mut out, sensor.unit);
        push_long(&mut out, 0);
        let sequence = out.len();
        push_long(&mut out, 0);
        push_nullable(&mut out, sensor.battery);
        push_nullable(&mut out, sensor.rssi);
        push_long(&mut out, i64::from(sensor.site.is_some()));
        if let Some(site) = &sensor.site {
            push_text(&mut out, site);
        }
        if let Some(firmware) = sensor.firmware {
            push_long(&mut out, 1);
            push_text(&mut out, "firmware");
            push_text(&mut out, firmware);
        }
        push_long(&mut out, 0);
        // The sequence may grow by nine bytes; an id of 64 bytes or more would have two length bytes.
        if out.len() + 9 > ROOM || sensor.sensor_id.len() >= 64 {
            return Err(TooLong(sensor.sensor_id.clone()));
        }
        let mut bytes = [0; ROOM];
        bytes[..out.len()].copy_from_slice(&out);
        Ok(Self {
            bytes,
            length: out.len() as u8,
            key_end: key_end as u8,
            metric: metric as u8,
            value: value as u8,
            sequence: sequence as u8,
            sequence_bytes: 1,
        })
    }

    /// The record key: the sensor id, which is part of the record.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.bytes[FRAMING + 1..self.key_end as usize]
    }

    /// The record as it is now.
    #[inline]
    pub fn record(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }

    /// Writes a reading into the record.
    #[inline]
    pub fn patch(&mut self, reading: &Reading) {
        let value = self.value as usize;
        write_time(&mut self.bytes[value - TIME_BYTES..value], reading.time_ms);
        self.bytes[value..value + 8].copy_from_slice(&reading.value.to_le_bytes());
        self.bytes[self.sequence as usize - 1] = reading.quality << 1;
        self.patch_sequence(reading.sequence);
    }

    fn patch_sequence(&mut self, sequence: u64) {
        let zigzag = sequence << 1;
        let wanted = bytes_of(zigzag);
        let (start, old_end) = (self.sequence as usize, (self.sequence + self.sequence_bytes) as usize);
        if wanted != self.sequence_bytes as usize {
            // Seldom: at 64, 8 192, 1 048 576 and so on, and back when a slot gets another sensor.
            self.bytes.copy_within(old_end..self.length as usize, start + wanted);
            self.length = (self.length as usize - (old_end - start) + wanted) as u8;
            self.sequence_bytes = wanted as u8;
        }
        write_varint(&mut self.bytes[start..start + wanted], zigzag);
    }

    /// The index byte of `metric`.
    pub fn metric_at(&self) -> usize {
        self.metric as usize
    }

    /// The eight bytes of `value`.
    pub fn value_at(&self) -> Range<usize> {
        self.value as usize..self.value as usize + 8
    }

    /// The length byte of `unit`; its bytes follow.
    pub fn unit_at(&self) -> usize {
        self.value as usize + 8
    }

    /// The branch byte of `battery`.
    pub fn battery_at(&self) -> usize {
        (self.sequence + self.sequence_bytes) as usize
    }
}

/// Times outside of 2004 to 2039 have another length; those are never asked for.
fn write_time(out: &mut [u8], time_ms: i64) {
    debug_assert_eq!(bytes_of((time_ms as u64) << 1), TIME_BYTES);
    write_varint(out, (time_ms as u64) << 1);
}

fn bytes_of(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn write_varint(out: &mut [u8], number: u64) {
    let mut rest = number;
    let last = out.len() - 1;
    for byte in &mut out[..last] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[last] = rest as u8;
}

fn push_nullable(out: &mut Vec<u8>, number: Option<f64>) {
    push_long(out, i64::from(number.is_some()));
    out.extend(number.map(f64::to_le_bytes).into_iter().flatten());
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

/// Avro's zig-zag varint.
pub fn push_long(out: &mut Vec<u8>, number: i64) {
    let zigzag = ((number << 1) ^ (number >> 63)) as u64;
    let start = out.len();
    out.resize(start + bytes_of(zigzag), 0);
    write_varint(&mut out[start..], zigzag);
}

#[cfg(test)]
pub(crate) mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;

    use super::*;
    use crate::random::Dice;
    use crate::registry::SENSOR_READING_SCHEMA;

    pub(crate) fn decode(schema: &Schema, record: &[u8]) -> Vec<(String, Value)> {
        assert_eq!(&record[..FRAMING], [0, 0, 0, 1, 2]);
        let reader = GenericDatumReader::builder(schema).build().unwrap();
        let mut rest = &record[FRAMING..];
        let Value::Record(fields) = reader.read_value(&mut rest).unwrap() else { panic!("not a record") };
        assert!(rest.is_empty(), "{} bytes are left", rest.len());
        fields
    }

    fn nullable(value: Option<Value>) -> Value {
        value.map_or(Value::Union(0, Box::new(Value::Null)), |value| Value::Union(1, Box::new(value)))
    }

    #[test]
    fn patched_templates_are_what_apache_avro_reads() {
        let schema = Schema::parse_str(SENSOR_READING_SCHEMA).unwrap();
        let mut dice = Dice::new(11);
        for round in 0..64_usize {
            let sensor = SensorTraits {
                sensor_id: format!("sensor-{round:06}"),
                metric: (round % 6) as u8,
                unit: ["Cel", "", "%", "µm/s"][round % 4],
                battery: (round % 3 != 0).then_some(0.87),
                rssi: round.is_multiple_of(2).then_some(-67.0),
                site: (round % 5 != 0).then(|| format!("plant-{round:02}")),
                firmware: (round % 7 != 0).then_some("4.3.0-rc1"),
            };
            let mut template = Template::new(0x0102, &sensor).unwrap();
            assert_eq!(template.key(), sensor.sensor_id.as_bytes());
            // Through all lengths of the sequence, forwards and backwards.
            for sequence in [0, 63, 64, 8_191, 8_192, 1_048_575, 1_048_576, 5_000_000_000, u64::MAX >> 1, 70, 0] {
                let reading = Reading {
                    time_ms: 1_100_000_000_000 + dice.below(1_000_000_000_000) as i64,
                    value: dice.normal(),
                    quality: dice.below(3) as u8,
                    sequence,
                };
                template.patch(&reading);
                let fields = decode(&schema, template.record());
                let values: Vec<_> = fields.into_iter().map(|(_, value)| value).collect();
                let quality = ["GOOD", "UNCERTAIN", "BAD"][reading.quality as usize];
                let attributes = sensor.firmware.map(|text| ("firmware".to_owned(), Value::String(text.to_owned())));
                assert_eq!(
                    values,
                    [
                        Value::String(sensor.sensor_id.clone()),
                        Value::Enum(u32::from(sensor.metric), METRICS[sensor.metric as usize].to_owned()),
                        Value::TimestampMillis(reading.time_ms),
                        Value::Double(reading.value),
                        Value::String(sensor.unit.to_owned()),
                        Value::Enum(u32::from(reading.quality), quality.to_owned()),
                        Value::Long(reading.sequence as i64),
                        nullable(sensor.battery.map(Value::Double)),
                        nullable(sensor.rssi.map(Value::Double)),
                        nullable(sensor.site.clone().map(Value::String)),
                        Value::Map(attributes.into_iter().collect()),
                    ]
                );
            }
        }
    }

    #[test]
    fn longs_are_as_the_specification_says() {
        let encode = |number| {
            let mut out = Vec::new();
            push_long(&mut out, number);
            out
        };
        for (number, bytes) in
            [(0, vec![0]), (-1, vec![1]), (1, vec![2]), (-64, vec![0x7F]), (64, vec![0x80, 1]), (-65, vec![0x81, 1])]
        {
            assert_eq!(encode(number), bytes, "{number}");
        }
        assert_eq!(encode(i64::MIN).len(), 10);
    }
}
