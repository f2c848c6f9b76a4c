//! A Parquet file in memory: row groups of column chunks, each column by the writer that is best for it.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use super::dictionary_column::DictionaryColumn;

/// Rows of a row group: enough for good dictionaries, small enough to read in parallel.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Columns whose pages carry statistics, besides the event's key and time fields.
const PAGE_STATISTICS: [&str; 2] = ["_offset", "_timestamp"];

/// How segments are encoded; made once, shared by all.
#[derive(Debug, Clone)]
pub struct SegmentFormat {
    schema: SchemaRef,
    properties: WriterProperties,
    compression: ZstdLevel,
}

impl SegmentFormat {
    /// `indexed`: the event's key and time fields, whose pages carry statistics.
    pub fn new(schema: SchemaRef, indexed: &[String]) -> Self {
        let compression = ZstdLevel::try_new(1).unwrap_or_default();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(compression))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(concat!("kappa ", env!("CARGO_PKG_VERSION")).to_owned());
        for field in schema.fields() {
            let path = ColumnPath::from(field.name().as_str());
            if is_counter(field.data_type()) {
                // Offsets, times and sequences rise by little: deltas beat a dictionary in size and in time.
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
            }
            if indexed.contains(field.name()) || PAGE_STATISTICS.contains(&field.name().as_str()) {
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Page);
            }
        }
        Self { schema, properties: properties.build(), compression }
    }
}

fn is_counter(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_))
}

/// Whether [`DictionaryColumn`] can write it: strings that repeat, at the top of the schema.
fn is_dictionary_of_strings(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8)
}

/// One file under construction.
pub(super) struct SegmentFile {
    format: SegmentFormat,
    file: SerializedFileWriter<Vec<u8>>,
    arrow_columns: ArrowRowGroupWriterFactory,
    open: Option<OpenRowGroup>,
}

struct OpenRowGroup {
    /// In the order of the file's leaf columns.
    columns: Vec<ColumnWriter>,
    rows: usize,
}

enum ColumnWriter {
    Arrow(Box<ArrowColumnWriter>),
    Dictionary(Box<DictionaryColumn>),
}

impl SegmentFile {
    pub(super) fn new(format: SegmentFormat) -> Result<Self> {
        // Takes the Arrow schema into the footer, and gives the file away.
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&format.schema), Some(format.properties.clone()))?;
        let (file, arrow_columns) = writer.into_serialized_writer()?;
        Ok(Self { format, file, arrow_columns, open: None })
    }

    /// Appends rows.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| open.rows + rows.num_rows() > ROW_GROUP_ROWS) {
            self.end_row_group()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => OpenRowGroup { columns: self.new_columns()?, rows: 0 },
        };
        let mut columns = open.columns.iter_mut();
        let missing = || ParquetError::General("the rows have more columns than the file".to_owned());
        for (field, array) in self.format.schema.fields().iter().zip(rows.columns()) {
            if is_dictionary_of_strings(field) {
                columns.next().ok_or_else(missing)?.write_dictionary(array)?;
                continue;
            }
            for leaf in compute_leaves(field, array)? {
                match columns.next() {
                    Some(ColumnWriter::Arrow(writer)) => writer.write(&leaf)?,
                    _ => return Err(missing()),
                }
            }
        }
        open.rows += rows.num_rows();
        self.open = Some(open);
        Ok(())
    }

    fn new_columns(&self) -> Result<Vec<ColumnWriter>> {
        let writers = self.arrow_columns.create_column_writers(self.file.flushed_row_groups().len())?;
        let leaves = self.file.schema_descr().columns();
        let column = |(writer, leaf): (ArrowColumnWriter, &parquet::schema::types::ColumnDescPtr)| {
            let path = leaf.path();
            let field = self.format.schema.field_with_name(&path.parts()[0])?;
            if !is_dictionary_of_strings(field) {
                return Ok(ColumnWriter::Arrow(Box::new(writer)));
            }
            let has_page_statistics = self.format.properties.statistics_enabled(path) == EnabledStatistics::Page;
            let column = DictionaryColumn::new(Arc::clone(leaf), self.format.compression, has_page_statistics)?;
            Ok(ColumnWriter::Dictionary(Box::new(column)))
        };
        writers.into_iter().zip(leaves).map(column).collect()
    }

    fn end_row_group(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let mut row_group = self.file.next_row_group()?;
        for column in open.columns {
            match column {
                ColumnWriter::Arrow(writer) => writer.close()?.append_to_row_group(&mut row_group)?,
                ColumnWriter::Dictionary(column) => {
                    let (bytes, result) = column.close()?;
                    row_group.append_column(&bytes, result)?;
                }
            }
        }
        row_group.close().map(drop)
    }

    /// Bytes that the file holds in memory, encoded or half-encoded.
    pub(super) fn memory(&self) -> usize {
        let open = self.open.iter().flat_map(|open| &open.columns);
        self.file.bytes_written() + open.map(ColumnWriter::memory).sum::<usize>()
    }

    /// Writes the footer and gives the file.
    pub(super) fn finish(mut self, key_values: Vec<KeyValue>) -> Result<Vec<u8>> {
        self.end_row_group()?;
        for pair in key_values {
            self.file.append_key_value_metadata(pair);
        }
        self.file.into_inner()
    }
}

impl ColumnWriter {
    fn write_dictionary(&mut self, array: &arrow_array::ArrayRef) -> Result<()> {
        match self {
            Self::Dictionary(column) => column.write(array),
            Self::Arrow(_) => Err(ParquetError::General("the column is not a dictionary".to_owned())),
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Arrow(writer) => writer.memory_size(),
            Self::Dictionary(column) => column.memory(),
        }
    }
}

#[cfg(test)]
mod tests;
