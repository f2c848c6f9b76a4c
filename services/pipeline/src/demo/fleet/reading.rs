//! One sensor reading and its Avro encoding.
//!
//! Written by hand and on its own: the pipeline's decoder is checked against an encoder that shares no code with it.
//! A test holds this encoder against `apache-avro`, byte by byte.

use crate::leb128;

/// What a sensor measures; the discriminants are the enum indices of `schemas/sensor-reading.avsc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Air temperature.
    Temperature = 0,
    /// Relative humidity.
    Humidity = 1,
    /// Air pressure.
    Pressure = 2,
    /// Vibration velocity.
    Vibration = 3,
    /// Mains voltage.
    Voltage = 4,
    /// Anything else; here illuminance.
    Other = 5,
}

impl Metric {
    /// All of them, in the order of the schema.
    pub const ALL: [Self; 6] =
        [Self::Temperature, Self::Humidity, Self::Pressure, Self::Vibration, Self::Voltage, Self::Other];

    /// The symbol in the schema.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Temperature => "TEMPERATURE",
            Self::Humidity => "HUMIDITY",
            Self::Pressure => "PRESSURE",
            Self::Vibration => "VIBRATION",
            Self::Voltage => "VOLTAGE",
            Self::Other => "OTHER",
        }
    }
}

/// The sensor's own judgement of a reading; the discriminants are the enum indices of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// As it should be.
    Good = 0,
    /// To be used with care.
    Uncertain = 1,
    /// Known to be wrong.
    Bad = 2,
}

/// One reading, borrowed from the fleet.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Stable identity of the sensor, and the record key.
    pub sensor_id: &'a str,
    /// What is measured.
    pub metric: Metric,
    /// By the sensor's clock, milliseconds since the epoch.
    pub event_time_ms: i64,
    /// In `unit`.
    pub value: f64,
    /// UCUM.
    pub unit: &'a str,
    /// The sensor's own judgement.
    pub quality: Quality,
    /// Counts up by one for each reading of the sensor.
    pub sequence: i64,
    /// Charge, 0 to 1; mains-powered sensors have none.
    pub battery: Option<f64>,
    /// Signal strength in dBm; wired sensors have none.
    pub rssi: Option<f64>,
    /// Where the sensor stands, if anybody wrote it down.
    pub site: Option<&'a str>,
    /// Anything else the sensor says of itself.
    pub attributes: &'a [(&'a str, String)],
}

/// Where the parts of an encoded body start, so that a flaw can be put exactly where it shall be.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The index byte of `metric`.
    pub metric: usize,
    /// The eight bytes of `value`.
    pub value: usize,
    /// The length byte of `unit`; its bytes follow.
    pub unit: usize,
    /// The branch byte of `battery`.
    pub battery: usize,
}

impl Reading<'_> {
    /// Appends the Avro body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) -> Layout {
        let layout = self.encode_measurement(out, self.metric as i64);
        nullable_double(out, self.rssi);
        self.encode_place(out);
        layout
    }

    /// Appends the body by `schemas/sensor-reading-v2.avsc`: without signal strength; with the firmware, and as a symbol
    /// of its own what the first version has only as OTHER.
    pub fn encode_evolved(&self, out: &mut Vec<u8>) {
        let metric = if self.metric == Metric::Other { EVOLVED_ILLUMINANCE } else { self.metric as i64 };
        self.encode_measurement(out, metric);
        self.encode_place(out);
        let firmware = self.attributes.iter().find(|(name, _)| *name == "firmware");
        string(out, firmware.map_or("", |(_, version)| version.as_str()));
        // calibrated_at: never.
        long(out, 0);
    }

    /// The fields up to `battery`.
    fn encode_measurement(&self, out: &mut Vec<u8>, metric_symbol: i64) -> Layout {
        string(out, self.sensor_id);
        let metric = out.len();
        long(out, metric_symbol);
        long(out, self.event_time_ms);
        let value = out.len();
        out.extend_from_slice(&self.value.to_le_bytes());
        let unit = out.len();
        string(out, self.unit);
        long(out, self.quality as i64);
        long(out, self.sequence);
        let battery = out.len();
        nullable_double(out, self.battery);
        Layout { metric, value, unit, battery }
    }

    fn encode_place(&self, out: &mut Vec<u8>) {
        match self.site {
            Some(site) => {
                long(out, 1);
                string(out, site);
            }
            None => long(out, 0),
        }
        if !self.attributes.is_empty() {
            long(out, self.attributes.len() as i64);
            for (name, content) in self.attributes {
                string(out, name);
                string(out, content);
            }
        }
        long(out, 0);
    }
}

