//! Appending what is not there, taking rows back, and what a column weighs.

use arrow_buffer::i256;

use super::column::{Column, Data};

impl Column {
    /// Marks the row whose value was just appended as set.
    #[inline]
    pub(in crate::decode) fn mark_valid(&mut self) {
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
    }

    /// Appends a null. In a column without nulls, below a null record, it is a zero that nobody sees.
    #[inline]
    pub(in crate::decode) fn push_null(&mut self) {
        if let Some(validity) = &mut self.validity {
            validity.push(false);
        }
        match &mut self.data {
            Data::Double(values) => values.push(0.0),
            Data::Long(values) => values.push(0),
            _ => self.push_placeholder(),
        }
    }

    #[inline(never)]
    fn push_placeholder(&mut self) {
        match &mut self.data {
            Data::Null(rows) => *rows += 1,
            Data::Boolean(values) => values.push(false),
            Data::Int(values) => values.push(0),
            Data::Long(values) => values.push(0),
            Data::Float(values) => values.push(0.0),
            Data::Double(values) => values.push(0.0),
            Data::Decimal128(values) => values.push(0),
            Data::Decimal256(values) => values.push(i256::ZERO),
            Data::Fixed { size, bytes } => bytes.resize(bytes.len() + *size, 0),
            Data::Dictionary { keys, .. } | Data::Symbols { keys, .. } => keys.push(0),
            Data::Binary { offsets, .. }
            | Data::Utf8 { offsets, .. }
            | Data::List { offsets, .. }
            | Data::Map { offsets, .. } => offsets.push(last(offsets)),
            Data::Struct { rows, children } => {
                *rows += 1;
                for child in children {
                    child.push_null();
                }
            }
        }
    }

    /// Takes back all rows from `rows` on, whole or half appended.
    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        if let Some(validity) = &mut self.validity {
            validity.truncate(rows);
        }
        match &mut self.data {
            Data::Null(count) => *count = rows.min(*count),
            Data::Boolean(values) => values.truncate(rows),
            Data::Int(values) => values.truncate(rows),
            Data::Long(values) => values.truncate(rows),
            Data::Float(values) => values.truncate(rows),
            Data::Double(values) => values.truncate(rows),
            Data::Decimal128(values) => values.truncate(rows),
            Data::Decimal256(values) => values.truncate(rows),
            Data::Fixed { size, bytes } => bytes.truncate(rows.saturating_mul(*size)),
            Data::Symbols { keys, .. } => keys.truncate(rows),
            Data::Dictionary { keys, dictionary } => {
                keys.truncate(rows);
                dictionary.truncate(rows);
            }
            Data::Binary { offsets, bytes } => {
                offsets.truncate(rows.saturating_add(1));
                bytes.truncate(last(offsets) as usize);
            }
            Data::Utf8 { offsets, text } => {
                offsets.truncate(rows.saturating_add(1));
                text.truncate(last(offsets) as usize);
            }
            Data::List { offsets, items } => {
                offsets.truncate(rows.saturating_add(1));
                items.truncate(last(offsets) as usize);
            }
            Data::Map { offsets, keys, values } => {
                offsets.truncate(rows.saturating_add(1));
                keys.truncate(last(offsets) as usize);
                values.truncate(last(offsets) as usize);
            }
            Data::Struct { rows: count, children } => {
                *count = rows.min(*count);
                for child in children {
                    child.truncate(rows);
                }
            }
        }
    }

    /// Bytes held, used or not.
    pub(super) fn memory(&self) -> usize {
        let values = match &self.data {
            Data::Null(_) => 0,
            Data::Boolean(values) => bytes(values),
            Data::Int(values) => bytes(values),
            Data::Long(values) => bytes(values),
            Data::Float(values) => bytes(values),
            Data::Double(values) => bytes(values),
            Data::Decimal128(values) => bytes(values),
            Data::Decimal256(values) => bytes(values),
            Data::Fixed { bytes, .. } => bytes.capacity(),
            Data::Symbols { keys, .. } => bytes(keys),
            Data::Dictionary { keys, dictionary } => bytes(keys) + dictionary.memory(),
            Data::Binary { offsets, bytes: content } => bytes(offsets) + content.capacity(),
            Data::Utf8 { offsets, text } => bytes(offsets) + text.capacity(),
            Data::List { offsets, items } => bytes(offsets) + items.memory(),
            Data::Map { offsets, keys, values } => bytes(offsets) + keys.memory() + values.memory(),
            Data::Struct { children, .. } => children.iter().map(Column::memory).sum(),
        };
        values + self.validity.as_ref().map_or(0, Vec::capacity)
    }

    /// Bytes that one more row takes whatever it holds, at least 1. What is in a string or list comes on top.
    pub(in crate::decode) fn row_width(&self) -> usize {
        let values = match &self.data {
            Data::Null(_) | Data::Boolean(_) => 1,
            Data::Int(_)
            | Data::Float(_)
            | Data::Symbols { .. }
            | Data::Dictionary { .. }
            | Data::Binary { .. }
            | Data::Utf8 { .. }
            | Data::List { .. }
            | Data::Map { .. } => 4,
            Data::Long(_) | Data::Double(_) => 8,
            Data::Decimal128(_) => 16,
            Data::Decimal256(_) => 32,
            Data::Fixed { size, .. } => *size,
            Data::Struct { children, .. } => children.iter().map(Column::row_width).sum::<usize>().max(1),
        };
        values + usize::from(self.validity.is_some())
    }
}

fn bytes<T>(values: &Vec<T>) -> usize {
    values.capacity() * size_of::<T>()
}

/// The last offset; offsets always start with a zero.
#[inline]
pub(super) fn last(offsets: &[i32]) -> i32 {
    offsets.last().copied().unwrap_or(0)
}
