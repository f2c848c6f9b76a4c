//! The column of what the writers know and the reader doesn't.

use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_buffer::NullBuffer;

use super::dictionary::text_array;
use super::take::hand_out;

/// JSON objects for the rows that have one; the others, as a rule all of them, cost nothing.
#[derive(Debug, Clone, Default)]
pub(in crate::decode) struct Extra {
    /// The objects of all rows back to back; behind the last entry, the one under construction.
    pub(in crate::decode) text: Vec<u8>,
    entries: Vec<Entry>,
}

/// The object of one row.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: usize,
    end: usize,
}

impl Extra {
    /// Makes all text behind the last entry the object of `row`.
    pub(in crate::decode) fn commit(&mut self, row: usize) {
        self.entries.push(Entry { row, end: self.text.len() });
    }

    /// Takes back the objects of the rows from `rows` on, and what was not committed.
    pub(in crate::decode) fn truncate(&mut self, rows: usize) {
        while self.entries.last().is_some_and(|entry| entry.row >= rows) {
            self.entries.pop();
        }
        self.text.truncate(self.committed());
    }

    /// Bytes of the committed objects.
    pub(in crate::decode) fn committed(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.end)
    }

    /// Hands the objects of `rows` rows out.
    pub(super) fn take(&mut self, rows: usize) -> ArrayRef {
        if self.entries.is_empty() {
            return Arc::new(StringArray::new_null(rows));
        }
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut validity = vec![false; rows];
        offsets.push(0);
        for entry in &self.entries {
            // Rows without an object repeat the offset before them.
            offsets.resize(entry.row + 1, offsets.last().copied().unwrap_or(0));
            offsets.push(entry.end as i32);
            validity[entry.row] = true;
        }
        offsets.resize(rows + 1, offsets.last().copied().unwrap_or(0));
        self.entries.clear();
        text_array(offsets, hand_out(&mut self.text), Some(NullBuffer::from(validity)))
    }

    pub(super) fn memory(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}
