//! A column chunk in which nothing changes: the partition's number, a flag that is never set, a field that nobody sends.
//!
//! A third of an archive's columns are of this kind most of the time. The parquet crate's writers go through each of
//! their rows, and keep a compressor for each of them; here a batch costs a look at it, and a chunk is one page with one
//! run. As soon as something else comes, what came before is handed to such a writer.
//!
//! Pages as of parquet-format, `README.md` "Data Pages" and `Encodings.md`: version 1, repetition and definition levels
//! in front of the values.

use std::io::Write as _;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Int32Array, new_null_array};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, EncodingMask, PageType, Type};
use parquet::column::page::{CompressedPage, Page, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::dictionary_column::compress;
use super::hybrid;

/// Rows that are handed to another writer at a time.
const ROWS_AT_A_TIME: usize = 8_192;

/// What all rows of a field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unchanging {
    Null,
    Int32(i32),
    Boolean(bool),
}

impl Unchanging {
    /// `None` if the rows differ, or are of a type for which it would not pay.
    pub(super) fn of(array: &dyn Array) -> Option<Self> {
        if array.is_empty() {
            return None;
        }
        if array.null_count() > 0 {
            return (array.null_count() == array.len()).then_some(Self::Null);
        }
        match array.data_type() {
            DataType::Int32 => {
                let numbers = array.as_primitive::<Int32Type>().values();
                let first = *numbers.first()?;
                // Without an early end the compiler compares many at once.
                let others = numbers.iter().fold(0, |others, number| others | (number ^ first));
                (others == 0).then_some(Self::Int32(first))
            }
            DataType::Boolean => match array.as_boolean().true_count() {
                0 => Some(Self::Boolean(false)),
                count if count == array.len() => Some(Self::Boolean(true)),
                _ => None,
            },
            _ => None,
        }
    }

    /// So many rows of it as arrays, for a writer of changing ones.
    pub(super) fn rows(self, data_type: &DataType, rows: usize) -> impl Iterator<Item = ArrayRef> {
        let block: ArrayRef = match self {
            Self::Null => new_null_array(data_type, rows.min(ROWS_AT_A_TIME)),
            Self::Int32(number) => Arc::new(Int32Array::from_value(number, rows.min(ROWS_AT_A_TIME))),
            Self::Boolean(flag) => Arc::new(BooleanArray::from(vec![flag; rows.min(ROWS_AT_A_TIME)])),
        };
        (0..rows).step_by(ROWS_AT_A_TIME).map(move |done| block.slice(0, ROWS_AT_A_TIME.min(rows - done)))
    }
}

/// One leaf of such a field under construction.
#[derive(Debug)]
pub(super) struct UnchangingColumn {
    pub(super) value: Unchanging,
    pub(super) rows: usize,
    descriptor: ColumnDescPtr,
    /// For flags, whose page has a bit a row.
    compression: Compression,
}

impl UnchangingColumn {
    pub(super) fn new(descriptor: ColumnDescPtr, compression: Compression, value: Unchanging) -> Self {
        Self { value, rows: 0, descriptor, compression }
    }

