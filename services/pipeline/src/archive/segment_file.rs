//! A Parquet file in memory: row groups of column chunks, each column by the writer that is best for it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnDescPtr, ColumnPath};

use super::dictionary_column::DictionaryColumn;
use super::encoder::GrowingFile;
use super::unchanging::Unchanging;

/// Rows of a row group: enough for good dictionaries, small enough to read in parallel.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Bytes of the zstd compressor that the crate keeps for each open column, and of the decompressor that comes with it: its
/// `memory_size` leaves them out. Its tables are as large as the pages ask for: most columns have small ones, a column of
/// numbers that hardly repeat takes twice as much.
pub(crate) const COMPRESSOR_BYTES: usize = 384 << 10;

/// Rows of a column that are looked at to see whether its values repeat.
const SAMPLE_ROWS: usize = 4_096;

/// Positions and times of the log. Their pages carry statistics, as those of the event's key and time fields do.
const LOG_COUNTERS: [&str; 2] = ["_offset", "_timestamp"];

/// Columns with one value, or few, in long runs.
const ALL_THE_SAME: [&str; 2] = ["_partition", "_schema_id"];

/// How segments are encoded; made once, shared by all.
#[derive(Debug, Clone)]
pub struct SegmentFormat {
    schema: SchemaRef,
    properties: WriterProperties,
    compression: Compression,
}

impl SegmentFormat {
    /// `indexed`: the event's key and time fields, whose pages carry statistics.
    pub fn new(schema: SchemaRef, indexed: &[String]) -> Self {
        let compression = Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default());
        let mut properties = WriterProperties::builder()
            .set_compression(compression)
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
            if LOG_COUNTERS.contains(&field.name().as_str()) || ALL_THE_SAME.contains(&field.name().as_str()) {
                // A compressor finds next to nothing in the deltas of a log, and nothing in a run. In those of times and
                // numbers that a fleet sends in step it finds much.
                properties = properties.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
            }
            if indexed.contains(field.name()) || LOG_COUNTERS.contains(&field.name().as_str()) {
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Page);
            }
        }
        Self { schema, properties: properties.build(), compression }
    }

    /// For tests that make thousands of small files: there a compressor's tables cost more than the rows.
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.compression = Compression::UNCOMPRESSED;
        self.properties = self.properties.into_builder().set_compression(self.compression).build();
        self
    }

    /// Of what is worth compressing; dead letters share it.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// For a file that begins with these rows. Measured numbers either repeat (a few decimals of a slow signal), where
    /// nothing beats a dictionary; or hardly ever do, and then filling one costs more time than all else together.
    fn properties_for(&self, rows: &RecordBatch) -> WriterProperties {
        let mut properties = self.properties.clone().into_builder();
        for (field, array) in self.schema.fields().iter().zip(rows.columns()) {
            if *field.data_type() == DataType::Float64 && is_mostly_unique(array) {
                let path = ColumnPath::from(field.name().as_str());
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
            }
        }
        properties.build()
    }
}

/// Whether more than a quarter of the first values differ from all others.
fn is_mostly_unique(array: &dyn Array) -> bool {
    let values = array.as_primitive::<Float64Type>();
    let mut sample: Vec<u64> = values.iter().flatten().take(SAMPLE_ROWS).map(f64::to_bits).collect();
    let rows = sample.len();
    sample.sort_unstable();
    sample.dedup();
    sample.len() * 4 > rows
}

fn is_counter(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_))
}

/// Whether [`DictionaryColumn`] can write it: strings that repeat, at the top of the schema.
fn is_dictionary_of_strings(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8)
}

/// One file under construction.
pub struct SegmentFile {
    format: SegmentFormat,
    /// `None` until the first rows show how to encode them best.
    output: Option<Output>,
    open: Option<OpenRowGroup>,
}

struct Output {
    file: SerializedFileWriter<Vec<u8>>,
    arrow_columns: ArrowRowGroupWriterFactory,
}

struct OpenRowGroup {
    fields: Vec<OpenField>,
    rows: usize,
}

