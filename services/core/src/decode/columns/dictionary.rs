//! Strings that repeat, each kept once: the dictionary of a column, which lives across batches.
//!
//! Values are only checked for UTF-8 the first time they are seen, so a known sensor id costs one hash and one
//! comparison.

mod table;

use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use table::{Slot, Table, Words};

/// Above this many values, the dictionary starts afresh with the next batch.
const MOST_VALUES: usize = 1_000_000;

/// Above this many bytes of text, the dictionary starts afresh with the next batch.
const MOST_TEXT: usize = 32 << 20;

/// A dictionary this many times larger than a batch is cut down to the batch instead of being copied for it.
const COPY_FACTOR: usize = 4;

/// Values in the order in which they were first seen; a key is an index into them.
#[derive(Debug, Clone, Default)]
pub(in crate::decode) struct Dictionary {
    table: Table,
    text: String,
    /// Where each value ends in `text`.
    ends: Vec<u32>,
    /// The value looked up last: constant columns need no hash.
    last: Option<Slot>,
    /// For each value that is new in this batch, the row that brought it, so that it can be taken back with the row.
    fresh_rows: Vec<usize>,
    generation: u64,
    /// The values as Arrow has them, as of the last batch that needed them.
    shared: Option<ArrayRef>,
}

impl Dictionary {
    /// The key of `value`, which `row` holds; an error if it is not UTF-8.
    #[inline]
    pub(in crate::decode) fn intern(&mut self, value: &[u8], row: usize) -> Result<i32, std::str::Utf8Error> {
        let words = Words::of(value);
        if let Some(last) = self.last
            && last.words == words
            && self.is(last, value)
        {
            return Ok(last.key as i32);
        }
        if let Some(slot) = self.table.find(words, |slot| self.is(slot, value)) {
            self.last = Some(slot);
            return Ok(slot.key as i32);
        }
        self.add(value, words, row)
    }

    /// Whether the slot, whose words are those of `value`, really holds it.
    #[inline]
    fn is(&self, slot: Slot, value: &[u8]) -> bool {
        Words::are_exact(value) || self.bytes(slot.key as usize) == Some(value)
    }

    /// Whether `key` stands for `value`.
    #[inline]
    pub(super) fn is_text(&self, key: usize, value: &[u8]) -> bool {
        match self.last {
            // No look at the text: it is far from any cache.
            Some(last) if last.key as usize == key && Words::are_exact(value) => last.words == Words::of(value),
            _ => self.bytes(key) == Some(value),
        }
    }

    /// Begins to load what [`Self::intern`] will look at for `value`.
    #[inline]
    pub(super) fn prefetch(&self, value: &[u8]) {
        self.table.prefetch(Words::of(value));
    }

    /// Makes the places in the table depend on a number that producers do not know. Only for an empty dictionary.
    pub(super) fn seed(&mut self, seed: u64) {
        self.table = Table::new(seed);
    }

    #[cold]
    fn add(&mut self, value: &[u8], words: Words, row: usize) -> Result<i32, std::str::Utf8Error> {
        let value = std::str::from_utf8(value)?;
        let key = self.ends.len() as u32;
        let slot = Slot { words, key };
        self.text.push_str(value);
        self.ends.push(self.text.len() as u32);
        self.table.insert(slot);
        self.fresh_rows.push(row);
        self.last = Some(slot);
        Ok(key as i32)
    }

    /// Takes back the values that came with rows from `rows` on.
    pub(super) fn truncate(&mut self, rows: usize) {
        while self.fresh_rows.last().is_some_and(|row| *row >= rows) {
            self.fresh_rows.pop();
            let key = self.ends.len() - 1;
            let start = self.start(key);
            self.table.remove_last(Slot { words: Words::of(&self.text.as_bytes()[start..]), key: key as u32 });
            self.text.truncate(start);
            self.ends.pop();
            self.last = None;
        }
    }

    /// The values for a batch of `keys` as an Arrow array; may renumber `keys` to leave out what the batch lacks.
    ///
    /// A key is looked at only where `is_valid`.
    pub(super) fn share(&mut self, keys: &mut [i32], is_valid: impl Fn(usize) -> bool) -> ArrayRef {
        if let Some(shared) = &self.shared
            && shared.len() == self.ends.len()
        {
            return Arc::clone(shared);
        }
        if self.ends.len() > keys.len().saturating_mul(COPY_FACTOR) {
            return self.share_used(keys, is_valid);
        }
        let offsets = std::iter::once(0).chain(self.ends.iter().map(|end| *end as i32)).collect();
        let values = text_array(offsets, self.text.clone().into_bytes(), None);
        self.shared = Some(Arc::clone(&values));
        values
    }

