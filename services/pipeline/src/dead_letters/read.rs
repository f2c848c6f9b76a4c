//! Dead letters, read back.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array as _, RecordBatch};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A rejected record, as it is kept.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the columns of the format")]
pub struct DeadLetter {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub schema_id: Option<i32>,
    pub reason: String,
    pub detail: String,
    pub attempt: i32,
}

impl DeadLetter {
    /// The content of the last header of that name, as Kafka's `Headers.lastHeader` gives it.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let last = self.headers.iter().rfind(|(candidate, _)| candidate == name);
        last.and_then(|(_, content)| content.as_deref())
    }

    /// Bytes that it holds.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, content)| name.len() + length(content)).sum::<usize>();
        length(&self.key) + length(&self.value) + headers + self.detail.len()
    }
}

/// The dead letters of an object, some hundred at a time; an error is a sentence.
pub fn letters_of(object: Bytes) -> Result<impl Iterator<Item = Result<Vec<DeadLetter>, String>>, String> {
    let batches = ParquetRecordBatchReaderBuilder::try_new(object).and_then(ParquetRecordBatchReaderBuilder::build);
    let batches = batches.map_err(|error| format!("it is not a readable Parquet file: {error}"))?;
    Ok(batches.map(|batch| {
        let batch = batch.map_err(|error| format!("it cannot be read to the end: {error}"))?;
        rows_of(&batch).ok_or_else(|| "its columns are not those of dead letters".to_owned())
    }))
}

fn rows_of(batch: &RecordBatch) -> Option<Vec<DeadLetter>> {
    let column = |name: &str| batch.column_by_name(name);
    let topics = column("topic")?.as_string_opt::<i32>()?;
    let partitions = column("partition")?.as_primitive_opt::<Int32Type>()?;
    let offsets = column("offset")?.as_primitive_opt::<Int64Type>()?;
    let timestamps = column("timestamp")?.as_primitive_opt::<TimestampMillisecondType>()?;
    let (keys, values) = (column("key")?.as_binary_opt::<i32>()?, column("value")?.as_binary_opt::<i32>()?);
    let headers = column("headers")?.as_list_opt::<i32>()?;
    let schema_ids = column("schema_id")?.as_primitive_opt::<Int32Type>()?;
    let reasons = column("reason")?.as_string_opt::<i32>()?;
    let details = column("detail")?.as_string_opt::<i32>()?;
    let attempts = column("attempt")?.as_primitive_opt::<Int32Type>()?;
    let mut letters = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut of_record = Vec::new();
        if headers.is_valid(row) {
            let items = headers.value(row);
            let items = items.as_struct_opt()?;
            let names = items.column_by_name("key")?.as_string_opt::<i32>()?;
            let contents = items.column_by_name("value")?.as_binary_opt::<i32>()?;
            let content = |item: usize| contents.is_valid(item).then(|| contents.value(item).to_vec());
            of_record.extend((0..items.len()).map(|item| (names.value(item).to_owned(), content(item))));
        }
        letters.push(DeadLetter {
            topic: topics.value(row).to_owned(),
            partition: partitions.value(row),
            offset: offsets.value(row),
            timestamp_ms: timestamps.value(row),
            key: keys.is_valid(row).then(|| keys.value(row).to_vec()),
            value: values.is_valid(row).then(|| values.value(row).to_vec()),
            headers: of_record,
            schema_id: schema_ids.is_valid(row).then(|| schema_ids.value(row)),
            reason: reasons.value(row).to_owned(),
            detail: details.value(row).to_owned(),
            attempt: attempts.value(row),
        });
    }
    Some(letters)
}
