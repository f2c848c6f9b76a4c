//! A field in which nothing changes: the partition's number, a flag that is never set, a field that nobody sends.
//!
//! A third of an archive's columns are of this kind most of the time. The parquet crate's writers go through each of
//! their rows, and keep a compressor for each of them; here a batch costs a look at it, and a chunk is one page with one
//! run. As soon as something else comes, what came before is handed to such a writer.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Int32Array, new_null_array};
use arrow_schema::DataType;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescPtr;

use super::chunk::{Chunk, DataPage};
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

    /// The chunk of one of the field's leaves as bytes, and what the footer says of it. `compression`: for flags, whose page
    /// has a bit a row.
    pub(super) fn close(
        self,
        rows: usize,
        leaf: &ColumnDescPtr,
        compression: Compression,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        // Numbers are indices into a dictionary of one, whose run takes some bytes.
        let (compression, encoding, dictionary) = match self {
            Self::Null => (Compression::UNCOMPRESSED, Encoding::PLAIN, Vec::new()),
            Self::Int32(number) => (Compression::UNCOMPRESSED, Encoding::RLE_DICTIONARY, number.to_le_bytes().to_vec()),
            Self::Boolean(_) => (compression, Encoding::PLAIN, Vec::new()),
        };
        let nulls = if self == Self::Null { rows } else { 0 };
        let mut chunk = Chunk::new(Arc::clone(leaf), compression, false);
        chunk.add(&DataPage { body: &self.body(rows, leaf), rows, nulls, encoding, bounds: None })?;
        let statistics = self.statistics(leaf, chunk.nulls);
        chunk.close(&dictionary, 1, statistics)
    }

    /// Levels and values of all rows. A null of the field is a null of each of its leaves: level 0, without a value.
    fn body(self, rows: usize, leaf: &ColumnDescPtr) -> Vec<u8> {
        let (max_rep_level, max_def_level) = (leaf.max_rep_level(), leaf.max_def_level());
        let def_level = if self == Self::Null { 0 } else { max_def_level };
        let mut body = Vec::new();
        for (level, max_level) in [(0, max_rep_level), (def_level, max_def_level)] {
            if max_level > 0 {
                let width = hybrid::width_for(max_level as usize + 1);
                hybrid::push_with_length(&mut body, |body| hybrid::push_run(level as u32, rows, width, body));
            }
        }
        match self {
            Self::Null => {}
            Self::Int32(_) => {
                let width = hybrid::width_for(1);
                body.push(width);
                hybrid::push_run(0, rows, width, &mut body);
            }
            Self::Boolean(flag) => body.resize(body.len() + rows.div_ceil(8), if flag { u8::MAX } else { 0 }),
        }
        body
    }

    fn statistics(self, leaf: &ColumnDescPtr, nulls: u64) -> Statistics {
        let number = if let Self::Int32(number) = self { Some(number) } else { None };
        let flag = if let Self::Boolean(flag) = self { Some(flag) } else { None };
        let nulls = Some(nulls);
        match leaf.physical_type() {
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
