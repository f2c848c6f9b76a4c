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
use super::unchanging_column::{Unchanging, UnchangingColumn};

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
    /// In the order of the file's leaf columns.
    columns: Vec<ColumnWriter>,
    rows: usize,
}

enum ColumnWriter {
    Arrow {
        writer: Box<ArrowColumnWriter>,
        /// Bytes that it holds and does not know of.
        compressor: usize,
    },
    Dictionary(Box<DictionaryColumn>),
    Unchanging(UnchangingColumn),
}

impl Output {
    fn new(format: &SegmentFormat, properties: WriterProperties) -> Result<Self> {
        // Takes the Arrow schema into the footer, and gives the file away.
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&format.schema), Some(properties))?;
        let (file, arrow_columns) = writer.into_serialized_writer()?;
        Ok(Self { file, arrow_columns })
    }

    /// For a row group that begins with these rows.
    fn new_columns(&self, format: &SegmentFormat, rows: &RecordBatch) -> Result<Vec<ColumnWriter>> {
        let fields = format.schema.fields().iter().zip(rows.columns());
        let field_of_leaf = |leaf: &ColumnDescPtr| {
            let name = &leaf.path().parts()[0];
            fields.clone().find(|(field, _)| field.name() == name).ok_or_else(misfit)
        };
        let column = |(writer, leaf): (ArrowColumnWriter, &ColumnDescPtr)| {
            let (field, array) = field_of_leaf(leaf)?;
            let has_page_statistics = format.properties.statistics_enabled(leaf.path()) == EnabledStatistics::Page;
            if is_dictionary_of_strings(field) {
                let column = DictionaryColumn::new(Arc::clone(leaf), format.compression, has_page_statistics);
                return Ok(ColumnWriter::Dictionary(Box::new(column)));
            }
            let unchanging = Unchanging::of(array).filter(|_| !has_page_statistics);
            Ok(match unchanging {
                Some(value) => {
                    ColumnWriter::Unchanging(UnchangingColumn::new(Arc::clone(leaf), format.compression, value))
                }
                None => ColumnWriter::arrow(writer, format, leaf),
            })
        };
        self.arrow_writers()?.zip(self.leaves()).map(column).collect()
    }

    fn arrow_writers(&self) -> Result<impl Iterator<Item = ArrowColumnWriter>> {
        Ok(self.arrow_columns.create_column_writers(self.file.flushed_row_groups().len())?.into_iter())
    }

    fn leaves(&self) -> &[ColumnDescPtr] {
        self.file.schema_descr().columns()
    }

    fn append_row_group(&mut self, open: OpenRowGroup) -> Result<()> {
        let mut row_group = self.file.next_row_group()?;
        for column in open.columns {
            match column {
                ColumnWriter::Arrow { writer, .. } => writer.close()?.append_to_row_group(&mut row_group)?,
                ColumnWriter::Dictionary(column) => {
                    let (bytes, result) = column.close()?;
                    row_group.append_column(&bytes, result)?;
                }
                ColumnWriter::Unchanging(column) => {
                    let (bytes, result) = column.close()?;
                    row_group.append_column(&bytes, result)?;
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

    fn open_columns(&self) -> impl Iterator<Item = &ColumnWriter> {
        self.open.iter().flat_map(|open| &open.columns)
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
            None => OpenRowGroup { columns: output.new_columns(&self.format, rows)?, rows: 0 },
        };
        open.write(&self.format, output, rows)?;
        self.open = Some(open);
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        match (&mut self.output, self.open.take()) {
            (Some(output), Some(open)) => output.append_row_group(open),
            _ => Ok(()),
        }
    }

    fn size(&self) -> usize {
        let written = self.output.as_ref().map_or(0, |output| output.file.bytes_written());
        written + self.open_columns().map(ColumnWriter::size).sum::<usize>()
    }

    fn memory(&self) -> usize {
        let written = self.output.as_ref().map_or(0, |output| output.file.inner().capacity());
        written + self.open_columns().map(ColumnWriter::memory).sum::<usize>()
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
        let mut leaf = 0;
        for (field, array) in format.schema.fields().iter().zip(rows.columns()) {
            let leaves = leaf..leaf
                + output.leaves()[leaf..].iter().take_while(|of| of.path().parts()[0] == *field.name()).count();
            leaf = leaves.end;
            let columns = &mut self.columns[leaves.clone()];
            if let [ColumnWriter::Dictionary(column)] = columns {
                column.write(array)?;
            } else if !extend_unchanging(columns, array) {
                change(columns, leaves, field, format, output)?;
                write_arrow(columns, field, array)?;
            }
        }
        self.rows += rows.num_rows();
        Ok(())
    }
}

/// Appends rows to the leaves of a field that never changed, if they are like those before; whether they are.
fn extend_unchanging(columns: &mut [ColumnWriter], array: &ArrayRef) -> bool {
    let Some(ColumnWriter::Unchanging(first)) = columns.first() else { return false };
    if Unchanging::of(array) != Some(first.value) {
        return false;
    }
    for column in columns {
        if let ColumnWriter::Unchanging(column) = column {
            column.rows += array.len();
        }
    }
    true
}

/// From now on the leaves of a field may change, if they could not before.
fn change(
    columns: &mut [ColumnWriter],
    leaves: Range<usize>,
    field: &Field,
    format: &SegmentFormat,
    output: &Output,
) -> Result<()> {
    let Some(ColumnWriter::Unchanging(UnchangingColumn { value, rows, .. })) = columns.first() else { return Ok(()) };
    let before = value.rows(field.data_type(), *rows);
    let writers = output.arrow_writers()?.skip(leaves.start).zip(&output.leaves()[leaves]);
    for (column, (writer, leaf)) in columns.iter_mut().zip(writers) {
        *column = ColumnWriter::arrow(writer, format, leaf);
    }
    for array in before {
        write_arrow(columns, field, &array)?;
    }
    Ok(())
}

fn write_arrow(columns: &mut [ColumnWriter], field: &Field, array: &ArrayRef) -> Result<()> {
    let mut columns = columns.iter_mut();
    for leaf in compute_leaves(field, array)? {
        match columns.next() {
            Some(ColumnWriter::Arrow { writer, .. }) => writer.write(&leaf)?,
            _ => return Err(misfit()),
        }
    }
    Ok(())
}

impl ColumnWriter {
    fn arrow(writer: ArrowColumnWriter, format: &SegmentFormat, leaf: &ColumnDescPtr) -> Self {
        let is_compressed = format.properties.compression(leaf.path()) != Compression::UNCOMPRESSED;
        Self::Arrow { writer: Box::new(writer), compressor: if is_compressed { COMPRESSOR_BYTES } else { 0 } }
    }

    /// Bytes of pages, done or begun.
    fn size(&self) -> usize {
        match self {
            Self::Arrow { writer, .. } => writer.memory_size(),
            Self::Dictionary(column) => column.memory(),
            // A run.
            Self::Unchanging(_) => 0,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Arrow { compressor, .. } => self.size() + compressor,
            Self::Dictionary(_) | Self::Unchanging(_) => self.size(),
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