/// Index of ILLUMINANCE in the second version of the schema.
const EVOLVED_ILLUMINANCE: i64 = 5;

/// Avro's variable-length zig-zag integer.
pub fn long(out: &mut Vec<u8>, number: i64) {
    leb128::push(out, ((number << 1) ^ (number >> 63)) as u64);
}

fn string(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

fn nullable_double(out: &mut Vec<u8>, number: Option<f64>) {
    match number {
        Some(number) => {
            long(out, 1);
            out.extend_from_slice(&number.to_le_bytes());
        }
        None => long(out, 0),
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;
    use apache_avro::{Schema, writer::datum::GenericDatumWriter};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::demo::embedded::registry::SENSOR_READING_SCHEMA;
    use crate::demo::evolution::EVOLVED_SCHEMA;

    fn evolved_value(reading: &Reading<'_>) -> Value {
        let Value::Record(mut fields) = avro_value(reading) else { panic!("no record") };
        fields.retain(|(name, _)| name != "rssi");
        if reading.metric == Metric::Other {
            fields[1].1 = Value::Enum(5, "ILLUMINANCE".to_owned());
        }
        let firmware = reading.attributes.first().map_or_else(String::new, |(_, version)| version.clone());
        fields.push(("firmware".to_owned(), Value::String(firmware)));
        fields.push(("calibrated_at".to_owned(), Value::Union(0, Box::new(Value::Null))));
        Value::Record(fields)
    }

    fn avro_value(reading: &Reading<'_>) -> Value {
        let optional = |number: Option<f64>| match number {
            Some(number) => Value::Union(1, Box::new(Value::Double(number))),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let quality = ["GOOD", "UNCERTAIN", "BAD"][reading.quality as usize];
        let attributes =
            reading.attributes.iter().map(|(name, text)| ((*name).to_owned(), Value::String(text.clone())));
        Value::Record(vec![
            ("sensor_id".to_owned(), Value::String(reading.sensor_id.to_owned())),
            ("metric".to_owned(), Value::Enum(reading.metric as u32, reading.metric.symbol().to_owned())),
            ("event_time".to_owned(), Value::TimestampMillis(reading.event_time_ms)),
            ("value".to_owned(), Value::Double(reading.value)),
            ("unit".to_owned(), Value::String(reading.unit.to_owned())),
            ("quality".to_owned(), Value::Enum(reading.quality as u32, quality.to_owned())),
            ("sequence".to_owned(), Value::Long(reading.sequence)),
            ("battery".to_owned(), optional(reading.battery)),
            ("rssi".to_owned(), optional(reading.rssi)),
            (
                "site".to_owned(),
                match reading.site {
                    Some(site) => Value::Union(1, Box::new(Value::String(site.to_owned()))),
                    None => Value::Union(0, Box::new(Value::Null)),
                },
            ),
            ("attributes".to_owned(), Value::Map(attributes.collect())),
        ])
    }

    #[test]
    fn agrees_with_apache_avro_on_random_readings() {
        let schema = Schema::parse_str(SENSOR_READING_SCHEMA).unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        let evolved_schema = Schema::parse_str(EVOLVED_SCHEMA).unwrap();
        let evolved_writer = GenericDatumWriter::builder(&evolved_schema).build().unwrap();
        let mut random = StdRng::seed_from_u64(7);
        for round in 0..2_000 {
            // One entry at most: a map of apache-avro has no order of its own.
            let attributes = [("firmware", format!("{}.ü{}", round % 7, random.random_range(0..999)))];
            let reading = Reading {
                sensor_id: ["s-000001", "", "Fühler/π"][round % 3],
                metric: Metric::ALL[round % 6],
                event_time_ms: random.random_range(i64::MIN..=i64::MAX) >> (round % 64),
                value: f64::from_bits(random.random()),
                unit: ["Cel", "", "%"][random.random_range(0..3)],
                quality: [Quality::Good, Quality::Uncertain, Quality::Bad][random.random_range(0..3)],
                sequence: random.random_range(i64::MIN..=i64::MAX) >> (round % 63),
                battery: random.random_bool(0.5).then(|| random.random()),
                rssi: random.random_bool(0.5).then(|| random.random()),
                site: random.random_bool(0.5).then_some("plant-07"),
                attributes: &attributes[..random.random_range(0..2)],
            };
            let mut encoded = Vec::new();
            reading.encode(&mut encoded);
            assert_eq!(encoded, writer.write_value_to_vec(avro_value(&reading)).unwrap(), "{reading:?}");
            encoded.clear();
            reading.encode_evolved(&mut encoded);
            assert_eq!(encoded, evolved_writer.write_value_to_vec(evolved_value(&reading)).unwrap(), "{reading:?}");
        }
    }
}
