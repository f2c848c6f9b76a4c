//! The ways in which a record can be wrong, each with the reason that the pipeline has to give for it.

use crate::encode::{Reading, Template, push_long};

/// How far behind its record timestamp an event lies that is too old: beyond any sensible `limits.max_event_age`.
const TOO_OLD_MS: i64 = 400 * 24 * 3_600_000;

/// How far ahead of its record timestamp an event lies that cannot be: beyond any sensible `limits.max_future_skew`.
const TOO_FAR_AHEAD_MS: i64 = 24 * 3_600_000;

/// A schema id that no registry gives out in a lifetime.
const NO_SCHEMA: u32 = 0x7F00_0000;

/// One kind of invalid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// A value without bytes.
    EmptyValue,
    /// A null value: Kafka's delete marker.
    Tombstone,
    /// JSON from somebody who has not heard of Avro.
    PlainJson,
    /// The framing ends inside the schema id.
    TruncatedHeader,
    /// A schema id that the registry has never given out.
    UnknownSchemaId,
    /// The body ends inside the value.
    TruncatedBody,
    /// Something is left behind the last field.
    TrailingBytes,
    /// Latin-1 in the unit.
    InvalidUtf8,
    /// A union branch that is not there.
    InvalidUnionBranch,
    /// A metric that is not there.
    InvalidEnum,
    /// A string of negative length.
    InvalidLength,
    /// The sensor measured NaN.
    NonFiniteValue,
    /// The sensor's clock stands still.
    EventTimeTooOld,
    /// The sensor's clock runs ahead.
    EventTimeInFuture,
}

impl Flaw {
    /// All of them. The last is apart: a pipeline may well wait for a schema that the registry does not know yet.
    pub const ALL: [Self; 14] = [
        Self::EmptyValue,
        Self::Tombstone,
        Self::PlainJson,
        Self::TruncatedHeader,
        Self::TruncatedBody,
        Self::TrailingBytes,
        Self::InvalidUtf8,
        Self::InvalidUnionBranch,
        Self::InvalidEnum,
        Self::InvalidLength,
        Self::NonFiniteValue,
        Self::EventTimeTooOld,
        Self::EventTimeInFuture,
        Self::UnknownSchemaId,
    ];

    /// How many of them are used: with or without unknown schemas.
    pub fn in_use(with_unknown_schemas: bool) -> usize {
        Self::ALL.len() - usize::from(!with_unknown_schemas)
    }

    /// The reason that has to stand in the dead letters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::EmptyValue => "empty_value",
            Self::Tombstone => "tombstone",
            Self::PlainJson => "bad_magic",
            Self::TruncatedHeader => "truncated_header",
            Self::UnknownSchemaId => "unknown_schema_id",
            Self::TruncatedBody => "truncated_body",
            Self::TrailingBytes => "trailing_bytes",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidUnionBranch => "invalid_union_branch",
            Self::InvalidEnum => "invalid_enum",
            Self::InvalidLength => "invalid_length",
            Self::NonFiniteValue => "non_finite_value",
            Self::EventTimeTooOld => "event_time_too_old",
            Self::EventTimeInFuture => "event_time_in_future",
        }
    }

    /// Writes a record with this flaw and no other into `out`: a sound reading of the sensor, spoilt. Whether it has a
    /// value at all.
    pub fn write(self, template: &Template, reading: &Reading, out: &mut Vec<u8>) -> bool {
        let mut sound = template.clone();
        let mut reading = *reading;
        match self {
            Self::NonFiniteValue => reading.value = f64::NAN,
            Self::EventTimeTooOld => reading.time_ms -= TOO_OLD_MS,
            Self::EventTimeInFuture => reading.time_ms += TOO_FAR_AHEAD_MS,
            _ => {}
        }
        sound.patch(&reading);
        out.clear();
        out.extend_from_slice(sound.record());
        match self {
            Self::Tombstone => return false,
            Self::EmptyValue => out.clear(),
            Self::PlainJson => {
                out.clear();
                out.extend_from_slice(br#"{"sensor_id":"#);
                out.extend_from_slice(format!("{:?}", String::from_utf8_lossy(sound.key())).as_bytes());
                out.extend_from_slice(format!(r#","value":{}}}"#, reading.value).as_bytes());
            }
            Self::TruncatedHeader => out.truncate(3),
            Self::UnknownSchemaId => out[1..5].copy_from_slice(&NO_SCHEMA.to_be_bytes()),
            Self::TruncatedBody => out.truncate(sound.value_at().start + 5),
            Self::TrailingBytes => out.extend_from_slice(b"\0\0"),
            Self::InvalidUtf8 => out[sound.unit_at() + 1] = 0xB0,
            Self::InvalidUnionBranch => out[sound.battery_at()] = 2 << 1,
            Self::InvalidEnum => out[sound.metric_at()] = 17 << 1,
            Self::InvalidLength => {
                out.truncate(sound.unit_at());
                push_long(out, -5);
                out.extend_from_slice(&[0; 24]);
            }
            Self::NonFiniteValue | Self::EventTimeTooOld | Self::EventTimeInFuture => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;

    use super::*;
    use crate::encode::SensorTraits;
    use crate::registry::SENSOR_READING_SCHEMA;

    #[test]
    fn what_should_not_decode_does_not_and_the_rest_does() {
        let schema = Schema::parse_str(SENSOR_READING_SCHEMA).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let sensor = SensorTraits {
            sensor_id: "sensor-000001".to_owned(),
            metric: 0,
            unit: "Cel",
            battery: None,
            rssi: None,
            site: None,
            firmware: None,
        };
        let template = Template::new(9, &sensor).unwrap();
        let reading = Reading { time_ms: 1_790_000_000_000, value: 20.5, quality: 0, sequence: 12 };
        let mut out = Vec::new();
        for flaw in Flaw::ALL {
            let has_value = flaw.write(&template, &reading, &mut out);
            assert_eq!(has_value, flaw != Flaw::Tombstone);
            if !has_value || out.len() <= 5 || out[0] != 0 {
                continue;
            }
            let mut body = &out[5..];
            let is_whole = reader.read_value(&mut body).is_ok() && body.is_empty();
            let decodes = matches!(
                flaw,
                Flaw::UnknownSchemaId | Flaw::NonFiniteValue | Flaw::EventTimeTooOld | Flaw::EventTimeInFuture
            );
            assert_eq!(is_whole, decodes, "{flaw:?}");
        }
    }
}