    /// Copies only the values that `keys` use, and renumbers `keys` to match.
    fn share_used(&self, keys: &mut [i32], is_valid: impl Fn(usize) -> bool) -> ArrayRef {
        const UNUSED: i32 = -1;
        let mut renumbered = vec![UNUSED; self.ends.len()];
        let mut offsets = vec![0];
        let mut text = Vec::new();
        for (row, key) in keys.iter_mut().enumerate() {
            if !is_valid(row) {
                *key = 0;
                continue;
            }
            let new = &mut renumbered[*key as usize];
            if *new == UNUSED {
                *new = offsets.len() as i32 - 1;
                text.extend_from_slice(self.bytes(*key as usize).unwrap_or_default());
                offsets.push(text.len() as i32);
            }
            *key = *new;
        }
        text_array(offsets, text, None)
    }

    /// Ends a batch: its values stay, unless there are too many of them.
    pub(super) fn end_batch(&mut self) {
        self.fresh_rows.clear();
        if self.ends.len() > MOST_VALUES || self.text.len() > MOST_TEXT {
            let table = Table::new(self.table.seed());
            *self = Self { generation: self.generation + 1, table, ..Self::default() };
        }
    }

    /// The value of a key.
    #[inline]
    pub(super) fn get(&self, key: usize) -> Option<&str> {
        self.text.get(self.start(key)..*self.ends.get(key)? as usize)
    }

    /// How many bytes the value of a key has.
    #[inline]
    pub(super) fn bytes_of(&self, key: usize) -> Option<usize> {
        Some(*self.ends.get(key)? as usize - self.start(key))
    }

    #[inline]
    fn bytes(&self, key: usize) -> Option<&[u8]> {
        self.text.as_bytes().get(self.start(key)..*self.ends.get(key)? as usize)
    }

    #[inline]
    fn start(&self, key: usize) -> usize {
        if key == 0 { 0 } else { self.ends.get(key - 1).map_or(0, |end| *end as usize) }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How often the dictionary started afresh.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |shared| shared.get_buffer_memory_size());
        self.table.memory()
            + self.text.capacity()
            + self.ends.capacity() * size_of::<u32>()
            + self.fresh_rows.capacity() * size_of::<usize>()
            + shared
    }
}

/// A Utf8 array of text that was checked when it came in.
pub(super) fn text_array(offsets: Vec<i32>, text: Vec<u8>, nulls: Option<arrow_buffer::NullBuffer>) -> ArrayRef {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let array = StringArray::try_new(offsets, Buffer::from_vec(text), nulls);
    Arc::new(array.expect("text is checked before it is appended"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Array;
    use arrow_array::cast::AsArray;

    #[test]
    fn values_of_every_length_are_told_apart() {
        let mut dictionary = Dictionary::default();
        let long: String = ('a'..='z').collect();
        let mut values: Vec<String> = (0..=26).map(|length| long[..length].to_owned()).collect();
        for length in 1..=26 {
            for at in 0..length {
                let mut changed = long[..length].to_owned();
                changed.replace_range(at..=at, "X");
                values.push(changed);
            }
        }
        for round in 0..2 {
            for (key, value) in values.iter().enumerate() {
                assert_eq!(dictionary.intern(value.as_bytes(), round), Ok(key as i32), "{value}");
            }
        }
    }

    #[test]
    fn values_come_back_by_key_and_go_with_their_rows() {
        let mut dictionary = Dictionary::default();
        let keys: Vec<_> = ["a", "bb", "a", "", "ccc"]
            .iter()
            .enumerate()
            .map(|(row, value)| dictionary.intern(value.as_bytes(), row))
            .collect();
        assert_eq!(keys, [Ok(0), Ok(1), Ok(0), Ok(2), Ok(3)]);
        assert!(dictionary.intern(&[0xff], 5).is_err());
        dictionary.truncate(3);
        assert_eq!((dictionary.len(), dictionary.get(1), dictionary.get(2)), (2, Some("bb"), None));
        assert_eq!(dictionary.intern(b"ccc", 3), Ok(2));
        dictionary.end_batch();
        dictionary.truncate(0);
        assert_eq!(dictionary.len(), 3);
    }

    #[test]
    fn a_small_batch_gets_only_its_own_values() {
        let mut dictionary = Dictionary::default();
        for value in 0..100 {
            assert_eq!(dictionary.intern(format!("sensor-{value}").as_bytes(), value), Ok(value as i32));
        }
        let mut keys = [70, 0, 70, 99];
        let values = dictionary.share(&mut keys, |row| row != 1);
        assert_eq!(keys, [0, 0, 0, 1]);
        assert_eq!(values.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["sensor-70", "sensor-99"]);
        let mut all: Vec<_> = (0..100).collect();
        assert_eq!(dictionary.share(&mut all, |_| true).len(), 100);
        // From now on the whole dictionary is at hand, so it is shared without a copy.
        let mut keys = [70];
        assert_eq!((dictionary.share(&mut keys, |_| true).len(), keys), (100, [70]));
    }
}
