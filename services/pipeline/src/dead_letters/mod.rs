//! The dead letters of a segment: each rejected record whole, with why, in one Parquet object.

mod read;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use kappa_core::archive::{HeadersBuilder, headers_type};
use kappa_core::partition::RejectedRecords;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::archive::{COMPRESSOR_BYTES, Encoder, GrowingFile};

pub use read::{DeadLetter, letters_of};

/// Columns of a dead-letter object.
pub fn dead_letter_schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", timestamp, false),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("headers", headers_type(), true),
        Field::new("schema_id", DataType::Int32, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, false),
        Field::new("attempt", DataType::Int32, false),
    ]))
}

/// Name of the header that a redrive puts on a record: how often it was redriven.
pub const ATTEMPT_HEADER: &str = "kappa.redrive.attempt";

/// The dead letters of a segment on their way.
pub type DeadLetterEncoder = Encoder<DeadLetterFile>;

/// The rejected records of one segment on their way to becoming a Parquet file.
#[derive(Debug)]
pub struct DeadLetterFile {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    topic: String,
    partition: i32,
}

impl DeadLetterFile {
    /// Without any record.
    pub fn new(topic: &str, partition: i32, compression: Compression) -> Result<Self, ParquetError> {
        let schema = dead_letter_schema();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(writer_properties(compression)))?;
        Ok(Self { writer, schema, topic: topic.to_owned(), partition })
    }
}

impl GrowingFile for DeadLetterFile {
    type Part = RejectedRecords;

    fn write(&mut self, rejects: &RejectedRecords) -> Result<(), ParquetError> {
        self.writer.write(&to_batch(&self.schema, &self.topic, self.partition, rejects)?)
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        self.writer.flush()
    }

    fn size(&self) -> usize {
        self.writer.bytes_written() + self.writer.memory_size()
    }

    fn memory(&self) -> usize {
        let compressors = if self.writer.in_progress_rows() > 0 { COMPRESSED_COLUMNS * COMPRESSOR_BYTES } else { 0 };
        self.writer.inner().capacity() + self.writer.memory_size() + compressors
    }

    fn finish(mut self, key_values: Vec<KeyValue>) -> Result<Vec<u8>, ParquetError> {
        for pair in key_values {
            self.writer.append_key_value_metadata(pair);
        }
        self.writer.into_inner()
    }

    fn memory_of(rejects: &RejectedRecords) -> usize {
        rejects.memory()
    }
}

/// What the file says of the segment that its records are of.
pub fn key_values(topic: &str, partition: i32, segment: Range<i64>) -> Vec<KeyValue> {
    let positions = [("topic", topic.to_owned()), ("partition", partition.to_string())];
    let range = [("start_offset", segment.start.to_string()), ("end_offset", segment.end.to_string())];
    positions.into_iter().chain(range).map(|(key, value)| KeyValue::new(format!("kappa.{key}"), value)).collect()
}

/// Columns whose values repeat; looking for the value of the others in a dictionary would be in vain.
const REPEATING: [&str; 5] = ["topic", "partition", "schema_id", "reason", "attempt"];

/// Columns that rise by little.
const COUNTERS: [&str; 2] = ["offset", "timestamp"];

/// The leaves that are neither: key, value, detail, and the two of the headers.
const COMPRESSED_COLUMNS: usize = 5;

fn writer_properties(compression: Compression) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_created_by(concat!("kappa ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for name in REPEATING {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), true);
    }
    for name in COUNTERS {
        properties = properties.set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in REPEATING.into_iter().chain(COUNTERS) {
        // A compressor finds next to nothing in runs and deltas, and takes more memory than they do.
        properties = properties.set_column_compression(ColumnPath::from(name), Compression::UNCOMPRESSED);
    }
    properties.build()
}

/// Bytes of a key, or of the name of a reason, about.
const TYPICAL_TEXT: usize = 16;

fn to_batch(
    schema: &SchemaRef,
    topic: &str,
    partition: i32,
    rejects: &RejectedRecords,
) -> Result<RecordBatch, ParquetError> {
    let count = rejects.len();
    let mut offsets = Int64Builder::with_capacity(count);
    let mut timestamps = TimestampMillisecondBuilder::with_capacity(count).with_timezone("UTC");
    let mut keys = BinaryBuilder::with_capacity(count, count * TYPICAL_TEXT);
    let mut values = BinaryBuilder::with_capacity(count, rejects.bytes());
    let mut headers = HeadersBuilder::new();
    let (mut schema_ids, mut attempts) = (Int32Builder::with_capacity(count), Int32Builder::with_capacity(count));
    let mut reasons = StringBuilder::with_capacity(count, count * TYPICAL_TEXT);
    let mut details = StringBuilder::with_capacity(count, rejects.detail_bytes());
    for (record, cause) in rejects.iter() {
        offsets.append_value(record.offset);
        timestamps.append_value(record.timestamp_ms);
        keys.append_option(record.key);
        values.append_option(record.value);
        headers.append(&record);
        schema_ids.append_option(cause.schema_id);
        reasons.append_value(cause.reason.name());
        details.append_value(cause.detail);
        attempts.append_value(attempt_of(record.headers.last(ATTEMPT_HEADER)));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, count))),
        Arc::new(Int32Array::from_value(partition, count)),
        Arc::new(offsets.finish()),
        Arc::new(timestamps.finish()),
        Arc::new(keys.finish()),
        Arc::new(values.finish()),
        headers.finish(),
        Arc::new(schema_ids.finish()),
        Arc::new(reasons.finish()),
        Arc::new(details.finish()),
        Arc::new(attempts.finish()),
    ];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn attempt_of(header: Option<&[u8]>) -> i32 {
    let text = header.and_then(|content| std::str::from_utf8(content).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use parquet::arrow::ArrowSchemaConverter;
    use parquet::basic::ZstdLevel;

    use super::*;

    #[test]
    fn compressors_are_counted_for_the_columns_that_have_one() {
        let properties = writer_properties(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()));
        let leaves = ArrowSchemaConverter::new().convert(&dead_letter_schema()).unwrap();
        let compressed: Vec<_> = leaves
            .columns()
            .iter()
            .filter(|leaf| properties.compression(leaf.path()) != Compression::UNCOMPRESSED)
            .collect();
        assert_eq!(compressed.len(), COMPRESSED_COLUMNS, "{compressed:?}");
    }
}