/// One field of the schema.
struct OpenField {
    /// Its leaves among those of the file.
    leaves: Range<usize>,
    writer: FieldWriter,
}

enum FieldWriter {
    /// One for each leaf.
    Arrow(Vec<LeafWriter>),
    Dictionary(Box<DictionaryColumn>),
    Unchanging {
        value: Unchanging,
        rows: usize,
    },
}

struct LeafWriter {
    writer: ArrowColumnWriter,
    /// Bytes that it holds and does not know of.
    compressor: usize,
}

impl Output {
    fn new(format: &SegmentFormat, properties: WriterProperties) -> Result<Self> {
        // Takes the Arrow schema into the footer, and gives the file away.
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&format.schema), Some(properties))?;
        let (file, arrow_columns) = writer.into_serialized_writer()?;
        Ok(Self { file, arrow_columns })
    }

    /// For a row group that begins with these rows.
    fn new_row_group(&self, format: &SegmentFormat, rows: &RecordBatch) -> Result<OpenRowGroup> {
        let mut writers = self.leaf_writers(format)?;
        let mut fields = Vec::with_capacity(rows.num_columns());
        let mut start = 0;
        for (field, array) in format.schema.fields().iter().zip(rows.columns()) {
            let of_field = self.leaves()[start..].iter().take_while(|leaf| leaf.path().parts()[0] == *field.name());
            let leaves = start..start + of_field.count();
            start = leaves.end;
            let leaf_writers: Vec<_> = writers.by_ref().take(leaves.len()).collect();
            let leaf = self.leaves().get(leaves.start).ok_or_else(misfit)?;
            let has_page_statistics = format.properties.statistics_enabled(leaf.path()) == EnabledStatistics::Page;
            let writer = if is_dictionary_of_strings(field) {
                let column = DictionaryColumn::new(Arc::clone(leaf), format.compression, has_page_statistics);
                FieldWriter::Dictionary(Box::new(column))
            } else if let Some(value) = Unchanging::of(array).filter(|_| !has_page_statistics) {
                FieldWriter::Unchanging { value, rows: 0 }
            } else {
                FieldWriter::Arrow(leaf_writers)
            };
            fields.push(OpenField { leaves, writer });
        }
        Ok(OpenRowGroup { fields, rows: 0 })
    }

    /// The parquet crate's, for all leaves.
    fn leaf_writers(&self, format: &SegmentFormat) -> Result<impl Iterator<Item = LeafWriter>> {
        let writers = self.arrow_columns.create_column_writers(self.file.flushed_row_groups().len())?;
        Ok(writers.into_iter().zip(self.leaves()).map(|(writer, leaf)| {
            let is_compressed = format.properties.compression(leaf.path()) != Compression::UNCOMPRESSED;
            LeafWriter { writer, compressor: if is_compressed { COMPRESSOR_BYTES } else { 0 } }
        }))
    }

    fn leaves(&self) -> &[ColumnDescPtr] {
        self.file.schema_descr().columns()
    }

    fn append_row_group(&mut self, format: &SegmentFormat, open: OpenRowGroup) -> Result<()> {
        let leaves = self.leaves().to_vec();
        let mut row_group = self.file.next_row_group()?;
        for field in open.fields {
            match field.writer {
                FieldWriter::Arrow(writers) => {
                    for LeafWriter { writer, .. } in writers {
                        writer.close()?.append_to_row_group(&mut row_group)?;
                    }
                }
                FieldWriter::Dictionary(column) => {
                    let (bytes, result) = column.close()?;
                    row_group.append_column(&bytes, result)?;
                }
                FieldWriter::Unchanging { value, rows } => {
                    for leaf in &leaves[field.leaves] {
                        let (bytes, result) = value.close(rows, leaf, format.compression)?;
                        row_group.append_column(&bytes, result)?;
                    }
                }
            }
        }
        row_group.close().map(drop)
    }
}

impl SegmentFile {
    /// Without any row.
    pub fn new(format: SegmentFormat) -> Self {
        Self { format, output: None, open: None }
    }

