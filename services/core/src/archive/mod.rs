//! The columns of the archive: every field of the reader schema, then where each record came from.
//!
//! Nothing that a producer sent is lost: key, headers and unknown fields have columns of their own. What is the same
//! in nearly every record (a key that repeats the key field, no headers, no unknown fields) is null and costs next to
//! nothing in Parquet.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, BinaryBuilder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray, new_null_array,
};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::decode::{ReaderSchema, hand_out};
use crate::record::LogRecord;

/// Names of the columns that are added behind the fields of the reader schema.
pub const METADATA_COLUMNS: [&str; 9] =
    ["_partition", "_offset", "_timestamp", "_schema_id", "_key", "_keyless", "_headers", "_extra", "_duplicate"];

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
        Field::new("_duplicate", DataType::Boolean, false),
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

    fn append_nulls(&mut self, count: usize) {
        (0..count).for_each(|_| self.0.append(false));
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    /// As [`Self::finish`], with nulls for the last of `rows` rows that were not appended.
    fn finish_with_nulls(&mut self, rows: usize) -> ArrayRef {
        if self.len() == 0 {
            return new_null_array(&headers_type(), rows);
        }
        self.append_nulls(rows - self.len());
        self.finish()
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
///
/// Keys and headers, which hardly any record needs, are stored from the first record on that does.
#[derive(Debug)]
pub struct MetadataColumns {
    partition: i32,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    schema_ids: Vec<Option<i32>>,
    keyless: Vec<bool>,
    /// Keys that do not repeat the key field; may lack trailing nulls.
    keys: BinaryBuilder,
    /// May lack trailing nulls.
    headers: HeadersBuilder,
    duplicates: Vec<bool>,
}

impl MetadataColumns {
    /// Columns for one partition.
    pub fn new(partition: i32) -> Self {
        Self {
            partition,
            offsets: Vec::new(),
            timestamps: Vec::new(),
            schema_ids: Vec::new(),
            keyless: Vec::new(),
            keys: BinaryBuilder::new(),
            headers: HeadersBuilder::new(),
            duplicates: Vec::new(),
        }
    }

    /// Appends the metadata of one accepted record. `repeats_key_field`: whether the record key is the text of the first
    /// key field, as it usually is.
    #[inline]
    pub fn append(&mut self, record: &LogRecord<'_>, schema_id: Option<i32>, repeats_key_field: bool) {
        let row = self.offsets.len();
        self.offsets.push(record.offset);
        self.timestamps.push(record.timestamp_ms);
        self.schema_ids.push(schema_id);
        self.keyless.push(record.key.is_none());
        self.duplicates.push(false);
        if let Some(key) = record.key
            && !repeats_key_field
        {
            self.keys.append_nulls(row - self.keys.len());
            self.keys.append_value(key);
        }
        if !record.headers.is_empty() {
            self.headers.append_nulls(row - self.headers.len());
            self.headers.append(record);
        }
    }

    /// Marks a row: its reading was there already.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn mark_duplicate(&mut self, row: usize) {
        self.duplicates[row] = true;
    }

    /// Kafka timestamp of the record in that row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub(crate) fn timestamp_ms(&self, row: usize) -> i64 {
        self.timestamps[row]
    }

    /// The offset of the record in that row.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn offset(&self, row: usize) -> i64 {
        self.offsets[row]
    }

    /// Bytes held, for the memory budget; without headers, which hardly any record has.
    pub(crate) fn memory(&self) -> usize {
        self.offsets.capacity() * size_of::<i64>()
            + self.timestamps.capacity() * size_of::<i64>()
            + self.schema_ids.capacity() * size_of::<Option<i32>>()
            + self.keyless.capacity()
            + self.duplicates.capacity()
            + self.keys.values_slice().len()
    }

    /// Joins the decoded columns with the metadata into one batch of the archive schema, and starts empty.
    pub fn finish(
        &mut self,
        schema: &SchemaRef,
        mut decoded: Vec<ArrayRef>,
        extra: ArrayRef,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = self.offsets.len();
        self.keys.append_nulls(rows - self.keys.len());
        let timestamps = TimestampMillisecondArray::from(hand_out(&mut self.timestamps)).with_timezone("UTC");
        decoded.push(Arc::new(Int32Array::from_value(self.partition, rows)));
        decoded.push(Arc::new(Int64Array::from(hand_out(&mut self.offsets))));
        decoded.push(Arc::new(timestamps));
        decoded.push(Arc::new(Int32Array::from(hand_out(&mut self.schema_ids))));
        decoded.push(Arc::new(self.keys.finish()));
        decoded.push(Arc::new(BooleanArray::from(hand_out(&mut self.keyless))));
        decoded.push(self.headers.finish_with_nulls(rows));
        decoded.push(extra);
        decoded.push(Arc::new(BooleanArray::from(hand_out(&mut self.duplicates))));
        RecordBatch::try_new(Arc::clone(schema), decoded)
    }
}
