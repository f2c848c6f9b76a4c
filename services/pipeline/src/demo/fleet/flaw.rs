//! The ways in which a record can be wrong, each with the reason that the pipeline has to give for it.

use kappa_core::reject::Reason;

use super::message::{GUID_OF_NOBODY, Message, SchemaIds};
use super::reading::{Reading, long};

/// How far behind its record timestamp an event lies that is too old: beyond any sensible `limits.max_event_age`.
const TOO_OLD_MS: i64 = 40 * 24 * 3_600_000;

/// How far ahead of its record timestamp an event lies that cannot be: beyond `limits.max_future_skew`.
const TOO_FAR_AHEAD_MS: i64 = 15 * 60_000;

/// One kind of invalid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A value without bytes, and without a key either.
    EmptyValue,
    /// A null value: Kafka's delete marker.
    Tombstone,
    /// JSON from somebody who has not heard of Avro.
    PlainJson,
    /// The framing ends inside the schema id.
    TruncatedHeader,
    /// A schema id that the registry has never given out.
    UnknownSchemaId,
    /// A schema GUID, in a header, that the registry has never given out.
    UnknownSchemaGuid,
    /// A schema id that belongs to a JSON schema.
    SchemaNotAvro,
    /// A schema id that belongs to another kind of Avro record.
    IncompatibleSchema,
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
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::EmptyValue,
        Self::Tombstone,
        Self::PlainJson,
        Self::TruncatedHeader,
        Self::UnknownSchemaId,
        Self::UnknownSchemaGuid,
        Self::SchemaNotAvro,
        Self::IncompatibleSchema,
        Self::TruncatedBody,
        Self::TrailingBytes,
        Self::InvalidUtf8,
        Self::InvalidUnionBranch,
        Self::InvalidEnum,
        Self::InvalidLength,
        Self::NonFiniteValue,
        Self::EventTimeTooOld,
        Self::EventTimeInFuture,
    ];

    /// What the pipeline has to say about it.
    pub const fn reason(self) -> Reason {
        match self {
            Self::EmptyValue => Reason::EmptyValue,
            Self::Tombstone => Reason::Tombstone,
            Self::PlainJson => Reason::BadMagic,
            Self::TruncatedHeader => Reason::TruncatedHeader,
            Self::UnknownSchemaId | Self::UnknownSchemaGuid => Reason::UnknownSchemaId,
            Self::SchemaNotAvro => Reason::SchemaNotAvro,
            Self::IncompatibleSchema => Reason::IncompatibleSchema,
            Self::TruncatedBody => Reason::TruncatedBody,
            Self::TrailingBytes => Reason::TrailingBytes,
            Self::InvalidUtf8 => Reason::InvalidUtf8,
            Self::InvalidUnionBranch => Reason::InvalidUnionBranch,
            Self::InvalidEnum => Reason::InvalidEnum,
            Self::InvalidLength => Reason::InvalidLength,
            Self::NonFiniteValue => Reason::NonFiniteValue,
            Self::EventTimeTooOld => Reason::EventTimeTooOld,
            Self::EventTimeInFuture => Reason::EventTimeInFuture,
        }
    }

    /// Makes `message` out of a sound reading, with this flaw and no other.
    pub(super) fn write(self, mut reading: Reading<'_>, schemas: SchemaIds, message: &mut Message) {
        message.start(reading.sensor_id);
        match self {
            Self::NonFiniteValue => reading.value = f64::NAN,
            Self::EventTimeTooOld => reading.event_time_ms -= TOO_OLD_MS,
            Self::EventTimeInFuture => reading.event_time_ms += TOO_FAR_AHEAD_MS,
            // Set on purpose where the flaw sits in a part that is null in many readings.
            Self::InvalidUnionBranch => reading.battery = None,
            _ => {}
        }
        let schema_id = match self {
            Self::UnknownSchemaId => schemas.unknown,
            Self::SchemaNotAvro => schemas.not_avro,
            Self::IncompatibleSchema => schemas.incompatible,
            _ => schemas.reading,
        };
        if self == Self::UnknownSchemaGuid {
            message.schema_guid = Some(GUID_OF_NOBODY);
        } else {
            message.frame(schema_id);
        }
        let layout = reading.encode(&mut message.value);
        let body = &mut message.value;
        match self {
            Self::EmptyValue => {
                body.clear();
                message.has_key = false;
            }
            Self::Tombstone => message.has_value = false,
            Self::PlainJson => {
                let json = format!(r#"{{"sensor_id":"{}","value":{}}}"#, reading.sensor_id, reading.value);
                message.value = json.into_bytes();
            }
            Self::TruncatedHeader => body.truncate(3),
            Self::TruncatedBody => body.truncate(layout.value + 5),
            Self::TrailingBytes => body.extend_from_slice(b"\0\0"),
            Self::InvalidUtf8 => body[layout.unit + 1] = 0xB0,
            Self::InvalidUnionBranch => body[layout.battery] = 2 << 1,
            Self::InvalidEnum => body[layout.metric] = 17 << 1,
            Self::InvalidLength => {
                body.truncate(layout.unit);
                long(body, -5);
                body.extend_from_slice(&[0; 24]);
            }
            _ => {}
        }
    }
}