    fn open_fields(&self) -> impl Iterator<Item = &FieldWriter> {
        self.open.iter().flat_map(|open| &open.fields).map(|field| &field.writer)
    }
}

impl GrowingFile for SegmentFile {
    type Part = RecordBatch;

    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| open.rows + rows.num_rows() > ROW_GROUP_ROWS) {
            self.end_row_group()?;
        }
        let output = match &mut self.output {
            Some(output) => output,
            none => none.insert(Output::new(&self.format, self.format.properties_for(rows))?),
        };
        let mut open = match self.open.take() {
            Some(open) => open,
            None => output.new_row_group(&self.format, rows)?,
        };
        open.write(&self.format, output, rows)?;
        self.open = Some(open);
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        match (&mut self.output, self.open.take()) {
            (Some(output), Some(open)) => output.append_row_group(&self.format, open),
            _ => Ok(()),
        }
    }

    fn size(&self) -> usize {
        let written = self.output.as_ref().map_or(0, |output| output.file.bytes_written());
        written + self.open_fields().map(FieldWriter::size).sum::<usize>()
    }

    fn memory(&self) -> usize {
        let written = self.output.as_ref().map_or(0, |output| output.file.inner().capacity());
        written + self.open_fields().map(FieldWriter::memory).sum::<usize>()
    }

    fn finish(mut self, key_values: Vec<KeyValue>) -> Result<Vec<u8>> {
        self.end_row_group()?;
        let output = match self.output {
            Some(output) => output,
            None => Output::new(&self.format, self.format.properties.clone())?,
        };
        let mut file = output.file;
        for pair in key_values {
            file.append_key_value_metadata(pair);
        }
        file.into_inner()
    }

    fn memory_of(rows: &RecordBatch) -> usize {
        rows.get_array_memory_size()
    }
}

fn misfit() -> ParquetError {
    ParquetError::General("the rows have other columns than the file".to_owned())
}

impl OpenRowGroup {
    fn write(&mut self, format: &SegmentFormat, output: &Output, rows: &RecordBatch) -> Result<()> {
        let fields = format.schema.fields().iter().zip(rows.columns());
        for (open, (field, array)) in self.fields.iter_mut().zip(fields) {
            match &mut open.writer {
                FieldWriter::Arrow(writers) => write_leaves(writers, field, array)?,
                FieldWriter::Dictionary(column) => column.write(array)?,
                FieldWriter::Unchanging { value, rows } if Unchanging::of(array) == Some(*value) => {
                    *rows += array.len();
                }
                FieldWriter::Unchanging { value, rows } => {
                    let all = output.leaf_writers(format)?;
                    let mut writers: Vec<_> = all.skip(open.leaves.start).take(open.leaves.len()).collect();
                    for before in value.rows(field.data_type(), *rows) {
                        write_leaves(&mut writers, field, &before)?;
                    }
                    write_leaves(&mut writers, field, array)?;
                    open.writer = FieldWriter::Arrow(writers);
                }
            }
        }
        self.rows += rows.num_rows();
        Ok(())
    }
}

fn write_leaves(writers: &mut [LeafWriter], field: &Field, array: &ArrayRef) -> Result<()> {
    let leaves = compute_leaves(field, array)?;
    if leaves.len() != writers.len() {
        return Err(misfit());
    }
    writers.iter_mut().zip(&leaves).try_for_each(|(leaf, values)| leaf.writer.write(values))
}

impl FieldWriter {
    /// Bytes of pages, done or begun.
    fn size(&self) -> usize {
        match self {
            Self::Arrow(leaves) => leaves.iter().map(|leaf| leaf.writer.memory_size()).sum(),
            Self::Dictionary(column) => column.memory(),
            // A run.
            Self::Unchanging { .. } => 0,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Arrow(leaves) => self.size() + leaves.iter().map(|leaf| leaf.compressor).sum::<usize>(),
            Self::Dictionary(_) | Self::Unchanging { .. } => self.size(),
        }
    }
}

impl fmt::Debug for SegmentFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SegmentFile").field("memory", &self.memory()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
