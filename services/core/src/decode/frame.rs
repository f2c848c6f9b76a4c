//! The framing of the Confluent serializers: which schema a record was written with, and where its body starts.
//!
//! Two framings exist. The older one puts a magic 0 and a 4-byte big-endian schema id in front of the body. The newer
//! one (`HeaderSchemaIdSerializer`) leaves the payload alone and puts the reference into the record header
//! `__value_schema_id`: a magic 1 and the 16-byte GUID of the schema, or a magic 0 and a 4-byte id. As in Confluent's
//! `DualSchemaIdDeserializer`, the header wins where it is present.

use std::fmt;

use crate::record::Headers;
use crate::reject::{Reason, Reject};

/// The record header that carries the schema reference of the value.
pub const VALUE_SCHEMA_HEADER: &str = "__value_schema_id";

/// First byte of a reference by 4-byte id.
const MAGIC_ID: u8 = 0;

/// First byte of a reference by 16-byte GUID; only ever written to the header.
const MAGIC_GUID: u8 = 1;

/// How a record names the schema that it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SchemaReference {
    /// The registry's number for the schema, never negative.
    Id(i32),
    /// The registry's GUID for the schema, the same in every registry that has it.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(formatter, "{id}"),
            Self::Guid(guid) => write_uuid(formatter, *guid),
        }
    }
}

/// Writes 16 bytes in the canonical form of a UUID.
pub(super) fn write_uuid(out: &mut impl fmt::Write, bytes: [u8; 16]) -> fmt::Result {
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.write_char('-')?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

/// Splits a record value into the reference to its writer's schema and the Avro body.
///
/// # Errors
/// `tombstone` for a null value, `empty_value` for one without bytes (a body of no bytes is fine where the reference
/// stands in the header), `bad_magic` and `truncated_header` for a framing that is neither of the two,
/// `unknown_schema_id` for an id that cannot be one.
#[expect(clippy::inline_always, reason = "a result of this size, handed over in memory, costs more than the reading")]
#[inline(always)]
pub fn unframe<'a>(value: Option<&'a [u8]>, headers: Headers<'a>) -> Result<(SchemaReference, &'a [u8]), Reject> {
    match value {
        Some([MAGIC_ID, a @ ..0x80, b, c, d, body @ ..]) if headers.is_empty() => {
            Ok((SchemaReference::Id(i32::from_be_bytes([*a, *b, *c, *d])), body))
        }
        _ => unframe_by_header(value, headers),
    }
}

/// The same where there are headers, or something is wrong.
#[inline(never)]
fn unframe_by_header<'a>(value: Option<&'a [u8]>, headers: Headers<'a>) -> Result<(SchemaReference, &'a [u8]), Reject> {
    let Some(value) = value else {
        return Err(Reject::new(Reason::Tombstone, "the value is null, a delete marker, where an event was expected"));
    };
    if let Some(reference) = headers.last(VALUE_SCHEMA_HEADER) {
        return Ok((reference_in_header(reference)?, value));
    }
    match value {
        [] => {
            Err(Reject::new(Reason::EmptyValue, "the value has no bytes where at least a 5-byte header was expected"))
        }
        [MAGIC_ID, a, b, c, d, body @ ..] => Ok((reference_by_id([*a, *b, *c, *d])?, body)),
        [MAGIC_ID, ..] => Err(truncated("value", value.len(), 5)),
        [other, ..] => Err(bad_magic("value", *other, "0")),
    }
}

/// Registries number schemas by positive 32-bit integers. With its highest bit set a number is none, in any registry and
/// for ever, so nobody needs to be asked.
fn reference_by_id(bytes: [u8; 4]) -> Result<SchemaReference, Reject> {
    let id = i32::from_be_bytes(bytes);
    if id < 0 {
        let detail = format!("no registry has a schema {}: ids end at {}", u32::from_be_bytes(bytes), i32::MAX);
        return Err(Reject::new(Reason::UnknownSchemaId, detail));
    }
    Ok(SchemaReference::Id(id))
}

