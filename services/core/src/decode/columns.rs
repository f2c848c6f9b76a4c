//! The rows decoded so far, one growing column for each field of the reader's schema.

mod build;
mod change;
mod column;
mod count;
mod dictionary;
mod extra;
mod take;

pub use column::Column;

pub(super) use build::build;
pub(super) use column::Data;
pub(super) use extra::Extra;
pub(crate) use take::hand_out;

use std::sync::Arc;

use arrow_array::ArrayRef;

use super::DecodeLimits;

/// A record grows the columns by no more than so many times [`DecodeLimits::max_record_bytes`]: its body, what it
/// expands to, and its `_extra`.
const RECORD_FACTOR: usize = 2 + EXTRA_FACTOR;

/// `_extra` may be so many times larger than [`DecodeLimits::max_record_bytes`]: a control character takes six bytes
/// in JSON, a float up to six times its own.
pub(super) const EXTRA_FACTOR: usize = 8;

/// Rows under construction. Made by [`super::ReaderSchema::new_columns`], filled by [`super::Decoder::decode`].
#[derive(Debug, Clone)]
pub struct Columns {
    /// One for each field of the reader's schema, in order.
    pub(super) fields: Vec<Column>,
    /// What the writers know and the reader doesn't, as JSON.
    pub(super) extra: Extra,
    /// Whole rows. Within `decode` the columns may be ahead of it.
    pub(super) rows: usize,
    /// No less than the bytes that were appended since the last `take`.
    pub(super) grown: usize,
    /// Where `grown` must stop: offsets have 31 bits, and one record more must still fit.
    full_at: usize,
    /// The reader's schema: a decoder for another one must not write here.
    pub(super) reader: Arc<str>,
}

impl Columns {
    pub(super) fn new(fields: Vec<Column>, reader: Arc<str>) -> Self {
        Self { fields, extra: Extra::default(), rows: 0, grown: 0, full_at: 0, reader }
            .with_limits(&DecodeLimits::default())
    }

    /// The same columns for records within other limits.
    pub(super) fn with_limits(mut self, limits: &DecodeLimits) -> Self {
        let largest_record = limits.max_record_bytes.min(DecodeLimits::LARGEST_RECORD);
        self.full_at = i32::MAX as usize - largest_record * RECORD_FACTOR;
        self
    }

    /// The same columns, with dictionaries whose hash depends on `seed`, so that no producer can choose values that collide.
    /// It changes no output.
    #[must_use]
    pub fn with_hash_seed(mut self, seed: u64) -> Self {
        self.fields.iter_mut().for_each(|column| column.set_hash_seed(seed));
        self
    }

    /// Number of rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes back the rows from `rows` on, with all that they brought, dictionary values included.
    pub fn truncate(&mut self, rows: usize) {
        if rows >= self.rows {
            return;
        }
        self.roll_back(rows);
        if rows == 0 {
            // Where nothing but refused records come, nobody takes rows, and this would grow for ever.
            self.grown = 0;
        }
    }

    /// Cuts every column back, also those that are ahead of `self.rows`.
    pub(super) fn roll_back(&mut self, rows: usize) {
        self.rows = rows;
        for column in &mut self.fields {
            column.truncate(rows);
        }
        self.extra.truncate(rows);
    }

    /// The column of the field with that index in the reader's schema.
    ///
    /// # Panics
    /// If the schema has no such field.
    #[inline]
    pub fn column(&self, index: usize) -> &Column {
        &self.fields[index]
    }

    /// Hands the rows out and starts empty, with room for about as many.
    ///
    /// One array for each field of [`super::ReaderSchema::arrow_fields`], of exactly that type; and the `_extra`
    /// column, nullable Utf8. Values move, they are not copied.
    pub fn take(&mut self) -> (Vec<ArrayRef>, ArrayRef) {
        let arrays = self.fields.iter_mut().map(Column::take).collect();
        let extra = self.extra.take(self.rows);
        self.rows = 0;
        self.grown = 0;
        (arrays, extra)
    }

    /// Bytes held, room for more rows included. Walks the columns, not the rows.
    pub fn memory(&self) -> usize {
        self.fields.iter().map(Column::memory).sum::<usize>() + self.extra.memory()
    }

    /// No less than the bytes that the rows since the last [`Self::take`] have brought.
    #[inline]
    pub fn grown(&self) -> usize {
        self.grown
    }

    /// Whether [`Self::take`] must come before the next row, since the offsets of Arrow's arrays end at 2 GiB.
    ///
    /// That is after at least 1 GiB of growth, 2 GiB with small records; whoever takes more often than that need not ask.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.grown >= self.full_at
    }
}
