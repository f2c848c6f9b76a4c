//! The columns of the archive: every field of the reader schema, then where each record came from.
//!
//! Nothing that a producer sent is lost: key, headers and unknown fields have columns of their own. What is the same
//! in nearly every record (a key that repeats the key field, no headers, no unknown fields) is null and costs next to
//! nothing in Parquet.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
    TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, Int32Array, RecordBatch};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::decode::ReaderSchema;
use crate::record::LogRecord;

/// Names of the columns that are added behind the fields of the reader schema.
pub const METADATA_COLUMNS: [&str; 8] =
    ["_partition", "_offset", "_timestamp", "_schema_id", "_key", "_keyless", "_headers", "_extra"];

/// The Arrow schema of the archive for a reader schema.
pub fn archive_schema(reader: &ReaderSchema) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = reader.arrow_fields().iter().cloned().collect();
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let added = [
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", timestamp, false),
        Field::new("_schema_id", DataType::Int32, true),
        Field::new("_key", DataType::Binary, true),
        Field::new("_keyless", DataType::Boolean, false),
        Field::new("_headers", headers_type(), true),
        Field::new("_extra", DataType::Utf8, true),
    ];
    fields.extend(added.into_iter().map(Arc::new));
    Arc::new(Schema::new(fields))
}

fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

/// The type of a headers column: a list of (key, value), as in the archive so in the dead letters.
pub fn headers_type() -> DataType {
    DataType::List(Arc::new(header_item()))
}

fn header_item() -> Field {
    Field::new("item", DataType::Struct(header_fields()), false)
}

/// Builds a headers column; also used by the dead letters.
#[derive(Debug)]
pub struct HeadersBuilder(ListBuilder<StructBuilder>);

impl HeadersBuilder {
    /// An empty column.
    pub fn new() -> Self {
        Self(ListBuilder::new(StructBuilder::from_fields(header_fields(), 0)).with_field(header_item()))
    }

    /// Appends the headers of a record; null where there are none.
    pub fn append(&mut self, record: &LogRecord<'_>) {
        if record.headers.is_empty() {
            self.0.append(false);
            return;
        }
        let items = self.0.values();
        for (name, content) in record.headers.iter() {
            if let Some(names) = items.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(contents) = items.field_builder::<BinaryBuilder>(1) {
                contents.append_option(content);
            }
            items.append(true);
        }
        self.0.append(true);
    }

    /// Hands the column out and starts empty.
    pub fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

impl Default for HeadersBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// The metadata columns of the rows that wait to become a batch.
#[derive(Debug)]
pub struct MetadataColumns {
    partition: i32,
    offsets: Int64Builder,
    timestamps: TimestampMillisecondBuilder,
    schema_ids: Int32Builder,
    keys: BinaryBuilder,
    keyless: BooleanBuilder,
    headers: HeadersBuilder,
}

impl MetadataColumns {
    /// Columns for one partition.
    pub fn new(partition: i32) -> Self {
        Self {
            partition,
            offsets: Int64Builder::new(),
            timestamps: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            schema_ids: Int32Builder::new(),
            keys: BinaryBuilder::new(),
            keyless: BooleanBuilder::new(),
            headers: HeadersBuilder::new(),
        }
    }

    /// Appends the metadata of one accepted record. `key_field`: the text of the first key field, which the record
    /// key usually repeats.
    #[inline]
    pub fn append(&mut self, record: &LogRecord<'_>, schema_id: Option<i32>, key_field: Option<&str>) {
        self.offsets.append_value(record.offset);
        self.timestamps.append_value(record.timestamp_ms);
        self.schema_ids.append_option(schema_id);
        match record.key {
            Some(key) if key_field.is_none_or(|field| field.as_bytes() != key) => self.keys.append_value(key),
            _ => self.keys.append_null(),
        }
        self.keyless.append_value(record.key.is_none());
        self.headers.append(record);
    }

    /// Joins the decoded columns with the metadata into one batch of the archive schema, and starts empty.
    pub fn finish(
        &mut self,
        schema: &SchemaRef,
        mut decoded: Vec<ArrayRef>,
        extra: ArrayRef,
    ) -> Result<RecordBatch, ArrowError> {
        let offsets = self.offsets.finish();
        let partitions = Int32Array::from_value(self.partition, arrow_array::Array::len(&offsets));
        decoded.push(Arc::new(partitions));
        decoded.push(Arc::new(offsets));
        decoded.push(Arc::new(self.timestamps.finish()));
        decoded.push(Arc::new(self.schema_ids.finish()));
        decoded.push(Arc::new(self.keys.finish()));
        decoded.push(Arc::new(self.keyless.finish()));
        decoded.push(self.headers.finish());
        decoded.push(extra);
        RecordBatch::try_new(Arc::clone(schema), decoded)
    }
}