    /// The chunk as bytes, and what the footer says of it.
    pub(super) fn close(self) -> Result<(Bytes, ColumnCloseResult)> {
        let compression = match self.value {
            Unchanging::Boolean(_) => self.compression,
            Unchanging::Null | Unchanging::Int32(_) => Compression::UNCOMPRESSED,
        };
        let mut file = TrackedWrite::new(Vec::new());
        let mut uncompressed_bytes = 0;
        let dictionary = self.dictionary();
        if let Some(dictionary) = &dictionary {
            let page = Page::DictionaryPage {
                buf: compress(compression, dictionary)?,
                num_values: 1,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let page = CompressedPage::new(page, dictionary.len());
            uncompressed_bytes += SerializedPageWriter::new(&mut file).write_page(page)?.uncompressed_size;
        }
        let data_offset = file.bytes_written() as i64;
        let body = self.body();
        let encoding = if dictionary.is_some() { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
        let page = Page::DataPage {
            buf: compress(compression, &body)?,
            num_values: self.rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let page = CompressedPage::new(page, body.len());
        let written = SerializedPageWriter::new(&mut file).write_page(page)?;
        uncompressed_bytes += written.uncompressed_size;
        file.flush()?;
        let length = file.bytes_written();
        let dictionary_offset = dictionary.map(|_| 0);
        let pages = |page_type, encoding| PageEncodingStats { page_type, encoding, count: 1 };
        let mut encodings = vec![pages(PageType::DATA_PAGE, encoding)];
        encodings.extend(dictionary_offset.map(|_: i64| pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN)));
        let used = encodings.iter().map(|pages| &pages.encoding).chain(&[Encoding::RLE]);
        let metadata = ColumnChunkMetaData::builder(Arc::clone(&self.descriptor))
            .set_compression(compression)
            .set_encodings_mask(EncodingMask::new_from_encodings(used))
            .set_page_encoding_stats(encodings.clone())
            .set_total_compressed_size(length as i64)
            .set_total_uncompressed_size(uncompressed_bytes as i64)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(data_offset)
            .set_dictionary_page_offset(dictionary_offset)
            .set_statistics(self.statistics())
            .build()?;
        let mut offset_index = OffsetIndexBuilder::new();
        offset_index.append_offset_and_size(data_offset, written.compressed_size as i32);
        offset_index.append_row_count(self.rows as i64);
        let result = ColumnCloseResult {
            bytes_written: length as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(offset_index.build()),
        };
        Ok((file.into_inner()?.into(), result))
    }

    /// Numbers are indices into a dictionary of one, whose run takes some bytes.
    fn dictionary(&self) -> Option<Vec<u8>> {
        match self.value {
            Unchanging::Int32(number) => Some(number.to_le_bytes().to_vec()),
            Unchanging::Null | Unchanging::Boolean(_) => None,
        }
    }

    /// Levels and values of all rows. A null of the field is a null of each of its leaves: level 0, without a value.
    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.descriptor.max_rep_level() > 0 {
            self.push_levels(0, self.descriptor.max_rep_level(), &mut body);
        }
        let max_def_level = self.descriptor.max_def_level();
        if max_def_level > 0 {
            let level = if self.value == Unchanging::Null { 0 } else { max_def_level };
            self.push_levels(level, max_def_level, &mut body);
        }
        match self.value {
            Unchanging::Null => {}
            Unchanging::Int32(_) => {
                let width = hybrid::width_for(1);
                body.push(width);
                hybrid::push_run(0, self.rows, width, &mut body);
            }
            Unchanging::Boolean(flag) => {
                body.resize(body.len() + self.rows.div_ceil(8), if flag { u8::MAX } else { 0 });
            }
        }
        body
    }

    fn push_levels(&self, level: i16, max_level: i16, out: &mut Vec<u8>) {
        let mut run = Vec::new();
        hybrid::push_run(level as u32, self.rows, hybrid::width_for(max_level as usize + 1), &mut run);
        out.extend_from_slice(&(run.len() as u32).to_le_bytes());
        out.append(&mut run);
    }

    fn statistics(&self) -> Statistics {
        let (mut number, mut flag, mut nulls) = (None, None, Some(0));
        match self.value {
            Unchanging::Null => nulls = Some(self.rows as u64),
            Unchanging::Int32(value) => number = Some(value),
            Unchanging::Boolean(value) => flag = Some(value),
        }
        match self.descriptor.physical_type() {
            Type::BOOLEAN => Statistics::boolean(flag, flag, None, nulls, false),
            Type::INT32 => Statistics::int32(number, number, None, nulls, false),
            Type::INT64 => Statistics::int64(None, None, None, nulls, false),
            Type::INT96 => Statistics::int96(None, None, None, nulls, false),
            Type::FLOAT => Statistics::float(None, None, None, nulls, false),
            Type::DOUBLE => Statistics::double(None, None, None, nulls, false),
            Type::BYTE_ARRAY => Statistics::byte_array(None, None, None, nulls, false),
            Type::FIXED_LEN_BYTE_ARRAY => Statistics::fixed_len_byte_array(None, None, None, nulls, false),
        }
    }
}