/// Reads the reference from the record header. Bytes behind it are not ours: the Protobuf serializer puts its message
/// indexes there.
fn reference_in_header(bytes: &[u8]) -> Result<SchemaReference, Reject> {
    const PLACE: &str = "record header `__value_schema_id`";
    match bytes {
        [] => Err(truncated(PLACE, 0, 5)),
        [MAGIC_ID, a, b, c, d, ..] => reference_by_id([*a, *b, *c, *d]),
        [MAGIC_ID, ..] => Err(truncated(PLACE, bytes.len(), 5)),
        [MAGIC_GUID, rest @ ..] => match rest.first_chunk::<16>() {
            Some(guid) => Ok(SchemaReference::Guid(*guid)),
            None => Err(truncated(PLACE, bytes.len(), 17)),
        },
        [other, ..] => Err(bad_magic(PLACE, *other, "0 or 1")),
    }
}

fn truncated(place: &str, found: usize, needed: usize) -> Reject {
    let detail = format!("the {place} has {found} bytes where the schema reference takes {needed}");
    Reject::new(Reason::TruncatedHeader, detail)
}

fn bad_magic(place: &str, found: u8, expected: &str) -> Reject {
    Reject::new(Reason::BadMagic, format!("the {place} starts with byte {found} where magic {expected} was expected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LogBatch;

    fn unframed(value: Option<&[u8]>, header: Option<&[u8]>) -> Result<(SchemaReference, Vec<u8>), String> {
        let mut batch = LogBatch::default();
        let headers = header.map(|content| (VALUE_SCHEMA_HEADER, Some(content)));
        batch.push(0, 0, None, value, headers);
        let record = batch.get(0);
        match unframe(record.value, record.headers) {
            Ok((reference, body)) => Ok((reference, body.to_vec())),
            Err(reject) => Err(reject.reason.name().into_owned()),
        }
    }

    #[test]
    fn both_framings_are_read() {
        assert_eq!(unframed(Some(&[0, 0, 0, 1, 2, 9, 8]), None), Ok((SchemaReference::Id(258), vec![9, 8])));
        assert_eq!(unframed(Some(&[0, 127, 255, 255, 255]), None), Ok((SchemaReference::Id(i32::MAX), vec![])));
        let guid: [u8; 16] = std::array::from_fn(|index| index as u8);
        let mut header = vec![1];
        header.extend_from_slice(&guid);
        assert_eq!(unframed(Some(&[0, 7]), Some(&header)), Ok((SchemaReference::Guid(guid), vec![0, 7])));
        assert_eq!(unframed(Some(&[]), Some(&header)), Ok((SchemaReference::Guid(guid), vec![])));
        assert_eq!(unframed(Some(&[7]), Some(&[0, 0, 0, 0, 3])), Ok((SchemaReference::Id(3), vec![7])));
        assert_eq!(SchemaReference::Guid(guid).to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(SchemaReference::Id(7).to_string(), "7");
    }

    #[test]
    fn broken_framings_have_their_reasons() {
        let reason = |value: Option<&[u8]>, header: Option<&[u8]>| unframed(value, header).err();
        assert_eq!(reason(None, None).as_deref(), Some("tombstone"));
        assert_eq!(reason(None, Some(&[0, 0, 0, 0, 3])).as_deref(), Some("tombstone"));
        assert_eq!(reason(Some(&[]), None).as_deref(), Some("empty_value"));
        assert_eq!(reason(Some(&[1, 0, 0, 0, 1]), None).as_deref(), Some("bad_magic"));
        assert_eq!(reason(Some(&[0, 0, 0, 1]), None).as_deref(), Some("truncated_header"));
        assert_eq!(reason(Some(&[0]), None).as_deref(), Some("truncated_header"));
        assert_eq!(reason(Some(&[0]), Some(&[])).as_deref(), Some("truncated_header"));
        assert_eq!(reason(Some(&[0]), Some(&[1; 16])).as_deref(), Some("truncated_header"));
        assert_eq!(reason(Some(&[0]), Some(&[0; 4])).as_deref(), Some("truncated_header"));
        assert_eq!(reason(Some(&[0]), Some(&[2; 17])).as_deref(), Some("bad_magic"));
        assert_eq!(reason(Some(&[0, 128, 0, 0, 0, 9]), None).as_deref(), Some("unknown_schema_id"));
        assert_eq!(reason(Some(&[0]), Some(&[0, 255, 255, 255, 255])).as_deref(), Some("unknown_schema_id"));
    }
}
